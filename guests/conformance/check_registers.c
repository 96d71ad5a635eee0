/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID against the registers' behaviour; which values they take, and what reads back. */
#include "kernel.h"

#define ACK_OTHER_BITS 0xfffffffffffffffeull

static bool announced(uint32_t feature)
{
	return setup.kvm_leaf && (cpuid(setup.kvm_leaf + 1).eax & feature);
}

static const char *reads(uint32_t msr, uint64_t want)
{
	uint64_t v = 0;

	EXPECT(!rdmsr_safe(msr, &v), "#GP on reading %x", U(msr));
	EXPECT(v == want, "%x reads %x, not %x", U(msr), v, want);
	return NULL;
}

/* Written and read back. */
static const char *takes(uint32_t msr, uint64_t value)
{
	EXPECT(!wrmsr_safe(msr, value), "#GP on writing %x to %x", value, U(msr));
	return reads(msr, value);
}

/* #GP, and the old value stays. */
static const char *refuses(uint32_t msr, uint64_t value, uint64_t old)
{
	EXPECT(wrmsr_safe(msr, value), "no #GP on writing %x to %x", value, U(msr));
	return reads(msr, old);
}

/* ---- CPUID ---- */

static const char *cpuid_signature(uint64_t arg)
{
	(void)arg;
	EXPECT(setup.kvm_leaf, "no leaf from 0x40000000 on has it");
	EXPECT(cpuid(setup.kvm_leaf).eax >= setup.kvm_leaf + 1, "the highest leaf is %x",
	       U(cpuid(setup.kvm_leaf).eax));
	return NULL;
}

/* arg: the feature; it is there if and only if its register can be read. */
static const char *cpuid_means_register(uint64_t arg)
{
	uint32_t msr = arg == APF_CPUID_ASYNC_PF ? APF_MSR_EN : APF_MSR_ACK;
	uint64_t v;
	bool gp = rdmsr_safe(msr, &v);

	EXPECT(announced((uint32_t)arg) != gp, "feature %s, register %x %s",
	       announced((uint32_t)arg) ? "announced" : "not announced", U(msr),
	       gp ? "raises #GP" : "can be read");
	return NULL;
}

static const char *cpuid_vmexit(uint64_t arg)
{
	bool gp = wrmsr_safe(APF_MSR_EN, APF_EN_PF_VMEXIT);

	(void)arg;
	EXPECT(announced(APF_CPUID_ASYNC_PF_VMEXIT) != gp, "feature %s, EN bit 2 %s",
	       announced(APF_CPUID_ASYNC_PF_VMEXIT) ? "announced" : "not announced",
	       gp ? "raises #GP" : "is taken");
	return NULL;
}

/* The EAX of the leaf that names revisions of pf2; 0: there is none. */
static uint32_t pf2_revisions(void)
{
	for (uint32_t base = APF_CPUID_HYPERVISORS_FIRST; base <= APF_CPUID_HYPERVISORS_LAST;
	     base += APF_CPUID_HYPERVISORS_STEP) {
		struct cpuid r = cpuid(base);

		if (r.eax > base && r.ebx == APF_CPUID_PF2_EBX && r.ecx == APF_CPUID_PF2_ECX &&
		    r.edx == APF_CPUID_PF2_EDX)
			return cpuid(base + 1).eax;
	}
	return 0;
}

static const char *cpuid_pf2(uint64_t arg)
{
	uint32_t revisions = pf2_revisions() & (APF_CPUID_REV_PF2 | APF_CPUID_REV_PF2_STRICT);

	(void)arg;
	EXPECT(!revisions == !apf_is_pf2(), "revision bits %x", U(revisions));
	return NULL;
}

/* ---- EN ---- */

/* Before this kernel wrote anything. */
static const char *starts_as_zero(uint64_t msr)
{
	uint64_t v = msr == APF_MSR_EN ? setup.en_at_start : setup.ctl_at_start;

	EXPECT(v == 0, "%x read %x", msr, v);
	return NULL;
}

static const char *en_stores(uint64_t bits)
{
	return takes(APF_MSR_EN, (uint64_t)&areas[3] | bits);
}

/* arg: the bit. Alone, with the bits that enable, and while enabled. */
static const char *en_reserved(uint64_t bit)
{
	uint64_t old = (uint64_t)&areas[3];

	TRY(takes(APF_MSR_EN, old));
	TRY(refuses(APF_MSR_EN, 1ull << bit, old));
	TRY(refuses(APF_MSR_EN, apf_en(&areas[1]) | 1ull << bit, old));
	TRY(apf_on(&areas[2]));
	TRY(refuses(APF_MSR_EN, 1ull << bit, apf_en(&areas[2])));
	return NULL;
}

/* Nothing is bound yet, so any address will do. */
static const char *en_off_any_address(uint64_t arg)
{
	(void)arg;
	return takes(APF_MSR_EN, setup.outside_gpa);
}

static const char *area_outside(uint64_t address)
{
	uint64_t at = address ? address : setup.outside_gpa;

	EXPECT(wrmsr_safe(APF_MSR_EN, apf_en(NULL) | at), "no #GP for an area at %x", at);
	return NULL;
}

static const char *area_outside_kept(uint64_t arg)
{
	(void)arg;
	TRY(apf_on(&areas[2]));
	(void)wrmsr_safe(APF_MSR_EN, apf_en(NULL) | setup.outside_gpa);
	TRY(reads(APF_MSR_EN, apf_en(&areas[2])));
	return NULL;
}

