/* SPDX-License-Identifier: Apache-2.0 */
/* Page missing: when it may be delivered, what it looks like, and when it must not come. */
#include "kernel.h"

#define PAGES 4u /* touched by a check that expects nothing */

static const char *event(uint64_t arg)
{
	const struct event *e;
	struct task t;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&t));
	e = log_find(EVENT_MISSING, 0);
	EXPECT(e->error == APF_PF_ERROR_CODE, "error code %x", e->error);
	EXPECT(e->word[0] == APF_REASON_MISSING, "the first word was %x", U(e->word[0]));
	EXPECT(e->cr2 == e->token, "CR2 %x has more than 32 bits", e->cr2);
	EXPECT(!apf_is_pf2() || e->word[1] == e->token, "CR2 says %x, the area %x", e->cr2,
	       U(e->word[1]));
	EXPECT(e->user && e->interrupts_on, "it came at CPL 0, or with IF 0");
	EXPECT(await(EVENT_READY, 1), "its page-ready did not come");
	EXPECT(log_find(EVENT_READY, 0)->token == t.token, "token %x is ready, not %x",
	       U(log_find(EVENT_READY, 0)->token), U(t.token));
	return task_finish(&t);
}

/* Each word has one owner: a page-missing event does not touch the token of another. */
static const char *words(uint64_t arg)
{
	const struct event *e;
	struct task a, b;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&a));
	apf.take = false;
	EXPECT(await(EVENT_READY, 1), "the first page-ready did not come");
	TRY(task_miss(&b));
	e = log_find(EVENT_MISSING, log.of[EVENT_MISSING] - 1);
	EXPECT(e->word[1] == a.token, "the token word was %x in it, not %x", U(e->word[1]),
	       U(a.token));
	apf.take = true;
	slot_free();
	apf_ack();
	EXPECT(await(EVENT_READY, 2), "the second page-ready did not come");
	EXPECT(log_find(EVENT_READY, 1)->word[0] == 0, "page-ready changed the flags to %x",
	       U(log_find(EVENT_READY, 1)->word[0]));
	return task_finish(&b);
}

/* At CPL 3, interrupts on or off. */
static const char *user_untold(bool interrupts_on)
{
	for (unsigned i = 0; i < PAGES; i++) {
		uint64_t page = absent_page();
		struct task t;

		if (!page)
			return skips("the absent memory is used up");
		task_load(&t, page, interrupts_on);
		EXPECT(task_run(&t) == TASK_DONE, "a #PF came, CR2 %x", U(t.token));
		EXPECT(!setup.stamped || t.value == page, "the page at %x holds %x", page,
		       t.value);
	}
	quiet(true);
	EXPECT(log.of[EVENT_MISSING] + log.of[EVENT_READY] == 0, "%u page-missing, %u page-ready",
	       U(log.of[EVENT_MISSING]), U(log.of[EVENT_READY]));
	return NULL;
}

static const char *user_masked(uint64_t arg)
{
	(void)arg;
	TRY(apf_on(&areas[0]));
	return user_untold(false);
}

static const char *disabled(uint64_t arg)
{
	(void)arg;
	TRY(apf_on(&areas[0]));
	apf_off();
	return user_untold(true);
}

static const char *half_enabled(uint64_t bits)
{
	EXPECT(!wrmsr_safe(APF_MSR_CTL, READY_VECTOR), "#GP on writing CTL");
	EXPECT(!wrmsr_safe(APF_MSR_EN, (uint64_t)&areas[0] | bits), "#GP on writing EN");
	return user_untold(true);
}

/* Loads of the kernel's own. *ret_told: how many of them were announced. */
static const char *kernel_loads(enum interrupts interrupts, unsigned *ret_told)
{
	for (unsigned i = 0; i < PAGES; i++) {
		uint64_t page = absent_page();
		uint64_t value;

		if (!page)
			return skips("the absent memory is used up");
		value = kernel_load(page, interrupts);
		EXPECT(!setup.stamped || value == page, "the page at %x holds %x", page, value);
	}
	*ret_told = log.of[EVENT_MISSING];
	return NULL;
}

static const char *kernel_untold(uint64_t interrupts)
{
	unsigned told;

	TRY(apf_on(&areas[0]));
	TRY(kernel_loads((enum interrupts)interrupts, &told));
	EXPECT(told == 0, "%u were announced", U(told));
	quiet(true);
	EXPECT(log.of[EVENT_READY] == 0, "a page-ready came for what was not announced");
	return NULL;
}

static const char *send_always_on(void)
{
	TRY(apf_on(&areas[0]));
	EXPECT(!wrmsr_safe(APF_MSR_EN, apf_en(&areas[0]) | APF_EN_SEND_ALWAYS),
	       "#GP on writing EN with bit 1");
	EXPECT(await(EVENT_WAKE_ALL, 2), "no wake-all came after that");
	return NULL;
}

