/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source that brings along what nobody has asked it for, as lib/custom.c takes it: piece by
 * piece, each copied without the lock.
 */
#include "host/block.h"
#include "sim/world.h"

#define SECTOR_BYTES 512u
#define SECTORS_PER_PAGE (PAGE_BYTES / SECTOR_BYTES)
#define OFFER_PAGES_MAX 24u

bool sim_offer_runnable(const struct sim *w)
{
	const struct sim_offer *o = &w->offer;

	if (!w->cfg.offers)
		return false;
	return o->pumping || o->on ||
	       (!w->fair && o->due_ns <= w->now_ns && w->job != SIM_VMM_MIGRATE);
}

/* Of whole pages, or as it happens. */
static void choose(struct sim *w)
{
	struct sim_offer *o = &w->offer;
	uint32_t page = sim_any_page(w), first = page;
	const struct sim_part *p = sim_part_at(w, page);
	const struct src *src = w->host->src;

	o->file = SIM_FILE_SOURCE;
	if (p) {
		o->file = SIM_FILE_PARTS + (unsigned)(p - w->plug.parts);
		src = w->host->part_src[p - w->plug.parts];
		first = page - p->page + p->file_page;
	}
	o->hst = (struct hst_offer){
		.src = src,
		.offset = sim_roff(first).v,
		.len = sim_roff((uint32_t)(1 + sim_rnd(w, OFFER_PAGES_MAX))).v,
	};
	if (sim_chance(w, 4))
		o->hst.offset += SECTOR_BYTES * (1 + sim_rnd(w, SECTORS_PER_PAGE - 1));
	if (sim_chance(w, 4))
		o->hst.len -= SECTOR_BYTES * (1 + sim_rnd(w, SECTORS_PER_PAGE - 1));
	/* A source has nothing behind its end. */
	o->on = src && o->hst.offset < src->size;
	if (o->on)
		o->hst.len = min_u64(o->hst.len, src->size - o->hst.offset);
	sim_log_add(w->log, w->now_ns, SIM_OP_OFFER, SIM_LOG_NOBODY, page, o->hst.len);
}

static void over(struct sim *w)
{
	w->offer.on = false;
	w->offer.due_ns = w->now_ns + sim_rnd(w, w->cfg.vmm_ns);
}

/* What is in memory under the blocks is nobody's yet: half a copy. */
static void take(struct sim *w)
{
	struct sim_offer *o = &w->offer;
	struct sim_host *h = w->host;
	uint32_t page = sim_alias_page(h, o->piece.to);
	uint32_t end = sim_alias_page(h, o->piece.to + o->piece.len - 1) + 1;

	if (o->piece.from > o->hst.len || o->piece.len > o->hst.len - o->piece.from)
		sim_broken(w, 0, "more is taken than was offered", o->piece.from, o->piece.len);
	sim_log_add(w->log, w->now_ns, SIM_OP_OFFERED, SIM_LOG_NOBODY, page, o->piece.len);
	sim_chk_ram(w, page, end);
	for (uint32_t p = page; p < end; p++) {
		if (h->visible[p])
			sim_broken(w, 15, "a page is copied over that the guest sees", p, 0);
		if (h->reading[p]++)
			sim_broken(w, 15, "a page is copied and read at a time", p, 0);
	}
	sim_io_fill(h, o->file, o->hst.offset + o->piece.from, o->piece.to, o->piece.len, true);
	w->counts.offered += end - page;
	o->copying = true;
}

static void copied(struct sim *w)
{
	struct sim_offer *o = &w->offer;
	struct sim_host *h = w->host;
	uint32_t page = sim_alias_page(h, o->piece.to);
	uint32_t end = sim_alias_page(h, o->piece.to + o->piece.len - 1) + 1;

	sim_io_fill(h, o->file, o->hst.offset + o->piece.from, o->piece.to, o->piece.len, false);
	for (uint32_t p = page; p < end; p++)
		h->reading[p]--;
	o->copying = false;
	sim_chk_enter(w);
	hst_offered(o->piece.fetch);
	sim_chk_leave(w);
}

static void look(struct sim *w)
{
	struct sim_offer *o = &w->offer;

	sim_chk_enter(w);
	switch (hst_offer_next(&w->host->hst, &o->hst, &o->piece)) {
	case HST_OFFER_PIECE:
		take(w);
		break;
	case HST_OFFER_MORE:
		break;
	case HST_OFFER_END:
		over(w);
		break;
	}
	sim_chk_leave(w);
}

void sim_offer_step(struct sim *w)
{
	struct sim_offer *o = &w->offer;

	if (o->pumping) {
		o->pumping = !sim_pump_step(w, &o->pump);
		return;
	}
	if (!o->on) {
		choose(w);
		if (!o->on)
			over(w);
		return;
	}
	if (o->copying)
		copied(w);
	else
		look(w);
	o->pumping = !sim_pump_step(w, &o->pump);
}
