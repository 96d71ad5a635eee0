/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host/deliver.c: how events reach the guest, and what happens when it is not ready
 * for them.
 */
#include "host_fixture.h"

#define MS NS_PER_MS
#define US NS_PER_US

static const enum apf_rev by_irq[] = {APF_REV_PF2, APF_REV_INT};
static const enum apf_rev all_revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_PF2_STRICT,
					APF_REV_INT};

static uint64_t first_look(const struct rig *x)
{
	return x->h.cfg.rev == APF_REV_INT ? 250 * US : 50 * US;
}

/* ---- one event ---- */

static void page_missing_reaches_the_guest(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(all_revs); r++) {
		struct rig *x = rig_open_on(all_revs[r], 2);

		assert_int_equal(rig_fault_next(x, 1, 9), HST_ENTER);
		uint32_t token = x->vcpus[1].untaken;

		assert_int_equal(token & APF_TOKEN_VCPU_MASK, 1);
		assert_int_equal(rig_area(x, 1)->reason, APF_REASON_MISSING);
		bool whole = all_revs[r] == APF_REV_PF2 || all_revs[r] == APF_REV_PF2_STRICT;

		assert_int_equal(rig_area(x, 1)->token, whole ? token : 0);
		assert_int_equal(rig_area(x, 0)->reason, 0);
		/* The read was sent off before the guest runs on. */
		assert_true(rig_nth(x, RIG_READ, 0) < rig_nth(x, RIG_INJECT, 0));
		assert_int_equal(rig_v(x, 1)->stats.missing_events, 1);
		assert_true(rig_v(x, 1)->cpu.event_pending);
		rig_take_pf(x, 1);
		rig_bring(x, 9);
		rig_close(x);
	}
}

static void page_ready_follows_from_whichever_thread(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(by_irq); r++) {
		struct rig *x = rig_open_on(by_irq[r], 1);
		uint32_t token = rig_sleeper(x, 0, 9);

		rig_log_clear(x);
		rig_bring(x, 9);
		/* The guest is running, and is not disturbed: an interrupt needs no exit. */
		assert_int_equal(x->counts[RIG_KICK], 0);
		assert_int_equal(x->counts[RIG_IRQ], 1);
		assert_int_equal(rig_entry(x, RIG_IRQ, 0)->a, RIG_VECTOR);
		assert_int_equal(rig_area(x, 0)->token, token);
		assert_int_equal(rig_area(x, 0)->reason,
				 by_irq[r] == APF_REV_INT ? 0 : APF_REASON_READY);
		assert_int_equal(rig_take_ready(x, 0), token);
		assert_int_equal(rig_v(x, 0)->stats.ready_events, 1);
		assert_int_equal(rig_v(x, 0)->eng.outstanding, 0);
		assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
		rig_close(x);
	}
}

static void legacy_ready_needs_the_vcpu_thread(void **state)
{
	struct rig *x = rig_open_on(APF_REV_LEGACY, 1);
	uint32_t token = rig_sleeper(x, 0, 9);

	(void)state;
	rig_bring(x, 9);
	assert_int_equal(x->counts[RIG_INJECT], 1); /* the page missing */
	assert_int_equal(x->counts[RIG_KICK], 1);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(x->counts[RIG_INJECT], 2);
	assert_int_equal(rig_area(x, 0)->reason, APF_REASON_READY);
	assert_int_equal(rig_take_pf(x, 0), token);
	rig_close(x);
}

static void legacy_takes_back_what_the_guest_has_not_seen(void **state)
{
	struct rig *x = rig_open_on(APF_REV_LEGACY, 1);

	(void)state;
	assert_int_equal(rig_fault_next(x, 0, 9), HST_ENTER);
	rig_bring(x, 9);
	rig_exit(x, 0, true); /* the kick came before the guest did anything */
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(x->counts[RIG_CANCEL_PF], 1);
	assert_int_equal(x->traced[APF_TRACE_TOLD], 1);
	assert_int_equal(x->traced[APF_TRACE_WITHDRAWN], 1);
	assert_int_equal(rig_area(x, 0)->reason, 0);
	assert_int_equal(x->vcpus[0].untaken, 0);
	assert_false(rig_v(x, 0)->cpu.event_pending);
	assert_int_equal(rig_v(x, 0)->eng.outstanding, 0);
	assert_int_equal(rig_v(x, 0)->stats.ready_events, 0);
	rig_close(x);
}

