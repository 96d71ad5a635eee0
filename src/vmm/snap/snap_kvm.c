/* SPDX-License-Identifier: Apache-2.0 */
/* See snap_kvm.h. */
#include "vmm/snap/snap_kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "abi/apf.h"
#include "abi/pv.h"
#include "base/time.h"
#include "kvm/kvm_uapi.h"
#include "kvm/vm.h"

#define VERSION 1u
#define MSRS_MAX 1024u
#define XSAVE_BYTES_MAX (1u << 20)
#define APF_BYTES_MAX (1u << 20)
#define PDPT_MASK 0xffffffe0ull /* of CR3: where its four entries are */
#define MSR_TSC 0x10u
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_SYSCALL 0xc0000082u
#define MSR_KERNEL_GS 0xc0000102u
#define MSR_AREA_ON 1u /* bit 0 of a register that names an area: it is used */

/* One ioctl's struct, as the kernel's ABI has it. */
struct part {
	const char *name;
	unsigned long get, set;
	size_t len;
};

/* SDM 3A, 11.12: segments tell the local APIC's mode; what is behind it needs one. */
static const struct part parts_before[] = {
	{"vcpu.sregs", KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs)},
	{"vcpu.regs", KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs)},
	{"vcpu.xcrs", KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs)},
	{"vcpu.debug", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs)},
	{"vcpu.lapic", KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state)},
};
static const struct part parts_behind[] = {
	{"vcpu.events", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
	 sizeof(struct kvm_vcpu_events)},
	{"vcpu.mp_state", KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state)},
};

union part_bytes {
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
};

static struct snap_key key(const char *name, unsigned index)
{
	return (struct snap_key){name, index, VERSION};
}

static int save_part(const struct snap_vcpu *v, const struct part *p, struct snap_out *o,
		     struct err *e)
{
	union part_bytes bytes;

	memset(&bytes, 0, sizeof(bytes));
	if (KVMP_IOCTL(v->fd, p->get, &bytes) < 0)
		return err_sys(e, -errno, "snapshot: %s of vCPU %u", p->name, v->index);
	snap_put(o, key(p->name, v->index), &bytes, p->len);
	return 0;
}

static int restore_part(const struct snap_vcpu *v, const struct part *p, const struct snap_in *in,
			struct err *e)
{
	union part_bytes bytes;
	int rc = snap_take(in, key(p->name, v->index), &bytes, p->len, e);

	if (rc == 0 && KVMP_IOCTL(v->fd, p->set, &bytes) < 0)
		rc = err_sys(e, -errno, "snapshot: this host does not take %s of vCPU %u",
			     p->name, v->index);
	return rc;
}

/*
 * KVM_SET_SREGS of a guest that pages by PAE has KVM load the four entries that CR3 points to
 * (SDM 3A, 4.4.1), and what is absent then counts as zero, without a word.
 */
int snap_vcpu_pdptes(const struct snap_in *in, unsigned index, uint64_t *ret, struct err *e)
{
	struct kvm_sregs s;
	int rc = snap_take(in, key("vcpu.sregs", index), &s, sizeof(s), e);

	if (rc < 0 || !(s.cr0 & CR0_PG) || !(s.cr4 & CR4_PAE) || (s.efer & EFER_LMA))
		return rc;
	*ret = s.cr3 & PDPT_MASK;
	return 1;
}

/* ---- FPU ---- */

