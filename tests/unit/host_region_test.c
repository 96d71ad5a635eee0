/* SPDX-License-Identifier: Apache-2.0 */
/* src/host/region.c: guest RAM that comes and goes while the VM runs. */
#include "host_swap_fixture.h"

#define PAGES 256u

static roff_t page(uint64_t p)
{
	return (roff_t){p * PAGE_BYTES};
}

/* It was in the VMM's memfd before. */
static void put_found(struct hx *x, uint64_t first, uint64_t count)
{
	for (uint64_t p = first; p < first + count; p++) {
		hxs_put(x, p, 0x5000 + p);
		hxs(x)->allocated[p] = true;
	}
	hst_ram_found(&x->h, page(first), count * PAGE_BYTES);
	hx_assert_sound(x);
}

/* As lib/memory.c does it. */
static void discard(struct hx *x, struct hst_discard *d)
{
	enum hst_discarding next;
	uint32_t first = d->at;

	while ((next = hst_discard_step(&x->h, d)) != HST_DISCARD_DONE) {
		x->discards = d;
		if (next == HST_DISCARD_WORK)
			hst_discard_work(&x->h, d);
		else
			hxs_device(x, d->at, 0);
		x->discards = NULL;
	}
	assert_int_equal(d->why.code, 0);
	for (uint32_t p = first; p < d->end; p++)
		hxs(x)->want[p] = 1;
	hx_assert_sound(x);
}

static bool leave(struct hx *x)
{
	struct hst_discard d;

	if (!hst_ram_leave(&x->h, (gpa_t){HX_GPA}, &d))
		return false;
	assert_int_equal(d.at, 0);
	assert_int_equal(d.end, PAGES);
	discard(x, &d);
	return true;
}

static void what_is_found_goes_before_the_source(void **state)
{
	struct hx *x = hxs_plain(true, 0);

	(void)state;
	put_found(x, 10, 4);
	assert_int_equal(x->h.evict.resident, 4);
	assert_int_equal(hxs_kind(x, 10), BLOCK_STANDBY);
	hxs_check_pages(x, 10, 2);
	assert_int_equal(x->h.stats.reads, 0);
	/* And is lost by nobody. */
	hxs_evict_all(x);
	assert_int_equal(x->h.stats.swapped, 4);
	assert_int_equal(x->h.evict.resident, 0);
	hxs_check_pages(x, 8, 8);
	hxs_close(x);
}

/* Also of blocks that are found in part: the rest of them is zeroes, as it is in the memfd. */
static void a_part_of_a_block_is_a_block(void **state)
{
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct hx *x;

	(void)state;
	cfg.block_shift = 14;
	x = hxs_open(&cfg, PAGES, true, 0);
	for (uint64_t p = 8; p < 16; p++)
		hxs_put(x, p, p == 11 || p == 12 ? 0x5000 + p : 1);
	hst_ram_found(&x->h, page(11), 2 * PAGE_BYTES);
	hx_assert_sound(x);
	assert_int_equal(hxs_kind(x, 8), BLOCK_STANDBY);
	assert_int_equal(hxs_kind(x, 15), BLOCK_STANDBY);
	assert_int_equal(hxs_kind(x, 7), BLOCK_ABSENT);
	assert_int_equal(hxs_kind(x, 16), BLOCK_ABSENT);
	hxs_check_pages(x, 8, 8);
	hxs_close(x);
}

/* More than there may be: it goes to the swap file before anything else comes. */
static void more_may_be_found_than_may_stay(void **state)
{
	struct hx *x = hxs_plain(true, HXS_LIMIT);

	(void)state;
	put_found(x, 0, 100);
	hxs_evict(x);
	assert_true(x->h.evict.resident <= HXS_LIMIT);
	for (uint64_t p = 0; p < 120; p++) {
		hxs_device(x, p, 0);
		hxs_evict(x);
	}
	hxs_close(x);
}

