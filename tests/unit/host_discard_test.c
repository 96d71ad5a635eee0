/* SPDX-License-Identifier: Apache-2.0 */
/* src/host/discard.c: what is discarded is zeroes from then on, whatever stood behind it. */
#include "host_swap_fixture.h"

static roff_t page(uint64_t p)
{
	return (roff_t){p * PAGE_BYTES};
}

static enum hst_discarding step(struct rig *x, struct hst_discard *d)
{
	enum hst_discarding next = hst_discard_step(&x->h, d);

	x->discards = next == HST_DISCARD_WORK ? d : NULL;
	rig_assert_sound(x);
	return next;
}

static void begin(struct rig *x, struct hst_discard *d, uint32_t first, uint32_t count)
{
	*d = (struct hst_discard){.at = first, .end = first + count};
	assert_int_equal(step(x, d), HST_DISCARD_WORK);
}

static enum hst_discarding go_on(struct rig *x, struct hst_discard *d)
{
	hst_discard_work(&x->h, d);
	return step(x, d);
}

/* As lib/memory.c does it. */
static int discard(struct rig *x, uint32_t first, uint32_t count)
{
	struct hst_discard d = {.at = first, .end = first + count};
	enum hst_discarding next = step(x, &d);

	while (next != HST_DISCARD_DONE) {
		if (next == HST_DISCARD_LATER) {
			rig_device(x, d.at, 0);
			next = step(x, &d);
		} else {
			struct hst_run run = d.run;

			next = go_on(x, &d);
			for (uint32_t i = 0; d.why.code == 0 && i < run.count; i++)
				rig_swap(x)->want[run.block + i] = 1;
		}
	}
	for (uint32_t p = first; d.why.code == 0 && p < first + count; p++)
		rig_swap(x)->want[p] = 1;
	return d.why.code;
}

static unsigned allocated(struct rig *x)
{
	return (unsigned)(hst_resident_bytes(&x->h) >> PAGE_SHIFT);
}

/* Pages from 10: in the source, 14: in the swap file, 18: standby, 22: there, in both views. */
static struct rig *open_all_kinds(void)
{
	struct rig *x = rig_plain(true, 0);

	rig_write_pages(x, 14, 4);
	rig_evict_all(x);
	rig_write_pages(x, 18, 4);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	rig_write_pages(x, 22, 4);
	for (uint64_t p = 22; p < 26; p += 2)
		rig_vmm(x, p, 0x2000 + p);
	return x;
}

/* What is being written out to the swap file is not: here it has been. */
static void end_writes(struct rig *x)
{
	while (rig_swap(x)->count)
		rig_write_ok(x, 0);
}

static void of_every_kind_nothing_is_left(void **state)
{
	struct rig *x = open_all_kinds();
	uint64_t reads, swapped;

	(void)state;
	end_writes(x);
	reads = x->h.stats.reads;
	swapped = x->h.stats.swapped;
	assert_int_equal(rig_kind(x, 19), BLOCK_STANDBY);
	assert_int_equal(discard(x, 10, 16), 0);
	for (uint64_t p = 10; p < 26; p++) {
		assert_int_equal(rig_kind(x, p), BLOCK_ABSENT);
		assert_false(rig_visible(x, p) || rig_swap(x)->vmm[p]);
	}
	assert_int_equal(allocated(x), 0);
	assert_int_equal(x->h.evict.resident, 0);
	assert_int_equal(x->h.stats.discarded, 16);
	/* It is zeroes without a read, and takes none and no write on its way out again. */
	rig_check_pages(x, 10, 16);
	rig_evict_all(x);
	rig_check_pages(x, 10, 16);
	assert_int_equal(x->h.stats.reads, reads);
	assert_int_equal(x->h.stats.swapped, swapped);
	assert_int_equal(rig_swap(x)->count, 0);
	rig_swap_close(x);
}

static void its_neighbours_stay_as_they_are(void **state)
{
	struct rig *x = open_all_kinds();

	(void)state;
	end_writes(x);
	for (uint32_t p = 11; p < 26; p += 4)
		assert_int_equal(discard(x, p, 1), 0);
	rig_swap(x)->later = false;
	rig_check_pages(x, 10, 16);
	rig_evict_all(x);
	rig_check_pages(x, 10, 16);
	rig_swap_close(x);
}