/* Larger than struct kvm_xsave where the guest may have AMX. */
static size_t xsave_bytes(int vm_fd)
{
	int bytes = KVMP_IOCTL(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

	return bytes > (int)sizeof(struct kvm_xsave) ? (size_t)bytes : sizeof(struct kvm_xsave);
}

static int save_xsave(const struct snap_vcpu *v, struct snap_out *o, struct err *e)
{
	size_t len = xsave_bytes(v->vm_fd);
	void *bytes = calloc(1, len);
	int rc = 0;

	if (!bytes)
		return err_sys(e, -ENOMEM, "snapshot: FPU of vCPU %u", v->index);
	if (KVMP_IOCTL(v->fd, len > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE,
		       bytes) < 0)
		rc = err_sys(e, -errno, "snapshot: FPU of vCPU %u", v->index);
	else
		snap_put(o, key("vcpu.xsave", v->index), bytes, len);
	free(bytes);
	return rc;
}

static int restore_xsave(const struct snap_vcpu *v, const struct snap_in *in, struct err *e)
{
	size_t room = xsave_bytes(v->vm_fd), len;
	const void *bytes;
	void *copy;
	int rc = snap_find(in, key("vcpu.xsave", v->index), XSAVE_BYTES_MAX, &bytes, &len, e);

	if (rc < 0)
		return rc;
	/* KVM reads as much as it has itself. */
	copy = calloc(1, max_u64(room, len));
	if (!copy)
		return err_sys(e, -ENOMEM, "snapshot: FPU of vCPU %u", v->index);
	memcpy(copy, bytes, len);
	if (KVMP_IOCTL(v->fd, KVM_SET_XSAVE, copy) < 0)
		rc = err_sys(e, -errno, "snapshot: this host does not take the FPU of vCPU %u",
			     v->index);
	free(copy);
	return rc;
}

/* ---- MSRs ---- */

/* struct kvm_msrs ends in a flexible array. */
struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry;
};

static bool msr_get(int fd, uint32_t msr, uint64_t *ret)
{
	struct one_msr m = {.head.nmsrs = 1, .entry.index = msr};

	if (KVMP_IOCTL(fd, KVM_GET_MSRS, &m) != 1)
		return false;
	*ret = m.entry.data;
	return true;
}

static bool msr_set(int fd, uint32_t msr, uint64_t value)
{
	struct one_msr m = {.head.nmsrs = 1, .entry = {.index = msr, .data = value}};

	return KVMP_IOCTL(fd, KVM_SET_MSRS, &m) == 1;
}

static bool is_listed(const uint32_t *list, unsigned count, uint32_t msr)
{
	for (unsigned i = 0; i < count; i++)
		if (list[i] == msr)
			return true;
	return false;
}

static void add_msr(int fd, uint32_t msr, struct kvm_msr_entry *list, unsigned *count)
{
	uint64_t value;

	if (*count < MSRS_MAX && msr_get(fd, msr, &value))
		list[(*count)++] = (struct kvm_msr_entry){.index = msr, .data = value};
}

/* The order of restoring: the TSC, what KVM names, the deadline, what the library names. */
static int save_msrs(const struct snap_vcpu *v, struct snap_out *o, struct err *e)
{
	struct kvm_msr_list *names = calloc(1, sizeof(*names) + MSRS_MAX * sizeof(uint32_t));
	struct kvm_msr_entry *list = calloc(MSRS_MAX, sizeof(*list));
	unsigned last_count, count = 0;
	const uint32_t *last = apf_vcpu_msr_list(v->a, &last_count);
	int rc = 0;

	if (names)
		names->nmsrs = MSRS_MAX;
	if (!names || !list) {
		rc = err_sys(e, -ENOMEM, "snapshot: MSRs of vCPU %u", v->index);
	} else if (KVMP_IOCTL(v->kvm_fd, KVM_GET_MSR_INDEX_LIST, names) < 0) {
		rc = err_sys(e, -errno, "snapshot: names of MSRs");
	} else {
		add_msr(v->fd, MSR_TSC, list, &count);
		for (unsigned i = 0; i < names->nmsrs; i++)
			if (names->indices[i] != MSR_TSC && names->indices[i] != MSR_TSC_DEADLINE &&
			    !is_listed(last, last_count, names->indices[i]))
				add_msr(v->fd, names->indices[i], list, &count);
		add_msr(v->fd, MSR_TSC_DEADLINE, list, &count);
		for (unsigned i = 0; i < last_count; i++)
			add_msr(v->fd, last[i], list, &count);
		snap_put(o, key("vcpu.msrs", v->index), list, count * sizeof(*list));
	}
	free(names);
	free(list);
	return rc;
}

