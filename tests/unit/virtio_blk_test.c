/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/virtio_blk.c: each request type, what is refused, what a failing or shrinking file
 * costs, read-only, flushes. Random requests: virtio_blk_model_test.c.
 */
#include "virtio_blk_fixture.h"

static int setup(void **state)
{
	return setup_as(state, false, false);
}

static int setup_read_only(void **state)
{
	return setup_as(state, true, false);
}

static int setup_threaded(void **state)
{
	return setup_as(state, false, true);
}

/* ---- one of each ---- */

static void configuration(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(vx_reg(&f->x, 0x008), 2);
	assert_int_equal(vx_reg(&f->x, 0x100), SECTORS);
	assert_int_equal(vx_reg(&f->x, 0x104), 0);
	assert_int_equal(vx_reg(&f->x, 0x10c), 254);
	assert_int_equal(vx_reg(&f->x, 0x114), 512);
	assert_int_equal(vx_reg(&f->x, 0x124), 1u << 21);
	assert_int_equal(vx_reg(&f->x, 0x128), 16);
	assert_int_equal(vx_reg(&f->x, 0x12c), 1);
	assert_int_equal(vx_reg(&f->x, 0x130), 1u << 15);
	assert_int_equal(vx_reg(&f->x, 0x134), 16);
	assert_int_equal(vx_reg(&f->x, 0x138), 1);
	assert_int_equal(vx_reg(&f->x, 0x118), 0); /* physical blocks are as large */
	assert_true(vx_offered(&f->x) == (VIRTIO_F_VERSION_1 | F_RING | 0x6644));
}

static void read_and_write(void **state)
{
	struct fixture *f = *state;
	unsigned char file[1024];

	assert_int_equal(request(f, T_IN, 7, 1024, true), S_OK);
	assert_int_equal(f->used_len, 1025);
	assert_int_equal(f->x.low[VX_DATA], 7);
	assert_int_equal(f->x.low[VX_DATA + 512], 8);
	memset(f->x.low + VX_DATA, 0xa5, 1024);
	assert_int_equal(request(f, T_OUT, SECTORS - 2, 1024, false), S_OK);
	assert_int_equal(f->used_len, 1);
	assert_int_equal(pread(f->fd, file, 1024, BYTES - 1024), 1024);
	assert_memory_equal(file, f->x.low + VX_DATA, 1024);
	assert_int_equal(request(f, T_IN, 0, 0, true), S_OK); /* nothing, granted */
	/* All of it at once: many pieces. */
	assert_int_equal(request(f, T_IN, 0, BYTES, true), S_OK);
	for (unsigned i = 0; i < SECTORS - 2; i++)
		assert_memory_equal(f->x.low + VX_DATA + 512 * i, &i, sizeof(i));
}

static void refused(void **state)
{
	static const struct {
		uint32_t type;
		uint64_t sector;
		uint32_t len;
	} table[] = {
		{T_IN, SECTORS, 512},      {T_IN, SECTORS - 1, 1024},   {T_IN, UINT64_MAX, 512},
		{T_IN, 1ull << 55, 512},   {T_IN, SECTORS + 1, 0},      {T_IN, 0, 100},
		{T_OUT, SECTORS, 512},     {T_OUT, SECTORS - 1, 1024},  {T_OUT, UINT64_MAX, 512},
		{T_OUT, UINT64_MAX / 512 + 1, 512}, {T_OUT, 0, 513},    {T_DISCARD, 0, 0},
		{T_DISCARD, 0, 15},        {T_ZERO, 0, 17},             {T_ZERO, 0, 17 * 16},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		assert_int_equal(request(f, table[i].type, table[i].sector, table[i].len,
					 table[i].type == T_IN), S_IOERR);
		assert_int_equal(f->flaky.calls, 0);
		/* Nothing of the data is claimed to be there. */
		assert_int_equal(f->used_len, table[i].type == T_IN && table[i].len ? 0 : 1);
	}
	assert_int_equal(request(f, 2, 0, 512, false), S_UNSUPP);
	assert_int_equal(request(f, 0xffffffff, 0, 512, true), S_UNSUPP);
	struct virtio_blk_stats s;

	virtio_blk_stats_get(f->b, &s);
	assert_int_equal(s.errors, ARRAY_LEN(table) + 2);
	assert_int_equal(s.bytes_read + s.bytes_written, 0);
}

