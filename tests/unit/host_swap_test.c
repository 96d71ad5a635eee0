/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host/swap.c: what stands behind a block that was taken away, and how it gets there. A block
 * is a page unless a test says otherwise.
 */
#include "host_swap_fixture.h"

#define MS NS_PER_MS

/* ---- what stands behind ---- */

static void zeroes_and_clean_blocks_cost_no_write(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_check_pages(x, 0, 4);
	for (uint64_t p = 4; p < 8; p++)
		rig_device(x, p, 1); /* zeroes over the source's content */
	rig_evict_all(x);
	assert_int_equal(x->h.stats.swap_writes, 0);
	assert_int_equal(x->h.stats.evicted, 8);
	assert_int_equal(x->h.stats.unmapped_clean, 4);
	assert_int_equal(x->h.stats.unmapped_zero, 4);
	rig_check_pages(x, 0, 8);
	/* And once more, now that zeroes stand behind some. */
	rig_evict_all(x);
	rig_check_pages(x, 0, 8);
	assert_int_equal(x->h.stats.swap_writes, 0);
	rig_swap_close(x);
}

/* Each way from one backing to the other, the content looked at every time. */
static void what_stands_behind_is_what_was_there(void **state)
{
	static const uint64_t values[] = {0x77, 1, 0x88, 0, 0x99, 0x99, 1, 1, 0, 0xaa};

	(void)state;
	for (unsigned source = 0; source < 2; source++) {
		struct rig *x = rig_plain(source, 0);

		for (unsigned i = 0; i < ARRAY_LEN(values); i++) {
			for (uint64_t p = 0; p < 4; p++) {
				rig_touch(x, p, 3);
				if (values[i] && p % 2)
					rig_guest_writes(x, p, values[i]);
				else
					rig_device(x, p, values[i]);
			}
			rig_evict_all(x);
			assert_int_equal(x->h.evict.resident, 0);
			assert_int_equal(hst_resident_bytes(&x->h), 0);
		}
		rig_check_pages(x, 0, 4);
		rig_swap_close(x);
	}
}

static void a_clean_block_is_written_once(void **state)
{
	struct rig *x = rig_plain(false, 0);
	uint64_t writes;

	(void)state;
	rig_write_pages(x, 0, 8);
	rig_evict_all(x);
	writes = x->h.stats.swapped;
	assert_int_equal(writes, 8);
	for (unsigned i = 0; i < 5; i++) {
		rig_check_pages(x, 0, 8);
		rig_evict_all(x);
	}
	assert_int_equal(x->h.stats.swapped, writes);
	rig_touch(x, 3, 3);
	rig_guest_writes(x, 3, 0x1234);
	rig_check_pages(x, 0, 8);
	rig_evict_all(x);
	assert_int_equal(x->h.stats.swapped, writes + 1);
	rig_check_pages(x, 0, 8);
	rig_swap_close(x);
}

/* To be told of the first write costs the guest a fault. */
static void what_must_be_written_out_is_not_watched(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_touch(x, 0, 3); /* zeroes: it will write */
	assert_false(rig_swap(x)->guarded[0]);
	rig_device(x, 1, 5);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	rig_touch(x, 1, 3); /* rescued */
	assert_false(rig_swap(x)->guarded[1]);
	rig_swap(x)->later = false;
	rig_evict_all(x);
	rig_touch(x, 1, 3);
	assert_true(rig_swap(x)->guarded[1]);
	rig_swap_close(x);
}

/* Then it is not known any more what was written to. */
static void what_the_host_reclaimed_counts_as_written(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct err e;

	(void)state;
	for (unsigned by_fault = 0; by_fault < 2; by_fault++) {
		uint64_t page = 4 + by_fault;

		rig_touch(x, page, 3);
		assert_true(rig_swap(x)->guarded[page]);
		rig_guest_writes(x, page, 0x44 + by_fault);
		rig_swap(x)->pages[page] = by_fault ? RIG_POISONED : RIG_HOLE;
		for (unsigned i = 0; by_fault && i < 16; i++) {
			rig_fault(x, 0, page);
			rig_pump(x);
			assert_int_equal(rig_next(x, 0), HST_ENTER);
		}
		if (!by_fault)
			assert_int_equal(rig_kernel_touch(&x->h, (roff_t){page * PAGE_BYTES}, &e),
					 0);
		assert_true(rig_visible(x, page));
		rig_evict_all(x);
		rig_device(x, page, 0);
	}
	rig_swap_close(x);
}

