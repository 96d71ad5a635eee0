/* SPDX-License-Identifier: Apache-2.0 */
/* See host_sound.h. */
#include "host/fetch.h"
#include "host_sound.h"

/* ---- taking memory away ---- */

enum hst_list_id rig_list_of(const struct hst *h, uint32_t b)
{
	bool written = block_is(h, b, BLOCK_WRITTEN), writing = block_is(h, b, BLOCK_WRITING);

	if (block_is(h, b, BLOCK_PINNED) || block_is(h, b, BLOCK_KEPT))
		return HST_LISTS;
	if (block_kind(h, b) == BLOCK_STANDBY)
		return writing ? HST_LIST_WRITING : written ? HST_LIST_DIRTY : HST_LIST_CLEAN;
	if (block_kind(h, b) != BLOCK_PRESENT || writing)
		return HST_LISTS;
	return block_is(h, b, BLOCK_KERNEL) ? HST_LIST_KERNEL : HST_LIST_USER;
}

const char *rig_lists_broken(const struct hst *h)
{
	uint32_t want[HST_LISTS + 1] = {0};

	for (uint32_t b = 0; b < h->block_count; b++)
		want[rig_list_of(h, b)]++;
	for (unsigned id = 0; id < HST_LISTS; id++) {
		const struct hst_list *l = &h->evict.lists[id];
		uint32_t n = 0, prev = BLOCK_NONE;

		for (uint32_t b = l->head; b != BLOCK_NONE; b = h->evict.links[b].next) {
			if (b >= h->block_count || rig_list_of(h, b) != id)
				return "a block is on a list that is not its own";
			if (h->evict.links[b].prev != prev || n++ == h->block_count)
				return "links of a list";
			prev = b;
		}
		if (l->tail != prev || l->len != n || n != want[id])
			return "a list lacks a block, or its length is wrong";
	}
	return NULL;
}

const char *rig_writes_broken(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;
	uint32_t used = 0, in_flight = ev->sync.state != HST_SYNC_NONE, covered = 0, flagged = 0;
	bool syncing = false;

	for (unsigned i = 0; i < h->evict.write_count; i++) {
		const struct hst_write *w = &ev->writes[i];

		if (w->state == HST_WRITE_FREE)
			continue;
		used++;
		in_flight += w->state == HST_WRITE_BUSY || w->state == HST_WRITE_STUCK;
		if (w->state == HST_WRITE_ENDED && ev->sync.state == HST_SYNC_NONE)
			return "a write has ended, and nothing makes it durable";
		syncing |= w->state == HST_WRITE_SYNCING;
		for (uint32_t b = w->block; b < w->block + w->count; b++, covered++)
			if (!block_is(h, b, BLOCK_WRITING))
				return "a write has a block that does not know of it";
	}
	for (uint32_t b = 0; b < h->block_count; b++)
		flagged += block_is(h, b, BLOCK_WRITING);
	if (flagged != covered)
		return "a block has two writes, or WRITING and none";
	if (syncing != (ev->sync.state != HST_SYNC_NONE))
		return "a sync without writes, or writes without it";
	return used != ev->writes_used || in_flight != ev->writes_in_flight ? "writes" : NULL;
}

const char *rig_kept_broken(const struct hst *h)
{
	uint32_t staying = 0, held = 0, keeps;

	for (uint32_t b = 0; b < h->block_count; b++) {
		uint32_t kept = 0;

		staying += block_is(h, b, BLOCK_PINNED) || h->evict.holds[b] > 0;
		for (unsigned i = 0; i < h->cfg.vcpus; i++)
			for (unsigned k = 0; k < HST_KEPT; k++)
				kept += h->vcpus[i].kept[k] == b;
		keeps = h->evict.keeps[b];
		if ((keeps > 0) != block_is(h, b, BLOCK_KEPT))
			return "kept blocks";
		if (kept > keeps)
			return "how many keep a block";
		if (h->evict.holds[b] > keeps - kept)
			return "how many hold a block";
		held += keeps - kept;
	}
	if (held != h->evict.held)
		return "held blocks";
	return staying != h->evict.staying ? "blocks that are pinned or held long" : NULL;
}

bool rig_evict_goes_on(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;

	return ev->working || ev->failed || ev->writes_used > 0 || hst_evict_wanted(h) ||
	       ev->hold.on || timer_armed(&ev->hold.timer);
}

bool rig_is_in_run(const struct hst_discard *d, uint32_t b)
{
	return d && b >= d->run.block && b < d->run.block + d->run.count;
}

