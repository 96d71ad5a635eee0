/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page ready: the slot, the acknowledgement, when it may come, that each page-missing has
 * exactly one, and what becomes of it when the guest changes its mind.
 */
#include "kernel.h"

#define TASKS 8u
#define ROUNDS 4u
#define TRIES 8u
#define TIMER_TICKS 0x8000000 /* a watchdog for HLT: minutes */
#define LATE_TICKS 60000 /* of 128 ns or so: in the midst of a page's time */
#define LATE_PAGES 3u
#define LATE_TRIES 4u /* a wake-all lets it touch the page too early */

/* n tasks wait, each for a page of its own. */
static const char *miss_many(struct task *t, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		TRY(task_miss(&t[i]));
	return NULL;
}

static const char *finish_many(struct task *t, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		TRY(task_finish(&t[i]));
	return NULL;
}

/* How often a token became ready. */
static unsigned times_ready(uint32_t token)
{
	unsigned n = 0;

	for (unsigned i = 0; i < log.count && i < EVENTS_MAX; i++)
		n += log.events[i].kind == EVENT_READY && log.events[i].token == token;
	return n;
}

static const char *once(uint64_t arg)
{
	struct task t[TASKS];

	(void)arg;
	TRY(apf_on(&areas[0]));
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned before = log.of[EVENT_READY];

		TRY(miss_many(t, TASKS));
		EXPECT(await(EVENT_READY, before + TASKS),
		       "%u waited, %u became ready; the area holds %x %x; %u empty interrupts",
		       U(TASKS), U(log.of[EVENT_READY] - before), U(load(&apf.area->reason)),
		       U(load(&apf.area->token)), U(log.of[EVENT_EMPTY]));
		for (unsigned i = 0; i < TASKS; i++)
			EXPECT(times_ready(t[i].token) == 1, "token %x was ready %u times",
			       U(t[i].token), U(times_ready(t[i].token)));
		TRY(finish_many(t, TASKS));
	}
	quiet(true);
	EXPECT(log.of[EVENT_READY] == log.of[EVENT_MISSING], "%u page-missing, %u page-ready",
	       U(log.of[EVENT_MISSING]), U(log.of[EVENT_READY]));
	EXPECT(ledger_waiting() == 0, "%u tokens are out", U(ledger_waiting()));
	return NULL;
}

/*
 * Two tasks wait and neither page is ready yet. A source that is fast may need several
 * tries, and one that is very fast is no use here.
 */
static const char *two_missing(struct task *t)
{
	for (unsigned i = 0; i < TRIES; i++) {
		unsigned before = log.of[EVENT_READY];

		TRY(miss_many(t, 2));
		if (log.of[EVENT_READY] == before && slot_token() == 0)
			return NULL;
		EXPECT(await(EVENT_READY, before + 2), "two waited, %u became ready",
		       U(log.of[EVENT_READY] - before));
		TRY(finish_many(t, 2));
	}
	return skips("absent pages come too soon to wait for two at once");
}

/* Two pages are ready and the first token is not taken: it is in the slot. */
static const char *two_ready(struct task *t)
{
	unsigned before;
	uint32_t token;

	TRY(apf_on(&areas[0]));
	TRY(two_missing(t));
	before = log.of[EVENT_READY];
	apf.take = false;
	EXPECT(await(EVENT_READY, before + 1), "no page-ready came");
	token = slot_token();
	quiet(true);
	EXPECT(slot_token() == token, "the slot held %x, now %x", U(token), U(slot_token()));
	EXPECT(log.of[EVENT_READY] == before + 1, "%u events came",
	       U(log.of[EVENT_READY] - before));
	return NULL;
}

/* Behind two_ready: frees the slot. */
static const char *second_comes(struct task *t, bool acknowledge, const char *otherwise)
{
	unsigned n = log.of[EVENT_READY] + 1;

	apf.take = true;
	slot_free();
	if (acknowledge)
		apf_ack();
	EXPECT(await(EVENT_READY, n), "%s", otherwise);
	return finish_many(t, 2);
}

