/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of the host: one per vCPU, the library's own, the evicting one, one of a device.
 * The steps are the driver's (host/drive.h); here they are scheduled. A step is what a thread
 * does while it holds the VM lock. Making a block visible drops the lock, so it is a step of its
 * own.
 */
#include <string.h>

#include "base/assert.h"
#include "sim/world.h"

/* ---- pumping ---- */

bool sim_pump_step(struct sim *w, struct sim_pump *s)
{
	struct sim_host *h = w->host;
	bool more;

	if (s->shows) { /* without the lock */
		hst_pump_show(&s->pump);
		s->shows = false;
		return false;
	}
	sim_chk_enter(w);
	if (s->pump.why.code == 0)
		for (const struct hst_fetch *f = s->pump.fetch; f; f = hst_fetch_next(f))
			sim_chk_shown(w, f);
	more = hst_pump(&h->hst, &s->pump);
	sim_chk_leave(w);
	s->shows = more;
	return !more;
}

/* ---- a vCPU's thread ---- */

static void go_in(struct sim_vcpu *v)
{
	struct sim_cpu *c = &v->cpu;

	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_ENTER, v->index, v->step.entry.how, 0);
	/* KVM takes over what the VMM left in kvm_run before it does anything else. */
	v->port_done |= v->incomplete && v->exit.kind == PLAT_EXIT_VMM;
	v->incomplete = false;
	/* One that is kicked does not get that far. */
	if (v->step.entry.how != PLAT_COMPLETE && !v->kick)
		sim_chk_clock(v);
	sim_chk_ahead(v);
	switch (v->step.entry.how) {
	case PLAT_ENTER_HALTED:
		c->halted = true;
		c->halted_by_host = true;
		break;
	case PLAT_ENTER_RUNNABLE:
		/* A HLT of the guest's own, too. */
		c->halted_by_host = false;
		c->halted = false;
		break;
	case PLAT_COMPLETE:
		v->kick = true;
		break;
	case PLAT_ENTER:
		break;
	}
}

/* What a VMM may do to a vCPU at rest: it steps the guest over an instruction, a MOV SS. */
static void meddle(struct sim_vcpu *v)
{
	const struct sim_task *t = v->current;

	if (sim_has(v->w, SIM_FAULT_SIGNAL) && t && t->state == SIM_TASK_RUNS && v->cpu.cpl == 3 &&
	    !v->incomplete && sim_chance(v->w, 2))
		v->cpu.shadow = true;
}

/* plat rest, and what must hold then. */
static void come_to_rest(struct sim_vcpu *v)
{
	struct sim_cpu *c = &v->cpu;

	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_REST, v->index,
		    (uint64_t)(int64_t)v->step.result, 0);
	if (c->halted_by_host) {
		c->halted_by_host = false;
		c->halted = false;
	}
	v->kick = false;
	v->wanted = false;
	sim_chk_rest(v);
	v->did = HST_DID_CALL;
	v->th = SIM_TH_STEP;
	if (v->step.result == 0) {
		/*
		 * A device answers, unless the vCPU was reset on the way. Whatever else the VMM
		 * wants, KVM must see the answer first.
		 */
		v->port_seen += v->incomplete && v->exit.kind == PLAT_EXIT_VMM;
		return;
	}
	meddle(v);
	/* The VMM keeps the thread only if it has something to do with it. */
	if (sim_vmm_keeps(v))
		v->th = SIM_TH_STOPPED;
}

/* Pumped until nothing was left: the step can be carried out. */
static void pumped(struct sim_vcpu *v)
{
	switch (v->step.next) {
	case HST_DO_PUMP:
		v->did = HST_DID_PUMP;
		v->th = SIM_TH_STEP;
		break;
	case HST_DO_WAIT:
		v->th = SIM_TH_WAIT;
		break;
	case HST_DO_RUN:
		v->th = SIM_TH_GUEST;
		go_in(v);
		break;
	case HST_DO_RETURN:
		come_to_rest(v);
		break;
	}
}