const char *rig_evict_broken(const struct hst *h, const struct hst_discard *d)
{
	const struct hst_evict *ev = &h->evict;
	uint32_t resident = 0, taking = 0, behind = 0;
	const char *what;

	for (uint32_t b = 0; b < h->block_count; b++) {
		enum block_kind kind = block_kind(h, b);

		if (kind == BLOCK_ABSENT && block_is(h, b, BLOCK_WRITTEN))
			return "an absent block would have to be written out";
		if ((kind == BLOCK_ABSENT || kind == BLOCK_STANDBY) && block_is(h, b, BLOCK_VMM))
			return "the VMM's view shows what was taken away";
		if (rig_is_in_run(d, b)) {
			if (kind != BLOCK_DROPPING && kind != BLOCK_FETCHING)
				return "a block of a discard is not its own";
			resident += d->was != BLOCK_ABSENT;
			continue;
		}
		taking += kind == BLOCK_UNMAPPING || kind == BLOCK_DROPPING;
		if (kind == BLOCK_FETCHING) {
			behind += block_fetch(h, b)->state == HST_FETCH_BEHIND;
			resident += block_fetch(h, b)->charged || block_fetch(h, b)->block != b;
		} else {
			resident += kind != BLOCK_ABSENT;
		}
	}
	if (resident != ev->resident)
		return "resident";
	if ((taking || behind) && !ev->working && !ev->failed && !ev->uncollected)
		return "a block is being taken away by nobody";
	if (ev->working + ev->failed + ev->uncollected > 1)
		return "a job is out, and one to be done again or next, or both";
	what = rig_kept_broken(h);
	if (!what && ev->links)
		what = rig_lists_broken(h);
	return what ? what : rig_writes_broken(h);
}

/* ---- all of it ---- */

const char *rig_fetch_broken(const struct hst *h, const struct hst_fetch *f)
{
	const struct list_link *prev = NULL;

	if (f->state == HST_FETCH_FREE)
		return f->waiters.first ? "somebody waits for a free fetch" : NULL;
	if (f->block < f->first || f->block >= f->first + f->count)
		return "a fetch does not bring its own block";
	for (uint32_t b = f->first; b < f->first + f->count; b++)
		if (block_kind(h, b) != BLOCK_FETCHING || block_fetch(h, b) != f)
			return "a block does not name its fetch";
	for (struct list_link *at = f->waiters.first; at; prev = at, at = at->next)
		if (hst_waiter_of(at)->fetch != f || at->prev != prev)
			return "list of waiters";
	return NULL;
}

const char *rig_broken(const struct hst *h, const struct hst_discard *d)
{
	uint32_t in_flight = 0, queued = 0, troubled = 0, used = 0, present = 0, fetching = 0;
	uint32_t free_len = 0, blocks = 0;

	for (uint32_t i = 0; i < h->fetch_count; i++) {
		const struct hst_fetch *f = &h->fetches[i];
		enum hst_fetch_state s = f->state;
		const char *what = rig_fetch_broken(h, f);

		if (what)
			return what;
		used += s != HST_FETCH_FREE;
		blocks += s != HST_FETCH_FREE ? f->count : 0;
		queued += s == HST_FETCH_QUEUED && f->rank == SRC_DEMAND;
		/* Of neighbours that are read together the first counts. */
		if (f->follows)
			continue;
		in_flight += s == HST_FETCH_READING || s == HST_FETCH_STUCK ||
			     s == HST_FETCH_CANCELLED;
		troubled += s == HST_FETCH_FAILED || s == HST_FETCH_STUCK ||
			    s == HST_FETCH_CANCELLED;
	}
	for (unsigned i = 0; i < h->evict.write_count; i++)
		troubled += h->evict.writes[i].state == HST_WRITE_STUCK ||
			    h->evict.writes[i].state == HST_WRITE_FAILED;
	troubled += h->evict.sync.state == HST_SYNC_STUCK;
	for (uint32_t b = 0; b < h->block_count; b++) {
		fetching += block_kind(h, b) == BLOCK_FETCHING;
		present += block_kind(h, b) == BLOCK_PRESENT;
	}
	for (struct list_link *at = h->free_fetches.first; at; at = at->next)
		if (free_len++ == h->fetch_count)
			return "list of free fetches has no end";
	if (free_len != h->free_count)
		return "list of free fetches";
	if (blocks != fetching || used + h->free_count != h->fetch_count)
		return "fetches and blocks do not agree";
	if (present != h->blocks_present)
		return "blocks_present";
	if (in_flight > h->cfg.queue_depth)
		return "queue_depth";
	if (h->stopping)
		return NULL;
	if (in_flight != h->in_flight || troubled != h->troubled)
		return "in_flight or troubled";
	if (queued && in_flight < fetch_depth(h) && budget_room(h))
		return "a read waits although there is room";
	if (queued && !budget_room(h) && queued == used && !rig_evict_goes_on(h))
		return "reads wait for room, and nobody makes any";
	return rig_evict_broken(h, d);
}
