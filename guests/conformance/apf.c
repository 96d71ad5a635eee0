/* SPDX-License-Identifier: Apache-2.0 */
/* Registration as each revision has it, the slot, and waiting for events. */
#include "kernel.h"

struct apf_area areas[AREAS] __attribute__((aligned(PAGE_BYTES)));
struct registration apf = {
	.area = &areas[0], .vector = READY_VECTOR, .vector_before = READY_VECTOR, .take = true};

bool apf_is_pf2(void)
{
	return apf.rev == APF_REV_PF2 || apf.rev == APF_REV_PF2_STRICT;
}

bool apf_by_irq(void)
{
	return apf.rev != APF_REV_LEGACY && !apf.by_fault;
}

uint64_t apf_en(const struct apf_area *area)
{
	return (uint64_t)area | APF_EN_ENABLED | (apf_by_irq() ? APF_EN_INT : 0);
}

bool apf_register(struct apf_area *area)
{
	uint64_t ctl = apf.vector | (apf_is_pf2() ? APF_PF2_ENABLED : 0);
	bool gp = false;

	apf.area = area;
	/* int: the vector first, or the wake-all would come on an old one. pf2: bit 8 last. */
	if (apf.rev == APF_REV_INT)
		gp = wrmsr_safe(APF_MSR_CTL, ctl);
	gp |= wrmsr_safe(APF_MSR_EN, apf_en(area));
	if (apf_is_pf2() && apf_by_irq())
		gp |= wrmsr_safe(APF_MSR_CTL, ctl);
	return gp;
}

const char *apf_on(struct apf_area *area)
{
	unsigned n = log.of[EVENT_WAKE_ALL];

	*area = (struct apf_area){0};
	EXPECT(!apf_register(area), "#GP on registering an area at %x", U(area));
	EXPECT(await(EVENT_WAKE_ALL, n + 1), "no wake-all came after registering");
	return NULL;
}

void apf_off(void)
{
	(void)wrmsr_safe(APF_MSR_EN, 0);
	ledger_off();
}

void apf_clean(void)
{
	apf_off();
	(void)wrmsr_safe(APF_MSR_CTL, 0);
	for (unsigned i = 0; i < AREAS; i++)
		areas[i] = (struct apf_area){0};
	apf.area = &areas[0];
	apf.vector = READY_VECTOR;
	apf.vector_before = READY_VECTOR;
	apf.by_fault = false;
	apf.take = true;
	apf.on_at_timer = false;
	wrmsr(MSR_X2APIC_SVR, SVR_ON);
	/* Switched off in software, a local APIC masks its timer. */
	wrmsr(MSR_X2APIC_LVT_TIMER, TIMER_VECTOR);
	wrmsr(MSR_X2APIC_TMICT, 0);
	/* An interrupt that was raised before finds an empty slot, and is gone. */
	irq_on();
	for (unsigned i = 0; i < 10; i++)
		pause();
	irq_off();
	log_clear();
	(void)ledger_fault();
}

uint32_t slot_token(void)
{
	if (apf.rev == APF_REV_INT)
		return load(&apf.area->token);
	return load(&apf.area->reason) == APF_REASON_READY ? load(&apf.area->token) : 0;
}

void slot_free(void)
{
	/* A release store: the host may overwrite the token once it sees the slot free. */
	store(apf.rev == APF_REV_INT ? &apf.area->token : &apf.area->reason, 0);
}

void apf_ack(void)
{
	if (apf.rev == APF_REV_INT)
		wrmsr(APF_MSR_ACK, APF_ACK_READY);
}

bool await(enum event_kind kind, unsigned n)
{
	uint64_t deadline = rdtsc() + apf.patience_ticks;

	irq_on();
	while (log.of[kind] < n && rdtsc() < deadline)
		pause();
	irq_off();
	return log.of[kind] >= n;
}

bool await_slot(void)
{
	uint64_t deadline = rdtsc() + apf.patience_ticks;

	while (slot_token() == 0 && rdtsc() < deadline)
		pause();
	return slot_token() != 0;
}

void quiet(bool interrupts_on)
{
	uint64_t end = rdtsc() + setup.quiet_ticks;

	if (interrupts_on)
		irq_on();
	while (rdtsc() < end)
		pause();
	irq_off();
}
