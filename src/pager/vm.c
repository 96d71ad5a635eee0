/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One VM: its messages, its end. What is read is applied in this order: all messages that there
 * are, with memory that was given back marked at once; only then touches are answered, since a
 * touch may be told before the giving back that it came after. Messages are always read, however
 * many touches wait: whoever gives memory back sleeps until his message is read, and until then
 * nothing can be placed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"
#include "mem/remote.h"
#include "pager/internal.h"

/* What has neither a connection nor a process that can be watched is asked for this often. */
#define PROBE_NS NS_PER_S
/* Reads of messages in a row, so that one VM does not keep the thread. */
#define SERVE_READS_MAX 16u
/* A touch that could not be answered is tried again after this time. */
#define SETTLE_NS (100 * NS_PER_US)

static int region_at(const struct pgr_vm *vm, uint64_t address)
{
	for (uint32_t i = 0; i < vm->h.count; i++) {
		const struct handshake_region *r = &vm->h.regions[i];

		if (address >= r->hva && address - r->hva < r->bytes)
			return (int)i;
	}
	return -1;
}

/* ---- what is in its memory ---- */

void pgr_vm_placed(struct pgr_vm *vm, uint32_t region, uint32_t page, uint64_t bytes)
{
	uint32_t page_bytes = vm->h.regions[region].page_bytes, bit = vm->first[region] + page;

	vm->stats.placed_bytes += bytes;
	for (uint32_t end = bit + (uint32_t)(bytes / page_bytes); bit < end; bit++) {
		if (!pgr_bit(vm->there, bit))
			vm->stats.resident_bytes += page_bytes;
		pgr_set(vm->there, bit);
	}
}

static void page_removed(struct pgr_vm *vm, uint32_t bit, uint32_t page_bytes)
{
	pgr_set(vm->spent, bit);
	vm->stats.removed_bytes += page_bytes;
	if (pgr_bit(vm->there, bit))
		vm->stats.resident_bytes -= page_bytes;
	pgr_clear(vm->there, bit);
}

/* ---- messages ---- */

static void removed(struct pgr_vm *vm, uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < vm->h.count; i++) {
		const struct handshake_region *r = &vm->h.regions[i];
		uint64_t from = max_u64(start, r->hva), to = min_u64(end, r->hva + r->bytes);

		if (from >= to)
			continue;
		/* Parts of a page stay. */
		uint32_t at = (uint32_t)((from - r->hva + r->page_bytes - 1) / r->page_bytes);
		uint32_t last = (uint32_t)((to - r->hva) / r->page_bytes);

		for (; at < last; at++)
			page_removed(vm, vm->first[i] + at, r->page_bytes);
	}
}

static void touched(struct pgr_vm *vm, uint64_t address)
{
	int i = region_at(vm, address);
	struct pgr_waiting *w;

	if (i < 0) {
		pgr_vm_end(vm, "a touch of memory that it did not name");
		return;
	}
	vm->stats.faults_total++;
	vm->pager->status.counters.faults_total++;
	if (vm->waiting_count == PGR_WAITING_MAX) {
		vm->overflow = true;
		return;
	}
	w = &vm->waiting[vm->waiting_count++];
	w->region = (uint32_t)i;
	w->page = (uint32_t)((address - vm->h.regions[i].hva) / vm->h.regions[i].page_bytes);
	w->due_ns = 0;
}

static void wake_all(struct pgr_vm *vm)
{
	for (uint32_t i = 0; i < vm->h.count; i++)
		remote_wake(vm->uffd.fd, vm->h.regions[i].hva, vm->h.regions[i].bytes);
}

void pgr_vm_retry_at(struct pgr_vm *vm, uint64_t due_ns)
{
	if (!timer_armed(&vm->retry) || vm->retry.due_ns > due_ns)
		timer_arm(&vm->pager->timers, &vm->retry, due_ns);
}

