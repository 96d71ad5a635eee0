/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random histories of the driver with its engines: every way of serving faults, every
 * revision, one to four vCPUs with a few tasks each, a source that fails, hangs and
 * answers late, interrupts that are refused, a guest that dawdles, rewrites its registers
 * or forgets to acknowledge, pauses. Then a bounded time in which everybody is fair: each
 * task must get on, and nothing may be left over. Failures name the seed.
 *
 * One episode in detail: HOST_SEED=n ./host_property_test
 */
#include <stdio.h>

#include "base/prng.h"
#include "host_fixture.h"

#define EPISODES 3000u
#define STEPS 250u
#define TASKS 4u
#define PAGES 48u
#define HELD 4u
#define FAIR_ROUNDS 2000u

struct task {
	bool sleeps;
	uint32_t token;
	uint64_t page; /* to be touched next; PAGES: has had enough */
};

enum where { NOT_ENTERED, IN_GUEST, IN_WAIT };

struct cpu {
	struct task tasks[TASKS];
	unsigned current;
	enum where where;
	bool halted; /* by the driver */
	uint64_t until;
	bool dawdles;	/* took an interrupt, has not freed the slot */
	bool enabled;	/* wants events, as far as the guest knows */
	bool kernel_touch; /* in kernel: sleeps on its page until it is there */
};

struct world {
	struct rig *x;
	struct prng rng;
	struct cpu cpus[RIG_VCPUS];
	struct hst_waiter outside[4];
	struct hst_fetch *held[HELD]; /* being made visible by other threads */
	bool fair;
	bool deaf; /* canary: interrupts and kicks get lost */
	const char *broken;
};

static uint64_t rnd(struct world *w, uint64_t n)
{
	return prng_below(&w->rng, n);
}

static void must(struct world *w, bool ok, const char *what)
{
	if (!ok && !w->broken)
		w->broken = what;
}

static bool strict(const struct world *w)
{
	return w->x->h.cfg.rev == APF_REV_PF2_STRICT;
}

/* ---- the guest ---- */

static void schedule(struct world *w, unsigned c)
{
	struct cpu *p = &w->cpus[c];
	unsigned from = (unsigned)rnd(w, TASKS);

	for (unsigned i = 0; i < TASKS; i++) {
		p->current = (from + i) % TASKS;
		if (!p->tasks[p->current].sleeps)
			return;
	}
	p->current = TASKS; /* idle */
}

static void wake_all(struct world *w, unsigned c)
{
	for (unsigned i = 0; i < TASKS; i++)
		w->cpus[c].tasks[i].sleeps = false;
	if (w->cpus[c].current == TASKS)
		schedule(w, c);
}

static void wake(struct world *w, unsigned c, uint32_t token)
{
	struct cpu *p = &w->cpus[c];

	if (token == APF_TOKEN_WAKE_ALL) {
		wake_all(w, c);
		return;
	}
	for (unsigned i = 0; i < TASKS; i++) {
		struct task *t = &p->tasks[i];

		if (!t->sleeps || t->token != token)
			continue;
		must(w, rig_present(w->x, t->page), "page ready, but the page is not there");
		t->sleeps = false;
		if (p->current == TASKS)
			schedule(w, c);
		return;
	}
	/* The founding text sends the single events after the wake-all, too. */
	must(w, strict(w), "a token nobody sleeps under: sent twice, or never announced");
}

static void sleep_under(struct world *w, unsigned c, uint32_t token)
{
	struct cpu *p = &w->cpus[c];

	for (unsigned v = 0; v < w->x->h.cfg.vcpus; v++)
		for (unsigned i = 0; i < TASKS; i++)
			must(w, !w->cpus[v].tasks[i].sleeps || w->cpus[v].tasks[i].token != token,
			     "two faults under one token");
	must(w, p->current < TASKS, "page missing while nobody runs");
	if (p->current == TASKS)
		return;
	p->tasks[p->current].sleeps = true;
	p->tasks[p->current].token = token;
	schedule(w, c);
}

static void take_pf(struct world *w, unsigned c)
{
	struct apf_area *a = rig_area(w->x, c);
	uint32_t reason = a->reason, token = rig_take_pf(w->x, c);

	must(w, reason == APF_REASON_MISSING || reason == APF_REASON_READY, "10: no reason");
	if (reason == APF_REASON_MISSING)
		sleep_under(w, c, token);
	else
		wake(w, c, token);
}

