/* SPDX-License-Identifier: Apache-2.0 */
/* See trouble.h. Tests: tests/unit/host_fetch_test.c, host_test.c. */
#include <errno.h>

#include "base/assert.h"
#include "host/block.h"
#include "host/kick.h"
#include "host/trace.h"
#include "host/trouble.h"

#define BACKOFF_FIRST_NS (10 * NS_PER_MS)
#define BACKOFF_MAX_NS NS_PER_S

bool hst_is_paused(const struct hst *h)
{
	return h->paused || h->troubled > 0;
}

void trace_pause(const struct hst *h, bool was_paused)
{
	bool is = hst_is_paused(h);

	if (is != was_paused)
		trace(h, is ? APF_TRACE_PAUSED : APF_TRACE_RESUMED, APF_NOBODY,
		      (roff_t){UINT64_MAX}, 0, 0);
}

static void trouble_tell(struct hst *h, const struct hst_trouble *t)
{
	h->trouble_told = t != NULL;
	h->hooks.trouble(h->hooks.ctx, t);
}

void trouble_over(struct hst *h)
{
	if (h->trouble_told && !hst_is_paused(h))
		trouble_tell(h, NULL);
}

void trouble_begin(struct hst *h, uint32_t block, uint32_t tries, const struct err *why)
{
	struct hst_trouble t = {.tries = tries};
	bool was_paused = hst_is_paused(h);
	roff_t off;
	uint64_t len;

	hst_block_range(h, block, &off, &len);
	t.gpa = ram_gpa(&h->ram, off);
	if (why)
		t.why = *why;
	h->troubled++;
	trace_pause(h, was_paused);
	trouble_tell(h, &t);
	vcpu_kick_all(h);
}

void trouble_end(struct hst *h)
{
	ASSERT(h->troubled > 0);
	if (--h->troubled == 0) {
		trace_pause(h, true);
		trouble_over(h);
		vcpu_kick_all(h);
	}
}

void hst_pause(struct hst *h)
{
	bool was_paused = hst_is_paused(h);

	h->paused = true;
	trace_pause(h, was_paused);
	vcpu_kick_all(h);
}

void hst_pause_for(struct hst *h, const struct hst_trouble *t)
{
	trouble_tell(h, t);
	hst_pause(h);
}

void trouble_lost(struct hst *h, roff_t off, const char *what)
{
	struct hst_trouble t = {.gpa = ram_gpa(&h->ram, off), .tries = 1};

	err_set(&t.why, -EHWPOISON, "the host has lost it to a memory error, and %s; apf_discard "
		"gives it up", what);
	hst_pause_for(h, &t);
}

uint64_t backoff_ns(unsigned tries)
{
	uint64_t delay = BACKOFF_FIRST_NS;

	for (unsigned i = 0; i < tries && delay < BACKOFF_MAX_NS; i++)
		delay *= 2;
	return min_u64(delay, BACKOFF_MAX_NS);
}
