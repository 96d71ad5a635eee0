/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host/drive.c: how a vCPU comes to rest, whatever it is in the middle of: each phase, events
 * that the guest has not seen, resets.
 */
#include "drive_fixture.h"

#define MS NS_PER_MS
#define OFF(page) ((uint64_t)(page) << PAGE_SHIFT)

/* ---- at rest, from each phase ---- */

static void a_kick_in_the_grace_window_drops_the_fault(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);

	(void)state;
	x->h.cfg.grace_ns = 5 * MS;
	dx_must_wait(dx_fault(x, 5));
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_GRACE);
	hst_vcpu_call_back(rig_v(x, 0));
	dx_must_return(dx_did(x, 0, HST_DID_WAIT, false), -EINTR);
	dx_must_rest(x);
	assert_null(rig_v(x, 0)->sync.fetch);
	/* The read goes on; the guest touches the page again. */
	rig_bring(x, 5);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
	assert_int_equal(x->counts[RIG_READ], 1);
	assert_int_equal(x->counts[RIG_INJECT], 0);
	rig_close(x);
}

static void a_kick_in_a_stall_drops_the_fault(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_STALL);

	(void)state;
	(void)dx_call(x);
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER_HALTED);
	hst_vcpu_call_back(rig_v(x, 0));
	dx_must_return(dx_kicked(x), -EINTR);
	dx_must_rest(x);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER_HALTED);
	rig_close(x);
}

static void a_load_waits_through_a_rest_and_is_not_completed_before(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	unsigned char data[8] = {0};

	(void)state;
	(void)dx_call(x);
	dx_must_wait(dx_io(x, OFF(5) + 16, data, 8, false));
	hst_vcpu_call_back(rig_v(x, 0));
	dx_must_return(dx_did(x, 0, HST_DID_WAIT, false), -EINTR);
	dx_must_rest(x);
	assert_false(hst_vcpu_is_whole(rig_v(x, 0)));
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_LOAD);
	/* Called, and wanted back again at once. */
	dx_must_return(dx_did(x, 0, HST_DID_CALL, true), -EINTR);
	rig_bring(x, 5);
	assert_int_equal(data[0], 0);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	assert_int_equal(data[0], rig_byte(OFF(5)));
	rig_close(x);
}

static void a_register_write_waits_through_a_rest_and_takes_effect_once(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_INT);
	struct rig *x = rig_open(&cfg);

	(void)state;
	(void)dx_call(x);
	dx_must_wait(dx_wrmsr(x, APF_MSR_EN, rig_en(x, 0)));
	dx_must_return(dx_did(x, 0, HST_DID_WAIT, true), -EINTR);
	dx_must_rest(x);
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_WRMSR);
	rig_bring(x, RIG_AREA_PAGE);
	assert_false(x->vcpus[0].msr_done);
	assert_false(eng_enabled(&rig_v(x, 0)->eng));
	dx_must_enter(dx_call(x), PLAT_ENTER);
	assert_true(x->vcpus[0].msr_done && !x->vcpus[0].msr_gp);
	assert_int_equal(x->counts[RIG_MSR], 1);
	assert_true(eng_enabled(&rig_v(x, 0)->eng));
	rig_close(x);
}

static void a_store_is_finished_by_kvm_and_carried_out_at_rest(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	uint64_t data = 0x1122334455667788ull;

	(void)state;
	(void)dx_call(x);
	dx_must_wait(dx_io(x, OFF(5) + 8, &data, 8, true));
	data = 0;
	hst_vcpu_call_back(rig_v(x, 0));
	/* KVM has executed it, and does not know yet. */
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_COMPLETE);
	dx_must_return(dx_kicked(x), -EINTR);
	dx_must_rest(x);
	assert_true(hst_vcpu_is_whole(rig_v(x, 0)));
	rig_log_clear(x);
	rig_bring(x, 5);
	memcpy(&data, x->alias + OFF(5) + 8, 8);
	assert_true(data == 0x1122334455667788ull);
	assert_int_equal(rig_v(x, 0)->store_count, 0);
	assert_int_equal(x->counts[RIG_KICK], 0);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	rig_close(x);
}

