/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/virtio_balloon.c: what is discarded of what a driver gives back, also of one that
 * lies; statistics; the target; reset with a buffer in hand.
 */
#include "base/time.h"
#include "virtio_fixture.h"
#include "vmm/virtio/virtio_balloon.h"

#define LOW_PAGES (VX_LOW_BYTES / 4096)
#define HIGH_PFN (uint32_t)(GUEST_HIGH_GPA / 4096)
#define HIGH_PAGES (VX_HIGH_BYTES / 4096)
#define STATS_BYTES 10u
#define F_HINT 8u
#define F_POISON 16u
#define F_ALL 0x3eu

enum { INFLATE, DEFLATE, STATS, HINT, REPORT };

struct fixture {
	struct vx x;
	struct virtio_balloon b;
	unsigned given[LOW_PAGES + HIGH_PAGES]; /* how often each page was discarded */
	unsigned calls;
	int fail;
};

static unsigned index_of(uint64_t gpa)
{
	return (unsigned)(gpa < GUEST_HIGH_GPA ? gpa / 4096
					       : LOW_PAGES + (gpa - GUEST_HIGH_GPA) / 4096);
}

/* Only whole pages of RAM come here: else this is the host's end. */
static int fx_discard(void *ctx, gpa_t gpa, uint64_t len)
{
	struct fixture *f = ctx;

	assert_true(len > 0 && gpa.v % 4096 == 0 && len % 4096 == 0);
	assert_non_null(vx_at(&f->x, gpa.v, len));
	f->calls++;
	if (f->fail)
		return f->fail;
	for (uint64_t at = 0; at < len; at += 4096)
		f->given[index_of(gpa.v + at)]++;
	memset(vx_at(&f->x, gpa.v, len), 0, len);
	return 0;
}

static void init(struct fixture *f, uint64_t target)
{
	struct virtio_balloon_cfg cfg = {
		.discard = fx_discard, .ctx = f, .mem = &f->x.mem, .name = "balloon",
		.target_bytes = target};

	memset(f, 0, sizeof(*f));
	vx_init(&f->x);
	cfg.irq = fake_irq_line(&f->x.irq, VX_GSI);
	assert_int_equal(virtio_balloon_open(&f->b, &cfg, NULL), 0);
	vx_attach(&f->x, &f->b.mmio);
}

static void fini(struct fixture *f)
{
	virtio_balloon_close(&f->b);
	virtio_balloon_close(&f->b);
	virtio_balloon_close(NULL);
	vx_fini(&f->x);
}

/* The one queue that the fixture's driver has is made queue `queue`, the others stay off. */
static void bring_up(struct fixture *f, uint64_t features, unsigned queue)
{
	vx_bring_up(&f->x, features, 8);
	if (queue == 0)
		return;
	vx_set(&f->x, 0x030, 0);
	vx_set(&f->x, 0x044, 0);
	vx_queue(&f->x, queue, 8, VX_DESC, VX_AVAIL, VX_USED);
	assert_int_equal(vx_reg(&f->x, 0x044), 1);
}

static void work(struct fixture *f, unsigned queue)
{
	vx_set(&f->x, 0x050, queue);
	while (virtio_mmio_work(&f->b.mmio))
		;
}

static void offer_pages(struct fixture *f, unsigned queue, const uint32_t *pages, unsigned count)
{
	vx_put(&f->x, VX_DATA, pages, count * sizeof(*pages));
	vx_desc(&f->x, 0, VX_DATA, count * (uint32_t)sizeof(*pages), 0, 0);
	vx_offer(&f->x, 0);
	work(f, queue);
}

static unsigned given_pages(const struct fixture *f)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_LEN(f->given); i++)
		n += f->given[i] != 0;
	return n;
}

