/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot of the running VM, and another VM from it. What comes next is decided by the shipped
 * plan (vmm/snap/snap_plan.h); here its steps are made, as machine_snap.c makes them, one event at
 * a time among all others'. A snapshot that was made holds what memory held at its moment, page by
 * page; a VM that is restored from it goes on from there, with its memory alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sim/world.h"

/* Nobody tells when there is room for another fetch. */
#define ROOM_LOOK_NS NS_PER_MS

#define PICK(w, ...) ((const uint64_t[]){__VA_ARGS__})[sim_rnd( \
	w, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))]
#define PICK32(w, ...) ((uint32_t)PICK(w, __VA_ARGS__))

/* ---- memory ---- */

static struct sim_moment *moment_new(void)
{
	struct sim_moment *m = calloc(1, sizeof(*m));
	bool ok = m != NULL;

	for (unsigned i = 0; ok && i < SIM_VCPUS_MAX; i++) {
		m->stacks[i] = malloc(SIM_COROUTINE_STACK_BYTES);
		ok = m->stacks[i] != NULL;
	}
	return m;
}

static void moment_free(struct sim_moment *m)
{
	for (unsigned i = 0; m && i < SIM_VCPUS_MAX; i++)
		free(m->stacks[i]);
	free(m);
}

bool sim_snap_alloc(struct sim *w)
{
	w->snap.cut = moment_new();
	w->snap.made = moment_new();
	return w->snap.cut && w->snap.cut->stacks[SIM_VCPUS_MAX - 1] && w->snap.made &&
	       w->snap.made->stacks[SIM_VCPUS_MAX - 1];
}

void sim_snap_free(struct sim *w)
{
	moment_free(w->snap.cut);
	moment_free(w->snap.made);
}

void sim_snap_init(struct sim *w)
{
	struct sim_moment *cut = w->snap.cut, *made = w->snap.made;

	w->snap = (struct sim_snap){.t.due_ns = w->now_ns, .cut = cut, .made = made};
	/* All pages that are used lie behind the hole of a machine that has nothing below it. */
	w->snap.map.high_gpa = SIM_GPA + (SIM_PAGE_FIRST << PAGE_SHIFT);
	w->snap.map.pages = SIM_USED_PAGES;
	w->snap.map.bits = w->snap.marks;
}

/* ---- who writes ---- */

void sim_snap_log(struct sim *w, uint32_t page)
{
	uint32_t at = page - (uint32_t)SIM_PAGE_FIRST;

	if (w->snap.logs && at < SIM_USED_PAGES)
		w->snap.logged[at / SNAP_WORD_PAGES] |= 1ull << at % SNAP_WORD_PAGES;
}

void sim_snap_mark(struct sim *w, gpa_t gpa, uint64_t bytes)
{
	if (gpa.v >= w->snap.map.high_gpa)
		dirty_map_mark(&w->snap.map, gpa.v, bytes);
}

static void note(struct sim *w)
{
	struct sim_snap *s = &w->snap;

	if (!s->logs)
		memset(s->logged, 0, sizeof(s->logged));
	s->logs = true;
	atomic_store(&s->map.on, true);
}

static void note_no_more(struct sim_snap *s)
{
	s->logs = false;
	atomic_store(&s->map.on, false);
	for (unsigned i = 0; i < SIM_MAP_WORDS; i++) {
		atomic_store(&s->marks[i], 0);
		s->since[i] = 0;
	}
	s->has_base = false;
}

/* KVM's log may not be had behind the marks, which are taken by then. */
static int look(struct sim *w)
{
	struct sim_snap *s = &w->snap;

	dirty_map_take(&s->map, s->found);
	if (sim_has(w, SIM_FAULT_SNAPSHOT) && sim_chance(w, 32))
		return -EIO;
	for (unsigned i = 0; i < SIM_MAP_WORDS; i++) {
		s->found[i] |= s->logged[i];
		s->logged[i] = 0;
	}
	return 0;
}

/* ---- coming to rest ---- */

