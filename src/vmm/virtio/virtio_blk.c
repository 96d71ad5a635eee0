/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_blk.h. Numbers in comments are sections of virtio 1.2. */
#include "vmm/virtio/virtio_blk.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

/* 5.2.3 */
#define F_SEG_MAX (1ull << 2)
#define F_RO (1ull << 5)
#define F_BLK_SIZE (1ull << 6)
#define F_FLUSH (1ull << 9)
#define F_TOPOLOGY (1ull << 10)
#define F_DISCARD (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)

enum {
	BLK_DEVICE_ID = 2, /* 5.2.1 */

	/* 5.2.6 */
	T_IN = 0,
	T_OUT = 1,
	T_FLUSH = 4,
	T_GET_ID = 8,
	T_DISCARD = 11,
	T_WRITE_ZEROES = 13,

	S_OK = 0,
	S_IOERR = 1,
	S_UNSUPP = 2,

	RANGE_UNMAP = 1,
};

#define RANGES_MAX 16u
/* Bound how long one request keeps the worker: 1 GiB given up, or 16 MiB perhaps written. */
#define DISCARD_SECTORS_MAX (1u << 21)
#define ZERO_SECTORS_MAX (1u << 15)

/* 5.2.4, as far as our features make it valid. */
struct wire_config {
	uint64_t capacity;
	uint32_t size_max;
	uint32_t seg_max;
	uint8_t geometry[4];
	uint32_t blk_size;
	uint8_t physical_block_exp; /* a physical block has 2^this blocks */
	uint8_t alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback;
	uint8_t unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors;
	uint32_t max_discard_seg;
	uint32_t discard_sector_alignment;
	uint32_t max_write_zeroes_sectors;
	uint32_t max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap;
	uint8_t unused1[3];
};
_Static_assert(sizeof(struct wire_config) == 64, "virtio 1.2, 5.2.4");
_Static_assert(offsetof(struct wire_config, blk_size) == 20, "virtio 1.2, 5.2.4");
_Static_assert(offsetof(struct wire_config, max_discard_sectors) == 36, "virtio 1.2, 5.2.4");
_Static_assert(offsetof(struct wire_config, write_zeroes_may_unmap) == 56, "virtio 1.2, 5.2.4");

/* 5.2.6: what a request begins with; its last writable byte is the status. */
struct wire_header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};
_Static_assert(sizeof(struct wire_header) == 16, "virtio 1.2, 5.2.6");

struct wire_range {
	uint64_t sector;
	uint32_t sectors;
	uint32_t flags;
};
_Static_assert(sizeof(struct wire_range) == 16, "virtio 1.2, 5.2.6");

/* A request in work: what the ring said, and how far it has come. */
struct job {
	struct virtio_blk *b;
	const struct virtio_request *rq;
	struct wire_header h;
	uint64_t out_len; /* data after the header */
	uint64_t in_len;  /* data before the status */
	uint32_t written; /* of in_len, from its start */
};

/*
 * Handlers return a status (0 or above), or -Exxx that is not the disk's: cancelled, or guest
 * memory that the backing could not touch.
 */
typedef int (*handler)(struct job *j);

static int disk_status(struct virtio_blk *b, int rc)
{
	if (rc == 0 || rc == -EFAULT)
		return rc;
	b->count.errors++;
	return rc == -EOPNOTSUPP ? S_UNSUPP : S_IOERR;
}

static bool cancelled(const struct job *j)
{
	return atomic_load(j->rq->cancelled);
}

/*
 * The host has failed, and it is to be tried again. Who tries drops a request that is cancelled by
 * then; one that already is fails again, and is told, when it is begun anew.
 */
static bool again(const struct job *j, int rc, const char *doing, uint64_t off, uint64_t len)
{
	const struct blk_backing *k = &j->b->backing;
	const struct blk_failure why = {
		.doing = doing, .off = off, .len = len, .code = rc, .repeatable = len > 0};

	if (rc >= 0 || rc == -EFAULT || rc == -EOPNOTSUPP || !k->failed)
		return false;
	if (why.repeatable && cancelled(j))
		return true;
	return k->failed(k->failed_ctx, &why) && why.repeatable;
}

static int flush(const struct job *j)
{
	const struct blk_backing *k = &j->b->backing;
	int rc = k->ops->flush(k->ctx);

	(void)again(j, rc, "flushing", 0, 0);
	return rc;
}

static int refuse(struct virtio_blk *b)
{
	b->count.errors++;
	return S_IOERR;
}

/* [sector, sector + bytes) is on the disk; whole sectors. */
static bool range_ok(const struct virtio_blk *b, uint64_t sector, uint64_t bytes)
{
	uint64_t sectors = b->backing.bytes / BLK_SECTOR_BYTES;

	return bytes % BLK_SECTOR_BYTES == 0 && bytes / BLK_SECTOR_BYTES <= sectors &&
	       sector <= sectors - bytes / BLK_SECTOR_BYTES;
}

