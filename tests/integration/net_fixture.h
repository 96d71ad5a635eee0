/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of network sources have in common: the small guest from one, a VM whose memory is
 * read by a thread while the test deals with the server.
 */
#ifndef TESTS_INTEGRATION_NET_FIXTURE_H
#define TESTS_INTEGRATION_NET_FIXTURE_H

#include "small_fixture.h"

#include <pthread.h>
#include <time.h>

#include "services/service.h"
#include "vm_fixture.h"

#define NET_PAGES 512u
#define NET_BYTES (NET_PAGES * PAGE_BYTES)

/* The fixture's image as it is, to be freed. */
unsigned char *net_image(const struct fix *f);
void net_run(struct fix *f, const char *uri, uint32_t block_bytes);
void net_moment(void);

/* ---- memory that a thread reads ---- */

struct net_vm {
	struct vm v;
	uint64_t at, bytes;
	unsigned char *got;
	int rc;
	bool over; /* atomic */
	pthread_t thread;
	unsigned pauses, resumes; /* atomic */
	char paused[320];
};

void net_vm_open(struct net_vm *n);
/* The source behind the second half of RAM, NET_BYTES of it. */
void net_vm_start(struct net_vm *n, const char *uri);
void net_read_begin(struct net_vm *n, uint64_t at, uint64_t bytes);
void net_read_end(struct net_vm *n, const unsigned char *image);
void net_read(struct net_vm *n, uint64_t at, uint64_t bytes, const unsigned char *image);
void net_wait_paused(struct net_vm *n);
void net_vm_close(struct net_vm *n);
#endif
