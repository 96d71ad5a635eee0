/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Performs the engine's events: reads and writes the guest's area through the alias,
 * raises the interrupt or queues the #PF, and looks again where the guest was not
 * ready.
 *
 * Looking again (docs/decisions/0003): a slot that the guest frees by a plain memory
 * write, a local APIC that it switches on, an IF that it sets: none of them is an exit.
 * Every exit of the vCPU is a chance to look; between exits a timer does, each interval
 * twice the last, so that an event is never later than twice what the guest took, and an
 * unresponsive guest costs a few looks per second. Test: tests/unit/host_deliver_test.c.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/deliver.h"
#include "host/fetch.h"
#include "host/kick.h"
#include "host/trace.h"
#include "host/trouble.h"

/* An interrupt handler on an emulated CPL 0 frees its slot within about 100 us. */
#define RECHECK_FIRST_NS (50 * NS_PER_US)
/*
 * int's slot is not that of page missing, so that nothing but the next page ready waits for it, and
 * the tasks that were woken before are soon an exit: seldom is a look between exits needed. Each
 * that an exit was sooner than makes the next one later, since a deadline that went away wakes the
 * thread for nothing; one that was needed starts afresh.
 */
#define RECHECK_FIRST_INT_NS (250 * NS_PER_US)
#define RECHECK_FIRST_INT_MAX_NS (2 * NS_PER_MS)
#define RECHECK_MAX_NS (50 * NS_PER_MS)
/* A look takes a system call, and an event several looks: so often that does not count. */
#define AREA_LOOK_NS (20 * NS_PER_MS)

/* The host has lost its page. Nobody can be told anything: the VM stands still, and says why. */
static bool area_is_lost(struct hst_vcpu *v, roff_t off)
{
	if (v->area_seen_ns && v->now_ns - v->area_seen_ns < AREA_LOOK_NS)
		return false;
	if (!block_page_is_lost(v->h, off)) {
		v->area_seen_ns = v->now_ns;
		return false;
	}
	v->area_seen_ns = 0;
	if (!hst_is_paused(v->h))
		trouble_lost(v->h, off, "a vCPU's area for page fault events lies there");
	return true;
}

/* The guest's area in the alias, 64-byte aligned; NULL when it is not RAM or not there. */
static unsigned char *area(struct hst_vcpu *v)
{
	roff_t off;

	if (!eng_enabled(&v->eng) || !ram_find(&v->h->ram, eng_area_gpa(v->eng.en), 8, &off) ||
	    block_kind(v->h, block_of(v->h, off)) != BLOCK_PRESENT || area_is_lost(v, off))
		return NULL;
	return v->h->mem.alias + off.v;
}

struct eng_slot slot_read(struct hst_vcpu *v)
{
	const unsigned char *p = area(v);
	uint64_t both;

	if (!p)
		return (struct eng_slot){.readable = false};
	/* One load: the guest may write at any time. Pairs with its release store of 0. */
	both = __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_ACQUIRE);
	return (struct eng_slot){true, (uint32_t)both, (uint32_t)(both >> 32)};
}

static void slot_wrote(struct hst_vcpu *v, const unsigned char *p)
{
	hst_wrote(v->h, (roff_t){(uint64_t)(p - v->h->mem.alias)}, 8);
}

void slot_store(struct hst_vcpu *v, const struct eng_store *st)
{
	unsigned char *p = area(v);

	if (!p || st->len == 0)
		return;
	/* Release: whoever takes the event sees the slot. */
	if (st->len == 8)
		__atomic_store_n((uint64_t *)(void *)p, st->value, __ATOMIC_RELEASE);
	else
		__atomic_store_n((uint32_t *)(void *)(p + st->off), (uint32_t)st->value,
				 __ATOMIC_RELEASE);
	slot_wrote(v, p);
}