/* Some are named and can be read alone. That is no loss where the new VM has the same. */
static int restore_msrs(const struct snap_vcpu *v, const struct snap_in *in, uint64_t tsc_more,
			struct err *e)
{
	const void *bytes;
	size_t len;
	int rc = snap_find(in, key("vcpu.msrs", v->index),
			   MSRS_MAX * sizeof(struct kvm_msr_entry), &bytes, &len, e);

	for (size_t at = 0; rc == 0 && at + sizeof(struct kvm_msr_entry) <= len;
	     at += sizeof(struct kvm_msr_entry)) {
		struct kvm_msr_entry m;
		uint64_t now;

		memcpy(&m, (const char *)bytes + at, sizeof(m));
		if (m.index == MSR_TSC)
			m.data += tsc_more;
		if (!msr_set(v->fd, m.index, m.data) &&
		    !(msr_get(v->fd, m.index, &now) && now == m.data))
			rc = err_set(e, -ENOTSUP, "snapshot: this host does not take MSR %#x of "
				     "vCPU %u (%#llx)", m.index, v->index,
				     (unsigned long long)m.data);
	}
	return rc;
}

/* ---- a vCPU ---- */

static int save_apf(const struct snap_vcpu *v, struct snap_out *o, struct err *e)
{
	size_t len = apf_vcpu_save(v->v, NULL, 0);
	void *bytes = malloc(len ? len : 1);

	if (!bytes)
		return err_sys(e, -ENOMEM, "snapshot: faults of vCPU %u", v->index);
	len = apf_vcpu_save(v->v, bytes, len);
	snap_put(o, key("vcpu.apf", v->index), bytes, len);
	free(bytes);
	return 0;
}

static int restore_apf(const struct snap_vcpu *v, const struct snap_in *in, struct err *e)
{
	const void *bytes;
	size_t len;
	int rc = snap_find(in, key("vcpu.apf", v->index), APF_BYTES_MAX, &bytes, &len, e);

	if (rc == 0 && apf_vcpu_restore(v->v, bytes, len) < 0)
		rc = err_set(e, -EINVAL, "snapshot: the faults of vCPU %u are not those "
			     "of a VM with this protocol and memory", v->index);
	return rc;
}

/* What the vCPU shows. *ret: the caller's to free; NULL after a failure. */
static int get_cpuid(const struct snap_vcpu *v, struct kvm_cpuid2 **ret, struct err *e)
{
	*ret = calloc(1, sizeof(**ret) +
			 KVMP_CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));
	if (!*ret)
		return err_sys(e, -ENOMEM, "snapshot: CPUID of vCPU %u", v->index);
	(*ret)->nent = KVMP_CPUID_ENTRIES_MAX;
	if (KVMP_IOCTL(v->fd, KVM_GET_CPUID2, *ret) == 0)
		return 0;
	(void)err_sys(e, -errno, "snapshot: CPUID of vCPU %u", v->index);
	free(*ret);
	*ret = NULL;
	return e->code;
}

static int save_cpuid(const struct snap_vcpu *v, struct snap_out *o, struct err *e)
{
	struct kvm_cpuid2 *c;
	int rc = get_cpuid(v, &c, e);

	if (rc == 0)
		snap_put(o, key("vcpu.cpuid", v->index), c->entries,
			 c->nent * sizeof(c->entries[0]));
	free(c);
	return rc;
}

