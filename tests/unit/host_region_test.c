/* SPDX-License-Identifier: Apache-2.0 */
/* src/host/region.c: guest RAM that comes and goes while the VM runs. */
#include "drive_fixture.h"
#include "host_swap_fixture.h"

#define PAGES 256u

static roff_t page(uint64_t p)
{
	return (roff_t){p * PAGE_BYTES};
}

/* It was in the VMM's memfd before. */
static void put_found(struct rig *x, uint64_t first, uint64_t count)
{
	for (uint64_t p = first; p < first + count; p++) {
		rig_put(x, p, 0x5000 + p);
		rig_swap(x)->allocated[p] = true;
	}
	hst_ram_found(&x->h, page(first), count * PAGE_BYTES);
	rig_assert_sound(x);
}

/* As lib/memory.c does it. */
static void discard(struct rig *x, struct hst_discard *d)
{
	enum hst_discarding next;
	uint32_t first = d->at;

	while ((next = hst_discard_step(&x->h, d)) != HST_DISCARD_DONE) {
		x->discards = d;
		if (next == HST_DISCARD_WORK)
			hst_discard_work(&x->h, d);
		else
			rig_device(x, d->at, 0);
		x->discards = NULL;
	}
	assert_int_equal(d->why.code, 0);
	for (uint32_t p = first; p < d->end; p++)
		rig_swap(x)->want[p] = 1;
	rig_assert_sound(x);
}

static bool leave(struct rig *x)
{
	struct hst_discard d;

	if (!hst_ram_leave(&x->h, (gpa_t){RIG_GPA}, &d))
		return false;
	assert_int_equal(d.at, 0);
	assert_int_equal(d.end, PAGES);
	discard(x, &d);
	return true;
}

static void leave_for_good(struct rig *x)
{
	assert_true(leave(x));
	assert_true(hst_ram_remove(&x->h, (gpa_t){RIG_GPA}));
	rig_assert_sound(x);
}

/* Another part comes to its place, with nothing behind it. */
static void come_again(struct rig *x)
{
	assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){RIG_GPA}, PAGES * PAGE_BYTES,
					PAGE_BYTES), RAM_ADDED);
	hst_ram_added(&x->h);
	memset(rig_swap(x)->pages, RIG_HOLE, sizeof(rig_swap(x)->pages));
	memset(rig_swap(x)->want, 0, sizeof(rig_swap(x)->want));
	rig_swap(x)->source = false;
}

static void what_is_found_goes_before_the_source(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	put_found(x, 10, 4);
	assert_int_equal(x->h.evict.resident, 4);
	assert_int_equal(rig_kind(x, 10), BLOCK_STANDBY);
	rig_check_pages(x, 10, 2);
	assert_int_equal(x->h.stats.reads, 0);
	/* And is lost by nobody. */
	rig_evict_all(x);
	assert_int_equal(x->h.stats.swapped, 4);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 8, 8);
	rig_swap_close(x);
}

/* Also of blocks that are found in part: the rest of them is zeroes, as it is in the memfd. */
static void a_part_of_a_block_is_a_block(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x;

	(void)state;
	cfg.block_shift = 14;
	x = rig_swap_open(&cfg, PAGES, true, 0);
	for (uint64_t p = 8; p < 16; p++)
		rig_put(x, p, p == 11 || p == 12 ? 0x5000 + p : 1);
	hst_ram_found(&x->h, page(11), 2 * PAGE_BYTES);
	rig_assert_sound(x);
	assert_int_equal(rig_kind(x, 8), BLOCK_STANDBY);
	assert_int_equal(rig_kind(x, 15), BLOCK_STANDBY);
	assert_int_equal(rig_kind(x, 7), BLOCK_ABSENT);
	assert_int_equal(rig_kind(x, 16), BLOCK_ABSENT);
	rig_check_pages(x, 8, 8);
	rig_swap_close(x);
}

/* More than there may be: it goes to the swap file before anything else comes. */
static void more_may_be_found_than_may_stay(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);

	(void)state;
	put_found(x, 0, 100);
	rig_evict(x);
	assert_true(x->h.evict.resident <= RIG_LIMIT);
	for (uint64_t p = 0; p < 120; p++) {
		rig_device(x, p, 0);
		rig_evict(x);
	}
	rig_swap_close(x);
}

