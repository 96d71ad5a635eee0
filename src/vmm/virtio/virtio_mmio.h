/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The register page of one virtio device (virtio 1.2, 4.2, version 2) and the worker that
 * serves its queues. Decides what the driver may negotiate, when a ring is used, when an
 * interrupt is raised, and that a ring which breaks the rules costs the driver a device
 * reset (DEVICE_NEEDS_RESET) and nobody else anything. What the device does with a buffer is
 * up to struct virtio_dev_ops.
 *
 * Threads: register accesses come from any vCPU thread. Queues are served by the device's
 * worker thread, so that no vCPU waits for a disk or for absent memory; or, opened without
 * one, by whoever calls virtio_mmio_work(). Guest memory is touched there only, and guarded
 * (guest_touch.h): if that fails, the device needs a reset, and nobody else is concerned. A
 * vCPU that resets the device, or takes a queue away, waits until the request in hand is
 * finished or dropped.
 * Tests: tests/unit/virtio_mmio_test.c, virtio_worker_test.c.
 */
#ifndef VMM_VIRTIO_MMIO_H
#define VMM_VIRTIO_MMIO_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/rate.h"
#include "vmm/chip/bus.h"
#include "vmm/chip/irq.h"
#include "vmm/memory/guest_mem.h"
#include "vmm/virtio/device_stats.h"
#include "vmm/virtio/virtio_queue.h"

#define VIRTIO_MMIO_BYTES 0x200u /* of the bus: registers, then configuration space */
#define VIRTIO_CONFIG_BYTES 0x100u
#define VIRTIO_QUEUES_MAX 5u
#define VIRTIO_SAVED_QUEUES 8u /* of devices to come, too */

/* Device status (2.1). */
enum virtio_status {
	VIRTIO_ACKNOWLEDGE = 0x01,
	VIRTIO_DRIVER = 0x02,
	VIRTIO_DRIVER_OK = 0x04,
	VIRTIO_FEATURES_OK = 0x08,
	VIRTIO_NEEDS_RESET = 0x40,
	VIRTIO_FAILED = 0x80,
};

/* Interrupt status (4.2.2). */
enum virtio_interrupt {
	VIRTIO_INT_USED = 0x1,
	VIRTIO_INT_CONFIG = 0x2,
};

struct virtio_request {
	const struct virtq_chain *chain;
	/* Set when the device is to be reset or closed: end soon, with -ECANCELED. */
	const atomic_bool *cancelled;
	uint64_t features; /* negotiated */
};

struct virtio_dev_ops {
	uint32_t device_id; /* 5 */
	unsigned queues;    /* at most VIRTIO_QUEUES_MAX */
	/*
	 * Does what a buffer asks for. Worker thread, no lock held, may block. 0: done, and
	 * *ret_written bytes from the start of the writable part are there. -ECANCELED: dropped
	 * because of `cancelled`. VIRTQ_MALFORMED and any other failure: the device needs a
	 * reset. A touch of guest memory that fails ends the call where it is (guest_touch.h).
	 */
	int (*request)(void *dev, unsigned queue, const struct virtio_request *rq,
		       uint32_t *ret_written);
	/*
	 * Instead of `request`, for a device that decides by itself what it takes from a queue and
	 * when (rq->chain is NULL): does some of what there is. 1: there may be more to do; 0:
	 * nothing now, until the driver notifies (virtq_rearm) or virtio_mmio_kick() is called.
	 * *ret_tell: the driver wants an interrupt for what was pushed, which it has when there is
	 * nothing else to do at once, or there are many. Otherwise as `request`.
	 */
	int (*serve)(void *dev, unsigned queue, struct virtq *ring,
		     const struct virtio_request *rq, bool *ret_tell);
	/*
	 * For a device that waits for more than its driver; both or neither. wait: until wake is
	 * called or something has come from elsewhere, by the worker with no lock held; wake: any
	 * thread, under the device's lock, at most once for each wait.
	 */
	void (*wait)(void *dev);
	void (*wake)(void *dev);
	/*
	 * The driver has taken a queue away, or reset the device: what the device holds of that
	 * queue's buffers is void. No request is in hand. Any vCPU's thread, under the device's
	 * lock. NULL: the device holds nothing.
	 */
	void (*stopped)(void *dev, unsigned queue);
	/*
	 * The driver writes [off, off + width) of the configuration space. True: that is kept, and
	 * can be read there. Any vCPU's thread, under the device's lock. NULL: no field is the
	 * driver's to write.
	 */
	bool (*config_write)(void *dev, uint64_t off, unsigned width, uint32_t value);
};

/* What the device's driver may have; 0: as much as it can. */
struct virtio_limits {
	uint64_t bytes_per_s;
	uint64_t requests_per_s;
};

/* The first thing that a worker does. */
typedef void (*virtio_begins)(void *ctx);

struct virtio_mmio_cfg {
	const struct virtio_dev_ops *ops;
	void *dev;
	const struct guest_mem *mem;
	struct irq_line irq;
	uint64_t features;  /* of the device; those of ring and transport are added */
	const void *config; /* initial configuration space, copied */
	size_t config_len;
	bool threaded;      /* false: virtio_mmio_work() does it */
	const char *name;   /* of the thread, 15 bytes */
	struct virtio_limits limits;
	virtio_begins begins; /* NULL: nothing */
	void *begins_ctx;
};

