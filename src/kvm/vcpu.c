/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See vcpu.h. The mechanism, measured on Linux 6.12 and 6.18 (tests/integration):
 *
 *  - a touch of a poisoned page makes KVM send SIGBUS/BUS_MCEERR_AR with the host address
 *    to the vCPU thread; KVM_RUN returns EINTR. The signal is blocked except inside
 *    KVM_RUN (KVM_SET_SIGNAL_MASK) and is taken with sigtimedwait: no handler.
 *  - the kick is a signal of the same kind, so it is never lost: sent before KVM_RUN, it
 *    ends KVM_RUN at once.
 *  - segment and event state are in kvm_run at every exit (KVM_CAP_SYNC_REGS), and an
 *    exception put there is injected at the next entry: no system call of its own.
 *
 * Test: tests/integration/, through the small guest.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "abi/apf.h"
#include "abi/pv.h"
#include "kvm/kvm_uapi.h"
#include "kvm/reset_mark.h"
#include "kvm/vcpu.h"

#define KERNEL_SIGSET_BYTES 8

void kvmp_init(struct kvmp *k, int vm_fd, int kick_signal, bool msrs, const struct kvmp_ram *ram)
{
	*k = (struct kvmp){
		.vm_fd = vm_fd, .kick_signal = kick_signal, .msrs = msrs, .ram = *ram};
	k->can_prefault =
		KVMP_IOCTL(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_PRE_FAULT_MEMORY) > 0;
	for (unsigned i = 0; i < KVMP_VCPUS_MAX; i++)
		k->vcpus[i].fd = -1;
}

int kvmp_attach(struct kvmp *k, unsigned vcpu, int fd, struct kvm_run *run, uint32_t apic_id,
		struct err *e)
{
	struct kvmp_vcpu *v = &k->vcpus[vcpu];

	if (v->fd >= 0)
		return err_set(e, -EBUSY, "vCPU %u: attached already", vcpu);
	/* MSI addresses carry 8 bits of APIC id, and 0xff is everybody. */
	if (apic_id >= 0xff)
		return err_set(e, -EINVAL, "vCPU %u: APIC id %u is above 254", vcpu, apic_id);
	v->fd = fd;
	v->run = run;
	v->apic_id = apic_id;
	run->kvm_valid_regs |= KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
	return 0;
}

static void our_signals(const struct kvmp *k, sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGBUS);
	sigaddset(set, k->kick_signal);
}

int kvmp_start(struct kvmp *k, unsigned vcpu, struct err *e)
{
	struct kvmp_vcpu *v = &k->vcpus[vcpu];
	/* struct kvm_signal_mask ends in a flexible array: the set lies right behind it. */
	_Alignas(struct kvm_signal_mask) unsigned char
		mask[sizeof(struct kvm_signal_mask) + KERNEL_SIGSET_BYTES];
	const struct kvm_signal_mask head = {.len = KERNEL_SIGSET_BYTES};
	sigset_t ours, old;

	our_signals(k, &ours);
	if (pthread_sigmask(SIG_BLOCK, &ours, &old) != 0)
		return err_set(e, -EINVAL, "vCPU %u: blocking signals", vcpu);
	/* Inside KVM_RUN: what the VMM had, with ours let through. */
	sigdelset(&old, SIGBUS);
	sigdelset(&old, k->kick_signal);
	memcpy(mask, &head, sizeof(head));
	memcpy(mask + sizeof(head), &old, KERNEL_SIGSET_BYTES);
	if (KVMP_IOCTL(v->fd, KVM_SET_SIGNAL_MASK, mask) < 0)
		return err_sys(e, -errno, "vCPU %u: KVM_SET_SIGNAL_MASK", vcpu);
	/* Not before: until now the VMM may have restored KVM's registers. */
	v->marked = k->msrs && kvmp_reset_mark_set(v->fd);
	v->thread = pthread_self();
	__atomic_store_n(&v->started, true, __ATOMIC_RELEASE);
	return 0;
}

/* ---- what an exit means ---- */

