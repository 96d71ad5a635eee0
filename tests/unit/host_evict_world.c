/* SPDX-License-Identifier: Apache-2.0 */
/* See host_evict_world.h. */
#include "host_evict_world.h"

uint64_t evw_rnd(struct world *w, uint64_t n)
{
	return prng_below(&w->rng, n);
}

void evw_must(struct world *w, bool ok, const char *what)
{
	if (!ok && !w->broken)
		w->broken = what;
}

/* One that is being taken away just now, if there is any; else any. */
static uint64_t leaving_page(struct world *w)
{
	const struct hst *h = &w->x->h;
	uint64_t from = evw_rnd(w, PAGES);

	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t page = 1 + (from + i) % (PAGES - 1);

		if (block_kind(h, (uint32_t)rig_block(w->x, page)) >= BLOCK_UNMAPPING)
			return page;
	}
	return 1 + from % (PAGES - 1);
}

static struct wish new_wish(struct world *w)
{
	/* Page 0 holds the areas. Some pages are wanted more often than others. */
	uint64_t page = evw_rnd(w, 3) == 0 ? leaving_page(w)
				       : 1 + (evw_rnd(w, 2) ? evw_rnd(w, PAGES - 1) : evw_rnd(w,
					      24));

	return (struct wish){page, evw_rnd(w, 3) ? 0 : 1 + evw_rnd(w, 4), evw_rnd(w, 16) == 0};
}

/* ---- the guest ---- */

static void carry_out(struct world *w, const struct wish *wish, bool by_guest)
{
	struct rig *x = w->x;

	evw_must(w, rig_right(x, wish->page), "a page does not hold what was written last");
	w->checked++;
	if (wish->value && by_guest)
		rig_guest_writes(x, wish->page, wish->value);
	else if (wish->value) {
		hst_wrote(&x->h, (roff_t){wish->page << PAGE_SHIFT}, 1);
		rig_put(x, wish->page, wish->value);
	}
}

/* Another task: one that was woken, or a new one. */
void evw_schedule(struct world *w, struct cpu *p)
{
	for (unsigned i = 0; i < p->parked_len; i++) {
		if (p->parked[i].token)
			continue;
		p->wish = p->parked[i].wish;
		p->parked[i] = p->parked[--p->parked_len];
		return;
	}
	p->wish = w->fair ? (struct wish){0} : new_wish(w);
}

static void wake(struct cpu *p, uint32_t token)
{
	for (unsigned i = 0; i < p->parked_len; i++)
		if (token == APF_TOKEN_WAKE_ALL || p->parked[i].token == token)
			p->parked[i].token = 0;
}

static void go_on(struct world *w, unsigned c)
{
	struct rig *x = w->x;
	struct cpu *p = &w->cpus[c];
	enum hst_next next;

	x->vcpus[c].kicked = false;
	next = rig_next(x, c);
	if (next == HST_WAIT) {
		p->where = IN_WAIT;
		p->until = x->until;
		return;
	}
	p->halted = next == HST_ENTER_HALTED || (next == HST_ENTER && p->halted);
	if (x->vcpus[c].untaken)
		p->halted = false;
	p->where = IN_GUEST;
	if (!p->io)
		return;
	/* Half an instruction, under the lock: hst_next said that it may be carried out. */
	evw_must(w, rig_present(x, p->wish.page), "the host may access what is not there");
	if (!w->broken)
		carry_out(w, &p->wish, false);
	p->io = false;
	evw_schedule(w, p);
}

static void take_pf(struct world *w, unsigned c)
{
	struct cpu *p = &w->cpus[c];
	uint32_t token = rig_take_pf(w->x, c);

	p->parked[p->parked_len].wish = p->wish;
	p->parked[p->parked_len++].token = token;
	evw_schedule(w, p);
}

static void take_irq(struct world *w, unsigned c)
{
	struct rig *x = w->x;

	w->cpus[c].halted = false;
	wake(&w->cpus[c], rig_take_irq(x, c));
	rig_wrmsr(x, c, APF_MSR_ACK, APF_ACK_READY);
	rig_pump(x);
	go_on(w, c);
}

static void fault(struct world *w, unsigned c)
{
	struct rig *x = w->x;
	struct cpu *p = &w->cpus[c];
	struct cpu_state *cpu = &x->vcpus[c].cpu;
	roff_t off = {p->wish.page << PAGE_SHIFT};

	cpu->cpl = evw_rnd(w, 3) == 0 || p->parked_len == PARKED ? 0 : 3;
	rig_exit(x, c, false);
	p->io = p->wish.io;
	if (p->io)
		rig_load(rig_v(x, c), off);
	else
		hst_fault(rig_v(x, c), off);
	if (evw_rnd(w, 2))
		rig_pump(x);
	/* The lock was let go of: anything may happen before hst_next. */
	p->where = IN_WAIT;
	p->until = 0;
}