static void a_run_ends_where_the_chunk_does(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, 1024, true, 0);
	struct hst_discard d;

	(void)state;
	begin(x, &d, 500, 100);
	assert_int_equal(d.run.block, 500);
	assert_int_equal(d.run.count, 12);
	assert_int_equal(go_on(x, &d), HST_DISCARD_WORK);
	assert_int_equal(d.run.block, 512);
	assert_int_equal(d.run.count, 88);
	assert_int_equal(go_on(x, &d), HST_DISCARD_DONE);
	rig_swap_close(x);
}

/* Who copies memory is told when it is zeroes, and not before. */
static void note_zeroes(void *ctx, gpa_t gpa, uint64_t bytes)
{
	struct rig *x = ctx;
	uint64_t first = (gpa.v - RIG_GPA) / PAGE_BYTES;

	for (uint64_t p = first; p < first + bytes / PAGE_BYTES; p++)
		rig_swap(x)->want[p] = rig_words(x, p)[0] == 0 ? 1 : 2;
}

static void what_is_discarded_is_told(void **state)
{
	struct rig *x = open_all_kinds();
	struct hst_discard d = {.at = 10, .end = 26};
	enum hst_discarding next;

	(void)state;
	end_writes(x);
	assert_true(hst_pin(&x->h, page(23)));
	memset(rig_swap(x)->want, 0, sizeof(rig_swap(x)->want));
	x->h.hooks.ctx = x;
	x->h.hooks.wrote = note_zeroes;
	while ((next = step(x, &d)) == HST_DISCARD_WORK)
		hst_discard_work(&x->h, &d);
	assert_int_equal(next, HST_DISCARD_DONE);
	for (uint64_t p = 9; p < 27; p++)
		assert_int_equal(rig_swap(x)->want[p], p >= 10 && p < 26);
	hst_unpin(&x->h, page(23));
	rig_swap_close(x);
}

/* ---- what keeps its memory ---- */

static void what_is_needed_where_it_is_is_overwritten(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_write_pages(x, 10, 4);
	rig_evict_all(x);
	rig_check_pages(x, 10, 4);
	assert_true(hst_pin(&x->h, page(10)));
	assert_true(hst_hold(&x->h, page(11)));
	assert_true(hst_hold_long(&x->h, page(12)));
	assert_int_equal(discard(x, 10, 4), 0);
	for (uint64_t p = 10; p < 13; p++)
		assert_true(rig_present(x, p) && rig_visible(x, p) && rig_right(x, p));
	assert_int_equal(rig_kind(x, 13), BLOCK_ABSENT);
	assert_int_equal(x->h.stats.discarded, 4);
	hst_unpin(&x->h, page(10));
	hst_release(&x->h, page(11));
	hst_release_long(&x->h, page(12), 1);
	/* The swap file has something else. */
	rig_evict_all(x);
	rig_check_pages(x, 10, 4);
	rig_swap_close(x);
}

/* Also where nothing is ever evicted: a balloon needs no swap file. */
static void holds_count_without_a_swap_file(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x = rig_open(&cfg);
	struct hst_discard d = {.at = 10, .end = 12};

	(void)state;
	x->src.answers = RIG_AT_ONCE;
	for (uint64_t p = 10; p < 12; p++) {
		rig_populate(x, p);
		assert_true(hst_hold(&x->h, page(p)));
	}
	assert_int_equal(step(x, &d), HST_DISCARD_DONE);
	for (uint64_t p = 10; p < 12; p++) {
		assert_true(rig_present(x, p));
		assert_int_equal(x->alias[p * PAGE_BYTES], 0);
		hst_release(&x->h, page(p));
	}
	d = (struct hst_discard){.at = 10, .end = 12};
	assert_int_equal(step(x, &d), HST_DISCARD_WORK);
	assert_int_equal(d.run.count, 2);
	x->discards = NULL;
	rig_free(x);
}

/* One whose write is under way goes, and what of it arrives in the file does not count. */
static void what_is_being_written_out_is_given_back(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_write_pages(x, 10, 4);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	assert_int_equal(rig_swap(x)->count, 1);
	assert_int_equal(discard(x, 10, 2), 0);
	assert_int_equal(rig_kind(x, 10), BLOCK_ABSENT);
	/* Wanted back, written to, and on its way out once more before that write has ended. */
	rig_device(x, 11, 0x2000);
	rig_evict_all(x);
	assert_int_equal(rig_swap(x)->count, 1);
	end_writes(x);
	assert_int_equal(x->h.stats.swapped, 2);
	rig_swap(x)->later = false;
	rig_evict_all(x);
	assert_int_equal(x->h.stats.swapped, 3);
	rig_check_pages(x, 10, 4);
	rig_swap_close(x);
}

