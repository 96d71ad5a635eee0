/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that comes and goes while the VM runs: a thread of the VMM's adopts parts, with what
 * their memfd holds already and a source behind some of it, and takes them out again, as
 * lib/memory.c does it. A guest may go on to touch what has left: there is no memslot, and the VMM
 * answers. Everything of such a part must be over by then, and nothing of it is used again.
 */
#include "base/assert.h"
#include "host/block.h"
#include "sim/world.h"
#include "source/source.h"

/* What memory holds that has left: whoever writes there is found out. */
#define LEFT 0x1ef71ef71ef71ef7ull
/* A part that cannot leave yet is looked at again after that, as in lib/memory.c. */
#define LOOK_NS NS_PER_MS

/* ---- what is where ---- */

static bool has_page(const struct sim_part *p, uint32_t page)
{
	return page >= p->page && page < p->page + p->pages;
}

const struct sim_part *sim_part_at(const struct sim *w, uint32_t page)
{
	for (const struct sim_part *p = w->plug.parts; p < w->plug.parts + SIM_PARTS_MAX; p++)
		if (p->state != SIM_PART_OUT && has_page(p, page))
			return p;
	return NULL;
}

bool sim_page_left(const struct sim *w, uint32_t page)
{
	const struct sim_part *p = sim_part_at(w, page);

	return page >= SIM_RAM_PAGES && (!p || p->state != SIM_PART_IN);
}

gpa_t sim_gpa(const struct sim *w, uint32_t page)
{
	const struct sim_part *p = sim_part_at(w, page);

	if (p)
		return (gpa_t){p->gpa + sim_roff(page - p->page).v};
	ASSERT(page < SIM_RAM_PAGES);
	return (gpa_t){SIM_GPA + sim_roff(page).v};
}

bool sim_gpa_page(const struct sim *w, gpa_t gpa, uint32_t *ret)
{
	if (gpa.v - SIM_GPA < SIM_RAM_BYTES) {
		*ret = (uint32_t)((gpa.v - SIM_GPA) >> PAGE_SHIFT);
		return true;
	}
	for (const struct sim_part *p = w->plug.parts; p < w->plug.parts + SIM_PARTS_MAX; p++) {
		if (p->state == SIM_PART_OUT || gpa.v - p->gpa >= sim_roff(p->pages).v)
			continue;
		*ret = p->page + (uint32_t)((gpa.v - p->gpa) >> PAGE_SHIFT);
		return true;
	}
	return false;
}

void sim_chk_ram(struct sim *w, uint32_t from, uint32_t end)
{
	for (uint32_t p = from; p < end && end > SIM_RAM_PAGES; p++)
		if (!sim_is_ram(w, p))
			sim_broken(w, 0, "memory is used that has left", p, 0);
}

/* ---- a part comes ---- */

static uint32_t pages_per_block(const struct sim *w)
{
	return 1u << (w->cfg.block_shift - PAGE_SHIFT);
}

/* The part is in the driver's books, with its source. */
static void put(struct sim *w, struct sim_host *h, unsigned index)
{
	struct sim_part *p = &w->plug.parts[index];
	uint64_t block = 1ull << w->cfg.block_shift;
	struct err e = {.code = 0};
	roff_t off;

	ASSERT(ram_add_region(&h->hst.ram, (gpa_t){p->gpa}, sim_roff(p->pages).v, block) ==
	       RAM_ADDED);
	ASSERT(ram_find(&h->hst.ram, (gpa_t){p->gpa}, 1, &off));
	p->page = sim_page(off);
	hst_ram_added(&h->hst);
	h->part_src[index] = NULL;
	if (p->backed == 0)
		return;
	ASSERT(sim_part_source_open(w, h, index, &e) == 0);
	ASSERT(ram_add_backing(&h->hst.ram, (gpa_t){p->gpa}, sim_roff(p->backed).v,
			       h->part_src[index], sim_roff(p->file_page).v, block) == RAM_ADDED);
}

static uint64_t free_place(struct sim *w)
{
	uint64_t at = sim_rnd(w, SIM_PARTS_PLACES), gpa;
	bool used;

	do {
		gpa = SIM_PARTS_GPA + (at++ % SIM_PARTS_PLACES) * CHUNK_BYTES;
		used = false;
		for (unsigned i = 0; i < SIM_PARTS_MAX; i++)
			used |= w->plug.parts[i].state != SIM_PART_OUT &&
				w->plug.parts[i].gpa == gpa;
	} while (used);
	return gpa;
}

