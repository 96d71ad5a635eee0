/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See vcpu.h. The mechanism, measured on Linux 6.12 and 6.18 (tests/integration):
 *
 *  - a touch of a poisoned page makes KVM send SIGBUS/BUS_MCEERR_AR with the host address
 *    to the vCPU thread; KVM_RUN returns EINTR. The signal is blocked except inside
 *    KVM_RUN (KVM_SET_SIGNAL_MASK) and is taken with sigtimedwait (signals.c), or it is not,
 *    and a handler takes it, where the VMM wants one of ours (bus.c).
 *  - segment and event state are in kvm_run at every exit (KVM_CAP_SYNC_REGS), and an
 *    exception put there is injected at the next entry: no system call of its own.
 *
 * Test: tests/integration/, through the small guest.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>

#include "abi/apf.h"
#include "base/time.h"
#include "kvm/bus.h"
#include "kvm/kvm_uapi.h"
#include "kvm/registers.h"
#include "kvm/signals.h"
#include "kvm/vcpu.h"

/*
 * Before Linux 6.18 KVM_PRE_FAULT_MEMORY does not end, whatever signal comes, where a memslot was
 * deleted or moved since the vCPU's last entry (mended by 20a6cff3b283, 6.15), or is just being
 * (3ccbf6f47098), and whoever does that hangs as well. No capability tells.
 */
static bool can_prefault(int vm_fd)
{
	unsigned major, minor;
	struct utsname u;

	return uname(&u) == 0 && sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 18)) &&
	       KVMP_IOCTL(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_PRE_FAULT_MEMORY) > 0;
}

int kvmp_init(struct kvmp *k, const struct kvmp_config *c, struct err *e)
{
	*k = (struct kvmp){
		.vm_fd = c->vm_fd,
		.kick_signal = c->kick_signal,
		.ram = c->ram,
		.msrs = c->msrs,
		.msr_exits = c->msr_exits,
		.x2apic_ids = c->x2apic_ids,
		.can_prefault = can_prefault(c->vm_fd),
		.can_nest = KVMP_IOCTL(c->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE) > 0,
	};
	k->vcpus = calloc(c->vcpus, sizeof(*k->vcpus));
	if (!k->vcpus)
		return err_sys(e, -ENOMEM, "%u vCPUs", c->vcpus);
	k->count = c->vcpus;
	for (unsigned i = 0; i < k->count; i++)
		k->vcpus[i].fd = -1;
	if (c->bus_other) {
		int rc = kvmp_bus_install(c->bus_other, e);

		if (rc < 0)
			return rc;
		k->bus_handler = true;
	}
	return 0;
}

void kvmp_fini(struct kvmp *k)
{
	for (unsigned i = 0; i < k->count; i++)
		kvmp_detach(k, i);
	if (k->bus_handler)
		kvmp_bus_remove();
	k->bus_handler = false;
	free(k->vcpus);
	k->vcpus = NULL;
	k->count = 0;
}

/*
 * To KVM 255 is everybody, also where ids have 32 bits, unless it is told otherwise. It takes that
 * as an addition to what the VMM has asked for (api.rst, KVM_CAP_X2APIC_API).
 */
static int tell_255_apart(const struct kvmp *k, struct err *e)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X2APIC_API,
		.args = {KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK}};

	if (KVMP_IOCTL(k->vm_fd, KVM_ENABLE_CAP, &cap) < 0)
		return err_sys(e, -errno, "APIC id 255: KVM_CAP_X2APIC_API");
	return 0;
}

int kvmp_attach(struct kvmp *k, unsigned vcpu, int fd, struct kvm_run *run, uint32_t apic_id,
		struct err *e)
{
	struct kvmp_vcpu *v = &k->vcpus[vcpu];
	int rc;

