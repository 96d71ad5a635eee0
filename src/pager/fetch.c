/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a touch of an absent page to the page: reading it, placing it in the VM's memory, and what
 * is done when either does not work. See internal.h for what it owns.
 *
 * A page's life is two bits. Neither: it is the source's. flying: a fetch has it. spent: it was
 * placed, or the VM has given it back; what was read for it is not placed any more. A touch of a
 * spent page is answered by zeroes: where the page is there after all, the kernel says so.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/zero.h"
#include "mem/remote.h"
#include "pager/internal.h"

/* A VM that takes memory away is busy for microseconds; the host's shortage lasts. */
#define AGAIN_FIRST_NS (50 * NS_PER_US)
#define AGAIN_DOUBLINGS_MAX 6u
#define SHORTAGE_NS (50 * NS_PER_MS)
/* Far more than threads that wait for one page together. */
#define FRUITLESS_MAX 1000u
/* A source that fails is asked again: 100 ms, 200 ms, … 6.4 s. */
#define FAILED_FIRST_NS (100 * NS_PER_MS)
#define FAILED_DOUBLINGS_MAX 6u
/* Fetches of a kind that reading ahead leaves for demand. */
#define DEMAND_RESERVE(count) ((count) / 4)

static const struct handshake_region *region_of(const struct pgr_fetch *f)
{
	return &f->vm->h.regions[f->region];
}

static uint64_t address_of(const struct pgr_fetch *f, uint32_t page)
{
	return region_of(f)->hva + (uint64_t)page * region_of(f)->page_bytes;
}

/* ---- places for fetches ---- */

static struct pgr_fetch *fetch_take(struct pgr_vm *vm, bool large, bool demand)
{
	struct pgr *p = vm->pager;
	struct pgr_fetch **list = large ? &p->free_large : &p->free_small;
	uint32_t *count = large ? &p->free_large_count : &p->free_small_count;
	struct pgr_fetch *f = *list;

	if (!f || vm->fetches >= PGR_FETCHES / PGR_VM_SHARE ||
	    (large && vm->large >= PGR_LARGE_COUNT / PGR_VM_SHARE))
		return NULL;
	if (!demand && *count <= DEMAND_RESERVE(large ? PGR_LARGE_COUNT : PGR_SMALL_COUNT))
		return NULL;
	*list = f->next;
	(*count)--;
	f->vm = vm;
	f->image = vm->image;
	f->image->users++;
	f->placed = f->tries = 0;
	f->skipped = false;
	f->demand = demand;
	if (!demand)
		list_append(&vm->ahead, &f->link);
	vm->fetches++;
	vm->large += large;
	return f;
}

static void fetch_release(struct pgr_fetch *f)
{
	struct pgr *p = f->vm->pager;
	struct pgr_fetch **list = f->large ? &p->free_large : &p->free_small;

	if (!f->demand)
		list_remove(&f->vm->ahead, &f->link);
	f->vm->fetches--;
	f->vm->large -= f->large;
	f->image->users--;
	f->state = PGR_FREE;
	f->vm = NULL;
	f->next = *list;
	*list = f;
	(*(f->large ? &p->free_large_count : &p->free_small_count))++;
}

static void read_now(struct pgr_fetch *f)
{
	struct pgr *p = f->vm->pager;
	const struct handshake_region *r = region_of(f);

	f->state = PGR_READING;
	f->begun_ns = p->now_ns;
	f->read.offset = r->offset + (uint64_t)f->page * r->page_bytes;
	f->read.len = f->count * r->page_bytes;
	f->read.rank = f->demand ? SRC_DEMAND : SRC_AHEAD;
	f->read.late = grace_expects_late(&f->image->grace);
	p->status.counters.reads++;
	p->status.counters.reads_in_flight++;
	if (!f->demand)
		p->status.counters.read_ahead += f->count;
	f->vm->stats.reads_in_flight++;
	f->image->src->ops->read(f->image->src, &f->read);
}