static void gives_back(void **state)
{
	static const uint32_t pages[] = {0x43, 0x42, 0x41, 0x50, HIGH_PFN, HIGH_PFN + 1, 0x42,
					 0xff};
	struct balloon_stats s;
	struct fixture f;
	uint32_t head, len;

	(void)state;
	init(&f, 0);
	assert_int_equal(vx_reg(&f.x, 0x008), 5);
	bring_up(&f, F_ALL, INFLATE);
	offer_pages(&f, INFLATE, pages, ARRAY_LEN(pages));
	assert_true(vx_take(&f.x, &head, &len));
	assert_int_equal(len, 0);
	/* Neighbours go together, in whatever order they came; none goes twice. */
	assert_int_equal(f.calls, 4);
	assert_int_equal(given_pages(&f), 7);
	for (unsigned i = 0; i < ARRAY_LEN(pages); i++)
		assert_int_equal(f.given[index_of((uint64_t)pages[i] * 4096)], 1);
	virtio_balloon_stats_get(&f.b, &s);
	assert_int_equal(s.balloon_inflated_bytes, 7 * 4096);
	assert_int_equal(s.balloon_refused, 0);
	/* Nothing is done when it takes them back. */
	bring_up(&f, F_ALL, DEFLATE);
	offer_pages(&f, DEFLATE, pages, ARRAY_LEN(pages));
	assert_true(vx_take(&f.x, &head, &len));
	assert_int_equal(f.calls, 4);
	fini(&f);
}

/* A driver that lies: no RAM, around its ends, the same page again and again, all of it. */
static void lies(void **state)
{
	static const uint32_t pages[] = {
		LOW_PAGES, LOW_PAGES + 1, UINT32_MAX, HIGH_PFN - 1, HIGH_PFN + HIGH_PAGES, 0xfee00,
		0xd0000, LOW_PAGES - 1, HIGH_PFN + HIGH_PAGES - 1, 0x60, 0x60, 0x60};
	uint32_t many[1000];
	struct balloon_stats s;
	struct fixture f;

	(void)state;
	init(&f, 0);
	bring_up(&f, F_ALL, INFLATE);
	offer_pages(&f, INFLATE, pages, ARRAY_LEN(pages));
	assert_int_equal(given_pages(&f), 3);
	assert_int_equal(f.given[LOW_PAGES - 1], 1);
	assert_int_equal(f.given[LOW_PAGES + HIGH_PAGES - 1], 1);
	virtio_balloon_stats_get(&f.b, &s);
	assert_int_equal(s.balloon_refused, 7);
	assert_int_equal(vx_reg(&f.x, 0x070), 15);
	/* All there is but what the rings are in, more than one batch; then once more. */
	for (unsigned round = 1; round <= 2; round++) {
		for (unsigned i = 0; i < ARRAY_LEN(many); i++)
			many[i] = 0x20 + i % (LOW_PAGES - 0x20);
		offer_pages(&f, INFLATE, many, ARRAY_LEN(many));
		assert_int_equal(vx_used_idx(&f.x), 1 + round);
	}
	assert_int_equal(given_pages(&f), LOW_PAGES - 0x20 + 1);
	/* Its own rings are its own loss: the device stops or goes on, and works after a reset. */
	for (unsigned i = 0; i < LOW_PAGES; i++)
		many[i] = i;
	offer_pages(&f, INFLATE, many, LOW_PAGES);
	assert_int_equal(f.given[VX_USED / 4096], 1);
	bring_up(&f, F_ALL, INFLATE);
	offer_pages(&f, INFLATE, pages + 9, 1);
	assert_int_equal(vx_used_idx(&f.x), 1);
	fini(&f);
}

static void malformed(void **state)
{
	static const uint32_t page = 0x40;
	struct fixture f;

	(void)state;
	init(&f, 0);
	bring_up(&f, F_ALL, INFLATE);
	vx_desc(&f.x, 0, VX_DATA, 6, 0, 0); /* a page and a half */
	vx_offer(&f.x, 0);
	work(&f, INFLATE);
	assert_int_equal(vx_reg(&f.x, 0x070), 0x4f);
	bring_up(&f, F_ALL, INFLATE);
	vx_put(&f.x, VX_DATA, &page, sizeof(page));
	vx_desc(&f.x, 0, VX_DATA, 4, DESC_WRITE, 0);
	vx_offer(&f.x, 0);
	work(&f, INFLATE);
	assert_int_equal(vx_reg(&f.x, 0x070), 0x4f);
	assert_int_equal(f.calls, 0);
	fini(&f);
}

