/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulated guest memory: an alias array, and for each page whether the guest's and the VMM's
 * view show it, or the guest's carries a poison marker. A page's content is one number, at its
 * start and at its end, so that half of a page that was read looks different from a whole one.
 * What the last write left is kept beside it; every access is compared.
 */
#include <errno.h>
#include <string.h>

#include "sim/world.h"

#define LAST_WORD (PAGE_BYTES - sizeof(uint64_t))

static uint64_t *word(const struct sim_host *h, uint32_t page, uint64_t at)
{
	return (uint64_t *)(void *)(h->alias + ((uint64_t)page << PAGE_SHIFT) + at);
}

uint64_t sim_page_get(const struct sim_host *h, uint32_t page)
{
	uint64_t first = *word(h, page, 64u * SIM_VCPUS_MAX), last = *word(h, page, LAST_WORD);

	return first == last ? first : SIM_TORN;
}

void sim_page_put(struct sim_host *h, uint32_t page, uint64_t value)
{
	*word(h, page, 64u * SIM_VCPUS_MAX) = value;
	*word(h, page, LAST_WORD) = value;
}

bool sim_touch(struct sim *w, uint32_t page, unsigned view)
{
	struct sim_host *h = w->host;

	if (h->touch_count == SIM_TOUCHES_MAX)
		return false;
	h->touches[h->touch_count++] = (struct mem_touch){sim_roff(page), view};
	/* Who touched may be gone by the time that it is looked at, and what was touched. */
	if (w->cfg.parts && sim_chance(w, 16))
		h->lib_late_ns = w->now_ns + sim_rnd(w, w->cfg.vmm_ns);
	return true;
}

void sim_page_access(struct sim *w, uint32_t page, bool write, enum sim_by by)
{
	struct sim_host *h = w->host;
	uint64_t got = sim_page_get(h, page);

	if (by == SIM_BY_GUEST && !h->visible[page])
		sim_broken(w, 0, "the guest reads a page that it does not see", page, got);
	if (by == SIM_BY_HOST)
		sim_chk_host_access(w, page);
	if (got != w->expect[page])
		sim_broken(w, 0, "a page does not hold what the last write left", page, got);
	if (write) {
		w->expect[page] = ++w->next_value;
		sim_page_put(h, page, w->expect[page]);
		h->dirty[page] |= by == SIM_BY_GUEST;
		h->vmm_dirty[page] |= by == SIM_BY_VMM;
		if (by == SIM_BY_GUEST)
			sim_snap_log(w, page);
		h->empty[page] = 0;
	}
	sim_log_add(w->log, w->now_ns, SIM_OP_ACCESS,
		    w->actor < 0 ? SIM_LOG_NOBODY : (unsigned)w->actor, page, w->expect[page]);
}

static bool io_is_done(const struct sim_vcpu *v)
{
	return v->io_pending && sim_hv(v)->store_count == 0 && sim_hv(v)->phase != HST_PHASE_LOAD;
}

static uint64_t io_value(const struct sim_vcpu *v)
{
	uint64_t value;

	memcpy(&value, v->io_data, sizeof(value));
	return value;
}

/* Of memory that has left since: to the guest it is as if it had never been there. */
static void io_of_what_left(struct sim_vcpu *v)
{
	if (!v->io_write && io_value(v) != UINT64_MAX)
		sim_broken(v->w, 0, "a load of memory that has left gives something", v->io_page,
			   io_value(v));
	v->io_pending = false;
	v->io_done = true;
}

/* Of several stores to a page that the driver carried out at once the last one is seen. */
static bool is_one_of_the_stores(struct sim *w, uint32_t page, uint64_t value)
{
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		const struct sim_vcpu *v = &w->vcpus[i];

		if (io_is_done(v) && v->io_write && v->io_page == page &&
		    io_value(v) == value)
			return true;
	}
	return false;
}

void sim_page_ios(struct sim *w)
{
	for (unsigned i = 0; i < w->cfg.vcpus; i++)
		if (io_is_done(&w->vcpus[i]) && w->vcpus[i].io_left)
			io_of_what_left(&w->vcpus[i]);
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct sim_vcpu *v = &w->vcpus[i];
		uint32_t page = v->io_page;
		uint64_t first;

		if (!io_is_done(v) || !v->io_write)
			continue;
		/* The driver stores the first of the page's two numbers. */
		first = *word(w->host, page, 64u * SIM_VCPUS_MAX);
		if (!is_one_of_the_stores(w, page, first))
			sim_broken(w, 0, "a store of the guest's is not there", page, first);
		sim_chk_host_access(w, page);
		w->expect[page] = first;
		sim_page_put(w->host, page, first);
		w->host->empty[page] = 0;
	}
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct sim_vcpu *v = &w->vcpus[i];
		uint32_t page = v->io_page;

		if (!io_is_done(v))
			continue;
		if (!v->io_write && io_value(v) != w->expect[page])
			sim_broken(w, 0, "a load does not give what the last write left", page,
				   io_value(v));
		v->io_pending = false;
		v->io_done = true;
		sim_log_add(w->log, w->now_ns, SIM_OP_ACCESS, v->index, page, w->expect[page]);
	}
}

