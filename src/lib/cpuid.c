/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest finds of us in its CPUID. Test: tests/integration/lib_test.c. */
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>

#include "kvm/vm.h"
#include "lib/internal.h"

/*
 * KVM_FEATURE_PV_UNHALT (cpuid.rst): a guest halts until another processor kicks it. A kick
 * that meets a vCPU which we hold halted for a fault would be used up by that, and the HLT
 * that it was meant for would wait for ever.
 */
#define CPUID_PV_UNHALT (1u << 7)

static uint32_t features_of(const struct apf *a)
{
	return lib_speaks(&a->cfg) ? eng_features((enum apf_rev)a->cfg.abi) : 0;
}

uint32_t apf_cpuid_features(const struct apf *a, uint32_t eax)
{
	switch (a->cfg.faults) {
	case APF_FAULTS_KERNEL:
		return eax;
	case APF_FAULTS_USER:
	case APF_FAULTS_STALL:
		return kvmp_cpuid_features(eax & ~CPUID_PV_UNHALT, features_of(a));
	case APF_FAULTS_BLOCK:
		break;
	}
	return kvmp_cpuid_features(eax, features_of(a));
}

_Static_assert(APF_CPUID_FIRST == APF_CPUID_PF2_BASE, "the public name of the same leaf");

int apf_cpuid_leaf(const struct apf *a, uint32_t leaf, uint32_t ret[4])
{
	bool strict = a->cfg.abi == APF_ABI_PF2_STRICT;

	if (!lib_speaks(&a->cfg) || (a->cfg.abi != APF_ABI_PF2 && !strict))
		return -ENOENT;
	memset(ret, 0, 4 * sizeof(ret[0]));
	switch (leaf) {
	case APF_CPUID_PF2_BASE:
		ret[0] = APF_CPUID_PF2_BASE + APF_CPUID_PF2_LEAVES - 1;
		ret[1] = APF_CPUID_PF2_EBX;
		ret[2] = APF_CPUID_PF2_ECX;
		ret[3] = APF_CPUID_PF2_EDX;
		return 0;
	case APF_CPUID_PF2_BASE + 1:
		ret[0] = strict ? APF_CPUID_REV_PF2_STRICT : APF_CPUID_REV_PF2;
		return 0;
	default:
		return -ENOENT;
	}
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *c, uint32_t leaf)
{
	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf)
			return &c->entries[i];
	return NULL;
}

static struct kvm_cpuid_entry2 *find_or_add(struct kvm_cpuid2 *c, unsigned room, uint32_t leaf)
{
	struct kvm_cpuid_entry2 *e = find(c, leaf);

	if (e || c->nent >= room)
		return e;
	e = &c->entries[c->nent++];
	*e = (struct kvm_cpuid_entry2){.function = leaf};
	return e;
}

/* Where guests look for a hypervisor: at every step, as Linux does. */
#define BASE_FIRST 0x40000000u
#define BASE_END 0x40010000u
#define BASE_STEP 0x100u

static const char kvm_signature[12] = "KVMKVMKVM\0\0"; /* cpuid.rst */

static bool is_signed(const struct kvm_cpuid_entry2 *e, const char signature[static 12])
{
	return memcmp(&e->ebx, signature, 4) == 0 && memcmp(&e->ecx, signature + 4, 4) == 0 &&
	       memcmp(&e->edx, signature + 8, 4) == 0;
}

/* Nobody has it, nor will: a leaf of zeroes is nobody's. */
static bool is_free(struct kvm_cpuid2 *c, uint32_t base)
{
	static const char none[12];
	const struct kvm_cpuid_entry2 *e = find(c, base);

	return (!e || is_signed(e, none)) && base != APF_CPUID_FIRST;
}

/* Where KVM's leaves are, or are to be: another hypervisor's may come first. */
static uint32_t kvm_base(struct kvm_cpuid2 *c)
{
	uint32_t base;

	for (base = BASE_FIRST; base < BASE_END; base += BASE_STEP) {
		const struct kvm_cpuid_entry2 *e = find(c, base);

		if (e && is_signed(e, kvm_signature))
			return base;
	}
	for (base = BASE_FIRST; base < BASE_END && !is_free(c, base);)
		base += BASE_STEP;
	return base;
}

/* The features that KVM has under its signature. */
static struct kvm_cpuid_entry2 *kvm_features(struct kvm_cpuid2 *c, unsigned room)
{
	uint32_t leaf = kvm_base(c);
	struct kvm_cpuid_entry2 *base = find_or_add(c, room, leaf);
	struct kvm_cpuid_entry2 *e = find_or_add(c, room, leaf + 1);

	if (!base || !e)
		return NULL;
	memcpy(&base->ebx, kvm_signature, 4);
	memcpy(&base->ecx, kvm_signature + 4, 4);
	memcpy(&base->edx, kvm_signature + 8, 4);
	base->eax = base->eax > leaf + 1 ? base->eax : leaf + 1;
	return e;
}

int apf_cpuid_fill(const struct apf *a, struct kvm_cpuid2 *c, unsigned room)
{
	struct kvm_cpuid_entry2 *e = find(c, 1);
	uint32_t regs[4];

	if (e)
		e->ecx |= APF_CPUID_1_ECX_HYPERVISOR;
	e = kvm_features(c, room);
	if (!e)
		return -E2BIG;
	e->eax = apf_cpuid_features(a, e->eax);
	for (uint32_t leaf = APF_CPUID_FIRST; apf_cpuid_leaf(a, leaf, regs) == 0; leaf++) {
		e = find_or_add(c, room, leaf);
		if (!e)
			return -E2BIG;
		e->eax = regs[0];
		e->ebx = regs[1];
		e->ecx = regs[2];
		e->edx = regs[3];
	}
	return 0;
}
