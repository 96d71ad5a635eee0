/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of vmm/virtio/virtio_blk.c: a disk whose first bytes of each sector are its number,
 * in a file, behind functions that count, fail and wait when told to; and requests to it.
 */
#ifndef VIRTIO_BLK_FIXTURE_H
#define VIRTIO_BLK_FIXTURE_H

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio_fixture.h"
#include "vmm/virtio/virtio_blk.h"

#define SECTORS 512u
#define BYTES (SECTORS * 512u)
#define HEADER 0x9000u
#define STATUS 0x9100u
#define TABLE 0xa000u
#define NOTHING 0x77 /* status byte before the device writes it */

#define F_FLUSH (1ull << 9)
#define F_RING (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX)

enum { T_IN, T_OUT, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZERO = 13 };
enum { S_OK, S_IOERR, S_UNSUPP };

/* A backing that counts, fails and waits when told to, in front of another. */
struct flaky {
	struct blk_backing inner;
	unsigned calls, flushes;
	unsigned fail_at; /* this call fails, counted from 1; 0: none */
	atomic_bool *wanted; /* set by the call that fails; NULL: nothing is */
	atomic_bool wait;
};

struct fixture {
	struct vx x;
	struct flaky flaky;
	struct blk_file file;
	struct virtio_blk *b;
	char path[64];
	int fd; /* of the same file */
	uint32_t used_len;
};

int setup_limited(void **state, bool read_only, bool threaded, struct virtio_limits limits);
int setup_as(void **state, bool read_only, bool threaded);
int teardown(void **state);
/* Header, data in `pieces` descriptors at VX_DATA, status; direct or in a table. */
void offer(struct fixture *f, uint32_t type, uint64_t sector, uint32_t len, bool in,
	   unsigned pieces, bool indirect);
int finish(struct fixture *f);
int request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t len, bool in);
void put_range(struct fixture *f, unsigned i, uint64_t sector, uint32_t sectors, uint32_t flags);

#endif
