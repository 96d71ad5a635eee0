/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's kernel on the simulated processor: a scheduler of tasks over the shipped guest
 * half. One coroutine per processor; wherever pass() is called the hypervisor, a device or
 * another processor may come in between. take_events() is what the hardware does at an
 * instruction boundary.
 *
 * A task is the page that it is going to touch next; a task that slept touches it again.
 */
#include <string.h>

#include "base/assert.h"
#include "sim/world.h"

static void take_events(struct sim_vcpu *v);

static void pass(struct sim_vcpu *v)
{
	sim_coroutine_yield(&v->co);
}

/* Computes for a while. */
static void work(struct sim_vcpu *v, uint64_t ns_max)
{
	v->busy_until_ns = v->w->now_ns + sim_rnd(v->w, ns_max + 1);
	pass(v);
}

static void boundary(struct sim_vcpu *v)
{
	pass(v);
	take_events(v);
}

/* ---- exits ---- */

/* What the host queued meanwhile is taken before anything else is executed. */
static void leave(struct sim_vcpu *v)
{
	sim_cpu_state(v, &v->exit.cpu);
	v->did = HST_DID_RUN;
	v->th = SIM_TH_STEP;
	/* Others may go a long way meanwhile: what it is about can leave. */
	if (v->w->cfg.parts && sim_chance(v->w, 16))
		v->late_until_ns = v->w->now_ns + sim_rnd(v->w, v->w->cfg.vmm_ns);
	boundary(v);
}

/* A touch of a page that the guest mapping does not show. Returns when the guest runs again. */
static void exit_fault(struct sim_vcpu *v, uint32_t page)
{
	struct sim_host *h = v->w->host;

	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_FAULT, v->index, page, 0);
	if (!h->poisoned[page]) {
		/* The touch waits in the kernel, which reports it; full: it is reported later. */
		v->kernel_wait = sim_touch(v->w, page, MEM_VIEW_GUEST);
		v->kernel_page = page;
		boundary(v);
		v->kernel_wait = false;
		return;
	}
	v->exit = (struct plat_exit){.kind = PLAT_EXIT_FAULT, .roff = sim_roff(page)};
	leave(v);
}

/* A data access at CPL 0 that an emulating host hands out. True: it was carried out. */
static bool exit_ram_io(struct sim_vcpu *v, uint32_t page, bool write)
{
	uint64_t value = write ? ++v->w->next_value : 0;

	v->exit = (struct plat_exit){.kind = PLAT_EXIT_RAM_IO,
				     .gpa = {sim_gpa(v->w, page).v + 64u * SIM_VCPUS_MAX}};
	memcpy(v->io_data, &value, sizeof(value));
	v->exit.io.data = v->io_data;
	v->exit.io.len = 8;
	v->exit.io.write = write;
	v->io_page = page;
	v->io_write = write;
	v->io_done = false;
	v->io_left = false;
	v->incomplete = true;
	leave(v);
	return v->io_done;
}

static void exit_msr(struct sim_vcpu *v, enum plat_exit_kind kind, uint32_t msr, uint64_t value)
{
	/* Again when it did not take effect: the VM was saved before. */
	do {
		v->exit = (struct plat_exit){.kind = kind, .msr = {msr, value}};
		v->msr_done = false;
		v->incomplete = true;
		leave(v);
	} while (!v->msr_done);
}

/* A register of a device of the VMM's whose reading has an effect: once, whatever happens. */
static void port_read(struct sim_vcpu *v)
{
	do {
		v->exit = (struct plat_exit){.kind = PLAT_EXIT_VMM};
		v->port_done = false;
		v->incomplete = true;
		leave(v);
	} while (!v->port_done);
	if (++v->port_made != v->port_seen)
		sim_broken(v->w, 0, "a device did not see each access once", v->port_made,
			   v->port_seen);
}

static bool visible(const struct sim_vcpu *v, uint32_t page)
{
	return v->w->host->visible[page];
}

/* The kernel needs a page, whatever it takes. */
static void need(struct sim_vcpu *v, uint32_t page)
{
	while (!visible(v, page))
		exit_fault(v, page);
}

/* ---- what the guest half asks for ---- */