static bool exchange(unsigned char *p, const struct eng_store *st)
{
	uint64_t whole = st->value;
	uint32_t word = (uint32_t)st->value;

	if (st->len == 8)
		return __atomic_compare_exchange_n((uint64_t *)(void *)p, &whole, 0, false,
						   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	return __atomic_compare_exchange_n((uint32_t *)(void *)(p + st->off), &word, 0, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/*
 * The interrupt was refused: the token must not stay in the slot, or nothing would ever
 * be delivered again. False: the guest has taken it meanwhile, all is well.
 */
static bool slot_take_back(struct hst_vcpu *v, const struct eng_store *st)
{
	unsigned char *p = area(v);

	if (!p)
		return true;
	if (!exchange(p, st))
		return false;
	slot_wrote(v, p);
	return true;
}

static void recheck_later(struct hst_vcpu *v, bool by_vcpu)
{
	struct hst *h = v->h;

	v->recheck_by_vcpu = by_vcpu;
	if (timer_armed(&v->recheck))
		return;
	if (v->recheck_ns == 0)
		v->recheck_ns = v->eng.cfg.rev == APF_REV_INT ? v->recheck_first_ns
							      : RECHECK_FIRST_NS;
	timer_arm(&h->timers, &v->recheck, hst_now(h) + v->recheck_ns);
	v->recheck_ns = min_u64(v->recheck_ns * 2, RECHECK_MAX_NS);
}

static void recheck_stop(struct hst_vcpu *v)
{
	if (timer_armed(&v->recheck))
		v->recheck_first_ns = min_u64(v->recheck_first_ns * 2, RECHECK_FIRST_INT_MAX_NS);
	else if (v->recheck_ns > 0)
		v->recheck_first_ns = RECHECK_FIRST_INT_NS;
	timer_cancel(&v->h->timers, &v->recheck);
	v->recheck_ns = 0;
}

static void recheck_fire(struct timer *tm, uint64_t now_ns)
{
	struct hst_vcpu *v = CONTAINER_OF(tm, struct hst_vcpu, recheck);

	v->now_ns = now_ns;
	v->stats.rechecks++;
	if (v->recheck_by_vcpu && v->where != HST_IN_HOST && !hst_is_paused(v->h)) {
		recheck_later(v, true);
		vcpu_kick(v);
	} else {
		deliver(v, NULL);
	}
}

void pf_queue(struct hst_vcpu *v, struct cpu_state *cpu, const struct eng_event *ev)
{
	const struct plat *p = &v->h->plat;

	p->ops->inject_pf(p->ctx, v->index, ev->token);
	v->queued = *ev;
	cpu->untaken_token = ev->token;
	cpu->event_pending = true;
}

static void trace_withdrawn(const struct hst_vcpu *v, uint32_t token)
{
	trace(v->h, APF_TRACE_WITHDRAWN, v->index, (roff_t){UINT64_MAX}, 0, token);
}

static void pf_cancel(struct hst_vcpu *v)
{
	const struct plat *p = &v->h->plat;

	p->ops->cancel_pf(p->ctx, v->index);
	v->cpu.untaken_token = 0;
	v->cpu.event_pending = false;
}

void pf_drop_forgotten(struct hst_vcpu *v)
{
	if (v->cpu.untaken_token && v->queued.token == 0)
		pf_cancel(v);
}

static bool pf_is_untaken(const struct hst_vcpu *v)
{
	return v->cpu.untaken_token && v->cpu.untaken_token == v->queued.token;
}

void pf_leave_out(const struct hst_vcpu *v, struct hst_stats *s)
{
	if (!pf_is_untaken(v))
		return;
	if ((uint32_t)v->queued.store.value == APF_REASON_MISSING)
		s->missing_events--;
	else if (v->queued.token == APF_TOKEN_WAKE_ALL)
		s->wake_alls--;
	else
		s->ready_events--;
}

void pf_take_back(struct hst_vcpu *v)
{
	struct eng_store store;
	uint32_t ix;

	if (!pf_is_untaken(v))
		return;
	ix = eng_take_back(&v->eng, &v->queued, slot_read(v), &store);
	slot_store(v, &store);
	pf_leave_out(v, &v->stats);
	pf_cancel(v);
	if ((uint32_t)v->queued.store.value == APF_REASON_MISSING)
		trace_withdrawn(v, v->queued.token);
	if (ix != ENG_NIL)
		waiter_unlink(&v->tokens[ix]);
}

void deliver_init(struct hst_vcpu *v)
{
	v->recheck.fire = recheck_fire;
	v->recheck_first_ns = RECHECK_FIRST_INT_NS;
}

static void count_ready(struct hst_vcpu *v, const struct eng_event *ev)
{
	if (ev->how != ENG_HOW_IRQ && ev->how != ENG_HOW_PF)
		return;
	trace(v->h, APF_TRACE_READY, v->index, (roff_t){UINT64_MAX}, 0, ev->token);
	if (ev->token == APF_TOKEN_WAKE_ALL)
		v->stats.wake_alls++;
	else
		v->stats.ready_events++;
}

/* False: the local APIC refused, and the event is as due as before. */
static bool perform(struct hst_vcpu *v, struct cpu_state *cpu, const struct eng_event *ev)
{
	const struct plat *p = &v->h->plat;

	slot_store(v, &ev->store);
	switch (ev->how) {
	case ENG_HOW_IRQ:
		if (p->ops->raise_irq(p->ctx, v->index, ev->vector) > 0)
			break;
		v->stats.ready_refused++;
		if (slot_take_back(v, &ev->store))
			return false;
		break;
	case ENG_HOW_PF:
		pf_queue(v, cpu, ev);
		break;
	case ENG_HOW_CANCEL_PF:
		p->ops->cancel_pf(p->ctx, v->index);
		v->stats.missing_events--; /* the guest never saw it */
		trace_withdrawn(v, ev->token);
		cpu->untaken_token = 0;
		cpu->event_pending = false;
		break;
	case ENG_HOW_NOTHING:
		break;
	}
	return true;
}

/* The area's block was absent (a restored vCPU): on its way now. True: wait for it. */
static bool area_on_its_way(struct hst_vcpu *v)
{
	struct hst *h = v->h;
	bool joined;
	roff_t off;

	if (!eng_enabled(&v->eng) || !ram_find(&h->ram, eng_area_gpa(v->eng.en), 8, &off) ||
	    block_kind(h, block_of(h, off)) == BLOCK_PRESENT)
		return false;
	(void)fetch_for(h, block_of(h, off), v->index, &joined);
	return true;
}

/*
 * The guest has not seen its page missing yet, which may have to be taken back (pf_take_back): it
 * must not find page ready alone. int: its handler empties word 0 first of all; pf2: the slot
 * has no room before that.
 */
static bool comes_too_early(struct hst_vcpu *v, const struct eng_event *ev)
{
	return ev->how == ENG_HOW_IRQ && ev->token == v->queued.token &&
	       (uint32_t)v->queued.store.value == APF_REASON_MISSING &&
	       slot_read(v).reason == APF_REASON_MISSING;
}

void deliver(struct hst_vcpu *v, struct cpu_state *cpu)
{
	struct eng_event ev;

	/*
	 * Who saves a VM that stands still must find slot, APIC and engine in agreement. Going
	 * on kicks every vCPU, and its hst_next looks again.
	 */
	if (hst_is_paused(v->h))
		return;
	if (area_on_its_way(v)) {
		recheck_later(v, false);
		return;
	}

	/* Bounded: each turn sends one event, and faults_max + 1 are there at most. */
	for (;;) {
		struct eng_slot slot = slot_read(v);

		/* The area is lost: what is due stays due. */
		if (!slot.readable && hst_is_paused(v->h))
			return;
		switch (eng_next_ready(&v->eng, cpu, slot, &ev)) {
		case ENG_READY_SEND:
			if (comes_too_early(v, &ev)) {
				/* The handler is about to run, and is no exit. */
				if (v->recheck_ns == 0)
					v->recheck_ns = RECHECK_FIRST_NS;
				recheck_later(v, false);
				return;
			}
			if (!perform(v, cpu, &ev)) {
				recheck_later(v, false);
				return;
			}
			eng_ready_sent(&v->eng, &ev);
			vcpu_unhalt(v);
			count_ready(v, &ev);
			recheck_stop(v);
			break;
		case ENG_READY_NONE:
		case ENG_READY_OFF:
			recheck_stop(v);
			return;
		case ENG_READY_SLOT_BUSY:
			recheck_later(v, false);
			return;
		case ENG_READY_NO_CPU:
			vcpu_kick(v);
			return;
		case ENG_READY_NOT_NOW:
			recheck_later(v, true);
			return;
		}
	}
}