static bool all_stand(const struct sim *w)
{
	for (unsigned i = 0; i < w->cfg.vcpus; i++)
		if (w->vcpus[i].th != SIM_TH_STOPPED)
			return false;
	return true;
}

static void vcpus_go_on(struct sim *w)
{
	w->job = SIM_VMM_NONE;
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		w->vcpus[i].vmm_keeps = false;
		if (w->vcpus[i].th == SIM_TH_STOPPED)
			w->vcpus[i].th = SIM_TH_STEP;
	}
}

/* No device has a request in hand. */
static bool devices_idle(const struct sim *w)
{
	for (unsigned i = 0; i < w->cfg.writers; i++)
		if (w->writers[i].wants)
			return false;
	return !w->discard.t.on && !w->holder.t.on && !w->device.waiting && !w->device.ready;
}

static bool may_stand(const struct sim *w)
{
	const struct sim_snap *s = &w->snap;

	if (!s->begun)
		return w->job == SIM_VMM_NONE;
	if (s->holds)
		return devices_idle(w);
	return all_stand(w) || s->rest_ns <= w->now_ns;
}

/* vCPUs only; true: it is over. */
static bool stand(struct sim *w, int *rc)
{
	struct sim_snap *s = &w->snap;

	if (!s->begun) {
		s->begun = true;
		s->rest_ns = w->now_ns + s->step.limit_ns;
		sim_vmm_want(w, SIM_VMM_STAND, 0);
		return false;
	}
	if (all_stand(w))
		return true;
	vcpus_go_on(w);
	*rc = -EBUSY;
	return true;
}

static bool stop(struct sim *w, int *rc)
{
	struct sim_snap *s = &w->snap;

	if (!s->begun && w->host->hst.trouble_told) {
		*rc = -EBUSY;
		return true;
	}
	if (!s->holds) {
		if (!stand(w, rc))
			return false;
		s->holds = *rc == 0;
		return *rc < 0;
	}
	s->moment = true;
	sim_chk_enter(w);
	hst_pause(&w->host->hst);
	sim_chk_leave(w);
	return true;
}

static void resume(struct sim *w)
{
	struct sim_snap *s = &w->snap;

	s->moment = false;
	s->holds = false;
	if (!w->paused)
		s->t.pumping = sim_vmm_resume(w, &s->t.pump);
	vcpus_go_on(w);
}

/* ---- the moment ---- */

/* In the memory of a clock, that its vCPU does not run. */
static void kvm_notes(struct sim *w)
{
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct sim_vcpu *v = &w->vcpus[i];
		uint32_t page;

		if (v->clock_there && (v->kvm_clock & 1) && sim_chance(w, 2) &&
		    sim_gpa_page(w, (gpa_t){v->kvm_clock & ~1ull}, &page) &&
		    w->host->visible[page])
			sim_page_access(w, page, true, SIM_BY_GUEST);
	}
}

static void save(struct sim *w)
{
	struct sim_moment *m = w->snap.cut;

	kvm_notes(w);
	sim_vcpus_save(w, w->host, m->saved);
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		m->vcpus[i] = w->vcpus[i];
		sim_coroutine_save(&w->vcpus[i].co, m->stacks[i]);
	}
	m->table = w->table;
	memcpy(m->nodes, w->nodes, sizeof(m->nodes));
	memcpy(m->expect, w->expect + SIM_PAGE_FIRST, sizeof(m->expect));
	memcpy(m->areas, w->areas_expect, sizeof(m->areas));
}

/* ---- copying ---- */

static uint32_t page_of(const struct sim_snap *s)
{
	return (uint32_t)(SIM_PAGE_FIRST + s->step.run.page) + s->page;
}

static bool is_copying(const struct sim_snap *s)
{
	return s->step.todo == SNAP_TODO_COPY || s->step.todo == SNAP_TODO_KEEP;
}

/* Nobody mends it before we are done. */
static bool is_stuck(const struct sim *w)
{
	return w->snap.step.stopped && w->host->hst.trouble_told;
}