static void read_cpu(struct kvmp_vcpu *v, bool mid_instruction, struct cpu_state *cpu)
{
	const struct kvm_sync_regs *s = &v->run->s.regs;
	const struct kvm_vcpu_events *ev = &s->events;

	*cpu = (struct cpu_state){
		/* SS.DPL is the CPL, in every mode (SDM 3A, 5.5; KVM keeps it so). */
		.cpl = s->sregs.ss.dpl,
		.interrupts_on = v->run->if_flag,
		.shadow = ev->interrupt.shadow != 0,
		/* KVM still has to finish the instruction: nothing may be injected on top. */
		.event_pending = mid_instruction || ev->exception.injected ||
				 ev->exception.pending || ev->interrupt.injected ||
				 ev->nmi.injected,
		.paging = (s->sregs.cr0 & (1ull << 31)) != 0,
		.in_instruction = mid_instruction,
		.ip = s->sregs.cs.base + s->regs.rip,
		.cr3 = s->sregs.cr3,
		.cr4 = s->sregs.cr4,
		.efer = s->sregs.efer,
	};
	if (ev->exception.pending && ev->exception.nr == APF_PF_VECTOR && v->token != 0 &&
	    ev->exception_has_payload && ev->exception_payload == v->token)
		cpu->untaken_token = v->token;
	else
		v->token = 0;
}

/* KVM_RUN was interrupted: a fault, a kick, or a signal of the VMM's. */
static void interrupted(struct kvmp *k, struct plat_exit *x)
{
	static const struct timespec at_once = {0, 0};
	siginfo_t si;
	sigset_t ours;
	int sig;

	our_signals(k, &ours);
	sig = sigtimedwait(&ours, &si, &at_once);
	if (sig == k->kick_signal) {
		x->kind = PLAT_EXIT_KICK;
	} else if (sig == SIGBUS) {
		hva_t hva = {(uintptr_t)si.si_addr};

		x->kind = PLAT_EXIT_FAULT;
		if (!k->ram.hva_to_roff(k->ram.ctx, hva, &x->roff)) {
			x->kind = PLAT_EXIT_ERROR;
			x->code = -EFAULT;
		}
	} else {
		x->kind = PLAT_EXIT_ERROR;
		x->code = -EINTR;
	}
}

static bool is_our_msr(uint32_t msr)
{
	return msr == APF_MSR_EN || msr == APF_MSR_CTL || msr == APF_MSR_ACK ||
	       pv_area_of(msr) != PV_AREAS;
}

/*
 * Was the vCPU reset since we last looked? Asked where it costs little and matters most: when
 * the guest reads or writes what INIT clears. ACK, which comes with each event, is not.
 */
static bool was_reset(struct kvmp_vcpu *v, uint32_t msr)
{
	if (!v->marked || msr == APF_MSR_ACK || !kvmp_reset_mark_is_gone(v->fd))
		return false;
	v->marked = kvmp_reset_mark_set(v->fd);
	return true;
}

/* An access to RAM, which an emulating host could not reach, is ours and not the VMM's. */
static void ram_access(struct kvmp *k, struct kvm_run *run, struct plat_exit *x)
{
	uint32_t len = run->mmio.len;

	if (len == 0 || len > sizeof(run->mmio.data) ||
	    !k->ram.gpa_to_roff(k->ram.ctx, (gpa_t){run->mmio.phys_addr}, len, &x->roff))
		return;
	x->kind = PLAT_EXIT_RAM_IO;
	x->io.data = run->mmio.data;
	x->io.len = len;
	x->io.write = run->mmio.is_write != 0;
}