struct virtio_mmio_queue {
	struct virtq ring;
	bool ready;
	bool kicked; /* notified, not yet served */
};

struct virtio_mmio {
	struct virtio_mmio_cfg cfg;
	pthread_t thread;
	atomic_bool cancelled; /* read by the request in hand */
	struct virtq_chain chain; /* of the server */
	struct rate bytes, requests; /* of the server: what cfg.limits leaves */
	struct { /* written by the server, read by anybody */
		_Atomic uint64_t requests;
		_Atomic uint64_t throttled_ns;
		_Atomic uint64_t throttled_since_ns; /* 0: it is not held back now */
	} count;

	pthread_mutex_t lock; /* covers the rest */
	pthread_cond_t changed; /* work for the worker, or `busy` has ended */
	bool busy;    /* a queue is being served: rings and chain belong to the server */
	unsigned untold; /* pushed, and the driver wants to hear of it; the server's, while busy */
	bool closing;
	unsigned turn; /* whose it is first, of queues that wait to be served */
	bool waits;   /* the worker is in ops->wait, or about to be */
	unsigned waiting_idle; /* threads that want busy to end; the server does not go on */
	uint32_t status;
	uint32_t interrupts;
	uint32_t generation;
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	uint64_t driver_features;
	uint8_t config[VIRTIO_CONFIG_BYTES];
	struct virtio_mmio_queue queues[VIRTIO_QUEUES_MAX];
	uint64_t resets_needed; /* rings that broke the rules, touches that failed */
};

/*
 * Everything that cfg points to is borrowed until close, config excepted. v is the caller's
 * and does not move. Starts the worker thread with every signal but SIGBUS blocked.
 */
int virtio_mmio_open(struct virtio_mmio *v, const struct virtio_mmio_cfg *cfg, struct err *e);

/*
 * For one that was opened without: the worker of its own, before the guest runs. 0 or -Exxx. begins
 * as in virtio_mmio_cfg.
 */
int virtio_mmio_start(struct virtio_mmio *v, virtio_begins begins, void *ctx, struct err *e);

/*
 * Ends the worker: the request in hand is finished or dropped, the others are not begun.
 * vCPU threads must not access the device any more. Waits for guest memory, unless apf_stop was
 * called, and for the backing file as long as they make the request wait. NULL, or all zeroes, is
 * harmless.
 */
void virtio_mmio_close(struct virtio_mmio *v);

/*
 * For ops->request: waits as long as cfg.limits want it before `requests` more and `bytes` more,
 * which are taken then. 0, or -ECANCELED: the request in hand is to be dropped.
 */
int virtio_mmio_throttle(struct virtio_mmio *v, uint64_t requests, uint64_t bytes);
/* The same without waiting: the requests go now, and what comes after them waits for it. */
void virtio_mmio_charge(struct virtio_mmio *v, uint64_t requests);

/* All but the bytes, which are the device's to tell. Until close; any thread. */
void virtio_mmio_stats_get(struct virtio_mmio *v, struct device_stats *ret);

/* As if the driver had notified of that queue: its device has something for it. Any thread. */
void virtio_mmio_kick(struct virtio_mmio *v, unsigned queue);

/* The driver has set the device up, and neither side has given it up. Any thread. */
bool virtio_mmio_is_driven(struct virtio_mmio *v);

/* Without a worker thread: serves what is pending. True: there was something. */
bool virtio_mmio_work(struct virtio_mmio *v);

/* Changes the configuration space and tells the driver. Any thread. */
void virtio_mmio_config_set(struct virtio_mmio *v, size_t off, const void *bytes, size_t len);

/*
 * Until release no request is begun, and none is in hand: one that was is finished, or dropped to
 * be begun anew. Waits for the backing file, not for guest memory that can be had; its first half,
 * begin, does not wait. Any thread.
 */
void virtio_mmio_hold_begin(struct virtio_mmio *v);
void virtio_mmio_hold_wait(struct virtio_mmio *v);
static inline void virtio_mmio_hold(struct virtio_mmio *v)
{
	virtio_mmio_hold_begin(v);
	virtio_mmio_hold_wait(v);
}
void virtio_mmio_release(struct virtio_mmio *v);

/* What a snapshot has of a device: its registers and where it is in its rings. */
struct virtio_mmio_saved {
	uint32_t status, interrupts, generation;
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	uint64_t driver_features;
	uint8_t config[VIRTIO_CONFIG_BYTES];
	struct {
		uint32_t size;
		uint8_t ready, kicked;
		uint16_t avail_next, used_next;
		uint8_t zero[6];
		uint64_t desc, avail, used;
	} queues[VIRTIO_SAVED_QUEUES];
};

/* Between hold and release. */
void virtio_mmio_save(struct virtio_mmio *v, struct virtio_mmio_saved *ret);
/*
 * Into one that was just made, of the same kind. 0; -ENOTSUP: it offers less than the driver took;
 * -EINVAL: no device is in that state. Drives its line, and serves what its rings hold.
 */
int virtio_mmio_restore(struct virtio_mmio *v, const struct virtio_mmio_saved *from);

/* For bus_add() with VIRTIO_MMIO_BYTES; dev is the struct virtio_mmio. */
extern const struct bus_ops virtio_mmio_bus_ops;

#endif