static void choose_part(struct sim *w, struct sim_part *p)
{
	uint32_t blocks = SIM_PART_PAGES / pages_per_block(w);

	p->gpa = free_place(w);
	p->pages = (uint32_t)(1 + sim_rnd(w, blocks)) * pages_per_block(w);
	/* What nothing is behind the kernel fills unseen, unless memory may be taken away. */
	p->backed = (uint32_t)sim_rnd(w, p->pages + 1);
	if (!w->cfg.evict)
		p->backed = p->pages;
	p->in_file = (uint32_t)sim_rnd(w, p->backed + 1);
	p->file_page = (uint32_t)sim_rnd(w, 4);
}

/* What the VMM's memfd holds: whole blocks of it count, the rest of one being zeroes. */
static void find(struct sim *w, const struct sim_part *p)
{
	struct sim_host *h = w->host;
	uint32_t per = pages_per_block(w), from, count;

	from = p->page + (uint32_t)sim_rnd(w, p->pages);
	count = (uint32_t)(1 + sim_rnd(w, min_u64(4, p->page + p->pages - from)));
	for (uint32_t i = from / per * per; i < align_up(from + count, per); i++)
		/* Of an earlier find in the same block. */
		if (block_kind(&h->hst, i / per) == BLOCK_ABSENT)
			w->expect[i] = 0;
	for (uint32_t i = from; i < from + count; i++) {
		w->expect[i] = ++w->next_value;
		sim_page_put(h, i, w->expect[i]);
		h->backed[i] = 1;
	}
	hst_ram_found(&h->hst, sim_roff(from), sim_roff(count).v);
	/* There may be more than has room: it goes before anything else comes. */
	if (h->hst.cfg.resident_max && h->hst.evict.resident > h->hst.evict.limit)
		h->over = h->hst.evict.resident;
}

/* A guest that did not care still names memory there. */
static void clocks_come(struct sim *w, const struct sim_part *p)
{
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct sim_vcpu *v = &w->vcpus[i];
		uint64_t gpa = v->kvm_clock & ~1ull;

		if (gpa < p->gpa || gpa >= p->gpa + sim_roff(p->pages).v)
			continue;
		v->clock_left = false;
		v->clock_there = false;
	}
}

static void adopt(struct sim *w, unsigned index)
{
	struct sim_part *p = &w->plug.parts[index];

	choose_part(w, p);
	sim_chk_enter(w);
	put(w, w->host, index);
	clocks_come(w, p);
	p->state = SIM_PART_IN;
	sim_mem_part(w->host, p, 0);
	for (uint32_t i = 0; i < p->pages; i++) {
		w->image[p->page + i] = i < p->in_file ? ++w->next_value : 0;
		w->expect[p->page + i] = w->image[p->page + i];
	}
	for (uint64_t n = sim_rnd(w, 3); n > 0; n--)
		find(w, p);
	if (sim_chance(w, 2))
		w->vcpus[sim_rnd(w, w->cfg.vcpus)].wishes |= SIM_WISH_CLOCK;
	sim_chk_leave(w);
	w->counts.adopted++;
	sim_log_add(w->log, w->now_ns, SIM_OP_ADOPT, SIM_LOG_NOBODY, p->page,
		    sim_roff(p->pages).v);
}

/* ---- some of it is pinned ---- */

static void pin(struct sim *w)
{
	struct sim_plug *g = &w->plug;
	roff_t off = sim_roff(g->pin);

	sim_chk_enter(w);
	if (sim_giver_is_there(w, &g->d.t, off)) {
		uint32_t per = pages_per_block(w), first = g->pin & ~(per - 1);
		bool pinned = hst_pin(&w->host->hst, off);

		for (uint32_t p = first; p < first + per; p++)
			w->host->pinned[p] |= pinned;
		g->pins = false;
		sim_giver_over(w, &g->d.t);
	}
	sim_chk_leave(w);
	g->d.t.pumping = !sim_pump_step(w, &g->d.t.pump);
}

