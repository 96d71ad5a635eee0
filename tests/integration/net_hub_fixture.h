/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network source without a VM: its reads are made, cancelled and awaited by the test, as many at
 * a time as it likes. The test's lock stands for the VM's.
 */
#ifndef TESTS_INTEGRATION_NET_HUB_FIXTURE_H
#define TESTS_INTEGRATION_NET_HUB_FIXTURE_H

#include "net_fixture.h"

#include <dirent.h>

#include "net/hub.h"
#include "source/source.h"

#define HUB_READS 512u

struct hub_read {
	struct src_read rd;
	unsigned order; /* of its end, from 1; 0: it has not come */
	int code;
	char why[ERR_TEXT_MAX];
	struct hub *hub;
};

struct hub {
	pthread_mutex_t lock;
	pthread_cond_t woken;
	bool wake; /* under `state`, which the loop's thread takes */
	pthread_mutex_t state;
	struct net_hub *net;
	struct src *src;
	struct hub_read reads[HUB_READS];
	unsigned count, over;
};

void hub_open(struct hub *h, const char *uri);
/* It must not open, and says why. */
void hub_refused(const char *uri, int code, const char *says);
/* Handed over by hub_pump alone: many at once. */
struct hub_read *hub_read(struct hub *h, uint64_t offset, uint32_t len, bool urgent);
/* Until that many have ended. */
void hub_wait(struct hub *h, unsigned over);
/* All reads are over, and right where they did not fail. */
void hub_check(struct hub *h, const unsigned char *image);
/* So many pages of which none is another's neighbour, the first of h, at once: all come. */
void hub_read_well(struct hub *h, unsigned count, const unsigned char *image);
/* Once its last reads are over and their connections at rest: nothing happens for a while. */
void hub_is_idle(void);
void hub_close(struct hub *h);

#endif
