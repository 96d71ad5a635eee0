/* SPDX-License-Identifier: Apache-2.0 */
/* KVM's own headers, with names that clash or are missing settled in one place. */
#ifndef KVM_KVM_UAPI_H
#define KVM_KVM_UAPI_H

#include <linux/kvm.h>
#include <sys/ioctl.h>

#ifndef KVM_MP_STATE_HALTED
#error "asm/kvm.h for x86 is needed"
#endif

#endif