static const char *always(uint64_t arg)
{
	unsigned told;

	(void)arg;
	if (!setup.kernel_is_real)
		return skips("CPL 0 is emulated here: its loads are not page faults");
	TRY(send_always_on());
	TRY(kernel_loads(IRQS_ON, &told));
	EXPECT(told > 0, "%u pages were touched, and none was announced", U(PAGES));
	EXPECT(!log_find(EVENT_MISSING, 0)->user, "the event says CPL 3");
	EXPECT(await(EVENT_READY, told), "%u were announced, %u became ready", U(told),
	       U(log.of[EVENT_READY]));
	return NULL;
}

/* arg: IRQS_OFF or IRQS_SHADOW. */
static const char *always_masked(uint64_t interrupts)
{
	unsigned told;

	TRY(send_always_on());
	TRY(kernel_loads((enum interrupts)interrupts, &told));
	EXPECT(told == 0, "%u were announced", U(told));
	return NULL;
}

/* A real page fault looks like one, whatever is registered. */
static const char *real(uint64_t arg)
{
	struct task t;

	(void)arg;
	TRY(apf_on(&areas[0]));
	task_load(&t, USER_HOLE, true);
	EXPECT(task_run(&t) == TASK_FAULT, "it was taken for an event");
	EXPECT(t.address == USER_HOLE, "CR2 was %x", t.address);
	EXPECT(t.frame.error & 4, "error code %x", t.frame.error);
	EXPECT(load(&areas[0].reason) == 0, "the first word is %x", U(areas[0].reason));
	return NULL;
}

/* Two tasks on one page: another event or a wait, but both go on, with the right content. */
static const char *same_page(uint64_t arg)
{
	struct task a, b;

	(void)arg;
	TRY(apf_on(&areas[0]));
	TRY(task_miss(&a));
	task_load(&b, a.frame.rdi, true);
	if (task_run(&b) == TASK_MISSING) {
		EXPECT(a.token != b.token, "both have token %x", U(a.token));
		EXPECT(await(EVENT_READY, 2), "two events, %u page-ready",
		       U(log.of[EVENT_READY]));
		TRY(task_finish(&b));
	}
	EXPECT(await(EVENT_READY, 1), "no page-ready came");
	return task_finish(&a);
}

/* The slot itself in memory that is absent when it is registered. */
static const char *area_absent(uint64_t arg)
{
	uint64_t page = absent_page();
	struct task t;

	(void)arg;
	if (!page)
		return skips("the absent memory is used up");
	apf.area = (struct apf_area *)(page + PAGE_BYTES - sizeof(struct apf_area));
	EXPECT(!apf_register(apf.area), "#GP on registering");
	EXPECT(await(EVENT_WAKE_ALL, 1), "no wake-all came");
	TRY(task_miss(&t));
	EXPECT(await(EVENT_READY, 1), "no page-ready came");
	return task_finish(&t);
}

static const struct check checks[] = {
	{"missing.event", "a page fault, error code 0, a token in CR2; then page ready",
	 ALL_REVS, event, 0, true},
	{"missing.words", "page-missing leaves the token word alone, page-ready the flags",
	 REV(INT), words, 0, true},
	{"missing.masked", "none at CPL 3 with IF 0", ALL_REVS, user_masked, 0, true},
	{"missing.kernel", "none at CPL 0, IF 1", ALL_REVS, kernel_untold, IRQS_ON, true},
	{"missing.kernel-masked", "none at CPL 0, IF 0", ALL_REVS, kernel_untold, IRQS_OFF,
	 true},
	{"missing.always", "with SEND_ALWAYS also at CPL 0", ALL_REVS, always, 0, true},
	{"missing.always-masked", "with SEND_ALWAYS none with IF 0", ALL_REVS, always_masked,
	 IRQS_OFF, true},
	{"missing.always-shadow", "with SEND_ALWAYS none right behind STI", ALL_REVS,
	 always_masked, IRQS_SHADOW, true},
	{"missing.disabled", "none when switched off", ALL_REVS, disabled, 0, true},
	{"missing.bit0-alone", "none with EN.0 without EN.3", REV(INT), half_enabled,
	 APF_EN_ENABLED, true},
	{"missing.bit3-alone", "none with EN.3 without EN.0", BY_IRQ, half_enabled, APF_EN_INT,
	 true},
	{"missing.real", "a real page fault is none", ALL_REVS, real, 0, false},
	{"missing.same-page", "two tasks on one page both go on", ALL_REVS, same_page, 0, true},
	{"missing.area-absent", "the area may be in absent memory", ALL_REVS, area_absent, 0, true},
};

const struct check_list missing_checks = {checks, ARRAY_LEN(checks)};