static int do_in(struct job *j)
{
	struct virtio_blk *b = j->b;
	const struct blk_backing *k = &b->backing;
	struct iovec v[VIRTQ_SEGS_MAX];

	b->count.reads++;
	if (!range_ok(b, j->h.sector, j->in_len))
		return refuse(b);
	while (j->written < j->in_len) {
		size_t n = (size_t)min_u64(j->in_len - j->written, VIRTIO_BLK_PIECE_BYTES);
		uint64_t off = j->h.sector * BLK_SECTOR_BYTES + j->written;
		int rc = virtio_mmio_throttle(&b->mmio, 0, n);

		if (rc < 0)
			return rc;
		do {
			unsigned count = virtq_chain_in(j->rq->chain, j->written, n, v);

			if (cancelled(j))
				return -ECANCELED;
			rc = k->ops->readv(k->ctx, off, v, count);
		} while (again(j, rc, "reading", off, n));
		if (rc < 0)
			return disk_status(b, rc);
		j->written += (uint32_t)n;
		b->count.bytes_read += n;
	}
	return S_OK;
}

static int do_out(struct job *j)
{
	struct virtio_blk *b = j->b;
	const struct blk_backing *k = &b->backing;
	struct iovec v[VIRTQ_SEGS_MAX];

	b->count.writes++;
	if (k->read_only || !range_ok(b, j->h.sector, j->out_len))
		return refuse(b);
	for (uint64_t done = 0; done < j->out_len;) {
		size_t n = (size_t)min_u64(j->out_len - done, VIRTIO_BLK_PIECE_BYTES);
		uint64_t off = j->h.sector * BLK_SECTOR_BYTES + done;
		int rc = virtio_mmio_throttle(&b->mmio, 0, n);

		if (rc < 0)
			return rc;
		do {
			unsigned count = virtq_chain_out(j->rq->chain, sizeof(j->h) + done, n, v);

			if (cancelled(j))
				return -ECANCELED;
			rc = k->ops->writev(k->ctx, off, v, count);
		} while (again(j, rc, "writing", off, n));
		if (rc < 0)
			return disk_status(b, rc);
		done += n;
		b->count.bytes_written += n;
	}
	if (!(j->rq->features & F_FLUSH))
		return disk_status(b, flush(j));
	return S_OK;
}

static int do_flush(struct job *j)
{
	struct virtio_blk *b = j->b;

	b->count.flushes++;
	if (b->backing.read_only)
		return S_OK;
	return disk_status(b, flush(j));
}

/* 20 bytes, padded with zeroes but not ended by one (5.2.6). */
static int do_get_id(struct job *j)
{
	j->b->count.others++;
	j->written = (uint32_t)min_u64(j->in_len, sizeof(j->b->id));
	virtq_chain_write(j->rq->chain, 0, j->b->id, j->written);
	return S_OK;
}

/* 5.2.6.2: all ranges are looked at before the first is touched. */
static int ranges_ok(const struct job *j, const struct wire_range *r, unsigned count)
{
	bool zero = j->h.type == T_WRITE_ZEROES;
	uint32_t known = zero ? RANGE_UNMAP : 0;
	uint32_t limit = zero ? ZERO_SECTORS_MAX : DISCARD_SECTORS_MAX;

	for (unsigned i = 0; i < count; i++) {
		if (r[i].flags & ~known)
			return S_UNSUPP;
		if (r[i].sectors > limit ||
		    !range_ok(j->b, r[i].sector, r[i].sectors * BLK_SECTOR_BYTES))
			return S_IOERR;
	}
	return S_OK;
}

static int do_ranges(struct job *j)
{
	const struct blk_backing *k = &j->b->backing;
	struct wire_range r[RANGES_MAX];
	unsigned count = (unsigned)min_u64(j->out_len / sizeof(*r), RANGES_MAX);
	bool zero = j->h.type == T_WRITE_ZEROES;
	int rc = 0;

	j->b->count.others++;
	if (k->read_only || count == 0 || j->out_len != count * sizeof(*r))
		return refuse(j->b);
	virtq_chain_read(j->rq->chain, sizeof(j->h), r, count * sizeof(*r));
	rc = ranges_ok(j, r, count);
	if (rc != S_OK) {
		j->b->count.errors++;
		return rc;
	}
	for (unsigned i = 0; i < count && rc == 0; i++) {
		uint64_t off = r[i].sector * BLK_SECTOR_BYTES;
		uint64_t len = r[i].sectors * BLK_SECTOR_BYTES;

		if (len == 0)
			continue;
		/* Zeroes may have to be written. */
		if (zero && virtio_mmio_throttle(&j->b->mmio, 0, len) < 0)
			return -ECANCELED;
		do {
			if (cancelled(j))
				return -ECANCELED;
			rc = zero ? k->ops->zero(k->ctx, off, len, r[i].flags & RANGE_UNMAP)
				  : k->ops->discard(k->ctx, off, len);
		} while (again(j, rc, zero ? "zeroing" : "discarding", off, len));
	}
	if (rc == 0 && !(j->rq->features & F_FLUSH))
		rc = flush(j);
	return disk_status(j->b, rc);
}