static void larger_blocks_are_told_by_their_pages(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x;

	(void)state;
	for (cfg.block_shift = 13; cfg.block_shift <= CHUNK_SHIFT; cfg.block_shift += 4) {
		uint64_t per = 1ull << (cfg.block_shift - PAGE_SHIFT);

		x = rig_swap_open(&cfg, 1024, true, 0);
		rig_device(x, 0, 0);
		rig_device(x, per, 0);
		rig_guest_writes(x, 2 * per - 1, 0x55); /* the last page of the second */
		rig_evict_all(x);
		assert_int_equal(x->h.stats.unmapped_clean, 1);
		assert_int_equal(x->h.stats.swapped, 1);
		for (uint64_t p = 0; p < 2 * per; p++)
			rig_device(x, p, 0);
		rig_swap_close(x);
	}
}

/* ---- writing ---- */

static void neighbours_go_in_one_write(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_swap(x)->later = true;
	rig_write_pages(x, 0, 70);
	rig_evict_all(x);
	assert_int_equal(rig_swap(x)->count, 2); /* 256 KiB, and the rest */
	assert_int_equal(rig_swap(x)->writes[0].len, 64 * PAGE_BYTES);
	assert_int_equal(rig_swap(x)->writes[0].off, RIG_SWAP_HEAD);
	assert_int_equal(rig_swap(x)->writes[1].len, 6 * PAGE_BYTES);
	rig_write_ok(x, 1); /* in any order */
	rig_write_ok(x, 0);
	rig_evict(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 0, 70);
	rig_swap_close(x);
}

static void writes_are_bounded(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_swap(x)->later = true;
	for (uint64_t p = 0; p < 160; p += 2)
		rig_device(x, p, 7);
	rig_evict_all(x);
	assert_int_equal(rig_swap(x)->count, HST_WRITES_MAX);
	rig_write_ok(x, 5);
	assert_true(hst_evict_wanted(&x->h));
	rig_evict(x);
	assert_int_equal(rig_swap(x)->count, HST_WRITES_MAX);
	rig_swap(x)->later = false;
	rig_evict(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_swap_close(x);
}

static void a_torn_write_is_not_believed(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_write_pages(x, 0, 8);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	assert_int_equal(rig_swap(x)->count, 1);
	rig_touch(x, 3, 3);
	rig_guest_writes(x, 3, 0xabc);
	rig_device(x, 4, 0xdef);
	rig_write_ok(x, 0);
	rig_evict(x);
	assert_int_equal(x->h.stats.swapped, 6);
	assert_int_equal(rig_kind(x, 3), BLOCK_PRESENT);
	rig_swap(x)->later = false;
	rig_evict_all(x);
	assert_int_equal(x->h.stats.swapped, 8);
	rig_check_pages(x, 0, 8);
	rig_swap_close(x);
}

/* An older write could overtake the next. */
static void a_block_has_one_write_at_a_time(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_write_pages(x, 0, 1);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	rig_touch(x, 0, 3);
	rig_guest_writes(x, 0, 0x2222);
	rig_evict_all(x);
	assert_int_equal(rig_swap(x)->count, 1);
	assert_int_equal(rig_kind(x, 0), BLOCK_PRESENT);
	rig_write_ok(x, 0);
	rig_evict(x);
	assert_int_equal(rig_swap(x)->count, 1);
	assert_int_equal(rig_kind(x, 0), BLOCK_STANDBY);
	rig_write_ok(x, 0);
	rig_evict(x);
	assert_int_equal(rig_kind(x, 0), BLOCK_ABSENT);
	rig_check_pages(x, 0, 1);
	rig_swap_close(x);
}

/* More of them than one look at the list would pass over. */
static void many_that_came_back_hide_nobody(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, 1024, false, 0);

	(void)state;
	rig_write_pages(x, 0, 700);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	for (uint64_t p = 0; p < 700; p++)
		rig_touch(x, p, 3);
	rig_write_pages(x, 800, 10);
	rig_evict_all(x);
	for (uint64_t p = 800; p < 810; p++)
		assert_int_equal(rig_kind(x, p), BLOCK_STANDBY);
	rig_swap(x)->later = false;
	rig_evict(x);
	rig_check_pages(x, 800, 10);
	rig_check_pages(x, 0, 700);
	rig_swap_close(x);
}