void pgr_vm_settle(struct pgr_vm *vm)
{
	uint32_t kept = 0, count = vm->waiting_count;

	for (uint32_t i = 0; i < count && !vm->dead; i++) {
		struct pgr_waiting w = vm->waiting[i];

		if (!pgr_answer(vm, &w))
			vm->waiting[kept++] = w;
		/* What the page cache had is placed now, before the next touch is answered. */
		(void)pgr_pump(vm->pager);
	}
	if (vm->dead)
		return;
	vm->waiting_count = kept;
	/* Half of the room: those who are woken come back at once. */
	if (vm->overflow && kept <= PGR_WAITING_MAX / 2) {
		vm->overflow = false;
		wake_all(vm);
	}
	for (uint32_t i = 0; i < kept; i++)
		pgr_vm_retry_at(vm, max_u64(vm->pager->now_ns + SETTLE_NS, vm->waiting[i].due_ns));
}

bool pgr_vm_serve(struct pgr_vm *vm)
{
	struct remote_event events[REMOTE_EVENTS_MAX];
	int n = REMOTE_EVENTS_MAX;

	/* Fewer than asked for: there are no more. */
	for (unsigned i = 0; i < SERVE_READS_MAX && n == REMOTE_EVENTS_MAX && !vm->dead; i++) {
		n = remote_events(vm->uffd.fd, events);
		if (n < 0) {
			pgr_vm_end(vm, "its userfaultfd cannot be read: it was not set up");
			return false;
		}
		for (int k = 0; k < n && !vm->dead; k++) {
			if (events[k].kind == REMOTE_FAULT)
				touched(vm, events[k].start);
			else if (events[k].kind == REMOTE_REMOVE)
				removed(vm, events[k].start, events[k].end);
		}
	}
	if (!vm->dead)
		pgr_vm_settle(vm);
	return n == REMOTE_EVENTS_MAX;
}

/* ---- end ---- */

static bool must_be_probed(const struct pgr_vm *vm)
{
	return vm->connection.fd < 0 && vm->process.fd < 0;
}

/* False: it is gone, and so is vm soon. */
static bool probe(struct pgr_vm *vm)
{
	if (remote_owner_lives(vm->uffd.fd, vm->h.regions[0].hva))
		return true;
	pgr_vm_end(vm, NULL);
	return false;
}

void pgr_vm_hung_up(struct pgr_vm *vm)
{
	/* Up to 1.11, Firecracker hangs up at once, and lives. */
	pgr_watch_end(vm->pager, &vm->connection);
	if (probe(vm) && must_be_probed(vm))
		pgr_vm_retry_at(vm, vm->pager->now_ns + PROBE_NS);
}

void pgr_vm_exited(struct pgr_vm *vm)
{
	pgr_watch_end(vm->pager, &vm->process);
	/* The process that connected may have handed over another one's userfaultfd. */
	if (probe(vm) && must_be_probed(vm))
		pgr_vm_retry_at(vm, vm->pager->now_ns + PROBE_NS);
}

static void retry(struct timer *tm, uint64_t now_ns)
{
	struct pgr_vm *vm = CONTAINER_OF(tm, struct pgr_vm, retry);

	(void)now_ns;
	if (must_be_probed(vm)) {
		if (!probe(vm))
			return;
		pgr_vm_retry_at(vm, vm->pager->now_ns + PROBE_NS);
	}
	pgr_fetch_retry(vm);
	if (!vm->dead)
		pgr_vm_settle(vm);
}

void pgr_vm_end(struct pgr_vm *vm, const char *why)
{
	struct pgr *p = vm->pager;

	if (vm->dead)
		return;
	vm->dead = true;
	vm->waiting_count = 0;
	pgr_say(p, "VM %s.%llu: %s%s: %llu touches, %llu KiB placed", vm->name,
		(unsigned long long)vm->number, why ? "given up: " : "ended", why ? why : "",
		(unsigned long long)vm->stats.faults_total,
		(unsigned long long)vm->stats.placed_bytes >> 10);
	timer_cancel(&p->timers, &vm->retry);
	pgr_watch_end(p, &vm->connection);
	pgr_watch_end(p, &vm->process);
	pgr_watch_end(p, &vm->uffd);
	pgr_fetch_cancel_all(vm);
}

bool pgr_vm_bury(struct pgr_vm *vm)
{
	ASSERT(vm->dead);
	if (vm->fetches > 0)
		return false;
	vm->image->users--;
	munmap(vm->spent, vm->map_bytes);
	free(vm);
	return true;
}

/* ---- beginning ---- */

