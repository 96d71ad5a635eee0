/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a network device sends its frames to and has them from: a tap, a network in user space, a
 * test's. A frame begins with the header of virtio 1.2, 5.1.6, NET_HEADER_BYTES long, which tells
 * of checksums and segments that are still to be made.
 *
 * Threads: all calls but open and close by the device's worker.
 */
#ifndef VMM_VIRTIO_NET_BACKEND_H
#define VMM_VIRTIO_NET_BACKEND_H

#include <stdbool.h>
#include <sys/uio.h>

#include "base/types.h"

#define NET_MAC_BYTES 6u
#define NET_HEADER_BYTES 12u
#define NET_ETHERNET_BYTES 14u
/* The longest frame: 64 KiB of IP that are still to be cut, Ethernet with a tag, the header. */
#define NET_FRAME_MAX (NET_HEADER_BYTES + NET_ETHERNET_BYTES + 4u + 65535u)

/* Features of the device's that are up to the backend, 5.1.3. */
#define NET_F_CSUM (1ull << 0)
#define NET_F_GUEST_CSUM (1ull << 1)
#define NET_F_GUEST_TSO4 (1ull << 7)
#define NET_F_GUEST_TSO6 (1ull << 8)
#define NET_F_GUEST_ECN (1ull << 9)
#define NET_F_HOST_TSO4 (1ull << 11)
#define NET_F_HOST_TSO6 (1ull << 12)
#define NET_F_HOST_ECN (1ull << 13)

enum net_ready {
	NET_CAN_RECEIVE = 1,
	NET_CAN_SEND = 2,
	NET_WOKEN = 4,
};

struct net_backend_ops {
	/*
	 * From now on frames are as these features want them, those that wait among them, or they
	 * are lost. 0 or -Exxx: that cannot be had any more.
	 */
	int (*features_set)(void *ctx, uint64_t features);
	/*
	 * One frame of len bytes goes out, from guest memory. 0; -EAGAIN: not now, `wait` will
	 * tell; -EFAULT: memory could not be had; -ENODEV: never again; others: it is lost.
	 */
	int (*send)(void *ctx, const struct iovec *v, unsigned count, size_t len);
	/*
	 * One frame comes in, to guest memory; returns its length, which is above what v has room
	 * for if the rest of it is lost. Bytes 10 and 11 of the header are left to the caller.
	 * -EAGAIN: there is none, `wait` will tell; others as above.
	 */
	ssize_t (*receive)(void *ctx, const struct iovec *v, unsigned count);
	/*
	 * Does what else there is to do, until wake_fd (an eventfd, which is left as it is) is
	 * readable, one of `want` is true or the time has come (CLOCK_MONOTONIC). Returns what is
	 * true, of enum net_ready; NET_WOKEN: wake_fd is readable.
	 */
	unsigned (*wait)(void *ctx, int wake_fd, unsigned want, uint64_t until_ns);
};

struct net_backend {
	const struct net_backend_ops *ops;
	void *ctx;
	uint64_t features;       /* that the device may offer */
	uint32_t frame_max;      /* without header; few that come in are longer, segments aside */
	bool answers;            /* a turn of its own brings what comes of what was sent */
};

#endif
