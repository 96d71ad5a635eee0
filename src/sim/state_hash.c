/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What decides how a simulation goes on, as one number: two worlds with the same number have
 * the same future, as far as 64 bits tell. Left out: counters, statistics, absolute time and
 * what the checkers remember. A coroutine's part is its stack as it lies there: garbage in it
 * may tell equal states apart, never make different ones equal.
 */
#include "host/block.h"
#include "sim/world.h"

static void mix(uint64_t *h, uint64_t x)
{
	*h = (*h ^ x) * 0x9e3779b97f4a7c15ull;
	*h ^= *h >> 32;
}

static void mix_cpu(uint64_t *h, const struct sim_cpu *c)
{
	mix(h, (uint64_t)c->interrupts_on | (uint64_t)c->shadow << 1 | (uint64_t)c->paging << 2 |
		       (uint64_t)c->in_service << 3 | (uint64_t)c->apic_on << 4 |
		       (uint64_t)c->nmi_pending << 5 | (uint64_t)c->in_nmi << 6 |
		       (uint64_t)c->halted << 7 | (uint64_t)c->halted_by_host << 8 |
		       (uint64_t)c->cpl << 9 | (uint64_t)c->pf.kind << 16 |
		       (uint64_t)c->reinject.kind << 24);
	mix(h, c->cr2);
	mix(h, c->pf.kind ? c->pf.cr2 : 0);
	for (unsigned i = 0; i < 4; i++)
		mix(h, c->irr[i]);
}

/* Another's frames, with what the address sanitizer puts between variables. */
__attribute__((no_sanitize("address")))
static void mix_stack(uint64_t *h, const struct sim_coroutine *co)
{
	const uint64_t *p = co->sp;
	const uint64_t *end =
		(const uint64_t *)(const void *)(co->stack + SIM_COROUTINE_STACK_BYTES);

	mix(h, (uint64_t)(end - p));
	for (; p < end; p++)
		mix(h, *p);
}

static void mix_pump(uint64_t *h, const struct sim_pump *p)
{
	mix(h, (uint64_t)p->shows << 32 | (p->pump.fetch ? p->pump.fetch->block + 1 : 0));
}

static void mix_giver(uint64_t *h, const struct sim_giver *t, uint32_t at)
{
	mix(h, (uint64_t)at << 4 | (uint64_t)t->on << 3 | (uint64_t)t->pumping << 2 |
		       (uint64_t)t->waiting << 1 | t->ready);
	mix_pump(h, &t->pump);
}

static void mix_exit(uint64_t *h, const struct sim_vcpu *v)
{
	mix(h, v->exit.kind);
	mix(h, v->exit.kind == PLAT_EXIT_WRMSR ? v->exit.msr.value << 8 | (v->exit.msr.index & 0xff)
					       : v->exit.roff.v);
	mix(h, (uint64_t)v->exit.cpu.interrupts_on | (uint64_t)v->exit.cpu.event_pending << 1 |
		       (uint64_t)v->exit.cpu.cpl << 2);
}

static void mix_vcpu(uint64_t *h, const struct sim_vcpu *v)
{
	mix(h, (uint64_t)v->th | (uint64_t)v->did << 4 | (uint64_t)v->step.next << 6 |
		       (uint64_t)v->step.entry.how << 8 |
		       (uint64_t)v->io_pending << 12 | (uint64_t)v->io_done << 13 |
		       (uint64_t)v->msr_done << 14 | (uint64_t)v->incomplete << 15 |
		       (uint64_t)v->kick << 16 | (uint64_t)v->kernel_wait << 17 |
		       (uint64_t)v->up << 18 | (uint64_t)v->vmm_signal << 19 |
		       (uint64_t)v->wanted << 20 | (uint64_t)v->vmm_keeps << 21 |
		       (uint64_t)v->init << 22 | (uint64_t)v->port_done << 23);
	mix(h, v->busy_until_ns > v->w->now_ns ? v->busy_until_ns - v->w->now_ns : 0);
	mix(h, v->late_until_ns > v->w->now_ns ? v->late_until_ns - v->w->now_ns : 0);
	mix_pump(h, &v->pump);
	if (v->th == SIM_TH_STEP && v->did == HST_DID_RUN)
		mix_exit(h, v);
	mix_cpu(h, &v->cpu);
	mix_stack(h, &v->co);
	mix(h, v->current ? v->current->id + 1 : 0);
	for (unsigned i = 0; i < v->w->cfg.tasks; i++)
		mix(h, (uint64_t)v->tasks[i].state | (uint64_t)v->tasks[i].left << 8 |
			       (uint64_t)v->tasks[i].page << 16 |
			       (uint64_t)(v->tasks[i].state == SIM_TASK_SLEEPS
						  ? v->tasks[i].token : 0) << 32);
	mix(h, *(const uint64_t *)(const void *)sim_area(v));
}