static const char *held(uint64_t arg)
{
	struct task t[2];

	(void)arg;
	TRY(two_ready(t));
	return second_comes(t, true, "it did not come when the slot was free");
}

/* The acknowledgement comes too early: nothing is overwritten, and nothing lost by it. */
static const char *ack_early(uint64_t arg)
{
	uint32_t token;
	struct task t[2];

	(void)arg;
	TRY(two_ready(t));
	token = slot_token();
	apf_ack();
	quiet(true);
	EXPECT(slot_token() == token, "the slot held %x, now %x", U(token), U(slot_token()));
	return second_comes(t, true, "it did not come after another acknowledgement");
}

/* The slot is freed and never acknowledged, or before it was freed (arg). */
static const char *ack_missing(uint64_t early)
{
	struct task t[2];

	TRY(two_ready(t));
	if (early)
		apf_ack();
	return second_comes(t, false, "it never came");
}

/* IF is 0 when the page becomes ready. */
static const char *masked(uint64_t arg)
{
	struct task t;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&t));
	EXPECT(await_slot(), "nothing was written while IF was 0");
	EXPECT(log.of[EVENT_READY] == 0, "it was delivered with IF 0");
	EXPECT(await(EVENT_READY, 1), "it did not come with IF 1");
	return task_finish(&t);
}

static const char *masked_pf(uint64_t arg)
{
	struct task t;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&t));
	quiet(false);
	EXPECT(log.of[EVENT_READY] == 0, "it was delivered with IF 0");
	EXPECT(await(EVENT_READY, 1), "it did not come with IF 1");
	return task_finish(&t);
}

/* While a page-ready is in the slot and its interrupt masked, a real fault is real. */
static const char *real_fault(uint64_t arg)
{
	struct task t, u;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&t));
	quiet(false);
	task_load(&u, USER_HOLE, false);
	EXPECT(task_run(&u) == TASK_FAULT, "it was taken for an event");
	EXPECT(u.address == USER_HOLE && (u.frame.error & 4), "CR2 %x, error code %x", u.address,
	       u.frame.error);
	EXPECT(await(EVENT_READY, 1), "the page-ready was lost");
	return task_finish(&t);
}

/* The processor halts until the event. A HLT may end without one, so: again. */
static const char *halted(uint64_t arg)
{
	struct task t;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&t));
	wrmsr(MSR_X2APIC_TMICT, TIMER_TICKS);
	while (log.of[EVENT_READY] == 0 && log.timer_count == 0)
		halt();
	EXPECT(log.of[EVENT_READY] == 1, "the timer ended the halt, not the page-ready");
	return task_finish(&t);
}

/* Until every token that is out has had its end. */
static bool await_ends(void)
{
	uint64_t deadline = rdtsc() + apf.patience_ticks;

	irq_on();
	while (ledger_waiting() > 0 && rdtsc() < deadline)
		pause();
	irq_off();
	return ledger_waiting() == 0;
}

/*
 * Events are off at a touch, and on when its page comes: its processor was just halted. The touch
 * may be made again in between, and be announced then. A page ready for anything else is the
 * ledger's to find.
 */
static const char *untold(uint64_t arg)
{
	(void)arg;
	for (unsigned i = 0; i < LATE_PAGES; i++) {
		uint64_t page = absent_page();
		struct task t;

		if (!page)
			return skips("the absent memory is used up");
		apf_off();
		areas[0] = (struct apf_area){0};
		apf.area = &areas[0];
		apf.on_at_timer = true;
		task_load(&t, page, true);
		wrmsr(MSR_X2APIC_TMICT, LATE_TICKS);
		for (unsigned k = 0; k < LATE_TRIES && task_run(&t) == TASK_MISSING; k++)
			EXPECT(await_ends(), "an event without an end");
		EXPECT(!setup.stamped || t.value == page, "the page at %x holds %x", page,
		       t.value);
		quiet(true);
		EXPECT(!apf.on_at_timer, "the timer did not fire");
	}
	return NULL;
}