static void touch(struct world *w, unsigned c)
{
	struct rig *x = w->x;
	struct cpu *p = &w->cpus[c];
	uint64_t page = p->wish.page;
	struct err e;

	if (page == 0) {
		evw_schedule(w, p);
		return;
	}
	if (p->sleeps && p->woken == rig_swap(x)->woken[page])
		return;
	p->sleeps = false;
	switch (rig_swap(x)->pages[page]) {
	case RIG_VISIBLE:
		if (p->wish.io && x->h.cfg.faults != HST_FAULTS_KERNEL) {
			fault(w, c); /* it was there when the host looked, or came just now */
			return;
		}
		carry_out(w, &p->wish, true);
		evw_schedule(w, p);
		return;
	case RIG_POISONED:
		fault(w, c);
		return;
	case RIG_HOLE:
		/* What is in memory is a touch that is reported, watched or not. */
		if (!rig_swap(x)->watched && !rig_swap(x)->allocated[page]) {
			rig_native(x, page);
			return;
		}
		p->sleeps = true;
		p->woken = rig_swap(x)->woken[page];
		if (rig_kernel_touch(&x->h, (roff_t){page << PAGE_SHIFT}, &e) < 0)
			hst_pause(&x->h);
	}
}

void evw_guest_step(struct world *w, unsigned c)
{
	struct rig *x = w->x;
	struct cpu *p = &w->cpus[c];
	struct rig_vcpu *g = &x->vcpus[c];

	if (p->where == IN_WAIT) {
		if (g->kicked || x->now >= p->until)
			go_on(w, c);
	} else if (g->kicked) {
		p->sleeps = false; /* a signal ends that */
		rig_exit(x, c, true);
		go_on(w, c);
	} else if (g->untaken) {
		take_pf(w, c);
	} else if (g->irr) {
		take_irq(w, c);
	} else if (!p->halted) {
		touch(w, c);
	}
}

/* ---- the world around ---- */

void evw_source_step(struct world *w)
{
	struct rig_src *s = evw_rnd(w, 2) ? &w->x->src : &rig_swap(w->x)->src;

	if (s->count) {
		unsigned i = (unsigned)evw_rnd(w, s->count);

		rig_src_answer(s, i, s->cancelled[i] ? -ECANCELED : evw_rnd(w, 6) == 0 ? -EIO : 0);
	}
	s->answers = (enum rig_answers)(evw_rnd(w, 3) ? RIG_LATER : evw_rnd(w, 3));
}

void evw_write_step(struct world *w)
{
	struct rig_swap *s = rig_swap(w->x);
	unsigned i;

	if (s->count == 0)
		return;
	i = (unsigned)evw_rnd(w, s->count);
	if (s->writes[i].cancelled)
		rig_write_end(w->x, i, -ECANCELED);
	else if (evw_rnd(w, 6) == 0)
		rig_write_end(w->x, i, -(int)evw_rnd(w, 30));
	else if (evw_rnd(w, 6) == 0)
		rig_write_end(w->x, i, (int)(1 + evw_rnd(w, s->writes[i].len)));
	else
		rig_write_ok(w->x, i);
}

void evw_evictor_step(struct world *w)
{
	struct rig *x = w->x;

	switch (w->evictor) {
	case NO_JOB:
		if (hst_evict_next(&x->h, &w->job))
			w->evictor = JOB_BEGUN;
		else
			evw_must(w, !hst_evict_wanted(&x->h),
				 "something is wanted and not handed out");
		break;
	case JOB_BEGUN:
		for (unsigned c = 0; c < x->h.cfg.vcpus; c++)
			evw_must(w, w->job.kind != HST_JOB_UNMAP ||
				 x->h.cfg.faults == HST_FAULTS_KERNEL ||
				 rig_v(x, c)->where != HST_IN_GUEST,
				 "memory is taken out of the mapping under a running vCPU");
		hst_evict_work(&x->h, &w->job);
		w->evictor = JOB_WORKED;
		break;
	case JOB_WORKED:
		w->evictor = NO_JOB;
		hst_evict_done(&x->h, &w->job);
		break;
	}
}