	if (v->fd >= 0)
		return err_set(e, -EBUSY, "vCPU %u: attached already", vcpu);
	if (fd < 0 || !run || run == MAP_FAILED)
		return err_set(e, -EINVAL, "vCPU %u: no descriptor, or no kvm_run mapped of it",
			       vcpu);
	/* Without the capability a message has 8 bits of APIC id, and 0xff is everybody. */
	if (apic_id >= 0xff && !k->x2apic_ids)
		return err_set(e, -EINVAL, "vCPU %u: APIC id %u is above 254: the VM needs "
			       "KVM_CAP_X2APIC_API with 32-bit ids, and apf_config.x2apic_ids says "
			       "that it has it", vcpu, apic_id);
	*v = (struct kvmp_vcpu){.run = run, .apic_id = apic_id, .fd = -1};
	rc = apic_id == 0xff ? tell_255_apart(k, e) : 0;
	if (rc == 0)
		rc = kvmp_signals_init(v, e);
	if (rc < 0)
		return rc;
	v->fd = fd;
	run->kvm_valid_regs |= KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
	return 0;
}

void kvmp_detach(struct kvmp *k, unsigned vcpu)
{
	struct kvmp_vcpu *v = &k->vcpus[vcpu];

	if (v->fd < 0)
		return;
	kvmp_signals_fini(v);
	v->fd = -1;
}

/* ---- what an exit means ---- */

/*
 * In a guest's guest. Kernels say so in kvm_run since 6.13; older ones are asked, where the
 * guest has virtualisation switched on.
 */
static bool is_nested(const struct kvmp *k, const struct kvmp_vcpu *v)
{
	const struct kvm_sregs *s = &v->run->s.regs.sregs;
	union {
		struct kvm_nested_state head;
		unsigned char bytes[sizeof(struct kvm_nested_state) + 2 * PAGE_BYTES];
	} state;

	if (v->run->flags & KVM_RUN_X86_GUEST_MODE)
		return true;
	if (!k->can_nest || (!(s->cr4 & CR4_VMXE) && !(s->efer & EFER_SVME)))
		return false;
	memset(&state.head, 0, sizeof(state.head));
	state.head.size = sizeof(state);
	return KVMP_IOCTL(v->fd, KVM_GET_NESTED_STATE, &state) < 0 ||
	       (state.head.flags & KVM_STATE_NESTED_GUEST_MODE);
}

/*
 * The #PF that we queued last is still KVM's. One that was about to go in when KVM_RUN ended
 * counts as injected from then on, with its payload in CR2.
 */
static bool is_untaken(const struct kvmp_vcpu *v)
{
	const struct kvm_sync_regs *s = &v->run->s.regs;
	const struct kvm_vcpu_events *ev = &s->events;

	if (v->token == 0 || ev->exception.nr != APF_PF_VECTOR)
		return false;
	if (ev->exception.pending)
		return ev->exception_has_payload && ev->exception_payload == v->token;
	return ev->exception.injected && ev->exception.error_code == APF_PF_ERROR_CODE &&
	       s->sregs.cr2 == v->token;
}

static void read_cpu(const struct kvmp *k, struct kvmp_vcpu *v, bool mid_instruction,
		     struct cpu_state *cpu)
{
	const struct kvm_sync_regs *s = &v->run->s.regs;
	const struct kvm_vcpu_events *ev = &s->events;
	bool nested = is_nested(k, v);

