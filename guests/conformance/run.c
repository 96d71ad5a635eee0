/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the checks that the revision has, one after the other, each from the same clean
 * state, and prints one TAP line for each. Exit port: 0 all passed or skipped, 1 not.
 */
#include "kernel.h"

#define SURPRISES_MANY 3

const char skip_mark[] = "SKIP";
static const char *skip_reason;

static const struct check_list *const lists[] = {
	&registers_checks, &enable_checks, &missing_checks, &ready_checks, &reset_checks,
};

static const char *const rev_names[] = {
	[APF_REV_OFF] = "off",		 [APF_REV_LEGACY] = "legacy",
	[APF_REV_PF2] = "pf2",		 [APF_REV_PF2_STRICT] = "pf2-strict",
	[APF_REV_INT] = "int",
};

const char *skips(const char *reason)
{
	skip_reason = reason;
	return skip_mark;
}

/* One of the comma-separated prefixes in the list fits the name. */
static bool listed(const char *list, const char *name)
{
	while (list) {
		const char *n = name;

		while (*list && *list != ',' && *list != ' ' && *list == *n) {
			list++;
			n++;
		}
		if (!*list || *list == ',' || *list == ' ')
			return true;
		while (*list && *list != ',' && *list != ' ')
			list++;
		if (*list != ',')
			return false;
		list++;
	}
	return false;
}

/*
 * Mainline announces its revision. The founding proposal announces nothing: its register
 * is there, and takes the enable bit.
 */
static enum apf_rev find_rev(uint32_t features)
{
	uint64_t v;

	if (features & APF_CPUID_ASYNC_PF_INT)
		return APF_REV_INT;
	if (!(features & APF_CPUID_ASYNC_PF) || rdmsr_safe(APF_MSR_EN, &v))
		return APF_REV_OFF;
	return wrmsr_safe(APF_MSR_CTL, APF_PF2_ENABLED) ? APF_REV_LEGACY : APF_REV_PF2;
}

/* surprises: how many checks have failed so far of which nobody said that they would. */
static const char *run(const struct check *c, unsigned surprises)
{
	const char *why, *fault;

	if (c->absent && !setup.absent_bytes)
		return skips("no absent=ADDRESS,BYTES was given");
	/* A host that keeps no promise shall not take all day for it. */
	apf.patience_ticks = surprises > SURPRISES_MANY || listed(setup.brief, c->name)
				     ? setup.quiet_ticks : setup.patience_ticks;
	why = c->run(c->arg);
	if (why && why != skip_mark)
		return why;
	fault = ledger_fault();
	if (fault)
		return fault;
	if (log_find(EVENT_STRAY, 0))
		return fails("an interrupt that nobody asked for, vector %u",
			     U(log_find(EVENT_STRAY, 0)->vector));
	return why;
}

/* False: it failed. */
static bool report(const struct check *c, unsigned n, unsigned surprises)
{
	const char *why = run(c, surprises);
	bool ok = !why || why == skip_mark;

	print("%sok %u - %s: %s", ok ? "" : "not ", U(n), c->name, c->promise);
	if (why == skip_mark)
		print(" # SKIP %s", skip_reason);
	print("\n");
	if (!ok)
		print("# %s: %s\n", c->name, why);
	apf_clean();
	return ok;
}

/* Exit port: 0 or 1. */
static uint32_t run_all(void)
{
	unsigned n = 0, failed = 0, surprises = 0;

	for (unsigned l = 0; l < ARRAY_LEN(lists); l++) {
		for (unsigned i = 0; i < lists[l]->count; i++) {
			const struct check *c = &lists[l]->checks[i];

			if (!(c->revs & 1u << apf.rev) ||
			    (setup.only && !listed(setup.only, c->name)))
				continue;
			if (!report(c, ++n, surprises)) {
				failed++;
				surprises += !listed(setup.brief, c->name);
			}
		}
	}
	print("1..%u\n", U(n));
	return n == 0 || failed != 0;
}

_Noreturn void checks_run(void)
{
	uint32_t features = setup.kvm_leaf ? cpuid(setup.kvm_leaf + 1).eax : 0;

	print("TAP version 13\n");
	if (rdmsr_safe(APF_MSR_EN, &setup.en_at_start))
		setup.en_at_start = 0;
	if (rdmsr_safe(APF_MSR_CTL, &setup.ctl_at_start))
		setup.ctl_at_start = 0;
	apf.rev = setup.rev != APF_REV_OFF ? setup.rev : find_rev(features);
	print("# features %x, abi %s, TSC %u kHz, CPL 0 is %s\n", U(features), rev_names[apf.rev],
	      setup.tsc_khz, setup.kernel_is_real ? "real" : "emulated");
	if (apf.rev == APF_REV_OFF) {
		print("1..0 # SKIP no asynchronous page faults are offered here\n");
		stop(0);
	}
	apf_clean();
	stop(run_all());
}
