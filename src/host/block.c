/* SPDX-License-Identifier: Apache-2.0 */
/* See block.h. Tests: tests/unit/host_evict_test.c, and tests/unit/host_sound.h throughout. */
#include "host/block.h"

void hst_block_range(const struct hst *h, uint32_t block, roff_t *ret_off, uint64_t *ret_len)
{
	ret_off->v = (uint64_t)block << h->cfg.block_shift;
	*ret_len = min_u64(1ull << h->cfg.block_shift, h->mem.bytes - ret_off->v);
}

bool block_page_is_lost(const struct hst *h, roff_t off)
{
	return h->mem.ops->is_broken && h->mem.ops->is_broken(h->mem.ctx, off);
}

bool block_is_lost(const struct hst *h, uint32_t block)
{
	uint64_t len;
	roff_t off;

	hst_block_range(h, block, &off, &len);
	for (uint64_t at = 0; at < len; at += PAGE_BYTES)
		if (block_page_is_lost(h, (roff_t){off.v + at}))
			return true;
	return false;
}

static void list_init(struct hst_list *l)
{
	*l = (struct hst_list){BLOCK_NONE, BLOCK_NONE, 0};
}

void block_init(struct hst *h)
{
	for (unsigned i = 0; i < HST_LISTS; i++)
		list_init(&h->evict.lists[i]);
}

static void list_push(struct hst *h, enum hst_list_id id, uint32_t block)
{
	struct hst_list *l = &h->evict.lists[id];
	struct hst_link *links = h->evict.links;

	if (!links || id == HST_LISTS)
		return;
	links[block] = (struct hst_link){.next = BLOCK_NONE, .prev = l->tail};
	if (l->tail == BLOCK_NONE)
		l->head = block;
	else
		links[l->tail].next = block;
	l->tail = block;
	l->len++;
}

static void list_del(struct hst *h, enum hst_list_id id, uint32_t block)
{
	struct hst_list *l = &h->evict.lists[id];
	struct hst_link *links = h->evict.links;
	struct hst_link at;

	if (!links || id == HST_LISTS)
		return;
	at = links[block];
	if (at.prev == BLOCK_NONE)
		l->head = at.next;
	else
		links[at.prev].next = at.next;
	if (at.next == BLOCK_NONE)
		l->tail = at.prev;
	else
		links[at.next].prev = at.prev;
	l->len--;
}

bool block_reserve(const struct hst *h, roff_t off, uint64_t len, struct err *e)
{
	const struct mem *m = &h->mem;

	return !m->ops->reserve || m->ops->reserve(m->ctx, off, len, e) == 0;
}

enum hst_list_id block_list_of(const struct hst *h, uint32_t block)
{
	if (block_is(h, block, BLOCK_PINNED | BLOCK_KEPT))
		return HST_LISTS;
	switch (block_kind(h, block)) {
	case BLOCK_PRESENT:
		if (block_is(h, block, BLOCK_WRITING))
			return HST_LISTS;
		return block_is(h, block, BLOCK_KERNEL) ? HST_LIST_KERNEL : HST_LIST_USER;
	case BLOCK_STANDBY:
		if (block_is(h, block, BLOCK_WRITING))
			return HST_LIST_WRITING;
		return block_is(h, block, BLOCK_WRITTEN) ? HST_LIST_DIRTY : HST_LIST_CLEAN;
	default:
		return HST_LISTS;
	}
}

void block_enlist(struct hst *h, uint32_t block)
{
	list_push(h, block_list_of(h, block), block);
}

void block_delist(struct hst *h, uint32_t block)
{
	list_del(h, block_list_of(h, block), block);
}

void block_flags(struct hst *h, uint32_t block, uint32_t set, uint32_t clear)
{
	enum hst_list_id before = block_list_of(h, block), after;

	h->blocks[block] = (h->blocks[block] & ~clear) | set;
	after = block_list_of(h, block);
	if (before == after)
		return;
	list_del(h, before, block);
	list_push(h, after, block);
}

bool block_show_vmm(struct hst *h, uint32_t block)
{
	bool watch;
	roff_t start;
	uint64_t len;
	struct err e;

	hst_block_range(h, block, &start, &len);
	if (block_is(h, block, BLOCK_VMM))
		h->blocks[block] |= BLOCK_WRITTEN;
	watch = h->cfg.evict && !block_is(h, block, BLOCK_WRITTEN);
	h->blocks[block] |= BLOCK_VMM;
	return h->mem.ops->present(h->mem.ctx, start, len, MEM_VIEW_VMM, watch, &e) == 0;
}

static void tell(struct hst *h, roff_t off, uint64_t len)
{
	if (h->hooks.wrote)
		h->hooks.wrote(h->hooks.ctx, ram_gpa(&h->ram, off), len);
}

void block_changed(struct hst *h, uint32_t block)
{
	uint64_t len;
	roff_t off;

	hst_block_range(h, block, &off, &len);
	tell(h, off, len);
}

void hst_wrote(struct hst *h, roff_t off, uint64_t len)
{
	h->blocks[block_of(h, off)] |= BLOCK_WRITTEN;
	tell(h, off, len);
}
