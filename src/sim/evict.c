/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is taken away: the calls of port/mem.h for it, and the thread that makes them
 * (lib/evict.c's part). What a page held when the guest lost it is what it must hold when it
 * comes back, by whatever way: still in the alias, from the swap file, from the source, zero.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "sim/world.h"

static void set_page(mem_pages pages, uint32_t i)
{
	pages[i / 64] |= 1ull << (i % 64);
}

/* Calls that take memory away fail somewhere in the middle. */
static bool fails(struct sim *w)
{
	if (w->unmap_fails == 0 || !sim_chance(w, 2))
		return false;
	w->unmap_fails--;
	return true;
}

int sim_mem_watch_all(void *ctx, struct err *e)
{
	struct sim_host *h = ctx;

	return fails(h->w) ? err_set(e, -ENOMEM, "simulated memory: out of memory") : 0;
}

int sim_mem_resident(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e)
{
	struct sim_host *h = ctx;

	memset(ret, 0, sizeof(mem_pages));
	/* Where nothing is behind the addresses, too. */
	if (fails(h->w) ||
	    (!sim_is_ram(h->w, sim_page(off)) && sim_has(h->w, SIM_FAULT_UNMAP) &&
	     sim_chance(h->w, 2)))
		return err_set(e, -ENOMEM, "simulated memory: out of memory");
	for (uint32_t i = 0; i < len >> PAGE_SHIFT; i++)
		if (h->visible[sim_page(off) + i])
			set_page(ret, i);
	return 0;
}

int sim_mem_look(void *ctx, roff_t off, uint64_t len, mem_pages ret_there, mem_pages ret_guest,
		 mem_pages ret_vmm, struct err *e)
{
	const struct sim_host *h = ctx;

	(void)e;
	memset(ret_there, 0, sizeof(mem_pages));
	memset(ret_guest, 0, sizeof(mem_pages));
	memset(ret_vmm, 0, sizeof(mem_pages));
	for (uint32_t i = 0, p = sim_page(off); i < len >> PAGE_SHIFT; i++, p++) {
		if (h->backed[p])
			set_page(ret_there, i);
		if (h->visible[p] && h->dirty[p])
			set_page(ret_guest, i);
		if (h->vmm_visible[p] && h->vmm_dirty[p])
			set_page(ret_vmm, i);
	}
	return 0;
}

static void take_out(struct sim_host *h, uint32_t p)
{
	struct sim *w = h->w;

	if (p == w->vcpus[0].area_page && h->visible[p])
		memcpy(w->areas_expect, h->alias + ((uint64_t)p << PAGE_SHIFT),
		       sizeof(w->areas_expect));
	h->lost_area |= p == w->vcpus[0].area_page && h->visible[p];
	/* After a failure, what is out already is not known to be unwritten. */
	h->dirty[p] |= !h->visible[p];
	h->visible[p] = 0;
	h->poisoned[p] = 0;
}

static void take_out_vmm(struct sim_host *h, uint32_t p)
{
	h->vmm_dirty[p] |= !h->vmm_visible[p];
	h->vmm_visible[p] = 0;
}

/* hold.c's part. */
static void nobody_runs(struct sim *w)
{
	const struct hst *h = &w->host->hst;

	for (unsigned i = 0; i < h->cfg.vcpus && h->cfg.faults != HST_FAULTS_KERNEL; i++)
		if (h->vcpus[i].where == HST_IN_GUEST)
			sim_broken(w, 0, "memory is taken from under a running vCPU", i, 0);
}

int sim_mem_unmap(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct sim_host *h = ctx;
	struct sim *w = h->w;
	uint32_t first = sim_page(off), end = first + (uint32_t)(len >> PAGE_SHIFT);

	/* What is discarded is neither code nor tables of the guest's. */
	if (!w->discarding)
		nobody_runs(w);
	sim_log_add(w->log, w->now_ns, SIM_OP_UNMAP, SIM_LOG_NOBODY, sim_page(off), len);
	sim_chk_ram(w, first, end);
	for (uint32_t p = first; p < end; p++) {
		if (h->held[p])
			sim_broken(w, 0, "memory is taken away that a device writes to", p, 0);
		if (h->pinned[p])
			sim_broken(w, 0, "memory is taken away that is pinned", p, 0);
		if (fails(w))
			return err_set(e, -ENOMEM, "simulated memory: out of memory");
		take_out(h, p);
	}
	for (uint32_t p = first; p < end; p++) {
		if (w->cfg.writers > 0 && fails(w))
			return err_set(e, -ENOMEM, "simulated memory: out of memory");
		take_out_vmm(h, p);
	}
	return 0;
}

int sim_mem_collect(void *ctx, roff_t off, uint64_t len, mem_pages ret_written,
		    mem_pages ret_vmm, struct err *e)
{
	struct sim_host *h = ctx;
	struct sim *w = h->w;

	sim_log_add(w->log, w->now_ns, SIM_OP_COLLECT, SIM_LOG_NOBODY, sim_page(off), len);
	sim_chk_ram(w, sim_page(off), sim_page(off) + (uint32_t)(len >> PAGE_SHIFT));
	memset(ret_written, 0, sizeof(mem_pages));
	memset(ret_vmm, 0, sizeof(mem_pages));
	for (uint32_t i = 0, p = sim_page(off); i < len >> PAGE_SHIFT; i++, p++) {
		if (fails(w))
			return err_set(e, -ENOMEM, "simulated memory: out of memory");
		if (h->visible[p])
			sim_broken(w, 45, "the guest sees what was taken from it", p, 0);
		if (h->vmm_visible[p])
			sim_broken(w, 45, "the VMM sees what was taken from it", p, 0);
		if (h->dirty[p])
			set_page(ret_written, i);
		if (h->vmm_dirty[p])
			set_page(ret_vmm, i);
		/* What told is gone. */
		h->dirty[p] = 1;
		h->vmm_dirty[p] = 1;
		h->poisoned[p] = w->cfg.faults != HST_FAULTS_KERNEL;
	}
	return 0;
}

int sim_mem_drop(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct sim_host *h = ctx;
	struct sim *w = h->w;
	bool discards = w->discarding;

	sim_log_add(w->log, w->now_ns, SIM_OP_DROP, SIM_LOG_NOBODY, sim_page(off), len);
	sim_chk_ram(w, sim_page(off), sim_page(off) + (uint32_t)(len >> PAGE_SHIFT));
	if (w->unmap_fails > 0 && !discards) {
		w->unmap_fails--;
		return err_set(e, -ENOMEM, "simulated memory: out of memory");
	}
	for (uint32_t p = sim_page(off); p < sim_page(off) + (len >> PAGE_SHIFT); p++) {
		if (discards && fails(w))
			return err_set(e, -ENOMEM, "simulated memory: out of memory");
		if (h->held[p])
			sim_broken(w, 0, "memory is given back that a device writes to", p, 0);
		if (h->visible[p])
			sim_broken(w, 45, "memory is given back that the guest sees", p, 0);
		if (h->vmm_visible[p])
			sim_broken(w, 45, "memory is given back that the VMM sees", p, 0);
		if (!discards && h->risky[p] && sim_page_get(h, p) &&
		    sim_page_get(h, p) == h->swap[p])
			sim_broken(w, 0, "memory is given back that is not durable", p, 0);
		sim_page_put(h, p, 0);
		if (p == w->vcpus[0].area_page)
			memset(h->alias + ((uint64_t)p << PAGE_SHIFT), 0, sizeof(w->areas));
		h->backed[p] = 0;
	}
	return 0;
}

uint64_t sim_mem_resident_bytes(void *ctx)
{
	const struct sim_host *h = ctx;
	uint64_t pages = 0;

	for (uint32_t p = SIM_PAGE_FIRST; p < SIM_PAGE_FIRST + SIM_USED_PAGES; p++)
		pages += h->backed[p];
	for (uint32_t p = SIM_RAM_PAGES; p < sim_pages(h->w); p++)
		pages += h->backed[p];
	return pages << PAGE_SHIFT;
}

/* ---- the thread ---- */

bool sim_evict_runnable(const struct sim *w)
{
	const struct sim_evict *ev = &w->host->evict;

	if (!w->cfg.evict)
		return false;
	return ev->pumping || ev->evicting.working || hst_evict_wanted(&w->host->hst) ||
	       ev->look_ns <= w->now_ns;
}

void sim_evict_step(struct sim *w)
{
	struct sim_evict *ev = &w->host->evict;
	struct hst *h = &w->host->hst;

	if (ev->pumping) {
		ev->pumping = !sim_pump_step(w, &ev->pump);
		return;
	}
	if (ev->evicting.working && !ev->worked) {
		/* Without the lock. */
		hst_evict_work(h, &ev->evicting.job);
		ev->worked = true;
		return;
	}
	sim_chk_enter(w);
	ev->look_ns = NS_NEVER;
	(void)hst_evict_step(h, &ev->evicting, &ev->look_ns);
	sim_chk_leave(w);
	ev->worked = false;
	/* 30: wanted, and nothing to do: the thread would ask for ever. */
	if (!ev->evicting.working && hst_evict_wanted(h) && !sim_hostile(w))
		sim_broken(w, 30, "eviction is wanted that there is nothing to do for",
			   h->evict.resident, h->evict.limit);
	ev->pumping = !sim_pump_step(w, &ev->pump);
}