	*cpu = (struct cpu_state){
		/* SS.DPL is the CPL, in every mode (SDM 3A, 5.5; KVM keeps it so). */
		.cpl = s->sregs.ss.dpl,
		.interrupts_on = v->run->if_flag,
		/*
		 * An exception can be told neither to the guest of a guest, which never
		 * registered, nor to system management mode. The outer guest would be told by
		 * an exit of the inner one (EN bit 2), which user space cannot cause.
		 */
		.shadow = ev->interrupt.shadow != 0 || nested || (v->run->flags & KVM_RUN_X86_SMM),
		.nested = nested,
		/* KVM still has to finish the instruction: nothing may be injected on top. */
		.event_pending = mid_instruction || ev->exception.injected ||
				 ev->exception.pending || ev->interrupt.injected ||
				 ev->nmi.injected,
		.paging = (s->sregs.cr0 & CR0_PG) != 0,
		.in_instruction = mid_instruction,
		.ip = s->sregs.cs.base + s->regs.rip,
		.cr3 = s->sregs.cr3,
		.cr4 = s->sregs.cr4,
		.efer = s->sregs.efer,
	};
	if (!is_untaken(v))
		v->token = 0;
	cpu->untaken_token = v->token;
}

/*
 * KVM looks the address of a poisoned page up as for a write, and tells of a read-only memslot
 * an error value in its place (KVM_HVA_ERR_RO_BAD; seen on Linux 6.18).
 */
#define KERNEL_ADDRESSES (1ull << 63)

/* KVM_RUN was interrupted: a fault, a kick, a signal of the VMM's, or nothing at all. */
static void interrupted(struct kvmp *k, struct kvmp_vcpu *v, struct plat_exit *x)
{
	hva_t hva;

	x->kind = PLAT_EXIT_KICK;
	switch (kvmp_signal_take(k, v)) {
	case KVMP_SIGNAL_NONE:
	case KVMP_SIGNAL_KICK:
		return;
	case KVMP_SIGNAL_VMM:
		x->kind = PLAT_EXIT_SIGNAL;
		return;
	case KVMP_SIGNAL_FAULT:
		break;
	}
	hva.v = (uintptr_t)v->fault.si_addr;
	if (v->fault.si_code == BUS_MCEERR_AR && k->ram.hva_to_roff(k->ram.ctx, hva, &x->roff)) {
		x->kind = PLAT_EXIT_FAULT;
		return;
	}
	if (v->fault.si_code == BUS_MCEERR_AR && hva.v >= KERNEL_ADDRESSES) {
		x->kind = PLAT_EXIT_ROM;
		return;
	}
	/* The kernel tells each mapping that has the page, and the first of them arrives. */
	hva = k->ram.vmm_hva(k->ram.ctx, hva);
	memcpy(&v->fault.si_addr, &hva.v, sizeof(hva.v));
	kvmp_signal_pass_fault(v);
	x->kind = PLAT_EXIT_SIGNAL;
}

static bool is_our_msr(uint32_t msr)
{
	return msr == APF_MSR_EN || msr == APF_MSR_CTL || msr == APF_MSR_ACK ||
	       pv_area_of(msr) != PV_AREAS;
}

/*
 * RAM of ours is not all memory: the VMM may leave a hole in its memslots, or make one read-only.
 */
static bool is_ours(struct kvmp *k, struct kvmp_vcpu *v, gpa_t gpa, bool write)
{
	switch (k->ram.slot_at(k->ram.ctx, gpa)) {
	case KVMP_SLOT_RAM:
		return true;
	case KVMP_SLOT_ROM:
		return !write;
	case KVMP_SLOT_HOLE:
		return false;
	case KVMP_SLOT_AUTO:
		break;
	}
	return kvmp_is_writable(v, gpa);
}

/* An access to RAM, which an emulating host could not reach, is ours and not the VMM's. */
static void ram_access(struct kvmp *k, struct kvmp_vcpu *v, struct plat_exit *x)
{
	struct kvm_run *run = v->run;
	gpa_t gpa = {run->mmio.phys_addr};
	uint32_t len = run->mmio.len;
	bool write = run->mmio.is_write != 0;
	roff_t off;

	if (len == 0 || len > sizeof(run->mmio.data) ||
	    !k->ram.gpa_to_roff(k->ram.ctx, gpa, len, &off) || !is_ours(k, v, gpa, write))
		return;
	x->kind = PLAT_EXIT_RAM_IO;
	x->gpa = gpa;
	x->io.data = run->mmio.data;
	x->io.len = len;
	x->io.write = write;
}

