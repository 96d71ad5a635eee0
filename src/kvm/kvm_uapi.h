/* SPDX-License-Identifier: Apache-2.0 */
/* KVM's own headers, with names that clash or are missing settled in one place. */
#ifndef KVM_KVM_UAPI_H
#define KVM_KVM_UAPI_H

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <errno.h>

/*
 * Every KVM call but KVM_RUN: repeated while interrupted. Locks of KVM are interruptible,
 * and the kernel interrupts a thread without any signal to run deferred work in it (the end
 * of an io_uring, for one). As ioctl: -1 and errno.
 */
static inline int kvmp_ioctl(int fd, unsigned long request, unsigned long arg)
{
	int rc;

	do
		rc = ioctl(fd, request, arg);
	while (rc < 0 && errno == EINTR);
	return rc;
}

#define KVMP_IOCTL(fd, request, ptr) kvmp_ioctl(fd, request, (unsigned long)(ptr))

/* Linux 6.11; Debian 12's headers are older. */
#ifndef KVM_CAP_PRE_FAULT_MEMORY
#define KVM_CAP_PRE_FAULT_MEMORY 236
#define KVM_PRE_FAULT_MEMORY _IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)
struct kvm_pre_fault_memory {
	__u64 gpa;
	__u64 size;
	__u64 flags;
	__u64 padding[5];
};
#endif

/* Flags of struct kvm_run; Debian 12's headers lack the newer ones. */
#ifndef KVM_RUN_X86_GUEST_MODE
#define KVM_RUN_X86_GUEST_MODE (1 << 2)
#endif

#ifndef KVM_MP_STATE_HALTED
#error "asm/kvm.h for x86 is needed"
#endif

#endif