static void a_short_write_goes_on(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_write_pages(x, 0, 8);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	rig_write_end(x, 0, 3 * PAGE_BYTES + 128);
	assert_int_equal(rig_swap(x)->count, 1);
	assert_int_equal(rig_swap(x)->writes[0].off, RIG_SWAP_HEAD + 3 * PAGE_BYTES + 128);
	assert_int_equal(rig_swap(x)->writes[0].len, 5 * PAGE_BYTES - 128);
	rig_write_ok(x, 0);
	rig_evict(x);
	assert_int_equal(x->h.stats.swapped_bytes, 8 * PAGE_BYTES);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 0, 8);
	rig_swap_close(x);
}

static void a_failing_write_is_repeated_then_pauses(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_write_pages(x, 4, 8);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	for (unsigned i = 0; i < 3; i++) { /* retries_max is 2 */
		assert_false(hst_is_paused(&x->h));
		assert_int_equal(rig_swap(x)->count, 1);
		rig_write_end(x, 0, i == 1 ? 0 : -ENOSPC);
		rig_after(x, NS_PER_S);
	}
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->trouble.why.code, -ENOSPC);
	assert_int_equal(x->trouble.gpa.v, RIG_GPA + 4 * PAGE_BYTES);
	assert_int_equal(x->trouble.tries, 3);
	assert_non_null(strstr(x->trouble.why.text, "swap file"));
	assert_int_equal(x->h.stats.swap_write_errors, 3);
	/* Nothing is lost meanwhile, nor given back. */
	rig_check_pages(x, 5, 1);
	hst_resume(&x->h);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(x->counts[RIG_GOES_ON], 1);
	rig_swap(x)->later = false;
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 4, 8);
	rig_swap_close(x);
}

/* Something else has the file open, too. */
static void what_was_changed_in_the_file_is_not_shown(void **state)
{
	struct rig *x = rig_plain(false, 0);
	unsigned char *at = rig_swap(x)->disk + RIG_SWAP_HEAD + 5 * PAGE_BYTES + 4001;

	(void)state;
	rig_write_pages(x, 4, 4);
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	*at ^= 0x10;
	rig_fault(x, 0, 5);
	rig_pump(x);
	for (unsigned i = 0; i < 3; i++) { /* retries_max is 2 */
		assert_int_equal(rig_next(x, 0), HST_WAIT);
		assert_false(rig_visible(x, 5));
		rig_after(x, NS_PER_S);
		rig_pump(x);
	}
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->trouble.why.code, -EIO);
	assert_int_equal(x->trouble.gpa.v, RIG_GPA + 5 * PAGE_BYTES);
	assert_non_null(strstr(x->trouble.why.text, "swap file"));
	assert_non_null(strstr(x->trouble.why.text, "something else has changed it"));
	/* It is looked at again, and no better. */
	hst_resume(&x->h);
	for (unsigned i = 0; i < 3; i++) {
		rig_pump(x);
		rig_after(x, NS_PER_S);
	}
	assert_true(hst_is_paused(&x->h));
	assert_false(rig_visible(x, 5));
	/* Whoever did it has put it right. */
	*at ^= 0x10;
	hst_resume(&x->h);
	rig_pump(x);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_true(rig_visible(x, 5) && rig_right(x, 5));
	rig_check_pages(x, 4, 4);
	rig_swap_close(x);
}

/* A page that the host has lost, say: the others are not kept from the file for ever. */
static void what_has_come_back_is_not_written_again(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	for (unsigned paused = 0; paused < 2; paused++) {
		rig_write_pages(x, 4, 3);
		rig_swap(x)->later = true;
		rig_evict_all(x);
		for (unsigned i = 0; i < (paused ? 3 : 1); i++) {
			rig_write_end(x, 0, -EFAULT);
			if (!paused)
				rig_check_pages(x, 5, 1);
			rig_after(x, NS_PER_S);
		}
		assert_int_equal(hst_is_paused(&x->h), paused);
		rig_check_pages(x, 5, 1);
		hst_resume(&x->h);
		rig_evict(x);
		assert_int_equal(rig_swap(x)->count, 2);
		assert_int_equal(rig_swap(x)->writes[0].len, PAGE_BYTES);
		assert_int_equal(rig_swap(x)->writes[1].off, RIG_SWAP_HEAD + 6 * PAGE_BYTES);
		rig_swap(x)->later = false;
		rig_evict_all(x);
		assert_int_equal(x->h.evict.resident, 0);
	}
	rig_check_pages(x, 4, 3);
	rig_swap_close(x);
}