static void identity(void **state)
{
	struct fixture *f = *state;

	memset(f->x.low + VX_DATA, 0x11, 64);
	assert_int_equal(request(f, T_GET_ID, 0, 20, true), S_OK);
	assert_int_equal(f->used_len, 21);
	assert_memory_equal(f->x.low + VX_DATA, "a-serial-number-that\x11", 21);
	assert_int_equal(request(f, T_GET_ID, 0, 5, true), S_OK);
	assert_int_equal(request(f, T_GET_ID, 0, 0, true), S_OK);
	assert_int_equal(request(f, T_GET_ID, 0, 40, true), S_OK);
	assert_int_equal(f->used_len, 20);
}

static void flushing(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(request(f, T_OUT, 0, 512, false), S_OK);
	assert_int_equal(f->flaky.flushes, 0);
	assert_int_equal(request(f, T_FLUSH, 0, 0, false), S_OK);
	assert_int_equal(f->flaky.flushes, 1);
	f->flaky.fail_at = f->flaky.calls + 1;
	assert_int_equal(request(f, T_FLUSH, 0, 0, false), S_IOERR);
	/* A driver that knows no flush: writes are durable when they end. */
	vx_bring_up(&f->x, 0, 64);
	f->flaky.flushes = 0;
	assert_int_equal(request(f, T_OUT, 0, 512, false), S_OK);
	assert_int_equal(f->flaky.flushes, 1);
	f->flaky.fail_at = f->flaky.calls + 2;
	assert_int_equal(request(f, T_OUT, 0, 512, false), S_IOERR);
}

static void ranges(void **state)
{
	struct fixture *f = *state;
	unsigned char file[512], zeroes[512] = {0};

	for (uint32_t unmap = 0; unmap < 2; unmap++) {
		put_range(f, 0, 10 + 20 * unmap, 3, unmap);
		put_range(f, 1, 15 + 20 * unmap, 1, unmap);
		put_range(f, 2, 0, 0, 0);
		assert_int_equal(request(f, T_ZERO, 999, 48, false), S_OK);
		for (unsigned i = 9; i < 17; i++) {
			unsigned at = i + 20 * unmap;

			assert_int_equal(pread(f->fd, file, 512, at * 512), 512);
			if ((i >= 10 && i < 13) || i == 15)
				assert_memory_equal(file, zeroes, 512);
			else
				assert_memory_equal(file, &at, sizeof(at));
		}
	}
	put_range(f, 0, 100, 8, 0);
	assert_int_equal(request(f, T_DISCARD, 0, 16, false), S_OK);
	/* One wrong range: none is touched. */
	f->flaky.calls = 0;
	put_range(f, 0, 0, 1, 0);
	put_range(f, 1, SECTORS - 1, 2, 0);
	assert_int_equal(request(f, T_ZERO, 0, 32, false), S_IOERR);
	put_range(f, 1, UINT64_MAX, 1, 0);
	assert_int_equal(request(f, T_DISCARD, 0, 32, false), S_IOERR);
	put_range(f, 1, 0, UINT32_MAX, 0);
	assert_int_equal(request(f, T_DISCARD, 0, 32, false), S_IOERR);
	put_range(f, 1, 0, 1, 2);
	assert_int_equal(request(f, T_ZERO, 0, 32, false), S_UNSUPP);
	put_range(f, 1, 0, 1, 1); /* unmap has no meaning for a discard */
	assert_int_equal(request(f, T_DISCARD, 0, 32, false), S_UNSUPP);
	assert_int_equal(f->flaky.calls, 0);
	put_range(f, 0, 200, 1, 0);
	f->flaky.fail_at = 1;
	assert_int_equal(request(f, T_ZERO, 0, 16, false), S_IOERR);
}

/*
 * The largest that the configuration space tells of is taken, and what is one larger is not: on a
 * disk where both would fit.
 */