static void exited(struct kvmp *k, struct kvmp_vcpu *v, struct plat_exit *x)
{
	struct kvm_run *run = v->run;

	x->kind = PLAT_EXIT_VMM;
	switch (run->exit_reason) {
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		if (!k->msrs || !is_our_msr(run->msr.index))
			return;
		x->kind = run->exit_reason == KVM_EXIT_X86_RDMSR ? PLAT_EXIT_RDMSR
								 : PLAT_EXIT_WRMSR;
		x->msr.index = run->msr.index;
		x->msr.value = run->msr.data;
		x->was_reset = was_reset(v, run->msr.index);
		return;
	case KVM_EXIT_MMIO:
		ram_access(k, run, x);
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
 * Ends our halt. Whatever else the vCPU is in by now is none of our doing: another
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

static void kp_run(void *ctx, unsigned vcpu, enum plat_enter how, struct plat_exit *x)
{
	struct kvmp *k = ctx;
	struct kvmp_vcpu *v = &k->vcpus[vcpu];
	int rc = 0;

	if (how == PLAT_ENTER_HALTED) {
		rc = set_mp_state(v, KVM_MP_STATE_HALTED);
		v->halted = true;
	} else if (how == PLAT_ENTER_RUNNABLE && v->halted) {
		rc = end_halt(v);
	}
	v->run->immediate_exit = how == PLAT_COMPLETE;
	if (rc == 0)
		rc = ioctl(v->fd, KVM_RUN, 0) < 0 ? -errno : 0;
	v->run->immediate_exit = 0;
	if (rc == 0) {
		exited(k, v, x);
		read_cpu(v, mid_instruction(v->run), &x->cpu);
	} else if (rc == -EINTR || rc == -EAGAIN) {
		interrupted(k, x);
		read_cpu(v, false, &x->cpu);
	} else {
		x->kind = PLAT_EXIT_ERROR;
		x->code = rc;
	}
}

static void kp_prefault(void *ctx, unsigned vcpu, gpa_t gpa)
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

static void kp_wait(void *ctx, unsigned vcpu)
{
	struct kvmp *k = ctx;
	sigset_t kick;

	(void)vcpu;
	sigemptyset(&kick);
	sigaddset(&kick, k->kick_signal);
	(void)sigwaitinfo(&kick, NULL);
}

/* ---- events ---- */

static void kp_inject_pf(void *ctx, unsigned vcpu, uint32_t token)
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

static void kp_cancel_pf(void *ctx, unsigned vcpu)
{
	struct kvmp *k = ctx;
	struct kvmp_vcpu *v = &k->vcpus[vcpu];
	struct kvm_vcpu_events *ev = &v->run->s.regs.events;

	ev->flags = KVM_VCPUEVENT_VALID_PAYLOAD;
	ev->exception.pending = 0;
	ev->exception_has_payload = 0;
	v->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
	v->token = 0;
}

static void kp_finish_msr(void *ctx, unsigned vcpu, uint64_t value, bool gp)
{
	struct kvmp *k = ctx;
	struct kvm_run *run = k->vcpus[vcpu].run;

	if (run->exit_reason == KVM_EXIT_X86_RDMSR)
		run->msr.data = value;
	run->msr.error = gp;
}

static int kp_set_msr(void *ctx, unsigned vcpu, uint32_t msr, uint64_t value)
{
	struct kvmp *k = ctx;
	/* struct kvm_msrs ends in a flexible array. */
	_Alignas(struct kvm_msrs) unsigned char
		buf[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	const struct kvm_msrs head = {.nmsrs = 1};
	const struct kvm_msr_entry entry = {.index = msr, .data = value};
	int done;

	memcpy(buf, &head, sizeof(head));
	memcpy(buf + sizeof(head), &entry, sizeof(entry));
	/* Answers how many registers were set. */
	done = KVMP_IOCTL(k->vcpus[vcpu].fd, KVM_SET_MSRS, buf);
	return done < 0 ? -errno : done == 1 ? 0 : -EINVAL;
}

static int kp_raise_irq(void *ctx, unsigned vcpu, uint8_t vector)
{
	struct kvmp *k = ctx;
	struct kvm_msi msi = {
		/* SDM 3A, 11.11: physical destination, fixed delivery, edge. */
		.address_lo = 0xfee00000u | k->vcpus[vcpu].apic_id << 12,
		.data = vector,
	};
	int rc = KVMP_IOCTL(k->vm_fd, KVM_SIGNAL_MSI, &msi);

	return rc < 0 ? -errno : rc > 0;
}

static void kp_kick(void *ctx, unsigned vcpu)
{
	struct kvmp *k = ctx;
	struct kvmp_vcpu *v = &k->vcpus[vcpu];

	if (__atomic_load_n(&v->started, __ATOMIC_ACQUIRE))
		(void)pthread_kill(v->thread, k->kick_signal);
}

static const struct plat_ops kvmp_ops = {
	.name = "poison",
	.run = kp_run,
	.wait = kp_wait,
	.prefault = kp_prefault,
	.inject_pf = kp_inject_pf,
	.cancel_pf = kp_cancel_pf,
	.finish_msr = kp_finish_msr,
	.set_msr = kp_set_msr,
	.raise_irq = kp_raise_irq,
	.kick = kp_kick,
};

struct plat kvmp_plat(struct kvmp *k)
{
	return (struct plat){.ops = &kvmp_ops, .ctx = k};
}