/* What was under way when there was no room yet may still say so afterwards. */
static void a_write_that_fails_late_does_not_undo_a_resume(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_write_pages(x, 0, 3);
	rig_write_pages(x, 8, 3);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	assert_int_equal(rig_swap(x)->count, 2);
	for (unsigned i = 0; i < 2; i++) { /* retries_max is 2 */
		rig_write_end(x, 0, -ENOSPC);
		rig_write_end(x, 0, -ENOSPC);
		rig_after(x, NS_PER_S);
		assert_int_equal(rig_swap(x)->count, 2);
	}
	rig_write_end(x, 0, -ENOSPC);
	assert_true(hst_is_paused(&x->h));
	hst_resume(&x->h);
	rig_write_end(x, 0, -ENOSPC);
	assert_false(hst_is_paused(&x->h));
	rig_after(x, NS_PER_S);
	rig_swap(x)->later = false;
	rig_write_ok(x, 0);
	rig_write_ok(x, 0);
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 0, 3);
	rig_check_pages(x, 8, 3);
	rig_swap_close(x);
}

static void a_failed_write_that_nobody_needs_is_forgotten(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_write_pages(x, 0, 3);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	rig_check_pages(x, 0, 3);
	rig_write_end(x, 0, -EIO);
	assert_int_equal(x->h.evict.writes_used, 0);
	rig_swap(x)->later = false;
	rig_evict_all(x);
	rig_check_pages(x, 0, 3);
	assert_false(hst_is_paused(&x->h));
	rig_swap_close(x);
}

static struct rig *open_stuck(uint32_t retries)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x;

	cfg.source_timeout_ns = 50 * MS;
	cfg.retries_max = retries;
	x = rig_swap_open(&cfg, 64, false, 0);
	rig_write_pages(x, 0, 4);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	rig_after(x, 50 * MS);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->trouble.why.code, -ETIMEDOUT);
	return x;
}

static void a_write_that_takes_too_long_pauses_until_it_ends(void **state)
{
	struct rig *x = open_stuck(2);

	(void)state;
	rig_write_ok(x, 0);
	assert_false(hst_is_paused(&x->h));
	rig_evict(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 0, 4);
	rig_swap_close(x);
}

static void resume_begins_a_stuck_write_anew(void **state)
{
	struct rig *x = open_stuck(0);

	(void)state;
	hst_resume(&x->h);
	hst_resume(&x->h);
	assert_true(rig_swap(x)->writes[0].cancelled);
	assert_true(hst_is_paused(&x->h)); /* until it has ended */
	rig_write_end(x, 0, -ECANCELED);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(rig_swap(x)->count, 1);
	rig_write_ok(x, 0);
	rig_evict(x);
	rig_check_pages(x, 0, 4);
	rig_swap_close(x);
}

static void stopping_cancels_writes_and_takes_nothing_more(void **state)
{
	struct rig *x = rig_plain(false, 0);
	struct hst_job job;

	(void)state;
	rig_write_pages(x, 0, 4);
	rig_swap(x)->later = true;
	hst_evict_to(&x->h, 0);
	rig_evict(x);
	assert_int_equal(rig_swap(x)->count, 1);
	rig_write_pages(x, 100, 4);
	hst_evict_to(&x->h, 0);
	job = rig_take_job(x, HST_JOB_UNMAP);
	hst_stop(&x->h);
	assert_true(rig_swap(x)->writes[0].cancelled);
	assert_false(hst_is_idle(&x->h));
	rig_end_job(x, &job);
	assert_false(hst_evict_next(&x->h, &job));
	assert_false(hst_evict_wanted(&x->h));
	assert_false(hst_evict_forced(&x->h));
	rig_write_end(x, 0, -ECANCELED);
	assert_true(hst_is_idle(&x->h));
	timers_run(&x->h.timers, x->now + NS_PER_S);
	assert_int_equal(rig_swap(x)->count, 0);
	rig_free(x);
}

/* ---- durability ---- */

/* Eight pages in one write, which has ended; its sync is under way. */
static struct rig *open_syncing(void)
{
	struct rig *x = rig_plain(false, 0);