static void msr_access(const struct kvmp *k, struct kvmp_vcpu *v, struct plat_exit *x)
{
	struct kvm_run *run = v->run;
	uint32_t wanted = __atomic_load_n(&k->msr_exits, __ATOMIC_ACQUIRE);

	if (!k->msrs)
		return;
	if (!is_our_msr(run->msr.index)) {
		/*
		 * The VMM filters it, and has not asked for such an exit, which we have: without us
		 * KVM would have refused it. Exits for other reasons are only the VMM's to ask for.
		 */
		if (run->msr.reason == KVM_MSR_EXIT_REASON_FILTER &&
		    !(wanted & KVM_MSR_EXIT_REASON_FILTER)) {
			run->msr.error = 1;
			x->kind = PLAT_EXIT_KICK;
		}
		return;
	}
	x->kind = run->exit_reason == KVM_EXIT_X86_RDMSR ? PLAT_EXIT_RDMSR : PLAT_EXIT_WRMSR;
	x->msr.index = run->msr.index;
	x->msr.value = run->msr.data;
	/* Who registers has set his APIC up. */
	if (run->msr.index == APF_MSR_EN)
		kvmp_apic_id_find(k, v);
}

static void exited(struct kvmp *k, struct kvmp_vcpu *v, struct plat_exit *x)
{
	x->kind = PLAT_EXIT_VMM;
	switch (v->run->exit_reason) {
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		msr_access(k, v, x);
		return;
	case KVM_EXIT_MMIO:
		ram_access(k, v, x);
		return;
	default:
		return;
	}
}

static bool mid_instruction(const struct kvm_run *run)
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
	case KVM_EXIT_MMIO:
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
	case KVM_EXIT_HYPERCALL:
		return true;
	default:
		return false;
	}
}

static int set_mp_state(struct kvmp_vcpu *v, uint32_t state)
{
	struct kvm_mp_state mp = {.mp_state = state};

	return KVMP_IOCTL(v->fd, KVM_SET_MP_STATE, &mp) < 0 ? -errno : 0;
}

/*
 * Ends our halt, or a HLT. Whatever else the vCPU is in by now is none of our doing: another
 * processor may have sent it INIT meanwhile, and then it must wait for SIPI.
 */
static int end_halt(struct kvmp_vcpu *v)
{
	struct kvm_mp_state mp;

	v->halted = false;
	if (KVMP_IOCTL(v->fd, KVM_GET_MP_STATE, &mp) < 0)
		return -errno;
	return mp.mp_state == KVM_MP_STATE_HALTED ? set_mp_state(v, KVM_MP_STATE_RUNNABLE) : 0;
}

static int vcpu_begin(void *ctx, unsigned vcpu)
{
	struct kvmp *k = ctx;
	struct kvmp_vcpu *v = &k->vcpus[vcpu];
	int rc = kvmp_signals_begin(k, v);

	if (rc < 0)
		return rc;
	v->starts = 0;
	return __atomic_load_n(&v->run->immediate_exit, __ATOMIC_ACQUIRE) != 0;
}

/* What we, or the VMM, put into kvm_run since the last entry is KVM's before anybody looks. */
static void flush_registers(struct kvmp_vcpu *v)
{
	struct kvm_sync_regs *s = &v->run->s.regs;
	uint64_t dirty = v->run->kvm_dirty_regs;

	if (dirty & KVM_SYNC_X86_REGS)
		(void)KVMP_IOCTL(v->fd, KVM_SET_REGS, &s->regs);
	if (dirty & KVM_SYNC_X86_SREGS)
		(void)KVMP_IOCTL(v->fd, KVM_SET_SREGS, &s->sregs);
	if (dirty & KVM_SYNC_X86_EVENTS)
		(void)KVMP_IOCTL(v->fd, KVM_SET_VCPU_EVENTS, &s->events);
	v->run->kvm_dirty_regs = 0;
}

