/* SPDX-License-Identifier: Apache-2.0 */
/* See registers.h. */
#include <errno.h>
#include <string.h>

#include "abi/apf.h"
#include "abi/pv.h"
#include "kvm/kvm_uapi.h"
#include "kvm/registers.h"

#define RESET_MARK 0xf0 /* any vector but 0 */
#define MSRS_MAX 5

/* struct kvm_msrs ends in a flexible array: the entries lie right behind it. */
union msrs {
	struct kvm_msrs head;
	unsigned char bytes[sizeof(struct kvm_msrs) + MSRS_MAX * sizeof(struct kvm_msr_entry)];
};

static void msrs_put(union msrs *m, const struct kvm_msr_entry *entries, unsigned n)
{
	memset(m, 0, sizeof(*m));
	m->head.nmsrs = n;
	memcpy(m->bytes + sizeof(m->head), entries, n * sizeof(*entries));
}

/* How many were set: KVM stops at the first that it refuses. */
static int msrs_set(int fd, const struct kvm_msr_entry *entries, unsigned n)
{
	union msrs m;
	int done;

	msrs_put(&m, entries, n);
	done = KVMP_IOCTL(fd, KVM_SET_MSRS, &m);
	return done < 0 ? -errno : done;
}

/* False: this KVM has no such register. */
static bool msr_get(int fd, uint32_t msr, uint64_t *ret)
{
	struct kvm_msr_entry entry = {.index = msr};
	union msrs m;

	msrs_put(&m, &entry, 1);
	if (KVMP_IOCTL(fd, KVM_GET_MSRS, &m) != 1)
		return false;
	memcpy(&entry, m.bytes + sizeof(m.head), sizeof(entry));
	*ret = entry.data;
	return true;
}

int kvmp_msr_set(int vcpu_fd, uint32_t msr, uint64_t value)
{
	const struct kvm_msr_entry entry = {.index = msr, .data = value};
	int done = msrs_set(vcpu_fd, &entry, 1);

	return done < 0 ? done : done == 1 ? 0 : -EINVAL;
}

void kvmp_registers_take(struct kvmp_vcpu *v, bool protocol, struct plat_registers *ret)
{
	*ret = (struct plat_registers){.changed = false};
	for (unsigned i = 0; i < PV_AREAS; i++)
		if (i == PV_WALL_CLOCK ||
		    !msr_get(v->fd, pv_area_msr((enum pv_area)i), &ret->area[i]))
			ret->area[i] = 0;
	if (!protocol || !msr_get(v->fd, APF_MSR_EN, &ret->en) ||
	    !msr_get(v->fd, APF_MSR_CTL, &ret->ctl))
		return;
	ret->changed = ret->en != v->shown_en || ret->ctl != v->shown_ctl;
	v->en_left = ret->en != 0;
}

void kvmp_registers_clear(struct kvmp_vcpu *v)
{
	if (v->en_left)
		(void)kvmp_msr_set(v->fd, APF_MSR_EN, 0);
	v->en_left = false;
}

void kvmp_registers_show(struct kvmp_vcpu *v, uint64_t en, uint64_t ctl)
{
	v->shown_en = 0;
	v->shown_ctl = 0;
	/* CTL takes away the mark, too. KVM has no room for pf2's enable bit, and refuses it. */
	if (v->marked || ctl != 0)
		(void)kvmp_msr_set(v->fd, APF_MSR_CTL, ctl & APF_CTL_VECTOR_MASK);
	v->marked = false;
	if (en == 0)
		kvmp_registers_clear(v);
	if (en == 0 && ctl == 0)
		return;
	(void)kvmp_msr_set(v->fd, APF_MSR_EN, en);
	v->en_left = false;
	/* What it took of it is what counts as unchanged later. */
	(void)msr_get(v->fd, APF_MSR_EN, &v->shown_en);
	(void)msr_get(v->fd, APF_MSR_CTL, &v->shown_ctl);
}

/* A guest that switches tasks by hardware loads it all the time. */
#define TR_MARKS_MAX 64u

static void mark_task_register(struct kvmp_vcpu *v)
{
	struct kvm_sregs s;

	v->tr_marked = false;
	if (v->tr_marks == TR_MARKS_MAX || KVMP_IOCTL(v->fd, KVM_GET_SREGS, &s) < 0)
		return;
	v->tr_marks++;
	if (!s.tr.avl) {
		s.tr.avl = 1;
		if (KVMP_IOCTL(v->fd, KVM_SET_SREGS, &s) < 0)
			return;
	}
	v->tr_base = s.tr.base;
	v->tr_marked = true;
}

void kvmp_reset_watch(struct kvmp_vcpu *v)
{
	if (v->marked)
		return;
	v->marked = kvmp_msr_set(v->fd, APF_MSR_CTL, RESET_MARK) == 0;
	if (v->marked)
		mark_task_register(v);
}

bool kvmp_reset_seen(struct kvmp_vcpu *v, bool nested)
{
	const struct kvm_segment *tr = &v->run->s.regs.sregs.tr;
	uint64_t value;

	if (!v->marked || (v->tr_marked && tr->avl && tr->base == v->tr_base))
		return false;
	if (!msr_get(v->fd, APF_MSR_CTL, &value))
		return false;
	if (value != RESET_MARK) {
		v->marked = false;
		v->tr_marks = 0;
		return true;
	}
	/* It was loaded anew; a guest of the guest's has one of its own. */
	if (v->tr_marked && !nested)
		mark_task_register(v);
	return false;
}

/*
 * KVM takes an address for its end-of-interrupt flag only where it has a memslot that may be
 * written (kvm_gfn_to_hva_cache_init), and does not touch it before the guest runs. What was
 * there before is put back.
 */
bool kvmp_is_writable(struct kvmp_vcpu *v, gpa_t gpa)
{
	uint64_t before;
	bool yes;

	if (!msr_get(v->fd, PV_MSR_EOI, &before))
		return true;
	yes = kvmp_msr_set(v->fd, PV_MSR_EOI, (gpa.v & ~3ull) | 1) == 0;
	/* Not even what is there is accepted: this VM has no such register, and nobody knows. */
	if (kvmp_msr_set(v->fd, PV_MSR_EOI, before) < 0)
		return true;
	return yes;
}

#define LAPIC_ID 0x20
#define APIC_BASE_X2APIC (1ull << 10)

void kvmp_apic_id_find(const struct kvmp *k, struct kvmp_vcpu *v)
{
	uint64_t base = v->run->s.regs.sregs.apic_base;
	struct kvm_lapic_state lapic;
	uint32_t id;

	if (KVMP_IOCTL(v->fd, KVM_GET_LAPIC, &lapic) < 0)
		return;
	memcpy(&id, lapic.regs + LAPIC_ID, sizeof(id));
	/* Bits 31:24, but for an x2APIC whose VMM has asked for all 32 (KVM_CAP_X2APIC_API). */
	if (!k->x2apic_ids || !(base & APIC_BASE_X2APIC))
		id >>= 24;
	v->apic_base = base;
	__atomic_store_n(&v->apic_id, id, __ATOMIC_RELEASE);
}