static void as_much_as_is_advertised(void **state)
{
	struct fixture *f = *state;
	uint32_t discard = vx_reg(&f->x, 0x124), zero = vx_reg(&f->x, 0x130);
	uint32_t ranges = vx_reg(&f->x, 0x128), segments = vx_reg(&f->x, 0x10c);
	uint64_t bytes = (discard + 8ull) * 512;
	uint32_t head;

	assert_int_equal(ftruncate(f->fd, (off_t)bytes), 0);
	f->b->backing.bytes = f->flaky.inner.bytes = bytes;
	put_range(f, 0, 8, discard, 0);
	assert_int_equal(request(f, T_DISCARD, 0, 16, false), S_OK);
	put_range(f, 0, 0, discard + 1, 0);
	assert_int_equal(request(f, T_DISCARD, 0, 16, false), S_IOERR);
	put_range(f, 0, 8, zero, 1);
	assert_int_equal(request(f, T_ZERO, 0, 16, false), S_OK);
	put_range(f, 0, 8, zero + 1, 1);
	assert_int_equal(request(f, T_ZERO, 0, 16, false), S_IOERR);
	assert_int_equal(vx_reg(&f->x, 0x134), ranges);
	for (uint32_t i = 0; i <= ranges; i++)
		put_range(f, i, 2 * i, 1, 0);
	f->flaky.calls = 0;
	assert_int_equal(request(f, T_DISCARD, 0, 16 * ranges, false), S_OK);
	assert_int_equal(request(f, T_ZERO, 0, 16 * ranges, false), S_OK);
	assert_int_equal(f->flaky.calls, 2 * ranges);
	assert_int_equal(request(f, T_DISCARD, 0, 16 * (ranges + 1), false), S_IOERR);
	/* As many segments as may be, beside header and status. */
	offer(f, T_IN, 0, 512, true, 1, false);
	assert_int_equal(finish(f), S_OK);
	for (uint32_t i = 0; i < segments; i++)
		vx_desc_at(&f->x, TABLE, i + 1, VX_DATA + 512ull * i, 512, DESC_NEXT | DESC_WRITE,
			   i + 2);
	vx_desc_at(&f->x, TABLE, 0, HEADER, 16, DESC_NEXT, 1);
	vx_desc_at(&f->x, TABLE, segments + 1, STATUS, 1, DESC_WRITE, 0);
	vx_desc(&f->x, 0, TABLE, 16 * (segments + 2), DESC_INDIRECT, 0);
	vx_offer(&f->x, 0);
	vx_kick(&f->x);
	while (virtio_mmio_work(&f->b->mmio))
		;
	assert_int_equal(vx_reg(&f->x, 0x070), 15);
	assert_true(vx_take(&f->x, &head, &f->used_len));
	assert_int_equal(f->used_len, 512 * segments + 1);
}

/* Each request is one of a kind, and each refusal an error. */
static void everything_is_counted(void **state)
{
	struct fixture *f = *state;
	struct virtio_blk_stats s;
	struct device_stats d;

	assert_int_equal(request(f, T_IN, 0, BYTES, true), S_OK); /* in pieces */
	assert_int_equal(request(f, T_IN, 0, 512, true), S_OK);
	assert_int_equal(request(f, T_IN, SECTORS, 512, true), S_IOERR);
	assert_int_equal(request(f, T_OUT, 0, BYTES, false), S_OK);
	assert_int_equal(request(f, T_OUT, SECTORS, 512, false), S_IOERR);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(request(f, T_FLUSH, 0, 0, false), S_OK);
	assert_int_equal(request(f, T_GET_ID, 0, 20, true), S_OK);
	put_range(f, 0, SECTORS, 1, 0);
	assert_int_equal(request(f, T_DISCARD, 0, 16, false), S_IOERR);
	assert_int_equal(request(f, T_DISCARD, 0, 15, false), S_IOERR);
	assert_int_equal(request(f, 99, 0, 0, false), S_UNSUPP);
	f->flaky.fail_at = f->flaky.calls + 1;
	assert_int_equal(request(f, T_FLUSH, 0, 0, false), S_IOERR);
	virtio_blk_stats_get(f->b, &s);
	assert_int_equal(s.reads, 3);
	assert_int_equal(s.writes, 2);
	assert_int_equal(s.flushes, 4);
	assert_int_equal(s.others, 4);
	assert_int_equal(s.errors, 6);
	assert_int_equal(s.bytes_read, BYTES + 512);
	assert_int_equal(s.bytes_written, BYTES);
	virtio_blk_device_stats(f->b, &d);
	assert_int_equal(d.requests, 13);
	assert_int_equal(d.read_bytes, BYTES + 512);
	assert_int_equal(d.written_bytes, BYTES);
	assert_true(d.throttled_ns == 0);
}

