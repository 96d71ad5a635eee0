/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A socket device (virtio 1.2, 5.10): packets between the guest's rings and vsock_mux.h, which
 * knows the connections. Streams only.
 *
 * Threads: the worker of its virtio_mmio has the connections, and waits for its sockets and the
 * driver alike. Test: tests/unit/virtio_vsock_test.c; tests/fuzz/vsock_fuzz.c.
 */
#ifndef VMM_VIRTIO_VSOCK_H
#define VMM_VIRTIO_VSOCK_H

#include "base/err.h"
#include "vmm/virtio/device_stats.h"
#include "vmm/virtio/virtio_mmio.h"
#include "vmm/virtio/vsock_mux.h"

struct virtio_vsock_cfg {
	uint32_t cid;     /* of the guest, VSOCK_CID_MIN to VSOCK_CID_MAX */
	const char *path; /* shorter than VSOCK_PATH_MAX */
	int listen_fd;    /* non-blocking, bound to path; borrowed until close */
	const struct guest_mem *mem; /* borrowed until close */
	struct vsock_pause pause;
	struct irq_line irq;
	bool threaded;
	const char *name; /* of the worker; borrowed until close */
};

struct virtio_vsock {
	struct virtio_mmio mmio;
	int wake_fd;
	/* What the worker has yet to tell the mux. */
	atomic_bool was_reset;
	_Atomic uint32_t restored; /* its next port; 0: it was not */
	/* Of the worker. */
	unsigned served; /* packets since the sockets were looked at */
	bool says_lost;  /* the driver is to hear that its connections are gone */
	struct virtq_chain chain;
	struct vsock_mux mux;
};

int virtio_vsock_open(struct virtio_vsock *s, const struct virtio_vsock_cfg *c, struct err *e);
/* As virtio_mmio_close; connections end. */
void virtio_vsock_close(struct virtio_vsock *s);

/* Without a worker thread: looks at the sockets for no longer than that. */
void virtio_vsock_look(struct virtio_vsock *s, int timeout_ms);

/* What a snapshot has of it beside its mmio: connections do not come along. */
struct vsock_saved {
	uint32_t cid;
	uint32_t next_port; /* of the host, for a connection to the guest */
};

/* Any thread. */
void virtio_vsock_save(const struct virtio_vsock *s, struct vsock_saved *ret);
/*
 * Before its mmio's, into one that was just made, with whatever address; `after` it: both sides of
 * virtio_mmio_restore. Its driver is told that its connections are gone (5.10.6.7), and reads its
 * address anew.
 */
void virtio_vsock_restore(struct virtio_vsock *s, const struct vsock_saved *from);
void virtio_vsock_restored(struct virtio_vsock *s, const struct vsock_saved *from);

/* Any thread. */
void virtio_vsock_stats_get(struct virtio_vsock *s, struct vsock_stats *ret);
void virtio_vsock_device_stats(struct virtio_vsock *s, struct device_stats *ret);

#endif