static void go_on(struct world *w, unsigned c)
{
	struct cpu *p = &w->cpus[c];

	w->x->vcpus[c].kicked = false;
	switch (rig_next(w->x, c)) {
	case HST_WAIT:
		p->where = IN_WAIT;
		p->until = w->x->until;
		return;
	case HST_ENTER_HALTED:
		p->halted = true;
		break;
	case HST_ENTER_RUNNABLE:
		p->halted = false;
		break;
	case HST_ENTER:
		break;
	}
	if (w->x->vcpus[c].untaken)
		p->halted = false; /* queueing an exception ends a halt */
	p->where = IN_GUEST;
	w->x->vcpus[c].cpu.event_pending = false; /* what was half delivered goes in first */
}

static void wrmsr(struct world *w, unsigned c, uint32_t msr, uint64_t value)
{
	rig_wrmsr(w->x, c, msr, value);
	rig_pump(w->x);
	go_on(w, c);
}

/* Frees the slot and, if it does not forget, acknowledges. */
static void finish_ready(struct world *w, unsigned c, bool ack)
{
	uint32_t token = rig_area(w->x, c)->token;
	bool full = rig_slot_full(w->x, c);

	if (w->x->h.cfg.rev != APF_REV_INT)
		full = rig_area(w->x, c)->reason == APF_REASON_READY;
	w->cpus[c].dawdles = false;
	if (full) {
		rig_slot_free(w->x, c);
		wake(w, c, token);
	}
	if (ack && w->x->h.cfg.rev == APF_REV_INT)
		wrmsr(w, c, APF_MSR_ACK, 1);
}

static void take_irq(struct world *w, unsigned c)
{
	w->x->vcpus[c].irr = false;
	w->cpus[c].halted = false;
	if (!w->fair && rnd(w, 4) == 0)
		w->cpus[c].dawdles = true;
	else
		finish_ready(w, c, w->fair || rnd(w, 5) != 0);
}

/* The interrupt was refused, but another one's handler looked into the slot just then. */
static void take_unasked(struct rig *x, unsigned c)
{
	struct world *w = x->user;

	/* A guest with an exception to take runs no handler before. */
	if (w->cpus[c].where == IN_GUEST && !x->vcpus[c].untaken && rnd(w, 3) == 0)
		finish_ready(w, c, false);
}

static void disable(struct world *w, unsigned c)
{
	w->cpus[c].enabled = false;
	w->cpus[c].dawdles = false;
	wrmsr(w, c, APF_MSR_EN, 0);
	w->x->vcpus[c].irr = false;
	memset(rig_area(w->x, c), 0, 8);
	wake_all(w, c); /* the guest's duty */
}

static void enable(struct world *w, unsigned c)
{
	struct rig *x = w->x;

	if (!w->cpus[c].enabled)
		memset(rig_area(x, c), 0, 8);
	else if (w->cpus[c].dawdles)
		finish_ready(w, c, true);
	w->cpus[c].enabled = true;
	wrmsr(w, c, APF_MSR_EN, rig_en(x, c));
}

static void control(struct world *w, unsigned c, bool on)
{
	if (rig_by_irq(w->x))
		wrmsr(w, c, APF_MSR_CTL, on ? rig_ctl(w->x) : 0);
}

static void registers(struct world *w, unsigned c)
{
	/* Only the founding text minds what its register says when events are on (S1, S8). */
	if (w->x->h.cfg.faults != HST_FAULTS_USER)
		return;
	switch (rnd(w, strict(w) ? 2 : 4)) {
	case 0:
		disable(w, c);
		break;
	case 1:
		if (rig_v(w->x, c)->eng.ctl == 0)
			control(w, c, true);
		else
			enable(w, c);
		break;
	case 2:
		control(w, c, rnd(w, 3) != 0);
		break;
	default:
		hst_vcpu_reset(rig_v(w->x, c));
		w->cpus[c].enabled = false;
		w->x->vcpus[c].irr = false;
		w->x->vcpus[c].untaken = 0;
		memset(rig_area(w->x, c), 0, 8);
		wake_all(w, c);
	}
}

static void next_page(struct world *w, struct task *t)
{
	t->page = w->fair ? PAGES : 1 + rnd(w, PAGES - 1);
}

