/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMM's other threads. Some access guest memory by pointers, through the VMM's own view: a
 * touch of what is absent there sleeps in the kernel. One gives memory back, as a balloon does:
 * from some moment on it is zeroes. One holds memory while a device writes to it past all views
 * and past the driver.
 */
#include "base/assert.h"
#include "host/block.h"
#include "sim/world.h"

uint32_t sim_any_page(struct sim *w)
{
	if (w->cfg.parts && sim_chance(w, 3)) {
		const struct sim_part *p = &w->plug.parts[sim_rnd(w, SIM_PARTS_MAX)];

		if (p->state == SIM_PART_IN)
			return p->page + (uint32_t)sim_rnd(w, p->pages);
	}
	return (uint32_t)(SIM_PAGE_FIRST + sim_rnd(w, w->cfg.pages));
}

/* Begins something new. */
static bool may_begin(const struct sim *w, uint64_t due_ns)
{
	return !w->fair && due_ns <= w->now_ns && w->job != SIM_VMM_MIGRATE &&
	       w->job != SIM_VMM_RESTORE && !w->snap.holds;
}

static uint64_t next_due_ns(struct sim *w)
{
	return w->now_ns + sim_rnd(w, w->cfg.vmm_ns);
}

/* ---- accesses through the VMM's view ---- */

bool sim_writer_runnable(const struct sim *w, unsigned i)
{
	const struct sim_writer *x = &w->writers[i];

	return x->wants ? !x->asleep : may_begin(w, x->due_ns);
}

/* What is on its way, or anything else. */
static uint32_t page_to_touch(struct sim *w)
{
	uint32_t page = sim_any_page(w);

	if (!(w->cfg.offers || w->cfg.evict) || !sim_chance(w, 2))
		return page;
	for (uint32_t i = 0; i < w->cfg.pages; i++)
		if (w->host->reading[SIM_PAGE_FIRST + (page + i) % w->cfg.pages])
			return (uint32_t)SIM_PAGE_FIRST + (page + i) % w->cfg.pages;
	return page;
}

void sim_writer_step(struct sim *w, unsigned i)
{
	struct sim_writer *x = &w->writers[i];

	if (!x->wants) {
		x->page = page_to_touch(w);
		x->write = sim_chance(w, 2);
		x->wants = true;
		/* As our devices do, when they take what the guest gives them to write to. */
		if (x->write)
			sim_snap_mark(w, sim_gpa(w, x->page), PAGE_BYTES);
	}
	sim_log_add(w->log, w->now_ns, SIM_OP_VMM, SIM_LOG_NOBODY, x->page, 0);
	if (!w->host->vmm_visible[x->page]) {
		x->asleep = sim_touch(w, x->page, MEM_VIEW_VMM);
		w->counts.vmm_touches += x->asleep;
		return;
	}
	sim_page_access(w, x->page, x->write, SIM_BY_VMM);
	w->counts.vmm_accesses++;
	x->wants = false;
	x->due_ns = next_due_ns(w);
}

/* ---- those who use the driver's calls ---- */

bool sim_giver_runnable(const struct sim *w, const struct sim_giver *t)
{
	if (t->pumping || t->ready)
		return true;
	return t->on ? !t->waiting && t->due_ns <= w->now_ns : may_begin(w, t->due_ns);
}

bool sim_giver_is_there(struct sim *w, struct sim_giver *t, roff_t off)
{
	t->waiting = !hst_ensure(&w->host->hst, off, &t->waiter);
	return !t->waiting;
}

bool sim_giver_pumps(struct sim *w, struct sim_giver *t)
{
	if (!t->pumping)
		return false;
	t->pumping = !sim_pump_step(w, &t->pump);
	return true;
}

void sim_giver_over(struct sim *w, struct sim_giver *t)
{
	t->on = false;
	/* What somebody else has waited for is nothing to begin anew for. */
	t->waiting = false;
	t->due_ns = next_due_ns(w);
}

/* ---- a balloon ---- */

static uint32_t pages_per_block(const struct sim *w)
{
	return 1u << (w->cfg.block_shift - PAGE_SHIFT);
}

bool sim_discard_runnable(const struct sim *w)
{
	const struct sim_discard *d = &w->discard;

	return w->cfg.discards && (d->working || sim_giver_runnable(w, &d->t));
}

/* Of the pages that tasks use, or one that the guest's kernel needs: it stays where it is. */
static void choose_range(struct sim *w, struct hst_discard *d)
{
	uint32_t per = pages_per_block(w), first = (uint32_t)SIM_PAGE_FIRST / per;
	uint32_t count = (w->cfg.pages + per - 1) / per;
	const struct sim_part *p = w->cfg.parts ? sim_part_at(w, sim_any_page(w)) : NULL;

	if (p) {
		first = p->page / per;
		count = p->pages / per;
	} else if (per == 1 && sim_chance(w, 6)) {
		d->at = w->vcpus[0].area_page + 1 + (uint32_t)sim_rnd(w, 8);
		d->end = d->at + 1;
		return;
	}
	d->at = first + (uint32_t)sim_rnd(w, count);
	d->end = first + count;
	if (!sim_chance(w, 4))
		d->end = (uint32_t)min_u64(d->end, d->at + 1 + sim_rnd(w, 3));
}

