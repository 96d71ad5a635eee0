/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping KVM's emulator from absent memory. It reads the guest's page tables and instructions
 * by itself, where it has to carry one out (devices in memory, and registers and ports on
 * processors that do not tell an instruction's length), and it cannot wait: what is absent it
 * takes for the guest's mistake, and the guest gets a page fault that makes no sense.
 *
 * After a block was taken out of the mapping no processor has an old translation left, so
 * whatever the guest executes next is touched by the processor first, and that touch is an
 * ordinary fault. What remains are instructions that a vCPU is in the middle of:
 *  - inside KVM_RUN: so vCPUs are held outside while blocks are taken, and only then: what is
 *    made of these afterwards can go on beside them (faults: kernel needs no hold, there the
 *    kernel waits);
 *  - in the VMM, which finishes a device access: what the emulator will read again stays until
 *    the vCPU has entered.
 * Data that the emulator moves may be absent: that comes as an access for us to carry out.
 * Test: tests/unit/host_hold_test.c.
 */
#include <string.h>

#include "host/block.h"
#include "host/hold.h"
#include "host/keep.h"
#include "host/kick.h"

static bool must_hold(const struct hst *h)
{
	return h->cfg.faults != HST_FAULTS_KERNEL;
}

static bool all_out(const struct hst *h)
{
	return h->in_guest == 0;
}

static bool may_begin(const struct hst *h, uint32_t due)
{
	return due > 0 && hst_now(h) >= h->evict.hold.after_ns;
}

bool hold_ready(const struct hst *h, uint32_t due)
{
	if (!must_hold(h))
		return due > 0;
	return h->evict.hold.on ? all_out(h) : may_begin(h, due);
}

/* They get as much time as they were held for before they are held again. */
void hold_end(struct hst *h)
{
	struct hst_hold *ho = &h->evict.hold;
	uint64_t now = hst_now(h), ns = now - ho->since_ns;

	if (!ho->on)
		return;
	ho->on = false;
	h->stats.holds++;
	h->stats.hold_ns += ns;
	h->stats.hold_max_ns = max_u64(h->stats.hold_max_ns, ns);
	ho->after_ns = now + ns;
	timer_arm(&h->timers, &ho->timer, ho->after_ns);
	vcpu_kick_all(h);
}

bool hold_is_on(const struct hst *h)
{
	return h->evict.hold.on;
}

bool hold_for(struct hst *h, uint32_t due)
{
	struct hst_hold *ho = &h->evict.hold;

	if (!must_hold(h))
		return due > 0;
	if (due == 0) {
		hold_end(h);
		return false;
	}
	if (!ho->on) {
		if (!may_begin(h, due))
			return false;
		ho->on = true;
		ho->since_ns = hst_now(h);
		vcpu_kick_all(h);
	}
	/* The last one to come out has us called again. */
	return all_out(h);
}

/* Whoever runs the timers looks at the driver afterwards; that is all there is to do. */
static void hold_fire(struct timer *tm, uint64_t now_ns)
{
	(void)tm;
	(void)now_ns;
}

void hold_init(struct hst *h)
{
	h->evict.hold.timer.fire = hold_fire;
}

/* ---- instructions under way ---- */

/* The alias has whatever the guest's mapping has. */
static bool read_entry(void *ctx, gpa_t gpa, unsigned len, uint64_t *ret)
{
	struct hst *h = ctx;
	roff_t off;

	*ret = 0;
	if (!ram_find(&h->ram, gpa, len, &off))
		return false;
	memcpy(ret, h->mem.alias + off.v, len);
	return true;
}

void hold_keep_instruction(struct hst_vcpu *v)
{
	struct hst *h = v->h;
	gpa_t gpas[WALK_MAX];
	unsigned n;

	hold_let_go_instruction(v);
	if (!h->cfg.evict || !v->cpu.in_instruction)
		return;
	n = walk_instruction(&v->cpu, read_entry, h, gpas);
	for (unsigned i = 0; i < n; i++) {
		roff_t off;

		if (ram_find(&h->ram, gpas[i], 1, &off))
			vcpu_keep(v, HST_KEPT_WALK + i, block_of(h, off));
	}
	v->kept_walk = true;
}

void hold_let_go_instruction(struct hst_vcpu *v)
{
	for (unsigned i = HST_KEPT_WALK; v->kept_walk && i < HST_KEPT; i++)
		vcpu_keep(v, i, BLOCK_NONE);
	v->kept_walk = false;
}
