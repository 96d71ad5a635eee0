/* SPDX-License-Identifier: Apache-2.0 */
/* Content that nobody asked for (src/host/offer.c): which blocks take it, and how. */
#include "host_swap_fixture.h"

#define PIECE_PAGES 16u

static struct hst_offer offer(const struct rig *x, uint64_t offset, uint64_t len)
{
	return (struct hst_offer){.src = &x->src.src, .offset = offset, .len = len};
}

/* The next piece, which starts at this byte of the offer and has these pages. */
static struct hst_piece take(struct rig *x, struct hst_offer *o, uint64_t from, unsigned pages)
{
	struct hst_piece p;

	assert_int_equal(hst_offer_next(&x->h, o, &p), HST_OFFER_PIECE);
	assert_int_equal(p.from, from);
	assert_int_equal(p.fetch->count, pages >> (x->h.cfg.block_shift - PAGE_SHIFT));
	rig_assert_sound(x);
	return p;
}

static void give(struct rig *x, const struct hst_offer *o, const struct hst_piece *p)
{
	rig_copy_piece(&x->src, o, p);
	hst_offered(p->fetch);
	rig_pump(x);
}

static void no_more(struct rig *x, struct hst_offer *o)
{
	struct hst_piece p;

	assert_int_equal(hst_offer_next(&x->h, o, &p), HST_OFFER_END);
}

static void taken(struct rig *x, uint64_t offset, uint64_t len, uint64_t from, unsigned pages)
{
	struct hst_offer o = offer(x, offset, len);
	struct hst_piece p = take(x, &o, from, pages);

	give(x, &o, &p);
	no_more(x, &o);
}

static void refused(struct rig *x, uint64_t offset, uint64_t len)
{
	struct hst_offer o = offer(x, offset, len);

	no_more(x, &o);
}

static void right(struct rig *x, uint64_t page)
{
	assert_int_equal(x->alias[page << PAGE_SHIFT], rig_byte(page << PAGE_SHIFT));
	assert_int_equal(x->alias[(page << PAGE_SHIFT) + PAGE_BYTES - 1],
			 rig_byte(page << PAGE_SHIFT));
}

static struct rig *open_plain(void)
{
	const struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);

	return rig_open(&cfg);
}

static void adjacent_blocks_are_shown_by_one_call(void **state)
{
	struct rig *x = open_plain();
	struct hst_offer o = offer(x, 2 * PAGE_BYTES, 20 * PAGE_BYTES);
	struct hst_piece p = take(x, &o, 0, PIECE_PAGES);

	(void)state;
	assert_int_equal(p.len, PIECE_PAGES * PAGE_BYTES);
	assert_ptr_equal(p.to, x->alias + 2 * PAGE_BYTES);
	give(x, &o, &p);
	p = take(x, &o, PIECE_PAGES * PAGE_BYTES, 4);
	give(x, &o, &p);
	no_more(x, &o);
	assert_int_equal(x->counts[RIG_PRESENT], 2);
	assert_int_equal(x->counts[RIG_READ], 0);
	assert_int_equal(x->h.stats.offered, 20);
	for (uint64_t page = 0; page < 24; page++) {
		assert_int_equal(rig_present(x, page), page >= 2 && page < 22);
		if (page >= 2 && page < 22)
			right(x, page);
	}
	rig_close(x);
}

static void blocks_that_it_has_in_part_take_nothing(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x;

	(void)state;
	cfg.block_shift = 14;
	x = rig_open(&cfg);
	refused(x, 0, 4 * PAGE_BYTES - 1);
	refused(x, 1, 8 * PAGE_BYTES - 2);
	refused(x, 0, 0);
	refused(x, UINT64_MAX - 5, 5);
	refused(x, RIG_PAGES * PAGE_BYTES, PAGE_BYTES);
	taken(x, 1, 8 * PAGE_BYTES, 4 * PAGE_BYTES - 1, 4);
	assert_true(rig_present(x, 4) && !rig_present(x, 3) && !rig_present(x, 8));
	/* Large blocks go one by one where two would be too many bytes. */
	taken(x, 8 * PAGE_BYTES, 16 * PAGE_BYTES, 0, 16);
	rig_close(x);
}

