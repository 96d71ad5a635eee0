/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paravirtual asynchronous page fault (APF) wire format: everything that a
 * host and a guest must agree on, and nothing else. Header only, freestanding,
 * included by both halves; a value that only one half needs does not belong here.
 *
 * Sources: Linux Documentation/virt/kvm/x86/msr.rst and cpuid.rst for `legacy`
 * and `int`; the "interrupt based APF page-ready event delivery" proposal of
 * April 2020 for `pf2`.
 */
#ifndef ABI_APF_H
#define ABI_APF_H

#include <stdint.h>

/* CPUID leaf 0x40000001, EAX bits (cpuid.rst). */
#define APF_CPUID_LEAF_FEATURES 0x40000001u
#define APF_CPUID_ASYNC_PF (1u << 4)
#define APF_CPUID_ASYNC_PF_VMEXIT (1u << 10)
#define APF_CPUID_ASYNC_PF_INT (1u << 14)

/*
 * pf2 has no bit there: a mainline guest would take its control register for int's. It has a
 * block of hypervisor leaves of its own, which guests find by the signature in EBX, ECX, EDX,
 * at any 0x40000000 + n * 0x100. This place is behind those where Hyper-V, Xen and KVM are
 * found in one VM. The leaf after the first has the revisions in EAX.
 */
#define APF_CPUID_PF2_BASE 0x40000300u
#define APF_CPUID_PF2_LEAVES 2u
#define APF_CPUID_PF2_EBX 0x6e797361u /* "asyncpf pf2" */
#define APF_CPUID_PF2_ECX 0x20667063u
#define APF_CPUID_PF2_EDX 0x00326670u
#define APF_CPUID_REV_PF2 (1u << 0)
#define APF_CPUID_REV_PF2_STRICT (1u << 1)
#define APF_CPUID_HYPERVISORS_FIRST 0x40000000u
#define APF_CPUID_HYPERVISORS_LAST 0x4000ff00u
#define APF_CPUID_HYPERVISORS_STEP 0x100u
#define APF_CPUID_1_ECX_HYPERVISOR (1u << 31)

/* MSR_KVM_ASYNC_PF_EN: the area's address and the switches. */
#define APF_MSR_EN 0x4b564d02u
#define APF_EN_ENABLED (1ull << 0)
#define APF_EN_SEND_ALWAYS (1ull << 1) /* page missing may be sent at CPL 0 */
#define APF_EN_PF_VMEXIT (1ull << 2)   /* in L2: a #PF exit to L1 */
#define APF_EN_INT (1ull << 3)         /* page ready by interrupt (pf2, int) */
#define APF_EN_GPA_MASK (~0x3full)     /* 64-byte aligned by construction */

/*
 * 0x4b564d06 is one register with two layouts: MSR_KVM_ASYNC_PF2 in `pf2`
 * (vector and enable bit), MSR_KVM_ASYNC_PF_INT in `int` (vector alone).
 */
#define APF_MSR_CTL 0x4b564d06u
#define APF_CTL_VECTOR_MASK 0xffull
#define APF_PF2_ENABLED (1ull << 8)

/* MSR_KVM_ASYNC_PF_ACK (`int` only): bit 0 says "the slot is free, look again". */
#define APF_MSR_ACK 0x4b564d07u
#define APF_ACK_READY (1ull << 0)

/* Reasons. `int` uses only PAGE_MISSING, as bit 0 of its flags word. */
#define APF_REASON_MISSING 1u
#define APF_REASON_READY 2u

/* A page-ready token that stands for every token of the vCPU: "wake-all". */
#define APF_TOKEN_WAKE_ALL 0xffffffffu

/* token = id << 12 | vCPU id. 0 never occurs: it means "slot free". */
#define APF_TOKEN_VCPU_BITS 12
#define APF_TOKEN_VCPU_MASK ((1u << APF_TOKEN_VCPU_BITS) - 1)

/* Error code of the synthetic #PF: P=0, W=0, U=0, whatever the access was. */
#define APF_PF_ERROR_CODE 0u
#define APF_PF_VECTOR 14

/*
 * The guest's 64-byte area. The word at 0 is `reason` in legacy and pf2 (1 or
 * 2), `flags` in int (bit 0 = page missing). The word at 4 is the token; legacy
 * does not use it. pf2 stores both words at once, int only ever one of them.
 */
struct apf_area {
	uint32_t reason;
	uint32_t token;
	uint32_t pad[14];
};

_Static_assert(sizeof(struct apf_area) == 64, "the APF area is 64 bytes on the wire");
_Static_assert(__builtin_offsetof(struct apf_area, reason) == 0, "reason/flags at 0");
_Static_assert(__builtin_offsetof(struct apf_area, token) == 4, "token at 4");

/*
 * The revisions. `pf2-strict` is pf2 with the hazards of the founding text left
 * in; it differs from pf2 in behaviour, not on the wire.
 */
enum apf_rev {
	APF_REV_OFF = 0,
	APF_REV_LEGACY = 1,
	APF_REV_PF2 = 2,
	APF_REV_PF2_STRICT = 3,
	APF_REV_INT = 4,
};

#endif