/* What cannot be discarded stays, and is counted; when the VM ends the buffer is not answered. */
static void host_fails(void **state)
{
	static const uint32_t pages[] = {0x40, 0x41, 0x60};
	struct balloon_stats s;
	struct fixture f;

	(void)state;
	init(&f, 0);
	bring_up(&f, F_ALL, INFLATE);
	f.fail = -EBUSY;
	offer_pages(&f, INFLATE, pages, 3);
	virtio_balloon_stats_get(&f.b, &s);
	assert_int_equal(s.balloon_refused, 3);
	assert_int_equal(s.balloon_inflated_bytes, 0);
	assert_int_equal(vx_used_idx(&f.x), 1);
	f.fail = -EINTR;
	vx_put(&f.x, VX_DATA, pages, sizeof(pages));
	vx_offer(&f.x, 0);
	vx_set(&f.x, 0x050, INFLATE);
	assert_true(virtio_mmio_work(&f.b.mmio));
	assert_int_equal(vx_used_idx(&f.x), 1);
	/* Once it can be, it is: the buffer was kept. */
	f.fail = 0;
	while (virtio_mmio_work(&f.b.mmio))
		;
	assert_int_equal(vx_used_idx(&f.x), 2);
	assert_int_equal(given_pages(&f), 3);
	fini(&f);
}

static void report(struct fixture *f, unsigned queue, uint64_t gpa, uint32_t len)
{
	vx_desc(&f->x, 0, gpa, len, DESC_WRITE | DESC_NEXT, 1);
	vx_desc(&f->x, 1, GUEST_HIGH_GPA, 0x2000, DESC_WRITE, 0);
	vx_offer(&f->x, 0);
	work(f, queue);
}

static void reports(void **state)
{
	struct balloon_stats s;
	struct fixture f;

	(void)state;
	init(&f, 0);
	bring_up(&f, F_ALL, REPORT);
	/* Whole pages of a range that begins and ends within one. */
	memset(f.x.low + 0x80000, 0x55, 0x6000);
	report(&f, REPORT, 0x80ff8, 0x2010);
	assert_int_equal(vx_used_idx(&f.x), 1);
	assert_int_equal(f.given[0x80] + f.given[0x83], 0);
	assert_int_equal(f.given[0x81] + f.given[0x82], 2);
	assert_int_equal(f.x.low[0x80fff], 0x55);
	assert_int_equal(f.x.low[0x83000], 0x55);
	assert_int_equal(f.given[LOW_PAGES] + f.given[LOW_PAGES + 1], 2);
	virtio_balloon_stats_get(&f.b, &s);
	assert_int_equal(s.balloon_reported_bytes, 4 * 4096);
	/* Less than a page is none. */
	f.calls = 0;
	report(&f, REPORT, 0x84001, 0x1ffe);
	assert_int_equal(f.calls, 1);
	/* Without hinting, a driver may have put the queue one earlier. */
	bring_up(&f, F_ALL & ~F_HINT, HINT);
	report(&f, HINT, 0x90000, 0x1000);
	assert_int_equal(f.given[0x90], 1);
	/* With it, what is hinted is not given back: nobody asked. */
	bring_up(&f, F_ALL, HINT);
	report(&f, HINT, 0x91000, 0x1000);
	assert_int_equal(f.given[0x91], 0);
	assert_int_equal(vx_used_idx(&f.x), 1);
	fini(&f);
}

