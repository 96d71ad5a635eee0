/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of the host: one per vCPU, the library's own, one of a device. Each does what
 * its counterpart in src/lib does with the same driver calls in the same order; a step is
 * what it does while it holds the VM lock. Making a block visible drops the lock, so it is a
 * step of its own (lib_settle).
 */
#include <string.h>

#include "base/assert.h"
#include "sim/world.h"

/* ---- settling ---- */

bool sim_settle_step(struct sim *w, struct sim_settle *s)
{
	struct sim_host *h = w->host;
	unsigned reaped = 0;

	switch (s->stage) {
	case SIM_SETTLE_PRESENT: /* without the lock */
		s->why = (struct err){0};
		s->why.code = hst_make_visible(s->fetch, &s->why);
		s->stage = SIM_SETTLE_DONE;
		return false;
	case SIM_SETTLE_DONE:
		sim_chk_enter(w);
		if (s->why.code == 0)
			sim_chk_settled(w, s->fetch);
		hst_settle(s->fetch, s->why.code < 0 ? &s->why : NULL);
		sim_chk_leave(w);
		s->stage = SIM_SETTLE_LOOK;
		break;
	case SIM_SETTLE_LOOK:
		break;
	}
	/* Under the lock until there is a block to make visible. */
	do {
		sim_chk_enter(w);
		sim_io_ops.flush(h);
		reaped = sim_io_ops.reap(h);
		s->fetch = hst_take_filled(&h->hst);
		sim_chk_leave(w);
	} while (!s->fetch && reaped);
	if (!s->fetch)
		return true;
	s->stage = SIM_SETTLE_PRESENT;
	return false;
}

/* Settles, then goes on with `then`; at once where the lock is not dropped. */
static void settle_then(struct sim_vcpu *v, enum sim_thread_state then)
{
	v->th = sim_settle_step(v->w, &v->settle) ? then : SIM_TH_SETTLE;
	v->then = then;
}

/* ---- a vCPU's thread ---- */

static void go_in(struct sim_vcpu *v)
{
	struct sim_cpu *c = &v->cpu;

	switch (v->enter) {
	case PLAT_ENTER_HALTED:
		c->halted = true;
		c->halted_by_host = true;
		break;
	case PLAT_ENTER_RUNNABLE:
		if (c->halted_by_host) {
			c->halted_by_host = false;
			c->halted = false;
		}
		break;
	case PLAT_ENTER:
	case PLAT_COMPLETE:
		break;
	}
	v->incomplete = false;
	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_ENTER, v->index, v->enter, 0);
}

/* An access to absent RAM that the host carries out for the guest. */
static void carry_out(struct sim_vcpu *v)
{
	v->io_pending = false;
	v->io_done = true;
	if (v->exit.io.write)
		hst_wrote(&v->w->host->hst, v->exit.roff);
	sim_page_access(v->w, sim_page(v->exit.roff), v->exit.io.write, false);
}

/* The VMM wants the thread: a register access that took effect is completed first. */
static void stop(struct sim_vcpu *v)
{
	if (v->incomplete && sim_hv(v)->phase == HST_PHASE_RUN) {
		struct cpu_state cpu;

		v->incomplete = false;
		sim_cpu_state(v, &cpu);
		sim_chk_enter(v->w);
		hst_exit(sim_hv(v), &cpu, true);
		sim_chk_leave(v->w);
	}
	v->vmm_kick = false;
	settle_then(v, SIM_TH_STOPPED);
}

static void next(struct sim_vcpu *v)
{
	static const enum plat_enter enter[] = {
		[HST_ENTER] = PLAT_ENTER,
		[HST_ENTER_HALTED] = PLAT_ENTER_HALTED,
		[HST_ENTER_RUNNABLE] = PLAT_ENTER_RUNNABLE,
	};
	enum hst_next how;

	if (v->vmm_kick) {
		stop(v);
		return;
	}
	sim_chk_enter(v->w);
	how = hst_next(sim_hv(v));
	sim_chk_next(v, how);
	sim_chk_leave(v->w);
	if (how == HST_WAIT) {
		settle_then(v, SIM_TH_WAIT);
		return;
	}
	v->enter = enter[how];
	sim_chk_came(v);
	if (v->io_pending)
		carry_out(v);
	settle_then(v, SIM_TH_GUEST);
	if (v->th == SIM_TH_GUEST)
		go_in(v);
}

static void tell_driver(struct sim_vcpu *v)
{
	struct hst_vcpu *hv = sim_hv(v);
	const struct plat_exit *x = &v->exit;

	hst_exit(hv, &x->cpu, x->kind == PLAT_EXIT_KICK);
	switch (x->kind) {
	case PLAT_EXIT_FAULT:
		hst_fault(hv, x->roff);
		break;
	case PLAT_EXIT_RAM_IO:
		v->io_pending = true;
		hst_ram_io(hv, x->roff);
		break;
	case PLAT_EXIT_WRMSR:
		v->chk.eng = hv->eng;
		hst_wrmsr(hv, x->msr.index, x->msr.value);
		break;
	case PLAT_EXIT_RDMSR:
		hst_rdmsr(hv, x->msr.index);
		break;
	case PLAT_EXIT_KICK:
	case PLAT_EXIT_VMM:
	case PLAT_EXIT_ERROR:
		break;
	}
}

