/* SPDX-License-Identifier: Apache-2.0 */
/* See reset_mark.h. */
#include <string.h>

#include "abi/apf.h"
#include "kvm/kvm_uapi.h"
#include "kvm/reset_mark.h"

#define MARK 0xf0 /* any vector but 0 */

/* struct kvm_msrs ends in a flexible array: the entry lies right behind it. */
union one_msr {
	struct kvm_msrs head;
	unsigned char bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

static void make(union one_msr *m, uint64_t value)
{
	const struct kvm_msr_entry entry = {.index = APF_MSR_CTL, .data = value};

	memset(m, 0, sizeof(*m));
	m->head.nmsrs = 1;
	memcpy(m->bytes + sizeof(m->head), &entry, sizeof(entry));
}

bool kvmp_reset_mark_set(int vcpu_fd)
{
	union one_msr m;

	make(&m, MARK);
	/* Both calls answer how many registers they did. */
	return KVMP_IOCTL(vcpu_fd, KVM_SET_MSRS, &m) == 1;
}

bool kvmp_reset_mark_is_gone(int vcpu_fd)
{
	struct kvm_msr_entry entry;
	union one_msr m;

	make(&m, 0);
	if (KVMP_IOCTL(vcpu_fd, KVM_GET_MSRS, &m) != 1)
		return false;
	memcpy(&entry, m.bytes + sizeof(m.head), sizeof(entry));
	return entry.data != MARK;
}