static void each_part_of_an_instruction_is_stored_in_its_order(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	unsigned char a[8], b[8], c[8];

	(void)state;
	memset(a, 0xa1, 8);
	memset(b, 0xb2, 8);
	memset(c, 0xc3, 8);
	(void)dx_call(x);
	dx_must_wait(dx_io(x, OFF(6) - 8, a, 8, true));
	/* Wanted: KVM goes on with the other parts, and each is an exit of its own. */
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, true), PLAT_COMPLETE);
	dx_must_enter(dx_io(x, OFF(6), b, 8, true), PLAT_COMPLETE);
	dx_must_enter(dx_io(x, OFF(6) + 4, c, 8, true), PLAT_COMPLETE);
	dx_must_return(dx_kicked(x), -EINTR);
	dx_must_rest(x);
	assert_int_equal(rig_v(x, 0)->store_count, 3);
	rig_bring(x, 5);
	assert_int_equal(rig_v(x, 0)->store_count, 2);
	rig_bring(x, 6);
	assert_int_equal(rig_v(x, 0)->store_count, 0);
	assert_int_equal(x->alias[OFF(6) - 8], 0xa1);
	assert_int_equal(x->alias[OFF(6) + 3], 0xb2);
	assert_int_equal(x->alias[OFF(6) + 4], 0xc3);
	assert_int_equal(x->alias[OFF(6) + 11], 0xc3);
	rig_close(x);
}

static void kvm_is_not_asked_for_more_stores_than_there_is_room_for(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	unsigned char data[8] = {7};
	struct hst_step s;

	(void)state;
	(void)dx_call(x);
	s = dx_io(x, OFF(5), data, 8, true);
	dx_must_wait(s);
	s = dx_did(x, 0, HST_DID_WAIT, true);
	for (unsigned i = 1; i < HST_STORES_MAX; i++) {
		dx_must_enter(s, PLAT_COMPLETE);
		s = dx_io(x, OFF(5) + 8ull * i, data, 8, true);
	}
	dx_must_return(s, -EINTR);
	assert_int_equal(rig_v(x, 0)->store_count, HST_STORES_MAX);
	assert_false(hst_vcpu_is_whole(rig_v(x, 0)));
	rig_close(x);
}

static void a_missing_area_is_waited_for_and_can_be_left(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_INT);
	struct rig *x = rig_open(&cfg);

	(void)state;
	assert_true(hst_vcpu_set_msr(rig_v(x, 0), APF_MSR_EN, rig_en(x, 0)));
	dx_must_wait(dx_call(x));
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_AREA);
	dx_must_return(dx_did(x, 0, HST_DID_WAIT, true), -EINTR);
	dx_must_rest(x);
	dx_must_wait(dx_call(x));
	rig_bring(x, RIG_AREA_PAGE);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	rig_close(x);
}

static void a_paused_vm_gives_its_threads_back(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);

	(void)state;
	hst_pause(&x->h);
	dx_must_wait(dx_kicked(x));
	hst_vcpu_call_back(rig_v(x, 0));
	dx_must_return(dx_did(x, 0, HST_DID_WAIT, false), -EINTR);
	dx_must_rest(x);
	dx_must_wait(dx_call(x));
	hst_resume(&x->h);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	rig_close(x);
}

static void so_does_one_that_is_held(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);

	(void)state;
	x->h.evict.hold.on = true;
	dx_must_wait(dx_kicked(x));
	dx_must_return(dx_did(x, 0, HST_DID_WAIT, true), -EINTR);
	dx_must_rest(x);
	x->h.evict.hold.on = false;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	rig_close(x);
}

/* ---- events that the guest has not seen ---- */

/* Counters never fall: what may be taken back is not in them yet. */
static struct hst_stats counted(struct rig *x)
{
	struct hst_stats all, one;

	hst_stats_sum(&x->h, &all);
	hst_vcpu_stats(rig_v(x, 0), &one);
	assert_int_equal(all.missing_events, one.missing_events);
	assert_int_equal(all.ready_events, one.ready_events);
	assert_int_equal(all.wake_alls, one.wake_alls);
	return all;
}