static void legacy_waits_while_the_cpu_cannot_take_it(void **state)
{
	struct rig *x = rig_open_on(APF_REV_LEGACY, 1);
	uint32_t token = rig_sleeper(x, 0, 9);
	uint64_t interval = 50 * US;

	(void)state;
	x->vcpus[0].cpu.interrupts_on = false;
	rig_bring(x, 9);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	/* IF=1 is no exit: somebody has to look, and needs the vCPU thread for it. */
	for (unsigned i = 0; i < 4; i++, interval *= 2) {
		unsigned kicks = x->counts[RIG_KICK];

		assert_int_equal(timers_next_ns(&x->h.timers), x->now + interval);
		rig_after(x, interval);
		assert_int_equal(x->counts[RIG_KICK], kicks + 1);
		rig_exit(x, 0, true);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
	}
	x->vcpus[0].cpu.interrupts_on = true;
	rig_after(x, interval);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_take_pf(x, 0), token);
	assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
	rig_close(x);
}

/* ---- the slot is not free ---- */

/* Sleepers on this block and the next, which come. Returns the second one's token. */
static uint32_t bring_two(struct rig *x, unsigned block)
{
	uint32_t second;

	rig_sleeper(x, 0, block);
	second = rig_sleeper(x, 0, block + 1);
	rig_bring(x, block);
	rig_bring(x, block + 1);
	return second;
}

/* Two sleepers; the first one's event is in the slot, the second one's is due. */
static struct rig *open_two(enum apf_rev rev, uint32_t *ret_second)
{
	struct rig *x = rig_open_on(rev, 1);

	*ret_second = bring_two(x, 9);
	assert_int_equal(x->counts[RIG_IRQ], 1);
	assert_int_equal(rig_v(x, 0)->eng.ready_len, 1);
	return x;
}

static void the_next_event_waits_for_the_slot(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(by_irq); r++) {
		uint32_t second;
		struct rig *x = open_two(by_irq[r], &second);

		rig_take_ready(x, 0); /* any exit brings the next */
		assert_int_equal(x->counts[RIG_IRQ], 2);
		assert_int_equal(rig_take_ready(x, 0), second);
		assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
		rig_close(x);
	}
}

static void pf2_slot_freed_by_a_plain_write_is_noticed(void **state)
{
	uint32_t second;
	struct rig *x = open_two(APF_REV_PF2, &second);

	(void)state;
	rig_take_irq(x, 0); /* no exit */
	assert_int_equal(x->counts[RIG_IRQ], 1);
	rig_after(x, 50 * US);
	assert_int_equal(x->counts[RIG_IRQ], 2);
	assert_int_equal(x->counts[RIG_KICK], 0);
	assert_int_equal(rig_v(x, 0)->stats.rechecks, 1);
	assert_int_equal(rig_take_irq(x, 0), second);
	rig_close(x);
	/* Or by any exit, before the timer. */
	x = open_two(APF_REV_PF2, &second);
	rig_take_irq(x, 0);
	rig_pass(x, 0);
	assert_int_equal(rig_take_irq(x, 0), second);
	assert_int_equal(rig_v(x, 0)->stats.rechecks, 0);
	rig_close(x);
}

static void looks_double_and_are_bounded(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(by_irq); r++) {
		uint32_t second;
		struct rig *x = open_two(by_irq[r], &second);
		uint64_t interval = first_look(x), late;

		for (unsigned i = 0; i < 20; i++) {
			assert_int_equal(timers_next_ns(&x->h.timers), x->now + interval);
			rig_after(x, interval);
			assert_int_equal(rig_v(x, 0)->stats.rechecks, i + 1);
			interval = min_u64(interval * 2, 50 * MS);
		}
		/* An exit in between neither adds a look nor starts the series afresh. */
		late = timers_next_ns(&x->h.timers);
		rig_pass(x, 0);
		assert_int_equal(timers_next_ns(&x->h.timers), late);
		rig_take_ready(x, 0);
		assert_int_equal(rig_take_ready(x, 0), second);
		/* Once an event went out, the series starts afresh. */
		bring_two(x, 11);
		assert_true(timers_next_ns(&x->h.timers) <= x->now + 2 * first_look(x));
		rig_close(x);
	}
}