/* A discard that fails may have made zeroes of it, and the old content is on its way. */
static void a_failed_discard_does_not_believe_the_write(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_discard d;

	(void)state;
	rig_write_pages(x, 10, 2);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	begin(x, &d, 10, 2);
	rig_swap(x)->half = 1;
	rig_swap(x)->fail[RIG_TAKE_DROP] = 1;
	assert_int_equal(go_on(x, &d), HST_DISCARD_DONE);
	assert_int_equal(d.why.code, -ENOMEM);
	rig_swap(x)->want[10] = 1;
	assert_int_equal(rig_kind(x, 10), BLOCK_STANDBY);
	end_writes(x);
	assert_int_equal(x->h.stats.swapped, 0);
	rig_swap(x)->later = false;
	rig_evict_all(x);
	rig_check_pages(x, 10, 2);
	rig_swap_close(x);
}

/* The platform was told that the page is there, and stays. */
static void what_is_mapped_ahead_stays(void **state)
{
	struct rig *x = rig_plain(true, 0);
	roff_t arrived[HST_ARRIVED_MAX];

	(void)state;
	rig_fault(x, 0, 10);
	rig_pump(x);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(hst_take_arrived(rig_v(x, 0), arrived), 1);
	rig_assert_sound(x);
	assert_int_equal(discard(x, 10, 1), 0);
	assert_true(rig_present(x, 10) && rig_visible(x, 10));
	assert_int_equal(rig_pass(x, 0), HST_ENTER);
	assert_int_equal(discard(x, 10, 1), 0);
	assert_int_equal(rig_kind(x, 10), BLOCK_ABSENT);
	rig_swap_close(x);
}

/* ---- meanwhile ---- */

static void who_touches_it_meanwhile_gets_zeroes(void **state)
{
	struct rig *x = open_all_kinds();
	struct hst_waiter w = {.v = NULL};
	struct hst_discard d;
	struct err e;

	(void)state;
	end_writes(x);
	for (uint32_t p = 10; p < 26; p += 4) {
		begin(x, &d, p, 4);
		rig_fault(x, 0, p);
		assert_false(hst_ensure(&x->h, page(p + 1), &w));
		assert_int_equal(rig_vmm_touch(&x->h, page(p + 2), &e), 0);
		rig_assert_sound(x);
		assert_int_equal(rig_pump(x), 0);
		assert_int_equal(go_on(x, &d), HST_DISCARD_DONE);
		for (uint64_t i = p; i < p + 4; i++)
			rig_swap(x)->want[i] = 1;
		rig_pump(x);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
		assert_null(w.fetch);
		for (uint64_t i = p; i < p + 3; i++)
			assert_true(rig_visible(x, i) && rig_right(x, i));
		assert_true(rig_swap(x)->vmm[p + 2]);
	}
	rig_swap(x)->later = false;
	rig_evict_all(x);
	rig_check_pages(x, 10, 16);
	rig_swap_close(x);
}

static void what_is_under_way_is_waited_for(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_waiter w = {.v = NULL};
	struct hst_discard d = {.at = 10, .end = 12};
	struct hst_job job;

	(void)state;
	x->src.answers = RIG_LATER;
	assert_false(hst_ensure(&x->h, page(10), &w));
	assert_int_equal(step(x, &d), HST_DISCARD_LATER);
	assert_int_equal(d.at, 10);
	x->src.answers = RIG_AT_ONCE;
	rig_bring(x, 10);
	rig_write_pages(x, 10, 2);
	hst_evict_to(&x->h, 0);
	job = rig_take_job(x, HST_JOB_UNMAP);
	assert_int_equal(step(x, &d), HST_DISCARD_LATER);
	assert_false(hst_ensure(&x->h, page(10), &w));
	rig_end_job(x, &job);
	while (rig_job(x))
		;
	assert_null(w.fetch);
	assert_int_equal(discard(x, 10, 2), 0);
	rig_evict(x);
	rig_check_pages(x, 10, 2);
	rig_swap_close(x);
}

/* ---- what the VM is paused for ---- */

