/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault model: what may break, and why we must survive it. A seed has a random part of
 * these (swarm.c). In the liveness phase nothing of it happens any more.
 *
 * fault       what happens                             why it must be survived
 * ----------  ---------------------------------------  ----------------------------------------
 * late        reads take up to 50 ms more, reordered   networks and disks do; events must follow
 *                                                      the pages, in the pages' order
 * error       a read ends with EIO, EAGAIN             retried, then the VM is paused and told
 * short       a read ends early                        the rest is asked for
 * hang        a read is never answered                 paused after the time-out; cancelled and
 *                                                      read again on resume
 * present     making a block visible fails, half done  paused; what the guest wrote meanwhile to
 *                                                      the visible half must not be read over
 * spurious    the ready vector without an event        vectors are shared, IPIs go astray
 * nmi         NMI at any instruction                   ends halts, comes with interrupts off
 * apic        local APIC off at start, toggled         firmware and kernels enable events first;
 *                                                      a refused interrupt must not lose a token
 * register    events off and on, again on              CPU hot-unplug, kexec, careless guests
 * control     pf2: CTL.8 off and on; int: vector 0     S1, S8; restore in any order
 * real        page faults of the guest's own           one handler serves both: S2, CR2
 * forget-ack  int: no acknowledgement                  crashed handlers; the host waits for none
 * reset       INIT in the middle of anything, of a     reboot, SIPI sequences
 *             stopped vCPU or of one that goes on
 * pause       the VMM stops and resumes the VM         nothing may be sent to a stopped VM
 * migrate     save and restore in mid-flight, by the   snapshots; other VMMs know the registers
 *             whole state or by registers, any order,  only, or not even the driver
 *             or as KVM lists them
 * snapshot    the VM is saved while it runs or while   what the guest writes meanwhile is in it, or
 *             it stands, and goes on; another one is   is not; the other one has tokens and memory
 *             restored from that, by other settings    of a moment that is long over
 * kick        kicks for nothing                        VMMs kick; signals are merged
 * signal      the VMM takes its threads back, changes  gdb stubs, statistics, management: whatever
 *             the CPU state, and calls again           the thread was in the middle of
 * device      devices read and write guest memory      DMA to absent pages
 * foray       paging off, interrupts on                firmware calls, SMM
 * evict       memory is taken away, all of it or some, whatever was in it must come back, also
 *             or the limit of it changes               when it is touched on the way
 * unmap       taking memory away fails                 paused; the content is still there
 * hostile     the guest scribbles on its area and      it may; the host's books must stay sound,
 *             its registers                            other pages must stay right
 */
#include "sim/world.h"

const char *sim_fault_name(enum sim_fault f)
{
	static const char *const names[SIM_FAULTS] = {
		[SIM_FAULT_LATE] = "late",	   [SIM_FAULT_ERROR] = "error",
		[SIM_FAULT_SHORT] = "short",	   [SIM_FAULT_HANG] = "hang",
		[SIM_FAULT_PRESENT] = "present",   [SIM_FAULT_SPURIOUS] = "spurious",
		[SIM_FAULT_NMI] = "nmi",	   [SIM_FAULT_APIC] = "apic",
		[SIM_FAULT_REGISTER] = "register", [SIM_FAULT_CONTROL] = "control",
		[SIM_FAULT_REAL] = "real",	   [SIM_FAULT_FORGET_ACK] = "forget-ack",
		[SIM_FAULT_RESET] = "reset",	   [SIM_FAULT_PAUSE] = "pause",
		[SIM_FAULT_MIGRATE] = "migrate",   [SIM_FAULT_KICK] = "kick",
		[SIM_FAULT_DEVICE] = "device",	   [SIM_FAULT_FORAY] = "foray",
		[SIM_FAULT_EVICT] = "evict",	   [SIM_FAULT_UNMAP] = "unmap",
		[SIM_FAULT_HOSTILE] = "hostile",   [SIM_FAULT_SIGNAL] = "signal",
		[SIM_FAULT_SNAPSHOT] = "snapshot",
	};

	return f < SIM_FAULTS ? names[f] : "?";
}

static void scribble(struct sim_vcpu *v)
{
	struct sim *w = v->w;
	struct apf_area *a = sim_area(v);
	static const uint32_t values[] = {0, 1, 2, 3, 0x1000, 0xffffffffu};
	uint32_t value = values[sim_rnd(w, ARRAY_LEN(values))];

	/* In a snapshot's moment no vCPU runs. */
	if (!w->host->visible[v->area_page] || w->snap.moment)
		return;
	if (sim_chance(w, 2))
		a->reason = value;
	else
		a->token = value;
	w->host->dirty[v->area_page] = 1;
	sim_snap_log(w, v->area_page);
}

void sim_pause_vm(struct sim *w)
{
	if (w->job != SIM_VMM_NONE || w->resume_ns != NS_NEVER)
		return;
	w->counts.pauses++;
	w->paused = true;
	sim_log_add(w->log, w->now_ns, SIM_OP_PAUSE, SIM_LOG_NOBODY, 0, 0);
	sim_chk_enter(w);
	hst_pause(&w->host->hst);
	sim_chk_leave(w);
	w->resume_ns = w->now_ns + sim_rnd(w, 5 * NS_PER_MS);
}

