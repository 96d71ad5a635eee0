/* SPDX-License-Identifier: Apache-2.0 */
/* Registering: the wake-all, where it is written, and what may hold it back. */
#include "kernel.h"

#define FILL 0x5a5a5a5au

static void fill(struct apf_area *area)
{
	uint32_t *word = (uint32_t *)area;

	for (unsigned i = 0; i < sizeof(*area) / sizeof(*word); i++)
		store(&word[i], FILL);
}

static bool is_filled(const struct apf_area *area)
{
	const uint32_t *word = (const uint32_t *)area;

	for (unsigned i = 0; i < sizeof(*area) / sizeof(*word); i++)
		if (load(&word[i]) != FILL)
			return false;
	return true;
}

static const char *wake_all(uint64_t arg)
{
	const struct event *e;

	(void)arg;
	TRY(apf_on(&areas[0]));
	e = log_find(EVENT_WAKE_ALL, 0);
	switch (apf.rev) {
	case APF_REV_INT:
		EXPECT(e->word[0] == 0, "flags were %x with the token", U(e->word[0]));
		break;
	case APF_REV_LEGACY:
		EXPECT(e->word[0] == APF_REASON_READY, "the reason was %x", U(e->word[0]));
		EXPECT(e->error == 0, "its #PF had error code %x", e->error);
		EXPECT(e->cr2 == APF_TOKEN_WAKE_ALL, "CR2 was %x", e->cr2);
		break;
	default:
		EXPECT(e->word[0] == APF_REASON_READY, "the reason was %x", U(e->word[0]));
		break;
	}
	quiet(true);
	EXPECT(log.of[EVENT_WAKE_ALL] == 1, "%u came", U(log.of[EVENT_WAKE_ALL]));
	return NULL;
}

static const char *again(uint64_t arg)
{
	(void)arg;
	TRY(apf_on(&areas[0]));
	EXPECT(!wrmsr_safe(APF_MSR_EN, apf_en(&areas[0])), "#GP on writing EN again");
	EXPECT(await(EVENT_WAKE_ALL, 2), "no second one came");
	return NULL;
}

/* The area at the end of one page and its neighbours, the next of which is in another page. */
static const char *alignment(uint64_t at)
{
	struct apf_area *area = &areas[at];

	fill(area - 1);
	fill(area + 1);
	TRY(apf_on(area));
	EXPECT(is_filled(area - 1), "the 64 bytes before were written");
	EXPECT(is_filled(area + 1), "the 64 bytes after were written");
	for (unsigned i = 0; i < ARRAY_LEN(area->pad); i++)
		EXPECT(load(&area->pad[i]) == 0, "byte %u of the area was written",
		       8 + 4 * U(i));
	return NULL;
}

/* Interrupts are off all the time. */
static const char *masked(uint64_t arg)
{
	(void)arg;
	EXPECT(!apf_register(&areas[0]), "#GP on registering");
	EXPECT(await_slot(), "nothing was written while IF was 0");
	EXPECT(log.count == 0, "an event was delivered with IF 0");
	EXPECT(await(EVENT_WAKE_ALL, 1), "it did not come with IF 1");
	return NULL;
}

/* By #PF: not with IF 0, and then it is not lost. */
static const char *masked_pf(uint64_t arg)
{
	(void)arg;
	EXPECT(!apf_register(&areas[0]), "#GP on registering");
	quiet(false);
	EXPECT(log.count == 0, "an event was delivered with IF 0");
	EXPECT(await(EVENT_WAKE_ALL, 1), "it did not come with IF 1");
	return NULL;
}

/* As Linux does at boot: it registers before it switches its local APIC on in software. */
static const char *apic_off(uint64_t arg)
{
	(void)arg;
	wrmsr(MSR_X2APIC_SVR, SPURIOUS_VECTOR);
	EXPECT(!apf_register(&areas[0]), "#GP on registering");
	quiet(true);
	EXPECT(log.count == 0, "an event came from a local APIC that is off");
	wrmsr(MSR_X2APIC_SVR, SVR_ON);
	EXPECT(await(EVENT_WAKE_ALL, 1), "it did not come when the local APIC was on");
	return NULL;
}

/* What a careless guest leaves in the slot must not silence it for ever. */
static const char *dirty(uint64_t arg)
{
	(void)arg;
	store(&areas[0].token, 0x1000);
	store(&areas[0].reason, apf.rev == APF_REV_INT ? 0 : APF_REASON_READY);
	EXPECT(!apf_register(&areas[0]), "#GP on registering");
	EXPECT(await(EVENT_WAKE_ALL, 1), "the slot was full, and nothing came");
	return NULL;
}