static void page_missing_is_taken_back_and_announced_anew(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_INT};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(revs); r++) {
		struct rig *x = dx_open_called(revs[r]);

		dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
		assert_int_not_equal(x->vcpus[0].untaken, 0);
		assert_int_equal(counted(x).missing_events, 0);
		hst_vcpu_call_back(rig_v(x, 0));
		dx_must_return(dx_kicked(x), -EINTR);
		dx_must_rest(x);
		assert_int_equal(x->traced[APF_TRACE_WITHDRAWN], 1);
		assert_int_equal(rig_area(x, 0)->reason, 0);
		assert_int_equal(rig_v(x, 0)->eng.outstanding, 0);
		assert_int_equal(rig_v(x, 0)->stats.missing_events, 0);
		dx_must_enter(dx_call(x), PLAT_ENTER);
		dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
		assert_int_equal(rig_v(x, 0)->stats.missing_events, 1);
		assert_int_equal(counted(x).missing_events, 0);
		(void)rig_take_pf(x, 0);
		dx_must_enter(dx_kicked(x), PLAT_ENTER);
		assert_int_equal(counted(x).missing_events, 1);
		assert_int_equal(x->traced[APF_TRACE_TOLD], 2);
		assert_int_equal(x->traced[APF_TRACE_WITHDRAWN], 1);
		rig_close(x);
	}
}

static void page_missing_is_taken_back_though_the_page_came(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_INT};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(revs); r++) {
		struct rig *x = dx_open_called(revs[r]);

		dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
		rig_bring(x, 5);
		/* Not before the guest has found its page missing, which it may never. */
		assert_int_equal(x->counts[RIG_IRQ], 0);
		rig_after(x, MS);
		assert_int_equal(x->counts[RIG_IRQ], 0);
		hst_vcpu_call_back(rig_v(x, 0));
		dx_must_return(dx_kicked(x), -EINTR);
		dx_must_rest(x);
		assert_int_equal(rig_v(x, 0)->eng.outstanding, 0);
		dx_must_enter(dx_call(x), PLAT_ENTER);
		rig_after(x, 100 * MS);
		assert_int_equal(x->counts[RIG_IRQ], 0);
		assert_int_equal(rig_v(x, 0)->stats.ready_events, 0);
		dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
		rig_close(x);
	}
}

static void page_ready_follows_once_page_missing_was_taken(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);
	uint32_t token;

	(void)state;
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_IRQ], 0);
	token = rig_take_pf(x, 0);
	/* Between exits a timer looks, soon. */
	rig_after(x, 60 * NS_PER_US);
	assert_int_equal(x->counts[RIG_IRQ], 1);
	assert_int_equal(rig_area(x, 0)->token, token);
	rig_close(x);
}

/* legacy, and pf2 while its register says so, bring page ready by #PF. */
static void page_ready_by_pf_is_taken_back_and_sent_again(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(revs); r++) {
		struct rig *x = dx_open_called(revs[r]);
		uint32_t token;

		if (revs[r] == APF_REV_PF2) {
			(void)dx_wrmsr(x, APF_MSR_EN, rig_en(x, 0) & ~(uint64_t)APF_EN_INT);
			/* Not on top of the instruction that has just exited. */
			dx_must_enter(dx_kicked(x), PLAT_ENTER);
			assert_int_equal(counted(x).wake_alls, 1);
			assert_int_equal(rig_take_pf(x, 0), APF_TOKEN_WAKE_ALL);
		}
		dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
		token = rig_take_pf(x, 0);
		rig_bring(x, 5);
		dx_must_enter(dx_kicked(x), PLAT_ENTER);
		assert_int_equal(x->vcpus[0].untaken, token);
		assert_int_equal(counted(x).ready_events, 0);
		assert_int_equal(counted(x).wake_alls, 1 + (revs[r] == APF_REV_PF2));
		assert_int_equal(rig_area(x, 0)->reason, APF_REASON_READY);
		hst_vcpu_call_back(rig_v(x, 0));
		dx_must_return(dx_kicked(x), -EINTR);
		dx_must_rest(x);
		assert_int_equal(rig_area(x, 0)->reason, 0);
		assert_int_equal(rig_v(x, 0)->eng.ready_len, 1);
		/* The VMM may have changed the CPU state: first that is asked for. */
		dx_must_enter(dx_call(x), PLAT_COMPLETE);
		assert_int_equal(x->vcpus[0].untaken, 0);
		dx_must_enter(dx_kicked(x), PLAT_ENTER);
		assert_int_equal(rig_take_pf(x, 0), token);
		dx_must_enter(dx_kicked(x), PLAT_ENTER);
		assert_int_equal(counted(x).ready_events, 1);
		assert_int_equal(x->traced[APF_TRACE_WITHDRAWN], 0);
		rig_close(x);
	}
}