static void discarded(struct sim *w, uint32_t block, uint32_t count)
{
	struct sim_host *h = w->host;
	uint32_t per = pages_per_block(w);

	for (uint32_t p = block * per; p < (block + count) * per; p++) {
		if (sim_page_get(h, p) != 0)
			sim_broken(w, 0, "what was discarded is not zeroes", p, sim_page_get(h, p));
		w->expect[p] = 0;
		h->empty[p] = 1;
	}
}

static bool is_failed(const struct sim *w, uint32_t block)
{
	const struct hst *h = &w->host->hst;

	return block_kind(h, block) == BLOCK_FETCHING &&
	       block_fetch(h, block)->state == HST_FETCH_FAILED && !block_fetch(h, block)->filled;
}

/* A page that is in memory is as it was, or zeroes; what was not there is as it was. */
static void not_discarded(struct sim *w, const struct hst_run *run)
{
	struct sim_host *h = w->host;
	uint32_t per = pages_per_block(w);

	for (uint32_t p = run->block * per; p < (run->block + run->count) * per; p++) {
		enum block_kind kind = block_kind(&h->hst, p / per);
		uint64_t got = sim_page_get(h, p);

		/* It counts as written to. */
		h->empty[p] = 0;
		if (kind == BLOCK_ABSENT ||
		    (kind == BLOCK_FETCHING && !block_fetch(&h->hst, p / per)->filled))
			continue;
		if (got != w->expect[p] && got != 0)
			sim_broken(w, 0, "a discard that failed has left something else", p, got);
		w->expect[p] = got;
	}
}

/* What the driver has done in this step: ended a run, overwritten blocks, begun the next run. */
static void discard_stepped(struct sim *w, const struct sim_discard *t,
			    const struct hst_discard *was, enum hst_discarding next)
{
	const struct hst_discard *d = &t->hst;
	uint32_t end = next == HST_DISCARD_WORK ? d->run.block : d->at;

	if (t->working) {
		sim_log_add(w->log, w->now_ns, SIM_OP_DISCARDED, SIM_LOG_NOBODY,
			    was->run.block * pages_per_block(w),
			    (uint64_t)(int64_t)was->why.code);
		if (was->why.code == 0)
			discarded(w, was->run.block, was->run.count);
		else
			not_discarded(w, &was->run);
		w->counts.discarded += was->why.code == 0 ? was->run.count : 0;
	}
	discarded(w, was->at, end - was->at);
	w->counts.overwritten += end - was->at;
}

enum hst_discarding sim_discard_go_on(struct sim *w, struct sim_discard *d)
{
	struct hst_discard was = d->hst;
	bool failed[SIM_USED_PAGES];
	enum hst_discarding next;

	for (uint32_t i = 0; i < was.end - was.at; i++)
		failed[i] = is_failed(w, was.at + i);
	next = hst_discard_step(&w->host->hst, &d->hst);
	discard_stepped(w, d, &was, next);
	/* A source that has failed is not asked again: to who waits for it, it is done. */
	if (next == HST_DISCARD_LATER && failed[d->hst.at - was.at] && !is_failed(w, d->hst.at))
		discarded(w, d->hst.at, 1);
	d->working = next == HST_DISCARD_WORK;
	d->worked = false;
	if (next == HST_DISCARD_LATER)
		(void)sim_giver_is_there(w, &d->t, sim_roff(d->hst.at * pages_per_block(w)));
	return next;
}

void sim_discard_work(struct sim *w, struct sim_discard *d)
{
	w->discarding = true;
	hst_discard_work(&w->host->hst, &d->hst);
	w->discarding = false;
	d->worked = true;
}

void sim_discard_step(struct sim *w)
{
	struct sim_discard *d = &w->discard;
	enum hst_discarding next;

	if (sim_giver_pumps(w, &d->t))
		return;
	if (d->working && !d->worked) {
		sim_discard_work(w, d);
		return;
	}
	if (!d->t.on) {
		d->t.on = true;
		d->hst = (struct hst_discard){.at = 0};
		choose_range(w, &d->hst);
		sim_log_add(w->log, w->now_ns, SIM_OP_DISCARD, SIM_LOG_NOBODY,
			    d->hst.at * pages_per_block(w),
			    (uint64_t)(d->hst.end - d->hst.at) << w->cfg.block_shift);
	}
	d->t.ready = false;
	sim_chk_enter(w);
	next = sim_discard_go_on(w, d);
	sim_chk_leave(w);
	if (next == HST_DISCARD_DONE)
		sim_giver_over(w, &d->t);
	d->t.pumping = !sim_pump_step(w, &d->t.pump);
}

/* ---- held memory ---- */

bool sim_holder_runnable(const struct sim *w)
{
	return w->cfg.holds && sim_giver_runnable(w, &w->holder.t);
}

