/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memory balloon (virtio 1.2, 5.5): the driver gives pages back when it is asked to (inflates),
 * and tells by itself which pages are free (reporting). What it gives is discarded through a hook,
 * which makes it zeroes that take no memory; to have a page again the guest just touches it, so
 * that nothing is to be done when it deflates.
 *
 * All of it is the driver's word: page numbers that are no RAM are counted and passed over, a
 * page given twice is given once, one that the guest still uses is its own loss. A guest that
 * wants its free pages to hold anything but zeroes (page poison) keeps them.
 *
 * Hinting for migration is offered, as drivers number the queues behind it differently where it
 * is not, and never asked for.
 *
 * Threads: buffers are served by the worker of its virtio_mmio. Test:
 * tests/unit/virtio_balloon_test.c; tests/fuzz/balloon_fuzz.c.
 */
#ifndef VMM_VIRTIO_BALLOON_H
#define VMM_VIRTIO_BALLOON_H

#include "base/err.h"
#include "vmm/virtio/device_stats.h"
#include "vmm/virtio/virtio_mmio.h"

/*
 * [gpa, gpa + len), pages of RAM of one range, is zeroes from now on and takes no memory. 0, or
 * -Exxx: it is as it was, or zeroes; -EINTR: the VM is being ended. The worker; may block.
 */
typedef int (*virtio_balloon_discard)(void *ctx, gpa_t gpa, uint64_t len);

struct virtio_balloon_cfg {
	virtio_balloon_discard discard;
	void *ctx;
	const struct guest_mem *mem; /* borrowed until close */
	struct irq_line irq;
	bool threaded;
	const char *name;      /* of the worker; borrowed until close */
	uint64_t target_bytes; /* what the driver is asked for when it comes */
};

#define BALLOON_BATCH 256u /* page numbers that are looked at together */
#define BALLOON_TAGS 10u   /* of statistics that we know */
#define BALLOON_NO_HEAD UINT32_MAX

struct virtio_balloon {
	struct virtio_mmio mmio;
	virtio_balloon_discard discard;
	void *ctx;
	/* Of the worker; `held` also of `stopped`, when the worker serves nothing. */
	struct virtq_chain chain;
	uint32_t pages[BALLOON_BATCH];
	uint32_t held; /* head of the buffer that the next statistics come in */
	/* Any thread. */
	_Atomic uint32_t target, actual, poison; /* pages, pages, and the driver's pattern */
	_Atomic uint64_t inflated, reported; /* bytes */
	_Atomic uint64_t refused;            /* pages */
	atomic_bool refresh; /* the held buffer is to be given back */

	pthread_mutex_t lock; /* covers the rest; never held while guest memory is touched */
	pthread_cond_t told;
	uint64_t tags[BALLOON_TAGS];
	uint64_t told_ns; /* when; 0: never */
	uint64_t asked_ns; /* when, of what is not answered, or was last; 0: never */
};

int virtio_balloon_open(struct virtio_balloon *b, const struct virtio_balloon_cfg *c,
			struct err *e);
/* As virtio_mmio_close. */
void virtio_balloon_close(struct virtio_balloon *b);

/* What the guest is asked to give, in whole pages, rounded down. Any thread. */
void virtio_balloon_target_set(struct virtio_balloon *b, uint64_t bytes);
uint64_t virtio_balloon_target(struct virtio_balloon *b);
/* What the driver says that it has given. Any thread. */
uint64_t virtio_balloon_actual(struct virtio_balloon *b);

/*
 * Asks the guest for new statistics and waits for them no longer than wait_ns; not at all where it
 * has not answered what it was asked before. Any thread.
 */
void virtio_balloon_refresh(struct virtio_balloon *b, uint64_t wait_ns);

/* What a snapshot has of it beside its virtio_mmio. The guest's statistics are asked for anew. */
struct balloon_saved {
	uint32_t target, actual, poison; /* pages, pages, the driver's pattern */
	uint32_t held; /* the buffer that the next statistics come in; BALLOON_NO_HEAD: none */
};

/* Between virtio_mmio_hold and release. */
void virtio_balloon_save(const struct virtio_balloon *b, struct balloon_saved *ret);
/*
 * Into one that was just made, before its virtio_mmio is restored. Whatever is in it: it is the
 * driver's word, or names a buffer, and a false name harms the guest alone.
 */
void virtio_balloon_restore(struct virtio_balloon *b, const struct balloon_saved *from);

/* Any thread. */
void virtio_balloon_stats_get(struct virtio_balloon *b, struct balloon_stats *ret);
void virtio_balloon_device_stats(struct virtio_balloon *b, struct device_stats *ret);

#endif
