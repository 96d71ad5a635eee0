/* SPDX-License-Identifier: Apache-2.0 */
/* host/keep.c: what is held stays, by count; what is let go of goes like any other block. */
#include "host_swap_fixture.h"

static roff_t page(uint64_t p)
{
	return (roff_t){p * PAGE_BYTES};
}

static void what_is_held_stays(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_write_pages(x, 10, 8);
	assert_true(hst_hold(&x->h, page(12)));
	assert_true(hst_hold(&x->h, page(12)));
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, 12), BLOCK_PRESENT);
	assert_int_equal(rig_kind(x, 11), BLOCK_ABSENT);
	/* One of the two is done with it. */
	hst_release(&x->h, page(12));
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, 12), BLOCK_PRESENT);
	hst_release(&x->h, page(12));
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, 12), BLOCK_ABSENT);
	rig_check_pages(x, 10, 8);
	rig_swap_close(x);
}

/* Content that is written while it is held is not taken for what was swapped before. */
static void written_while_held_is_written_out(void **state)
{
	struct rig *x = rig_plain(true, 0);
	uint64_t swapped;

	(void)state;
	rig_write_pages(x, 10, 1);
	rig_evict_all(x);
	rig_check_pages(x, 10, 1);
	swapped = x->h.stats.swapped;
	assert_true(hst_hold(&x->h, page(10)));
	hst_wrote(&x->h, page(10), 1);
	hst_release(&x->h, page(10));
	rig_evict_all(x);
	assert_int_equal(x->h.stats.swapped, swapped + 1);
	rig_swap_close(x);
}

static void what_is_not_there_is_not_held(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	assert_false(hst_hold(&x->h, page(20)));
	rig_write_pages(x, 20, 1);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, 20), BLOCK_STANDBY);
	assert_false(hst_hold(&x->h, page(20)));
	rig_swap(x)->later = false;
	rig_evict(x);
	rig_swap_close(x);
}

static void places_are_left_for_the_vcpus(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_vcpu *v = rig_v(x, 0);

	(void)state;
	rig_write_pages(x, 10, 1);
	for (unsigned i = 0; i < HST_HOLDS_MAX; i++)
		assert_true(hst_hold(&x->h, page(10)));
	assert_false(hst_hold(&x->h, page(10)));
	vcpu_keep(v, HST_KEPT_AREA, 10);
	for (unsigned i = 0; i < HST_HOLDS_MAX; i++)
		hst_release(&x->h, page(10));
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, 10), BLOCK_PRESENT);
	vcpu_keep(v, HST_KEPT_AREA, BLOCK_NONE);
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, 10), BLOCK_ABSENT);
	rig_swap_close(x);
}

/* Who pins it looks for it in the VMM's view, and may not be able to wait there. */
static void what_is_held_long_shows_in_the_vmms_view(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_write_pages(x, 10, 1);
	assert_false(rig_swap(x)->vmm[10]);
	x->mem_faults.at = x->mem_faults.calls + 1;
	assert_false(hst_hold_long(&x->h, page(10)));
	rig_assert_sound(x);
	rig_evict_all(x);
	rig_check_pages(x, 10, 1);
	assert_true(hst_hold_long(&x->h, page(10)));
	assert_true(rig_swap(x)->vmm[10]);
	rig_vmm(x, 10, 0x2000);
	hst_release_long(&x->h, page(10), 1);
	/* As any other write there. */
	rig_evict_all(x);
	rig_check_pages(x, 10, 1);
	rig_swap_close(x);
}

/* The VMM's word may be wrong; what a copy or a vCPU keeps is not its to let go of. */
static void a_release_without_its_hold_ends_no_others(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_vcpu *v = rig_v(x, 0);

	(void)state;
	rig_write_pages(x, 10, 3);
	assert_true(hst_hold_long(&x->h, page(10)));
	assert_true(hst_hold(&x->h, page(11)));
	vcpu_keep(v, HST_KEPT_AREA, 12);
	for (uint64_t i = 11; i < 13; i++) {
		hst_release_long(&x->h, page(i), 1);
		rig_assert_sound(x);
	}
	rig_evict_all(x);
	for (uint64_t i = 10; i < 13; i++)
		assert_int_equal(rig_kind(x, i), BLOCK_PRESENT);
	hst_release(&x->h, page(11));
	vcpu_keep(v, HST_KEPT_AREA, BLOCK_NONE);
	hst_release_long(&x->h, page(10), 1);
	rig_assert_sound(x);
	rig_evict_all(x);
	for (uint64_t i = 10; i < 13; i++)
		assert_int_equal(rig_kind(x, i), BLOCK_ABSENT);
	rig_swap_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_held_stays),
		cmocka_unit_test(written_while_held_is_written_out),
		cmocka_unit_test(what_is_not_there_is_not_held),
		cmocka_unit_test(places_are_left_for_the_vcpus),
		cmocka_unit_test(what_is_held_long_shows_in_the_vmms_view),
		cmocka_unit_test(a_release_without_its_hold_ends_no_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