/* int: deadlines that go away wake the thread for nothing, so there are fewer. */
static void looks_come_later_where_exits_do(void **state)
{
	static const uint64_t first[] = {250 * US, 500 * US, 1 * MS, 2 * MS, 2 * MS};
	struct rig *x = rig_open_on(APF_REV_INT, 1);
	unsigned block = 9;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(first); i++, block += 2) {
		bring_two(x, block);
		assert_int_equal(timers_next_ns(&x->h.timers), x->now + first[i]);
		rig_take_ready(x, 0); /* an exit */
		rig_take_ready(x, 0);
		assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
	}
	/* One that was needed: as at first. */
	bring_two(x, block);
	rig_take_irq(x, 0); /* no exit */
	rig_after(x, 2 * MS);
	rig_take_ready(x, 0);
	bring_two(x, block + 2);
	assert_int_equal(timers_next_ns(&x->h.timers), x->now + 250 * US);
	rig_close(x);
}

/* KVM keeps it to itself; and one that comes after all tells nothing new. */
static void a_free_slot_needs_no_acknowledgement(void **state)
{
	uint32_t second;
	struct rig *x = open_two(APF_REV_INT, &second);

	(void)state;
	rig_wrmsr(x, 0, APF_MSR_ACK, APF_ACK_READY); /* too early */
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(x->counts[RIG_IRQ], 1);
	rig_take_irq(x, 0);
	rig_pass(x, 0);
	assert_int_equal(x->counts[RIG_IRQ], 2);
	assert_int_equal(rig_take_irq(x, 0), second);
	rig_close(x);
}

/* ---- the local APIC refuses (B5) ---- */

static void a_refused_event_is_taken_back_and_due_again(void **state)
{
	static const int answers[] = {0, -EIO};

	(void)state;
	for (unsigned r = 0; r < 2 * ARRAY_LEN(by_irq); r++) {
		struct rig *x = rig_open_on(by_irq[r / 2], 1);
		uint32_t token = rig_sleeper(x, 0, 9);

		x->vcpus[0].apic_off = true;
		x->vcpus[0].irq_rc = answers[r % 2];
		rig_bring(x, 9);
		assert_int_equal(x->counts[RIG_IRQ], 1);
		assert_int_equal(rig_area(x, 0)->token, 0);
		assert_int_equal(rig_area(x, 0)->reason, 0);
		assert_int_equal(rig_v(x, 0)->eng.ready_len, 1);
		assert_int_equal(rig_v(x, 0)->stats.ready_refused, 1);
		rig_after(x, first_look(x));
		rig_pass(x, 0);
		assert_int_equal(rig_v(x, 0)->stats.ready_refused, 3);
		assert_int_equal(rig_v(x, 0)->stats.ready_events, 0);
		x->vcpus[0].apic_off = false; /* no exit tells */
		rig_after(x, 2 * first_look(x));
		assert_int_equal(rig_take_ready(x, 0), token);
		assert_int_equal(rig_v(x, 0)->stats.ready_events, 1);
		rig_close(x);
	}
}

/* As somebody who copies memory takes it at each word of ours. */
static struct apf_area copied;

static void copy_area(void *ctx, gpa_t gpa, uint64_t bytes)
{
	(void)gpa;
	assert_int_equal(bytes, 8);
	memcpy(&copied, rig_area(ctx, 0), sizeof(copied));
}

