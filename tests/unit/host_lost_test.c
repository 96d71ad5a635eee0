/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page that the host has lost, where the driver has to access it for the guest: the VM stands
 * still before that, nothing of it is read, written or made up, and it goes on once the page is
 * whole again.
 */
#include "host_fixture.h"

static const enum apf_rev all_revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_PF2_STRICT,
					APF_REV_INT};

#define NONE UINT64_MAX

static uint64_t lost_page;

static bool is_broken(void *ctx, roff_t off)
{
	(void)ctx;
	return off.v >> PAGE_SHIFT == lost_page;
}

static void can_lose(struct rig *x)
{
	static struct mem_ops ops;

	ops = *x->h.mem.ops;
	ops.is_broken = is_broken;
	x->h.mem.ops = &ops;
	lost_page = NONE;
}

static void lose(struct rig *x, uint64_t page)
{
	lost_page = page;
	memset(x->alias + page * PAGE_BYTES, 0x6c, PAGE_BYTES);
}

static void is_paused_for(struct rig *x, uint64_t page, const char *why)
{
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->trouble.why.code, -EHWPOISON);
	assert_non_null(strstr(x->trouble.why.text, why));
	assert_int_equal(x->trouble.gpa.v & ~(PAGE_BYTES - 1), RIG_GPA + page * PAGE_BYTES);
	for (unsigned i = 0; i < PAGE_BYTES; i++)
		assert_int_equal(x->alias[page * PAGE_BYTES + i], 0x6c);
}

/* Resumed in vain, then with the page given up. */
static void goes_on(struct rig *x, uint64_t page, const char *why)
{
	hst_resume(&x->h);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	is_paused_for(x, page, why);
	lost_page = NONE;
	memset(x->alias + page * PAGE_BYTES, 0, PAGE_BYTES);
	hst_resume(&x->h);
	assert_int_not_equal(rig_next(x, 0), HST_WAIT);
	assert_false(hst_is_paused(&x->h));
}

static uint64_t area_page(struct rig *x)
{
	return (uint64_t)((unsigned char *)rig_area(x, 0) - x->alias) >> PAGE_SHIFT;
}

/* ---- the area ---- */

static struct rig *open_area(enum apf_rev rev)
{
	struct rig *x = rig_open_on(rev, 1);

	can_lose(x);
	return x;
}

static void nothing_is_missing_by_a_lost_area(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(all_revs); r++) {
		struct rig *x = open_area(all_revs[r]);

		lose(x, area_page(x));
		x->now += NS_PER_S;
		assert_int_equal(rig_fault_next(x, 0, 9), HST_WAIT);
		is_paused_for(x, area_page(x), "area for page fault events");
		assert_int_equal(x->counts[RIG_INJECT], 0);
		rig_bring(x, 9);
		lost_page = NONE;
		hst_resume(&x->h);
		assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
		rig_close(x);
	}
}

/* What became ready stays due, for whoever looks: the vCPU, the thread that brought it, a timer. */
static void nothing_is_ready_by_a_lost_area(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(all_revs); r++) {
		struct rig *x = open_area(all_revs[r]);
		uint32_t token = rig_sleeper(x, 0, 9);
		uint64_t page = area_page(x);

		lose(x, page);
		x->now += NS_PER_S;
		rig_log_clear(x);
		rig_bring(x, 9);
		assert_int_equal(rig_pass(x, 0), HST_WAIT);
		is_paused_for(x, page, "area for page fault events");
		assert_int_equal(x->counts[RIG_IRQ] + x->counts[RIG_INJECT], 0);
		goes_on(x, page, "area for page fault events");
		assert_int_equal(rig_take_ready(x, 0), token);
		rig_close(x);
	}
}

static void a_look_at_a_lost_area_pauses(void **state)
{
	struct rig *x = open_area(APF_REV_PF2);
	uint32_t token = (rig_sleeper(x, 0, 9), rig_sleeper(x, 0, 10));
	uint64_t page = area_page(x);

	(void)state;
	rig_bring(x, 9);
	rig_bring(x, 10); /* the slot is busy: a timer looks again */
	lose(x, page);
	rig_after(x, NS_PER_S);
	is_paused_for(x, page, "area for page fault events");
	assert_int_equal(rig_pass(x, 0), HST_WAIT);
	goes_on(x, page, "area for page fault events");
	assert_int_equal(rig_take_ready(x, 0), token);
	rig_close(x);
}

/* Where the guest puts it next is looked at, however short that is after. */
static void another_area_is_looked_at_anew(void **state)
{
	struct rig *x = open_area(APF_REV_INT);
	uint64_t page = area_page(x);

	(void)state;
	assert_int_equal(rig_pass(x, 0), HST_ENTER);
	lose(x, page);
	rig_wrmsr(x, 0, APF_MSR_EN, rig_en(x, 0));
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	is_paused_for(x, page, "area for page fault events");
	goes_on(x, page, "area for page fault events");
	rig_close(x);
}

/* ---- accesses that KVM hands out ---- */

static struct rig *open_plain(void)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x = rig_open(&cfg);

	can_lose(x);
	rig_populate(x, 9);
	lose(x, 9);
	return x;
}

static void a_load_waits(void **state)
{
	struct rig *x = open_plain();
	uint64_t data = 0x5555;
	const struct plat_io io = {.data = &data, .len = 8};

	(void)state;
	rig_exit(x, 0, false);
	hst_ram_io(rig_v(x, 0), (roff_t){9 * PAGE_BYTES + 8}, &io);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	is_paused_for(x, 9, "the guest loads from it");
	assert_int_equal(data, 0x5555);
	goes_on(x, 9, "the guest loads from it");
	assert_int_equal(data, 0);
	rig_close(x);
}

static void a_store_waits(void **state)
{
	struct rig *x = open_plain();
	uint64_t data = 0x5555;
	const struct plat_io io = {.data = &data, .len = 8, .write = true};

	(void)state;
	rig_exit(x, 0, false);
	hst_ram_io(rig_v(x, 0), (roff_t){9 * PAGE_BYTES + 8}, &io);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	is_paused_for(x, 9, "the guest stores to it");
	goes_on(x, 9, "the guest stores to it");
	assert_memory_equal(x->alias + 9 * PAGE_BYTES + 8, &data, 8);
	rig_close(x);
}

/* Its block has come from somewhere, with the page lost. */
static void a_store_that_waited_waits(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x = rig_open(&cfg);
	uint64_t data = 0x5555;
	const struct plat_io io = {.data = &data, .len = 8, .write = true};

	(void)state;
	can_lose(x);
	rig_exit(x, 0, false);
	hst_ram_io(rig_v(x, 0), (roff_t){9 * PAGE_BYTES}, &io);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	rig_answer(x, rig_read_at(x, 9 * PAGE_BYTES), 0);
	lose(x, 9);
	rig_pump(x);
	is_paused_for(x, 9, "the guest stores to it");
	goes_on(x, 9, "the guest stores to it");
	assert_memory_equal(x->alias + 9 * PAGE_BYTES, &data, 8);
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_missing_by_a_lost_area),
		cmocka_unit_test(nothing_is_ready_by_a_lost_area),
		cmocka_unit_test(a_look_at_a_lost_area_pauses),
		cmocka_unit_test(another_area_is_looked_at_anew),
		cmocka_unit_test(a_load_waits),
		cmocka_unit_test(a_store_waits),
		cmocka_unit_test(a_store_that_waited_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
