/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See drive.h. One fault: take_exit tells vcpu.c, a pump lets the source answer at once, go_on
 * asks vcpu.c how the vCPU goes on; whoever brings the block kicks, and the thread comes here
 * again. Tests: tests/unit/host_drive_test.c and host_rest_test.c, and everything that the
 * simulator does.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "host/block.h"
#include "host/deliver.h"
#include "host/drive.h"
#include "host/evict.h"
#include "host/fetch.h"
#include "host/hold.h"
#include "host/keep.h"
#include "host/kick.h"
#include "host/msr.h"
#include "host/vcpu.h"

/* ---- pumping ---- */

bool hst_pump(struct hst *h, struct hst_pump *p)
{
	if (p->fetch)
		hst_shown(p->fetch, p->why.code < 0 ? &p->why : NULL);
	for (;;) {
		unsigned reaped;

		h->io.ops->flush(h->io.ctx);
		reaped = h->io.ops->reap(h->io.ctx);
		p->fetch = hst_take_filled(h);
		if (p->fetch || !reaped)
			return p->fetch != NULL;
	}
}

bool hst_pump_due(const struct hst *h)
{
	return h->filled.first != NULL || h->io.ops->due(h->io.ctx);
}

void hst_pump_show(struct hst_pump *p)
{
	p->why = (struct err){.code = 0};
	p->why.code = hst_make_visible(p->fetch, &p->why);
}

/* ---- a vCPU's thread ---- */

static void run(struct hst_vcpu *v, enum plat_enter how, struct hst_step *ret)
{
	*ret = (struct hst_step){
		.next = HST_DO_RUN,
		.entry = {.how = how, .watch_reset = eng_reset_is_seen(&v->eng)},
	};
}

/* At rest: nothing of ours is left in KVM's state, and no half event. */
static void back(struct hst_vcpu *v, int result, struct hst_step *ret)
{
	vcpu_rest(v);
	/* Who interrupts a vCPU may go on to save or restore it. */
	if (result != 0) {
		msr_show(v);
		v->changed = true;
	}
	v->cpu_stale = true;
	v->called = false;
	*ret = (struct hst_step){.next = HST_DO_RETURN, .result = result};
}

/* KVM can finish what it has half done: it waits for nothing of ours. */
static bool can_complete(const struct hst_vcpu *v)
{
	return v->half && v->phase != HST_PHASE_LOAD && v->phase != HST_PHASE_WRMSR &&
	       v->store_count < HST_STORES_MAX;
}

/*
 * Executes nothing. KVM reads what the instruction is fetched through on the way, which stays
 * (hold.c): the vCPU does not count as being in the guest, and needs no kick to come out.
 */
static void complete(struct hst_vcpu *v, struct hst_step *ret)
{
	run(v, PLAT_COMPLETE, ret);
}

/* An event is due whose delivery depends on the CPU state, and that is not known any more. */
static bool needs_cpu(struct hst_vcpu *v)
{
	struct eng_event ev;

	return v->cpu_stale && !hst_is_paused(v->h) &&
	       eng_next_ready(&v->eng, NULL, slot_read(v), &ev) == ENG_READY_NO_CPU;
}

static void enter(struct hst_vcpu *v, enum hst_next how, struct hst_step *ret)
{
	static const enum plat_enter enter[] = {
		[HST_ENTER] = PLAT_ENTER,
		[HST_ENTER_HALTED] = PLAT_ENTER_HALTED,
		[HST_ENTER_RUNNABLE] = PLAT_ENTER_RUNNABLE,
	};
	roff_t arrived[HST_ARRIVED_MAX];
	unsigned n = hst_take_arrived(v, arrived);

	run(v, enter[how], ret);
	ret->ahead_count = n;
	for (unsigned i = 0; i < n; i++)
		ret->ahead[i] = ram_gpa(&v->h->ram, arrived[i]);
}