/*
 * KVM touches a clock's memory at once, whose page the kernel may have unmapped meanwhile: then
 * that is a touch like others, which is served under the lock that callers of set_msr hold. What it
 * refuses is the guest's #GP.
 */
static void tell_clocks(struct kvmp_vcpu *v)
{
	for (unsigned i = 0; i < ARRAY_LEN(v->clocks); i++) {
		uint32_t msr = v->clocks[i].msr;

		v->clocks[i].msr = 0;
		if (msr && kvmp_msr_set(v->fd, msr, v->clocks[i].value) < 0 &&
		    v->run->exit_reason == KVM_EXIT_X86_WRMSR && v->run->msr.index == msr)
			v->run->msr.error = 1;
	}
}

static void vcpu_rest(void *ctx, unsigned vcpu, bool interrupted)
{
	struct kvmp *k = ctx;
	struct kvmp_vcpu *v = &k->vcpus[vcpu];

	tell_clocks(v);
	if (v->run->kvm_dirty_regs)
		flush_registers(v);
	if (v->halted)
		(void)end_halt(v);
	if (v->to_show)
		kvmp_registers_show(v, v->show_en, v->show_ctl);
	v->to_show = false;
	if (interrupted)
		v->run->exit_reason = KVM_EXIT_INTR;
	kvmp_signals_end(k, v);
}

/*
 * A guest that was not run for as long may take itself for stuck: Linux's watchdog of soft lockups
 * can be set to 2 s.
 */
#define STANDSTILL_NS NS_PER_S

/*
 * The guest's watchdogs learn by its clock that it stood still, whatever the reason. KVM refuses
 * that to a guest without such a clock.
 */
static void tell_standstill(struct kvmp_vcpu *v, uint64_t now)
{
	if (v->in_guest_ns && now - v->in_guest_ns >= STANDSTILL_NS)
		(void)KVMP_IOCTL(v->fd, KVM_KVMCLOCK_CTRL, NULL);
}

/*
 * KVM_RUN that a signal ended returns only when the process goes on, if that was SIGSTOP: all of
 * its time may have been a standstill. Telling a guest in vain does no harm.
 */
static int enter_guest(struct kvmp_vcpu *v)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC_COARSE);
	int rc;

	tell_standstill(v, now);
	if (v->catches)
		rc = kvmp_bus_run(v->fd, &v->fault, &v->caught);
	else
		rc = ioctl(v->fd, KVM_RUN, 0) < 0 ? -errno : 0;
	v->in_guest_ns = rc == -EINTR ? now : clock_ns(CLOCK_MONOTONIC_COARSE);
	if (rc != -EAGAIN)
		v->starts = 0;
	return rc;
}

/* A shortage may pass by itself. */
#define STARTS_MAX 16

/*
 * What EAGAIN of KVM_RUN means: a processor that waited for its SIPI has got it, once; or KVM
 * cannot make its own thread for the VM (RLIMIT_NPROC), at every try. False: that.
 */
static bool got_sipi(struct kvmp_vcpu *v)
{
	struct kvm_mp_state mp;

	if (KVMP_IOCTL(v->fd, KVM_GET_MP_STATE, &mp) == 0 &&
	    mp.mp_state == KVM_MP_STATE_UNINITIALIZED)
		v->starts = 0;
	return v->starts++ < STARTS_MAX;
}