bool pgr_fetch_begin(struct pgr_vm *vm, uint32_t region, uint32_t from, uint32_t count,
		     bool demand)
{
	uint64_t bytes = (uint64_t)count * vm->h.regions[region].page_bytes;
	struct pgr_fetch *f = fetch_take(vm, bytes > PGR_SMALL_BYTES, demand);

	if (!f)
		return false;
	f->region = region;
	f->page = from;
	f->count = count;
	f->since_ns = vm->pager->now_ns;
	for (uint32_t i = 0; i < count; i++)
		pgr_set(vm->flying, vm->first[region] + from + i);
	read_now(f);
	return true;
}

/* ---- touches ---- */

static bool is_shortage(int64_t rc)
{
	return rc == -ENOMEM || rc == -ENOSPC;
}

/* rc of a page that could not be placed: does the VM go on? */
static bool vm_survives(struct pgr_vm *vm, int64_t rc)
{
	char why[ERR_TEXT_MAX];
	struct err e;

	if (rc == -EAGAIN || is_shortage(rc))
		return true;
	if (rc == -ESRCH) {
		pgr_vm_end(vm, NULL);
		return false;
	}
	(void)err_sys(&e, (int)rc, "its memory cannot be filled");
	(void)memcpy(why, e.text, sizeof(why));
	pgr_vm_end(vm, why);
	return false;
}

/*
 * A touch may be told after the page was placed, once for each thread that waited. One that is told
 * again and again is none that we can end: Linux 6.18 says that a page is there when it means that
 * the host has no huge page left. It is not to cost a CPU.
 */
static bool is_fruitless(struct pgr_vm *vm, struct pgr_waiting *w)
{
	if (w->due_ns > 0 || ++vm->fruitless < FRUITLESS_MAX)
		return false;
	if (vm->fruitless == FRUITLESS_MAX)
		pgr_say(vm->pager, "VM %s.%llu: it touches again and again what the host says is "
			"there: is the host short of huge pages?", vm->name,
			(unsigned long long)vm->number);
	w->due_ns = vm->pager->now_ns + SHORTAGE_NS;
	return true;
}

/* False: not now, or the VM has gone. */
static bool place_zeroes(struct pgr_vm *vm, struct pgr_waiting *w)
{
	const struct handshake_region *r = &vm->h.regions[w->region];
	uint64_t at = r->hva + (uint64_t)w->page * r->page_bytes;
	int64_t rc = r->page_bytes == PAGE_BYTES
			     ? remote_zero(vm->uffd.fd, at, r->page_bytes)
			     : remote_copy(vm->uffd.fd, at, vm->pager->zeroes, r->page_bytes);

	if (rc > 0) {
		pgr_vm_placed(vm, w->region, w->page, (uint64_t)rc);
		vm->fruitless = 0;
		return true;
	}
	if (rc == -EEXIST || rc == -ENOENT) {
		if (is_fruitless(vm, w))
			return false;
		vm->pager->status.counters.redundant++;
		remote_wake(vm->uffd.fd, at, r->page_bytes);
		return true;
	}
	(void)vm_survives(vm, rc);
	return false;
}

/* Somebody waits for what a fetch has: if nobody did, its read goes by another turn from now on. */
static void join(struct pgr_vm *vm, const struct pgr_waiting *w)
{
	struct list_link *at = vm->ahead.first;
	struct pgr_fetch *f;

	/* No more than the VM's share of the fetches. */
	while ((f = LIST_ENTRY(at, struct pgr_fetch, link)) &&
	       (f->region != w->region || w->page - f->page >= f->count))
		at = at->next;
	if (!f)
		return;
	list_remove(&vm->ahead, at);
	f->demand = true;
	f->since_ns = vm->pager->now_ns;
	if (f->state == PGR_READING)
		src_raise(f->image->src, &f->read, TURN_DEMAND);
}

bool pgr_answer(struct pgr_vm *vm, struct pgr_waiting *w)
{
	uint32_t bit = vm->first[w->region] + w->page;

	if (w->due_ns > vm->pager->now_ns)
		return false;
	if (pgr_bit(vm->spent, bit))
		return place_zeroes(vm, w);
	if (pgr_bit(vm->flying, bit)) {
		vm->pager->status.counters.joined++;
		join(vm, w);
	} else if (!pgr_fetch_begin(vm, w->region, w->page, 1, true)) {
		return false;
	}
	/* What the page cache has was placed meanwhile, and that may have shown that it is gone. */
	if (!vm->dead)
		pgr_ahead_note(vm, w);
	return true;
}

