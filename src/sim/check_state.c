/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must hold over everything: the driver's own books, the engines' lists, the guest's
 * table of sleepers. Looked at now and then, and at the end, when nothing may be left over.
 * The first part holds whatever a guest does.
 */
#include "host/block.h"
#include "host/budget.h"
#include "host/fetch.h"
#include "sim/world.h"

/* ---- the driver: true for a hostile guest too ---- */

struct tally {
	uint32_t in_flight, queued, ahead_in_flight, ahead_queued, troubled, used, blocks;
};

static const char *fetch_wrong(const struct hst *h, const struct hst_fetch *f, struct tally *t)
{
	const struct list_link *prev = NULL;
	enum hst_fetch_state s = f->state;

	if (s == HST_FETCH_FREE)
		return f->waiters.first ? "somebody waits for a free fetch" : NULL;
	t->used++;
	if (s == HST_FETCH_QUEUED && f->rank != SRC_DEMAND && f->waiters.first)
		return "somebody waits for what is queued as if nobody did";
	if (s == HST_FETCH_QUEUED && f->follows)
		return "a read is neither its own nor a neighbour's";
	t->queued += s == HST_FETCH_QUEUED && f->rank == SRC_DEMAND;
	t->ahead_queued += s == HST_FETCH_QUEUED && f->rank != SRC_DEMAND;
	/* Of neighbours that are read together the first counts. */
	if (!f->follows) {
		bool reads = s == HST_FETCH_READING || s == HST_FETCH_STUCK ||
			     s == HST_FETCH_CANCELLED;

		t->in_flight += reads;
		t->ahead_in_flight += reads && f->rank != SRC_DEMAND;
		t->troubled += s == HST_FETCH_FAILED || s == HST_FETCH_STUCK ||
			       s == HST_FETCH_CANCELLED;
	}
	t->blocks += f->count;
	for (uint32_t b = f->first; b < f->first + f->count; b++)
		if (block_kind(h, b) != BLOCK_FETCHING || block_fetch(h, b) != f)
			return "a block does not name its fetch";
	for (struct list_link *at = f->waiters.first; at; prev = at, at = at->next)
		if (hst_waiter_of(at)->fetch != f || at->prev != prev)
			return "a list of waiters is broken";
	return NULL;
}

/* Kernel mode's reads stand in the queue that goes first. */
static const char *kernel_mode_waits_in_turn(const struct hst *h)
{
	for (unsigned i = 0; i < h->cfg.vcpus; i++) {
		const struct hst_vcpu *v = &h->vcpus[i];
		const struct hst_fetch *f = v->sync.fetch;
		const struct hst_fetch *q = hst_fetch_of(h->urgent.fetches.first);

		if (!f || f->state != HST_FETCH_QUEUED || v->phase == HST_PHASE_RUN ||
		    !v->phase_kernel_mode)
			continue;
		while (q && q != f)
			q = hst_fetch_of(q->link.next);
		if (!q)
			return "kernel mode waits behind others";
	}
	return NULL;
}

/* What somebody waits for has his turn wherever the read has got to. */
static const char *reads_wait_in_turn(const struct sim_host *s)
{
	for (const struct sim_read *r = s->reads; r < s->reads + SIM_READS_MAX; r++) {
		uint32_t at, end;

		if (!r->rd || r->write || r->sync)
			continue;
		at = sim_alias_page(s, r->buf);
		end = sim_alias_page(s, r->buf + r->len - 1) + 1;
		for (; at < end; at++) {
			uint32_t block = at >> (s->hst.cfg.block_shift - PAGE_SHIFT);
			const struct hst_fetch *f = block_fetch(&s->hst, block);

			if (block_kind(&s->hst, block) == BLOCK_FETCHING &&
			    f->state == HST_FETCH_READING && (f->waiters.first || f->touched) &&
			    r->rd->turn > (f->urgent ? TURN_URGENT : TURN_DEMAND))
				return "a read that somebody waits for goes as if nobody did";
		}
	}
	return NULL;
}