static int unsupported(struct job *j)
{
	j->b->count.others++;
	j->b->count.errors++;
	return S_UNSUPP;
}

static handler handler_of(uint32_t type)
{
	switch (type) {
	case T_IN:
		return do_in;
	case T_OUT:
		return do_out;
	case T_FLUSH:
		return do_flush;
	case T_GET_ID:
		return do_get_id;
	case T_DISCARD:
	case T_WRITE_ZEROES:
		return do_ranges;
	default:
		return unsupported;
	}
}

/*
 * A buffer without room for header or status cannot even be refused: the ring is wrong. The
 * header is read once; whatever the guest writes there meanwhile, we go by what we checked.
 */
static int blk_request(void *dev, unsigned queue, const struct virtio_request *rq,
		       uint32_t *ret_written)
{
	struct job j = {.b = dev, .rq = rq};
	uint8_t status;
	int rc;

	(void)queue;
	if (rq->chain->out_len < sizeof(j.h) || rq->chain->in_len < 1)
		return VIRTQ_MALFORMED;
	virtq_chain_read(rq->chain, 0, &j.h, sizeof(j.h));
	j.out_len = rq->chain->out_len - sizeof(j.h);
	j.in_len = rq->chain->in_len - 1;
	if (j.h.type == T_FLUSH)
		virtio_mmio_charge(&j.b->mmio, 1);
	else if (virtio_mmio_throttle(&j.b->mmio, 1, 0) < 0)
		return -ECANCELED;
	rc = handler_of(j.h.type)(&j);
	if (rc < 0)
		return rc;
	status = (uint8_t)rc;
	virtq_chain_write(rq->chain, j.in_len, &status, 1);
	/* 2.7.8.2: only what is written without a gap from the start counts. */
	*ret_written = j.written + (j.written == j.in_len);
	return 0;
}

static const struct virtio_dev_ops blk_dev_ops = {
	.device_id = BLK_DEVICE_ID,
	.queues = 1,
	.request = blk_request,
};

int virtio_blk_open(struct virtio_blk *b, const struct virtio_blk_cfg *c, struct err *e)
{
	const struct blk_backing *backing = c->backing;
	uint32_t block = backing->block_bytes ? backing->block_bytes : BLK_SECTOR_BYTES;
	uint32_t physical = (uint32_t)max_u64(backing->physical_block_bytes, block);
	struct wire_config config = {
		.capacity = backing->bytes / BLK_SECTOR_BYTES,
		.seg_max = VIRTQ_SEGS_MAX - 2, /* header and status take one each */
		.blk_size = block,
		.physical_block_exp = (uint8_t)__builtin_ctz(physical / block),
	};
	struct virtio_mmio_cfg cfg = {
		.ops = &blk_dev_ops,
		.dev = b,
		.mem = c->mem,
		.irq = c->irq,
		.features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY,
		.config = &config,
		.config_len = sizeof(config),
		.threaded = c->threaded,
		.name = c->name,
		.limits = c->limits,
	};

	memset(b, 0, sizeof(*b));
	b->backing = *backing;
	memcpy(b->id, c->id, strnlen(c->id, sizeof(b->id)));
	if (backing->read_only) {
		cfg.features |= F_RO;
	} else {
		cfg.features |= F_DISCARD | F_WRITE_ZEROES;
		config.max_discard_sectors = DISCARD_SECTORS_MAX;
		config.max_discard_seg = RANGES_MAX;
		config.discard_sector_alignment = (uint32_t)(block / BLK_SECTOR_BYTES);
		config.max_write_zeroes_sectors = ZERO_SECTORS_MAX;
		config.max_write_zeroes_seg = RANGES_MAX;
		config.write_zeroes_may_unmap = 1;
	}
	return virtio_mmio_open(&b->mmio, &cfg, e);
}

void virtio_blk_close(struct virtio_blk *b)
{
	if (!b || !b->mmio.cfg.ops)
		return;
	virtio_mmio_close(&b->mmio);
	/* Nobody is left to be told of a failure; the guest flushed what it cared for. */
	if (!b->backing.read_only && b->count.bytes_written)
		(void)b->backing.ops->flush(b->backing.ctx);
}

void virtio_blk_stats_get(struct virtio_blk *b, struct virtio_blk_stats *ret)
{
	*ret = (struct virtio_blk_stats){
		.reads = b->count.reads,
		.writes = b->count.writes,
		.flushes = b->count.flushes,
		.others = b->count.others,
		.errors = b->count.errors,
		.bytes_read = b->count.bytes_read,
		.bytes_written = b->count.bytes_written,
	};
}

void virtio_blk_device_stats(struct virtio_blk *b, struct device_stats *ret)
{
	virtio_mmio_stats_get(&b->mmio, ret);
	ret->read_bytes = b->count.bytes_read;
	ret->written_bytes = b->count.bytes_written;
}