/* Whole blocks that are known to be zeroes are not read. */
static bool is_zeroes(struct sim *w)
{
	const struct snap_step *s = &w->snap.step;
	uint32_t per = 1u << (w->cfg.block_shift - PAGE_SHIFT), blocks;
	unsigned char map[SIM_USED_PAGES];
	struct err e;

	if (!s->fresh || s->run.page % per || s->run.pages % per)
		return false;
	blocks = (uint32_t)s->run.pages / per;
	if (hst_residency(&w->host->hst, sim_roff((uint32_t)(SIM_PAGE_FIRST + s->run.page)),
			  s->run.pages << PAGE_SHIFT, map, &e) < 0)
		return false;
	for (uint32_t i = 0; i < blocks; i++)
		if (!(map[i] & HST_BLOCK_ZEROES))
			return false;
	return true;
}

/* The step's page at hand: one of its numbers, or both. */
static void take(struct sim *w, bool first, bool last)
{
	struct sim_snap *s = &w->snap;
	bool keeps = s->step.todo == SNAP_TODO_KEEP;
	struct sim_memory *to = keeps ? &s->store : &s->file;
	uint32_t page = page_of(s), at = page - (uint32_t)SIM_PAGE_FIRST;
	const unsigned char *from = w->host->alias + ((uint64_t)page << PAGE_SHIFT);

	/* What is kept lies one behind the other. */
	if (keeps)
		at = (uint32_t)s->step.kept + s->page;
	if (first) {
		memcpy(&to->first[at], from + 64u * SIM_VCPUS_MAX, sizeof(to->first[at]));
		if (page == w->vcpus[0].area_page)
			memcpy(to->areas, from, sizeof(to->areas));
	}
	if (last)
		memcpy(&to->last[at], from + PAGE_BYTES - sizeof(to->last[at]),
		       sizeof(to->last[at]));
	sim_log_add(w->log, w->now_ns, SIM_OP_SNAP_PAGE, SIM_LOG_NOBODY, page, to->first[at]);
}

static void give_up_waiting(struct sim_snap *s)
{
	hst_forget(&s->t.waiter);
	s->t.waiting = false;
	s->t.ready = false;
}

/* A page, or the half of one, is copied; or is waited for. True: the next one can follow. */
static bool copy_page(struct sim *w)
{
	struct sim_snap *s = &w->snap;
	roff_t off = sim_roff(page_of(s));

	if (!hst_ensure_room(&w->host->hst, off)) {
		s->t.due_ns = w->now_ns + ROOM_LOOK_NS;
		return false;
	}
	if (!sim_giver_is_there(w, &s->t, off))
		return false;
	sim_chk_host_access(w, sim_page(off));
	s->half = sim_chance(w, 8) && hst_hold(&w->host->hst, off);
	take(w, true, !s->half);
	s->page += !s->half;
	return !s->half && s->page < s->step.run.pages;
}

static void copy_some(struct sim *w)
{
	struct sim_snap *s = &w->snap;

	s->t.ready = false;
	sim_chk_enter(w);
	while (copy_page(w) && !sim_chance(w, 8))
		;
	sim_chk_leave(w);
	s->t.pumping = !sim_pump_step(w, &s->t.pump);
}

static void copy_rest(struct sim *w)
{
	struct sim_snap *s = &w->snap;

	take(w, false, true);
	sim_chk_enter(w);
	hst_release(&w->host->hst, sim_roff(page_of(s)));
	sim_chk_leave(w);
	s->half = false;
	s->page++;
}

static bool copy(struct sim *w, int *rc)
{
	struct sim_snap *s = &w->snap;

	if (!s->begun) {
		s->begun = true;
		s->page = 0;
		if (sim_has(w, SIM_FAULT_SNAPSHOT) && sim_chance(w, 24))
			*rc = -ENOSPC;
		return *rc < 0 || is_zeroes(w);
	}
	if (s->half) {
		copy_rest(w);
	} else if (s->step.until_ns <= w->now_ns || is_stuck(w)) {
		*rc = is_stuck(w) ? -EBUSY : -ETIME;
		give_up_waiting(s);
		return true;
	} else {
		copy_some(w);
	}
	return s->page == s->step.run.pages;
}