static void mix_timer(uint64_t *h, const struct sim *w, const struct timer *t)
{
	mix(h, timer_armed(t) ? t->due_ns - w->now_ns + 1 : 0);
}

static void mix_engine(uint64_t *h, const struct eng_vcpu *e)
{
	mix(h, e->en);
	mix(h, e->ctl);
	mix(h, (uint64_t)e->next_id | (uint64_t)e->wake_all_due << 33 |
		       (uint64_t)e->wake_all_in_slot << 34 | (uint64_t)e->wake_all_after << 40);
	for (uint32_t i = e->issue_head; i != ENG_NIL; i = e->faults[i].next)
		mix(h, (uint64_t)e->faults[i].token << 32 | e->faults[i].gfn << 4 |
			       e->faults[i].state);
	for (uint32_t i = e->ready_head; i != ENG_NIL; i = e->faults[i].ready_next)
		mix(h, e->faults[i].token);
}

static void mix_driver_vcpu(uint64_t *h, const struct sim *w, const struct hst_vcpu *v)
{
	mix_engine(h, &v->eng);
	mix(h, (uint64_t)v->phase | (uint64_t)v->sync_done << 8 | (uint64_t)v->where << 9 |
		       (uint64_t)v->kicked << 12 | (uint64_t)v->recheck_by_vcpu << 13 |
		       (uint64_t)v->redundant_last << 15 |
		       (uint64_t)v->redundant_run << 16 |
		       (uint64_t)(v->phase == HST_PHASE_STALL && v->stall_by_text) << 30 |
		       (uint64_t)v->unhalt << 31 |
		       (uint64_t)(v->sync.fetch ? v->sync.fetch->block + 1 : 0) << 32);
	mix(h, v->fault_off.v);
	mix(h, v->recheck_ns);
	mix(h, (uint64_t)v->cpu.cpl | (uint64_t)v->cpu.interrupts_on << 8 |
		       (uint64_t)v->cpu.shadow << 9 | (uint64_t)v->cpu.event_pending << 10 |
		       (uint64_t)v->cpu.untaken_token << 32);
	mix_timer(h, w, &v->recheck);
	mix_timer(h, w, &v->wake);
}

/* Who waits, in order: the vCPU, and whether in step or under which token. */
static void mix_fetch(uint64_t *h, const struct hst *d, const struct hst_fetch *f)
{
	mix(h, (uint64_t)f->state | (uint64_t)f->block << 8 | (uint64_t)f->tries << 40 |
		       (uint64_t)f->sampled << 48);
	for (struct list_link *at = f->waiters.first; at; at = at->next) {
		const struct hst_waiter *x = hst_waiter_of(at);
		const struct hst_vcpu *v = x->v;
		bool sync = v && x == &v->sync;

		mix(h, !v ? 1 : sync ? 2 + v->index
				     : (uint64_t)(x - v->tokens) << 8 | (16 + v->index));
	}
	(void)d;
}

static void mix_queue(uint64_t *h, const struct list *fetches)
{
	for (struct list_link *at = fetches->first; at; at = at->next)
		mix(h, hst_fetch_of(at)->block);
	mix(h, UINT64_MAX);
}

