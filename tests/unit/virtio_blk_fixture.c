/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio_blk_fixture.h"

static int trip(struct flaky *k)
{
	while (atomic_load(&k->wait))
		sched_yield();
	if (++k->calls != k->fail_at)
		return 0;
	if (k->wanted)
		atomic_store(k->wanted, true);
	return -ENOSPC;
}

static void within(const struct flaky *k, uint64_t off, const struct iovec *v, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		assert_true(v[i].iov_len > 0);
		off += v[i].iov_len;
	}
	assert_true(off <= k->inner.bytes);
}

static int flaky_readv(void *ctx, uint64_t off, struct iovec *v, unsigned count)
{
	struct flaky *k = ctx;
	int rc = trip(k);

	within(k, off, v, count);
	return rc < 0 ? rc : k->inner.ops->readv(k->inner.ctx, off, v, count);
}

static int flaky_writev(void *ctx, uint64_t off, struct iovec *v, unsigned count)
{
	struct flaky *k = ctx;
	int rc = trip(k);

	within(k, off, v, count);
	assert_false(k->inner.read_only);
	return rc < 0 ? rc : k->inner.ops->writev(k->inner.ctx, off, v, count);
}

static int flaky_flush(void *ctx)
{
	struct flaky *k = ctx;
	int rc = trip(k);

	k->flushes++;
	return rc < 0 ? rc : k->inner.ops->flush(k->inner.ctx);
}

static int flaky_zero(void *ctx, uint64_t off, uint64_t len, bool unmap)
{
	struct flaky *k = ctx;
	int rc = trip(k);

	assert_true(off + len <= k->inner.bytes);
	return rc < 0 ? rc : k->inner.ops->zero(k->inner.ctx, off, len, unmap);
}

static int flaky_discard(void *ctx, uint64_t off, uint64_t len)
{
	struct flaky *k = ctx;
	int rc = trip(k);

	assert_true(off + len <= k->inner.bytes);
	return rc < 0 ? rc : k->inner.ops->discard(k->inner.ctx, off, len);
}

static const struct blk_ops flaky_ops = {
	.readv = flaky_readv, .writev = flaky_writev, .flush = flaky_flush, .zero = flaky_zero,
	.discard = flaky_discard,
};

int setup_limited(void **state, bool read_only, bool threaded, struct virtio_limits limits)
{
	struct fixture *f = test_calloc(1, sizeof(*f));
	struct blk_backing backing;
	struct virtio_blk_cfg cfg = {
		.backing = &backing, .id = "a-serial-number-that-is-long", .mem = &f->x.mem,
		.threaded = threaded, .name = "blk0", .limits = limits};

	vx_init(&f->x);
	f->b = test_calloc(1, sizeof(*f->b));
	snprintf(f->path, sizeof(f->path), "/tmp/virtio_blk_test.XXXXXX");
	f->fd = mkostemp(f->path, O_CLOEXEC);
	assert_true(f->fd >= 0);
	assert_int_equal(ftruncate(f->fd, BYTES), 0);
	for (unsigned i = 0; i < SECTORS; i++)
		assert_int_equal(pwrite(f->fd, &i, sizeof(i), i * 512), sizeof(i));
	/* Open for writing by somebody else, it would not do. */
	close(f->fd);
	assert_int_equal(blk_file_open(&f->file, f->path, read_only ? BLK_READ_ONLY : 0,
				       &f->flaky.inner, NULL), 0);
	f->fd = open(f->path, O_RDWR | O_CLOEXEC);
	assert_true(f->fd >= 0);
	backing = f->flaky.inner;
	backing.ops = &flaky_ops;
	backing.ctx = &f->flaky;
	cfg.irq = fake_irq_line(&f->x.irq, VX_GSI);
	*state = f;
	assert_int_equal(virtio_blk_open(f->b, &cfg, NULL), 0);
	vx_attach(&f->x, &f->b->mmio);
	vx_bring_up(&f->x, F_FLUSH | F_RING, 64);
	return 0;
}

int setup_as(void **state, bool read_only, bool threaded)
{
	return setup_limited(state, read_only, threaded, (struct virtio_limits){0});
}

int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_blk_close(f->b);
	virtio_blk_close(f->b);
	blk_file_close(&f->file);
	close(f->fd);
	unlink(f->path);
	vx_fini(&f->x);
	test_free(f->b);
	test_free(f);
	return 0;
}

void offer(struct fixture *f, uint32_t type, uint64_t sector, uint32_t len, bool in,
	   unsigned pieces, bool indirect)
{
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} h = {type, 0x55555555, sector};
	uint64_t table = indirect ? TABLE : VX_DESC;
	uint8_t status = NOTHING;
	unsigned n = 1;

	vx_put(&f->x, HEADER, &h, sizeof(h));
	vx_put(&f->x, STATUS, &status, 1);
	vx_desc_at(&f->x, table, 0, HEADER, sizeof(h), DESC_NEXT, 1);
	for (uint32_t at = 0; len && at < len; n++) {
		uint32_t part = n < pieces ? (len - at + 1) / 2 : len - at;

		vx_desc_at(&f->x, table, n, VX_DATA + at, part,
			   DESC_NEXT | (in ? DESC_WRITE : 0), n + 1);
		at += part;
	}
	vx_desc_at(&f->x, table, n, STATUS, 1, DESC_WRITE, 0);
	if (indirect)
		vx_desc(&f->x, 0, TABLE, 16 * (n + 1), DESC_INDIRECT, 0);
	vx_offer(&f->x, 0);
	vx_kick(&f->x);
}

int finish(struct fixture *f)
{
	uint8_t status;
	uint32_t head;

	while (virtio_mmio_work(&f->b->mmio))
		;
	assert_int_equal(vx_reg(&f->x, 0x070), 15);
	assert_true(vx_take(&f->x, &head, &f->used_len));
	assert_int_equal(head, 0);
	vx_get(&f->x, STATUS, &status, 1);
	return status;
}

int request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t len, bool in)
{
	offer(f, type, sector, len, in, 3, false);
	return finish(f);
}

void put_range(struct fixture *f, unsigned i, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct {
		uint64_t sector;
		uint32_t sectors, flags;
	} r = {sector, sectors, flags};

	vx_put(&f->x, VX_DATA + 16 * i, &r, sizeof(r));
}