static void page_from(const struct sim *w, struct sim_memory *to, uint32_t at,
		      const struct sim_memory *from, uint32_t from_at)
{
	to->first[at] = from->first[from_at];
	to->last[at] = from->last[from_at];
	if (SIM_PAGE_FIRST + at == w->vcpus[0].area_page)
		memcpy(to->areas, from->areas, sizeof(to->areas));
}

static int put(struct sim *w)
{
	struct sim_snap *s = &w->snap;
	uint32_t at = (uint32_t)s->step.run.page, kept = (uint32_t)s->step.kept;

	for (uint32_t i = 0; i < s->step.run.pages; i++)
		page_from(w, &s->file, at + i, &s->store, kept + i);
	return sim_has(w, SIM_FAULT_SNAPSHOT) && sim_chance(w, 16) ? -ENOSPC : 0;
}

/* ---- the end ---- */

static bool is_in_it(const struct sim_snap *s, uint32_t at)
{
	return !s->plan.cfg.changes ||
	       (s->in_it[at / SNAP_WORD_PAGES] >> at % SNAP_WORD_PAGES & 1);
}

/* The newest that has the page: the file, or what it builds upon. */
static void lay_over(struct sim *w)
{
	struct sim_snap *s = &w->snap;

	for (uint32_t at = 0; at < SIM_USED_PAGES; at++)
		if (is_in_it(s, at))
			page_from(w, &s->memory, at, &s->file, at);
}

/* A store that waited for its page may be made by then, and is made again by who is restored. */
static bool is_store(const struct sim *w, uint32_t page, uint64_t value)
{
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		const struct sim_vcpu *v = &w->snap.cut->vcpus[i];

		if (v->io_pending && v->io_write && v->io_page == page &&
		    memcmp(v->io_data, &value, sizeof(value)) == 0)
			return true;
	}
	return false;
}

static void check(struct sim *w)
{
	const struct sim_snap *s = &w->snap;

	for (uint32_t at = 0; at < SIM_USED_PAGES; at++) {
		uint64_t first = s->memory.first[at];
		uint64_t got = first == s->memory.last[at] ? first : SIM_TORN;
		uint32_t page = (uint32_t)SIM_PAGE_FIRST + at;

		if (got != s->cut->expect[at] && !is_store(w, page, got))
			sim_broken(w, 0, "a snapshot's page is not what it was at its moment",
				   page, got);
	}
	if (memcmp(s->memory.areas, s->cut->areas, sizeof(s->memory.areas)) != 0)
		sim_broken(w, 41, "a snapshot has another area than there was", 0, 0);
}

static void made(struct sim *w)
{
	struct sim_snap *s = &w->snap;
	struct sim_moment *before = s->made;

	snap_plan_made(&s->plan);
	lay_over(w);
	check(w);
	s->made = s->cut;
	s->cut = before;
	s->has_one = s->has_base = true;
	w->counts.snapshots++;
	/* The last one of a run has no other time. */
	if (w->fair && sim_chance(w, 2))
		sim_vmm_want(w, SIM_VMM_RESTORE, 0);
}

static void over(struct sim *w)
{
	struct sim_snap *s = &w->snap;

	s->t.on = false;
	s->t.due_ns = w->now_ns + sim_rnd(w, 4 * w->cfg.director_ns);
	/* All but memory is written last. */
	if (s->step.rc == 0 && sim_has(w, SIM_FAULT_SNAPSHOT) && sim_chance(w, 16))
		s->step.rc = -ENOSPC;
	if (s->step.rc == 0) {
		made(w);
		return;
	}
	w->counts.given_up++;
	/* It is tried again. */
	s->t.due_ns = w->now_ns;
	if (!s->has_base)
		note_no_more(s);
}

/* ---- the thread ---- */