static void go_on(struct hst_vcpu *v, bool wanted, struct hst_step *ret)
{
	enum hst_next next;

	v->back_wanted |= wanted;
	if (v->back_wanted) {
		if (can_complete(v)) {
			complete(v, ret);
			return;
		}
		v->back_wanted = false;
		back(v, -EINTR, ret);
		return;
	}
	next = hst_next(v);
	if (next == HST_WAIT) {
		*ret = (struct hst_step){.next = HST_DO_WAIT};
	} else if (needs_cpu(v)) {
		/* Not before: what KVM waits for, a load's data, must be there. */
		v->unhalt = next == HST_ENTER_RUNNABLE; /* the entry after that */
		complete(v, ret);
	} else {
		enter(v, next, ret);
	}
}

static void rom_fault(struct hst_vcpu *v)
{
	const struct hst_trouble t = {
		.why = {.code = -EFAULT,
			.text = "an absent page of a read-only memslot was touched, and KVM does "
				"not say which; tell by apf_slot_set that it is one"},
		.gpa = {0},
		.tries = 1,
	};

	hst_pause_for(v->h, &t);
}

/*
 * True: the VM is paused for it. RAM without a source is filled by the kernel, which says no more
 * than that it failed.
 */
static bool no_room(struct hst_vcpu *v)
{
	const struct mem *m = &v->h->mem;
	struct hst_trouble t = {.tries = 1};

	if (!m->ops->room || m->ops->room(m->ctx, &t.why) == 0)
		return false;
	hst_pause_for(v->h, &t);
	return true;
}

/* True: the exit is for the VMM, or the VMM wants its thread: *ret is set. */
static bool take_exit(struct hst_vcpu *v, const struct plat_exit *x, struct hst_step *ret)
{
	bool nothing = x->kind == PLAT_EXIT_KICK || x->kind == PLAT_EXIT_SIGNAL ||
		       x->kind == PLAT_EXIT_ERROR;
	roff_t off;

	v->half = x->cpu.in_instruction;
	v->cpu_stale = false;
	hst_exit(v, &x->cpu, nothing);
	if (x->was_reset)
		hst_vcpu_reset(v);
	switch (x->kind) {
	case PLAT_EXIT_FAULT:
		/* Of memory that has left meanwhile: it finds none when it touches it again. */
		if (!ram_region_at(&v->h->ram, x->roff))
			return false;
		if (vcpu_fault_is_error(v, x->roff)) {
			v->h->plat.ops->pass_fault(v->h->plat.ctx, v->index);
			back(v, -EINTR, ret);
			return true;
		}
		hst_fault(v, x->roff);
		return false;
	case PLAT_EXIT_ROM:
		rom_fault(v);
		return false;
	case PLAT_EXIT_RAM_IO:
		if (!ram_find(&v->h->ram, x->gpa, x->io.len, &off)) {
			/* It has left meanwhile: as an access to no memory is the VMM's. */
			back(v, 0, ret);
			return true;
		}
		hst_ram_io(v, off, &x->io);
		return false;
	case PLAT_EXIT_WRMSR:
		hst_wrmsr(v, x->msr.index, x->msr.value);
		return false;
	case PLAT_EXIT_RDMSR:
		hst_rdmsr(v, x->msr.index);
		return false;
	case PLAT_EXIT_KICK:
		return false;
	case PLAT_EXIT_SIGNAL:
		go_on(v, true, ret);
		return true;
	case PLAT_EXIT_VMM:
		back(v, 0, ret);
		return true;
	case PLAT_EXIT_ERROR:
		if (x->code == -EFAULT && no_room(v))
			return false;
		back(v, x->code, ret);
		return true;
	}
	return false;
}

void hst_vcpu_step(struct hst_vcpu *v, enum hst_did did, const struct plat_exit *x, bool wanted,
		   struct hst_step *ret)
{
	switch (did) {
	case HST_DID_CALL:
		if (v->changed)
			msr_look(v);
		v->changed = false;
		v->called = true;
		break;
	case HST_DID_RUN:
		if (take_exit(v, x, ret))
			return;
		if (!vcpu_is_late(v)) {
			/* The page cache may answer at once. */
			*ret = (struct hst_step){.next = HST_DO_PUMP};
			return;
		}
		go_on(v, wanted, ret);
		ret->leave = true;
		return;
	case HST_DID_WAIT:
		vcpu_back_in_host(v);
		break;
	case HST_DID_PUMP:
		break;
	}
	go_on(v, wanted, ret);
}