static void what_is_in_the_slot_is_told(void **state)
{
	(void)state;
	for (unsigned r = 0; r < 2 * ARRAY_LEN(by_irq); r++) {
		struct rig *x = rig_open_on(by_irq[r / 2], 1);

		memcpy(&copied, rig_area(x, 0), sizeof(copied));
		x->h.hooks.ctx = x;
		x->h.hooks.wrote = copy_area;
		assert_int_equal(rig_fault_next(x, 0, 9), HST_ENTER);
		assert_memory_equal(&copied, rig_area(x, 0), sizeof(copied));
		assert_int_not_equal(copied.reason, 0);
		(void)rig_take_pf(x, 0);
		memcpy(&copied, rig_area(x, 0), sizeof(copied));
		/* The last word counts, also where a token is taken back. */
		x->vcpus[0].apic_off = r % 2;
		rig_bring(x, 9);
		assert_memory_equal(&copied, rig_area(x, 0), sizeof(copied));
		assert_int_equal(rig_slot_full(x, 0), r % 2 == 0);
		x->h.hooks.wrote = NULL;
		rig_close(x);
	}
}

static void a_refused_event_that_the_guest_took_is_sent(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(by_irq); r++) {
		struct rig *x = rig_open_on(by_irq[r], 1);

		rig_sleeper(x, 0, 9);
		x->vcpus[0].apic_off = true;
		x->on_refusal = rig_slot_free;
		rig_bring(x, 9);
		assert_int_equal(rig_v(x, 0)->eng.ready_len, 0);
		assert_int_equal(rig_v(x, 0)->stats.ready_events, 1);
		rig_after(x, NS_PER_S);
		rig_pass(x, 0);
		assert_int_equal(x->counts[RIG_IRQ], 1); /* never a second time */
		rig_close(x);
	}
}

/* ---- order, number, end of life ---- */

static void two_tasks_on_one_page_get_two_tokens(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(all_revs); r++) {
		struct rig *x = rig_open_on(all_revs[r], 1);
		uint32_t a = rig_sleeper(x, 0, 9);
		uint32_t b = rig_sleeper(x, 0, 9);

		assert_int_not_equal(a, b);
		assert_int_equal(x->counts[RIG_READ], 1);
		rig_bring(x, 9);
		if (!rig_by_irq(x) || all_revs[r] == APF_REV_PF2_STRICT)
			rig_pass(x, 0);
		assert_int_equal(rig_take_ready(x, 0), a);
		assert_int_equal(rig_take_ready(x, 0), b);
		assert_int_equal(rig_v(x, 0)->stats.joined, 1);
		assert_int_equal(rig_v(x, 0)->stats.ready_events, 2);
		rig_close(x);
	}
}

static void events_come_in_order_of_completion(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);
	uint32_t a = rig_sleeper(x, 0, 9), b = rig_sleeper(x, 0, 10), c = rig_sleeper(x, 0, 11);

	(void)state;
	rig_bring(x, 11);
	rig_bring(x, 9);
	rig_bring(x, 10);
	assert_int_equal(rig_take_ready(x, 0), c);
	assert_int_equal(rig_take_ready(x, 0), a);
	assert_int_equal(rig_take_ready(x, 0), b);
	rig_close(x);
}

static void each_vcpu_hears_of_its_own(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 2);
	uint32_t a = rig_sleeper(x, 0, 9), b = rig_sleeper(x, 1, 9);

	(void)state;
	assert_int_equal(x->counts[RIG_READ], 1);
	rig_bring(x, 9);
	assert_int_equal(rig_take_ready(x, 1), b);
	assert_int_equal(rig_take_ready(x, 0), a);
	rig_close(x);
}

static void disable_and_reset_release_and_ignore_what_comes_late(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2 * ARRAY_LEN(all_revs); i++) {
		struct rig *x = rig_open_on(all_revs[i / 2], 1);

		rig_sleeper(x, 0, 9);
		rig_sleeper(x, 0, 10);
		rig_bring(x, 10); /* its event is sent, or due */
		if (i % 2)
			hst_vcpu_reset(rig_v(x, 0));
		else
			rig_wrmsr_ok(x, 0, APF_MSR_EN, 0);
		memset(rig_area(x, 0), 0, sizeof(struct apf_area));
		rig_log_clear(x);
		rig_bring(x, 9);
		rig_pass(x, 0);
		rig_after(x, NS_PER_S);
		rig_pass(x, 0);
		assert_int_equal(x->counts[RIG_IRQ] + x->counts[RIG_INJECT], 0);
		assert_int_equal(rig_area(x, 0)->reason, 0);
		assert_int_equal(rig_area(x, 0)->token, 0);
		assert_int_equal(rig_v(x, 0)->eng.outstanding, 0);
		assert_int_equal(rig_v(x, 0)->stats.ready_late, 1);
		assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
		rig_close(x);
	}
}