/* ---- a part leaves ---- */

/* The guest gives it up, as far as nobody is in the middle of something; or does not care. */
static void take_offline(struct sim *w, const struct sim_part *p)
{
	for (unsigned c = 0; c < w->cfg.vcpus && !w->cfg.rude; c++) {
		struct sim_vcpu *v = &w->vcpus[c];

		for (unsigned i = 0; i < w->cfg.tasks; i++)
			if (v->tasks[i].state == SIM_TASK_READY && has_page(p, v->tasks[i].page))
				v->tasks[i].page = SIM_PAGE_FIRST;
		v->wishes |= has_page(p, v->clock_page) ? SIM_WISH_CLOCK : 0;
	}
}

/*
 * KVM takes a memslot away when nobody is in it any more, and a VMM has no device or thread at work
 * there. A device that has it pinned is another matter: the driver refuses.
 */
static bool in_use(const struct sim *w, const struct sim_part *p)
{
	const struct sim_device *d = &w->device;
	const struct sim_holder *x = &w->holder;
	const struct hst_discard *b = &w->discard.hst;
	uint32_t per = pages_per_block(w);

	for (unsigned c = 0; c < w->cfg.vcpus; c++)
		if (w->vcpus[c].kernel_wait && has_page(p, w->vcpus[c].kernel_page))
			return true;
	for (unsigned i = 0; i < w->cfg.writers; i++)
		if (w->writers[i].wants && has_page(p, w->writers[i].page))
			return true;
	if ((d->waiting || d->ready) && has_page(p, d->page))
		return true;
	if (x->t.on && !x->holds && has_page(p, x->page))
		return true;
	/* A range is within one part. */
	return w->discard.t.on && b->end > 0 && has_page(p, (b->end - 1) * per);
}

static bool is_held(const struct sim *w, const struct sim_part *p)
{
	for (uint32_t i = p->page; i < p->page + p->pages; i++)
		if (w->host->held[i])
			return true;
	return false;
}

/* Asked whether the part may leave, the driver has said so. */
static void told(struct sim *w, const struct sim_part *p, bool leaves)
{
	struct sim_host *h = w->host;

	if (leaves == is_held(w, p))
		sim_broken(w, 0, leaves ? "memory leaves that a device writes to"
					: "memory may not leave, and nobody holds it",
			   p->page, 0);
	w->counts.kept_back += !leaves;
	for (uint32_t i = p->page; i < p->page + p->pages; i++) {
		bool pinned = block_is(&h->hst, block_of(&h->hst, sim_roff(i)), BLOCK_PINNED);

		if (leaves)
			h->pinned[i] = 0;
		if (pinned != h->pinned[i])
			sim_broken(w, 0, "what is pinned of a part", i, leaves);
	}
}

/* ---- it has left ---- */

static bool is_of(const struct sim *w, const struct sim_part *p, uint32_t block)
{
	return has_page(p, block * pages_per_block(w));
}

static const char *vcpu_uses(const struct sim *w, const struct sim_part *p, unsigned index)
{
	const struct hst_vcpu *v = &w->host->hst.vcpus[index];
	const struct eng_vcpu *e = &v->eng;

	for (unsigned k = 0; k < HST_KEPT; k++)
		if (v->kept[k] != BLOCK_NONE && is_of(w, p, v->kept[k]))
			return "a vCPU keeps memory that has left";
	for (uint32_t i = 0; i < v->store_count; i++)
		if (has_page(p, sim_page(v->stores[i].off)))
			return "a store waits for memory that has left";
	for (uint32_t i = e->issue_head; i != ENG_NIL; i = e->faults[i].next)
		if (v->tokens[i].fetch && is_of(w, p, v->tokens[i].fetch->block))
			return "a token waits for memory that has left";
	return v->sync.fetch && is_of(w, p, v->sync.fetch->block)
		       ? "a vCPU waits for memory that has left"
		       : NULL;
}