bool hst_vcpu_is_at_rest(const struct hst_vcpu *v)
{
	return !v->called;
}

bool hst_vcpu_is_whole(const struct hst_vcpu *v)
{
	return !v->half;
}

void hst_vcpu_finished(struct hst_vcpu *v, const struct plat_exit *x)
{
	v->half = x->cpu.in_instruction;
}

/* Retired faults stay in the books until their page is there; nobody is left who would see it. */
static void forget_faults(struct hst_vcpu *v)
{
	for (uint32_t ix; (ix = v->eng.issue_head) != ENG_NIL;) {
		waiter_unlink(&v->tokens[ix]);
		(void)eng_page_ready(&v->eng, ix);
	}
}

void hst_vcpu_detach(struct hst_vcpu *v)
{
	ASSERT(!v->called);
	hst_vcpu_reset(v);
	forget_faults(v);
	/* pf2's survives an INIT; whoever comes next at this index is another vCPU. */
	(void)eng_wrmsr(&v->eng, &(struct eng_wrmsr_in){.msr = APF_MSR_CTL});
	for (unsigned i = 0; i < HST_KEPT; i++)
		vcpu_keep(v, i, BLOCK_NONE);
	v->kept_walk = false;
	v->areas_again = 0;
	memset(v->area_value, 0, sizeof(v->area_value));
	v->half = false;
	v->back_wanted = false;
	v->changed = true;
	v->cpu = (struct cpu_state){.cpl = 0};
}

void hst_vcpu_call_back(struct hst_vcpu *v)
{
	v->back_wanted = true;
	vcpu_kick(v);
}

bool hst_vcpu_is_called_back(const struct hst_vcpu *v)
{
	return v->back_wanted;
}

/* ---- the serving thread ---- */

static void pause_for(struct hst *h, const struct err *why, gpa_t gpa)
{
	struct hst_trouble t = {.why = *why, .gpa = gpa, .tries = 1};

	hst_pause_for(h, &t);
}

static void serve_touches(struct hst *h, const struct mem_touch *touches, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct err e = {.code = 0};

		if (hst_kernel_touch(h, &touches[i], &e) < 0)
			pause_for(h, &e, ram_gpa(&h->ram, touches[i].off));
	}
}

void hst_serve_step(struct hst *h, const struct mem_touch *touches, int count,
		    const struct err *why)
{
	struct mem_touch later[HST_TOUCHES_MAX];
	unsigned later_count = h->later_count;

	if (count < 0)
		pause_for(h, why, (gpa_t){0});
	/* Who has waited longest comes first. */
	memcpy(later, h->later, sizeof(later));
	h->later_count = 0;
	serve_touches(h, later, later_count);
	serve_touches(h, touches, count > 0 ? (unsigned)count : 0);
	hst_run_timers(h);
}

/* A page may come later by this part of what it took, for the serving thread to see several. */
#define LINGER_SHARE 32u
#define LINGER_MIN_NS (50 * NS_PER_US)
#define LINGER_MAX_NS (2 * NS_PER_MS)

uint64_t hst_linger_ns(const struct hst *h)
{
	uint64_t ns = min_u64(h->read_ns / LINGER_SHARE, LINGER_MAX_NS);

	if (h->cfg.faults != HST_FAULTS_USER || h->standing > 0 || h->stopping ||
	    hst_is_paused(h) || hold_is_on(h) || ns < LINGER_MIN_NS)
		return 0;
	/* Not unless one and a half are likely to come meanwhile. */
	return 2 * h->in_flight * ns >= 3 * h->read_ns ? ns : 0;
}

bool hst_stands_still(const struct hst *h)
{
	return h->standing > 0;
}

/* ---- the evicting thread ---- */

bool hst_evict_step(struct hst *h, struct hst_evicting *e, uint64_t *ret_look_ns)
{
	if (e->working)
		hst_evict_done(h, &e->job);
	e->working = hst_evict_next(h, &e->job);
	if (!e->working)
		*ret_look_ns = evict_next_look_ns(h);
	return e->working;
}
