/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of a device (virtio_mmio_throttle): what is held back waits on the worker, and nobody
 * else waits for it: no vCPU, no reset, no close, no flush. Limits are so low that what is held
 * back is so for longer than any test.
 */
#include <time.h>

#include "virtio_blk_fixture.h"
#include "vmm/virtio/virtio_rng.h"

#define PIECE 65536u
#define LONG_NS (20 * NS_PER_MS) /* to be told from a moment */
#define RATE (256ull << 10) /* of which a piece is more than a tenth */

/* One piece at once, one more overdraws, and the next comes in 18 hours. */
static int setup_bw(void **state)
{
	return setup_limited(state, false, true, (struct virtio_limits){.bytes_per_s = 1});
}

static int setup_iops(void **state)
{
	return setup_limited(state, false, true, (struct virtio_limits){.requests_per_s = 1});
}

static int setup_rate(void **state)
{
	return setup_limited(state, false, true, (struct virtio_limits){.bytes_per_s = RATE});
}

static struct device_stats stats(struct fixture *f)
{
	struct device_stats s;

	virtio_blk_device_stats(f->b, &s);
	return s;
}

static int end(struct fixture *f)
{
	uint8_t status;
	uint32_t head;

	while (!vx_take(&f->x, &head, &f->used_len))
		sched_yield();
	vx_get(&f->x, STATUS, &status, 1);
	return status;
}

static int do_request(struct fixture *f, uint32_t type, uint32_t len, bool in)
{
	offer(f, type, 0, len, in, 3, false);
	return end(f);
}

/* Two pieces are through, and the third is held back. */
static void hold_back(struct fixture *f)
{
	vx_bring_up(&f->x, F_FLUSH, 8);
	assert_int_equal(do_request(f, T_IN, PIECE, true), S_OK);
	assert_int_equal(do_request(f, T_OUT, PIECE, false), S_OK);
	assert_true(stats(f).throttled_ns == 0);
	offer(f, T_IN, 0, PIECE, true, 3, false);
	while (stats(f).throttled_ns == 0)
		sched_yield();
}

static void a_reset_drops_what_is_held_back(void **state)
{
	struct fixture *f = *state;
	uint64_t held;
	uint32_t head;

	hold_back(f);
	/* The vCPU goes on. */
	vx_kick(&f->x);
	assert_int_equal(vx_reg(&f->x, 0x070), 15);
	while (stats(f).throttled_ns < LONG_NS)
		sched_yield();
	vx_set(&f->x, 0x070, 0);
	assert_false(vx_take(&f->x, &head, &f->used_len));
	held = stats(f).throttled_ns;
	assert_true(held >= LONG_NS);
	assert_true(stats(f).throttled_ns == held);
	/* What the device has given before the reset it still has given. */
	vx_bring_up(&f->x, 0, 8);
	offer(f, T_OUT, 0, 512, false, 3, false);
	while (stats(f).throttled_ns == held)
		sched_yield();
	/* And once more, by taking the queue away. */
	vx_set(&f->x, 0x030, 0);
	vx_set(&f->x, 0x044, 0);
	/* One wait is added to the other, and none goes on. */
	assert_true(stats(f).throttled_ns > held);
	held = stats(f).throttled_ns;
	assert_true(stats(f).throttled_ns == held);
	assert_int_equal(stats(f).requests, 2);
	assert_int_equal(stats(f).read_bytes, PIECE);
	assert_int_equal(stats(f).written_bytes, PIECE);
}

static void a_flush_is_not_held_back(void **state)
{
	struct fixture *f = *state;

	hold_back(f);
	vx_set(&f->x, 0x070, 0);
	vx_bring_up(&f->x, F_FLUSH, 8);
	assert_int_equal(do_request(f, T_FLUSH, 0, false), S_OK);
	assert_int_equal(f->flaky.flushes, 1);
	/* Nor what moves no bytes. */
	assert_int_equal(do_request(f, T_GET_ID, 20, true), S_OK);
	assert_int_equal(do_request(f, T_DISCARD, 0, false), S_IOERR); /* no range */
	/* Zeroes are written. */
	put_range(f, 0, 0, 1, 0);
	offer(f, T_ZERO, 0, 16, false, 1, false);
	uint64_t held = stats(f).throttled_ns;

	while (stats(f).throttled_ns == held)
		sched_yield();
}