/* Free pages that are to hold a pattern stay as they are. */
static void poison(void **state)
{
	struct fixture f;

	(void)state;
	init(&f, 0);
	bring_up(&f, F_ALL, REPORT);
	vx_set(&f.x, 0x10c, 0xaaaaaaaa);
	assert_int_equal(vx_reg(&f.x, 0x10c), 0xaaaaaaaa);
	report(&f, REPORT, 0x90000, 0x1000);
	assert_int_equal(f.calls, 0);
	vx_set(&f.x, 0x10c, 0); /* zeroes are what they will be */
	report(&f, REPORT, 0x90000, 0x1000);
	assert_int_equal(f.given[0x90], 1);
	/* Without the feature it says nothing. */
	bring_up(&f, F_ALL & ~F_POISON, REPORT);
	vx_set(&f.x, 0x10c, 0xaaaaaaaa);
	report(&f, REPORT, 0x91000, 0x1000);
	assert_int_equal(f.given[0x91], 1);
	fini(&f);
}

static void config(void **state)
{
	struct balloon_stats s;
	struct fixture f;

	(void)state;
	init(&f, 40 * 4096 + 4095);
	bring_up(&f, F_ALL, INFLATE);
	assert_int_equal(vx_reg(&f.x, 0x100), 40);
	assert_false(f.x.irq.level);
	virtio_balloon_target_set(&f.b, 100 * 4096);
	assert_true(f.x.irq.level);
	assert_int_equal(vx_reg(&f.x, 0x060), 2);
	assert_int_equal(vx_reg(&f.x, 0x100), 100);
	vx_set(&f.x, 0x104, 77);
	assert_int_equal(vx_reg(&f.x, 0x104), 77);
	assert_int_equal(virtio_balloon_actual(&f.b), 77 * 4096);
	/* The driver's own are the only ones it may write, and whole. */
	vx_set(&f.x, 0x100, 5);
	vx_set(&f.x, 0x108, 5);
	bus_write(&f.x.bus, BUS_MMIO, VX_MMIO + 0x104, 2, 3);
	bus_write(&f.x.bus, BUS_MMIO, VX_MMIO + 0x1fc, 4, 3);
	assert_int_equal(vx_reg(&f.x, 0x100), 100);
	assert_int_equal(vx_reg(&f.x, 0x108), 0);
	assert_int_equal(virtio_balloon_actual(&f.b), 77 * 4096);
	vx_set(&f.x, 0x104, UINT32_MAX); /* more than there is */
	virtio_balloon_stats_get(&f.b, &s);
	assert_true(s.balloon_bytes == (uint64_t)UINT32_MAX * 4096);
	assert_int_equal(s.balloon_target_bytes, 100 * 4096);
	/* A new driver has an empty balloon, and the same target. */
	vx_set(&f.x, 0x070, 0);
	assert_int_equal(virtio_balloon_actual(&f.b), 0);
	assert_int_equal(vx_reg(&f.x, 0x100), 100);
	fini(&f);
}

static void put_stat(struct fixture *f, unsigned i, uint16_t tag, uint64_t value)
{
	vx_put(&f->x, VX_DATA + STATS_BYTES * i, &tag, 2);
	vx_put(&f->x, VX_DATA + STATS_BYTES * i + 2, &value, 8);
}

/* Each tag of the driver's is told under its own name, and the device counts what it gave back. */
static void each_statistic_has_its_place(void **state)
{
	struct device_stats d;
	struct balloon_stats s;
	struct fixture f;

	(void)state;
	init(&f, 0);
	bring_up(&f, F_ALL, STATS);
	for (unsigned tag = 0; tag < 8; tag++)
		put_stat(&f, tag, (uint16_t)tag, 100 + tag);
	vx_desc(&f.x, 0, VX_DATA, 8 * STATS_BYTES, 0, 0);
	vx_offer(&f.x, 0);
	work(&f, STATS);
	virtio_balloon_stats_get(&f.b, &s);
	assert_int_equal(s.guest_swap_in_bytes, 100);
	assert_int_equal(s.guest_swap_out_bytes, 101);
	assert_int_equal(s.guest_major_faults, 102);
	assert_int_equal(s.guest_minor_faults, 103);
	assert_int_equal(s.guest_free_bytes, 104);
	assert_int_equal(s.guest_memory_bytes, 105);
	assert_int_equal(s.guest_available_bytes, 106);
	assert_int_equal(s.guest_cache_bytes, 107);
	virtio_balloon_device_stats(&f.b, &d);
	assert_int_equal(d.requests, 1);
	assert_int_equal(d.written_bytes, 0);
	fini(&f);
}