/* All maps, of pages that are taken when they are written to. */
static int make_maps(struct pgr_vm *vm, struct err *e)
{
	uint64_t pages = 0, words;

	for (uint32_t i = 0; i < vm->h.count; i++) {
		vm->first[i] = (uint32_t)pages;
		pages += vm->h.regions[i].bytes / vm->h.regions[i].page_bytes;
		vm->stats.memory_bytes += vm->h.regions[i].bytes;
		if (pages > UINT32_MAX / 2)
			return err_set(e, -E2BIG, "more than %u pages", UINT32_MAX / 2);
	}
	words = (pages + 63) / 64;
	vm->map_bytes = 3 * words * sizeof(uint64_t);
	vm->spent = mmap(NULL, vm->map_bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vm->spent == MAP_FAILED) {
		vm->spent = NULL;
		return err_sys(e, -errno, "maps of %llu pages", (unsigned long long)pages);
	}
	vm->flying = vm->spent + words;
	vm->there = vm->flying + words;
	return 0;
}

static void find_process(struct pgr_vm *vm)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	if (getsockopt(vm->connection.fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 || who.pid <= 0)
		return;
	vm->pid = vm->stats.pid = (uint64_t)who.pid;
	vm->process.fd = (int)syscall(SYS_pidfd_open, who.pid, 0);
}

static int watch_it(struct pgr_vm *vm, struct err *e)
{
	int rc = pgr_watch_add(vm->pager, &vm->uffd);

	if (rc == 0)
		rc = pgr_watch_add(vm->pager, &vm->connection);
	if (rc == 0 && vm->process.fd >= 0)
		rc = pgr_watch_add(vm->pager, &vm->process);
	return rc < 0 ? err_sys(e, rc, "watching it") : 0;
}

static void link_it(struct pgr_vm *vm)
{
	struct pgr_vm **at = &vm->pager->vms;

	while (*at)
		at = &(*at)->next;
	*at = vm;
	vm->pager->vm_count++;
	vm->image->users++;
}

static int vm_make(struct pgr *p, struct pgr_listener *l, int connection, int uffd,
		   const struct handshake *h, struct pgr_vm **ret, struct err *e)
{
	struct pgr_vm *vm = calloc(1, sizeof(*vm));
	int rc;

	if (!vm) {
		close(connection);
		close(uffd);
		return err_set(e, -ENOMEM, "out of memory");
	}
	*ret = vm;
	vm->connection = (struct pgr_watch){PGR_WATCH_VM_CONNECTION, connection};
	vm->uffd = (struct pgr_watch){PGR_WATCH_VM_UFFD, uffd};
	vm->process = (struct pgr_watch){PGR_WATCH_VM_PROCESS, -1};
	vm->pager = p;
	vm->image = l->image;
	vm->h = *h;
	vm->retry.fire = retry;
	pgr_name(l->path, vm->name);
	pgr_name(l->path, vm->stats.name);
	rc = remote_check(uffd);
	if (rc < 0)
		return err_set(e, rc, "the descriptor is no userfaultfd");
	rc = make_maps(vm, e);
	if (rc < 0)
		return rc;
	find_process(vm);
	return watch_it(vm, e);
}

int pgr_vm_begin(struct pgr *p, struct pgr_listener *l, int connection, int uffd,
		 const struct handshake *h, struct err *e)
{
	struct pgr_vm *vm = NULL;
	int rc = vm_make(p, l, connection, uffd, h, &vm, e);

	if (rc < 0 && vm) {
		pgr_watch_end(p, &vm->connection);
		pgr_watch_end(p, &vm->process);
		pgr_watch_end(p, &vm->uffd);
		if (vm->spent)
			munmap(vm->spent, vm->map_bytes);
		free(vm);
	}
	if (rc < 0)
		return rc;
	vm->number = vm->stats.number = ++p->status.vms_total;
	link_it(vm);
	pgr_say(p, "VM %s.%llu: came: process %llu, %llu MiB in %u region%s", vm->name,
		(unsigned long long)vm->number, (unsigned long long)vm->pid,
		(unsigned long long)vm->stats.memory_bytes >> 20, h->count,
		h->count == 1 ? "" : "s");
	return 0;
}