/* ---- placing ---- */

static void pass(struct pgr_fetch *f, uint32_t pages, bool spent)
{
	uint32_t first = f->vm->first[f->region] + f->page + f->placed;

	for (uint32_t i = 0; i < pages; i++) {
		pgr_clear(f->vm->flying, first + i);
		if (spent)
			pgr_set(f->vm->spent, first + i);
	}
	f->placed += pages;
}

static bool page_is_zero(const struct pgr_fetch *f, uint32_t page)
{
	uint32_t bytes = region_of(f)->page_bytes;

	/* Huge pages have no page of zeroes that all share. */
	return bytes == PAGE_BYTES && is_zero((char *)f->read.buf + (size_t)page * bytes, bytes);
}

/* Pages from f->placed on that can be placed by one call. 0: the next is not to be placed. */
static uint32_t run_length(const struct pgr_fetch *f, bool *ret_zero)
{
	uint32_t first = f->vm->first[f->region] + f->page, n = f->placed;

	if (pgr_bit(f->vm->spent, first + n))
		return 0;
	*ret_zero = page_is_zero(f, n);
	do
		n++;
	while (n < f->count && !pgr_bit(f->vm->spent, first + n) &&
	       page_is_zero(f, n) == *ret_zero);
	return n - f->placed;
}

static int64_t place_run(const struct pgr_fetch *f, uint32_t pages, bool zero)
{
	uint64_t bytes = region_of(f)->page_bytes, at = address_of(f, f->page + f->placed);

	if (zero)
		return remote_zero(f->vm->uffd.fd, at, pages * bytes);
	return remote_copy(f->vm->uffd.fd, at, (char *)f->read.buf + f->placed * bytes,
			   pages * bytes);
}

/* One call's worth. 0: go on. -Exxx: not now. */
static int64_t place_some(struct pgr_fetch *f)
{
	uint32_t bytes = region_of(f)->page_bytes;
	bool zero;
	uint32_t n = run_length(f, &zero);
	int64_t rc;

	if (n == 0) {
		/* The VM gave it back while it was read: a touch is answered by zeroes. */
		f->skipped = true;
		pass(f, 1, true);
		return 0;
	}
	rc = place_run(f, n, zero);
	if (rc == -ENOENT && n > 1) /* several mappings: one page at a time */
		rc = place_run(f, 1, zero);
	if (rc >= (int64_t)bytes) {
		pgr_vm_placed(f->vm, f->region, f->page + f->placed, (uint64_t)rc);
		f->vm->fruitless = 0;
		pass(f, (uint32_t)((uint64_t)rc / bytes), true);
		return 0;
	}
	if (rc == -EEXIST || rc == -ENOENT) {
		f->skipped = true;
		pass(f, 1, rc == -EEXIST);
		return 0;
	}
	return rc < 0 ? rc : -EAGAIN;
}

static void note_wait(struct pgr *p, const struct pgr_fetch *f)
{
	uint64_t ns = p->now_ns - f->since_ns;

	p->hist[hist_bucket(ns / NS_PER_US)]++;
	p->wait_max_ns = max_u64(p->wait_max_ns, ns);
}

/* The fetch is over, or waits for another try, or the VM has gone. */
static void place(struct pgr_fetch *f)
{
	struct pgr_vm *vm = f->vm;
	int64_t rc = 0;

	f->state = PGR_FULL;
	while (rc == 0 && f->placed < f->count)
		rc = place_some(f);
	if (rc == 0) {
		vm->again = 0;
		if (f->skipped)
			remote_wake(vm->uffd.fd, address_of(f, f->page),
				    (uint64_t)f->count * region_of(f)->page_bytes);
		if (f->demand)
			note_wait(vm->pager, f);
		fetch_release(f);
		return;
	}
	if (!vm_survives(vm, rc))
		return;
	f->due_ns = vm->pager->now_ns +
		    (is_shortage(rc) ? SHORTAGE_NS : AGAIN_FIRST_NS << vm->again);
	if (rc == -EAGAIN && vm->again < AGAIN_DOUBLINGS_MAX)
		vm->again++;
	pgr_vm_retry_at(vm, f->due_ns);
}

