/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state after INIT: a second processor registers, is reset by the first, and tells
 * what its registers hold. It takes no interrupt, and does what the mailbox says.
 */
#include "kernel.h"

#define ICR_INIT 0x4500
#define ICR_STARTUP 0x4600
#define CPUS_TRIED 2u /* local APIC ids 0 and 1 */

enum command { COMMAND_NONE, COMMAND_REGISTER, COMMAND_READ };

static struct {
	uint32_t started; /* counts ap_main */
	uint32_t command; /* enum command, COMMAND_NONE when it is done */
	bool gp;
	uint64_t en, ctl;
} box;

static struct apf_area ap_area __attribute__((aligned(64)));

_Noreturn void ap_main(void)
{
	tables_load();
	store(&box.started, box.started + 1);
	for (;;) {
		uint32_t command = load(&box.command);

		if (command == COMMAND_REGISTER) {
			uint64_t ctl = READY_VECTOR | (apf_is_pf2() ? APF_PF2_ENABLED : 0);

			box.gp = apf_by_irq() && wrmsr_safe(APF_MSR_CTL, ctl);
			box.gp |= wrmsr_safe(APF_MSR_EN, apf_en(&ap_area));
		}
		if (command != COMMAND_NONE) {
			box.gp |= rdmsr_safe(APF_MSR_EN, &box.en);
			if (apf_by_irq())
				box.gp |= rdmsr_safe(APF_MSR_CTL, &box.ctl);
			store(&box.command, COMMAND_NONE);
		}
		pause();
	}
}

/* False: patience, or less of it where nobody said that there is such a processor, is over. */
static bool becomes(const uint32_t *word, uint32_t value)
{
	uint64_t deadline = rdtsc() + (setup.cpus ? apf.patience_ticks
						  : 1000 * setup.tsc_khz);

	while (load(word) != value && rdtsc() < deadline)
		pause();
	return load(word) == value;
}

static void spin_ms(uint64_t ms)
{
	uint64_t end = rdtsc() + ms * setup.tsc_khz;

	while (rdtsc() < end)
		pause();
}

/* INIT and SIPI for the processor that is not this one. False: it does not answer. */
static bool start(void)
{
	uint64_t self = rdmsr(MSR_X2APIC_ID);
	uint64_t other = (self == 0 ? 1ull : 0ull) << 32;
	uint32_t before = box.started;

	for (char *from = ap_trampoline, *to = (char *)AP_PAGE; from < ap_trampoline_end;)
		*to++ = *from++;
	box.command = COMMAND_NONE;
	wrmsr(MSR_X2APIC_ICR, other | ICR_INIT);
	spin_ms(10); /* Multiprocessor Specification 1.4, appendix B.4 */
	wrmsr(MSR_X2APIC_ICR, other | ICR_STARTUP | AP_PAGE / PAGE_BYTES);
	return becomes(&box.started, before + 1);
}

static const char *order(enum command command)
{
	box.gp = false;
	store(&box.command, command);
	EXPECT(becomes(&box.command, COMMAND_NONE), "the second processor does not answer");
	EXPECT(!box.gp, "#GP on the second processor");
	return NULL;
}

static const char *registers(uint64_t arg)
{
	uint64_t ctl;

	(void)arg;
	if (setup.cpus && setup.cpus < CPUS_TRIED)
		return skips("there is one processor only");
	if (!start())
		return setup.cpus ? fails("the second processor does not start")
				  : skips("no second processor answers");
	TRY(order(COMMAND_REGISTER));
	EXPECT(box.en == apf_en(&ap_area), "EN reads %x after registering", box.en);
	ctl = box.ctl;
	EXPECT(start(), "it does not start after INIT");
	TRY(order(COMMAND_READ));
	EXPECT(box.en == 0, "EN reads %x", box.en);
	if (apf_by_irq())
		EXPECT(box.ctl == (apf_is_pf2() ? ctl : 0), "CTL reads %x", box.ctl);
	return NULL;
}

static const struct check checks[] = {
	{"reset.registers", "INIT clears EN, and CTL", REV(LEGACY) | REV(INT), registers, 0, false},
	{"reset.registers", "INIT clears EN, and leaves CTL", PF2_WIRE, registers, 0, false},
};

const struct check_list reset_checks = {checks, ARRAY_LEN(checks)};