static void closing_drops_what_is_held_back(void **state)
{
	struct fixture *f = *state;
	uint32_t head;

	hold_back(f);
	virtio_blk_close(f->b);
	assert_int_equal(f->flaky.flushes, 1);
	assert_false(vx_take(&f->x, &head, &f->used_len));
}

/* Of requests, too, and a flush is one, but waits for none. */
static void requests_are_counted(void **state)
{
	struct fixture *f = *state;
	unsigned ends = 6;

	vx_bring_up(&f->x, F_FLUSH, 8);
	assert_int_equal(do_request(f, T_IN, 512, true), S_OK);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(do_request(f, T_FLUSH, 0, false), S_OK);
	assert_true(stats(f).throttled_ns == 0);
	/* The first flush took what was there; on a slow machine there may be some again. */
	do {
		assert_int_equal(do_request(f, T_IN, 512, true), S_OK);
		ends++;
	} while (stats(f).throttled_ns == 0);
	assert_int_equal(stats(f).requests, ends);
}

static void no_more_than_the_rate(void **state)
{
	const uint64_t all = 6 * PIECE, at_once = 2 * PIECE;
	struct fixture *f = *state;
	struct timespec from, to;
	uint64_t ns;

	vx_bring_up(&f->x, 0, 8);
	clock_gettime(CLOCK_MONOTONIC, &from);
	/* Also where one request is more than a piece. */
	assert_int_equal(do_request(f, T_IN, PIECE, true), S_OK);
	assert_int_equal(do_request(f, T_IN, 3 * PIECE, true), S_OK);
	assert_int_equal(do_request(f, T_OUT, 2 * PIECE, false), S_OK);
	clock_gettime(CLOCK_MONOTONIC, &to);
	ns = (uint64_t)(to.tv_sec - from.tv_sec) * NS_PER_S + (uint64_t)to.tv_nsec -
	     (uint64_t)from.tv_nsec;
	assert_true(ns >= (all - at_once) * NS_PER_S / (RATE));
	assert_true(stats(f).throttled_ns > 0 && stats(f).throttled_ns <= ns);
	assert_string_equal(stats(f).name, "blk0");
	assert_int_equal(stats(f).read_bytes, 4 * PIECE);
	assert_int_equal(stats(f).written_bytes, 2 * PIECE);
	assert_true(stats(f).cpu_ns > 0 && stats(f).cpu_ns < ns);
}

/* However small the requests are. */
static void entropy_is_limited(void **state)
{
	const unsigned through = PIECE / VIRTIO_RNG_BYTES_MIN + 1;
	struct virtio_rng_cfg cfg = {.threaded = true, .name = "rng", .bytes_per_s = 1};
	struct device_stats s;
	struct virtio_rng r;
	uint32_t head, len;
	struct vx x;

	(void)state;
	vx_init(&x);
	cfg.mem = &x.mem;
	cfg.irq = fake_irq_line(&x.irq, VX_GSI);
	assert_int_equal(virtio_rng_open(&r, &cfg, NULL), 0);
	vx_attach(&x, &r.mmio);
	vx_bring_up(&x, 0, 8);
	for (unsigned i = 0; i <= through; i++) {
		vx_desc(&x, 0, VX_DATA, 1, DESC_WRITE, 0);
		vx_offer(&x, 0);
		vx_kick(&x);
		while (i < through && !vx_take(&x, &head, &len))
			sched_yield();
	}
	do
		virtio_rng_device_stats(&r, &s);
	while (s.throttled_ns == 0);
	assert_int_equal(s.requests, through);
	assert_int_equal(s.read_bytes, through);
	assert_string_equal(s.name, "rng");
	virtio_rng_close(&r);
	assert_false(vx_take(&x, &head, &len));
	vx_fini(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_reset_drops_what_is_held_back, setup_bw,
						teardown),
		cmocka_unit_test_setup_teardown(a_flush_is_not_held_back, setup_bw, teardown),
		cmocka_unit_test_setup_teardown(closing_drops_what_is_held_back, setup_bw,
						teardown),
		cmocka_unit_test_setup_teardown(requests_are_counted, setup_iops, teardown),
		cmocka_unit_test_setup_teardown(no_more_than_the_rate, setup_rate, teardown),
		cmocka_unit_test(entropy_is_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