/* ---- a vCPU that stands still is not written to ---- */

static void a_paused_vm_gets_no_event(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(by_irq); r++) {
		struct rig *x = rig_open_on(by_irq[r], 1);
		uint32_t token = rig_sleeper(x, 0, 9);

		hst_pause(&x->h);
		rig_exit(x, 0, true);
		assert_int_equal(rig_next(x, 0), HST_WAIT);
		/* Whoever saves a paused VM must find slot, APIC and engine in agreement. */
		rig_bring(x, 9);
		rig_after(x, NS_PER_S);
		assert_int_equal(x->counts[RIG_IRQ], 0);
		assert_false(rig_slot_full(x, 0));
		assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
		hst_resume(&x->h);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
		assert_int_equal(rig_take_ready(x, 0), token);
		rig_close(x);
	}
}

/* ---- save and restore ---- */

/* A second machine with the same RAM content as saved: only the area's page is there. */
static struct rig *restored(struct rig *from, bool area_present)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, from->h.cfg.rev);
	struct rig *x = rig_open(&cfg);
	unsigned char buf[1024];
	size_t len = hst_vcpu_save_bytes(rig_v(from, 0));

	assert_true(len <= sizeof(buf));
	len = hst_vcpu_save(rig_v(from, 0), buf);
	if (area_present) {
		rig_populate(x, RIG_AREA_PAGE);
		*rig_area(x, 0) = *rig_area(from, 0);
	}
	assert_false(hst_vcpu_restore(rig_v(x, 0), buf, len - 1));
	assert_int_equal(x->src.count, 0);
	rig_log_clear(x);
	assert_true(hst_vcpu_restore(rig_v(x, 0), buf, len));
	return x;
}

static void restore_fetches_what_was_awaited(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(by_irq); r++) {
		struct rig *from = rig_open_on(by_irq[r], 1);
		uint32_t a = rig_sleeper(from, 0, 9), b = rig_sleeper(from, 0, 10);
		uint32_t c = rig_sleeper(from, 0, 11);

		rig_bring(from, 9); /* a is in the slot, c is due */
		rig_bring(from, 11);
		struct rig *x = restored(from, true);

		assert_int_equal(x->counts[RIG_READ], 1);
		assert_int_equal(rig_entry(x, RIG_READ, 0)->a, 10 * PAGE_BYTES);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
		assert_int_equal(x->counts[RIG_IRQ], 0); /* the slot is full, as it was saved */
		x->vcpus[0].irr = true;			/* so was the interrupt */
		assert_int_equal(rig_take_ready(x, 0), a);
		assert_int_equal(rig_take_ready(x, 0), c);
		rig_bring(x, 10);
		assert_int_equal(rig_take_ready(x, 0), b);
		assert_int_equal(rig_v(x, 0)->eng.outstanding, 0);
		rig_free(from);
		rig_close(x);
	}
}

static void restore_finds_pages_that_are_there(void **state)
{
	struct rig *from = rig_open_on(APF_REV_INT, 1);
	uint32_t a = rig_sleeper(from, 0, 9);
	unsigned char buf[1024];
	size_t len = hst_vcpu_save(rig_v(from, 0), buf);
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_INT);
	struct rig *x = rig_open(&cfg);

	(void)state;
	rig_populate(x, RIG_AREA_PAGE);
	rig_populate(x, 9);
	rig_area(x, 0)->token = 0;
	rig_area(x, 0)->reason = 0;
	rig_log_clear(x);
	assert_true(hst_vcpu_restore(rig_v(x, 0), buf, len));
	assert_int_equal(x->counts[RIG_READ], 0);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_take_ready(x, 0), a);
	rig_free(from);
	rig_close(x);
}