static void vcpu_run(void *ctx, unsigned vcpu, const struct plat_entry *entry, struct plat_exit *x)
{
	struct kvmp *k = ctx;
	struct kvmp_vcpu *v = &k->vcpus[vcpu];
	bool half = false;
	int rc = 0;

	tell_clocks(v);
	kvmp_registers_clear(v);
	if (entry->watch_reset)
		kvmp_reset_watch(v);
	if (entry->how == PLAT_ENTER_HALTED) {
		rc = set_mp_state(v, KVM_MP_STATE_HALTED);
		v->halted = true;
	} else if (entry->how == PLAT_ENTER_RUNNABLE) {
		rc = end_halt(v);
	} else if (entry->how == PLAT_COMPLETE) {
		/* KVM finishes what is half done before it looks at signals. */
		kvmp_signal_kick(k, v);
	}
	if (rc == 0)
		rc = enter_guest(v);
	if (rc == 0) {
		exited(k, v, x);
		half = mid_instruction(v->run);
	} else if (rc == -EINTR) {
		interrupted(k, v, x);
	} else if (rc == -EAGAIN && got_sipi(v)) {
		x->kind = PLAT_EXIT_KICK;
	} else {
		x->kind = PLAT_EXIT_ERROR;
		x->code = rc;
		/* KVM could not have memory: the vCPU is before the instruction. */
		if (rc != -EFAULT)
			return;
	}
	read_cpu(k, v, half, &x->cpu);
	x->was_reset = kvmp_reset_seen(v, x->cpu.nested);
	if (k->msrs && (v->run->s.regs.sregs.apic_base != v->apic_base ||
			__atomic_load_n(&v->apic_refused, __ATOMIC_ACQUIRE)))
		kvmp_apic_id_find(k, v);
}

static void vcpu_take_registers(void *ctx, unsigned vcpu, struct plat_registers *ret)
{
	struct kvmp *k = ctx;

	kvmp_registers_take(&k->vcpus[vcpu], k->msrs, ret);
}

static void vcpu_show_registers(void *ctx, unsigned vcpu, uint64_t en, uint64_t ctl)
{
	struct kvmp *k = ctx;
	struct kvmp_vcpu *v = &k->vcpus[vcpu];

	v->to_show = k->msrs;
	v->show_en = en;
	v->show_ctl = ctl;
}

static void vcpu_prefault(void *ctx, unsigned vcpu, gpa_t gpa)
{
	struct kvmp *k = ctx;
	struct kvm_pre_fault_memory range = {
		.gpa = gpa.v & ~(uint64_t)(PAGE_BYTES - 1), .size = PAGE_BYTES};

	/*
	 * KVM's own async page faults do the same once a page is there. An absent page would
	 * not do: poison makes KVM try again without end (Linux 6.12, kvm_tdp_map_page).
	 */
	if (k->can_prefault)
		(void)ioctl(k->vcpus[vcpu].fd, KVM_PRE_FAULT_MEMORY, &range);
}

static bool vcpu_wait(void *ctx, unsigned vcpu)
{
	struct kvmp *k = ctx;

	return kvmp_signal_wait(k, &k->vcpus[vcpu]);
}

/* ---- events ---- */

static void vcpu_inject_pf(void *ctx, unsigned vcpu, uint32_t token)
{
	struct kvmp *k = ctx;
	struct kvmp_vcpu *v = &k->vcpus[vcpu];
	struct kvm_vcpu_events *ev = &v->run->s.regs.events;

	/*
	 * The flags say which parts KVM takes over: the payload alone. The NMI and SIPI state
	 * in there is as old as the exit and must not undo what came since.
	 */
	ev->flags = KVM_VCPUEVENT_VALID_PAYLOAD;
	ev->exception.injected = 0;
	ev->exception.pending = 1;
	ev->exception.nr = APF_PF_VECTOR;
	ev->exception.has_error_code = 1;
	ev->exception.error_code = APF_PF_ERROR_CODE;
	ev->exception_has_payload = 1;
	ev->exception_payload = token;
	v->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
	v->token = token;
	/* A halted vCPU takes it now. */
	if (v->halted)
		(void)end_halt(v);
}