/* Nobody has to mend a source for content that nobody needs, nor sees what a read has left. */
static void what_cannot_be_read_is_zeroes(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_waiter w = {.v = NULL};

	(void)state;
	x->src.answers = RIG_FAILS_AT_ONCE;
	assert_false(hst_ensure(&x->h, page(10), &w));
	while (!hst_is_paused(&x->h))
		rig_after(x, NS_PER_S);
	assert_true(hst_is_stuck(&x->h, page(10)));
	assert_int_equal(discard(x, 10, 1), 0);
	assert_false(hst_is_paused(&x->h));
	assert_non_null(w.fetch);
	rig_pump(x);
	assert_null(w.fetch);
	assert_true(rig_visible(x, 10) && rig_right(x, 10));
	assert_int_equal(x->h.evict.resident, 1);
	assert_int_equal(discard(x, 10, 1), 0);
	assert_int_equal(x->h.evict.resident, 0);
	rig_swap_close(x);
}

/* The same where it was read, and there was no room to show it. */
static void what_cannot_be_shown_is_zeroes(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_waiter w = {.v = NULL};

	(void)state;
	x->mem_faults.at = x->mem_faults.calls + 1;
	assert_false(hst_ensure(&x->h, page(10), &w));
	rig_pump(x);
	assert_true(hst_is_paused(&x->h) && hst_is_stuck(&x->h, page(10)));
	assert_int_equal(discard(x, 10, 1), 0);
	assert_false(hst_is_paused(&x->h));
	rig_pump(x);
	assert_null(w.fetch);
	assert_true(rig_visible(x, 10) && rig_right(x, 10));
	rig_swap_close(x);
}

/* It waits for its source, or for room, as before. */
static void what_failed_and_cannot_be_discarded_fails_again(void **state)
{
	static const enum rig_take steps[] = {RIG_TAKE_UNMAP, RIG_TAKE_COLLECT, RIG_TAKE_DROP};

	(void)state;
	for (unsigned i = 0; i < 2 * ARRAY_LEN(steps); i++) {
		struct rig *x = rig_plain(true, 0);
		struct hst_waiter w = {.v = NULL};
		bool shown = i % 2;
		struct hst_discard d;

		if (shown)
			x->mem_faults.at = x->mem_faults.calls + 1;
		else
			x->src.answers = RIG_FAILS_AT_ONCE;
		assert_false(hst_ensure(&x->h, page(10), &w));
		rig_pump(x);
		while (!hst_is_paused(&x->h))
			rig_after(x, NS_PER_S);
		begin(x, &d, 10, 1);
		rig_swap(x)->fail[steps[i / 2]] = 1;
		assert_int_equal(go_on(x, &d), HST_DISCARD_DONE);
		assert_int_equal(d.why.code, -ENOMEM);
		rig_pump(x);
		while (!shown && !hst_is_paused(&x->h))
			rig_after(x, NS_PER_S);
		assert_int_equal(w.fetch == NULL, shown);
		x->src.answers = RIG_AT_ONCE;
		hst_resume(&x->h);
		rig_pump(x);
		assert_null(w.fetch);
		assert_true(rig_visible(x, 10) && rig_right(x, 10));
		assert_int_equal(x->h.evict.resident, 1);
		rig_swap_close(x);
	}
}

/* A write that fails for one block keeps others from the file: without that it is tried again. */
static void what_cannot_be_written_out_leaves_its_write(void **state)
{
	(void)state;
	for (uint32_t count = 1; count <= 4; count += 3) {
		struct rig *x = rig_plain(true, 0);

		rig_write_pages(x, 10, count);
		rig_lose(x, 10);
		rig_swap(x)->later = true;
		rig_evict_all(x);
		while (!hst_is_paused(&x->h)) {
			rig_write_end(x, 0, -EFAULT);
			rig_after(x, NS_PER_S);
		}
		assert_int_equal(rig_swap(x)->count, 0);
		assert_int_equal(discard(x, 10, 1), 0);
		assert_false(hst_is_paused(&x->h));
		assert_int_equal(x->h.evict.writes_used, 0);
		rig_swap(x)->later = false;
		rig_evict_all(x);
		assert_int_equal(x->h.stats.swapped, count - 1);
		rig_check_pages(x, 10, count);
		rig_swap_close(x);
	}
}