static void pump(struct sim_vcpu *v)
{
	v->th = SIM_TH_PUMP;
	if (sim_pump_step(v->w, &v->pump))
		pumped(v);
}

/* An access to memory goes to the VMM: only where there is none any more. */
static bool is_given_up(const struct sim_vcpu *v)
{
	return v->did == HST_DID_RUN && v->exit.kind == PLAT_EXIT_RAM_IO &&
	       v->step.next == HST_DO_RETURN && v->step.result == 0;
}

static void no_memory(struct sim_vcpu *v)
{
	uint32_t page;

	if (sim_gpa_page(v->w, v->exit.gpa, &page))
		sim_broken(v->w, 0, "an access to memory is given to the VMM", v->io_page, page);
	v->io_pending = false;
	v->io_done = true;
}

static void step(struct sim_vcpu *v)
{
	struct hst_vcpu *hv = sim_hv(v);

	if (v->did == HST_DID_RUN) {
		sim_log_add(v->w->log, v->w->now_ns, SIM_OP_EXIT, v->index, v->exit.kind, 0);
		v->io_pending |= v->exit.kind == PLAT_EXIT_RAM_IO;
		v->chk.eng = hv->eng;
	}
	/* A VMM that blocks its signal outside of KVM finds it out by immediate_exit. */
	if (v->did == HST_DID_CALL && v->vmm_signal && sim_chance(v->w, 2)) {
		v->vmm_signal = false;
		v->wanted = true;
	}
	sim_chk_enter(v->w);
	hst_vcpu_step(hv, v->did, &v->exit, v->wanted, &v->step);
	if (is_given_up(v))
		no_memory(v);
	sim_chk_step(v);
	sim_chk_leave(v->w);
	v->wanted = false;
	if (v->step.leave)
		pumped(v);
	else
		pump(v);
	/* The page cache may have answered: nobody comes in between. */
	if (v->th == SIM_TH_STEP && v->did == HST_DID_PUMP)
		step(v);
}

static void leave_by_kick(struct sim_vcpu *v)
{
	v->kick = false;
	v->kernel_wait = false;
	v->exit = (struct plat_exit){.kind = v->vmm_signal ? PLAT_EXIT_SIGNAL : PLAT_EXIT_KICK};
	v->vmm_signal = false;
	sim_cpu_state(v, &v->exit.cpu);
	v->did = HST_DID_RUN;
	v->th = SIM_TH_STEP;
	if (v->init)
		sim_vmm_reset_cpu(v);
}

static void guest_step(struct sim_vcpu *v)
{
	if (v->kick || v->vmm_signal) {
		leave_by_kick(v);
		return;
	}
	if (sim_cpu_wakes(v)) {
		v->cpu.halted = false;
		v->cpu.halted_by_host = false;
	}
	sim_coroutine_resume(&v->co);
}

bool sim_vcpu_runnable(const struct sim_vcpu *v)
{
	switch (v->th) {
	case SIM_TH_STOPPED:
		return false;
	case SIM_TH_WAIT:
		return v->kick || v->vmm_signal;
	case SIM_TH_GUEST:
		if (v->kick || v->vmm_signal)
			return true;
		if (v->kernel_wait)
			return false;
		if (v->cpu.halted)
			return sim_cpu_wakes(v);
		return v->busy_until_ns <= v->w->now_ns;
	case SIM_TH_STEP:
		return v->late_until_ns <= v->w->now_ns;
	case SIM_TH_PUMP:
		break;
	}
	return true;
}