void evw_device_step(struct world *w)
{
	struct device *d = &w->devices[evw_rnd(w, DEVICES)];

	if (!d->busy) {
		if (w->fair)
			return;
		d->wish = new_wish(w);
		d->busy = true;
	} else if (d->w.fetch) {
		if (w->fair || evw_rnd(w, 16))
			return;
		hst_forget(&d->w);
		d->busy = false;
		return;
	}
	if (!hst_ensure(&w->x->h, (roff_t){d->wish.page << PAGE_SHIFT}, &d->w))
		return;
	carry_out(w, &d->wish, false);
	if (!w->fair && evw_rnd(w, 200) == 0)
		(void)hst_pin(&w->x->h, (roff_t){d->wish.page << PAGE_SHIFT});
	d->busy = false;
}

void evw_thread_step(struct world *w)
{
	struct rig *x = w->x;
	struct thread *t = &w->threads[evw_rnd(w, THREADS)];
	struct err e;

	if (t->wish.page == 0 && !w->fair)
		t->wish = new_wish(w);
	if (t->wish.page == 0 || (t->sleeps && t->woken == rig_swap(x)->woken[t->wish.page]))
		return;
	t->sleeps = !rig_swap(x)->vmm[t->wish.page];
	if (t->sleeps) {
		t->woken = rig_swap(x)->woken[t->wish.page];
		if (rig_vmm_touch(&x->h, (roff_t){t->wish.page << PAGE_SHIFT}, &e) < 0)
			hst_pause(&x->h);
		return;
	}
	evw_must(w, rig_right(x, t->wish.page),
		 "the VMM sees something else than was written last");
	w->checked++;
	if (t->wish.value) {
		rig_swap(x)->vmm_guarded[t->wish.page] = false;
		rig_put(x, t->wish.page, t->wish.value);
	}
	t->wish.page = 0;
}

static void zeroes_from_now_on(struct world *w, uint32_t from, uint32_t end)
{
	struct rig *x = w->x;
	uint64_t per = 1ull << (x->h.cfg.block_shift - PAGE_SHIFT);

	for (uint64_t p = from * per; p < end * per; p++) {
		evw_must(w, rig_words(x, p)[0] == 0, "what was discarded is not zeroes");
		rig_swap(x)->want[p] = 1;
	}
}

/* Part of it may have become zeroes, where memory is what counts. */
static void not_discarded(struct world *w, const struct hst_discard *d)
{
	struct rig *x = w->x;
	uint64_t per = 1ull << (x->h.cfg.block_shift - PAGE_SHIFT);

	for (uint64_t p = d->run.block * per; p < (d->run.block + d->run.count) * per; p++) {
		uint32_t block = (uint32_t)(p / per);
		bool behind = block_is(&x->h, block, BLOCK_IN_SWAP) ||
			      (rig_swap(x)->source && !block_is(&x->h, block, BLOCK_ZEROES));

		if (rig_words(x, p)[0] == 0 && (d->was != BLOCK_ABSENT || !behind))
			rig_swap(x)->want[p] = 1;
	}
}

/* Its source has failed. */
static bool is_failed(const struct hst *h, uint32_t block)
{
	return block_kind(h, block) == BLOCK_FETCHING &&
	       block_fetch(h, block)->state == HST_FETCH_FAILED && !block_fetch(h, block)->filled;
}

static void discard_step(struct world *w)
{
	struct balloon *b = &w->balloon;
	struct hst_discard was = b->d;
	struct hst *h = &w->x->h;
	enum hst_discarding next;
	bool failed[PAGES] = {false};

	for (uint32_t i = was.at; i < was.end; i++)
		failed[i] = is_failed(h, i);
	next = hst_discard_step(h, &b->d);
	zeroes_from_now_on(w, was.at, next == HST_DISCARD_WORK ? b->d.run.block : b->d.at);
	w->x->discards = next == HST_DISCARD_WORK ? &b->d : NULL;
	b->at = next == HST_DISCARD_DONE ? NO_DISCARD
		: next == HST_DISCARD_WORK ? RUN_BEGUN : DISCARDING;
	if (next != HST_DISCARD_LATER)
		return;
	if (failed[b->d.at] && !is_failed(h, b->d.at))
		zeroes_from_now_on(w, b->d.at, b->d.at + 1);
	if (!b->w.fetch)
		(void)hst_ensure(h, (roff_t){(uint64_t)b->d.at << h->cfg.block_shift}, &b->w);
}