static void what_has_left_is_forgotten(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct err e;

	(void)state;
	rig_write_pages(x, 10, 8);
	rig_evict_all(x);
	rig_write_pages(x, 14, 8);
	for (uint64_t p = 16; p < 20; p++)
		rig_vmm(x, p, 0x2000 + p);
	assert_true(hst_pin(&x->h, page(15)));
	assert_int_equal(rig_kernel_touch(&x->h, page(100), &e), 0);
	assert_int_equal(x->h.chunk_poisoned[0], 1);
	assert_true(leave(x));
	assert_int_equal(x->h.evict.staying, 0);
	assert_int_equal(x->h.evict.resident, 0);
	assert_true(hst_ram_remove(&x->h, (gpa_t){RIG_GPA}));
	for (uint32_t b = 0; b < PAGES; b++)
		assert_int_equal(x->h.blocks[b], 0);
	assert_int_equal(x->h.chunk_poisoned[0], 0);
	assert_int_equal(x->h.ram.bytes, 0);
	/* Reported before, read after. */
	assert_int_equal(rig_kernel_touch(&x->h, page(16), &e), 0);
	assert_int_equal(rig_vmm_touch(&x->h, page(16), &e), 0);
	rig_assert_sound(x);

	come_again(x);
	rig_check_pages(x, 10, 12);
	rig_swap_close(x);
}

/* Refused, it stays as it was: what is pinned and kept there still is. */
static void what_is_held_does_not_leave(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_vcpu *v = rig_v(x, 0);

	(void)state;
	rig_write_pages(x, 10, 4);
	assert_true(hst_pin(&x->h, page(10)));
	vcpu_keep(v, PV_SYSTEM_TIME, 11);
	assert_true(hst_hold_long(&x->h, page(12)));
	assert_false(leave(x));
	rig_evict_all(x);
	for (uint64_t p = 10; p < 13; p++)
		assert_int_equal(rig_kind(x, p), BLOCK_PRESENT);
	assert_int_equal(rig_kind(x, 13), BLOCK_ABSENT);
	assert_int_equal(v->kept[PV_SYSTEM_TIME], 11);
	hst_release_long(&x->h, page(12), 1);
	/* What vCPUs keep is let go of. */
	assert_true(leave(x));
	assert_int_equal(v->kept[PV_SYSTEM_TIME], BLOCK_NONE);
	assert_true(hst_ram_remove(&x->h, (gpa_t){RIG_GPA}));
	rig_swap_close(x);
}

static void what_comes_back_is_discarded_once_more(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_job job;

	(void)state;
	assert_true(leave(x));
	/* A fetch that was on its way. */
	rig_device(x, 20, 0);
	assert_false(hst_ram_remove(&x->h, (gpa_t){RIG_GPA}));
	hst_evict_to(&x->h, 0);
	job = rig_take_job(x, HST_JOB_UNMAP);
	assert_false(hst_ram_remove(&x->h, (gpa_t){RIG_GPA}));
	rig_end_job(x, &job);
	rig_evict(x);
	assert_true(leave(x));
	assert_true(hst_ram_remove(&x->h, (gpa_t){RIG_GPA}));
	rig_swap_close(x);
}

/* What the thread is about to import may be of the part that leaves. */
static void nothing_leaves_while_a_job_is_out(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, PAGES, false, 0);
	struct hst_job job;

	(void)state;
	for (uint64_t p = 10; p < 20; p++)
		rig_native(x, p);
	hst_evict_to(&x->h, 0);
	assert_true(hst_evict_next(&x->h, &job));
	rig_end_job(x, &job);
	assert_true(hst_evict_next(&x->h, &job));
	assert_int_equal(job.kind, HST_JOB_IMPORT);
	hst_evict_work(&x->h, &job);
	assert_true(leave(x));
	assert_false(hst_ram_remove(&x->h, (gpa_t){RIG_GPA}));
	rig_end_job(x, &job);
	assert_true(leave(x));
	assert_true(hst_ram_remove(&x->h, (gpa_t){RIG_GPA}));
	/* There is nothing left to look at. */
	while (rig_job(x))
		;
	assert_int_equal(x->h.evict.watch, HST_WATCH_ALL);
	rig_swap_close(x);
}

/* It names memory; the VM stands still, and a region goes: is there one to name? */
static void a_job_that_fails_again_may_have_no_region(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, PAGES, false, 0);

	(void)state;
	rig_native(x, 10);
	hst_evict_to(&x->h, 0);
	assert_true(rig_job(x));
	assert_int_equal(x->h.evict.watch, HST_WATCH_IMPORT);
	rig_swap(x)->fail[RIG_TAKE_RESIDENT] = 2;
	assert_true(rig_job(x));
	assert_true(hst_is_paused(&x->h));
	leave_for_good(x);
	hst_resume(&x->h);
	assert_true(rig_job(x));
	assert_true(hst_is_paused(&x->h));
	hst_resume(&x->h);
	while (rig_job(x))
		;
	assert_int_equal(x->h.evict.watch, HST_WATCH_ALL);
	rig_swap_close(x);
}

