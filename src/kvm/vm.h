/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM must be set up with for user-space page fault events, and the little that
 * the small VMM needs to make one. Set-up time only, one thread.
 */
#ifndef KVM_VM_H
#define KVM_VM_H

#include "abi/apf.h"
#include "base/err.h"
#include "base/types.h"

struct kvm_run;
struct kvm_cpuid2;

/* ---- for any VMM's VM (libasyncpf) ---- */

struct kvm_msr_filter;

/* Whether it is a VM's descriptor: 0 or -EINVAL with text. */
int kvmp_vm_check(int vm_fd, struct err *e);
/*
 * Enables exception payloads and user-space MSR exits for the registers that concern us. 0 or
 * -Exxx; the text names the capability that is missing. ack_to_kvm: guests speak int, whose ACK
 * KVM accepts (the guest's CPUID has the feature), and has nothing to do for while its own async
 * page faults are off: an exit for each event is dear, and a look at the slot tells the same
 * (docs/decisions/0002).
 */
int kvmp_vm_prepare(int vm_fd, bool ack_to_kvm, struct err *e);
/* KVM takes no events of a vCPU's with payloads (KVM_SET_VCPU_EVENTS) before it. */
int kvmp_vm_exception_payload(int vm_fd, struct err *e);
/* KVM_X86_SET_MSR_FILTER with ours put before the VMM's; filter: NULL, or what the VMM wants. */
int kvmp_vm_msr_filter(int vm_fd, bool ack_to_kvm, const struct kvm_msr_filter *filter,
		       struct err *e);
/* KVM_CAP_X86_USER_SPACE_MSR with ours added. */
int kvmp_vm_msr_exits(int vm_fd, uint32_t exits, struct err *e);

/*
 * CPUID leaf 0x40000001 EAX as the guest should see it: the three APF bits of `eax` replaced
 * by `features`.
 */
uint32_t kvmp_cpuid_features(uint32_t eax, uint32_t features);

/* ---- for the small VMM ---- */

/* Opens /dev/kvm and makes a VM. The text says what to do. */
int kvmp_vm_open(int *ret_kvm_fd, int *ret_vm_fd, struct err *e);
/* After its vCPUs. Of what was not opened the descriptor is -1, here and below. */
void kvmp_vm_close(int kvm_fd, int vm_fd);
/*
 * Its interrupt controllers, and what else it needs before its first vCPU. That sets a grace period
 * of the kernel's (SRCU) in motion, for which apf_open and new memslots would wait 10 to 20 ms:
 * after those.
 */
int kvmp_vm_irqchip(int vm_fd, struct err *e);
int kvmp_vm_memory(int vm_fd, unsigned slot, gpa_t gpa, uint64_t bytes, hva_t hva, struct err *e);
/* The same slot, or a new one, with KVM's log of writes on or off; on, it starts empty. */
int kvmp_vm_memory_log(int vm_fd, unsigned slot, gpa_t gpa, uint64_t bytes, hva_t hva, bool log,
		       struct err *e);
/* Reads the log, a bit per page, and empties it. */
int kvmp_vm_log_take(int vm_fd, unsigned slot, uint64_t *ret, struct err *e);
/* Creates a vCPU and maps its kvm_run (unmap: kvmp_vcpu_close). */
int kvmp_vcpu_open(int kvm_fd, int vm_fd, unsigned id, int *ret_fd, struct kvm_run **ret_run,
		   struct err *e);
void kvmp_vcpu_close(int kvm_fd, int fd, struct kvm_run *run);
/*
 * What KVM offers to guests, in at most KVMP_CPUID_ENTRIES_MAX entries. A VMM changes it and gives
 * it to each vCPU before that runs. *ret is freed with free().
 */
#define KVMP_CPUID_ENTRIES_MAX 256
int kvmp_cpuid_supported(int kvm_fd, struct kvm_cpuid2 **ret, struct err *e);
int kvmp_vcpu_set_cpuid(int fd, unsigned id, const struct kvm_cpuid2 *c, struct err *e);
/* KVM's local APICs can tell time by the TSC (CPUID 1 ECX bit 24, which KVM does not set). */
bool kvmp_has_tsc_deadline(int kvm_fd);
/* MSR 0x1a0 as firmware leaves it: string operations are fast. */
int kvmp_vcpu_fast_strings(int fd, struct err *e);
/* The PC's timer, ports 0x40 to 0x43 and 0x61, on GSI 0. */
int kvmp_vm_pit(int vm_fd, struct err *e);
/* Drives an interrupt line. Any thread; does not block. */
void kvmp_vm_irq_line(int vm_fd, uint32_t gsi, bool level);
/*
 * The guest has set up its master 8259, or lets the line's pin of the IO-APIC through. Where it has
 * done neither, as after a reset, an interrupt of a line below 8 comes as an exception's vector.
 */
bool kvmp_vm_irq_is_expected(int vm_fd, uint32_t gsi);
/* Starts the vCPU in 64-bit mode at rip, CPL 0, interrupts off, RDI = arg. */
int kvmp_vcpu_long_mode(int fd, gpa_t cr3, uint64_t rip, uint64_t arg, struct err *e);

enum kvmp_mode {
	KVMP_PROTECTED, /* 32-bit protected mode, no paging */
	KVMP_LONG,      /* 64-bit mode, paging by cr3 */
};

/* The state in which a boot protocol hands over the first vCPU; what is not named is 0. */
struct kvmp_entry {
	enum kvmp_mode mode;
	uint64_t rip;
	uint64_t rax;
	uint64_t rbx;
	uint64_t rsi;
	uint64_t rsp;
	gpa_t cr3;          /* KVMP_LONG */
	gpa_t gdt;          /* in guest memory; the segments below must be what it says */
	uint16_t gdt_bytes; /* 0: no GDT */
	uint16_t code_selector;
	uint16_t data_selector;
	uint16_t tss_selector;
};

/* Puts the vCPU there: CPL 0, flat 4 GiB segments, interrupts off. */
int kvmp_vcpu_enter(int fd, const struct kvmp_entry *entry, struct err *e);
uint64_t kvmp_tsc_khz(int fd);

#endif