static void vcpu_cancel_pf(void *ctx, unsigned vcpu)
{
	struct kvmp *k = ctx;
	struct kvmp_vcpu *v = &k->vcpus[vcpu];
	struct kvm_vcpu_events *ev = &v->run->s.regs.events;

	ev->flags = KVM_VCPUEVENT_VALID_PAYLOAD;
	ev->exception.injected = 0;
	ev->exception.pending = 0;
	ev->exception_has_payload = 0;
	v->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
	v->token = 0;
}

static void vcpu_finish_msr(void *ctx, unsigned vcpu, uint64_t value, bool gp)
{
	struct kvmp *k = ctx;
	struct kvm_run *run = k->vcpus[vcpu].run;

	if (run->exit_reason == KVM_EXIT_X86_RDMSR)
		run->msr.data = value;
	run->msr.error = gp;
}

static int vcpu_set_msr(void *ctx, unsigned vcpu, uint32_t msr, uint64_t value)
{
	struct kvmp *k = ctx;
	struct kvmp_vcpu *v = &k->vcpus[vcpu];
	enum pv_area area = pv_area_of(msr);

	if (area >= ARRAY_LEN(v->clocks))
		return kvmp_msr_set(v->fd, msr, value);
	v->clocks[area].msr = msr;
	v->clocks[area].value = value;
	return 0;
}

static bool vcpu_is_writable(void *ctx, unsigned vcpu, gpa_t gpa)
{
	struct kvmp *k = ctx;

	return is_ours(k, &k->vcpus[vcpu], gpa, true);
}

static void vcpu_pass_fault(void *ctx, unsigned vcpu)
{
	struct kvmp *k = ctx;

	kvmp_signal_pass_fault(&k->vcpus[vcpu]);
}

static int vcpu_raise_irq(void *ctx, unsigned vcpu, uint8_t vector)
{
	struct kvmp *k = ctx;
	uint32_t id = __atomic_load_n(&k->vcpus[vcpu].apic_id, __ATOMIC_ACQUIRE);
	struct kvm_msi msi = {
		/* SDM 3A, 11.11: physical destination, fixed delivery, edge. */
		.address_lo = 0xfee00000u | (id & 0xffu) << 12,
		/* KVM_CAP_X2APIC_API: bits 31:8 of the id, where the VMM has asked for it. */
		.address_hi = k->x2apic_ids ? id & 0xffffff00u : 0,
		.data = vector,
	};
	int rc = KVMP_IOCTL(k->vm_fd, KVM_SIGNAL_MSI, &msi);

	rc = rc < 0 ? -errno : rc > 0;
	/* Its APIC may be off, or have another id by now: asked at exits until it accepts one. */
	if (__atomic_exchange_n(&k->vcpus[vcpu].apic_refused, rc <= 0, __ATOMIC_ACQ_REL) == 0 &&
	    rc <= 0)
		kvmp_signal_kick(k, &k->vcpus[vcpu]);
	return rc;
}

static void vcpu_kick(void *ctx, unsigned vcpu)
{
	struct kvmp *k = ctx;

	kvmp_signal_kick(k, &k->vcpus[vcpu]);
}

static const struct plat_ops kvmp_ops = {
	.name = "poison",
	.begin = vcpu_begin,
	.rest = vcpu_rest,
	.run = vcpu_run,
	.wait = vcpu_wait,
	.take_registers = vcpu_take_registers,
	.show_registers = vcpu_show_registers,
	.prefault = vcpu_prefault,
	.inject_pf = vcpu_inject_pf,
	.cancel_pf = vcpu_cancel_pf,
	.finish_msr = vcpu_finish_msr,
	.set_msr = vcpu_set_msr,
	.is_writable = vcpu_is_writable,
	.pass_fault = vcpu_pass_fault,
	.raise_irq = vcpu_raise_irq,
	.kick = vcpu_kick,
};

struct plat kvmp_plat(struct kvmp *k)
{
	return (struct plat){.ops = &kvmp_ops, .ctx = k};
}