void sim_mem_part(struct sim_host *h, const struct sim_part *p, uint64_t value)
{
	for (uint32_t page = p->page; page < p->page + p->pages; page++) {
		h->visible[page] = h->vmm_visible[page] = h->poisoned[page] = 0;
		h->dirty[page] = h->vmm_dirty[page] = 0;
		h->failed[page] = h->held[page] = h->pinned[page] = 0;
		h->empty[page] = h->backed[page] = 0;
		sim_page_put(h, page, value);
	}
}

void sim_mem_init(struct sim *w, struct sim_host *h)
{
	size_t pages = sim_pages(w);

	/* Fresh memory reads as zeroes; only what is used was ever written. */
	memset(h->alias + (SIM_PAGE_FIRST << PAGE_SHIFT), 0, (size_t)SIM_USED_PAGES << PAGE_SHIFT);
	memset(h->visible, 0, pages);
	memset(h->poisoned, 0, pages);
	memset(h->reading, 0, pages);
	memset(h->failed, 0, pages);
	memset(h->dirty, 0, pages);
	memset(h->vmm_visible, 0, pages);
	memset(h->vmm_dirty, 0, pages);
	memset(h->held, 0, pages);
	memset(h->pinned, 0, pages);
	memset(h->empty, 0, pages);
	memset(h->backed, 0, pages);
}

/* Touches that wait in the kernel for one of these pages are tried again. */
static void wake_waiters(struct sim *w, uint32_t from, uint32_t end, unsigned views)
{
	for (unsigned i = 0; (views & MEM_VIEW_GUEST) && i < w->cfg.vcpus; i++) {
		struct sim_vcpu *v = &w->vcpus[i];

		if (v->kernel_wait && v->kernel_page >= from && v->kernel_page < end)
			v->kernel_wait = false;
	}
	for (unsigned i = 0; (views & MEM_VIEW_VMM) && i < w->cfg.writers; i++) {
		struct sim_writer *x = &w->writers[i];

		if (x->asleep && x->page >= from && x->page < end)
			x->asleep = false;
	}
}

static void show_vmm(struct sim_host *h, uint32_t from, uint32_t end, bool watch_writes)
{
	for (uint32_t p = from; p < end; p++) {
		if (!h->vmm_visible[p])
			h->vmm_dirty[p] = !watch_writes;
		h->vmm_visible[p] = 1;
		h->backed[p] = 1;
	}
	wake_waiters(h->w, from, end, MEM_VIEW_VMM);
}

/* Unwatched pages count as written from the start. */
static void show(struct sim_host *h, uint32_t from, uint32_t end, bool watch_writes)
{
	struct sim *w = h->w;
	uint32_t area = w->vcpus[0].area_page;

	if (h->lost_area && area >= from && area < end) {
		h->lost_area = false;
		if (memcmp(sim_area(&w->vcpus[0]), w->areas_expect, sizeof(w->areas_expect)))
			sim_broken(w, 0, "an area comes back with another content", area, 0);
	}
	for (uint32_t p = from; p < end; p++) {
		if (!h->visible[p])
			h->dirty[p] = !watch_writes;
		h->visible[p] = 1;
		h->backed[p] = 1;
	}
	wake_waiters(h->w, from, end, MEM_VIEW_GUEST);
}

static int mem_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch_writes,
		       struct err *e)
{
	struct sim_host *h = ctx;
	struct sim *w = h->w;
	uint32_t from = sim_page(off), end = from + (uint32_t)(len >> PAGE_SHIFT);

	sim_log_add(w->log, w->now_ns, SIM_OP_PRESENT, SIM_LOG_NOBODY, from, len);
	sim_chk_ram(w, from, end);
	if (w->present_fails > 0) {
		uint32_t half = from + (end - from) / 2;
		/* The guest's view comes first. */
		bool in_vmm = views == MEM_VIEW_VMM ||
			      ((views & MEM_VIEW_VMM) && sim_chance(w, 2));

		/* The first half may have been done: what is visible stays visible. */
		w->present_fails--;
		if (views & MEM_VIEW_GUEST)
			show(h, from, in_vmm ? end : half, watch_writes);
		if (in_vmm)
			show_vmm(h, from, half, watch_writes);
		return err_set(e, -ENOMEM, "simulated memory: out of memory");
	}
	if (views & MEM_VIEW_GUEST)
		show(h, from, end, watch_writes);
	if (views & MEM_VIEW_VMM)
		show_vmm(h, from, end, watch_writes);
	return 0;
}

static int mem_poison(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct sim_host *h = ctx;
	uint32_t from = sim_page(off), end = from + (uint32_t)(len >> PAGE_SHIFT);

	(void)e;
	sim_chk_ram(h->w, from, end);
	for (uint32_t p = from; p < end; p++)
		h->poisoned[p] = !h->visible[p];
	wake_waiters(h->w, from, end, MEM_VIEW_GUEST);
	return 0;
}

const struct mem_ops sim_mem_ops = {
	.present = mem_present,
	.poison = mem_poison,
	.watch_all = sim_mem_watch_all,
	.look = sim_mem_look,
	.resident = sim_mem_resident,
	.unmap = sim_mem_unmap,
	.collect = sim_mem_collect,
	.drop = sim_mem_drop,
	.resident_bytes = sim_mem_resident_bytes,
};
