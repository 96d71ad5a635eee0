/* SPDX-License-Identifier: Apache-2.0 */
/* See wait.h. Test: tests/unit/host_vcpu_test.c. */
#include "base/assert.h"
#include "host/block.h"
#include "host/fetch.h"
#include "host/trace.h"
#include "host/wait.h"

void vcpu_wait_over(struct hst_vcpu *v, uint64_t now)
{
	uint64_t ns = now - v->phase_since_ns;

	timer_cancel(&v->h->timers, &v->wake);
	v->stats.host_wait_ns += ns;
	if (v->phase == HST_PHASE_STALL && v->phase_kernel_mode)
		v->stats.stall_kernel_mode_ns += ns;
	else if (v->phase == HST_PHASE_STALL)
		v->stats.stall_other_ns += ns;
	v->phase = HST_PHASE_RUN;
	v->left = false;
	trace(v->h, APF_TRACE_GO, v->index, v->fault_off, 0, 0);
}

bool vcpu_wait_for(struct hst_vcpu *v, roff_t off, enum hst_phase phase)
{
	struct hst *h = v->h;
	uint32_t block = block_of(h, off);
	uint64_t now = hst_now(h);
	struct hst_fetch *f;
	bool joined, absent;

	ASSERT(v->phase == HST_PHASE_RUN && off.v < h->mem.bytes);
	waiter_unlink(&v->sync);
	v->sync_done = false;
	if (block_kind(h, block) == BLOCK_PRESENT)
		return false;
	absent = block_kind(h, block) == BLOCK_ABSENT;
	/* A fault of user mode may become an event; nothing else can. */
	if (v->cpu.cpl == 0 || phase != HST_PHASE_GRACE)
		f = fetch_for_urgent(h, block, v->index, &joined);
	else
		f = fetch_for(h, block, v->index, &joined);
	v->stats.joined += joined;
	waiter_link(&v->sync, f, now);
	if (absent && f->backing)
		fetch_around(f, v->cpu.cpl == 0);
	v->phase = phase;
	v->fault_off = off;
	v->phase_since_ns = now;
	v->phase_kernel_mode = v->cpu.cpl == 0;
	trace(h, APF_TRACE_TOUCH, v->index, off, 0, v->cpu.cpl);
	return true;
}