/* ---- a guest that touches what leaves ---- */

/* The exit has been told, and what it waits for has come; the thread has yet to go on. */
static void exit_and_pump(struct rig *x, struct plat_exit e)
{
	assert_int_equal(dx_exit_step(x, 0, e).next, HST_DO_PUMP);
	rig_pump(x);
}

static struct plat_exit io_exit(uint64_t p, void *data, bool write)
{
	return (struct plat_exit){.kind = PLAT_EXIT_RAM_IO,
				  .gpa = {RIG_GPA + page(p).v},
				  .io = {.data = data, .len = 8, .write = write}};
}

static struct plat_exit clock_exit(uint64_t p)
{
	return (struct plat_exit){.kind = PLAT_EXIT_WRMSR,
				  .msr = {PV_MSR_SYSTEM_TIME, (RIG_GPA + page(p).v) | 1}};
}

static void an_access_under_way_finds_no_memory(void **state)
{
	struct rig *x = rig_plain(true, 0);
	uint64_t data = 0;

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	exit_and_pump(x, io_exit(10, &data, false));
	leave_for_good(x);
	dx_must_enter(dx_did(x, 0, HST_DID_PUMP, false), PLAT_ENTER);
	assert_int_equal(data, UINT64_MAX);

	come_again(x);
	exit_and_pump(x, io_exit(10, &data, true));
	assert_int_equal(rig_v(x, 0)->store_count, 1);
	leave_for_good(x);
	assert_int_equal(rig_v(x, 0)->store_count, 0);
	come_again(x);
	dx_must_enter(dx_did(x, 0, HST_DID_PUMP, false), PLAT_ENTER);
	assert_int_equal(rig_kind(x, 10), BLOCK_ABSENT);
	rig_swap_close(x);
}

/* The next life of a load is not the one that has left. */
static void a_load_that_is_dropped_is_forgotten(void **state)
{
	struct rig *x = rig_plain(true, 0);
	uint64_t data = 0;

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	exit_and_pump(x, io_exit(10, &data, false));
	leave_for_good(x);
	hst_vcpu_reset(rig_v(x, 0));
	come_again(x);
	rig_write_pages(x, 11, 1);
	dx_must_enter(dx_did(x, 0, HST_DID_PUMP, false), PLAT_ENTER);
	dx_must_enter(dx_exit(x, io_exit(11, &data, false)), PLAT_ENTER);
	assert_int_equal(data, *rig_words(x, 11));
	rig_swap_close(x);
}

static void an_exit_that_comes_late_finds_no_memory(void **state)
{
	struct rig *x = rig_plain(true, 0);
	uint64_t data = 0;

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	leave_for_good(x);
	dx_must_enter(dx_fault(x, 10), PLAT_ENTER);
	/* As an access to no memory is the VMM's. */
	dx_must_return(dx_exit(x, io_exit(10, &data, false)), 0);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_return(dx_exit(x, io_exit(10, &data, true)), 0);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	assert_int_equal(rig_v(x, 0)->store_count, 0);
	assert_int_equal(x->h.free_count, x->h.fetch_count);
	rig_swap_close(x);
}

/* The kernel is told of memory that is there, if any is. */
static void a_register_that_names_what_leaves_is_written(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_vcpu *v = rig_v(x, 0);

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	exit_and_pump(x, clock_exit(10));
	leave_for_good(x);
	dx_must_enter(dx_did(x, 0, HST_DID_PUMP, false), PLAT_ENTER);
	assert_true(x->vcpus[0].msr_done);
	assert_int_equal(v->kept[PV_SYSTEM_TIME], BLOCK_NONE);

	come_again(x);
	x->vcpus[0].msr_done = false;
	exit_and_pump(x, clock_exit(10));
	leave_for_good(x);
	come_again(x);
	assert_false(x->vcpus[0].msr_done);
	dx_must_wait(dx_did(x, 0, HST_DID_PUMP, false));
	assert_false(x->vcpus[0].msr_done);
	rig_pump(x);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	assert_true(x->vcpus[0].msr_done);
	assert_int_equal(v->kept[PV_SYSTEM_TIME], 10);
	assert_int_equal(rig_kind(x, 10), BLOCK_PRESENT);
	rig_swap_close(x);
}