/* The running task touches its page. */
static void touch(struct world *w, unsigned c)
{
	struct rig *x = w->x;
	struct task *t = &w->cpus[c].tasks[w->cpus[c].current];
	struct cpu_state *cpu = &x->vcpus[c].cpu;
	roff_t off = {t->page << PAGE_SHIFT};
	struct err e;

	if (t->page == PAGES) {
		schedule(w, c);
		return;
	}
	if (rig_present(x, t->page)) {
		must(w, x->alias[off.v] == rig_byte(off.v), "the page has the wrong content");
		if (!w->fair && rnd(w, 8) == 0) {
			/* Another vCPU was faster: the fault was under way already. */
			rig_fault(x, c, t->page);
			rig_pump(x);
			go_on(w, c);
		}
		next_page(w, t);
		return;
	}
	if (x->h.cfg.faults == HST_FAULTS_KERNEL || !x->h.chunk_poisoned[0]) {
		if (rig_kernel_touch(&x->h, off, &e) < 0)
			hst_pause(&x->h); /* as the library does */
		rig_pump(x);
		return;
	}
	cpu->cpl = !w->fair && rnd(w, 3) == 0 ? 0 : 3;
	cpu->interrupts_on = w->fair || rnd(w, 4) != 0;
	cpu->event_pending = !w->fair && rnd(w, 16) == 0;
	rig_exit(x, c, false);
	if (rnd(w, 16) == 0)
		rig_load(rig_v(x, c), off);
	else
		hst_fault(rig_v(x, c), off);
	if (rnd(w, 2))
		rig_pump(x);
	go_on(w, c);
}

static void guest_step(struct world *w, unsigned c)
{
	struct rig *x = w->x;
	struct cpu *p = &w->cpus[c];
	struct rig_vcpu *g = &x->vcpus[c];

	if (p->where == NOT_ENTERED) {
		rig_exit(x, c, true);
		go_on(w, c);
	} else if (p->where == IN_WAIT) {
		if (g->kicked || x->now >= p->until)
			go_on(w, c);
	} else if (g->kicked) {
		rig_exit(x, c, true);
		rig_pump(x);
		go_on(w, c);
	} else if (g->untaken) {
		p->halted = false;
		take_pf(w, c);
	} else if (g->irr && (g->cpu.interrupts_on || !p->halted)) {
		take_irq(w, c);
	} else if (p->halted) {
		if (g->cpu.interrupts_on && rnd(w, 8) == 0) {
			p->halted = false; /* the timer's interrupt: another task's turn */
			schedule(w, c);
		}
	} else if (p->dawdles && rnd(w, 4) == 0) {
		finish_ready(w, c, rnd(w, 4) != 0);
	} else if (!w->fair && rnd(w, 12) == 0) {
		registers(w, c);
	} else if (!w->fair && rnd(w, 12) == 0) {
		rig_exit(x, c, false);
		go_on(w, c);
	} else if (p->current < TASKS) {
		touch(w, c);
	}
}

/* ---- the world around ---- */

static void source_step(struct world *w)
{
	struct rig *x = w->x;

	if (x->src.count) {
		unsigned i = (unsigned)rnd(w, x->src.count);

		rig_answer(x, i, x->src.cancelled[i] && rnd(w, 2) ? -ECANCELED
				: rnd(w, 4) == 0		 ? -EIO
								 : 0);
	}
	x->src.answers = (enum rig_answers)(rnd(w, 4) ? RIG_LATER : rnd(w, 3));
}

/* Another thread begins, or ends, to make a block visible. */
static void visible_step(struct world *w)
{
	unsigned i = (unsigned)rnd(w, HELD);
	struct err why;

	if (!w->held[i]) {
		w->held[i] = hst_take_filled(&w->x->h);
		return;
	}
	err_set(&why, -ENOMEM, "not visible");
	hst_shown(w->held[i], !w->fair && rnd(w, 8) == 0 ? &why : NULL);
	w->held[i] = NULL;
}

static void time_step(struct world *w)
{
	struct rig *x = w->x;
	uint64_t next = timers_next_ns(&x->h.timers);

	if (next != NS_NEVER && rnd(w, 2))
		x->now = max_u64(x->now, next);
	else
		x->now += rnd(w, 1000) * NS_PER_US;
	timers_run(&x->h.timers, x->now);
}