	rig_write_pages(x, 0, 8);
	rig_swap(x)->later = true;
	rig_swap(x)->sync_later = true;
	rig_evict_all(x);
	assert_int_equal(rig_swap(x)->count, 1);
	assert_null(rig_swap(x)->sync);
	rig_write_ok(x, 0);
	assert_non_null(rig_swap(x)->sync);
	return x;
}

/* Lets everything end well, and looks at every page. */
static void close_synced(struct rig *x, uint64_t pages)
{
	struct rig_swap *s = rig_swap(x);

	s->later = false;
	s->sync_later = false;
	if (s->sync)
		rig_sync_end(x, 0);
	rig_after(x, NS_PER_S);
	while (s->count)
		rig_write_ok(x, 0);
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 0, pages);
	rig_swap_close(x);
}

static void a_block_is_given_up_once_it_is_durable(void **state)
{
	struct rig *x = open_syncing();

	(void)state;
	rig_evict(x);
	assert_int_equal(x->h.evict.resident, 8);
	assert_int_equal(x->h.stats.swapped, 0);
	rig_sync_end(x, 0);
	rig_evict(x);
	assert_int_equal(x->h.evict.resident, 0);
	assert_int_equal(x->h.stats.swapped, 8);
	close_synced(x, 8);
}

static void a_sync_covers_what_had_ended_before_it(void **state)
{
	struct rig *x = open_syncing();

	(void)state;
	rig_write_pages(x, 100, 3);
	rig_evict_all(x);
	rig_write_ok(x, 0);
	assert_int_equal(rig_swap(x)->syncs, 1);
	rig_sync_end(x, 0);
	rig_evict(x);
	assert_int_equal(x->h.stats.swapped, 8);
	assert_int_equal(rig_kind(x, 100), BLOCK_STANDBY);
	assert_int_equal(rig_swap(x)->syncs, 2);
	rig_sync_end(x, -EIO);
	rig_evict(x);
	assert_int_equal(rig_kind(x, 100), BLOCK_STANDBY);
	rig_check_pages(x, 100, 3);
	close_synced(x, 8);
}

/* Repeating the sync alone would succeed, as the kernel tells of an error once. */
static void a_failed_sync_has_all_written_again(void **state)
{
	struct rig *x = open_syncing();

	(void)state;
	rig_write_pages(x, 100, 3);
	rig_evict_all(x);
	rig_write_ok(x, 0); /* ended after the sync began, lost with it all the same */
	rig_sync_end(x, -EIO);
	assert_null(rig_swap(x)->sync);
	assert_int_equal(x->h.stats.swap_write_errors, 1);
	assert_false(hst_is_paused(&x->h));
	rig_after(x, NS_PER_S);
	assert_int_equal(rig_swap(x)->count, 2);
	assert_int_equal(rig_swap(x)->writes[0].len + rig_swap(x)->writes[1].len, 11 * PAGE_BYTES);
	rig_check_pages(x, 100, 3);
	close_synced(x, 8);
}

/* The kernel may have ended it before it told of the sync. */
static void a_write_under_way_is_lost_with_a_failed_sync(void **state)
{
	struct rig *x = open_syncing();

	(void)state;
	rig_write_pages(x, 100, 3);
	rig_evict_all(x);
	rig_sync_end(x, -EIO);
	assert_int_equal(rig_swap(x)->count, 1);
	rig_write_end(x, 0, PAGE_BYTES); /* nor does a part of it count */
	rig_after(x, NS_PER_S);
	assert_int_equal(rig_swap(x)->syncs, 1);
	assert_int_equal(rig_swap(x)->count, 2);
	for (unsigned i = 0; i < 2; i++)
		assert_true(rig_swap(x)->writes[i].len != 2 * PAGE_BYTES);
	rig_check_pages(x, 100, 3);
	close_synced(x, 8);
}

static void failing_syncs_pause_and_nothing_is_lost(void **state)
{
	struct rig *x = open_syncing();

	(void)state;
	for (unsigned i = 0; i < 3; i++) { /* retries_max is 2 */
		assert_false(hst_is_paused(&x->h));
		rig_sync_end(x, -EIO);
		rig_after(x, NS_PER_S);
		if (i < 2)
			rig_write_ok(x, 0);
	}
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->trouble.why.code, -EIO);
	assert_non_null(strstr(x->trouble.why.text, "swap file"));
	assert_int_equal(rig_swap(x)->count, 0);
	assert_int_equal(x->h.evict.resident, 8);
	hst_resume(&x->h);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(rig_swap(x)->count, 1); /* written, not only synced */
	close_synced(x, 8);
}

