/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/virtio/virtio_rng.c: buffers filled, bounded, refused; the kernel's generator behind it. */
#include "virtio_fixture.h"
#include "vmm/virtio/virtio_rng.h"

struct fixture {
	struct vx x;
	struct virtio_rng r;
	size_t asked;
	int fail;
};

static int fx_fill(void *ctx, void *buf, size_t len)
{
	struct fixture *f = ctx;

	f->asked = len;
	memset(buf, 0xc3, len);
	return f->fail;
}

static void init(struct fixture *f, virtio_rng_fill fill)
{
	struct virtio_rng_cfg cfg = {.fill = fill, .ctx = f, .mem = &f->x.mem};

	memset(f, 0, sizeof(*f));
	vx_init(&f->x);
	cfg.irq = fake_irq_line(&f->x.irq, VX_GSI);
	assert_int_equal(virtio_rng_open(&f->r, &cfg, NULL), 0);
	vx_attach(&f->x, &f->r.mmio);
	vx_bring_up(&f->x, 0, 8);
}

static void fini(struct fixture *f)
{
	virtio_rng_close(&f->r);
	virtio_rng_close(&f->r);
	virtio_rng_close(NULL);
	vx_fini(&f->x);
}

static void offer(struct fixture *f, uint32_t len, unsigned flags)
{
	vx_desc(&f->x, 0, VX_DATA, len, flags, 0);
	vx_offer(&f->x, 0);
	vx_kick(&f->x);
	while (virtio_mmio_work(&f->r.mmio))
		;
}

static uint64_t given(struct fixture *f)
{
	struct device_stats s;

	virtio_rng_device_stats(&f->r, &s);
	return s.read_bytes;
}

static void fills(void **state)
{
	static const uint32_t lens[] = {1, 64, 4096, 4097, 100000};
	struct fixture f;
	uint32_t head, len = 0;
	uint64_t sum = 0;

	(void)state;
	init(&f, fx_fill);
	assert_int_equal(vx_reg(&f.x, 0x008), 4);
	for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
		memset(f.x.low + VX_DATA, 0, 100001);
		offer(&f, lens[i], DESC_WRITE);
		assert_true(vx_take(&f.x, &head, &len));
		assert_int_equal(len, min_u64(lens[i], VIRTIO_RNG_BYTES_MAX));
		assert_int_equal(f.asked, len);
		sum += len;
		assert_int_equal(given(&f), sum);
		assert_int_equal(f.x.low[VX_DATA + len - 1], 0xc3);
		assert_int_equal(f.x.low[VX_DATA + len], 0);
	}
	fini(&f);
}

static void refuses(void **state)
{
	struct fixture f;

	(void)state;
	init(&f, fx_fill);
	offer(&f, 8, 0); /* nothing to write to */
	assert_int_equal(vx_reg(&f.x, 0x070), 0x4f);
	vx_bring_up(&f.x, 0, 8);
	offer(&f, 0, DESC_WRITE);
	assert_int_equal(vx_reg(&f.x, 0x070), 0x4f);
	vx_bring_up(&f.x, 0, 8);
	f.fail = -EIO; /* no entropy is no answer: never a predictable byte */
	offer(&f, 8, DESC_WRITE);
	assert_int_equal(vx_reg(&f.x, 0x070), 0x4f);
	assert_int_equal(vx_used_idx(&f.x), 0);
	assert_int_equal(given(&f), 0);
	fini(&f);
}

static void from_the_kernel(void **state)
{
	unsigned char zeroes[64] = {0};
	struct fixture f;

	(void)state;
	init(&f, NULL);
	offer(&f, 64, DESC_WRITE);
	assert_int_equal(vx_used_idx(&f.x), 1);
	assert_memory_not_equal(f.x.low + VX_DATA, zeroes, 64);
	fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills),
		cmocka_unit_test(refuses),
		cmocka_unit_test(from_the_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