/* Other memory comes to the place of a vCPU's area, which is there and stays, as before. */
static void an_area_is_kept_in_memory_that_comes_again(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_USER, PAGES, true, 0);
	struct hst_vcpu *v = rig_v(x, 0);

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	exit_and_pump(x, (struct plat_exit){
		.kind = PLAT_EXIT_WRMSR,
		.msr = {APF_MSR_EN, (RIG_GPA + page(10).v) | APF_EN_ENABLED | APF_EN_INT}});
	dx_must_enter(dx_did(x, 0, HST_DID_PUMP, false), PLAT_ENTER);
	leave_for_good(x);
	assert_int_equal(v->kept[HST_KEPT_AREA], BLOCK_NONE);
	come_again(x);
	assert_int_equal(v->kept[HST_KEPT_AREA], 10);
	/* The guest does not run on before it is there. */
	dx_must_wait(dx_kicked(x));
	rig_pump(x);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	assert_int_equal(rig_kind(x, 10), BLOCK_PRESENT);
	rig_swap_close(x);
}

/* Those of the kernel's likewise, which is told of it again when the memory is there. */
static void the_kernels_area_is_kept_in_memory_that_comes_again(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_vcpu *v = rig_v(x, 0);

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	exit_and_pump(x, clock_exit(10));
	dx_must_enter(dx_did(x, 0, HST_DID_PUMP, false), PLAT_ENTER);
	assert_int_equal(v->kept[PV_SYSTEM_TIME], 10);
	leave_for_good(x);
	assert_int_equal(v->kept[PV_SYSTEM_TIME], BLOCK_NONE);
	x->vcpus[0].kicked = false;
	rig_log_clear(x);

	come_again(x);
	assert_int_equal(v->kept[PV_SYSTEM_TIME], 10);
	assert_true(x->vcpus[0].kicked);
	dx_must_wait(dx_kicked(x));
	assert_int_equal(x->counts[RIG_SET_MSR], 0);
	rig_pump(x);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	assert_int_equal(rig_kind(x, 10), BLOCK_PRESENT);
	assert_int_equal(x->counts[RIG_SET_MSR], 1);
	assert_int_equal(rig_entry(x, RIG_SET_MSR, 0)->a, PV_MSR_SYSTEM_TIME);
	assert_int_equal(rig_entry(x, RIG_SET_MSR, 0)->b, (RIG_GPA + page(10).v) | 1);
	/* Memory that does not concern it disturbs nobody. */
	x->vcpus[0].kicked = false;
	hst_ram_added(&x->h);
	assert_false(x->vcpus[0].kicked);
	rig_swap_close(x);
}

/* The kernel may write there while the vCPU is halted; the fault comes back. */
static void a_stall_ends_for_the_kernels_area(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_STALL, PAGES, true, 0);
	struct hst_vcpu *v = rig_v(x, 0);

	(void)state;
	x->src.answers = RIG_LATER;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER_HALTED);
	v->area_value[PV_SYSTEM_TIME] = (RIG_GPA + page(10).v) | 1;
	x->vcpus[0].kicked = false;
	hst_ram_added(&x->h);
	assert_true(x->vcpus[0].kicked);
	dx_must_wait(dx_kicked(x));
	assert_int_equal(v->phase, HST_PHASE_AREA);
	rig_bring(x, 10);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER_RUNNABLE);
	assert_int_equal(x->counts[RIG_SET_MSR], 1);
	rig_bring(x, 5);
	rig_swap_close(x);
}

/* The VMM restores registers meanwhile. */
static void an_area_that_is_named_late_is_let_go_of(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_USER, PAGES, true, 0);
	struct hst_vcpu *v = rig_v(x, 0);

	(void)state;
	assert_true(leave(x));
	assert_true(hst_vcpu_set_msr(v, APF_MSR_EN,
				     (RIG_GPA + page(10).v) | APF_EN_ENABLED | APF_EN_INT));
	assert_int_equal(v->kept[HST_KEPT_AREA], 10);
	assert_true(hst_ram_remove(&x->h, (gpa_t){RIG_GPA}));
	assert_int_equal(v->kept[HST_KEPT_AREA], BLOCK_NONE);
	rig_assert_sound(x);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	assert_int_equal(x->h.free_count, x->h.fetch_count);
	rig_swap_close(x);
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
		cmocka_unit_test(a_job_that_fails_again_may_have_no_region),
		cmocka_unit_test(an_access_under_way_finds_no_memory),
		cmocka_unit_test(a_load_that_is_dropped_is_forgotten),
		cmocka_unit_test(an_exit_that_comes_late_finds_no_memory),
		cmocka_unit_test(a_register_that_names_what_leaves_is_written),
		cmocka_unit_test(an_area_is_kept_in_memory_that_comes_again),
		cmocka_unit_test(the_kernels_area_is_kept_in_memory_that_comes_again),
		cmocka_unit_test(a_stall_ends_for_the_kernels_area),
		cmocka_unit_test(an_area_that_is_named_late_is_let_go_of),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