static void set_held(struct sim *w, bool held)
{
	uint32_t per = pages_per_block(w), first = w->holder.page & ~(per - 1);

	w->holder.holds = held;
	for (uint32_t p = first; p < first + per; p++)
		w->host->held[p] = held;
}

static void try_to_hold(struct sim *w)
{
	struct sim_holder *x = &w->holder;
	roff_t off = sim_roff(x->page);

	sim_chk_enter(w);
	if (sim_giver_is_there(w, &x->t, off)) {
		bool held = hst_hold_long(&w->host->hst, off);

		sim_log_add(w->log, w->now_ns, SIM_OP_HOLD, SIM_LOG_NOBODY, x->page, held);
		set_held(w, held);
		w->counts.holds += held;
		if (!held)
			sim_giver_over(w, &x->t);
	}
	sim_chk_leave(w);
	x->t.pumping = !sim_pump_step(w, &x->t.pump);
}

/* Nobody is told of it. */
static void device_writes(struct sim *w)
{
	struct sim_holder *x = &w->holder;

	sim_page_access(w, x->page, true, SIM_BY_DEVICE);
	x->writes--;
	x->t.due_ns = next_due_ns(w);
}

static void let_go(struct sim *w)
{
	struct sim_holder *x = &w->holder;
	roff_t off = sim_roff(x->page);

	sim_log_add(w->log, w->now_ns, SIM_OP_RELEASE, SIM_LOG_NOBODY, x->page, 0);
	set_held(w, false);
	sim_chk_enter(w);
	hst_release_long(&w->host->hst, off, PAGE_BYTES);
	sim_chk_leave(w);
	sim_giver_over(w, &x->t);
	x->t.pumping = !sim_pump_step(w, &x->t.pump);
}

void sim_holder_step(struct sim *w)
{
	struct sim_holder *x = &w->holder;

	if (sim_giver_pumps(w, &x->t))
		return;
	if (!x->t.on) {
		x->t.on = true;
		x->page = sim_any_page(w);
		x->writes = (uint32_t)sim_rnd(w, 4);
	}
	x->t.ready = false;
	if (!x->holds)
		try_to_hold(w);
	else if (x->writes > 0)
		device_writes(w);
	else
		let_go(w);
}

/* ---- all of them ---- */

uint64_t sim_vmm_threads_next_ns(const struct sim *w)
{
	uint64_t next = NS_NEVER;

	for (unsigned i = 0; i < w->cfg.writers; i++)
		if (!w->writers[i].wants && !w->fair && w->writers[i].due_ns > w->now_ns)
			next = min_u64(next, w->writers[i].due_ns);
	if (w->cfg.discards && !w->fair && w->discard.t.due_ns > w->now_ns)
		next = min_u64(next, w->discard.t.due_ns);
	if (w->cfg.holds && (!w->fair || w->holder.t.on) && w->holder.t.due_ns > w->now_ns)
		next = min_u64(next, w->holder.t.due_ns);
	if (w->cfg.parts && (!w->fair || w->plug.d.t.on) && w->plug.d.t.due_ns > w->now_ns)
		next = min_u64(next, w->plug.d.t.due_ns);
	if (w->cfg.offers && !w->fair && w->offer.due_ns > w->now_ns)
		next = min_u64(next, w->offer.due_ns);
	return min_u64(next, sim_snap_next_ns(w));
}

bool sim_vmm_threads_busy(const struct sim *w)
{
	for (unsigned i = 0; i < w->cfg.writers; i++)
		if (w->writers[i].wants)
			return true;
	return w->discard.t.on || w->discard.t.pumping || w->holder.t.on || w->holder.t.pumping ||
	       w->plug.d.t.on || w->plug.d.t.pumping || w->offer.on || w->offer.pumping ||
	       w->snap.t.on || w->snap.t.pumping;
}

void sim_vmm_threads_ready(struct sim *w)
{
	struct sim_giver *all[] = {&w->discard.t, &w->holder.t, &w->plug.d.t, &w->snap.t};

	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		all[i]->ready |= all[i]->waiting && !all[i]->waiter.fetch;
}

bool sim_vmm_threads_may_move(const struct sim *w)
{
	return !w->discard.working && !w->discard.t.pumping && !w->holder.holds &&
	       !w->holder.t.pumping && !w->plug.d.working && !w->plug.d.t.pumping &&
	       !w->offer.copying && !w->offer.pumping && !w->snap.half && !w->snap.t.pumping;
}

void sim_vmm_threads_leave(struct sim *w)
{
	hst_forget(&w->discard.t.waiter);
	hst_forget(&w->holder.t.waiter);
	w->discard = (struct sim_discard){.t.due_ns = w->now_ns};
	w->holder = (struct sim_holder){.t.due_ns = w->now_ns};
	hst_forget(&w->plug.d.t.waiter);
	w->plug.d = (struct sim_discard){.t.due_ns = w->now_ns};
	w->plug.leaves = w->plug.pins = false;
	w->offer = (struct sim_offer){.due_ns = w->now_ns};
	sim_snap_leave(w);
	/* They touch it again, where it is then. */
	for (unsigned i = 0; i < w->cfg.writers; i++)
		w->writers[i].asleep = false;
}