static void wrmsr(struct sim_vcpu *v, uint32_t msr, uint64_t value)
{
	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_WRMSR, v->index, msr, value);
	if (msr == APF_MSR_ACK) {
		sim_chk_guest_ack(v);
		/* KVM keeps it, or the VMM's filter sends it out. */
		v->msr_gp = false;
		if (v->w->cfg.rev == APF_REV_INT && sim_chance(v->w, 2))
			return;
	}
	exit_msr(v, PLAT_EXIT_WRMSR, msr, value);
}

static bool gst_op_wrmsr(void *ctx, uint32_t msr, uint64_t value)
{
	struct sim_vcpu *v = ctx;

	v->acks += msr == APF_MSR_ACK;
	if (msr == APF_MSR_ACK && sim_has(v->w, SIM_FAULT_FORGET_ACK) && sim_chance(v->w, 6))
		return true;
	wrmsr(v, msr, value);
	bool gp = v->msr_gp;
	need(v, v->area_page);
	return !gp;
}

static void gst_op_wake(void *ctx, void *task)
{
	struct sim_vcpu *v = ctx;
	struct sim_task *t = task;

	sim_chk_guest_wake(v, t);
	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_WAKE, v->index, t->id, t->token);
	t->state = SIM_TASK_READY;
	/* Between the token's read and the slot's release; not under the table's lock. */
	if (!v->w->table.lock) {
		pass(v);
		need(v, v->area_page);
	}
}

/* ---- events ---- */

static void deliver(struct sim_vcpu *v, const struct sim_event *ev);

static void own_fault(struct sim_vcpu *v)
{
	struct sim_event ev = {.kind = SIM_EV_REAL,
			       .cr2 = SIM_REAL_ADDRESS + (sim_rnd(v->w, 1024) << PAGE_SHIFT)};

	v->w->counts.real_faults++;
	deliver(v, &ev);
}

static void sleep_on(struct sim_vcpu *v, uint32_t token)
{
	struct sim_task *t = v->current;

	ASSERT(t);
	work(v, v->w->cfg.step_ns);
	t->token = token;
	t->state = SIM_TASK_SLEEPS;
	v->current = NULL;
	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_SLEEP, v->index, t->id, token);
	if (!gst_sleep(&v->gst, token, t))
		t->state = SIM_TASK_READY;
}

static void pf_handler(struct sim_vcpu *v, const struct sim_event *ev, bool may_sleep)
{
	uint32_t token = 0;
	enum gst_pf what;

	pass(v);
	need(v, v->area_page);
	what = gst_pf_enter(&v->gst, v->cpu.cr2, &token);
	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_PF, v->index, what, v->cpu.cr2);
	sim_chk_guest_pf(v, ev, what, token, may_sleep);
	if (what == GST_PF_MISSING && v->current)
		sleep_on(v, token);
}

static void irq_handler(struct sim_vcpu *v, uint8_t vector)
{
	struct sim *w = v->w;
	bool early = sim_chance(w, 2);

	sim_log_add(w->log, w->now_ns, SIM_OP_IRQ, v->index, vector, 0);
	v->chk.eoi_due++;
	if (early) {
		v->cpu.in_service = false;
		v->chk.eoi_due--;
	}
	work(v, w->cfg.step_ns);
	if (vector == SIM_VECTOR_READY) {
		/* The handler's own code may fault before it reads the slot. */
		if (w->cfg.rev != APF_REV_PF2_STRICT && sim_has(w, SIM_FAULT_REAL) &&
		    sim_chance(w, 4))
			own_fault(v);
		need(v, v->area_page);
		v->acks = 0;
		gst_ready_irq(&v->gst);
		sim_chk_guest_ready(v);
	}
	if (!early) {
		v->cpu.in_service = false;
		v->chk.eoi_due--;
	}
	pass(v);
}