static const char *at_user(uint64_t arg)
{
	uint32_t before;
	struct task t, spin;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&t));
	before = log.of[EVENT_READY];
	task_spin(&spin, &log.of[EVENT_READY]);
	EXPECT(task_run(&spin) == TASK_DONE, "the spinning task met an event of its own");
	EXPECT(before == 0 && log.of[EVENT_READY] == 1, "%u events", U(log.of[EVENT_READY]));
	EXPECT(log_find(EVENT_READY, 0)->user, "it did not interrupt CPL 3");
	return task_finish(&t);
}

static bool set_vector(uint8_t vector)
{
	apf.vector_before = apf.vector;
	apf.vector = vector;
	return !wrmsr_safe(APF_MSR_CTL, vector | (apf_is_pf2() ? APF_PF2_ENABLED : 0));
}

/* pf2: the write sends a wake-all of its own, which releases the tasks. */
static const char *vector_pf2(uint64_t arg)
{
	struct task t;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&t));
	EXPECT(set_vector(OTHER_VECTOR), "#GP on writing CTL");
	EXPECT(await(EVENT_WAKE_ALL, 2), "no wake-all came on the new vector");
	EXPECT(log_find(EVENT_WAKE_ALL, 1)->vector == OTHER_VECTOR, "vector %u",
	       U(log_find(EVENT_WAKE_ALL, 1)->vector));
	return NULL;
}

/* The vector that is set when the token is written, not when the page was touched. */
static const char *vector(uint64_t arg)
{
	(void)arg;
	TRY(apf_on(&areas[0]));
	for (unsigned i = 0; i < TRIES; i++) {
		unsigned n = log.of[EVENT_READY];
		struct task t;
		bool early;

		TRY(task_miss(&t));
		EXPECT(set_vector(i % 2 ? READY_VECTOR : OTHER_VECTOR), "#GP on writing CTL");
		early = slot_token() != 0; /* it may have been raised on the old one */
		EXPECT(await(EVENT_READY, n + 1), "no page-ready came");
		TRY(task_finish(&t));
		if (!early)
			return log_find(EVENT_READY, n)->vector == apf.vector
				       ? NULL : fails("it came on the old vector");
	}
	return skips("absent pages come too soon to change the vector meanwhile");
}

/* ---- the guest changes its mind with faults in flight ---- */

static const char *disable_in_flight(uint64_t arg)
{
	struct task t;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&t));
	EXPECT(!wrmsr_safe(APF_MSR_EN, 0), "#GP on disabling");
	/* Until then it may have been written; and pf2 leaves the token there. */
	areas[0] = (struct apf_area){0};
	quiet(true);
	EXPECT(load(&areas[0].reason) == 0 && load(&areas[0].token) == 0,
	       "the area was written: %x %x", U(areas[0].reason), U(areas[0].token));
	EXPECT(log.of[EVENT_READY] == 0, "a page-ready came");
	ledger_off();
	/* Nobody tells the task: the guest runs it again. */
	TRY(task_finish(&t));
	TRY(apf_on(&areas[1]));
	quiet(true);
	EXPECT(log.of[EVENT_READY] == 0, "the old token came after registering again");
	return NULL;
}

/* Another area: what is in flight ends there, by its token or by the wake-all. */
static const char *move_in_flight(uint64_t arg)
{
	struct task t;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&t));
	apf.area = &areas[1];
	EXPECT(!wrmsr_safe(APF_MSR_EN, apf_en(&areas[1])), "#GP on writing EN");
	/* Until then it may have been written. */
	areas[0] = (struct apf_area){0};
	EXPECT(await(EVENT_WAKE_ALL, 2), "no wake-all came in the new area");
	quiet(true);
	EXPECT(ledger_waiting() == 0, "the task was not released");
	EXPECT(load(&areas[0].reason) == 0 && load(&areas[0].token) == 0,
	       "the old area was written");
	EXPECT(times_ready(t.token) <= 1, "its token came %u times", U(times_ready(t.token)));
	return task_finish(&t);
}

/* ---- pf2: CTL.8 is the switch of page-ready alone ---- */