static void statistics(void **state)
{
	struct balloon_stats s;
	struct fixture f;
	uint32_t head, len;

	(void)state;
	init(&f, 0);
	virtio_balloon_refresh(&f.b, 0); /* no driver: nobody is asked */
	bring_up(&f, F_ALL, STATS);
	put_stat(&f, 0, 4, 1000);
	put_stat(&f, 1, 5, 5000);
	put_stat(&f, 2, 6, 3000);
	put_stat(&f, 3, 0x7777, 1); /* no tag of ours */
	vx_desc(&f.x, 3, VX_DATA, 4 * STATS_BYTES + 7, 0, 0);
	vx_offer(&f.x, 3);
	work(&f, STATS);
	virtio_balloon_stats_get(&f.b, &s);
	assert_int_equal(s.guest_free_bytes, 1000);
	assert_int_equal(s.guest_memory_bytes, 5000);
	assert_int_equal(s.guest_available_bytes, 3000);
	assert_true(s.guest_stats_age_ns > 0);
	/* The buffer is kept until more is wanted: a driver is not asked all the time. */
	assert_int_equal(vx_used_idx(&f.x), 0);
	virtio_balloon_refresh(&f.b, 0);
	while (virtio_mmio_work(&f.b.mmio))
		;
	assert_true(vx_take(&f.x, &head, &len));
	assert_int_equal(head, 3);
	assert_int_equal(len, 0);
	put_stat(&f, 0, 4, 900);
	vx_offer(&f.x, 3);
	work(&f, STATS);
	virtio_balloon_stats_get(&f.b, &s);
	assert_int_equal(s.guest_free_bytes, 900);
	/* A second buffer beside the one that is kept takes its place. */
	vx_desc(&f.x, 5, VX_DATA, STATS_BYTES, 0, 0);
	vx_offer(&f.x, 5);
	work(&f, STATS);
	assert_true(vx_take(&f.x, &head, &len));
	assert_int_equal(head, 3);
	fini(&f);
}

/* Who asks a guest that has gone silent waits once, and again when it has spoken. */
static void silent_driver(void **state)
{
	const uint64_t wait_ns = 20 * NS_PER_MS;
	uint32_t head, len;
	struct fixture f;
	uint64_t begun;

	(void)state;
	init(&f, 0);
	bring_up(&f, F_ALL, STATS);
	vx_desc(&f.x, 3, VX_DATA, STATS_BYTES, 0, 0);
	for (unsigned i = 0; i < 2; i++) {
		put_stat(&f, 0, 4, 1000);
		vx_offer(&f.x, 3);
		work(&f, STATS);
		begun = monotonic_ns();
		virtio_balloon_refresh(&f.b, wait_ns);
		assert_true(monotonic_ns() - begun >= wait_ns);
		/* By the clock nothing can be said of a busy machine: it would wait for ever. */
		virtio_balloon_refresh(&f.b, 3600 * NS_PER_S);
		while (virtio_mmio_work(&f.b.mmio))
			;
		assert_true(vx_take(&f.x, &head, &len));
	}
	fini(&f);
}