static void what_there_is_already_stays(void **state)
{
	struct rig *x = open_plain();
	struct hst_waiter w = {.v = NULL};
	struct hst_offer o;
	struct hst_piece p;

	(void)state;
	x->src.answers = RIG_AT_ONCE;
	rig_populate(x, 1);
	x->alias[PAGE_BYTES] = 0x77;
	x->src.answers = RIG_LATER;
	assert_false(hst_ensure(&x->h, (roff_t){3 * PAGE_BYTES}, &w));
	o = offer(x, 0, 5 * PAGE_BYTES);
	for (unsigned page = 0; page < 5; page += 2) {
		p = take(x, &o, page * PAGE_BYTES, 1);
		give(x, &o, &p);
	}
	no_more(x, &o);
	assert_int_equal(x->alias[PAGE_BYTES], 0x77);
	assert_false(rig_present(x, 3));
	assert_non_null(w.fetch);
	rig_bring(x, 3);
	assert_null(w.fetch);
	rig_close(x);
}

static void who_touches_it_meanwhile_waits_for_it(void **state)
{
	struct rig *x = open_plain();
	struct hst_offer o = offer(x, 0, 2 * PAGE_BYTES);
	struct hst_waiter w = {.v = NULL};
	struct hst_piece p = take(x, &o, 0, 2);

	(void)state;
	refused(x, 0, 2 * PAGE_BYTES); /* another offer of the same */
	assert_false(hst_ensure(&x->h, (roff_t){PAGE_BYTES}, &w));
	assert_int_equal(rig_fault_next(x, 0, 0), HST_WAIT);
	assert_int_equal(rig_pump(x), 0);
	assert_int_equal(x->counts[RIG_READ], 0);
	give(x, &o, &p);
	assert_null(w.fetch);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

static void another_source_and_its_places(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x = rig_prepare(32 * PAGE_BYTES);
	struct rig_src other = x->src;
	struct hst_offer o;
	struct hst_piece p;

	(void)state;
	/* Pages 4 to 11: from byte 100 on, 5 pages and a bit; again at 16; 20: another. */
	x->src.src.size = 100 + 6 * PAGE_BYTES - 50;
	assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){RIG_GPA}, 32 * PAGE_BYTES, PAGE_BYTES),
			 RAM_ADDED);
	assert_int_equal(ram_add_backing(&x->h.ram, (gpa_t){RIG_GPA + 4 * PAGE_BYTES},
					 8 * PAGE_BYTES, &x->src.src, 100, PAGE_BYTES), RAM_ADDED);
	assert_int_equal(ram_add_backing(&x->h.ram, (gpa_t){RIG_GPA + 20 * PAGE_BYTES},
					 PAGE_BYTES, &other.src, 0, PAGE_BYTES), RAM_ADDED);
	assert_int_equal(ram_add_backing(&x->h.ram, (gpa_t){RIG_GPA + 16 * PAGE_BYTES}, 10,
					 &x->src.src, 100, PAGE_BYTES), RAM_ADDED);
	rig_start(x, &cfg);
	refused(x, 101, PAGE_BYTES);
	o = offer(x, 0, UINT64_MAX);
	p = take(x, &o, 100, 6);
	assert_ptr_equal(p.to, x->alias + 4 * PAGE_BYTES);
	assert_int_equal(p.len, 6 * PAGE_BYTES - 50);
	give(x, &o, &p);
	/* A place of ten bytes: its block is theirs, and zeroes. */
	p = take(x, &o, 100, 1);
	assert_ptr_equal(p.to, x->alias + 16 * PAGE_BYTES);
	assert_int_equal(p.len, 10);
	give(x, &o, &p);
	no_more(x, &o);
	assert_int_equal(x->alias[16 * PAGE_BYTES + 10], 0);
	assert_false(rig_present(x, 10) || rig_present(x, 20));
	rig_close(x);
}

static void others_get_the_lock_in_between(void **state)
{
	const struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x = rig_open_pages(&cfg, 1200);
	struct hst_offer o = offer(x, 0, 1200 * PAGE_BYTES);
	struct hst_piece p;
	unsigned more = 0;
	enum hst_offer_next n;

	(void)state;
	x->src.answers = RIG_AT_ONCE;
	for (uint64_t page = 0; page < 1199; page++)
		rig_populate(x, page);
	while ((n = hst_offer_next(&x->h, &o, &p)) == HST_OFFER_MORE)
		more++;
	assert_int_equal(n, HST_OFFER_PIECE);
	assert_int_equal(p.from, 1199 * PAGE_BYTES);
	assert_int_equal(more, 2);
	give(x, &o, &p);
	no_more(x, &o);
	rig_close(x);
}