static void what_the_vmm_did_to_the_cpu_counts(void **state)
{
	struct rig *x = dx_open_called(APF_REV_LEGACY);
	uint32_t token;

	(void)state;
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
	token = rig_take_pf(x, 0);
	hst_vcpu_call_back(rig_v(x, 0));
	dx_must_return(dx_kicked(x), -EINTR);
	rig_bring(x, 5);
	/* Interrupts were on at the last exit; now they are off. */
	x->vcpus[0].cpu.interrupts_on = false;
	dx_must_enter(dx_call(x), PLAT_COMPLETE);
	dx_must_enter(dx_kicked(x), PLAT_ENTER);
	assert_int_equal(x->vcpus[0].untaken, 0);
	x->vcpus[0].cpu.interrupts_on = true;
	dx_must_enter(dx_kicked(x), PLAT_ENTER);
	assert_int_equal(rig_take_pf(x, 0), token);
	rig_close(x);
}

/* pf2-strict: what became ready ends a HLT, at the entry after that question. */
static void a_halt_ends_after_kvm_was_asked_for_the_cpu_state(void **state)
{
	struct rig *x = dx_open_called(APF_REV_PF2_STRICT);

	(void)state;
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
	(void)rig_take_pf(x, 0);
	hst_vcpu_call_back(rig_v(x, 0));
	dx_must_return(dx_kicked(x), -EINTR);
	rig_bring(x, 5);
	x->vcpus[0].apic_off = true;
	dx_must_enter(dx_call(x), PLAT_COMPLETE);
	dx_must_enter(dx_kicked(x), PLAT_ENTER_RUNNABLE);
	rig_close(x);
}

static void a_load_is_there_before_kvm_is_asked_for_the_cpu_state(void **state)
{
	struct rig *x = dx_open_called(APF_REV_LEGACY);
	unsigned char data[8] = {0};
	uint32_t token;

	(void)state;
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
	token = rig_take_pf(x, 0);
	dx_must_wait(dx_io(x, OFF(6), data, 8, false));
	dx_must_return(dx_did(x, 0, HST_DID_WAIT, true), -EINTR);
	rig_bring(x, 5);
	/* Page ready is due and needs the CPU state; KVM would take `data` for the answer. */
	dx_must_wait(dx_call(x));
	rig_bring(x, 6);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_COMPLETE);
	assert_int_equal(data[0], rig_byte(OFF(6)));
	assert_int_equal(x->vcpus[0].untaken, 0);
	dx_must_enter(dx_kicked(x), PLAT_ENTER);
	assert_int_equal(rig_take_pf(x, 0), token);
	rig_close(x);
}

/* ---- reset ---- */

static void a_reset_by_another_thread_reaches_one_that_waits(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);

	(void)state;
	(void)dx_call(x);
	dx_must_wait(dx_fault(x, 5));
	hst_vcpu_reset(rig_v(x, 0));
	assert_int_equal(x->counts[RIG_KICK], 1);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	rig_bring(x, 5);
	rig_close(x);
}

static void a_reset_ends_our_halt(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_STALL);

	(void)state;
	(void)dx_call(x);
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER_HALTED);
	hst_vcpu_reset(rig_v(x, 0));
	assert_int_equal(x->counts[RIG_KICK], 1);
	dx_must_enter(dx_kicked(x), PLAT_ENTER_RUNNABLE);
	dx_must_enter(dx_kicked(x), PLAT_ENTER);
	rig_close(x);
}