/* arg: bits that do not suffice. */
static const char *half(uint64_t bits)
{
	EXPECT(!wrmsr_safe(APF_MSR_CTL, READY_VECTOR), "#GP on writing CTL");
	EXPECT(!wrmsr_safe(APF_MSR_EN, (uint64_t)&areas[0] | bits), "#GP on writing EN");
	quiet(true);
	EXPECT(log.count == 0, "an event came");
	EXPECT(slot_token() == 0, "the area was written: %x", U(slot_token()));
	return NULL;
}

/* A vector that a local APIC does not deliver: nothing may be lost by it. */
static const char *vector_low(uint64_t arg)
{
	(void)arg;
	apf.vector = LOW_VECTOR;
	EXPECT(!apf_register(&areas[0]), "#GP on registering");
	quiet(true);
	EXPECT(log.count == 0, "an event came on vector %u", U(LOW_VECTOR));
	apf.vector = READY_VECTOR;
	EXPECT(!wrmsr_safe(APF_MSR_CTL, READY_VECTOR | (apf_is_pf2() ? APF_PF2_ENABLED : 0)),
	       "#GP on writing CTL");
	EXPECT(await(EVENT_WAKE_ALL, 1), "it did not come when the vector was right");
	return NULL;
}

static const char *disabled_is_silent(uint64_t arg)
{
	(void)arg;
	TRY(apf_on(&areas[0]));
	apf_off();
	fill(&areas[0]);
	quiet(true);
	EXPECT(is_filled(&areas[0]), "the area was written");
	EXPECT(log.count == 1, "an event came");
	return NULL;
}

/* ---- pf2: two registers, in any order ---- */

static const char *ctl_last(uint64_t arg)
{
	(void)arg;
	EXPECT(!wrmsr_safe(APF_MSR_EN, apf_en(&areas[0])), "#GP on writing EN");
	quiet(true);
	EXPECT(log.count == 0 && slot_token() == 0, "something was sent with CTL.8 clear");
	EXPECT(!wrmsr_safe(APF_MSR_CTL, READY_VECTOR | APF_PF2_ENABLED), "#GP on writing CTL");
	EXPECT(await(EVENT_WAKE_ALL, 1), "it did not come when CTL.8 was set");
	return NULL;
}

static const char *ctl_first(uint64_t arg)
{
	(void)arg;
	EXPECT(!wrmsr_safe(APF_MSR_CTL, READY_VECTOR | APF_PF2_ENABLED), "#GP on writing CTL");
	quiet(true);
	EXPECT(log.count == 0, "an event came with EN.0 clear");
	EXPECT(!wrmsr_safe(APF_MSR_EN, apf_en(&areas[0])), "#GP on writing EN");
	EXPECT(await(EVENT_WAKE_ALL, 1), "it did not come when EN.0 was set");
	return NULL;
}

static const struct check checks[] = {
	{"enable.wake-all", "one wake-all comes after registering", ALL_REVS, wake_all, 0, false},
	{"enable.again", "registering again sends another", ALL_REVS, again, 0, false},
	{"enable.page-end", "an area at the end of a page is used, and nothing beside it",
	 ALL_REVS, alignment, 63, false},
	{"enable.page-start", "an area at the start of a page is used, and nothing beside it",
	 ALL_REVS, alignment, 64, false},
	{"enable.masked", "with IF 0 the slot is filled, and the interrupt waits", BY_IRQ, masked,
	 0, false},
	{"enable.masked", "with IF 0 the event waits", REV(LEGACY), masked_pf, 0, false},
	{"enable.apic-off", "with the local APIC off the wake-all waits, and is not lost", BY_IRQ,
	 apic_off, 0, false},
	{"enable.dirty", "what was left in the slot does not hold it back", BY_IRQ, dirty, 0,
	 false},
	{"enable.bit0-alone", "EN.0 without EN.3 sends nothing", REV(INT), half, APF_EN_ENABLED,
	 false},
	{"enable.bit3-alone", "EN.3 without EN.0 sends nothing", BY_IRQ, half, APF_EN_INT, false},
	{"enable.vector-low", "a vector below 16 holds the event until there is a good one",
	 BY_IRQ, vector_low, 0, false},
	{"enable.ctl-last", "nothing is sent before CTL.8, and then a wake-all", PF2_WIRE, ctl_last,
	 0, false},
	{"enable.ctl-first", "nothing is sent before EN.0, and then a wake-all", PF2_WIRE,
	 ctl_first, 0, false},
	{"disable.silent", "after disabling nothing is written and nothing comes", ALL_REVS,
	 disabled_is_silent, 0, false},
};

const struct check_list enable_checks = {checks, ARRAY_LEN(checks)};