static void outside_step(struct world *w)
{
	struct hst_waiter *o = &w->outside[rnd(w, ARRAY_LEN(w->outside))];

	if (o->fetch)
		hst_forget(o);
	else
		(void)hst_ensure(&w->x->h, (roff_t){rnd(w, PAGES) << PAGE_SHIFT}, o);
}

static void step(struct world *w)
{
	struct rig *x = w->x;
	unsigned c = (unsigned)rnd(w, x->h.cfg.vcpus);

	switch (rnd(w, 16)) {
	case 0:
	case 1:
		source_step(w);
		break;
	case 2:
		time_step(w);
		break;
	case 3:
		outside_step(w);
		break;
	case 4:
		visible_step(w);
		break;
	case 5:
		x->vcpus[c].apic_off = rnd(w, 3) == 0;
		x->vcpus[c].irq_rc = rnd(w, 2) ? 0 : -EIO;
		break;
	case 6:
		if (rnd(w, 8) == 0)
			hst_pause(&x->h);
		else if (rnd(w, 2))
			hst_resume(&x->h);
		break;
	case 7:
		x->src.cancels = (enum rig_cancels)rnd(w, 3);
		break;
	case 8:
		x->mem_faults = (struct rig_mem_faults){.at = (unsigned)rnd(w, 4)};
		break;
	default:
		guest_step(w, c);
	}
	if (rnd(w, 4))
		rig_pump(x);
	must(w, !rig_broken(&x->h, NULL), rig_broken(&x->h, NULL));
}

/* ---- everybody is fair ---- */

static bool all_done(const struct world *w)
{
	for (unsigned c = 0; c < w->x->h.cfg.vcpus; c++) {
		const struct eng_vcpu *e = &rig_v(w->x, c)->eng;

		if (w->cpus[c].where != IN_GUEST || w->cpus[c].halted || w->cpus[c].dawdles ||
		    e->outstanding || e->wake_all_due || w->x->vcpus[c].untaken)
			return false;
		for (unsigned i = 0; i < TASKS; i++)
			if (w->cpus[c].tasks[i].sleeps || w->cpus[c].tasks[i].page != PAGES)
				return false;
	}
	return w->x->src.count == 0 && w->x->h.free_count == w->x->h.fetch_count;
}

static void fair_round(struct world *w)
{
	struct rig *x = w->x;
	uint64_t next;

	while (x->src.count)
		rig_answer(x, 0, 0);
	for (unsigned i = 0; i < HELD; i++)
		if (w->held[i])
			visible_step(w);
	for (unsigned i = 0; i < HELD; i++) {
		if (w->held[i])
			hst_shown(w->held[i], NULL);
		w->held[i] = NULL;
	}
	rig_pump(x);
	for (unsigned n = 0; n < 8; n++)
		for (unsigned c = 0; c < x->h.cfg.vcpus; c++)
			guest_step(w, c);
	rig_pump(x);
	next = timers_next_ns(&x->h.timers);
	for (unsigned c = 0; c < x->h.cfg.vcpus; c++)
		if (w->cpus[c].where == IN_WAIT)
			next = min_u64(next, w->cpus[c].until);
	if (next != NS_NEVER)
		x->now = max_u64(x->now, next);
	timers_run(&x->h.timers, x->now);
}

static void be_fair(struct world *w)
{
	struct rig *x = w->x;

	w->fair = true;
	x->src.answers = RIG_LATER;
	x->mem_faults = (struct rig_mem_faults){0};
	x->on_refusal = NULL;
	for (unsigned i = 0; i < ARRAY_LEN(w->outside); i++)
		hst_forget(&w->outside[i]);
	for (unsigned c = 0; c < x->h.cfg.vcpus; c++) {
		x->vcpus[c].apic_off = false;
		x->vcpus[c].cpu.interrupts_on = true;
	}
	while (x->src.count)
		rig_answer(x, 0, 0);
	hst_resume(&x->h);
}

/* Once each vCPU runs, it sets its vector again: events were perhaps switched off. */
static void restore_control(struct world *w, unsigned c)
{
	if (w->cpus[c].where == IN_GUEST && !w->cpus[c].halted && !w->x->vcpus[c].untaken &&
	    !w->x->vcpus[c].kicked && w->cpus[c].enabled &&
	    rig_v(w->x, c)->eng.ctl != rig_ctl(w->x))
		control(w, c, true);
}