/* What a block counts as, and what the views show of it. */
static const char *block_wrong(const struct sim_host *s, uint32_t b)
{
	const struct hst *h = &s->hst;
	uint32_t per = 1u << (h->cfg.block_shift - PAGE_SHIFT), guest = 0, vmm = 0;
	enum block_kind kind = block_kind(h, b);

	if (!sim_is_ram(s->w, b * per))
		return "a block is used that has left";
	for (uint32_t p = b * per; p < (b + 1) * per; p++) {
		guest += s->visible[p];
		vmm += s->vmm_visible[p];
	}
	if (kind == BLOCK_PRESENT && guest != per && !sim_shown_late(s->w))
		return "a block that is there is not visible";
	if (kind == BLOCK_PRESENT && vmm && !block_is(h, b, BLOCK_VMM))
		return "the VMM sees what does not count as shown to it";
	if (kind != BLOCK_ABSENT && kind != BLOCK_STANDBY)
		return NULL;
	if (guest || vmm || block_is(h, b, BLOCK_VMM))
		return "a block is visible that was taken away";
	return kind == BLOCK_ABSENT && block_is(h, b, BLOCK_WRITTEN)
		       ? "a block that is not there would have to be written out"
		       : NULL;
}

static bool is_in_run(const struct sim_discard *d, uint32_t b)
{
	return d->working && b >= d->hst.run.block && b < d->hst.run.block + d->hst.run.count;
}

/* It takes up memory, or is about to. */
static bool is_charged(const struct sim_host *s, uint32_t b)
{
	const struct hst *h = &s->hst;

	if (is_in_run(&s->w->discard, b))
		return s->w->discard.hst.was != BLOCK_ABSENT;
	if (is_in_run(&s->w->plug.d, b))
		return s->w->plug.d.hst.was != BLOCK_ABSENT;
	if (block_kind(h, b) == BLOCK_FETCHING)
		return block_fetch(h, b)->charged || block_fetch(h, b)->block != b;
	return block_kind(h, b) != BLOCK_ABSENT;
}

static const char *driver_wrong(const struct sim_host *s)
{
	const struct hst *h = &s->hst;
	struct tally t = {0};
	const char *late;
	uint32_t fetching = 0, present = 0, free_len = 0, charged = 0;

	for (uint32_t i = 0; i < h->fetch_count; i++) {
		const char *what = fetch_wrong(h, &h->fetches[i], &t);

		if (what)
			return what;
	}
	for (uint32_t b = 0; b < h->block_count; b++) {
		if (h->blocks[b] == 0)
			continue;
		fetching += block_kind(h, b) == BLOCK_FETCHING;
		present += block_kind(h, b) == BLOCK_PRESENT;
		charged += is_charged(s, b);
		if (block_wrong(s, b))
			return block_wrong(s, b);
	}
	for (struct list_link *at = h->free_fetches.first; at; at = at->next)
		if (free_len++ == h->fetch_count)
			return "the list of free fetches has no end";
	if (free_len != h->free_count || t.used + free_len != h->fetch_count)
		return "a fetch is lost";
	if (t.blocks != fetching || present != h->blocks_present)
		return "fetches and blocks do not agree";
	if (t.in_flight > h->cfg.queue_depth || t.in_flight != h->in_flight)
		return "reads in flight";
	for (unsigned i = 0; i < h->evict.write_count; i++)
		t.troubled += h->evict.writes[i].state == HST_WRITE_FAILED ||
			      h->evict.writes[i].state == HST_WRITE_STUCK;
	t.troubled += h->evict.sync.state == HST_SYNC_STUCK;
	if (t.troubled != h->troubled)
		return "troubled fetches and writes";
	if (charged != h->evict.resident)
		return "what is resident is not counted right";
	if (h->cfg.resident_max && h->evict.resident > max_u64(h->evict.limit, s->over))
		return "more is resident than allowed";
	if (t.queued && t.in_flight < fetch_depth(h) && budget_room(h))
		return "a read waits although there is room";
	if (t.ahead_queued && t.in_flight < fetch_depth(h) / 2)
		return "what is read ahead waits although there is room";
	if (t.ahead_in_flight > h->cfg.queue_depth / 2)
		return "what is read ahead takes the reads of whoever waits";
	late = reads_wait_in_turn(s);
	return late ? late : kernel_mode_waits_in_turn(h);
}

/* ---- the engines ---- */