static void nothing_is_taken_at_the_end(void **state)
{
	struct rig *x = open_plain();
	struct hst_offer o = offer(x, 0, 4 * PAGE_BYTES);
	struct hst_piece p = take(x, &o, 0, 4);

	(void)state;
	hst_stop(&x->h);
	hst_offered(p.fetch);
	assert_null(hst_take_filled(&x->h));
	refused(x, 8 * PAGE_BYTES, PAGE_BYTES);
	rig_free(x);
}

/* ---- where memory is taken away ---- */

static void what_nobody_waits_for_is_on_standby(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);

	(void)state;
	taken(x, 4 * PAGE_BYTES, 4 * PAGE_BYTES, 0, 4);
	for (uint64_t page = 4; page < 8; page++)
		assert_int_equal(rig_kind(x, page), BLOCK_STANDBY);
	assert_int_equal(x->counts[RIG_PRESENT], 0);
	assert_int_equal(x->h.evict.resident, 4);
	x->h.stats.reads = 0;
	rig_touch(x, 5, 3);
	assert_int_equal(x->h.stats.reads, 0);
	/* What is not touched goes first, and unwritten; then it can be offered again. */
	hst_evict_to(&x->h, PAGE_BYTES);
	rig_evict(x);
	assert_int_equal(rig_kind(x, 4), BLOCK_ABSENT);
	assert_int_equal(rig_kind(x, 5), BLOCK_PRESENT);
	assert_int_equal(x->h.stats.swapped, 0);
	taken(x, 4 * PAGE_BYTES, PAGE_BYTES, 0, 1);
	rig_check_pages(x, 4, 4);
	rig_swap_close(x);
}

static void what_the_guest_has_written_stays(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);

	(void)state;
	rig_write_pages(x, 4, 2);
	rig_device(x, 6, 1); /* zeroes */
	rig_evict_all(x);
	for (uint64_t page = 4; page < 7; page++)
		assert_int_equal(rig_kind(x, page), BLOCK_ABSENT);
	refused(x, 4 * PAGE_BYTES, 3 * PAGE_BYTES);
	taken(x, 0, 7 * PAGE_BYTES, 0, 4);
	rig_check_pages(x, 4, 3);
	rig_swap_close(x);
}

static void who_sleeps_in_the_kernel_is_woken(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_KERNEL, RIG_PAGES, true, 0);
	struct hst_offer o = offer(x, 4 * PAGE_BYTES, 2 * PAGE_BYTES);
	struct hst_piece p = take(x, &o, 0, 2);
	const struct mem_touch touch = {{5 * PAGE_BYTES}, MEM_VIEW_GUEST};
	struct err e;

	(void)state;
	assert_int_equal(hst_kernel_touch(&x->h, &touch, &e), 0);
	give(x, &o, &p);
	assert_int_equal(rig_kind(x, 5), BLOCK_PRESENT);
	assert_true(rig_visible(x, 5));
	rig_swap_close(x);
}

static void it_stops_where_room_ends(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);
	struct hst_offer o = offer(x, 0, RIG_PAGES * PAGE_BYTES * 4);
	struct hst_piece p;

	(void)state;
	while (hst_offer_next(&x->h, &o, &p) == HST_OFFER_PIECE)
		give(x, &o, &p);
	assert_in_range(x->h.evict.resident, RIG_LIMIT / 2, RIG_LIMIT - 1);
	rig_touch(x, 100, 3); /* what somebody waits for finds some */
	rig_swap_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(adjacent_blocks_are_shown_by_one_call),
		cmocka_unit_test(blocks_that_it_has_in_part_take_nothing),
		cmocka_unit_test(what_there_is_already_stays),
		cmocka_unit_test(who_touches_it_meanwhile_waits_for_it),
		cmocka_unit_test(another_source_and_its_places),
		cmocka_unit_test(others_get_the_lock_in_between),
		cmocka_unit_test(nothing_is_taken_at_the_end),
		cmocka_unit_test(what_nobody_waits_for_is_on_standby),
		cmocka_unit_test(what_the_guest_has_written_stays),
		cmocka_unit_test(who_sleeps_in_the_kernel_is_woken),
		cmocka_unit_test(it_stops_where_room_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
