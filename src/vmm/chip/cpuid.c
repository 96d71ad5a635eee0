/* SPDX-License-Identifier: Apache-2.0 */
/* See cpuid.h. */
#include "vmm/chip/cpuid.h"

#define LEAF_FEATURES 0x1u
#define LEAF_CACHES 0x4u
#define LEAF_TOPOLOGY 0xbu
#define LEAF_TOPOLOGY_2 0x1fu
#define LEAF_AMD_FEATURES 0x80000001u
#define LEAF_AMD_SIZES 0x80000008u
#define LEAF_AMD_CACHES 0x8000001du
#define LEAF_AMD_TOPOLOGY 0x8000001eu

/* Leaf 1, ECX and EDX. */
#define ECX_VMX (1u << 5)
#define ECX_TSC_DEADLINE (1u << 24)
#define ECX_HYPERVISOR (1u << 31)
#define EDX_HTT (1u << 28) /* EBX says how many processors a package has */

/* Leaf 0, EBX: the first letters of "AuthenticAMD" and "HygonGenuine". */
#define EBX_AMD 0x68747541u
#define EBX_HYGON 0x6f677948u

/* Leaf 0x80000001, ECX. */
#define AMD_ECX_CMP_LEGACY (1u << 1)
#define AMD_ECX_SVM (1u << 2)

/* Leaf 0xb, ECX bits 8-15. */
enum level_type { LEVEL_END = 0, LEVEL_THREAD = 1, LEVEL_CORE = 2 };

#define CACHE_LEVEL(eax) ((eax) >> 5 & 7)
#define CACHE_LEVEL_SHARED 3u /* and above: all cores use it together */

/* Bits of an APIC identifier that tell the cores of the package apart. */
static unsigned core_bits(unsigned cpus)
{
	return cpus > 1 ? 32u - (unsigned)__builtin_clz(cpus - 1) : 0;
}

struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *c, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	return NULL;
}

static void features(struct kvm_cpuid_entry2 *e, const struct cpuid_cfg *cfg)
{
	e->ebx = (e->ebx & 0xff00ffffu) | 1u << core_bits(cfg->cpus) << 16;
	/* Guests of the guest are not served (docs/caveats.md). */
	e->ecx = (e->ecx & ~(ECX_VMX | ECX_TSC_DEADLINE)) | ECX_HYPERVISOR;
	if (cfg->tsc_deadline)
		e->ecx |= ECX_TSC_DEADLINE;
	e->edx &= ~EDX_HTT;
	if (cfg->cpus > 1)
		e->edx |= EDX_HTT;
}

/* Leaf 4, and AMD's like it: who uses a cache, and (Intel) how many cores may be there. */
static void cache(struct kvm_cpuid_entry2 *e, const struct cpuid_cfg *cfg)
{
	uint32_t cores = (1u << core_bits(cfg->cpus)) - 1;
	uint32_t sharing = CACHE_LEVEL(e->eax) >= CACHE_LEVEL_SHARED ? cores : 0;

	if ((e->eax & 0x1f) == 0)
		return; /* the end of the list */
	e->eax = (e->eax & 0x3fffu) | sharing << 14;
	if (e->function == LEAF_CACHES)
		e->eax |= cores << 26;
}

static void add(struct kvm_cpuid2 *c, unsigned max, const struct kvm_cpuid_entry2 *e)
{
	if (c->nent < max)
		c->entries[c->nent++] = *e;
}

static void drop(struct kvm_cpuid2 *c, uint32_t function)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function != function)
			c->entries[kept++] = c->entries[i];
	c->nent = kept;
}

/* Leaf 0xb: threads of a core, cores of the package, the end. EDX is cpuid_set_id's. */
static void topology(struct kvm_cpuid2 *c, unsigned max, const struct cpuid_cfg *cfg)
{
	struct kvm_cpuid_entry2 e = {
		.function = LEAF_TOPOLOGY, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};

	drop(c, LEAF_TOPOLOGY);
	drop(c, LEAF_TOPOLOGY_2);
	e.ebx = 1;
	e.ecx = LEVEL_THREAD << 8;
	add(c, max, &e);
	e.index = 1;
	e.eax = core_bits(cfg->cpus);
	e.ebx = cfg->cpus;
	e.ecx = LEVEL_CORE << 8 | 1;
	add(c, max, &e);
	e.index = 2;
	e.eax = e.ebx = 0;
	e.ecx = LEVEL_END << 8 | 2;
	add(c, max, &e);
}

/* What others leave zero. */
static void amd_cores(struct kvm_cpuid_entry2 *e, const struct cpuid_cfg *cfg)
{
	if (e->function == LEAF_AMD_FEATURES) {
		e->ecx &= ~AMD_ECX_CMP_LEGACY;
		if (cfg->cpus > 1)
			e->ecx |= AMD_ECX_CMP_LEGACY;
	} else {
		/* How many cores, and how many bits their identifiers have. */
		e->ecx = (e->ecx & ~0xf0ffu) | core_bits(cfg->cpus) << 12 | (cfg->cpus - 1);
	}
}

void cpuid_adapt(struct kvm_cpuid2 *c, unsigned max, const struct cpuid_cfg *cfg)
{
	const struct kvm_cpuid_entry2 *first = cpuid_find(c, 0, 0);
	bool amd = first && (first->ebx == EBX_AMD || first->ebx == EBX_HYGON);

	for (uint32_t i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];

		switch (e->function) {
		case LEAF_FEATURES:
			features(e, cfg);
			break;
		case LEAF_CACHES:
		case LEAF_AMD_CACHES:
			cache(e, cfg);
			break;
		case LEAF_AMD_FEATURES:
			e->ecx &= ~AMD_ECX_SVM;
			if (amd)
				amd_cores(e, cfg);
			break;
		case LEAF_AMD_SIZES:
			if (amd)
				amd_cores(e, cfg);
			break;
		default:
			break;
		}
	}
	if (first && first->eax >= LEAF_TOPOLOGY)
		topology(c, max, cfg);
}

void cpuid_set_id(struct kvm_cpuid2 *c, uint32_t apic_id)
{
	for (uint32_t i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];

		switch (e->function) {
		case LEAF_FEATURES:
			e->ebx = (e->ebx & 0x00ffffffu) | apic_id << 24;
			break;
		case LEAF_TOPOLOGY:
			e->edx = apic_id;
			break;
		case LEAF_AMD_TOPOLOGY:
			/* A core of one thread, in the only node. */
			e->eax = apic_id;
			e->ebx = apic_id & 0xff;
			e->ecx = 0;
			break;
		default:
			break;
		}
	}
}
