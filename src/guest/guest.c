/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest half: registration, the #PF entry, the page-ready interrupt. It decides
 * what a #PF was and in which order the area's words and the MSRs are touched; it owns
 * nothing but the counters in struct gst_cpu. sleepers.c has the table of who waits.
 *
 * Every function runs with interrupts off on the CPU it names. The area is shared with
 * the host: each access is one atomic access to an aligned 32-bit word.
 * Test: tests/unit/guest_test.c.
 */
#include "guest/guest.h"

/* See GST_WAKE in sleepers.c. */
#ifndef GST_WRMSR
#define GST_WRMSR(cpu, msr, value) ((cpu)->ops->wrmsr((cpu)->ctx, (msr), (value)))
#endif

uint32_t gst_pf2_revisions(gst_cpuid_fn *cpuid, void *ctx)
{
	uint32_t r[4];

	cpuid(ctx, 1, r);
	if (!(r[2] & APF_CPUID_1_ECX_HYPERVISOR))
		return 0;
	for (uint32_t base = APF_CPUID_HYPERVISORS_FIRST; base <= APF_CPUID_HYPERVISORS_LAST;
	     base += APF_CPUID_HYPERVISORS_STEP) {
		cpuid(ctx, base, r);
		/* A leaf that is not there may read as another one, so all of it counts. */
		if (r[0] <= base || r[1] != APF_CPUID_PF2_EBX || r[2] != APF_CPUID_PF2_ECX ||
		    r[3] != APF_CPUID_PF2_EDX)
			continue;
		cpuid(ctx, base + 1, r);
		return r[0] & (APF_CPUID_REV_PF2 | APF_CPUID_REV_PF2_STRICT);
	}
	return 0;
}

/*
 * A stale token would mean "slot never free", a stale flag would turn the next real #PF
 * into a page-missing event (docs/abi.md): the area is zero whenever it is registered.
 */
