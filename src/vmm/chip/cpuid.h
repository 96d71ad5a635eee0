/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest's processor says about itself, from what KVM offers: its local APIC, which
 * processors share a package and a cache, and what a hypervisor owes its guests. The machine
 * has one package, each processor is a core of it, and a core has one thread.
 *
 * Pure. Facts: Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E; Linux's cpuid.rst for
 * 0x40000001. Test: tests/unit/cpuid_test.c.
 */
#ifndef VMM_CPUID_H
#define VMM_CPUID_H

#include "base/types.h"
#include "kvm/kvm_uapi.h"

struct cpuid_cfg {
	unsigned cpus;     /* 1..16, local APIC identifiers 0 to cpus - 1 */
	bool tsc_deadline; /* the local APIC can tell time by the TSC */
};

/*
 * Changes what KVM offers into what every processor of the machine shows but for its
 * identifier. c has room for `max` entries; what does not fit is left out.
 */
void cpuid_adapt(struct kvm_cpuid2 *c, unsigned max, const struct cpuid_cfg *cfg);

/* Puts the identifier of one processor in. May be repeated with another one. */
void cpuid_set_id(struct kvm_cpuid2 *c, uint32_t apic_id);

/* An entry, to be changed in place, or NULL. */
struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *c, uint32_t function, uint32_t index);

#endif