static void a_reset_that_nobody_told_of_switches_events_off(void **state)
{
	const struct plat_exit e = {
		.kind = PLAT_EXIT_RDMSR, .msr = {.index = APF_MSR_EN}, .was_reset = true};
	struct rig *x = dx_open_called(APF_REV_INT);

	(void)state;
	x->vcpus[0].msr_value = 1;
	dx_must_enter(dx_exit(x, e), PLAT_ENTER);
	assert_int_equal(x->vcpus[0].msr_value, 0);
	assert_false(eng_enabled(&rig_v(x, 0)->eng));
	rig_close(x);
}

static void a_kernel_that_came_by_init_is_not_told(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);
	const struct plat_exit e = {
		.kind = PLAT_EXIT_FAULT, .roff = {5 << PAGE_SHIFT}, .was_reset = true};

	(void)state;
	dx_must_enter(dx_exit(x, e), PLAT_ENTER_HALTED);
	assert_int_equal(x->counts[RIG_INJECT], 0);
	assert_int_equal(rig_v(x, 0)->stats.stall_why[ENG_NOT_ENABLED], 1);
	assert_int_equal(rig_area(x, 0)->reason, 0);
	assert_int_equal(rig_rdmsr(x, 0, APF_MSR_EN), 0);
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_IRQ], 0);
	rig_close(x);
}

static void an_interrupt_accepted_during_a_stall_is_taken(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);

	(void)state;
	x->vcpus[0].cpu.cpl = 0;
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER_HALTED);
	x->vcpus[0].cpu.event_pending = true;
	dx_must_enter(dx_kicked(x), PLAT_ENTER_RUNNABLE);
	rig_close(x);
}

/* It was about to enter the guest with an event; INIT leaves none, and events are off. */
static void a_reset_by_another_thread_leaves_no_event(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_INT};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(revs); r++)
		for (unsigned called_back = 0; called_back < 2; called_back++) {
			struct rig *x = dx_open_called(revs[r]);

			dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
			assert_int_equal(x->counts[RIG_INJECT], 1);
			hst_vcpu_reset(rig_v(x, 0));
			if (called_back) {
				hst_vcpu_call_back(rig_v(x, 0));
				dx_must_return(dx_kicked(x), -EINTR);
				dx_must_rest(x);
			} else {
				dx_must_enter(dx_kicked(x), PLAT_ENTER);
			}
			assert_int_equal(x->vcpus[0].untaken, 0);
			assert_int_equal(x->counts[RIG_CANCEL_PF], 1);
			rig_close(x);
		}
}

static void a_reset_loses_no_store(void **state)
{
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	unsigned char data[8] = {0x5a};

	(void)state;
	(void)dx_call(x);
	dx_must_wait(dx_io(x, OFF(5), data, 1, true));
	hst_vcpu_reset(rig_v(x, 0));
	dx_must_wait(dx_did(x, 0, HST_DID_WAIT, false));
	rig_bring(x, 5);
	assert_int_equal(x->alias[OFF(5)], 0x5a);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	rig_close(x);
}

/* The rest of it would end in the new life: the platform has KVM finish it, part by part. */
static void what_a_reset_cuts_off_is_over_when_kvm_says_so(void **state)
{
	struct plat_exit part = {.kind = PLAT_EXIT_RAM_IO, .cpu = {.in_instruction = true}};
	struct rig *x = dx_open(HST_FAULTS_BLOCK);
	unsigned char data[8];

	(void)state;
	(void)dx_call(x);
	dx_must_wait(dx_io(x, OFF(5), data, 8, false));
	dx_must_return(dx_did(x, 0, HST_DID_WAIT, true), -EINTR);
	hst_vcpu_reset(rig_v(x, 0));
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_RUN);
	assert_false(hst_vcpu_is_whole(rig_v(x, 0)));
	hst_vcpu_finished(rig_v(x, 0), &part);
	assert_false(hst_vcpu_is_whole(rig_v(x, 0)));
	part.cpu.in_instruction = false;
	hst_vcpu_finished(rig_v(x, 0), &part);
	assert_true(hst_vcpu_is_whole(rig_v(x, 0)));
	dx_must_enter(dx_call(x), PLAT_ENTER);
	rig_close(x);
}