/* What the hardware does with an event, from its frame to IRET. */
static void deliver(struct sim_vcpu *v, const struct sim_event *ev)
{
	struct sim_cpu *c = &v->cpu, was;
	bool may_sleep;

	c->reinject = *ev;
	if (ev->kind != SIM_EV_IRQ && ev->kind != SIM_EV_NMI)
		c->cr2 = ev->cr2;
	/* The frame goes to the kernel's stack, which may be absent. */
	while (!visible(v, v->stack_page))
		exit_fault(v, v->stack_page);
	c->reinject.kind = SIM_EV_NONE;
	was = *c;
	may_sleep = was.interrupts_on && (was.cpl == 3 || v->w->cfg.send_always);
	c->interrupts_on = false;
	c->shadow = false;
	c->cpl = 0;
	switch (ev->kind) {
	case SIM_EV_IRQ:
		irq_handler(v, ev->vector);
		break;
	case SIM_EV_NMI:
		sim_log_add(v->w->log, v->w->now_ns, SIM_OP_NMI, v->index, 0, 0);
		c->in_nmi = true;
		pass(v);
		c->in_nmi = false;
		break;
	case SIM_EV_MISSING:
	case SIM_EV_READY:
	case SIM_EV_REAL:
		pf_handler(v, ev, may_sleep);
		break;
	case SIM_EV_NONE:
		break;
	}
	c->interrupts_on = was.interrupts_on;
	c->cpl = was.cpl;
}

/* The next event that is to be taken now, by the order of the SDM (3A, 6.9). */
static bool next_event(struct sim_vcpu *v, struct sim_event *ev)
{
	struct sim_cpu *c = &v->cpu;

	/* The one that is half delivered comes first. */
	if (c->reinject.kind != SIM_EV_NONE)
		return false;
	if (c->pf.kind != SIM_EV_NONE) {
		*ev = c->pf;
		c->pf.kind = SIM_EV_NONE;
		return true;
	}
	if (c->nmi_pending && !c->in_nmi) {
		c->nmi_pending = false;
		*ev = (struct sim_event){.kind = SIM_EV_NMI};
		return true;
	}
	if (!c->interrupts_on || c->shadow || c->in_service)
		return false;
	for (unsigned i = 4; i-- > 0;) {
		if (!c->irr[i])
			continue;
		unsigned bit = 63u - (unsigned)__builtin_clzll(c->irr[i]);

		c->irr[i] &= ~(1ull << bit);
		c->in_service = true;
		*ev = (struct sim_event){.kind = SIM_EV_IRQ, .vector = (uint8_t)(64 * i + bit)};
		return true;
	}
	return false;
}

static void take_events(struct sim_vcpu *v)
{
	struct sim_event ev;

	while (next_event(v, &ev))
		deliver(v, &ev);
}

/* ---- tasks ---- */

static uint32_t pick_page(struct sim *w, const struct sim_task *t)
{
	if (w->cfg.sequential)
		return (uint32_t)(SIM_PAGE_FIRST + (t->page + 1 - SIM_PAGE_FIRST) % w->cfg.pages);
	return sim_any_page(w);
}

static void plan_access(struct sim *w, struct sim_task *t)
{
	t->page = pick_page(w, t);
	t->write = sim_chance(w, w->cfg.write_one_in);
	t->kernel = sim_chance(w, w->cfg.kernel_one_in);
}

/* One access of the running task; false when the task was put to sleep. */
static bool access_page(struct sim_vcpu *v, struct sim_task *t)
{
	struct sim *w = v->w;

	v->cpu.shadow = sim_chance(w, w->cfg.shadow_one_in);
	for (;;) {
		boundary(v);
		if (v->current != t)
			return false;
		if (!v->cpu.shadow && sim_has(w, SIM_FAULT_REAL) && sim_chance(w, 8)) {
			own_fault(v);
			if (v->current != t)
				return false;
		}
		if (sim_page_left(w, t->page)) {
			/* As a device's register. */
			sim_log_add(w->log, w->now_ns, SIM_OP_LEFT, v->index, t->page, 0);
			w->counts.left_accesses++;
			port_read(v);
			v->cpu.shadow = false;
			return v->current == t;
		}
		if (visible(v, t->page))
			break;
		if (t->kernel && w->cfg.emulated && w->host->poisoned[t->page]) {
			if (exit_ram_io(v, t->page, t->write)) {
				w->counts.accesses++;
				return true;
			}
			continue;
		}
		exit_fault(v, t->page);
	}
	v->cpu.shadow = false;
	sim_page_access(w, t->page, t->write, SIM_BY_GUEST);
	w->counts.accesses++;
	return true;
}

