/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/virtio_blk.c: seeded random requests to a file and to a plain array must agree, and
 * requests with broken bits must leave everything else alone.
 */
#include "base/prng.h"
#include "virtio_blk_fixture.h"

static int setup(void **state)
{
	return setup_as(state, false, false);
}

static void put_random(struct fixture *f, struct prng *rng, uint32_t len)
{
	for (uint32_t i = 0; i < len; i += 8) {
		uint64_t v = prng_next(rng);

		memcpy(f->x.low + VX_DATA + i, &v, 8);
	}
}

/* What the array says the request should do; data is in guest memory already. */
static int model(struct fixture *f, unsigned char *disk, uint32_t type, uint64_t sector,
		 uint32_t len, bool *ret_reads)
{
	bool fits = len % 512 == 0 && sector <= SECTORS && len / 512 <= SECTORS - sector;

	*ret_reads = false;
	switch (type) {
	case T_IN:
		*ret_reads = fits;
		return fits ? S_OK : S_IOERR;
	case T_OUT:
		if (fits)
			memcpy(disk + sector * 512, f->x.low + VX_DATA, len);
		return fits ? S_OK : S_IOERR;
	default:
		return S_OK;
	}
}

static void agrees_with_an_array(void **state)
{
	struct fixture *f = *state;
	unsigned char *disk = test_malloc(BYTES), *file = test_malloc(BYTES);
	struct prng rng;

	prng_init(&rng, 1);
	assert_int_equal(pread(f->fd, disk, BYTES, 0), BYTES);
	for (unsigned n = 0; n < 4000; n++) {
		static const uint32_t types[8] = {T_IN, T_IN, T_IN, T_OUT, T_OUT, T_OUT, T_FLUSH,
						  T_ZERO};
		uint32_t type = types[prng_below(&rng, 8)];
		uint64_t sector = prng_below(&rng, SECTORS + 2);
		uint32_t len = (uint32_t)prng_below(&rng, n % 16 ? 20 : 300) * 512;
		bool reads;
		int want;

		if (prng_below(&rng, 20) == 0)
			len += (uint32_t)prng_below(&rng, 512);
		if (type == T_ZERO) {
			uint32_t sectors = (uint32_t)prng_below(&rng, 40);

			put_range(f, 0, sector, sectors, n & 1);
			want = sector + sectors <= SECTORS ? S_OK : S_IOERR;
			if (want == S_OK)
				memset(disk + sector * 512, 0, sectors * 512ull);
			len = 16;
			reads = false;
		} else {
			if (type == T_FLUSH)
				len = 0;
			put_random(f, &rng, len);
			want = model(f, disk, type, sector, len, &reads);
		}
		offer(f, type, sector, len, type == T_IN, 1 + (unsigned)prng_below(&rng, 8),
		      prng_below(&rng, 2));
		if (finish(f) != want)
			fail_msg("request %u: type %u, sector %u, %u bytes", n, type,
				 (unsigned)sector, len);
		if (reads)
			assert_memory_equal(f->x.low + VX_DATA, disk + sector * 512, len);
	}
	assert_int_equal(pread(f->fd, file, BYTES, 0), BYTES);
	assert_memory_equal(file, disk, BYTES);
	test_free(disk);
	test_free(file);
}

/* Requests with broken bits: whatever happens stays in RAM and in the file. */
static void mutated_requests(void **state)
{
	struct fixture *f = *state;
	struct prng rng;
	struct stat st;

	prng_init(&rng, 3);
	for (unsigned n = 0; n < 6000; n++) {
		if (n % 8 == 0 || vx_reg(&f->x, 0x070) != 15)
			vx_bring_up(&f->x, prng_next(&rng) & (F_FLUSH | F_RING), 64);
		put_range(f, 0, prng_below(&rng, SECTORS), 1, 0);
		offer(f, (uint32_t)prng_below(&rng, 15), prng_below(&rng, SECTORS),
		      (uint32_t)prng_below(&rng, 9) * 512, prng_below(&rng, 2), 4,
		      prng_below(&rng, 2));
		for (uint64_t i = prng_below(&rng, 4); i-- > 0;) {
			static const uint32_t part[4] = {VX_DESC, TABLE, HEADER, VX_AVAIL};

			f->x.low[part[prng_below(&rng, 4)] + prng_below(&rng, 96)] ^=
				(unsigned char)(1u << prng_below(&rng, 8));
		}
		vx_kick(&f->x);
		while (virtio_mmio_work(&f->b->mmio))
			;
	}
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_int_equal(st.st_size, BYTES);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(agrees_with_an_array),
		TEST(mutated_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