static const char *area_at_end(uint64_t arg)
{
	(void)arg;
	if (!setup.ram_end)
		return skips("the loader gave no memory map");
	return apf_on((struct apf_area *)(setup.ram_end - sizeof(struct apf_area)));
}

/* ---- CTL ---- */

static const char *ctl_stores(uint64_t arg)
{
	static const uint8_t vectors[] = {0x10, 0x20, 0x7f, 0x80, 0xf3, 0xff};
	uint64_t enabled = apf_is_pf2() ? APF_PF2_ENABLED : 0;

	(void)arg;
	for (unsigned i = 0; i < sizeof(vectors); i++) {
		TRY(takes(APF_MSR_CTL, vectors[i]));
		TRY(takes(APF_MSR_CTL, vectors[i] | enabled));
	}
	return NULL;
}

static const char *ctl_reserved(uint64_t arg)
{
	(void)arg;
	TRY(takes(APF_MSR_CTL, READY_VECTOR));
	for (unsigned bit = apf_is_pf2() ? 9 : 8; bit < 64; bit++)
		TRY(refuses(APF_MSR_CTL, OTHER_VECTOR | 1ull << bit, READY_VECTOR));
	return NULL;
}

/* A register that the revision does not have. */
static const char *no_register(uint64_t msr)
{
	uint64_t v;

	EXPECT(rdmsr_safe((uint32_t)msr, &v), "no #GP on reading %x", msr);
	EXPECT(wrmsr_safe((uint32_t)msr, 0), "no #GP on writing 0 to %x", msr);
	EXPECT(wrmsr_safe((uint32_t)msr, 1), "no #GP on writing 1 to %x", msr);
	return NULL;
}

/* ---- ACK ---- */

/* At rest: nothing is due. Reads 0 whatever was written. */
static const char *ack_takes(uint64_t value)
{
	EXPECT(!wrmsr_safe(APF_MSR_ACK, value), "#GP on writing %x to %x", value,
	       U(APF_MSR_ACK));
	return reads(APF_MSR_ACK, 0);
}

static const struct check checks[] = {
	{"cpuid.signature", "the hypervisor's leaf says KVMKVMKVM", ALL_REVS, cpuid_signature, 0,
	 false},
	{"cpuid.en", "feature 4 and the register EN go together", ALL_REVS, cpuid_means_register,
	 APF_CPUID_ASYNC_PF, false},
	{"cpuid.int", "feature 14 and the register ACK go together", ALL_REVS,
	 cpuid_means_register, APF_CPUID_ASYNC_PF_INT, false},
	{"cpuid.vmexit", "feature 10 and EN bit 2 go together", REV(INT), cpuid_vmexit, 0, false},
	{"cpuid.pf2", "pf2 has leaves of its own, the others have not", ALL_REVS, cpuid_pf2, 0,
	 false},
	{"en.start", "EN is 0 at the start", ALL_REVS, starts_as_zero, APF_MSR_EN, false},
	{"en.address", "EN without bits stores the address", ALL_REVS, en_stores, 0, false},
	{"en.send-always", "EN stores bit 1", ALL_REVS, en_stores, APF_EN_SEND_ALWAYS, false},
	{"en.bit2", "EN stores bit 2", REV(LEGACY) | PF2_WIRE, en_stores, APF_EN_PF_VMEXIT, false},
	{"en.bit3", "EN stores bit 3", BY_IRQ, en_stores, APF_EN_INT, false},
	{"en.reserved-3", "EN refuses bit 3 and keeps its value", REV(LEGACY), en_reserved, 3,
	 false},
	{"en.reserved-4", "EN refuses bit 4 and keeps its value", ALL_REVS, en_reserved, 4, false},
	{"en.reserved-5", "EN refuses bit 5 and keeps its value", ALL_REVS, en_reserved, 5, false},
	{"en.off-anywhere", "EN that does not enable takes any address", ALL_REVS,
	 en_off_any_address, 0, false},
	{"area.outside", "an area where no RAM is is refused", ALL_REVS, area_outside, 0, false},
	{"area.beyond", "an area beyond all addresses is refused", ALL_REVS, area_outside,
	 1ull << 62, false},
	{"area.outside-kept", "after that EN has its old value", ALL_REVS, area_outside_kept, 0,
	 false},
	{"area.ram-end", "an area may be the last 64 bytes of RAM", ALL_REVS, area_at_end, 0,
	 false},
	{"ctl.start", "CTL is 0 at the start", BY_IRQ, starts_as_zero, APF_MSR_CTL, false},
	{"ctl.stores", "CTL stores vectors", BY_IRQ, ctl_stores, 0, false},
	{"ctl.reserved", "CTL refuses every reserved bit and keeps its value", BY_IRQ,
	 ctl_reserved, 0, false},
	{"ctl.none", "there is no CTL: refused", REV(LEGACY), no_register, APF_MSR_CTL, false},
	{"ack.zero", "ACK takes 0 and reads 0", REV(INT), ack_takes, 0, false},
	{"ack.one", "ACK takes 1 and reads 0", REV(INT), ack_takes, APF_ACK_READY, false},
	{"ack.other-bits", "ACK ignores its other bits", REV(INT), ack_takes, ACK_OTHER_BITS,
	 false},
	{"ack.none", "there is no ACK: refused", REV(LEGACY) | PF2_WIRE, no_register, APF_MSR_ACK,
	 false},
};

const struct check_list registers_checks = {checks, ARRAY_LEN(checks)};