static void take_exit(struct sim_vcpu *v)
{
	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_EXIT, v->index, v->exit.kind, 0);
	sim_chk_enter(v->w);
	tell_driver(v);
	sim_chk_leave(v->w);
	settle_then(v, SIM_TH_NEXT);
	if (v->th == SIM_TH_NEXT)
		next(v);
}

static void leave_by_kick(struct sim_vcpu *v)
{
	v->kick = false;
	v->kernel_wait = false;
	v->exit = (struct plat_exit){.kind = PLAT_EXIT_KICK};
	sim_cpu_state(v, &v->exit.cpu);
	v->th = SIM_TH_EXIT;
}

static void guest_step(struct sim_vcpu *v)
{
	if (v->kick) {
		leave_by_kick(v);
		return;
	}
	if (sim_cpu_wakes(v))
		v->cpu.halted = false;
	sim_co_resume(&v->co);
}

bool sim_vcpu_runnable(const struct sim_vcpu *v)
{
	switch (v->th) {
	case SIM_TH_STOPPED:
		return false;
	case SIM_TH_WAIT:
		return v->kick;
	case SIM_TH_GUEST:
		if (v->kick)
			return true;
		if (v->kernel_wait)
			return false;
		if (v->cpu.halted)
			return sim_cpu_wakes(v);
		return v->busy_until_ns <= v->w->now_ns;
	case SIM_TH_NEXT:
	case SIM_TH_EXIT:
	case SIM_TH_SETTLE:
		break;
	}
	return true;
}

void sim_vcpu_step(struct sim_vcpu *v)
{
	uint64_t words = *(uint64_t *)(void *)sim_area(v);
	struct sim_host *h = v->w->host;

	switch (v->th) {
	case SIM_TH_NEXT:
		next(v);
		break;
	case SIM_TH_WAIT:
		v->kick = false;
		v->th = SIM_TH_NEXT;
		break;
	case SIM_TH_GUEST:
		guest_step(v);
		if (h == v->w->host && *(uint64_t *)(void *)sim_area(v) != words)
			h->dirty[v->area_page] = 1;
		sim_chk_guest_words(v, words);
		break;
	case SIM_TH_EXIT:
		take_exit(v);
		break;
	case SIM_TH_SETTLE:
		settle_then(v, v->then);
		if (v->th == SIM_TH_GUEST)
			go_in(v);
		break;
	case SIM_TH_STOPPED:
		break;
	}
}

/* ---- the library's thread ---- */

bool sim_lib_runnable(const struct sim *w)
{
	const struct sim_host *h = w->host;

	return h->lib_settling || h->touch_count > 0 || sim_io_next_ns(h) <= w->now_ns ||
	       timers_next_ns(&h->hst.timers) <= w->now_ns;
}

static void serve_touches(struct sim *w)
{
	struct sim_host *h = w->host;
	struct err e = {0};

	for (unsigned i = 0; i < h->touch_count; i++) {
		sim_log_add(w->log, w->now_ns, SIM_OP_TOUCH, SIM_LOG_NOBODY, h->touches[i], 0);
		(void)hst_kernel_touch(&h->hst, sim_roff(h->touches[i]), &e);
	}
	h->touch_count = 0;
}

void sim_lib_step(struct sim *w)
{
	struct sim_host *h = w->host;
	unsigned fired;

	if (!h->lib_settling) {
		sim_chk_enter(w);
		serve_touches(w);
		fired = timers_run(&h->hst.timers, w->now_ns);
		sim_chk_leave(w);
		if (fired)
			sim_log_add(w->log, w->now_ns, SIM_OP_TIMERS, SIM_LOG_NOBODY, fired, 0);
		h->lib_settling = true;
	}
	if (sim_settle_step(w, &h->lib))
		h->lib_settling = false;
}

/* ---- a device ---- */

bool sim_device_runnable(const struct sim *w)
{
	const struct sim_device *d = &w->device;

	if (d->settling || d->ready)
		return true;
	return !d->waiting && !w->fair && (w->cfg.faults_on >> SIM_FAULT_DEVICE & 1) &&
	       d->due_ns <= w->now_ns && w->job != SIM_VMM_MIGRATE;
}

static void device_access(struct sim *w)
{
	bool write = sim_chance(w, 2);

	w->device.due_ns = w->now_ns + sim_rnd(w, 2 * NS_PER_MS);
	sim_log_add(w->log, w->now_ns, SIM_OP_DEVICE, SIM_LOG_NOBODY, w->device.page, 0);
	if (write)
		hst_wrote(&w->host->hst, sim_roff(w->device.page));
	sim_page_access(w, w->device.page, write, false);
}

void sim_device_step(struct sim *w)
{
	struct sim_device *d = &w->device;

	if (d->settling) {
		d->settling = !sim_settle_step(w, &d->settle);
		return;
	}
	/* Again when it was woken: the block may have been taken away since. */
	if (!d->ready)
		d->page = (uint32_t)(SIM_PAGE_FIRST + sim_rnd(w, w->cfg.pages));
	d->ready = false;
	sim_chk_enter(w);
	d->waiting = !hst_ensure(&w->host->hst, sim_roff(d->page), &d->waiter);
	sim_chk_leave(w);
	/* The lock is held from the look to the access: the block is still there. */
	if (d->waiting)
		d->settling = !sim_settle_step(w, &d->settle);
	else
		device_access(w);
}