static void mix_driver(uint64_t *h, const struct sim *w)
{
	const struct sim_host *s = w->host;
	const struct hst *d = &s->hst;
	uint32_t first = (uint32_t)(SIM_PAGE_FIRST << PAGE_SHIFT >> d->cfg.block_shift);
	uint32_t count = (uint32_t)((uint64_t)SIM_USED_PAGES << PAGE_SHIFT >> d->cfg.block_shift);

	for (uint32_t b = first; b < first + count; b++) {
		mix(h, block_kind(d, b));
		if (block_kind(d, b) == BLOCK_FETCHING)
			mix_fetch(h, d, block_fetch(d, b));
	}
	for (unsigned i = 0; i <= d->cfg.vcpus; i++)
		mix_queue(h, &d->queues[i].fetches);
	mix_queue(h, &d->urgent.fetches);
	for (unsigned i = 0; i < ARRAY_LEN(d->ahead); i++)
		mix_queue(h, &d->ahead[i]);
	mix(h, d->urgent_run);
	mix_queue(h, &d->filled);
	mix(h, (d->turn_first ? (uint64_t)(d->turn_first - d->queues) : 255) |
		       (uint64_t)d->chunk_poisoned[0] << 8 |
		       (uint64_t)d->chunk_poisoned[1] << 9);
	for (unsigned i = 0; i < d->cfg.vcpus; i++)
		mix_driver_vcpu(h, w, &d->vcpus[i]);
	for (uint32_t p = SIM_PAGE_FIRST; p < SIM_PAGE_FIRST + SIM_USED_PAGES; p++)
		mix(h, (uint64_t)s->visible[p] | (uint64_t)s->poisoned[p] << 1 |
			       (uint64_t)s->vmm_visible[p] << 2 | (uint64_t)s->vmm_dirty[p] << 3 |
			       (uint64_t)s->held[p] << 4);
	for (unsigned i = 0; i < SIM_READS_MAX; i++)
		if (s->reads[i].rd)
			mix(h, s->reads[i].off | s->reads[i].flushed);
}

uint64_t sim_state_hash(const struct sim *w)
{
	uint64_t h = 0x243f6a8885a308d3ull;

	for (unsigned i = 0; i < w->cfg.vcpus; i++)
		mix_vcpu(&h, &w->vcpus[i]);
	for (unsigned b = 0; b < GST_BUCKETS; b++)
		for (const struct gst_node *n = w->table.buckets[b]; n; n = n->next)
			mix(&h, (uint64_t)n->token << 16 | n->cpu << 1 | (n->task != NULL));
	mix_driver(&h, w);
	mix(&h, w->host->lib_pumping);
	mix(&h, w->host->lib_late_ns > w->now_ns ? w->host->lib_late_ns - w->now_ns : 0);
	mix_pump(&h, &w->host->lib);
	for (unsigned i = 0; i < w->host->touch_count; i++)
		mix(&h, w->host->touches[i].off.v | w->host->touches[i].view);
	for (unsigned i = 0; i < w->host->hst.later_count; i++)
		mix(&h, w->host->hst.later[i].off.v | w->host->hst.later[i].view);
	for (unsigned i = 0; i < w->cfg.writers; i++)
		mix(&h, (uint64_t)w->writers[i].page << 3 | (uint64_t)w->writers[i].write << 2 |
				(uint64_t)w->writers[i].wants << 1 | w->writers[i].asleep);
	mix_giver(&h, &w->discard.t, w->discard.hst.at);
	mix(&h, (uint64_t)w->discard.hst.end << 2 | (uint64_t)w->discard.working << 1 |
			w->discard.worked);
	mix_giver(&h, &w->holder.t, w->holder.page);
	mix(&h, (uint64_t)w->holder.writes << 1 | w->holder.holds);
	mix_giver(&h, &w->plug.d.t, w->plug.d.hst.at);
	mix(&h, (uint64_t)w->plug.index << 5 | (uint64_t)w->plug.pins << 4 |
			(uint64_t)w->plug.leaves << 3 | (uint64_t)w->plug.d.working << 2 |
			(uint64_t)w->plug.d.worked << 1);
	for (unsigned i = 0; i < SIM_PARTS_MAX; i++)
		mix(&h, w->plug.parts[i].gpa | w->plug.parts[i].state);
	mix_pump(&h, &w->offer.pump);
	mix(&h, w->offer.hst.at.v << 3 | (uint64_t)w->offer.pumping << 2 |
			(uint64_t)w->offer.on << 1 | w->offer.copying);
	return h;
}
