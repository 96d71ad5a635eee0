/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host/drive.c: what a vCPU's thread, the serving thread and the evicting thread do next. How
 * a vCPU comes to rest is host_rest_test.c.
 */
#include "drive_fixture.h"

#define MS NS_PER_MS
#define OFF(page) ((uint64_t)(page) << PAGE_SHIFT)

/* ---- from step to step ---- */

static void a_call_enters_the_guest(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);

	(void)state;
	assert_true(hst_vcpu_is_at_rest(rig_v(x, 0)));
	dx_must_enter(dx_call(x), PLAT_ENTER);
	assert_false(hst_vcpu_is_at_rest(rig_v(x, 0)));
	assert_int_equal(rig_v(x, 0)->where, HST_IN_GUEST);
	rig_close(x);
}

/* An INIT is watched for while it would clear something; int's vector is, with events off. */
static void an_init_is_watched_for_while_registers_are_set(void **state)
{
	static const struct {
		enum apf_rev rev;
		uint32_t msr;
		uint64_t value;
		bool watched;
	} rows[] = {
		{APF_REV_INT, APF_MSR_CTL, RIG_VECTOR, true},
		{APF_REV_INT, APF_MSR_CTL, 0, false},
		{APF_REV_INT, APF_MSR_EN, RIG_GPA | APF_EN_INT, true},
		{APF_REV_LEGACY, APF_MSR_EN, RIG_GPA, true},
		/* It survives one. */
		{APF_REV_PF2, APF_MSR_CTL, RIG_VECTOR | APF_PF2_ENABLED, false},
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, rows[i].rev);
		struct rig *x = rig_open(&cfg);
		struct hst_step s = dx_call(x);

		assert_false(s.entry.watch_reset);
		s = dx_wrmsr(x, rows[i].msr, rows[i].value);
		assert_int_equal(s.entry.watch_reset, rows[i].watched);
		assert_false(x->vcpus[0].msr_gp);
		s = dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_KICK, .was_reset = true});
		assert_false(s.entry.watch_reset);
		rig_close(x);
	}
	struct rig *x = dx_open_called(APF_REV_INT);

	assert_true(dx_kicked(x).entry.watch_reset);
	rig_close(x);
}

/* Whoever is attached next finds no register of the vCPU that left. */
static void a_vcpu_that_leaves_takes_its_registers_along(void **state)
{
	(void)state;
	for (int rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		struct rig *x = dx_open_called((enum apf_rev)rev);

		hst_vcpu_call_back(rig_v(x, 0));
		dx_must_return(dx_kicked(x), -EINTR);
		hst_vcpu_detach(rig_v(x, 0));
		assert_int_equal(rig_v(x, 0)->eng.en, 0);
		assert_int_equal(rig_v(x, 0)->eng.ctl, 0);
		rig_close(x);
	}
}

static void a_fault_is_pumped_for_before_anything_else(void **state)
{
	const struct plat_exit e = {.kind = PLAT_EXIT_FAULT, .roff = {OFF(5)}};
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	struct hst_step s;

	(void)state;
	(void)dx_call(x);
	x->src.answers = RIG_AT_ONCE;
	s = dx_exit_step(x, 0, e);
	assert_int_equal(s.next, HST_DO_PUMP);
	s = dx_pumped(x, 0, s);
	/* The page cache has answered: it never waits, and is told where to map ahead. */
	dx_must_enter(s, PLAT_ENTER);
	assert_int_equal(s.ahead_count, 1);
	assert_int_equal(s.ahead[0].v, RIG_GPA + OFF(5));
	rig_close(x);
}

static void a_wait_ends_with_the_block_and_not_before(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);

	(void)state;
	(void)dx_call(x);
	dx_must_wait(dx_fault(x, 5));
	dx_must_wait(dx_did(x, 0, HST_DID_WAIT, false));
	rig_bring(x, 5);
	assert_true(x->vcpus[0].kicked);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	rig_close(x);
}