static const char *driver_uses(const struct sim *w, const struct sim_part *p)
{
	const struct hst *h = &w->host->hst;
	uint32_t first = p->page / pages_per_block(w);

	for (uint32_t b = first; b < first + p->pages / pages_per_block(w); b++)
		if (h->blocks[b] != 0 || h->evict.keeps[b] != 0)
			return "a block that has left is not forgotten";
	if (h->chunk_poisoned[sim_roff(p->page).v >> CHUNK_SHIFT])
		return "a chunk that has left counts as poisoned";
	for (uint32_t i = 0; i < h->fetch_count; i++)
		if (h->fetches[i].state != HST_FETCH_FREE && is_of(w, p, h->fetches[i].block))
			return "memory that has left is being fetched";
	for (unsigned i = 0; i < HST_LISTS && h->evict.links; i++)
		for (uint32_t b = h->evict.lists[i].head; b != BLOCK_NONE;
		     b = h->evict.links[b].next)
			if (is_of(w, p, b))
				return "memory that has left may be evicted";
	for (unsigned i = 0; i < h->evict.write_count; i++)
		if (h->evict.writes[i].state != HST_WRITE_FREE &&
		    is_of(w, p, h->evict.writes[i].block))
			return "memory that has left is being written out";
	for (uint32_t i = p->page; i < p->page + p->pages; i++)
		if (w->host->reading[i])
			return "memory that has left is being read into";
	return NULL;
}

static void close_source(struct sim *w, struct sim_host *h, unsigned index)
{
	src_close(h->part_src[index]);
	h->part_src[index] = NULL;
	if (w->offer.on && w->offer.file == SIM_FILE_PARTS + index)
		w->offer.on = false;
}

/* Nobody in the driver knows of it any more. */
static void removed(struct sim *w, unsigned index)
{
	struct sim_part *p = &w->plug.parts[index];
	const char *what = driver_uses(w, p);

	for (unsigned i = 0; i < w->cfg.vcpus && !what; i++)
		what = vcpu_uses(w, p, i);
	/* Without the lock, over all RAM. */
	if (!what && w->host->evict.evicting.working && !w->host->evict.worked)
		what = "memory leaves that the evicting thread looks at";
	if (what)
		sim_broken(w, 0, what, p->page, p->pages);
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct sim_vcpu *v = &w->vcpus[i];
		uint32_t page;

		v->io_left |= v->io_pending && has_page(p, v->io_page);
		v->clock_left |= sim_gpa_page(w, (gpa_t){v->kvm_clock & ~1ull}, &page) &&
				 has_page(p, page);
	}
	sim_mem_part(w->host, p, LEFT);
	p->state = SIM_PART_OUT;
	close_source(w, w->host, index);
	w->counts.removed++;
}

/* Between two parts at the same place, and at the end. */
static void untouched(struct sim *w, struct sim_host *h)
{
	for (uint32_t i = SIM_RAM_PAGES; i < sim_pages(w); i++)
		if (i % (SIM_RAM_PAGES / 2) < SIM_PART_PAGES && !sim_part_at(w, i) &&
		    sim_page_get(h, i) != LEFT)
			sim_broken(w, 0, "memory that has left is written to", i,
				   sim_page_get(h, i));
}

/* With the lock held from the last of the discard on, as in lib/memory.c. */
static bool try_to_remove(struct sim *w)
{
	struct sim_plug *g = &w->plug;
	struct sim_part *p = &g->parts[g->index];
	bool left = hst_ram_remove(&w->host->hst, (gpa_t){p->gpa});

	sim_log_add(w->log, w->now_ns, SIM_OP_REMOVED, SIM_LOG_NOBODY, p->page, left);
	if (left)
		removed(w, g->index);
	return left;
}

static void go_on(struct sim *w)
{
	struct sim_plug *g = &w->plug;
	struct sim_part *p = &g->parts[g->index];
	enum hst_discarding next = HST_DISCARD_DONE;
	bool left = false;

	sim_chk_enter(w);
	if (!g->leaves) {
		g->leaves = hst_ram_leave(&w->host->hst, (gpa_t){p->gpa}, &g->d.hst);
		told(w, p, g->leaves);
	}
	if (g->leaves) {
		next = sim_discard_go_on(w, &g->d);
		if (next == HST_DISCARD_DONE && g->d.hst.why.code == 0)
			left = try_to_remove(w);
	}
	sim_chk_leave(w);
	if (next == HST_DISCARD_DONE) {
		g->leaves = false;
		sim_giver_over(w, &g->d.t);
		g->d.t.on = !left;
		if (!left)
			g->d.t.due_ns = w->now_ns + LOOK_NS;
	}
	g->d.t.pumping = !sim_pump_step(w, &g->d.t.pump);
}