static void restore_survives_a_page_that_is_no_ram(void **state)
{
	struct rig *from = rig_open_on(APF_REV_INT, 1);
	uint32_t a = rig_sleeper(from, 0, 9);

	(void)state;
	rig_v(from, 0)->eng.faults[eng_first_waiting(&rig_v(from, 0)->eng)].gfn =
		0xfffffffffffffull;
	struct rig *x = restored(from, true);

	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_take_ready(x, 0), a); /* the guest retries and finds out */
	rig_free(from);
	rig_close(x);
}

static void an_absent_area_is_fetched_before_anything_is_delivered(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(all_revs); r++) {
		struct rig *from = rig_open_on(all_revs[r], 1);
		uint32_t a = rig_sleeper(from, 0, 9);
		struct rig *x = restored(from, false);

		/* The guest does not run before. The saved RAM: the slot is free. */
		assert_int_equal(rig_next(x, 0), HST_WAIT);
		assert_int_equal(x->counts[RIG_READ], 2);
		rig_bring(x, 9);
		assert_int_equal(x->counts[RIG_IRQ] + x->counts[RIG_INJECT], 0);
		assert_int_equal(rig_v(x, 0)->eng.ready_len, 1); /* held, not dropped */
		rig_answer(x, rig_read_at(x, 0), 0);
		memset(rig_area(x, 0), 0, sizeof(struct apf_area));
		rig_pump(x);
		rig_enters(x, 0);
		rig_after(x, 2 * first_look(x));
		if (!rig_by_irq(x) || all_revs[r] == APF_REV_PF2_STRICT)
			rig_pass(x, 0);
		assert_int_equal(rig_take_ready(x, 0), a);
		assert_int_equal(x->counts[RIG_READ], 2);
		rig_free(from);
		rig_close(x);
	}
}

static void an_area_that_does_not_come_is_no_storm(void **state)
{
	struct rig *from = rig_open_on(APF_REV_PF2, 1);
	struct rig *x = restored(from, false);
	unsigned fired = 0;

	(void)state;
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	for (uint64_t end = x->now + NS_PER_S; x->now < end; fired++)
		rig_after(x, timers_next_ns(&x->h.timers) - x->now);
	assert_true(fired < 40);
	rig_free(from);
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(page_missing_reaches_the_guest),
		cmocka_unit_test(page_ready_follows_from_whichever_thread),
		cmocka_unit_test(legacy_ready_needs_the_vcpu_thread),
		cmocka_unit_test(legacy_takes_back_what_the_guest_has_not_seen),
		cmocka_unit_test(legacy_waits_while_the_cpu_cannot_take_it),
		cmocka_unit_test(the_next_event_waits_for_the_slot),
		cmocka_unit_test(pf2_slot_freed_by_a_plain_write_is_noticed),
		cmocka_unit_test(looks_double_and_are_bounded),
		cmocka_unit_test(looks_come_later_where_exits_do),
		cmocka_unit_test(a_free_slot_needs_no_acknowledgement),
		cmocka_unit_test(a_refused_event_is_taken_back_and_due_again),
		cmocka_unit_test(what_is_in_the_slot_is_told),
		cmocka_unit_test(a_refused_event_that_the_guest_took_is_sent),
		cmocka_unit_test(two_tasks_on_one_page_get_two_tokens),
		cmocka_unit_test(events_come_in_order_of_completion),
		cmocka_unit_test(each_vcpu_hears_of_its_own),
		cmocka_unit_test(disable_and_reset_release_and_ignore_what_comes_late),
		cmocka_unit_test(a_paused_vm_gets_no_event),
		cmocka_unit_test(restore_fetches_what_was_awaited),
		cmocka_unit_test(restore_finds_pages_that_are_there),
		cmocka_unit_test(restore_survives_a_page_that_is_no_ram),
		cmocka_unit_test(an_absent_area_is_fetched_before_anything_is_delivered),
		cmocka_unit_test(an_area_that_does_not_come_is_no_storm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