static void run_task(struct sim_vcpu *v, struct sim_task *t)
{
	struct sim *w = v->w;

	v->current = t;
	t->state = SIM_TASK_RUNS;
	v->cpu.cpl = t->kernel ? 0 : 3;
	v->cpu.interrupts_on = !t->kernel || !sim_chance(w, w->cfg.cli_one_in);
	if (access_page(v, t)) {
		if (--t->left == 0) {
			t->state = SIM_TASK_DONE;
			sim_log_add(w->log, w->now_ns, SIM_OP_DONE, v->index, t->id, 0);
		}
		plan_access(w, t);
	}
	if (t->state == SIM_TASK_RUNS)
		t->state = SIM_TASK_READY;
	v->current = NULL;
	v->cpu.cpl = 0;
	v->cpu.shadow = false;
	v->cpu.interrupts_on = false;
}

static struct sim_task *pick_task(struct sim_vcpu *v)
{
	unsigned n = v->w->cfg.tasks, from = sim_pick(v->w, n);

	for (unsigned i = 0; i < n && !v->w->hold; i++)
		if (v->tasks[(from + i) % n].state == SIM_TASK_READY)
			return &v->tasks[(from + i) % n];
	return NULL;
}

static void idle(struct sim_vcpu *v)
{
	v->cpu.interrupts_on = true;
	if (v->cpu.apic_on) {
		/* STI; HLT: an interrupt that came since the look at the queue ends it. */
		sim_log_add(v->w->log, v->w->now_ns, SIM_OP_HLT, v->index, 0, 0);
		v->cpu.halted = true;
		boundary(v);
	} else {
		/* Nothing would wake it. */
		v->busy_until_ns = v->w->now_ns + 20 * NS_PER_US;
		boundary(v);
	}
	v->cpu.interrupts_on = false;
}

bool sim_tasks_done(const struct sim *w)
{
	for (unsigned c = 0; c < w->cfg.vcpus; c++)
		for (unsigned i = 0; i < w->cfg.tasks; i++)
			if (w->vcpus[c].tasks[i].state != SIM_TASK_DONE)
				return false;
	return true;
}

/* ---- the kernel's own doings ---- */

static void enable(struct sim_vcpu *v)
{
	need(v, v->area_page);
	bool on = gst_enable(&v->gst);

	ASSERT(on || v->gst.rev == APF_REV_OFF);
}

static void disable(struct sim_vcpu *v)
{
	need(v, v->area_page);
	gst_disable(&v->gst);
}

/* Reads its registers back, and writes what must be refused. */
static void try_registers(struct sim_vcpu *v)
{
	static const struct {
		uint32_t msr;
		uint64_t value;
	} bad[] = {
		{APF_MSR_EN, 0x30 | APF_EN_ENABLED},
		{APF_MSR_EN, (1ull << 52) | APF_EN_ENABLED | APF_EN_INT},
		{APF_MSR_CTL, 1ull << 9},
	};
	unsigned i = (unsigned)sim_rnd(v->w, 4);

	if (v->w->cfg.faults != HST_FAULTS_USER)
		return;
	if (i < 3) {
		wrmsr(v, bad[i].msr, bad[i].value);
		if (!v->msr_gp)
			sim_broken(v->w, 20, "a bad value was accepted", bad[i].msr, bad[i].value);
		return;
	}
	exit_msr(v, PLAT_EXIT_RDMSR, APF_MSR_EN, 0);
	if (!v->msr_gp)
		sim_chk_guest_rdmsr(v, APF_MSR_EN, v->msr_value);
	exit_msr(v, PLAT_EXIT_RDMSR, APF_MSR_CTL, 0);
	if (!v->msr_gp)
		sim_chk_guest_rdmsr(v, APF_MSR_CTL, v->msr_value);
	exit_msr(v, PLAT_EXIT_RDMSR, APF_MSR_ACK, 0);
	if (!v->msr_gp)
		sim_chk_guest_rdmsr(v, APF_MSR_ACK, v->msr_value);
}

/* The control register is switched off for a while; page-ready events wait. */
static void off_and_on(struct sim_vcpu *v)
{
	uint64_t on = v->chk.ctl;

	if (!v->gst.enabled || on == 0)
		return;
	wrmsr(v, APF_MSR_CTL, v->w->cfg.rev == APF_REV_INT ? 0 : on & APF_CTL_VECTOR_MASK);
	work(v, 100 * NS_PER_US);
	wrmsr(v, APF_MSR_CTL, on);
}

/* A firmware call: paging off, interrupts on, a page of its own is touched. */
static void foray(struct sim_vcpu *v)
{
	uint32_t page = SIM_PAGE_FIRST + (uint32_t)sim_rnd(v->w, v->w->cfg.pages);

	v->cpu.paging = false;
	v->cpu.interrupts_on = true;
	boundary(v);
	need(v, page);
	v->cpu.interrupts_on = false;
	v->cpu.paging = true;
}