/* Between two tries, or before its sync; not in the middle of one. */
static void a_write_that_nothing_needs_ends(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_write_pages(x, 10, 2);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	rig_write_end(x, 0, -EIO);
	assert_int_equal(discard(x, 10, 2), 0);
	assert_int_equal(x->h.evict.writes_used, 0);
	rig_after(x, NS_PER_S);
	assert_int_equal(rig_swap(x)->count, 0);

	rig_write_pages(x, 10, 2);
	rig_swap(x)->sync_later = true;
	rig_evict_all(x);
	rig_write_ok(x, 0);
	/* The sync under way is of the first write; the second one waits for the next. */
	rig_write_pages(x, 20, 2);
	rig_evict_all(x);
	rig_write_ok(x, 0);
	assert_int_equal(discard(x, 20, 2), 0);
	assert_int_equal(x->h.evict.writes_used, 1);
	assert_int_equal(discard(x, 10, 2), 0);
	assert_int_equal(x->h.evict.writes_used, 1);
	rig_sync_end(x, 0);
	assert_int_equal(x->h.evict.writes_used, 0);
	assert_int_equal(x->h.stats.swapped, 0);
	assert_null(rig_swap(x)->sync);
	rig_check_pages(x, 10, 2);
	rig_check_pages(x, 20, 2);
	rig_swap_close(x);
}

/* Who pins or holds it wants it to stay where it is; but there is nothing left to stay. */
static void what_is_lost_gets_other_memory(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_write_pages(x, 10, 4);
	assert_true(hst_pin(&x->h, page(10)));
	assert_true(hst_hold_long(&x->h, page(12)));
	for (uint64_t p = 10; p < 14; p++)
		rig_lose(x, p);
	assert_int_equal(discard(x, 10, 4), 0);
	for (uint64_t p = 10; p < 14; p++)
		assert_false(rig_swap(x)->lost[p]);
	assert_true(rig_present(x, 10) && rig_present(x, 12));
	assert_int_equal(rig_kind(x, 13), BLOCK_ABSENT);
	assert_int_equal(x->h.evict.staying, 2);
	rig_evict_all(x);
	assert_true(rig_visible(x, 10) && rig_visible(x, 12));
	rig_check_pages(x, 10, 4);
	hst_unpin(&x->h, page(10));
	hst_release_long(&x->h, page(12), 1);
	rig_evict_all(x);
	rig_check_pages(x, 10, 4);
	rig_swap_close(x);
}

/* ---- what will not come before the VM goes on ---- */

/* Behind trouble everything waits that is not there; without, it comes by itself. */
static void what_is_stuck_is_known(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct hst_waiter w[3] = {{.v = NULL}};
	struct rig *x;

	(void)state;
	cfg.queue_depth = 1;
	cfg.source_timeout_ns = NS_PER_S;
	x = rig_swap_open(&cfg, 256, true, 0);
	rig_device(x, 9, 0);
	x->src.answers = RIG_LATER;
	assert_false(hst_ensure(&x->h, page(10), &w[0]));
	assert_false(hst_ensure(&x->h, page(11), &w[1]));
	for (uint64_t p = 9; p < 13; p++)
		assert_false(hst_is_stuck(&x->h, page(p)));
	rig_after(x, NS_PER_S);
	assert_true(hst_is_paused(&x->h));
	for (uint64_t p = 9; p < 13; p++)
		assert_int_equal(hst_is_stuck(&x->h, page(p)), p != 9);
	/* An answer that comes late. */
	rig_bring(x, 10);
	for (uint64_t p = 9; p < 13; p++)
		assert_false(hst_is_stuck(&x->h, page(p)));
	rig_bring(x, 11);
	assert_null(w[0].fetch);
	assert_null(w[1].fetch);
	rig_swap_close(x);
}

static void what_a_failed_job_has_in_hand_is_stuck(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_waiter w[2] = {{.v = NULL}};
	struct hst_job job;

	(void)state;
	rig_write_pages(x, 10, 2);
	hst_evict_to(&x->h, 0);
	job = rig_take_job(x, HST_JOB_UNMAP);
	assert_false(hst_ensure(&x->h, page(10), &w[0]));
	assert_false(hst_is_stuck(&x->h, page(10)));
	rig_swap(x)->fail[RIG_TAKE_UNMAP] = 1;
	rig_end_job(x, &job);
	assert_true(hst_is_paused(&x->h));
	assert_true(hst_is_stuck(&x->h, page(10)));
	assert_true(hst_is_stuck(&x->h, page(11)));
	hst_resume(&x->h);
	assert_false(hst_is_stuck(&x->h, page(10)));
	while (rig_job(x))
		;
	assert_null(w[0].fetch);
	rig_evict(x);
	rig_check_pages(x, 10, 2);
	rig_swap_close(x);
}