static void read_only(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_int_equal(vx_offered(&f->x) & 0xffff, 0x0664);
	put_range(f, 0, 0, 1, 0);
	assert_int_equal(request(f, T_OUT, 0, 512, false), S_IOERR);
	assert_int_equal(request(f, T_ZERO, 0, 16, false), S_IOERR);
	assert_int_equal(request(f, T_DISCARD, 0, 16, false), S_IOERR);
	assert_int_equal(request(f, T_FLUSH, 0, 0, false), S_OK);
	assert_int_equal(f->flaky.calls, 0);
	assert_int_equal(request(f, T_IN, 3, 512, true), S_OK);
	assert_int_equal(f->x.low[VX_DATA], 3);
	assert_int_equal(fstat(f->fd, &st), 0);
}

/* ---- trouble ---- */

static void failing_file(void **state)
{
	struct fixture *f = *state;
	unsigned calls = BYTES / VIRTIO_BLK_PIECE_BYTES;

	/* The nth piece fails, for each n: only what came before it is claimed. */
	for (unsigned n = 1; n <= calls; n++) {
		f->flaky.calls = 0;
		f->flaky.fail_at = n;
		assert_int_equal(request(f, T_IN, 0, BYTES, true), S_IOERR);
		assert_int_equal(f->used_len, (n - 1) * VIRTIO_BLK_PIECE_BYTES);
		f->flaky.calls = 0;
		assert_int_equal(request(f, T_OUT, 0, BYTES, false), S_IOERR);
		assert_int_equal(f->used_len, 1);
	}
	f->flaky.fail_at = 0;
	assert_int_equal(request(f, T_IN, 0, BYTES, true), S_OK);
}

/* What is asked when the host has failed, and what it answers. */
struct asked {
	struct flaky *flaky;
	unsigned times;
	unsigned mend_at; /* from this time on the host works; 0: never */
	bool again;
	atomic_bool *wanted; /* set while it is asked; NULL: nothing is */
	struct blk_failure last;
};

static bool host_failed(void *ctx, const struct blk_failure *why)
{
	struct asked *a = ctx;

	a->last = *why;
	if (++a->times == a->mend_at)
		a->flaky->fail_at = 0;
	a->flaky->calls = 0;
	if (a->wanted)
		atomic_store(a->wanted, true);
	return a->again;
}

/* The host fails until it is mended: what comes then is whole. */
static void tried_again(void **state)
{
	struct fixture *f = *state;
	struct asked a = {.flaky = &f->flaky, .mend_at = 3, .again = true};

	f->b->backing.failed = host_failed;
	f->b->backing.failed_ctx = &a;
	f->flaky.fail_at = 1;
	memset(f->x.low + VX_DATA, 0xa5, BYTES);
	assert_int_equal(request(f, T_OUT, 0, BYTES, false), S_OK);
	assert_int_equal(a.times, 3);
	assert_true(a.last.off == 0 && a.last.len == VIRTIO_BLK_PIECE_BYTES && a.last.repeatable);
	assert_int_equal(a.last.code, -ENOSPC);
	assert_string_equal(a.last.doing, "writing");
	/* Not from the start: what was written is written. */
	a = (struct asked){.flaky = &f->flaky, .mend_at = 1, .again = true};
	f->flaky.fail_at = 2;
	f->flaky.calls = 0;
	memset(f->x.low + VX_DATA, 0, BYTES);
	assert_int_equal(request(f, T_IN, 0, BYTES, true), S_OK);
	assert_int_equal(a.last.off, VIRTIO_BLK_PIECE_BYTES);
	assert_string_equal(a.last.doing, "reading");
	for (unsigned i = 0; i < BYTES; i++)
		assert_int_equal(f->x.low[VX_DATA + i], 0xa5);
	for (unsigned type = T_DISCARD; type <= T_ZERO; type += 2) {
		a = (struct asked){.flaky = &f->flaky, .mend_at = 2, .again = true};
		put_range(f, 0, 8, 4, 0);
		f->flaky.fail_at = 1;
		f->flaky.calls = 0;
		assert_int_equal(request(f, type, 0, 16, false), S_OK);
		assert_true(a.times == 2 && a.last.off == 4096 && a.last.len == 2048);
	}
	assert_int_equal(f->b->count.errors, 0);
}