/* ---- reads that end ---- */

/* Nobody has asked for it, or will ask again when he is woken. */
static void give_up(struct pgr_fetch *f)
{
	uint64_t at = address_of(f, f->page);
	uint64_t bytes = (uint64_t)f->count * region_of(f)->page_bytes;

	pass(f, f->count - f->placed, false);
	remote_wake(f->vm->uffd.fd, at, bytes);
	fetch_release(f);
}

static void failed(struct pgr_fetch *f, const struct err *why)
{
	struct pgr_vm *vm = f->vm;
	struct pgr *p = vm->pager;

	p->status.counters.read_errors++;
	vm->stats.read_errors++;
	f->image->stats.read_errors++;
	if (!f->demand) {
		give_up(f);
		return;
	}
	if (f->tries == 0)
		pgr_say(p, "VM %s.%llu: cannot read its memory: %.150s; it waits, and it is tried "
			"again", vm->name, (unsigned long long)vm->number, why->text);
	memcpy(p->status.trouble, why->text, sizeof(p->status.trouble));
	f->state = PGR_FAILED;
	f->due_ns = p->now_ns + (FAILED_FIRST_NS << min_u64(f->tries, FAILED_DOUBLINGS_MAX));
	f->tries++;
	pgr_vm_retry_at(vm, f->due_ns);
}

static void count_read(struct pgr_fetch *f, uint64_t ns)
{
	struct apf_counters *all = &f->vm->pager->status.counters;
	struct pgr_source_status *s = &f->image->stats;

	all->read_bytes += f->read.len;
	all->source_reads++;
	all->source_read_bytes += f->read.len;
	all->source_read_ns += ns;
	all->source_read_max_ns = max_u64(all->source_read_max_ns, ns);
	s->reads++;
	s->read_bytes += f->read.len;
	s->read_ns += ns;
	s->read_max_ns = max_u64(s->read_max_ns, ns);
}

/* A few pages take what one takes: they would tell of a slow way, not of slow bytes. */
static void took(struct pgr_fetch *f, uint64_t ns)
{
	bool several = f->count > 1;

	count_read(f, ns);
	if (!several)
		grace_sample(&f->image->grace, ns);
	if (!several || f->read.len >= PGR_SMALL_BYTES)
		pace_sample(&f->image->pace, f->read.len, several, ns);
}

void pgr_fetch_read_done(struct src_read *rd, const struct err *why)
{
	struct pgr_fetch *f = CONTAINER_OF(rd, struct pgr_fetch, read);
	struct pgr_vm *vm = f->vm;
	struct pgr *p = vm->pager;
	uint64_t ns = p->now_ns - f->begun_ns;

	ASSERT(f->state == PGR_READING);
	p->status.counters.reads_in_flight--;
	vm->stats.reads_in_flight--;
	if (vm->dead) {
		fetch_release(f);
		return;
	}
	if (why) {
		failed(f, why);
		return;
	}
	took(f, ns);
	place(f);
}

void pgr_fetch_retry(struct pgr_vm *vm)
{
	struct pgr *p = vm->pager;
	uint64_t next = NS_NEVER;

	for (struct pgr_fetch *f = p->fetches; f < p->fetches + PGR_FETCHES && !vm->dead; f++) {
		if (f->vm != vm || (f->state != PGR_FULL && f->state != PGR_FAILED))
			continue;
		if (f->due_ns > p->now_ns) {
			next = min_u64(next, f->due_ns);
		} else if (f->state == PGR_FULL) {
			place(f);
		} else {
			p->status.counters.read_retries++;
			f->image->stats.read_retries++;
			read_now(f);
		}
	}
	if (!vm->dead && next != NS_NEVER)
		pgr_vm_retry_at(vm, next);
}

void pgr_fetch_cancel_all(struct pgr_vm *vm)
{
	struct pgr *p = vm->pager;

	for (struct pgr_fetch *f = p->fetches; f < p->fetches + PGR_FETCHES; f++) {
		if (f->vm != vm)
			continue;
		if (f->state == PGR_READING)
			f->image->src->ops->cancel(f->image->src, &f->read);
		else
			fetch_release(f);
	}
}
