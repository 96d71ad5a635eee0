/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random histories of memory that is taken away while it is used: every way of serving faults,
 * one to three vCPUs that read and write, devices, threads of the VMM's with their own view, a
 * balloon, memory that is held, a source and a swap file that fail, tear and hang, content that
 * comes unasked, an evictor with its own thread, limits, commands, pins, memory that the kernel
 * fills by itself, jobs that fail in part, pauses. Whoever reads sees what was written last; the
 * limit is kept; then, in a time in which everybody is fair, everybody gets on. Failures name the
 * seed.
 *
 * One episode in detail: EVICT_SEED=n ./host_evict_property_test
 * This file is longer than 800 lines because all of it is one walk: each actor is judged by what
 * the others have done.
 */
#include <stdio.h>

#include "base/prng.h"
#include "host_swap_fixture.h"

#define EPISODES 500u
#define STEPS 400u
#define PAGES 128u
#define PARKED 8u
#define DEVICES 3u
#define HELD 3u
#define THREADS 2u
#define FAIR_ROUNDS 3000u

/* What a task of the guest, or a device, wants of a page. */
struct wish {
	uint64_t page;
	uint64_t value; /* 0: to read it */
	bool io;	/* the host carries it out */
};

enum where { IN_GUEST, IN_WAIT };

struct cpu {
	struct wish wish; /* of the running task */
	struct { /* tasks that sleep under a token, or that were woken (token 0) */
		struct wish wish;
		uint32_t token;
	} parked[PARKED];
	unsigned parked_len;
	enum where where;
	uint64_t until;
	bool halted;
	bool io;     /* an access of the host is under way */
	bool sleeps; /* in the kernel, until somebody wakes it */
	unsigned woken;
};

struct device {
	struct hst_waiter w;
	struct wish wish;
	bool busy;
};

/* A thread of the VMM's, that touches memory through its view. */
struct thread {
	struct wish wish; /* page 0: none */
	bool sleeps;
	unsigned woken;
};

struct balloon {
	struct hst_discard d;
	struct hst_waiter w;
	enum { NO_DISCARD, DISCARDING, RUN_BEGUN, RUN_WORKED } at;
};

struct world {
	struct rig *x;
	struct prng rng;
	struct cpu cpus[RIG_VCPUS];
	struct device devices[DEVICES];
	struct thread threads[THREADS];
	struct balloon balloon;
	uint64_t held_page; /* hst_hold_long; 0: none */
	struct hst_fetch *held[HELD]; /* being made visible by other threads */
	struct hst_offer offer; /* a piece of it is being copied while fetch is set: */
	struct hst_piece piece;
	struct hst_job job;
	enum { NO_JOB, JOB_BEGUN, JOB_WORKED } evictor;
	unsigned offers; /* left for the fair time */
	bool native; /* the kernel may fill memory by itself, past the limit */
	bool fair;
	uint64_t checked; /* pages looked at */
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

/* One that is being taken away just now, if there is any; else any. */
static uint64_t leaving_page(struct world *w)
{
	const struct hst *h = &w->x->h;
	uint64_t from = rnd(w, PAGES);

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
	uint64_t page = rnd(w, 3) == 0 ? leaving_page(w)
				       : 1 + (rnd(w, 2) ? rnd(w, PAGES - 1) : rnd(w, 24));

	return (struct wish){page, rnd(w, 3) ? 0 : 1 + rnd(w, 4), rnd(w, 16) == 0};
}

/* ---- the guest ---- */

static void carry_out(struct world *w, const struct wish *wish, bool by_guest)
{
	struct rig *x = w->x;

	must(w, rig_right(x, wish->page), "a page does not hold what was written last");
	w->checked++;
	if (wish->value && by_guest)
		rig_guest_writes(x, wish->page, wish->value);
	else if (wish->value) {
		hst_wrote(&x->h, (roff_t){wish->page << PAGE_SHIFT}, 1);
		rig_put(x, wish->page, wish->value);
	}
}

/* Another task: one that was woken, or a new one. */
static void schedule(struct world *w, struct cpu *p)
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
	must(w, rig_present(x, p->wish.page), "the host may access what is not there");
	if (!w->broken)
		carry_out(w, &p->wish, false);
	p->io = false;
	schedule(w, p);
}