static void next(struct sim *w, int rc)
{
	struct sim_snap *s = &w->snap;
	enum snap_todo was = s->step.todo;

	snap_plan_next(&s->plan, rc, w->now_ns, &s->step);
	s->begun = false;
	sim_log_add(w->log, w->now_ns, SIM_OP_SNAP, SIM_LOG_NOBODY, s->step.todo,
		    (uint64_t)(int64_t)rc);
	w->counts.tries_again += (was == SNAP_TODO_RESUME || was == SNAP_TODO_STOP) &&
				 (s->step.todo == SNAP_TODO_COPY || s->step.todo == SNAP_TODO_LOOK);
	if (s->step.todo == SNAP_TODO_END)
		over(w);
}

/* A snapshot, or what the last one is for. */
static void begin(struct sim *w)
{
	struct sim_snap *s = &w->snap;
	const struct snap_plan_cfg cfg = {
		.rules = {
			.piece_pages = PICK32(w, 3, 16, SIM_USED_PAGES),
			.cut_pages = PICK32(w, 1, 4, 16),
			.cuts_max = PICK32(w, 1, 2, 4),
			.passes_max = PICK32(w, 2, 8),
			.cut_ns = PICK(w, 100 * NS_PER_US, 2 * NS_PER_MS, 40 * NS_PER_MS),
			.rest_ns = 10 * NS_PER_S,
			.turn_ns = PICK(w, 50 * NS_PER_US, NS_PER_MS),
		},
		.pages = SIM_USED_PAGES,
		.keep_running = !sim_chance(w, 4),
		.changes = s->has_base && sim_chance(w, 2),
		.pending = s->pending,
		.kept = s->kept,
		.found = s->found,
		.since = s->since,
	};

	s->t.due_ns = w->now_ns + sim_rnd(w, 4 * w->cfg.director_ns);
	if (s->has_one && s->step.rc == 0 && sim_chance(w, 3)) {
		sim_vmm_want(w, SIM_VMM_RESTORE, 0);
		return;
	}
	s->t.on = true;
	s->t.due_ns = w->now_ns;
	memset(s->kept, 0, sizeof(s->kept));
	memset(s->found, 0, sizeof(s->found));
	s->file = (struct sim_memory){.first = {0}};
	s->step.todo = SNAP_TODO_END;
	snap_plan_init(&s->plan, &cfg);
	next(w, 0);
}

bool sim_snap_runnable(const struct sim *w)
{
	const struct sim_snap *s = &w->snap;

	if (s->t.pumping || s->t.ready)
		return true;
	if (!s->t.on)
		return sim_has(w, SIM_FAULT_SNAPSHOT) && w->job == SIM_VMM_NONE &&
		       s->t.due_ns <= w->now_ns;
	switch (s->step.todo) {
	case SNAP_TODO_STOP:
	case SNAP_TODO_SLOW:
		return may_stand(w);
	case SNAP_TODO_NOTE:
	case SNAP_TODO_LOOK:
		return !s->begun || devices_idle(w);
	default:
		break;
	}
	if (s->t.waiting)
		return s->step.until_ns <= w->now_ns || is_stuck(w);
	return s->t.due_ns <= w->now_ns;
}

static bool make_step(struct sim *w, int *rc)
{
	struct sim_snap *s = &w->snap;

	switch (s->step.todo) {
	case SNAP_TODO_NOTE:
	case SNAP_TODO_LOOK:
		/* Devices are held: what was marked before they write is written by then. */
		if (!s->begun) {
			s->begun = s->holds = true;
			return false;
		}
		if (s->step.todo == SNAP_TODO_NOTE)
			note(w);
		else
			*rc = look(w);
		s->holds = s->moment;
		break;
	case SNAP_TODO_COPY:
	case SNAP_TODO_KEEP:
		return copy(w, rc);
	case SNAP_TODO_SLOW:
		return stand(w, rc);
	case SNAP_TODO_GO:
		vcpus_go_on(w);
		break;
	case SNAP_TODO_STOP:
		return stop(w, rc);
	case SNAP_TODO_STATE:
		save(w);
		break;
	case SNAP_TODO_PAGES:
		memcpy(s->in_it, s->since, sizeof(s->in_it));
		break;
	case SNAP_TODO_RESUME:
		resume(w);
		break;
	case SNAP_TODO_PUT:
		*rc = put(w);
		break;
	case SNAP_TODO_END:
		break;
	}
	return true;
}