static void area_clear(struct apf_area *area)
{
	__atomic_store_n(&area->reason, 0u, __ATOMIC_RELAXED);
	__atomic_store_n(&area->token, 0u, __ATOMIC_RELAXED);
	for (size_t i = 0; i < ARRAY_LEN(area->pad); i++)
		area->pad[i] = 0;
	/* Before the MSR write: also where the "host" is another thread, not an exit. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

/*
 * The founding text's order: EN, then CTL. CTL survives an INIT, so a kernel that starts on a
 * CPU which another kernel had registered finds that one's vector enabled, and EN alone would
 * send the wake-all there: CTL is cleared first.
 */
static bool enable_pf2(struct gst_cpu *cpu, uint64_t en)
{
	return GST_WRMSR(cpu, APF_MSR_CTL, 0) && GST_WRMSR(cpu, APF_MSR_EN, en | APF_EN_INT) &&
	       GST_WRMSR(cpu, APF_MSR_CTL, cpu->vector | APF_PF2_ENABLED);
}

/* The other way round: EN makes the host send a wake-all at once (msr.rst). */
static bool enable_int(struct gst_cpu *cpu, uint64_t en)
{
	return GST_WRMSR(cpu, APF_MSR_CTL, cpu->vector) &&
	       GST_WRMSR(cpu, APF_MSR_EN, en | APF_EN_INT);
}

bool gst_enable(struct gst_cpu *cpu)
{
	uint64_t en = (cpu->area_gpa & APF_EN_GPA_MASK) | APF_EN_ENABLED;

	if (cpu->send_always)
		en |= APF_EN_SEND_ALWAYS;
	area_clear(cpu->area);
	switch (cpu->rev) {
	case APF_REV_LEGACY:
		cpu->enabled = GST_WRMSR(cpu, APF_MSR_EN, en);
		break;
	case APF_REV_PF2:
	case APF_REV_PF2_STRICT:
		cpu->enabled = enable_pf2(cpu, en);
		break;
	case APF_REV_INT:
		cpu->enabled = enable_int(cpu, en);
		break;
	case APF_REV_OFF:
		cpu->enabled = false;
		return false;
	}
	/* A host may keep what it has refused (B12), or have it from before. */
	if (!cpu->enabled)
		(void)GST_WRMSR(cpu, APF_MSR_EN, 0);
	return cpu->enabled;
}

void gst_disable(struct gst_cpu *cpu)
{
	if (!cpu->enabled)
		return;
	/* EN first: behind it nothing is written to the area, and no event will come. */
	(void)GST_WRMSR(cpu, APF_MSR_EN, 0);
	/* It survives an INIT, and whoever comes then may not know of it. */
	if (cpu->rev == APF_REV_PF2 || cpu->rev == APF_REV_PF2_STRICT)
		(void)GST_WRMSR(cpu, APF_MSR_CTL, 0);
	cpu->enabled = false;
	/* The host forgets its queue without a word (docs/abi.md): waking is our duty. */
	gst_wake(cpu, APF_TOKEN_WAKE_ALL);
	/* An interrupt still pending in the APIC then finds an empty slot (B35). */
	area_clear(cpu->area);
}

/* One page-ready event, whatever carried it. */
static inline void ready_take(struct gst_cpu *cpu, uint32_t token)
{
	if (__builtin_expect(token == APF_TOKEN_WAKE_ALL, 0))
		cpu->wake_all_count++;
	else
		cpu->ready_count++;
	gst_wake(cpu, token);
}

/* legacy, pf2, pf2-strict: one word says what the #PF is. */
static inline enum gst_pf pf_enter_reason(struct gst_cpu *cpu, enum apf_rev rev, uint32_t token,
					  uint32_t *ret_token)
{
	struct apf_area *area = cpu->area;
	uint32_t reason = __atomic_load_n(&area->reason, __ATOMIC_RELAXED);

	if (__builtin_expect(reason == APF_REASON_MISSING, 1)) {
		/* Before anything that could fault: the next #PF must not see it (msr.rst). */
		__atomic_store_n(&area->reason, 0u, __ATOMIC_RELEASE);
		cpu->missing_count++;
		*ret_token = token;
		return GST_PF_MISSING;
	}
	/*
	 * pf2, page ready: the event of the interrupt, which is still to come, and this #PF
	 * have nothing to do with each other, so the slot stays as it is.
	 */
	if (reason == 0 || (reason == APF_REASON_READY && rev == APF_REV_PF2))
		return GST_PF_REAL;
	__atomic_store_n(&area->reason, 0u, __ATOMIC_RELEASE);
	if (reason != APF_REASON_READY) {
		cpu->bad_count++;
		return GST_PF_REAL;
	}
	/* pf2-strict takes the real #PF for the event, and both are lost (S2). */
	if (rev == APF_REV_LEGACY)
		ready_take(cpu, token);
	return GST_PF_DONE;
}

/* int: bit 0 of its own word; no other bit is defined. */
static inline enum gst_pf pf_enter_flags(struct gst_cpu *cpu, uint32_t token, uint32_t *ret_token)
{
	struct apf_area *area = cpu->area;
	uint32_t flags = __atomic_load_n(&area->reason, __ATOMIC_RELAXED);

	/* The token word belongs to the ready event: never touched here (invariant 8). */
	if (__builtin_expect(flags != APF_REASON_MISSING, 0)) {
		if (flags == 0)
			return GST_PF_REAL;
		cpu->bad_count++;
		/* What the other bits may come to mean does not unmake the event. */
		if (!(flags & APF_REASON_MISSING)) {
			__atomic_store_n(&area->reason, 0u, __ATOMIC_RELEASE);
			return GST_PF_REAL;
		}
	}
	/* Before anything that could fault (msr.rst): the next #PF must not see it. */
	__atomic_store_n(&area->reason, 0u, __ATOMIC_RELEASE);
	cpu->missing_count++;
	*ret_token = token;
	return GST_PF_MISSING;
}

enum gst_pf gst_pf_enter(struct gst_cpu *cpu, uint64_t cr2, uint32_t *ret_token)
{
	enum apf_rev rev = cpu->rev;
	uint32_t token = (uint32_t)cr2; /* tokens are 32 bits, zero-extended in CR2 */

	/*
	 * `enabled` is not looked at: an area that is not registered is zero (area_clear),
	 * and so reads as a real #PF.
	 */
	if (rev == APF_REV_INT)
		return pf_enter_flags(cpu, token, ret_token);
	if (rev == APF_REV_OFF)
		return GST_PF_REAL;
	return pf_enter_reason(cpu, rev, token, ret_token);
}

/* legacy has no ready interrupt; pf2 and pf2-strict have one, and no acknowledgement. */
static inline void ready_irq_reason(struct gst_cpu *cpu, enum apf_rev rev)
{
	struct apf_area *area = cpu->area;

	if ((rev != APF_REV_PF2 && rev != APF_REV_PF2_STRICT) ||
	    __atomic_load_n(&area->reason, __ATOMIC_ACQUIRE) != APF_REASON_READY) {
		cpu->spurious_count++;
		return;
	}
	uint32_t token = __atomic_load_n(&area->token, __ATOMIC_RELAXED);
	/* Release: the host may overwrite the token once it sees the slot free. */
	__atomic_store_n(&area->reason, 0u, __ATOMIC_RELEASE);
	ready_take(cpu, token);
}

void gst_ready_irq(struct gst_cpu *cpu)
{
	enum apf_rev rev = cpu->rev;

	if (rev != APF_REV_INT) {
		ready_irq_reason(cpu, rev);
		return;
	}
	/* Acquire: pairs with the host's store of the token before it raised the vector. */
	uint32_t token = __atomic_load_n(&cpu->area->token, __ATOMIC_ACQUIRE);
	if (__builtin_expect(token != 0, 1)) {
		ready_take(cpu, token);
		/*
		 * Release, and before the acknowledgement (37): for a host that looks only when it
		 * is told to, as Linux's own, an ACK that finds the slot taken is consumed for
		 * nothing, and the queue behind it stalls.
		 */
		__atomic_store_n(&cpu->area->token, 0u, __ATOMIC_RELEASE);
	} else {
		cpu->spurious_count++;
	}
	/* Also for an empty slot: it costs a host that sees it one look at its queue. */
	(void)GST_WRMSR(cpu, APF_MSR_ACK, APF_ACK_READY);
}