/* What is kept of a queue does not outlive it: its head may be beyond the next one's end. */
static void reset_with_statistics(void **state)
{
	struct fixture f;

	(void)state;
	init(&f, 0);
	for (unsigned way = 0; way < 2; way++) {
		bring_up(&f, F_ALL, STATS);
		vx_desc(&f.x, 7, VX_DATA, STATS_BYTES, 0, 0);
		vx_offer(&f.x, 7);
		work(&f, STATS);
		if (way == 0) {
			vx_set(&f.x, 0x044, 0);
			vx_queue(&f.x, STATS, 2, VX_DESC, VX_AVAIL, VX_USED);
		} else {
			vx_bring_up(&f.x, F_ALL, 2);
			vx_set(&f.x, 0x044, 0);
			vx_queue(&f.x, STATS, 2, VX_DESC, VX_AVAIL, VX_USED);
		}
		virtio_balloon_refresh(&f.b, 0);
		while (virtio_mmio_work(&f.b.mmio))
			;
		assert_int_equal(vx_used_idx(&f.x), 0);
	}
	/* Nor is a head that the next queue has, too, its driver's. */
	bring_up(&f, F_ALL, STATS);
	vx_desc(&f.x, 1, VX_DATA, STATS_BYTES, 0, 0);
	vx_offer(&f.x, 1);
	work(&f, STATS);
	bring_up(&f, F_ALL, STATS);
	virtio_balloon_refresh(&f.b, 0);
	while (virtio_mmio_work(&f.b.mmio))
		;
	assert_int_equal(vx_used_idx(&f.x), 0);
	fini(&f);
}

/* In a snapshot and out of it: the kept buffer is given back by the one that was restored. */
static void comes_back(void **state)
{
	struct virtio_mmio_saved mmio;
	struct balloon_saved saved;
	struct fixture f, g;
	uint32_t head, len;

	(void)state;
	init(&f, 0);
	init(&g, 0);
	bring_up(&f, F_ALL, STATS);
	put_stat(&f, 0, 4, 1000);
	vx_desc(&f.x, 3, VX_DATA, STATS_BYTES, 0, 0);
	vx_offer(&f.x, 3);
	work(&f, STATS);
	virtio_balloon_target_set(&f.b, 100 * 4096);
	vx_set(&f.x, 0x104, 77);
	vx_set(&f.x, 0x10c, 0xaa);
	virtio_mmio_hold(&f.b.mmio);
	virtio_balloon_save(&f.b, &saved);
	virtio_mmio_save(&f.b.mmio, &mmio);
	virtio_mmio_release(&f.b.mmio);
	assert_int_equal(saved.held, 3);
	memcpy(vx_at(&g.x, 0, VX_LOW_BYTES), vx_at(&f.x, 0, VX_LOW_BYTES), VX_LOW_BYTES);
	virtio_balloon_restore(&g.b, &saved);
	assert_int_equal(virtio_mmio_restore(&g.b.mmio, &mmio), 0);
	assert_int_equal(virtio_balloon_target(&g.b), 100 * 4096);
	assert_int_equal(virtio_balloon_actual(&g.b), 77 * 4096);
	assert_int_equal(vx_reg(&g.x, 0x10c), 0xaa);
	virtio_balloon_save(&g.b, &saved);
	assert_int_equal(saved.poison, 0xaa);
	virtio_balloon_refresh(&g.b, 0);
	while (virtio_mmio_work(&g.b.mmio))
		;
	g.x.size = f.x.size; /* its driver is the same */
	assert_true(vx_take(&g.x, &head, &len));
	assert_int_equal(head, 3);
	/* Its ring has no such buffer. */
	saved.held = 8;
	virtio_balloon_restore(&g.b, &saved);
	virtio_balloon_refresh(&g.b, 0);
	while (virtio_mmio_work(&g.b.mmio))
		;
	assert_false(vx_take(&g.x, &head, &len));
	fini(&f);
	fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_back),
		cmocka_unit_test(lies),
		cmocka_unit_test(malformed),
		cmocka_unit_test(host_fails),
		cmocka_unit_test(reports),
		cmocka_unit_test(poison),
		cmocka_unit_test(config),
		cmocka_unit_test(each_statistic_has_its_place),
		cmocka_unit_test(statistics),
		cmocka_unit_test(silent_driver),
		cmocka_unit_test(reset_with_statistics),
		cmocka_unit_test(comes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