void sim_snap_step(struct sim *w)
{
	struct sim_snap *s = &w->snap;
	int rc = 0;

	if (sim_giver_pumps(w, &s->t))
		return;
	if (!s->t.on)
		begin(w);
	else if (make_step(w, &rc))
		next(w, rc);
}

uint64_t sim_snap_next_ns(const struct sim *w)
{
	const struct sim_snap *s = &w->snap;
	const uint64_t all[] = {
		s->t.due_ns,
		is_copying(s) ? s->step.until_ns : NS_NEVER,
		s->begun && !is_copying(s) ? s->rest_ns : NS_NEVER,
	};
	uint64_t next_ns = NS_NEVER;

	if (!s->t.on)
		return sim_has(w, SIM_FAULT_SNAPSHOT) && s->t.due_ns > w->now_ns ? s->t.due_ns
										 : NS_NEVER;
	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		if (all[i] > w->now_ns)
			next_ns = min_u64(next_ns, all[i]);
	return next_ns;
}

void sim_snap_leave(struct sim *w)
{
	struct sim_snap *s = &w->snap;

	if (s->half)
		hst_release(&w->host->hst, sim_roff(page_of(s)));
	hst_forget(&s->t.waiter);
	s->t = (struct sim_giver){.due_ns = w->now_ns};
	s->begun = s->half = s->holds = s->moment = false;
	note_no_more(s);
}

/* ---- restoring ---- */

/* Whoever restores it chooses them anew. */
static void other_settings(struct sim *w)
{
	struct sim_cfg *c = &w->cfg;

	c->block_shift = PICK32(w, 12, 12, 13, 14);
	c->queue_depth = PICK32(w, 1, 4, SIM_QUEUE_MAX);
	c->retries_max = PICK32(w, 0, 1, 3);
	c->ahead_max = PICK32(w, 0, 8, SIM_AHEAD_MAX);
	c->grace_ns = PICK(w, 0, HST_GRACE_AUTO, 100 * NS_PER_US);
	c->resident_blocks = 0;
	if (c->evict && sim_chance(w, 2))
		c->resident_blocks = sim_resident_min(c) + PICK32(w, 1, 4, 12);
}

static void memory_of(struct sim *w, const struct sim_snap *s)
{
	for (uint32_t at = 0; at < SIM_USED_PAGES; at++) {
		w->image[SIM_PAGE_FIRST + at] = s->memory.first[at];
		w->expect[SIM_PAGE_FIRST + at] = s->memory.first[at];
	}
	memcpy(w->areas, s->memory.areas, sizeof(w->areas));
	memcpy(w->areas_expect, s->made->areas, sizeof(w->areas_expect));
	w->source_pages = SIM_PAGE_FIRST + SIM_USED_PAGES;
}

static void go_back(struct sim_vcpu *v, const struct sim_moment *m)
{
	*v = m->vcpus[v->index];
	sim_coroutine_restore(&v->co, v->co.sp, m->stacks[v->index]);
	v->vmm_signal = false;
	v->wanted = false;
	v->vmm_keeps = false;
}

void sim_snap_restore(struct sim *w, struct sim_host *to)
{
	const struct sim_snap *s = &w->snap;

	for (unsigned i = 0; i < w->cfg.vcpus; i++)
		go_back(&w->vcpus[i], s->made);
	w->table = s->made->table;
	memcpy(w->nodes, s->made->nodes, sizeof(w->nodes));
	memory_of(w, s);
	other_settings(w);
	w->host = to;
	sim_host_start(w, to);
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		sim_vcpu_arrive(&w->vcpus[i], &s->made->saved[i], SIM_WAY_WHOLE);
		if (w->fair)
			sim_faults_end_on(&w->vcpus[i]);
	}
}