static void told_as_the_host_wishes(void **state)
{
	struct fixture *f = *state;
	struct asked a = {.flaky = &f->flaky, .again = false};

	f->b->backing.failed = host_failed;
	f->b->backing.failed_ctx = &a;
	f->flaky.fail_at = 1;
	assert_int_equal(request(f, T_OUT, 0, 512, false), S_IOERR);
	assert_int_equal(a.times, 1);
	/* A flush that failed is told, whatever is wished: nobody knows what was kept. */
	a.again = true;
	f->flaky.calls = 0;
	assert_int_equal(request(f, T_FLUSH, 0, 0, false), S_IOERR);
	assert_true(a.times == 2 && a.last.len == 0 && !a.last.repeatable);
	/* A guest's own mistake is none of the host's. */
	assert_int_equal(request(f, T_IN, SECTORS, 512, true), S_IOERR);
	assert_int_equal(a.times, 2);
}

/* Somebody holds the device, as virtio_mmio_hold does, when the host fails or while it is asked. */
static void begun_anew_behind_a_hold(void **state)
{
	static const struct {
		uint32_t type, len;
	} table[] = {{T_IN, BYTES}, {T_OUT, BYTES}, {T_DISCARD, 16}, {T_ZERO, 16}};
	struct fixture *f = *state;
	atomic_bool *cancelled = &f->b->mmio.cancelled;

	f->b->backing.failed = host_failed;
	for (unsigned i = 0; i < 2 * ARRAY_LEN(table); i++) {
		const uint32_t type = table[i / 2].type, len = table[i / 2].len;
		bool asked = i % 2;
		struct asked a = {.flaky = &f->flaky, .mend_at = 1, .again = true,
				  .wanted = asked ? cancelled : NULL};

		f->b->backing.failed_ctx = &a;
		f->flaky.wanted = asked ? NULL : cancelled;
		f->flaky.calls = 0;
		f->flaky.fail_at = 1;
		put_range(f, 0, 8, 4, 0);
		offer(f, type, 0, len, type == T_IN, 1, false);
		assert_true(virtio_mmio_work(&f->b->mmio));
		assert_int_equal(a.times, asked);
		assert_int_equal(vx_used_idx(&f->x), i);
		atomic_store(cancelled, false);
		assert_int_equal(finish(f), S_OK);
	}
	assert_int_equal(f->b->count.errors, 0);
}

/* Blocks as the device has them. */
static void larger_blocks(void **state)
{
	struct fixture *f = *state;
	struct blk_backing k = f->b->backing;
	const struct virtio_blk_cfg cfg = {.backing = &k, .id = "", .mem = &f->x.mem,
					   .irq = fake_irq_line(&f->x.irq, VX_GSI)};

	virtio_blk_close(f->b);
	k.block_bytes = 4096;
	k.physical_block_bytes = 16384;
	assert_int_equal(virtio_blk_open(f->b, &cfg, NULL), 0);
	assert_int_equal(vx_reg(&f->x, 0x100), SECTORS); /* still in sectors of 512 */
	assert_int_equal(vx_reg(&f->x, 0x114), 4096);
	assert_int_equal(vx_reg(&f->x, 0x118), 2);
	assert_int_equal(vx_reg(&f->x, 0x12c), 8);
}

static void shrunk_file(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ftruncate(f->fd, 1000), 0);
	assert_int_equal(request(f, T_IN, 0, 512, true), S_OK);
	assert_int_equal(request(f, T_IN, 1, 512, true), S_IOERR);
	assert_int_equal(request(f, T_IN, 100, 512, true), S_IOERR);
	assert_int_equal(request(f, T_OUT, 100, 512, false), S_OK); /* grows again */
}