void sim_vcpu_step(struct sim_vcpu *v)
{
	uint64_t words = *(uint64_t *)(void *)sim_area(v);
	struct sim_host *h = v->w->host;

	switch (v->th) {
	case SIM_TH_STEP:
		step(v);
		break;
	case SIM_TH_WAIT:
		v->wanted = v->vmm_signal;
		v->vmm_signal = false;
		v->kick = false;
		v->did = HST_DID_WAIT;
		v->th = SIM_TH_STEP;
		break;
	case SIM_TH_GUEST:
		guest_step(v);
		if (h == v->w->host && *(uint64_t *)(void *)sim_area(v) != words) {
			h->dirty[v->area_page] = 1;
			sim_snap_log(v->w, v->area_page);
		}
		sim_chk_guest_words(v, words);
		break;
	case SIM_TH_PUMP:
		pump(v);
		break;
	case SIM_TH_STOPPED:
		break;
	}
}

/* ---- the library's thread ---- */

bool sim_lib_runnable(const struct sim *w)
{
	const struct sim_host *h = w->host;

	if (h->lib_late_ns > w->now_ns)
		return false;
	return h->lib_pumping || (h->touch_count > 0 && hst_touch_room(&h->hst) > 0) ||
	       hst_pump_due(&h->hst) || hst_touch_due(&h->hst) ||
	       sim_io_next_ns(h) <= w->now_ns ||
	       timers_next_ns(&h->hst.timers) <= w->now_ns;
}

void sim_lib_step(struct sim *w)
{
	struct sim_host *h = w->host;
	struct mem_touch touches[SIM_TOUCHES_MAX];
	unsigned count = (unsigned)min_u64(h->touch_count, hst_touch_room(&h->hst));

	if (!h->lib_pumping) {
		for (unsigned i = 0; i < count; i++) {
			touches[i] = h->touches[i];
			sim_log_add(w->log, w->now_ns,
				    touches[i].view == MEM_VIEW_VMM ? SIM_OP_VMM_TOUCH
								    : SIM_OP_TOUCH,
				    SIM_LOG_NOBODY, sim_page(touches[i].off), 0);
		}
		sim_chk_enter(w);
		hst_serve_step(&h->hst, touches, (int)count, NULL);
		sim_chk_leave(w);
		sim_log_add(w->log, w->now_ns, SIM_OP_SERVE, SIM_LOG_NOBODY, count, 0);
		h->touch_count -= count;
		memmove(h->touches, h->touches + count, h->touch_count * sizeof(h->touches[0]));
		h->lib_pumping = true;
	}
	if (sim_pump_step(w, &h->lib))
		h->lib_pumping = false;
}

/* ---- a device ---- */

bool sim_device_runnable(const struct sim *w)
{
	const struct sim_device *d = &w->device;

	if (d->pumping || d->ready)
		return true;
	return !d->waiting && !w->fair && (w->cfg.faults_on >> SIM_FAULT_DEVICE & 1) &&
	       d->due_ns <= w->now_ns && w->job != SIM_VMM_MIGRATE && w->job != SIM_VMM_RESTORE &&
	       !w->snap.holds;
}

static void device_access(struct sim *w)
{
	bool write = sim_chance(w, 2);

	w->device.due_ns = w->now_ns + sim_rnd(w, 2 * NS_PER_MS);
	sim_log_add(w->log, w->now_ns, SIM_OP_DEVICE, SIM_LOG_NOBODY, w->device.page, 0);
	if (write)
		hst_wrote(&w->host->hst, sim_roff(w->device.page), PAGE_BYTES);
	sim_page_access(w, w->device.page, write, SIM_BY_HOST);
}

void sim_device_step(struct sim *w)
{
	struct sim_device *d = &w->device;

	if (d->pumping) {
		d->pumping = !sim_pump_step(w, &d->pump);
		return;
	}
	/* Again when it was woken: the block may have been taken away since. */
	if (!d->ready)
		d->page = sim_any_page(w);
	d->ready = false;
	sim_chk_enter(w);
	d->waiting = !hst_ensure(&w->host->hst, sim_roff(d->page), &d->waiter);
	sim_chk_leave(w);
	/* The lock is held from the look to the access: the block is still there. */
	if (d->waiting)
		d->pumping = !sim_pump_step(w, &d->pump);
	else
		device_access(w);
}