void evw_balloon_step(struct world *w)
{
	struct balloon *b = &w->balloon;

	switch (b->at) {
	case NO_DISCARD:
		if (w->fair || evw_rnd(w, 3))
			return;
		/* Page 0 holds the areas. */
		b->d = (struct hst_discard){.at = 1};
		b->d.at += (uint32_t)evw_rnd(w, rig_block(w->x, PAGES) - 1);
		b->d.end = (uint32_t)min_u64(b->d.at + 1 + evw_rnd(w, evw_rnd(w, 2) ? 2 : PAGES),
					     rig_block(w->x, PAGES));
		discard_step(w);
		break;
	case DISCARDING:
		if (!b->w.fetch)
			discard_step(w);
		break;
	case RUN_BEGUN:
		hst_discard_work(&w->x->h, &b->d);
		/* Now: the kernel may fill it again unseen. */
		if (b->d.why.code == 0)
			zeroes_from_now_on(w, b->d.run.block, b->d.run.block + b->d.run.count);
		else
			not_discarded(w, &b->d);
		b->at = RUN_WORKED;
		break;
	case RUN_WORKED:
		discard_step(w);
		break;
	}
}

/* A device writes to what is held past everything. */
void evw_hold_step(struct world *w)
{
	struct rig *x = w->x;
	roff_t off = {w->held_page << PAGE_SHIFT};

	if (w->held_page == 0 && !w->fair) {
		uint64_t page = 1 + evw_rnd(w, PAGES - 1);

		if (hst_hold_long(&x->h, (roff_t){page << PAGE_SHIFT}))
			w->held_page = page;
	} else if (w->held_page && evw_rnd(w, 2)) {
		evw_must(w, rig_right(x, w->held_page), "held memory holds something else");
		rig_put(x, w->held_page, 1 + evw_rnd(w, 4));
	} else if (w->held_page) {
		hst_release_long(&x->h, off, 1);
		w->held_page = 0;
	}
}

void evw_visible_step(struct world *w)
{
	unsigned i = (unsigned)evw_rnd(w, HELD);
	struct err why = {0};
	int rc;

	if (!w->held[i]) {
		w->held[i] = hst_take_filled(&w->x->h);
		return;
	}
	rc = hst_make_visible(w->held[i], &why);
	hst_shown(w->held[i], rc < 0 ? &why : NULL);
	w->held[i] = NULL;
}

/* The source tells of what lies around, or of all it has; some of it is old by then. */
void evw_offer_step(struct world *w)
{
	struct rig *x = w->x;
	uint64_t all = PAGES << PAGE_SHIFT;

	if (w->piece.fetch) {
		rig_copy_piece(&x->src, &w->offer, &w->piece);
		hst_offered(w->piece.fetch);
		w->piece.fetch = NULL;
		if (evw_rnd(w, 4) == 0)
			return;
	} else {
		/* By then much has gone to the swap file. */
		if (w->fair && (w->offers == 0 || w->offers-- % 4))
			return;
		w->offer = (struct hst_offer){.src = &x->src.src, .offset = evw_rnd(w, all)};
		w->offer.len = evw_rnd(w, 8) ? evw_rnd(w, 20000) : all - w->offer.offset;
	}
	(void)hst_offer_next(&x->h, &w->offer, &w->piece);
}

void evw_time_step(struct world *w)
{
	struct rig *x = w->x;
	uint64_t next = timers_next_ns(&x->h.timers);

	if (next != NS_NEVER && (w->fair || evw_rnd(w, 2)))
		x->now = max_u64(x->now, next);
	else
		x->now += evw_rnd(w, 1000) * NS_PER_US;
	timers_run(&x->h.timers, x->now);
}

void evw_trouble_step(struct world *w)
{
	struct rig *x = w->x;

	switch (evw_rnd(w, 9)) {
	case 8:
		/* The host reclaims: pages leave the mapping, markers stay. */
		for (unsigned p = (unsigned)evw_rnd(w, PAGES); p < PAGES; p += 5)
			if (rig_visible(x, p) && !rig_swap(x)->guarded[p])
				rig_swap(x)->pages[p] = RIG_HOLE;
			else if (!rig_swap(x)->vmm_guarded[p])
				rig_swap(x)->vmm[p] = false;
		break;
	case 0:
		hst_pause(&x->h);
		break;
	case 1:
		hst_evict_to(&x->h, evw_rnd(w, PAGES) << PAGE_SHIFT);
		break;
	case 2:
		rig_swap(x)->fail[evw_rnd(w, RIG_TAKES)] = (unsigned)evw_rnd(w, 3);
		rig_swap(x)->half = (unsigned)evw_rnd(w, 64);
		break;
	case 3:
		x->src.cancels = (enum rig_cancels)evw_rnd(w, 3);
		rig_swap(x)->src.cancels = (enum rig_cancels)evw_rnd(w, 3);
		break;
	case 4:
		x->mem_faults = (struct rig_mem_faults){.at = (unsigned)evw_rnd(w, 3)};
		break;
	default:
		hst_resume(&x->h);
	}
}