static void a_stall_halts_and_its_end_makes_runnable(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_STALL);

	(void)state;
	(void)dx_call(x);
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER_HALTED);
	dx_must_enter(dx_kicked(x), PLAT_ENTER);
	rig_bring(x, 5);
	dx_must_enter(dx_kicked(x), PLAT_ENTER_RUNNABLE);
	dx_must_enter(dx_kicked(x), PLAT_ENTER);
	rig_close(x);
}

static void an_exit_for_the_vmm_goes_to_it(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);

	(void)state;
	dx_must_return(dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_VMM}), 0);
	dx_must_rest(x);
	/* Nobody saves a vCPU in the middle of that: its registers stay where they are. */
	assert_int_equal(x->counts[RIG_SHOW], 0);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	rig_close(x);
}

static void an_error_goes_to_the_vmm_with_its_code(void **state)
{
	const struct plat_exit e = {.kind = PLAT_EXIT_ERROR, .code = -ENOTTY};
	struct rig *x = dx_open_called(APF_REV_INT);

	(void)state;
	dx_must_return(dx_exit(x, e), -ENOTTY);
	dx_must_rest(x);
	assert_int_equal(x->counts[RIG_SHOW], 1);
	rig_close(x);
}

static bool crowded;

static int room(void *ctx, struct err *e)
{
	(void)ctx;
	return crowded ? err_set(e, -ENOMEM, "no room") : 0;
}

/* RAM that the kernel fills by itself, and has no memory for. */
static void memory_that_the_host_refuses_pauses(void **state)
{
	const struct plat_exit e = {.kind = PLAT_EXIT_ERROR, .code = -EFAULT};
	struct rig *x = dx_open_called(APF_REV_INT);
	struct mem_ops ops = *x->h.mem.ops;

	(void)state;
	ops.room = room;
	x->h.mem.ops = &ops;
	crowded = true;
	for (unsigned i = 1; i <= 2; i++) {
		dx_must_wait(dx_exit(x, e));
		assert_true(hst_is_paused(&x->h));
		assert_string_equal(x->trouble.why.text, "no room");
		hst_resume(&x->h);
		assert_false(hst_is_paused(&x->h));
		dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	}
	/* It is the VMM's where there is room: it has not mapped what it gave to KVM, say. */
	crowded = false;
	dx_must_return(dx_exit(x, e), -EFAULT);
	dx_must_rest(x);
	rig_close(x);
}

static void a_signal_of_the_vmms_returns(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);

	(void)state;
	dx_must_return(dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_SIGNAL}), -EINTR);
	dx_must_rest(x);
	assert_int_equal(rig_entry(x, RIG_SHOW, 0)->a, rig_en(x, 0));
	assert_int_equal(rig_entry(x, RIG_SHOW, 0)->b, rig_ctl(x));
	rig_close(x);
}

static void a_signal_that_ended_a_wait_returns(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);

	(void)state;
	(void)dx_call(x);
	dx_must_wait(dx_fault(x, 5));
	dx_must_return(dx_did(x, 0, HST_DID_WAIT, true), -EINTR);
	dx_must_rest(x);
	rig_close(x);
}

static void a_wish_found_while_pumping_returns(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	struct hst_step s;

	(void)state;
	(void)dx_call(x);
	s = dx_exit_step(x, 0, (struct plat_exit){.kind = PLAT_EXIT_KICK});
	assert_int_equal(s.next, HST_DO_PUMP);
	dx_must_return(dx_did(x, 0, HST_DID_PUMP, true), -EINTR);
	rig_close(x);
}

static void immediate_exit_runs_nothing(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);

	(void)state;
	dx_must_return(dx_did(x, 0, HST_DID_CALL, true), -EINTR);
	dx_must_rest(x);
	assert_true(hst_vcpu_is_whole(rig_v(x, 0)));
	rig_close(x);
}

static void the_wish_is_fulfilled_once(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);

	(void)state;
	(void)dx_call(x);
	hst_vcpu_call_back(rig_v(x, 0));
	hst_vcpu_call_back(rig_v(x, 0));
	assert_int_equal(x->counts[RIG_KICK], 1);
	dx_must_return(dx_kicked(x), -EINTR);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	/* At rest: kept for the next call, without a kick. */
	dx_must_return(dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_VMM}), 0);
	hst_vcpu_call_back(rig_v(x, 0));
	assert_int_equal(x->counts[RIG_KICK], 1);
	dx_must_return(dx_call(x), -EINTR);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	rig_close(x);
}