int snap_vcpu_save(const struct snap_vcpu *v, struct snap_out *o, struct err *e)
{
	const uint64_t khz = kvmp_tsc_khz(v->fd);
	struct kvm_mp_state first;
	int rc = 0;

	/* It makes KVM take in what other processors have sent. */
	if (KVMP_IOCTL(v->fd, KVM_GET_MP_STATE, &first) < 0)
		return err_sys(e, -errno, "snapshot: state of vCPU %u", v->index);
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(parts_before); i++)
		rc = save_part(v, &parts_before[i], o, e);
	if (rc == 0)
		rc = save_xsave(v, o, e);
	if (rc == 0)
		rc = save_msrs(v, o, e);
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(parts_behind); i++)
		rc = save_part(v, &parts_behind[i], o, e);
	if (rc == 0)
		rc = save_cpuid(v, o, e);
	if (rc == 0)
		rc = save_apf(v, o, e);
	snap_put(o, key("vcpu.tsc_khz", v->index), &khz, sizeof(khz));
	return rc;
}

/* What KVM and the library write to on its behalf. */
static void first_areas(const struct snap_vcpu *v, struct first_touch *t)
{
	static const uint32_t msrs[] = {PV_MSR_SYSTEM_TIME_OLD, PV_MSR_SYSTEM_TIME,
					PV_MSR_STEAL_TIME, PV_MSR_EOI, APF_MSR_EN};
	uint64_t value;

	for (size_t i = 0; i < ARRAY_LEN(msrs); i++)
		if (msr_get(v->fd, msrs[i], &value) && (value & MSR_AREA_ON))
			first_touch_range(t, (gpa_t){value & ~(uint64_t)MSR_AREA_ON}, 1);
}

void snap_vcpu_first(const struct snap_vcpu *v, struct first_touch *t)
{
	struct first_vcpu f = {.sp = 0};
	struct kvm_sregs s;
	struct kvm_regs r;
	bool flat;

	first_areas(v, t);
	if (KVMP_IOCTL(v->fd, KVM_GET_SREGS, &s) < 0 || KVMP_IOCTL(v->fd, KVM_GET_REGS, &r) < 0)
		return;
	/* SDM 3A, 3.4.4: 64-bit code has no bases but those of FS and GS. */
	flat = s.efer & EFER_LMA;
	f = (struct first_vcpu){
		.cpu = {.paging = s.cr0 & CR0_PG, .ip = (flat ? 0 : s.cs.base) + r.rip,
			.cr3 = s.cr3, .cr4 = s.cr4, .efer = s.efer},
		.sp = (flat ? 0 : s.ss.base) + r.rsp,
		.gdt = s.gdt.base,
		.idt = s.idt.base,
		.idt_limit = s.idt.limit,
		.tss = s.tr.base,
		.fs = s.fs.base,
		.gs = s.gs.base,
	};
	(void)msr_get(v->fd, MSR_KERNEL_GS, &f.kernel_gs);
	(void)msr_get(v->fd, MSR_SYSCALL, &f.syscall);
	first_touch_vcpu(t, &f);
}

/* ---- time ---- */

struct times {
	uint64_t clock_ns; /* KVM's, of the guest */
	uint64_t realtime_ns;
};

/* How long it has slept. A host whose clock is behind the other's counts as no time at all. */
static int slept_ns(const struct snap_in *in, struct times *t, uint64_t *ret, struct err *e)
{
	uint64_t now = clock_ns(CLOCK_REALTIME);
	int rc = snap_take(in, key("vm.time", 0), t, sizeof(*t), e);

	*ret = rc == 0 && now > t->realtime_ns ? now - t->realtime_ns : 0;
	return rc;
}

