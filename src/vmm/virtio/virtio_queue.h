/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's side of a split virtqueue (virtio 1.2, 2.7): takes descriptor chains that the
 * driver made available, gives them back as used, says whether the driver wants to hear of
 * it. The ring is hostile input: every index, address and length is read once and then
 * checked; a walk ends after at most VIRTQ_SEGS_MAX descriptors. A ring that breaks the
 * rules is reported, never followed.
 *
 * Threads: one at a time; the owner sees to that. Calls wait in the touch of absent guest
 * memory. Tests: tests/unit/virtio_queue_test.c, tests/fuzz/virtq_fuzz.c.
 */
#ifndef VMM_VIRTIO_QUEUE_H
#define VMM_VIRTIO_QUEUE_H

#include <sys/uio.h>

#include "base/types.h"
#include "vmm/memory/guest_mem.h"

/* Feature bits that concern the ring (6: reserved feature bits). */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)

/* The largest queue that we offer, and the most descriptors of one chain. */
#define VIRTQ_SIZE_MAX 256u
#define VIRTQ_SEGS_MAX 256u

/* The driver broke the rules of the ring: the device needs a reset. */
#define VIRTQ_MALFORMED (-EPROTO)

/* Alignment of the three parts, 2.7. */
#define VIRTQ_DESC_ALIGN 16u
#define VIRTQ_AVAIL_ALIGN 2u
#define VIRTQ_USED_ALIGN 4u

/* Bytes of the three parts of a queue of that size, the event indices among them. */
static inline uint64_t virtq_desc_bytes(uint64_t size)
{
	return 16 * size;
}

static inline uint64_t virtq_avail_bytes(uint64_t size)
{
	return 4 + 2 * (size + 1);
}

static inline uint64_t virtq_used_bytes(uint64_t size)
{
	return 4 + 8 * size + 2;
}

struct virtq_avail;
struct virtq_used;

struct virtq {
	uint32_t size; /* as the driver wrote it; checked by virtq_start */
	gpa_t desc, avail, used;
	/* From virtq_start on. */
	const struct guest_mem *mem;
	const unsigned char *desc_at;
	struct virtq_avail *avail_at;
	struct virtq_used *used_at;
	bool event_idx, indirect; /* negotiated */
	uint16_t avail_next; /* next entry of the available ring that we take */
	uint16_t used_next;  /* next entry of the used ring that we fill */
};

/* One buffer: first what the device reads, then what it writes. */
struct virtq_chain {
	uint16_t head;
	uint16_t out_count; /* segs[0 .. out_count) are read by the device */
	uint16_t in_count;  /* the next in_count are written by it */
	uint64_t out_len, in_len; /* bytes; together below 2^32 (2.7.5.2) */
	struct iovec segs[VIRTQ_SEGS_MAX]; /* in guest memory; none is empty */
};

/*
 * The driver has set size and addresses: checks them and starts at index 0. features: as
 * negotiated. VIRTQ_MALFORMED: size no power of two or above VIRTQ_SIZE_MAX, a part that is
 * not aligned or not RAM. mem is borrowed. Does not touch guest memory.
 */
int virtq_start(struct virtq *q, const struct guest_mem *mem, uint64_t features);

/* The next buffer: 1, and ret is filled; 0: none. VIRTQ_MALFORMED: nothing was taken. */
int virtq_pop(struct virtq *q, struct virtq_chain *ret);

/*
 * The buffer popped last, and with each further call the one before it, is not served now: the
 * next virtq_pop() takes it again.
 */
void virtq_unpop(struct virtq *q);

/*
 * Gives the buffer back; written: bytes from the start of its device-writable part that are
 * certainly there. True: the driver wants an interrupt.
 */
bool virtq_push(struct virtq *q, uint16_t head, uint32_t written);

/*
 * The same for several at once, of which the driver sees none before the others: virtq_fill()
 * for each, in order, nth counting from 0, then virtq_publish() of how many they are.
 */
void virtq_fill(struct virtq *q, uint16_t nth, uint16_t head, uint32_t written);
bool virtq_publish(struct virtq *q, uint16_t count);

/* Asks the driver to notify us of the next buffer. True: one has come meanwhile, go on. */
bool virtq_rearm(struct virtq *q);

/*
 * The pieces of [off, off + len) of the chain's readable or writable part, and how many they
 * are. The range must lie within out_len or in_len (asserted, here and below).
 */
unsigned virtq_chain_out(const struct virtq_chain *c, uint64_t off, size_t len,
			 struct iovec ret[VIRTQ_SEGS_MAX]);
unsigned virtq_chain_in(const struct virtq_chain *c, uint64_t off, size_t len,
			struct iovec ret[VIRTQ_SEGS_MAX]);

/* Copies that range of the readable part into buf, once, or buf into the writable part. */
void virtq_chain_read(const struct virtq_chain *c, uint64_t off, void *buf, size_t len);
void virtq_chain_write(const struct virtq_chain *c, uint64_t off, const void *buf, size_t len);

#endif