/* ---- what cannot be served ---- */

static void a_read_only_memslot_pauses_with_a_reason(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);

	(void)state;
	(void)dx_call(x);
	dx_must_wait(dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_ROM}));
	assert_int_equal(x->counts[RIG_TROUBLE], 1);
	assert_int_equal(x->trouble.why.code, -EFAULT);
	assert_non_null(strstr(x->trouble.why.text, "read-only memslot"));
	hst_resume(&x->h);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	rig_close(x);
}

static bool is_page_5(void *ctx, roff_t off)
{
	(void)ctx;
	return off.v == OFF(5);
}

static void a_memory_error_is_passed_on_after_faults_for_nothing(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	struct mem_ops ops = *x->h.mem.ops;
	unsigned shown;

	(void)state;
	ops.is_broken = is_page_5;
	x->h.mem.ops = &ops;
	x->src.answers = RIG_AT_ONCE;
	rig_populate(x, 5);
	(void)dx_call(x);
	shown = x->counts[RIG_PRESENT];
	for (unsigned i = 0; i < 15; i++) {
		dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
		assert_int_equal(x->counts[RIG_PASS_FAULT], 0);
	}
	dx_must_return(dx_fault(x, 5), -EINTR);
	assert_int_equal(x->counts[RIG_PASS_FAULT], 1);
	/* Not shown again before, which fails for such a page. */
	assert_int_equal(x->counts[RIG_PRESENT], shown);
	dx_must_rest(x);
	rig_close(x);
}

/* ---- pumping ---- */

struct fake_io {
	unsigned flushes, reaps, completions;
};

static void fake_flush(void *ctx)
{
	((struct fake_io *)ctx)->flushes++;
}

static unsigned fake_reap(void *ctx)
{
	struct fake_io *f = ctx;

	f->reaps++;
	return f->completions ? f->completions-- : 0;
}

static void a_pump_reaps_until_nothing_is_left(void **state)
{
	static const struct io_ops ops = {.flush = fake_flush, .reap = fake_reap};
	struct fake_io f = {.completions = 3};
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	struct hst_pump p = {.fetch = NULL};

	(void)state;
	x->h.io = (struct io){&ops, &f};
	assert_false(hst_pump(&x->h, &p));
	assert_int_equal(f.reaps, 4);
	assert_int_equal(f.flushes, 4);
	x->src.answers = RIG_AT_ONCE;
	(void)dx_call(x);
	(void)dx_exit_step(x, 0, (struct plat_exit){.kind = PLAT_EXIT_FAULT, .roff = {OFF(5)}});
	assert_true(hst_pump(&x->h, &p));
	assert_false(rig_present(x, 5));
	hst_pump_show(&p);
	assert_int_equal(x->counts[RIG_PRESENT], 1);
	assert_false(hst_pump(&x->h, &p));
	assert_true(rig_present(x, 5));
	rig_close(x);
}

static void a_block_that_cannot_be_shown_pauses(void **state)
{
	static const struct io_ops ops = {.flush = fake_flush, .reap = fake_reap};
	struct fake_io f = {.completions = 0};
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	struct hst_pump p = {.fetch = NULL};

	(void)state;
	x->h.io = (struct io){&ops, &f};
	x->h.cfg.retries_max = 0;
	x->src.answers = RIG_AT_ONCE;
	x->mem_faults.at = 1;
	(void)dx_call(x);
	(void)dx_exit_step(x, 0, (struct plat_exit){.kind = PLAT_EXIT_FAULT, .roff = {OFF(5)}});
	assert_true(hst_pump(&x->h, &p));
	hst_pump_show(&p);
	assert_false(hst_pump(&x->h, &p));
	assert_false(rig_present(x, 5));
	assert_true(hst_is_paused(&x->h));
	rig_close(x);
}

/* ---- the serving thread ---- */