/* ---- the thread ---- */

bool sim_plug_runnable(const struct sim *w)
{
	return w->cfg.parts && (w->plug.d.working || sim_giver_runnable(w, &w->plug.d.t));
}

static void begin(struct sim *w)
{
	struct sim_plug *g = &w->plug;
	struct sim_part *p;

	g->index = (unsigned)sim_rnd(w, SIM_PARTS_MAX);
	p = &g->parts[g->index];
	if (p->state == SIM_PART_OUT) {
		untouched(w, w->host);
		adopt(w, g->index);
		g->pins = sim_chance(w, 4);
		g->pin = p->page + (uint32_t)sim_rnd(w, p->pages);
		g->d.t.on = g->pins;
		if (!g->pins)
			sim_giver_over(w, &g->d.t);
		g->d.t.pumping = !sim_pump_step(w, &g->d.t.pump);
		return;
	}
	take_offline(w, p);
	/* A VMM that takes care has its VM stand still. */
	if (sim_chance(w, 4))
		sim_pause_vm(w);
	p->state = SIM_PART_LEAVES;
	g->d.t.on = true;
	sim_log_add(w->log, w->now_ns, SIM_OP_LEAVE, SIM_LOG_NOBODY, p->page, 0);
}

void sim_plug_step(struct sim *w)
{
	struct sim_plug *g = &w->plug;

	if (sim_giver_pumps(w, &g->d.t))
		return;
	if (g->d.working && !g->d.worked) {
		sim_discard_work(w, &g->d);
		return;
	}
	if (!g->d.t.on) {
		begin(w);
		return;
	}
	g->d.t.ready = false;
	g->d.t.waiting = false;
	if (g->pins)
		pin(w);
	else if (in_use(w, &g->parts[g->index]))
		g->d.t.due_ns = w->now_ns + LOOK_NS;
	else
		go_on(w);
}

/* ---- hosts ---- */

void sim_parts_save(struct sim *w)
{
	for (struct sim_part *p = w->plug.parts; p < w->plug.parts + SIM_PARTS_MAX; p++) {
		if (p->state == SIM_PART_OUT)
			continue;
		/* A source that has all of it is behind it there. */
		p->backed = p->in_file = p->pages;
		for (uint32_t i = p->page; i < p->page + p->pages; i++)
			w->image[i] = w->expect[i];
	}
}

/* Parts keep their RAM offsets: the page of a task is one. */
void sim_parts_start(struct sim *w, struct sim_host *h)
{
	const gpa_t nowhere = {1ull << 40};
	bool gap = false;

	if (!w->cfg.parts)
		return;
	for (uint32_t at = SIM_RAM_PAGES; at < SIM_SPAN_PAGES; at += CHUNK_BYTES >> PAGE_SHIFT) {
		unsigned i = 0;

		for (uint32_t k = 0; k < SIM_PART_PAGES; k++)
			sim_page_put(h, at + k, LEFT);
		while (i < SIM_PARTS_MAX && (w->plug.parts[i].state == SIM_PART_OUT ||
					     w->plug.parts[i].page != at))
			i++;
		if (i < SIM_PARTS_MAX) {
			put(w, h, i);
			sim_mem_part(h, &w->plug.parts[i], 0);
		} else if (!gap) {
			gap = true;
			ASSERT(ram_add_region(&h->hst.ram, nowhere, CHUNK_BYTES, CHUNK_BYTES) ==
			       RAM_ADDED);
		}
	}
	if (gap)
		ASSERT(ram_remove_region(&h->hst.ram, nowhere));
}

void sim_parts_stop(struct sim *w, struct sim_host *h)
{
	untouched(w, h);
	for (unsigned i = 0; i < SIM_PARTS_MAX; i++) {
		/* One that was about to leave stays: the next host has its memslot again. */
		if (w->plug.parts[i].state == SIM_PART_LEAVES)
			w->plug.parts[i].state = SIM_PART_IN;
		if (w->plug.parts[i].state == SIM_PART_IN)
			close_source(w, h, i);
	}
}