/* What is not there does not count while it is given back: nobody else has to go for it. */
static void absent_memory_displaces_nothing(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, 1024, true, RIG_LIMIT);
	struct hst_discard d;
	uint64_t unmapped;

	(void)state;
	for (uint64_t p = 0; p < 56; p++) {
		rig_device(x, p, 0);
		rig_evict(x);
	}
	assert_int_equal(x->h.evict.resident, 56);
	unmapped = x->h.stats.unmapped;
	begin(x, &d, 512, 512);
	assert_int_equal(d.run.count, 512);
	assert_int_equal(x->h.evict.resident, 56);
	assert_false(hst_evict_wanted(&x->h));
	assert_int_equal(go_on(x, &d), HST_DISCARD_DONE);
	rig_evict(x);
	assert_int_equal(x->h.evict.resident, 56);
	assert_int_equal(x->h.stats.unmapped, unmapped);
	rig_swap_close(x);
}

/* What was looked at before is not what is there after. */
static void memory_that_goes_is_not_imported(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, 256, false, 0);
	struct hst_job job;

	(void)state;
	for (uint64_t p = 10; p < 20; p++)
		rig_native(x, p);
	hst_evict_to(&x->h, 0);
	assert_true(hst_evict_next(&x->h, &job));
	assert_int_equal(job.kind, HST_JOB_WATCH);
	rig_end_job(x, &job);
	assert_true(hst_evict_next(&x->h, &job));
	assert_int_equal(job.kind, HST_JOB_IMPORT);
	hst_evict_work(&x->h, &job);
	assert_int_equal(discard(x, 12, 2), 0);
	hst_evict_done(&x->h, &job);
	rig_assert_sound(x);
	assert_int_equal(rig_kind(x, 12), BLOCK_ABSENT);
	while (x->h.evict.watch != HST_WATCH_ALL)
		assert_true(rig_job(x));
	for (uint64_t p = 10; p < 20; p++)
		assert_int_equal(rig_present(x, p), p != 12 && p != 13);
	assert_int_equal(x->h.evict.resident, 8);
	rig_swap_close(x);
}

/* ---- what fails ---- */

/* The page, or zeroes if the discard got that far. */
static void as_it_was_or_zeroes(struct rig *x, uint64_t p)
{
	if (rig_kind(x, p) != BLOCK_ABSENT && rig_words(x, p)[0] == 0)
		rig_swap(x)->want[p] = 1;
}

static void fail_step(enum rig_take what, unsigned half, bool wanted)
{
	struct rig *x = open_all_kinds();
	struct hst_discard d;
	struct err e;

	end_writes(x);
	rig_swap(x)->later = false;
	rig_swap(x)->half = half;
	for (uint32_t p = 10; p < 26; p += 4) {
		begin(x, &d, p, 4);
		if (wanted) {
			rig_fault(x, 0, p + 1);
			assert_int_equal(rig_vmm_touch(&x->h, page(p + 2), &e), 0);
		}
		rig_swap(x)->fail[what] = 1;
		assert_int_equal(go_on(x, &d), HST_DISCARD_DONE);
		assert_int_equal(d.why.code, -ENOMEM);
		for (uint64_t i = p; i < p + 4; i++)
			as_it_was_or_zeroes(x, i);
		rig_pump(x);
		if (wanted)
			assert_int_equal(rig_next(x, 0), HST_ENTER);
		/* What still shows is written to. */
		for (uint64_t i = p; i < p + 4; i++) {
			if (rig_visible(x, i))
				rig_guest_writes(x, i, 0x3000 + i);
			rig_vmm(x, i, i % 2 ? 0x4000 + i : 0);
		}
	}
	assert_false(hst_is_paused(&x->h));
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 10, 16);
	assert_int_equal(discard(x, 10, 16), 0);
	rig_check_pages(x, 10, 16);
	rig_swap_close(x);
}