static void take_pf(struct world *w, unsigned c)
{
	struct cpu *p = &w->cpus[c];
	uint32_t token = rig_take_pf(w->x, c);

	p->parked[p->parked_len].wish = p->wish;
	p->parked[p->parked_len++].token = token;
	schedule(w, p);
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

	cpu->cpl = rnd(w, 3) == 0 || p->parked_len == PARKED ? 0 : 3;
	rig_exit(x, c, false);
	p->io = p->wish.io;
	if (p->io)
		rig_load(rig_v(x, c), off);
	else
		hst_fault(rig_v(x, c), off);
	if (rnd(w, 2))
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
		schedule(w, p);
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
		schedule(w, p);
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

static void guest_step(struct world *w, unsigned c)
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

static void source_step(struct world *w)
{
	struct rig_src *s = rnd(w, 2) ? &w->x->src : &rig_swap(w->x)->src;

	if (s->count) {
		unsigned i = (unsigned)rnd(w, s->count);

		rig_src_answer(s, i, s->cancelled[i] ? -ECANCELED : rnd(w, 6) == 0 ? -EIO : 0);
	}
	s->answers = (enum rig_answers)(rnd(w, 3) ? RIG_LATER : rnd(w, 3));
}

static void write_step(struct world *w)
{
	struct rig_swap *s = rig_swap(w->x);
	unsigned i;

	if (s->count == 0)
		return;
	i = (unsigned)rnd(w, s->count);
	if (s->writes[i].cancelled)
		rig_write_end(w->x, i, -ECANCELED);
	else if (rnd(w, 6) == 0)
		rig_write_end(w->x, i, -(int)rnd(w, 30));
	else if (rnd(w, 6) == 0)
		rig_write_end(w->x, i, (int)(1 + rnd(w, s->writes[i].len)));
	else
		rig_write_ok(w->x, i);
}

static void evictor_step(struct world *w)
{
	struct rig *x = w->x;

	switch (w->evictor) {
	case NO_JOB:
		if (hst_evict_next(&x->h, &w->job))
			w->evictor = JOB_BEGUN;
		else
			must(w, !hst_evict_wanted(&x->h), "something is wanted and not handed out");
		break;
	case JOB_BEGUN:
		for (unsigned c = 0; c < x->h.cfg.vcpus; c++)
			must(w, w->job.kind != HST_JOB_UNMAP ||
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

static void device_step(struct world *w)
{
	struct device *d = &w->devices[rnd(w, DEVICES)];

	if (!d->busy) {
		if (w->fair)
			return;
		d->wish = new_wish(w);
		d->busy = true;
	} else if (d->w.fetch) {
		if (w->fair || rnd(w, 16))
			return;
		hst_forget(&d->w);
		d->busy = false;
		return;
	}
	if (!hst_ensure(&w->x->h, (roff_t){d->wish.page << PAGE_SHIFT}, &d->w))
		return;
	carry_out(w, &d->wish, false);
	if (!w->fair && rnd(w, 200) == 0)
		(void)hst_pin(&w->x->h, (roff_t){d->wish.page << PAGE_SHIFT});
	d->busy = false;
}

static void thread_step(struct world *w)
{
	struct rig *x = w->x;
	struct thread *t = &w->threads[rnd(w, THREADS)];
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
	must(w, rig_right(x, t->wish.page), "the VMM sees something else than was written last");
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
		must(w, rig_words(x, p)[0] == 0, "what was discarded is not zeroes");
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

static void balloon_step(struct world *w)
{
	struct balloon *b = &w->balloon;

	switch (b->at) {
	case NO_DISCARD:
		if (w->fair || rnd(w, 3))
			return;
		/* Page 0 holds the areas. */
		b->d = (struct hst_discard){.at = 1};
		b->d.at += (uint32_t)rnd(w, rig_block(w->x, PAGES) - 1);
		b->d.end = (uint32_t)min_u64(b->d.at + 1 + rnd(w, rnd(w, 2) ? 2 : PAGES),
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
static void hold_step(struct world *w)
{
	struct rig *x = w->x;
	roff_t off = {w->held_page << PAGE_SHIFT};

	if (w->held_page == 0 && !w->fair) {
		uint64_t page = 1 + rnd(w, PAGES - 1);

		if (hst_hold_long(&x->h, (roff_t){page << PAGE_SHIFT}))
			w->held_page = page;
	} else if (w->held_page && rnd(w, 2)) {
		must(w, rig_right(x, w->held_page), "held memory holds something else");
		rig_put(x, w->held_page, 1 + rnd(w, 4));
	} else if (w->held_page) {
		hst_wrote(&x->h, off, 1);
		hst_release_long(&x->h, off);
		w->held_page = 0;
	}
}

static void visible_step(struct world *w)
{
	unsigned i = (unsigned)rnd(w, HELD);
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
static void offer_step(struct world *w)
{
	struct rig *x = w->x;
	uint64_t all = PAGES << PAGE_SHIFT;

	if (w->piece.fetch) {
		rig_copy_piece(&x->src, &w->offer, &w->piece);
		hst_offered(w->piece.fetch);
		w->piece.fetch = NULL;
		if (rnd(w, 4) == 0)
			return;
	} else {
		/* By then much has gone to the swap file. */
		if (w->fair && (w->offers == 0 || w->offers-- % 4))
			return;
		w->offer = (struct hst_offer){.src = &x->src.src, .offset = rnd(w, all)};
		w->offer.len = rnd(w, 8) ? rnd(w, 20000) : all - w->offer.offset;
	}
	(void)hst_offer_next(&x->h, &w->offer, &w->piece);
}

static void time_step(struct world *w)
{
	struct rig *x = w->x;
	uint64_t next = timers_next_ns(&x->h.timers);

	if (next != NS_NEVER && (w->fair || rnd(w, 2)))
		x->now = max_u64(x->now, next);
	else
		x->now += rnd(w, 1000) * NS_PER_US;
	timers_run(&x->h.timers, x->now);
}

static void trouble_step(struct world *w)
{
	struct rig *x = w->x;

	switch (rnd(w, 9)) {
	case 8:
		/* The host reclaims: pages leave the mapping, markers stay. */
		for (unsigned p = (unsigned)rnd(w, PAGES); p < PAGES; p += 5)
			if (rig_visible(x, p) && !rig_swap(x)->guarded[p])
				rig_swap(x)->pages[p] = RIG_HOLE;
			else if (!rig_swap(x)->vmm_guarded[p])
				rig_swap(x)->vmm[p] = false;
		break;
	case 0:
		hst_pause(&x->h);
		break;
	case 1:
		hst_evict_to(&x->h, rnd(w, PAGES) << PAGE_SHIFT);
		break;
	case 2:
		rig_swap(x)->fail[rnd(w, RIG_TAKES)] = (unsigned)rnd(w, 3);
		rig_swap(x)->half = (unsigned)rnd(w, 64);
		break;
	case 3:
		x->src.cancels = (enum rig_cancels)rnd(w, 3);
		rig_swap(x)->src.cancels = (enum rig_cancels)rnd(w, 3);
		break;
	case 4:
		x->mem_faults = (struct rig_mem_faults){.at = (unsigned)rnd(w, 3)};
		break;
	default:
		hst_resume(&x->h);
	}
}

static void check(struct world *w)
{
	struct rig *x = w->x;
	const struct hst_evict *ev = &x->h.evict;

	must(w, !rig_broken(&x->h, x->discards), rig_broken(&x->h, x->discards));
	must(w, !rig_swap(x)->broken_drop, "memory was given back that could be seen");
	must(w, w->native || ev->resident <= ev->limit, "the limit was not kept");
	must(w, w->native || hst_resident_bytes(&x->h) >> x->h.cfg.block_shift <= ev->limit,
	     "memory beyond the limit");
}

static void step(struct world *w)
{
	struct rig *x = w->x;

	switch (rnd(w, 20)) {
	case 16:
	case 17:
		thread_step(w);
		break;
	case 18:
		balloon_step(w);
		break;
	case 19:
		hold_step(w);
		break;
	case 0:
	case 1:
		source_step(w);
		break;
	case 2:
	case 3:
		write_step(w);
		break;
	case 4:
	case 5:
	case 6:
		evictor_step(w);
		break;
	case 7:
		device_step(w);
		break;
	case 8:
		visible_step(w);
		break;
	case 9:
		time_step(w);
		break;
	case 10:
		trouble_step(w);
		break;
	case 11:
		offer_step(w);
		break;
	default:
		guest_step(w, (unsigned)rnd(w, x->h.cfg.vcpus));
	}
	if (rnd(w, 4))
		rig_pump(x);
	check(w);
}

/* ---- everybody is fair ---- */

static bool all_done(const struct world *w)
{
	const struct hst *h = &w->x->h;

	for (unsigned c = 0; c < h->cfg.vcpus; c++)
		if (w->cpus[c].parked_len || w->cpus[c].wish.page || w->cpus[c].halted ||
		    w->cpus[c].where != IN_GUEST)
			return false;
	for (unsigned i = 0; i < DEVICES; i++)
		if (w->devices[i].busy)
			return false;
	for (unsigned i = 0; i < THREADS; i++)
		if (w->threads[i].wish.page)
			return false;
	if (w->balloon.at != NO_DISCARD || w->held_page)
		return false;
	return w->evictor == NO_JOB && !hst_evict_wanted(h) && !hst_evict_forced(h) &&
	       h->free_count == h->fetch_count && h->evict.writes_used == 0;
}

static void fair_round(struct world *w)
{
	struct rig *x = w->x;

	while (x->src.count)
		rig_answer(x, 0, 0);
	while (rig_swap(x)->src.count)
		rig_src_answer(&rig_swap(x)->src, 0, 0);
	while (rig_swap(x)->count)
		rig_write_ok(x, 0);
	offer_step(w);
	for (unsigned i = 0; i < 2 * HELD; i++)
		visible_step(w);
	rig_pump(x);
	for (unsigned n = 0; n < 6; n++) {
		evictor_step(w);
		device_step(w);
		thread_step(w);
		balloon_step(w);
		hold_step(w);
		for (unsigned c = 0; c < x->h.cfg.vcpus; c++)
			guest_step(w, c);
		rig_pump(x);
	}
	time_step(w);
	rig_pump(x);
}

static void live(struct world *w)
{
	struct rig *x = w->x;

	w->fair = true;
	w->offers = 40;
	memset(rig_swap(x)->fail, 0, sizeof(rig_swap(x)->fail));
	x->mem_faults = (struct rig_mem_faults){0};
	x->src.answers = rig_swap(x)->src.answers = RIG_LATER;
	x->src.cancels = rig_swap(x)->src.cancels = RIG_CANCEL_ENDS;
	for (unsigned rounds = 0; !all_done(w) && !w->broken; rounds++) {
		if (hst_is_paused(&x->h))
			hst_resume(&x->h);
		fair_round(w);
		check(w);
		must(w, rounds < FAIR_ROUNDS, "somebody waits for ever");
	}
	must(w, !hst_is_paused(&x->h), "paused for nothing");
	x->src.answers = rig_swap(x)->src.answers = RIG_AT_ONCE;
	for (uint64_t p = 1; p < PAGES && !w->broken; p++) {
		struct hst_waiter o = {.v = NULL};

		while (!hst_ensure(&x->h, (roff_t){p << PAGE_SHIFT}, &o))
			while (o.fetch)
				fair_round(w);
		must(w, rig_right(x, p), "a page does not hold what was written last");
	}
}

/* ---- episodes ---- */

static void begin(struct world *w, uint64_t seed)
{
	static const enum hst_faults modes[] = {HST_FAULTS_USER, HST_FAULTS_USER, HST_FAULTS_BLOCK,
						HST_FAULTS_STALL, HST_FAULTS_KERNEL};
	struct hst_cfg cfg;
	bool source;
	uint64_t blocks;

	*w = (struct world){0};
	prng_init(&w->rng, seed);
	cfg = rig_cfg(modes[rnd(w, ARRAY_LEN(modes))], APF_REV_INT);
	cfg.vcpus = (uint32_t)(1 + rnd(w, 3));
	cfg.block_shift = rnd(w, 4) ? 12 : 13;
	cfg.faults_max = (uint32_t)(1 + rnd(w, PARKED));
	cfg.queue_depth = (uint32_t)(1 + rnd(w, 6));
	cfg.retries_max = (uint32_t)rnd(w, 3);
	cfg.grace_ns = rnd(w, 2) ? 0 : HST_GRACE_AUTO;
	cfg.source_timeout_ns = rnd(w, 2) ? NS_NEVER : 20 * NS_PER_MS;
	source = rnd(w, 2);
	blocks = PAGES >> (cfg.block_shift - PAGE_SHIFT);
	w->native = !source && cfg.block_shift == PAGE_SHIFT;
	w->x = rig_swap_open(&cfg, PAGES, source,
			     rnd(w, 4) ? hst_blocks_min(cfg.vcpus) + rnd(w, blocks / 4) : 0);
	for (unsigned c = 0; c < cfg.vcpus; c++) {
		if (cfg.faults == HST_FAULTS_USER)
			rig_enable(w->x, c);
		else
			rig_pass(w->x, c);
		schedule(w, &w->cpus[c]);
	}
}

/* NULL, or the promise that was broken. */
static const char *episode(struct world *w, uint64_t seed)
{
	begin(w, seed);
	for (unsigned i = 0; i < STEPS && !w->broken; i++)
		step(w);
	if (!w->broken)
		live(w);
	return w->broken;
}

static void random_histories_keep_the_promises(void **state)
{
	const char *one = getenv("EVICT_SEED");
	uint64_t first = one ? strtoull(one, NULL, 0) : 1, checked = 0;
	struct hst_stats sum = {0}, s;
	struct world w;

	(void)state;
	for (uint64_t seed = first; seed < (one ? first + 1 : EPISODES + 1); seed++) {
		const char *what = episode(&w, seed);

		if (what)
			fail_msg("EVICT_SEED=%llu: %s", (unsigned long long)seed, what);
		hst_stats_sum(&w.x->h, &s);
		sum.evicted += s.evicted;
		sum.rescued += s.rescued;
		sum.refaulted += s.refaulted;
		sum.swapped += s.swapped;
		sum.offered += s.offered;
		sum.discarded += s.discarded;
		sum.vmm_touches += s.vmm_touches;
		checked += w.checked;
		rig_free(w.x);
	}
	print_message("pages looked at %llu, evicted %llu, written out %llu, rescued %llu, "
		      "fetched again %llu, offered %llu, discarded %llu, touches of the VMM %llu\n",
		      (unsigned long long)checked,
		      (unsigned long long)sum.evicted, (unsigned long long)sum.swapped,
		      (unsigned long long)sum.rescued, (unsigned long long)sum.refaulted,
		      (unsigned long long)sum.offered, (unsigned long long)sum.discarded,
		      (unsigned long long)sum.vmm_touches);
	/* A walk on which nothing is taken away proves nothing. */
	assert_true(one || (sum.evicted > EPISODES && sum.rescued > EPISODES &&
			    sum.refaulted > EPISODES && sum.swapped > EPISODES &&
			    sum.offered > EPISODES && sum.discarded > EPISODES &&
			    sum.vmm_touches > EPISODES));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_histories_keep_the_promises),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
