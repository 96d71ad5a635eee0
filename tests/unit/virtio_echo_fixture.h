/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of vmm/virtio/virtio_mmio.c: a device that copies the readable part of a buffer,
 * inverted, to the writable part, and may be told to hang or fail.
 */
#ifndef VIRTIO_ECHO_FIXTURE_H
#define VIRTIO_ECHO_FIXTURE_H

#include <sched.h>

#include "virtio_fixture.h"

#define ALL_RING (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX)

struct echo {
	atomic_bool hang;   /* until cancelled */
	atomic_uint hanging, served, dropped;
	atomic_int fail;
};

struct fixture {
	struct vx x;
	struct echo d;
	struct virtio_mmio v;
};

int open_with(struct fixture *f, bool threaded);
int setup_as(void **state, bool threaded);
int teardown(void **state);
/* A buffer: head i, 8 bytes out, 8 bytes in. */
void offer(struct vx *x, unsigned i, uint64_t value);
void expect_echo(struct vx *x, unsigned i, uint64_t value);

#endif