/* The kernel's clock is told where it is, and moves when it is to. */
static void set_clock(struct sim_vcpu *v, bool moves)
{
	struct sim *w = v->w;
	const struct sim_part *p = &w->plug.parts[moves ? sim_rnd(w, SIM_PARTS_MAX) : 0];

	if (moves && p->state == SIM_PART_IN)
		v->clock_page = p->page + (uint32_t)sim_rnd(w, p->pages);
	else if (moves || sim_page_left(w, v->clock_page))
		v->clock_page = v->area_page + 1;
	exit_msr(v, PLAT_EXIT_WRMSR, PV_MSR_SYSTEM_TIME, sim_gpa(v->w, v->clock_page).v | 1);
}

static void do_wishes(struct sim_vcpu *v)
{
	unsigned wishes = v->wishes;

	v->wishes = 0;
	if (wishes & SIM_WISH_APIC_OFF)
		v->cpu.apic_on = false;
	if (wishes & SIM_WISH_APIC_ON)
		v->cpu.apic_on = true;
	if (wishes & SIM_WISH_DISABLE)
		disable(v);
	if (wishes & SIM_WISH_REGISTERS)
		try_registers(v);
	if (wishes & SIM_WISH_CONTROL)
		off_and_on(v);
	if (wishes & SIM_WISH_FORAY)
		foray(v);
	if ((wishes & SIM_WISH_CLOCK) && v->w->cfg.clock)
		set_clock(v, true);
	if (wishes & SIM_WISH_ENABLE)
		enable(v);
}

static void kernel_main(void *arg)
{
	struct sim_vcpu *v = arg;

	/* After a reset: whoever slept on this processor touches his page again. */
	need(v, v->area_page);
	gst_wake(&v->gst, APF_TOKEN_WAKE_ALL);
	v->gst.enabled = false;
	if (v->w->cfg.clock)
		set_clock(v, false);
	if (v->gst.rev != APF_REV_OFF)
		enable(v);
	v->up = true;
	for (;;) {
		struct sim_task *t;

		if (v->wishes)
			do_wishes(v);
		if (sim_chance(v->w, v->w->cfg.port_one_in))
			port_read(v);
		t = pick_task(v);
		if (t)
			run_task(v, t);
		else
			idle(v);
	}
}

void sim_guest_boot(struct sim_vcpu *v)
{
	v->current = NULL;
	v->busy_until_ns = 0;
	v->port_made = v->port_seen;
	for (unsigned i = 0; i < v->w->cfg.tasks; i++)
		if (v->tasks[i].state == SIM_TASK_RUNS)
			v->tasks[i].state = SIM_TASK_READY;
	sim_coroutine_start(&v->co, kernel_main, v);
}

static void init_cpu(struct sim *w, unsigned c)
{
	static const struct gst_ops ops = {.wrmsr = gst_op_wrmsr, .wake = gst_op_wake};
	struct sim_vcpu *v = &w->vcpus[c];

	v->gst = (struct gst_cpu){
		.ops = &ops,
		.ctx = v,
		.area = sim_area(v),
		.area_gpa = sim_area_gpa(v),
		.table = &w->table,
		.rev = w->cfg.faults == HST_FAULTS_USER ? w->cfg.rev : APF_REV_OFF,
		.cpu = (uint16_t)c,
		.vector = SIM_VECTOR_READY,
		.send_always = w->cfg.send_always,
	};
	for (unsigned i = 0; i < w->cfg.tasks; i++) {
		struct sim_task *t = &v->tasks[i];

		*t = (struct sim_task){
			.id = c * SIM_TASKS_MAX + i,
			.cpu = c,
			.left = w->cfg.accesses,
			.page = SIM_PAGE_FIRST + (uint32_t)(w->pick ? (c + i) % w->cfg.pages
								    : sim_rnd(w, w->cfg.pages)),
		};
		if (!w->pick)
			plan_access(w, t);
	}
	sim_guest_boot(v);
}

void sim_guest_init(struct sim *w)
{
	gst_table_init(&w->table, w->nodes, w->cfg.nodes);
	for (unsigned c = 0; c < w->cfg.vcpus; c++)
		init_cpu(w, c);
}