static const char *engine_wrong(const struct eng_vcpu *e)
{
	uint32_t n = 0, ready = 0, queued = 0, prev = ENG_NIL;

	for (uint32_t i = e->issue_head; i != ENG_NIL; prev = i, i = e->faults[i].next) {
		if (n++ == e->cfg.faults_max || e->faults[i].prev != prev)
			return "the list of faults is broken";
		if (e->faults[i].state == ENG_FAULT_FREE || e->faults[i].token == 0)
			return "a free fault is in the list";
		ready += e->faults[i].state == ENG_FAULT_READY;
	}
	for (uint32_t i = e->ready_head; i != ENG_NIL; i = e->faults[i].ready_next)
		if (queued++ == e->cfg.faults_max || e->faults[i].state != ENG_FAULT_READY)
			return "the ready queue is broken";
	if (n != e->outstanding || ready != e->ready_len || queued != ready)
		return "faults are counted wrongly";
	return NULL;
}

/* 5: what the guest was told and what the engine still owes are the same. */
static void owed(struct sim_vcpu *v)
{
	const struct eng_vcpu *e = &sim_hv(v)->eng;
	unsigned told = 0, owes = 0;

	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++)
		told += v->chk.missing[i].token != 0;
	for (uint32_t i = e->issue_head; i != ENG_NIL; i = e->faults[i].next)
		owes += e->faults[i].state != ENG_FAULT_RETIRED;
	if (told != owes)
		sim_broken(v->w, 5, "page-missing events without an end, or with two", told, owes);
}

/* ---- the guest ---- */

static const struct gst_node *node_of(const struct sim *w, uint32_t token)
{
	for (unsigned b = 0; b < GST_BUCKETS; b++)
		for (const struct gst_node *n = w->table.buckets[b]; n; n = n->next)
			if (n->token == token)
				return n;
	return NULL;
}

/* 33: who sleeps can be found by his token. */
static void sleepers(struct sim *w)
{
	for (unsigned c = 0; c < w->cfg.vcpus; c++)
		for (unsigned i = 0; i < w->cfg.tasks; i++) {
			const struct sim_task *t = &w->vcpus[c].tasks[i];
			const struct gst_node *n;

			if (t->state != SIM_TASK_SLEEPS)
				continue;
			n = node_of(w, t->token);
			if (!n || n->task != t)
				sim_broken(w, 33, "a sleeper is not in the table", t->id, t->token);
		}
}

void sim_chk_state(struct sim *w)
{
	const char *what = driver_wrong(w->host);

	if (what)
		sim_broken(w, 17, what, 0, 0);
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct sim_vcpu *v = &w->vcpus[i];

		what = engine_wrong(&sim_hv(v)->eng);
		if (what)
			sim_broken(w, 16, what, i, 0);
		if (!sim_hostile(w) && !sim_strict(w)) {
			owed(v);
			/* 37: one EOI for each interrupt. */
			if (v->chk.eoi_due != v->cpu.in_service && v->chk.eoi_due)
				sim_broken(w, 37, "interrupts without EOI", i, v->chk.eoi_due);
		}
	}
	if (!sim_hostile(w))
		sleepers(w);
}

/* Everybody was fair for long enough: nothing may be left. */
void sim_chk_end(struct sim *w)
{
	const struct hst *h = &w->host->hst;

	if (h->free_count != h->fetch_count || !hst_is_idle(h) || hst_is_paused(h))
		sim_broken(w, 46, "something is still being fetched", h->free_count, h->in_flight);
	if (sim_hostile(w) || sim_strict(w))
		return;
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct sim_vcpu *v = &w->vcpus[i];
		const struct eng_vcpu *e = &sim_hv(v)->eng;

		if (e->outstanding || e->wake_all_due)
			sim_broken(w, 27, "events that were never sent", i, e->outstanding);
		if (v->chk.wake_all_owed && v->cpu.apic_on && (v->chk.ctl || !v->chk.en))
			sim_broken(w, 25, "the wake-all of an enabling write never came", i, 0);
	}
	if (w->table.early_count && !w->table.overflow_count)
		sim_broken(w, 34, "a wake-up that nobody waited for", w->table.early_count, 0);
}