/* Guest memory that is lost is not the disk's fault, and no answer can be given. */
static void lost_memory(void **state)
{
	static const struct {
		uint32_t type, lost;
	} table[] = {{T_IN, VX_DATA + 4096}, {T_OUT, VX_DATA + 4096}, {T_IN, HEADER},
		     {T_GET_ID, VX_DATA}, {T_ZERO, VX_DATA}};
	struct fixture *f = *state;
	struct virtio_blk_stats s;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		vx_bring_up(&f->x, F_FLUSH, 64);
		offer(f, table[i].type, 0, table[i].type == T_ZERO ? 16 : 16384,
		      table[i].type != T_OUT && table[i].type != T_ZERO, 3, false);
		vx_lose(&f->x, table[i].lost);
		while (virtio_mmio_work(&f->b->mmio))
			;
		vx_find(&f->x, table[i].lost);
		assert_int_equal(vx_reg(&f->x, 0x070), 0x4f);
		assert_int_equal(vx_used_idx(&f->x), 0);
	}
	virtio_blk_stats_get(f->b, &s);
	assert_int_equal(s.errors, 0);
	vx_bring_up(&f->x, F_FLUSH, 64);
	assert_int_equal(request(f, T_IN, 3, 16384, true), S_OK);
}

/* A buffer in which no request fits cannot be answered. */
static void no_request_at_all(void **state)
{
	static const struct {
		uint32_t out, in;
	} table[] = {{15, 1}, {16, 0}, {0, 1}, {0, 0}, {100, 0}};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		vx_bring_up(&f->x, F_FLUSH, 64);
		vx_desc(&f->x, 0, HEADER, table[i].out, DESC_NEXT, 1);
		vx_desc(&f->x, 1, STATUS, table[i].in, DESC_WRITE, 0);
		vx_offer(&f->x, 0);
		vx_kick(&f->x);
		(void)virtio_mmio_work(&f->b->mmio);
		assert_int_equal(vx_reg(&f->x, 0x070), 0x4f);
		assert_int_equal(vx_used_idx(&f->x), 0);
	}
}

/* Header and data need not fall on descriptors' borders (2.7.4). */
static void any_layout(void **state)
{
	struct fixture *f = *state;
	uint64_t sector = 5;
	uint32_t type = T_IN;

	vx_put(&f->x, HEADER, &type, 4);
	vx_put(&f->x, HEADER + 64, &sector, 8);
	vx_desc(&f->x, 0, HEADER, 8, DESC_NEXT, 1);
	vx_desc(&f->x, 1, HEADER + 64, 8, DESC_NEXT, 2);
	vx_desc(&f->x, 2, VX_DATA, 513, DESC_WRITE, 0); /* the status comes last */
	f->x.low[VX_DATA + 512] = NOTHING;
	vx_offer(&f->x, 0);
	vx_kick(&f->x);
	(void)finish(f);
	assert_int_equal(f->used_len, 513);
	assert_int_equal(f->x.low[VX_DATA], 5);
	assert_int_equal(f->x.low[VX_DATA + 512], S_OK);
}

/* ---- with a worker thread ---- */

static void the_vcpu_does_not_wait(void **state)
{
	struct fixture *f = *state;

	f->flaky.wait = true;
	offer(f, T_IN, 9, 512, true, 1, false);
	assert_int_equal(vx_reg(&f->x, 0x070), 15); /* registers answer meanwhile */
	assert_int_equal(vx_used_idx(&f->x), 0);
	f->flaky.wait = false;
	while (vx_used_idx(&f->x) == 0)
		sched_yield();
	vx_get(&f->x, VX_DATA, &f->used_len, 4);
	assert_int_equal(f->used_len, 9);
	/* Close with one in hand: teardown. */
	offer(f, T_IN, 0, BYTES, true, 1, false);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(configuration),
		TEST(read_and_write),
		TEST(refused),
		TEST(identity),
		TEST(flushing),
		TEST(ranges),
		TEST(as_much_as_is_advertised),
		TEST(everything_is_counted),
		cmocka_unit_test_setup_teardown(read_only, setup_read_only, teardown),
		TEST(failing_file),
		TEST(shrunk_file),
		TEST(tried_again),
		TEST(told_as_the_host_wishes),
		TEST(begun_anew_behind_a_hold),
		TEST(larger_blocks),
		TEST(lost_memory),
		TEST(no_request_at_all),
		TEST(any_layout),
		cmocka_unit_test_setup_teardown(the_vcpu_does_not_wait, setup_threaded, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