int snap_vcpu_restore(const struct snap_vcpu *v, const struct snap_in *in, struct err *e)
{
	struct times t;
	uint64_t ns, khz;
	int rc = slept_ns(in, &t, &ns, e);

	if (rc == 0)
		rc = snap_take(in, key("vcpu.tsc_khz", v->index), &khz, sizeof(khz), e);
	if (rc == 0 && khz > 0 && khz != kvmp_tsc_khz(v->fd) &&
	    KVMP_IOCTL(v->fd, KVM_SET_TSC_KHZ, khz) < 0)
		rc = err_set(e, -ENOTSUP, "snapshot: its TSC counts %llu kHz, and this host's "
			     "cannot", (unsigned long long)khz);
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(parts_before); i++)
		rc = restore_part(v, &parts_before[i], in, e);
	if (rc == 0)
		rc = restore_xsave(v, in, e);
	if (rc == 0)
		rc = restore_msrs(v, in, (uint64_t)((unsigned __int128)ns * khz / 1000000), e);
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(parts_behind); i++)
		rc = restore_part(v, &parts_behind[i], in, e);
	if (rc == 0)
		rc = restore_apf(v, in, e);
	/* Its watchdogs are told that it slept. Refused where the guest has no such clock. */
	if (rc == 0)
		(void)KVMP_IOCTL(v->fd, KVM_KVMCLOCK_CTRL, NULL);
	return rc;
}

/* ---- CPUID ---- */

/* In ECX of CPUID 1 and 7, KVM shows bits of the guest's own CR4. */
#define ECX_OSXSAVE (1u << 27)
#define ECX_OSPKE (1u << 4)

/* Leaves whose every bit, but those, is a feature that the guest may have begun to use. */
static const struct {
	uint32_t leaf, index;
	bool eax, ebx, ecx, edx;
	uint32_t ecx_but;
} features[] = {
	{0x1, 0, false, false, true, true, ECX_OSXSAVE},
	{0x7, 0, false, true, true, true, ECX_OSPKE},
	{0x7, 1, true, false, false, false, 0},
	{0xd, 0, true, false, false, true, 0},
	{0xd, 1, true, false, false, false, 0},
	{0x40000001, 0, true, false, false, false, 0},
	{0x80000001, 0, false, false, true, true, 0},
	{0x80000008, 0, false, true, false, false, 0},
};

static const struct kvm_cpuid_entry2 *leaf_of(const struct kvm_cpuid_entry2 *list, size_t count,
					      uint32_t leaf, uint32_t index)
{
	for (size_t i = 0; i < count; i++)
		if (list[i].function == leaf && list[i].index == index)
			return &list[i];
	return NULL;
}

static int lacks(uint32_t leaf, const char *reg, uint32_t bits, struct err *e)
{
	return bits == 0 ? 0
			 : err_set(e, -ENOTSUP, "snapshot: the guest has processor features that "
				   "this host does not have: CPUID %#x, %s, bits %#x; "
				   "restore it on one that is like where it was made", leaf, reg,
				   bits);
}

static int check_features(const struct kvm_cpuid_entry2 *guest, size_t count,
			  const struct kvm_cpuid2 *host, struct err *e)
{
	static const struct kvm_cpuid_entry2 none;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(features); i++) {
		const struct kvm_cpuid_entry2 *g = leaf_of(guest, count, features[i].leaf,
							   features[i].index);
		const struct kvm_cpuid_entry2 *h = leaf_of(host->entries, host->nent,
							   features[i].leaf, features[i].index);

		if (!g)
			continue;
		if (!h)
			h = &none;
		if (features[i].eax)
			rc = lacks(g->function, "EAX", g->eax & ~h->eax, e);
		if (rc == 0 && features[i].ebx)
			rc = lacks(g->function, "EBX", g->ebx & ~h->ebx, e);
		if (rc == 0 && features[i].ecx)
			rc = lacks(g->function, "ECX", g->ecx & ~h->ecx & ~features[i].ecx_but, e);
		if (rc == 0 && features[i].edx)
			rc = lacks(g->function, "EDX", g->edx & ~h->edx, e);
	}
	return rc;
}