static void live(struct world *w)
{
	struct rig *x = w->x;
	unsigned rounds = 0, fired = 0;

	be_fair(w);
	while (!all_done(w) && !w->broken) {
		fair_round(w);
		must(w, !rig_broken(&x->h, NULL), rig_broken(&x->h, NULL));
		for (unsigned c = 0; c < x->h.cfg.vcpus; c++)
			restore_control(w, c);
		if (rounds++ == FAIR_ROUNDS)
			must(w, false, "somebody waits for ever");
	}
	/* Timers that are left find nothing to do, once. */
	for (uint64_t end = x->now + 10 * NS_PER_S; timers_next_ns(&x->h.timers) <= end;) {
		x->now = max_u64(x->now, timers_next_ns(&x->h.timers));
		fired += timers_run(&x->h.timers, x->now);
		if (fired > 4 * RIG_VCPUS) {
			must(w, false, "timers that never end");
			break;
		}
	}
	must(w, x->h.in_flight == 0 && !hst_is_paused(&x->h), "something is left over");
}

/* ---- episodes ---- */

static struct hst_cfg random_cfg(struct world *w)
{
	static const uint64_t graces[] = {0, HST_GRACE_AUTO, 100 * NS_PER_US, 5 * NS_PER_MS};
	static const enum hst_faults modes[] = {HST_FAULTS_USER, HST_FAULTS_USER, HST_FAULTS_USER,
						HST_FAULTS_USER, HST_FAULTS_BLOCK,
						HST_FAULTS_STALL, HST_FAULTS_KERNEL};
	struct hst_cfg cfg = rig_cfg(modes[rnd(w, ARRAY_LEN(modes))],
				     (enum apf_rev)(APF_REV_LEGACY + rnd(w, 4)));

	cfg.vcpus = (uint32_t)(1 + rnd(w, RIG_VCPUS));
	cfg.block_shift = (uint32_t)(12 + rnd(w, 3));
	cfg.faults_max = (uint32_t)(1 + rnd(w, 6));
	cfg.queue_depth = (uint32_t)(1 + rnd(w, 6));
	cfg.retries_max = (uint32_t)rnd(w, 3);
	cfg.grace_ns = graces[rnd(w, ARRAY_LEN(graces))];
	cfg.source_timeout_ns = rnd(w, 2) ? NS_NEVER : 20 * NS_PER_MS;
	return cfg;
}

static void begin(struct world *w, uint64_t seed)
{
	struct hst_cfg cfg;

	*w = (struct world){.deaf = w->deaf};
	prng_init(&w->rng, seed);
	cfg = random_cfg(w);
	w->x = rig_open_pages(&cfg, PAGES);
	w->x->user = w;
	w->x->on_refusal = take_unasked;
	for (unsigned c = 0; c < cfg.vcpus; c++) {
		for (unsigned i = 0; i < TASKS; i++)
			w->cpus[c].tasks[i].page = 1 + rnd(w, PAGES - 1);
		if (cfg.faults != HST_FAULTS_USER)
			continue;
		rig_populate(w->x, RIG_AREA_PAGE);
		enable(w, c);
		control(w, c, true);
	}
}

/* NULL, or the promise that was broken. */
static const char *episode(struct world *w, uint64_t seed)
{
	begin(w, seed);
	for (unsigned i = 0; i < STEPS && !w->broken; i++) {
		step(w);
		for (unsigned c = 0; w->deaf && c < RIG_VCPUS; c++) {
			w->x->vcpus[c].irr = false;
			w->x->vcpus[c].kicked = false;
		}
	}
	if (!w->broken)
		live(w);
	rig_free(w->x);
	return w->broken;
}

static void random_histories_keep_the_promises(void **state)
{
	const char *one = getenv("HOST_SEED");
	uint64_t first = one ? strtoull(one, NULL, 0) : 1;
	struct world w = {0};

	(void)state;
	for (uint64_t seed = first; seed < (one ? first + 1 : EPISODES + 1); seed++) {
		const char *what = episode(&w, seed);

		if (what)
			fail_msg("HOST_SEED=%llu: %s", (unsigned long long)seed, what);
	}
}

/* A checker that is content with a deaf guest would be blind. */
static void lost_interrupts_and_kicks_are_found(void **state)
{
	struct world w = {.deaf = true};
	unsigned found = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++)
		found += episode(&w, seed) != NULL;
	assert_true(found > 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_histories_keep_the_promises),
		cmocka_unit_test(lost_interrupts_and_kicks_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