static void a_failure_loses_nothing(void **state)
{
	static const enum rig_take steps[] = {RIG_TAKE_UNMAP, RIG_TAKE_COLLECT, RIG_TAKE_DROP};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(steps); i++)
		for (unsigned half = 0; half < 4; half++) {
			fail_step(steps[i], half, false);
			fail_step(steps[i], half, true);
		}
}

/* Of what was not there memory may hold anything. */
static void a_failure_leaves_absent_what_was(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_discard d;

	(void)state;
	memset(x->alias + 10 * PAGE_BYTES, 0xee, PAGE_BYTES);
	begin(x, &d, 10, 1);
	rig_swap(x)->fail[RIG_TAKE_DROP] = 1;
	assert_int_equal(go_on(x, &d), HST_DISCARD_DONE);
	assert_int_equal(rig_kind(x, 10), BLOCK_ABSENT);
	rig_check_pages(x, 10, 1);
	rig_swap_close(x);
}

/* Taken out of the guest's view in vain it is shown there again: the kernel may write to it. */
static void what_could_not_be_unmapped_is_visible(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_discard d;

	(void)state;
	rig_write_pages(x, 10, 4);
	begin(x, &d, 10, 4);
	rig_swap(x)->half = 2;
	rig_swap(x)->fail[RIG_TAKE_UNMAP] = 1;
	assert_int_equal(go_on(x, &d), HST_DISCARD_DONE);
	for (uint64_t p = 10; p < 14; p++)
		assert_true(rig_present(x, p) && rig_visible(x, p));
	rig_check_pages(x, 10, 4);
	rig_swap_close(x);
}

/* It was to be shown to the guest once more when it was to be discarded. */
static void what_the_vmm_still_sees_counts_as_shown(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_discard d;

	(void)state;
	rig_check_pages(x, 10, 1);
	rig_vmm(x, 10, 0x4000);
	assert_true(block_is(&x->h, 10, BLOCK_VMM));
	x->mem_faults.at = x->mem_faults.calls + 1;
	fetch_present_again(&x->h, 10, MEM_VIEW_GUEST);
	rig_pump(x);
	assert_true(hst_is_paused(&x->h));
	begin(x, &d, 10, 1);
	rig_swap(x)->fail[RIG_TAKE_UNMAP] = 1;
	assert_int_equal(go_on(x, &d), HST_DISCARD_DONE);
	assert_int_equal(d.why.code, -ENOMEM);
	rig_pump(x);
	assert_int_equal(rig_kind(x, 10), BLOCK_PRESENT);
	assert_true(rig_swap(x)->vmm[10] && block_is(&x->h, 10, BLOCK_VMM));
	rig_swap_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_every_kind_nothing_is_left),
		cmocka_unit_test(its_neighbours_stay_as_they_are),
		cmocka_unit_test(a_run_ends_where_the_chunk_does),
		cmocka_unit_test(what_is_discarded_is_told),
		cmocka_unit_test(what_is_needed_where_it_is_is_overwritten),
		cmocka_unit_test(holds_count_without_a_swap_file),
		cmocka_unit_test(what_is_being_written_out_is_given_back),
		cmocka_unit_test(a_failed_discard_does_not_believe_the_write),
		cmocka_unit_test(what_is_mapped_ahead_stays),
		cmocka_unit_test(who_touches_it_meanwhile_gets_zeroes),
		cmocka_unit_test(what_is_under_way_is_waited_for),
		cmocka_unit_test(what_cannot_be_read_is_zeroes),
		cmocka_unit_test(what_cannot_be_shown_is_zeroes),
		cmocka_unit_test(what_failed_and_cannot_be_discarded_fails_again),
		cmocka_unit_test(what_cannot_be_written_out_leaves_its_write),
		cmocka_unit_test(a_write_that_nothing_needs_ends),
		cmocka_unit_test(what_is_lost_gets_other_memory),
		cmocka_unit_test(what_is_stuck_is_known),
		cmocka_unit_test(what_a_failed_job_has_in_hand_is_stuck),
		cmocka_unit_test(absent_memory_displaces_nothing),
		cmocka_unit_test(memory_that_goes_is_not_imported),
		cmocka_unit_test(a_failure_loses_nothing),
		cmocka_unit_test(a_failure_leaves_absent_what_was),
		cmocka_unit_test(what_could_not_be_unmapped_is_visible),
		cmocka_unit_test(what_the_vmm_still_sees_counts_as_shown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