static void a_failed_sync_that_nobody_needs_is_forgotten(void **state)
{
	struct rig *x = open_syncing();

	(void)state;
	rig_check_pages(x, 0, 8);
	rig_sync_end(x, -EIO);
	assert_int_equal(x->h.evict.writes_used, 0);
	assert_false(hst_is_paused(&x->h));
	close_synced(x, 8);
}

static void what_nobody_needs_is_not_synced(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_write_pages(x, 0, 3);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	rig_check_pages(x, 0, 3);
	rig_write_ok(x, 0);
	assert_int_equal(rig_swap(x)->syncs, 0);
	assert_int_equal(x->h.evict.writes_used, 0);
	close_synced(x, 3);
}

static void a_sync_that_takes_too_long_pauses(void **state)
{
	struct rig *x = open_stuck(0);

	(void)state;
	rig_swap(x)->sync_later = true;
	rig_write_ok(x, 0);
	assert_false(hst_is_paused(&x->h));
	rig_after(x, 50 * MS);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->trouble.why.code, -ETIMEDOUT);
	hst_resume(&x->h);
	assert_true(rig_swap(x)->sync_cancelled);
	assert_true(hst_is_paused(&x->h));
	rig_sync_end(x, -ECANCELED);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(rig_swap(x)->count, 1);
	rig_write_ok(x, 0);
	rig_after(x, 50 * MS);
	assert_true(hst_is_paused(&x->h));
	rig_sync_end(x, 0);
	assert_false(hst_is_paused(&x->h));
	close_synced(x, 4);
}

static void stopping_cancels_the_sync(void **state)
{
	struct rig *x = open_syncing();

	(void)state;
	hst_stop(&x->h);
	assert_true(rig_swap(x)->sync_cancelled);
	assert_false(hst_is_idle(&x->h));
	rig_sync_end(x, -ECANCELED);
	assert_true(hst_is_idle(&x->h));
	timers_run(&x->h.timers, x->now + NS_PER_S);
	rig_free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zeroes_and_clean_blocks_cost_no_write),
		cmocka_unit_test(what_stands_behind_is_what_was_there),
		cmocka_unit_test(a_clean_block_is_written_once),
		cmocka_unit_test(what_must_be_written_out_is_not_watched),
		cmocka_unit_test(what_the_host_reclaimed_counts_as_written),
		cmocka_unit_test(larger_blocks_are_told_by_their_pages),
		cmocka_unit_test(neighbours_go_in_one_write),
		cmocka_unit_test(writes_are_bounded),
		cmocka_unit_test(a_torn_write_is_not_believed),
		cmocka_unit_test(a_block_has_one_write_at_a_time),
		cmocka_unit_test(many_that_came_back_hide_nobody),
		cmocka_unit_test(a_short_write_goes_on),
		cmocka_unit_test(a_failing_write_is_repeated_then_pauses),
		cmocka_unit_test(what_was_changed_in_the_file_is_not_shown),
		cmocka_unit_test(what_has_come_back_is_not_written_again),
		cmocka_unit_test(a_write_that_fails_late_does_not_undo_a_resume),
		cmocka_unit_test(a_failed_write_that_nobody_needs_is_forgotten),
		cmocka_unit_test(a_write_that_takes_too_long_pauses_until_it_ends),
		cmocka_unit_test(resume_begins_a_stuck_write_anew),
		cmocka_unit_test(stopping_cancels_writes_and_takes_nothing_more),
		cmocka_unit_test(a_block_is_given_up_once_it_is_durable),
		cmocka_unit_test(a_sync_covers_what_had_ended_before_it),
		cmocka_unit_test(a_failed_sync_has_all_written_again),
		cmocka_unit_test(a_write_under_way_is_lost_with_a_failed_sync),
		cmocka_unit_test(failing_syncs_pause_and_nothing_is_lost),
		cmocka_unit_test(a_failed_sync_that_nobody_needs_is_forgotten),
		cmocka_unit_test(what_nobody_needs_is_not_synced),
		cmocka_unit_test(a_sync_that_takes_too_long_pauses),
		cmocka_unit_test(stopping_cancels_the_sync),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