int snap_cpuid_restore(const struct snap_vcpu *v, const struct snap_in *in,
		       const struct kvm_cpuid2 *host, struct err *e)
{
	struct kvm_cpuid2 *c, *shown = NULL;
	const void *bytes;
	size_t len, count;
	int rc = snap_find(in, key("vcpu.cpuid", v->index),
			   KVMP_CPUID_ENTRIES_MAX * sizeof(c->entries[0]), &bytes, &len, e);

	if (rc < 0)
		return rc;
	c = calloc(1, sizeof(*c) + len);
	if (!c)
		return err_sys(e, -ENOMEM, "snapshot: CPUID of vCPU %u", v->index);
	count = len / sizeof(c->entries[0]);
	c->nent = (uint32_t)count;
	memcpy(c->entries, bytes, count * sizeof(c->entries[0]));
	/* Some KVM shows more than it was told to: what the guest has seen is what came of that. */
	rc = kvmp_vcpu_set_cpuid(v->fd, v->index, host, e);
	if (rc == 0)
		rc = get_cpuid(v, &shown, e);
	if (rc == 0)
		rc = check_features(c->entries, count, shown, e);
	if (rc == 0)
		rc = kvmp_vcpu_set_cpuid(v->fd, v->index, c, e);
	free(shown);
	free(c);
	return rc;
}

/* ---- the VM ---- */

#define IRQCHIPS 3u /* both PICs, the IO-APIC */

int snap_vm_save(int vm_fd, struct snap_out *o, struct err *e)
{
	struct kvm_clock_data clock = {0};
	struct kvm_pit_state2 pit = {0};
	struct times t;

	for (uint32_t i = 0; i < IRQCHIPS; i++) {
		struct kvm_irqchip chip = {.chip_id = i};

		if (KVMP_IOCTL(vm_fd, KVM_GET_IRQCHIP, &chip) < 0)
			return err_sys(e, -errno, "snapshot: interrupt chip %u", i);
		snap_put(o, key("vm.irqchip", i), &chip, sizeof(chip));
	}
	if (KVMP_IOCTL(vm_fd, KVM_GET_PIT2, &pit) < 0)
		return err_sys(e, -errno, "snapshot: PIT");
	snap_put(o, key("vm.pit", 0), &pit, sizeof(pit));
	if (KVMP_IOCTL(vm_fd, KVM_GET_CLOCK, &clock) < 0)
		return err_sys(e, -errno, "snapshot: clock");
	t = (struct times){clock.clock, clock_ns(CLOCK_REALTIME)};
	snap_put(o, key("vm.time", 0), &t, sizeof(t));
	return 0;
}

int snap_vm_restore(int vm_fd, const struct snap_in *in, struct err *e)
{
	struct kvm_clock_data clock = {0};
	struct kvm_pit_state2 pit;
	struct times t;
	uint64_t ns;
	int rc = slept_ns(in, &t, &ns, e);

	/* Where the library has no use for them (`kernel`), the vCPUs' saved events may still. */
	if (rc == 0)
		rc = kvmp_vm_exception_payload(vm_fd, e);
	for (uint32_t i = 0; rc == 0 && i < IRQCHIPS; i++) {
		struct kvm_irqchip chip;

		rc = snap_take(in, key("vm.irqchip", i), &chip, sizeof(chip), e);
		chip.chip_id = i;
		if (rc == 0 && KVMP_IOCTL(vm_fd, KVM_SET_IRQCHIP, &chip) < 0)
			rc = err_sys(e, -errno, "snapshot: interrupt chip %u", i);
	}
	if (rc == 0)
		rc = snap_take(in, key("vm.pit", 0), &pit, sizeof(pit), e);
	if (rc == 0 && KVMP_IOCTL(vm_fd, KVM_SET_PIT2, &pit) < 0)
		rc = err_sys(e, -errno, "snapshot: PIT");
	if (rc == 0)
		clock.clock = t.clock_ns + ns;
	if (rc == 0 && KVMP_IOCTL(vm_fd, KVM_SET_CLOCK, &clock) < 0)
		rc = err_sys(e, -errno, "snapshot: clock");
	return rc;
}