static void one_that_leaves_is_as_new(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);

	(void)state;
	hst_vcpu_call_back(rig_v(x, 0));
	dx_must_return(dx_kicked(x), -EINTR);
	hst_vcpu_call_back(rig_v(x, 0));
	hst_vcpu_detach(rig_v(x, 0));
	assert_false(eng_enabled(&rig_v(x, 0)->eng));
	for (unsigned i = 0; i < HST_KEPT; i++)
		assert_true(rig_v(x, 0)->kept[i] == BLOCK_NONE);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	rig_close(x);
}

/* A vCPU may be restored at its index at once, whatever was on its way for it. */
static void a_save_goes_where_one_has_left(void **state)
{
	struct rig *x = dx_open_called(APF_REV_INT);
	struct hst_vcpu *v = rig_v(x, 0);
	unsigned char saved[1024];
	uint32_t token;
	size_t len;

	(void)state;
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
	token = rig_take_pf(x, 0);
	hst_vcpu_call_back(v);
	dx_must_return(dx_kicked(x), -EINTR);
	assert_true(hst_vcpu_save_bytes(v) <= sizeof(saved));
	len = hst_vcpu_save(v, saved);
	hst_vcpu_detach(v);
	assert_int_equal(v->eng.outstanding, 0);
	assert_true(hst_vcpu_restore(v, saved, len));
	rig_assert_sound(x);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	rig_bring(x, 5);
	assert_int_equal(rig_take_irq(x, 0), token);
	rig_close(x);

	/* Nobody takes its place: the page comes all the same. */
	x = dx_open_called(APF_REV_INT);
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
	hst_vcpu_call_back(rig_v(x, 0));
	(void)rig_take_pf(x, 0);
	dx_must_return(dx_kicked(x), -EINTR);
	hst_vcpu_detach(rig_v(x, 0));
	rig_bring(x, 5);
	assert_true(rig_present(x, 5));
	assert_int_equal(x->h.free_count, x->h.fetch_count);
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_kick_in_the_grace_window_drops_the_fault),
		cmocka_unit_test(a_kick_in_a_stall_drops_the_fault),
		cmocka_unit_test(a_load_waits_through_a_rest_and_is_not_completed_before),
		cmocka_unit_test(a_register_write_waits_through_a_rest_and_takes_effect_once),
		cmocka_unit_test(a_store_is_finished_by_kvm_and_carried_out_at_rest),
		cmocka_unit_test(each_part_of_an_instruction_is_stored_in_its_order),
		cmocka_unit_test(kvm_is_not_asked_for_more_stores_than_there_is_room_for),
		cmocka_unit_test(a_missing_area_is_waited_for_and_can_be_left),
		cmocka_unit_test(a_paused_vm_gives_its_threads_back),
		cmocka_unit_test(so_does_one_that_is_held),
		cmocka_unit_test(page_missing_is_taken_back_and_announced_anew),
		cmocka_unit_test(page_missing_is_taken_back_though_the_page_came),
		cmocka_unit_test(page_ready_follows_once_page_missing_was_taken),
		cmocka_unit_test(page_ready_by_pf_is_taken_back_and_sent_again),
		cmocka_unit_test(what_the_vmm_did_to_the_cpu_counts),
		cmocka_unit_test(a_halt_ends_after_kvm_was_asked_for_the_cpu_state),
		cmocka_unit_test(a_load_is_there_before_kvm_is_asked_for_the_cpu_state),
		cmocka_unit_test(a_reset_by_another_thread_reaches_one_that_waits),
		cmocka_unit_test(a_reset_ends_our_halt),
		cmocka_unit_test(a_reset_that_nobody_told_of_switches_events_off),
		cmocka_unit_test(a_kernel_that_came_by_init_is_not_told),
		cmocka_unit_test(an_interrupt_accepted_during_a_stall_is_taken),
		cmocka_unit_test(a_reset_by_another_thread_leaves_no_event),
		cmocka_unit_test(a_reset_loses_no_store),
		cmocka_unit_test(what_a_reset_cuts_off_is_over_when_kvm_says_so),
		cmocka_unit_test(one_that_leaves_is_as_new),
		cmocka_unit_test(a_save_goes_where_one_has_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