static void the_serving_thread_runs_what_is_due(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);

	(void)state;
	x->h.cfg.grace_ns = 5 * MS;
	dx_must_wait(dx_fault(x, 5));
	x->now += 5 * MS - 1;
	hst_serve_step(&x->h, NULL, 0, NULL);
	assert_int_equal(x->counts[RIG_KICK], 0);
	x->now++;
	hst_serve_step(&x->h, NULL, 0, NULL);
	assert_int_equal(x->counts[RIG_KICK], 1);
	rig_close(x);
}

static void touches_that_cannot_be_read_pause(void **state)
{
	const struct err why = {.code = -EIO, .text = "the file of touches is gone"};
	struct rig *x = dx_open(HST_FAULTS_BLOCK);

	(void)state;
	hst_serve_step(&x->h, NULL, -1, &why);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->trouble.why.code, -EIO);
	assert_string_equal(x->trouble.why.text, why.text);
	rig_close(x);
}

static void a_touch_that_cannot_be_poisoned_pauses_and_the_others_are_served(void **state)
{
	const struct mem_touch touches[] = {{{OFF(5)}, MEM_VIEW_GUEST},
					    {{OFF(6)}, MEM_VIEW_GUEST}};
	struct rig *x = dx_open(HST_FAULTS_BLOCK);

	(void)state;
	x->mem_faults.at = 1;
	hst_serve_step(&x->h, touches, 2, NULL);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->trouble.gpa.v, RIG_GPA + OFF(5));
	assert_int_equal(x->counts[RIG_POISON], 2);
	rig_close(x);
}

/* ---- the evicting thread ---- */

/* Memory that the kernel fills unseen is looked at before it can have grown too much. */
static void the_evicting_thread_looks_sooner_the_fuller_it_is(void **state)
{
	struct hst_evicting e = {.working = false};
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	uint64_t look = 0;

	(void)state;
	assert_false(hst_evict_step(&x->h, &e, &look));
	assert_true(look == NS_NEVER);
	x->h.cfg.resident_max = 4ull << 30;
	assert_false(hst_evict_step(&x->h, &e, &look));
	assert_int_equal(look - x->now, 250 * MS);
	x->h.cfg.resident_max = 128ull << 20;
	assert_false(hst_evict_step(&x->h, &e, &look));
	assert_int_equal(look - x->now, 48 * MS);
	x->h.cfg.resident_max = 1;
	assert_false(hst_evict_step(&x->h, &e, &look));
	assert_int_equal(look - x->now, 2 * MS);
	x->h.evict.watch = HST_WATCH_ALL;
	assert_false(hst_evict_step(&x->h, &e, &look));
	assert_true(look == NS_NEVER);
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_enters_the_guest),
		cmocka_unit_test(an_init_is_watched_for_while_registers_are_set),
		cmocka_unit_test(a_vcpu_that_leaves_takes_its_registers_along),
		cmocka_unit_test(a_fault_is_pumped_for_before_anything_else),
		cmocka_unit_test(a_wait_ends_with_the_block_and_not_before),
		cmocka_unit_test(a_stall_halts_and_its_end_makes_runnable),
		cmocka_unit_test(an_exit_for_the_vmm_goes_to_it),
		cmocka_unit_test(an_error_goes_to_the_vmm_with_its_code),
		cmocka_unit_test(memory_that_the_host_refuses_pauses),
		cmocka_unit_test(a_signal_of_the_vmms_returns),
		cmocka_unit_test(a_signal_that_ended_a_wait_returns),
		cmocka_unit_test(a_wish_found_while_pumping_returns),
		cmocka_unit_test(immediate_exit_runs_nothing),
		cmocka_unit_test(the_wish_is_fulfilled_once),
		cmocka_unit_test(a_read_only_memslot_pauses_with_a_reason),
		cmocka_unit_test(a_memory_error_is_passed_on_after_faults_for_nothing),
		cmocka_unit_test(a_pump_reaps_until_nothing_is_left),
		cmocka_unit_test(a_block_that_cannot_be_shown_pauses),
		cmocka_unit_test(the_serving_thread_runs_what_is_due),
		cmocka_unit_test(touches_that_cannot_be_read_pause),
		cmocka_unit_test(a_touch_that_cannot_be_poisoned_pauses_and_the_others_are_served),
		cmocka_unit_test(the_evicting_thread_looks_sooner_the_fuller_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
