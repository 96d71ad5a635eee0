/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads for which nobody waits yet: what an even stream comes to next. They are sized by the
 * source's pace, as the library's are (host/pace.h), and begun once all touches that were told have
 * a read of their own: demand is first here, in the source's queues by its rank, and on the wire.
 * Test: tests/integration/pager_pace_test.py.
 */
#include "base/assert.h"
#include "pager/internal.h"

/* So many requests of a stream, as the library has. */
#define DEPTH_REQUESTS 8u
/* Of a source that is near: while one is placed, the next one is read. */
#define DEPTH_BYTES_MIN (2 * PGR_SMALL_BYTES)

_Static_assert(PACE_BYTES_MAX <= PGR_LARGE_BYTES, "a request fits in a fetch");

/* Placing takes a call, whatever the source: not less than a small fetch holds. */
static uint32_t request_bytes(const struct pgr_image *i)
{
	return (uint32_t)max_u64(pace_bytes(&i->pace), PGR_SMALL_BYTES);
}

static uint32_t depth_bytes(const struct pgr_image *i)
{
	return (uint32_t)max_u64(DEPTH_REQUESTS * (uint64_t)pace_bytes(&i->pace), DEPTH_BYTES_MIN);
}

/* ---- requests ---- */

struct run {
	uint32_t from, to; /* pages, `to` included */
	bool any;
};

static bool run_send(struct pgr_vm *vm, uint32_t region, struct run *run)
{
	bool sent = !run->any ||
		    pgr_fetch_begin(vm, region, run->from, run->to - run->from + 1, false);

	run->any = false;
	return sent;
}

static bool run_takes(struct run *run, uint32_t page, uint32_t max)
{
	if (!run->any || run->to - run->from + 1 >= max)
		return false;
	if (page == run->to + 1)
		run->to = page;
	else if (run->from > 0 && page == run->from - 1)
		run->from = page;
	else
		return false;
	return true;
}

/* Steps of the stream that nobody has asked for yet, neighbours in one read. */
static void read_ahead(struct pgr_vm *vm, uint32_t region, struct stream *s)
{
	const struct handshake_region *r = &vm->h.regions[region];
	uint32_t first = vm->first[region], pages = (uint32_t)(r->bytes / r->page_bytes);
	uint32_t max = (uint32_t)max_u64(request_bytes(vm->image) / r->page_bytes, 1);
	struct run run = {.any = false};

	for (; s->asked < s->window; s->asked++) {
		int64_t at = (int64_t)s->last + (int64_t)s->stride * (s->asked + 1) - first;
		uint32_t page = (uint32_t)at;

		if (at < 0 || at >= pages)
			break;
		if (pgr_bit(vm->spent, first + page) || pgr_bit(vm->flying, first + page))
			continue;
		if (run_takes(&run, page, max))
			continue;
		if (!run_send(vm, region, &run))
			return;
		run = (struct run){.from = page, .to = page, .any = true};
	}
	(void)run_send(vm, region, &run);
}

/* ---- streams that are due ---- */

void pgr_ahead_note(struct pgr_vm *vm, const struct pgr_waiting *w)
{
	uint32_t page_bytes = vm->h.regions[w->region].page_bytes;
	uint64_t most = (uint64_t)vm->pager->cfg.read_ahead * PAGE_BYTES;
	uint32_t max = (uint32_t)(min_u64(most, depth_bytes(vm->image)) / page_bytes);
	struct stream *s = stream_touch(&vm->streams, vm->first[w->region] + w->page, max);
	uint32_t i = 0;

	if (!s)
		return;
	while (i < vm->due_count && vm->due[i].stream != s)
		i++;
	ASSERT(i < STREAMS_MAX);
	vm->due[i] = (struct pgr_due){s, w->region};
	vm->due_count += i == vm->due_count;
}

void pgr_ahead_go(struct pgr_vm *vm)
{
	for (uint32_t i = 0; i < vm->due_count && !vm->dead; i++)
		read_ahead(vm, vm->due[i].region, vm->due[i].stream);
	vm->due_count = 0;
}