/* Never less than a guest of that size needs to go on: swarm.c. */
static void limit(struct sim *w)
{
	static const uint32_t more[] = {1, 4, 12, 24};
	struct sim_host *h = w->host;
	uint64_t blocks = sim_resident_min(&w->cfg) + more[sim_rnd(w, ARRAY_LEN(more))];

	hst_resident_max_set(&h->hst, sim_chance(w, 4) ? 0 : blocks << w->cfg.block_shift);
	h->evict.look_ns = w->now_ns;
	/* It goes before anything else comes. */
	if (h->hst.cfg.resident_max && h->hst.evict.resident > h->hst.evict.limit)
		h->over = h->hst.evict.resident;
}

static void evict(struct sim *w)
{
	if (!w->cfg.evict)
		return;
	sim_chk_enter(w);
	if (sim_chance(w, 3))
		limit(w);
	else
		hst_evict_to(&w->host->hst, sim_rnd(w, SIM_USED_PAGES) << PAGE_SHIFT);
	sim_chk_leave(w);
}

static void to_vcpu(struct sim_vcpu *v, enum sim_fault f)
{
	struct sim *w = v->w;

	switch (f) {
	case SIM_FAULT_SPURIOUS:
		w->counts.spurious++;
		if (v->cpu.apic_on)
			sim_cpu_irq(v, SIM_VECTOR_READY);
		break;
	case SIM_FAULT_NMI:
		v->cpu.nmi_pending = true;
		break;
	case SIM_FAULT_APIC:
		v->wishes |= v->cpu.apic_on ? SIM_WISH_APIC_OFF : SIM_WISH_APIC_ON;
		break;
	case SIM_FAULT_REGISTER:
		v->wishes |= sim_chance(w, 2)  ? SIM_WISH_DISABLE | SIM_WISH_ENABLE
			     : sim_chance(w, 2) ? SIM_WISH_REGISTERS
			     : sim_chance(w, 2) ? SIM_WISH_ENABLE
						: SIM_WISH_DISABLE;
		break;
	case SIM_FAULT_CONTROL:
		v->wishes |= SIM_WISH_CONTROL;
		break;
	case SIM_FAULT_FORAY:
		v->wishes |= SIM_WISH_FORAY;
		break;
	case SIM_FAULT_KICK:
		v->kick = true;
		break;
	case SIM_FAULT_SIGNAL:
		v->vmm_signal = true;
		break;
	case SIM_FAULT_RESET:
		if (sim_chance(w, 2)) {
			sim_vmm_reset_running(v);
			break;
		}
		sim_vmm_want(w, SIM_VMM_RESET, v->index);
		break;
	case SIM_FAULT_HOSTILE:
		scribble(v);
		break;
	default:
		break;
	}
}

void sim_faults_step(struct sim *w)
{
	enum sim_fault f = (enum sim_fault)sim_rnd(w, SIM_FAULTS);
	struct sim_vcpu *v = &w->vcpus[sim_rnd(w, w->cfg.vcpus)];

	w->director_ns = w->now_ns + sim_rnd(w, w->cfg.director_ns);
	if (!sim_has(w, f))
		return;
	sim_log_add(w->log, w->now_ns, SIM_OP_DIRECTOR, v->index, f, 0);
	switch (f) {
	case SIM_FAULT_PRESENT:
		w->present_fails = 1;
		break;
	case SIM_FAULT_UNMAP:
		w->unmap_fails = 1;
		break;
	case SIM_FAULT_EVICT:
		evict(w);
		break;
	case SIM_FAULT_PAUSE:
		sim_pause_vm(w);
		break;
	case SIM_FAULT_MIGRATE:
		if (sim_chance(w, 4))
			sim_vmm_want(w, SIM_VMM_MIGRATE, 0);
		break;
	default:
		to_vcpu(v, f);
	}
}

void sim_faults_end_on(struct sim_vcpu *v)
{
	v->wishes = SIM_WISH_APIC_ON;
	/* Whoever lives without a timer must still hear that something changed. */
	v->cpu.nmi_pending = true;
	if (sim_hostile(v->w))
		/* It comes to its senses: a new life for each processor. */
		v->reset = true;
}

void sim_faults_end(struct sim *w)
{
	struct sim_host *h = w->host;

	w->fair = true;
	/* What it goes on from is a moment in the middle of all that. */
	if (w->snap.has_one && sim_chance(w, 2))
		sim_vmm_want(w, SIM_VMM_RESTORE, 0);
	w->present_fails = 0;
	w->unmap_fails = 0;
	sim_log_add(w->log, w->now_ns, SIM_OP_FAIR, SIM_LOG_NOBODY, 0, 0);
	for (unsigned i = 0; i < w->cfg.vcpus; i++)
		sim_faults_end_on(&w->vcpus[i]);
	/* Hung reads answer when asked to end: the operator resumes once the VM is paused. */
	if (w->job != SIM_VMM_MIGRATE && w->job != SIM_VMM_RESTORE)
		w->resume_ns = w->now_ns;
	for (unsigned i = 0; i < SIM_READS_MAX; i++)
		if (h->reads[i].rd && h->reads[i].due_ns == NS_NEVER &&
		    w->cfg.source_timeout_ns == NS_NEVER)
			h->reads[i].due_ns = w->now_ns;
}