static void what_has_left_is_forgotten(void **state)
{
	struct hx *x = hxs_plain(true, 0);
	struct err e;

	(void)state;
	hxs_write_pages(x, 10, 8);
	hxs_evict_all(x);
	hxs_write_pages(x, 14, 8);
	for (uint64_t p = 16; p < 20; p++)
		hxs_vmm(x, p, 0x2000 + p);
	assert_true(hst_pin(&x->h, page(15)));
	assert_int_equal(hx_kernel_touch(&x->h, page(100), &e), 0);
	assert_int_equal(x->h.chunk_poisoned[0], 1);
	assert_true(leave(x));
	assert_int_equal(x->h.evict.pinned, 0);
	assert_int_equal(x->h.evict.resident, 0);
	assert_true(hst_ram_remove(&x->h, (gpa_t){HX_GPA}));
	for (uint32_t b = 0; b < PAGES; b++)
		assert_int_equal(x->h.blocks[b], 0);
	assert_int_equal(x->h.chunk_poisoned[0], 0);
	assert_int_equal(x->h.ram.bytes, 0);
	/* Reported before, read after. */
	assert_int_equal(hx_kernel_touch(&x->h, page(16), &e), 0);
	assert_int_equal(hx_vmm_touch(&x->h, page(16), &e), 0);
	hx_assert_sound(x);

	/* Another part comes to its place, with nothing behind it. */
	assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){HX_GPA}, PAGES * PAGE_BYTES,
					PAGE_BYTES), RAM_ADDED);
	hst_ram_added(&x->h);
	memset(hxs(x)->pages, HX_HOLE, sizeof(hxs(x)->pages));
	memset(hxs(x)->want, 0, sizeof(hxs(x)->want));
	hxs(x)->source = false;
	hxs_check_pages(x, 10, 12);
	hxs_close(x);
}

/* Refused, it stays as it was: what is pinned and kept there still is. */
static void what_is_held_does_not_leave(void **state)
{
	struct hx *x = hxs_plain(true, 0);
	struct hst_vcpu *v = hx_v(x, 0);

	(void)state;
	hxs_write_pages(x, 10, 4);
	assert_true(hst_pin(&x->h, page(10)));
	vcpu_keep(v, PV_SYSTEM_TIME, 11);
	assert_true(hst_hold_long(&x->h, page(12)));
	assert_false(leave(x));
	hxs_evict_all(x);
	for (uint64_t p = 10; p < 13; p++)
		assert_int_equal(hxs_kind(x, p), BLOCK_PRESENT);
	assert_int_equal(hxs_kind(x, 13), BLOCK_ABSENT);
	assert_int_equal(v->kept[PV_SYSTEM_TIME], 11);
	hst_release_long(&x->h, page(12));
	/* What vCPUs keep is let go of. */
	assert_true(leave(x));
	assert_int_equal(v->kept[PV_SYSTEM_TIME], BLOCK_NONE);
	assert_true(hst_ram_remove(&x->h, (gpa_t){HX_GPA}));
	hxs_close(x);
}

static void what_comes_back_is_discarded_once_more(void **state)
{
	struct hx *x = hxs_plain(true, 0);
	struct hst_job job;

	(void)state;
	assert_true(leave(x));
	/* A fetch that was on its way. */
	hxs_device(x, 20, 0);
	assert_false(hst_ram_remove(&x->h, (gpa_t){HX_GPA}));
	hst_evict_to(&x->h, 0);
	job = hxs_take_job(x, HST_JOB_UNMAP);
	assert_false(hst_ram_remove(&x->h, (gpa_t){HX_GPA}));
	hxs_end_job(x, &job);
	hxs_evict(x);
	assert_true(leave(x));
	assert_true(hst_ram_remove(&x->h, (gpa_t){HX_GPA}));
	hxs_close(x);
}

/* What the thread is about to import may be of the part that leaves. */
static void nothing_leaves_while_a_job_is_out(void **state)
{
	struct hx *x = hxs_sized(HST_FAULTS_BLOCK, PAGES, false, 0);
	struct hst_job job;

	(void)state;
	for (uint64_t p = 10; p < 20; p++)
		hxs_native(x, p);
	hst_evict_to(&x->h, 0);
	assert_true(hst_evict_next(&x->h, &job));
	hxs_end_job(x, &job);
	assert_true(hst_evict_next(&x->h, &job));
	assert_int_equal(job.kind, HST_JOB_IMPORT);
	hst_evict_work(&x->h, &job);
	assert_true(leave(x));
	assert_false(hst_ram_remove(&x->h, (gpa_t){HX_GPA}));
	hxs_end_job(x, &job);
	assert_true(leave(x));
	assert_true(hst_ram_remove(&x->h, (gpa_t){HX_GPA}));
	/* There is nothing left to look at. */
	while (hxs_job(x))
		;
	assert_int_equal(x->h.evict.watch, HST_WATCH_ALL);
	hxs_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_found_goes_before_the_source),
		cmocka_unit_test(a_part_of_a_block_is_a_block),
		cmocka_unit_test(more_may_be_found_than_may_stay),
		cmocka_unit_test(what_has_left_is_forgotten),
		cmocka_unit_test(what_is_held_does_not_leave),
		cmocka_unit_test(what_comes_back_is_discarded_once_more),
		cmocka_unit_test(nothing_leaves_while_a_job_is_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
