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

#ifndef KVM_MP_STATE_HALTED
#error "asm/kvm.h for x86 is needed"
#endif

#endif