/* arg: CTL.8 is cleared behind the wake-all, or has never been set. */
static const char *ctl_off(uint64_t cleared)
{
	unsigned wake_alls;
	struct task t;

	if (cleared) {
		TRY(apf_on(&areas[0]));
		EXPECT(!wrmsr_safe(APF_MSR_CTL, READY_VECTOR), "#GP on clearing CTL.8");
	} else {
		EXPECT(!wrmsr_safe(APF_MSR_EN, apf_en(&areas[0])), "#GP on writing EN");
	}
	wake_alls = log.of[EVENT_WAKE_ALL];
	TRY(task_miss(&t));
	quiet(true);
	EXPECT(slot_token() == 0, "token %x is in the slot, and no interrupt told so",
	       U(slot_token()));
	EXPECT(log.of[EVENT_READY] == 0, "an interrupt came");
	EXPECT(!wrmsr_safe(APF_MSR_CTL, READY_VECTOR | APF_PF2_ENABLED), "#GP on setting CTL.8");
	EXPECT(await(EVENT_WAKE_ALL, wake_alls + 1), "no wake-all came when CTL.8 was set");
	EXPECT(ledger_waiting() == 0, "the task was not released");
	return task_finish(&t);
}

/* With EN.3 clear the interrupt is not used at all. */
static const char *by_fault(uint64_t arg)
{
	const struct event *e;
	struct task t;

	(void)arg;
	apf.by_fault = true;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&t));
	EXPECT(await(EVENT_READY, 1), "no page-ready came");
	e = log_find(EVENT_READY, 0);
	EXPECT(e->vector == APF_PF_VECTOR && e->cr2 == t.token, "vector %u, CR2 %x, not %x",
	       U(e->vector), e->cr2, U(t.token));
	EXPECT(e->word[1] == t.token, "the token word was %x", U(e->word[1]));
	return task_finish(&t);
}

static const struct check checks[] = {
	{"ready.once", "each page-missing is followed by exactly one page-ready", ALL_REVS, once,
	 0, true},
	{"ready.held", "a token that is not taken is not overwritten, the next comes after it",
	 BY_IRQ, held, 0, true},
	{"ready.ack-early", "an acknowledgement before the slot is free changes nothing", REV(INT),
	 ack_early, 0, true},
	{"ready.ack-never", "the next comes even if nobody acknowledges", REV(INT), ack_missing,
	 false, true},
	{"ready.ack-before", "the next comes even if the acknowledgement was before the slot",
	 REV(INT), ack_missing, true, true},
	{"ready.masked", "with IF 0 the slot is filled, and the interrupt waits", BY_IRQ, masked, 0,
	 true},
	{"ready.masked", "with IF 0 the event waits", REV(LEGACY), masked_pf, 0, true},
	{"ready.real-fault", "a real page fault while one is due is real, and it is not lost",
	 ALL_REVS, real_fault, 0, true},
	{"ready.halted", "it ends a HLT", ALL_REVS, halted, 0, true},
	{"ready.untold", "none for what was not announced, if events are on when its page comes",
	 ALL_REVS, untold, 0, true},
	{"ready.user", "it interrupts CPL 3", ALL_REVS, at_user, 0, true},
	{"ready.vector", "it comes on the vector of that moment", REV(INT), vector, 0, true},
	{"ready.vector", "the wake-all comes on the vector of that moment", PF2_WIRE, vector_pf2, 0,
	 true},
	{"disable.in-flight", "disabling ends every fault: no write, no event, also not later",
	 ALL_REVS, disable_in_flight, 0, true},
	{"enable.in-flight", "registering elsewhere ends every fault there, not here", ALL_REVS,
	 move_in_flight, 0, true},
	{"ready.by-fault", "with EN.3 clear it comes as a page fault", PF2_WIRE, by_fault, 0, true},
	{"ready.ctl-never", "before CTL.8 is set the slot stays empty", PF2_WIRE, ctl_off, false,
	 true},
	{"ready.ctl-cleared", "while CTL.8 is clear the slot stays empty", PF2_WIRE, ctl_off, true,
	 true},
};

const struct check_list ready_checks = {checks, ARRAY_LEN(checks)};
