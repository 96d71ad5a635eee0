/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPU's part: one fault from the exit to the decision how to go on. The phase
 * says what the vCPU thread is in the middle of; hst_next is the only place that moves
 * it on, vcpu_rest the one that ends it early. Test: tests/unit/host_vcpu_test.c.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "host/block.h"
#include "host/deliver.h"
#include "host/fetch.h"
#include "host/hold.h"
#include "host/keep.h"
#include "host/kick.h"
#include "host/msr.h"
#include "host/trace.h"
#include "host/trouble.h"
#include "host/vcpu.h"
#include "host/wait.h"

/* Faults in a row on memory that is there: after so many it is shown again, then the VM pauses. */
#define REDUNDANT_AGAIN 16u
#define REDUNDANT_MAX 4096u
/*
 * An interrupt that ends a stall leaves a read behind; a guest that goes on to touch other
 * pages can use up all fetches. Then it stands still this long, and touches again.
 */
#define CROWDED_NS NS_PER_MS

static void back_in_host(struct hst_vcpu *v)
{
	vcpu_back_in_host(v);
	while (v->arrived_kept > 0)
		vcpu_keep(v, HST_KEPT_ARRIVED + --v->arrived_kept, BLOCK_NONE);
}

void hst_exit(struct hst_vcpu *v, const struct cpu_state *cpu, bool kick_only)
{
	back_in_host(v);
	v->cpu = *cpu;
	pf_drop_forgotten(v);
	hold_keep_instruction(v);
	if (!kick_only) {
		/* "In a row" means with no other exit between. */
		if (!v->redundant_last)
			v->redundant_run = 0;
		v->redundant_last = false;
		v->halted = false;
	}
	if (v->phase == HST_PHASE_STALL && !kick_only)
		/* An interrupt ended the halt; if the guest still needs the block it comes back. */
		vcpu_wait_over(v, hst_now(v->h));
}

/* How long this fault may wait before it becomes an event. */
static uint64_t grace_for(const struct hst_vcpu *v)
{
	const struct hst_cfg *cfg = &v->h->cfg;
	const struct hst_fetch *f = v->sync.fetch;

	switch (cfg->faults) {
	case HST_FAULTS_BLOCK:
	case HST_FAULTS_KERNEL:
		return NS_NEVER;
	case HST_FAULTS_STALL:
		return 0;
	case HST_FAULTS_USER:
		break;
	}
	if (f->sampled)
		return 0; /* somebody has waited this one's window out already */
	if (cfg->grace_ns != HST_GRACE_AUTO)
		return cfg->grace_ns;
	return f->backing ? grace_ns(&f->backing->grace) : GRACE_WORTH_NS;
}

bool vcpu_fault_is_error(struct hst_vcpu *v, roff_t off)
{
	/*
	 * A poison marker and lost memory look alike; asked where there should be neither, and
	 * before it is shown once more, which fails (UFFDIO_CONTINUE: EIO).
	 */
	return (v->redundant_run + 1) % REDUNDANT_AGAIN == 0 &&
	       block_kind(v->h, block_of(v->h, off)) == BLOCK_PRESENT &&
	       block_page_is_lost(v->h, off);
}

static void redundant_fault(struct hst_vcpu *v, roff_t off)
{
	struct hst *h = v->h;
	uint32_t block = block_of(h, off);

	v->stats.redundant++;
	v->redundant_last = true;
	v->redundant_run++;
	if (v->redundant_run % REDUNDANT_AGAIN == 0 && fetch_room(h))
		fetch_present_again(h, block, MEM_VIEW_GUEST);
	if (v->redundant_run >= REDUNDANT_MAX) {
		struct hst_trouble t = {
			.why = {.code = -EFAULT,
				.text = "the kernel keeps reporting a page as missing that is "
					"there"},
			.gpa = ram_gpa(&h->ram, off),
			.tries = v->redundant_run,
		};

		v->redundant_run = 0;
		hst_pause_for(h, &t);
	}
}

/*
 * The first touch of a page says nothing about it: the guest's kernel clears every page. A page
 * that was taken away, and is wanted again, shows who needs it (evict.c).
 */
static void note_mode(struct hst_vcpu *v, uint32_t block)
{
	struct hst *h = v->h;

	enum block_kind kind = block_kind(h, block);

	/* Repeated faults during a fetch, one after each interrupt, carry no information. */
	if (!block_is(h, block, BLOCK_SEEN) || kind == BLOCK_PRESENT || kind == BLOCK_FETCHING)
		return;
	if (v->cpu.cpl == 0) {
		h->blocks[block] |= BLOCK_KERNEL;
		v->stats.refaults_kernel_mode++;
	} else {
		h->blocks[block] &= ~BLOCK_KERNEL;
	}
}

void hst_fault(struct hst_vcpu *v, roff_t off)
{
	struct hst *h = v->h;
	uint32_t block = block_of(h, off);
	uint64_t grace;

	v->stats.faults_total++;
	note_mode(v, block);
	if (block_kind(h, block) != BLOCK_PRESENT && block_kind(h, block) != BLOCK_FETCHING &&
	    !fetch_room(h)) {
		v->crowded_until_ns = hst_now(h) + CROWDED_NS;
		return;
	}
	if (!vcpu_wait_for(v, off, HST_PHASE_GRACE)) {
		redundant_fault(v, off);
		return;
	}
	v->redundant_run = 0;
	grace = grace_for(v);
	v->grace_until_ns = grace == NS_NEVER ? NS_NEVER : v->phase_since_ns + grace;
}

void hst_ram_io(struct hst_vcpu *v, roff_t off, const struct plat_io *io)
{
	v->stats.faults_total++;
	note_mode(v, block_of(v->h, off));
	if (io->write) {
		struct hst_store *st = &v->stores[v->store_count++];

		/* drive.c stops asking KVM for more before they are too many. */
		ASSERT(v->store_count <= HST_STORES_MAX && io->len <= sizeof(st->data));
		*st = (struct hst_store){.off = off, .len = io->len};
		memcpy(&st->data, io->data, io->len);
		return;
	}
	v->load = *io;
	if (vcpu_wait_for(v, off, HST_PHASE_LOAD))
		return;
	/* There, but perhaps not any more when the access is carried out: hst_next looks. */
	v->stats.redundant++;
	v->sync_done = true;
	v->phase = HST_PHASE_LOAD;
	v->fault_off = off;
	v->phase_since_ns = hst_now(v->h);
}

/* In one piece where it is aligned: the guest relies on it. */
static void access_alias(unsigned char *p, void *data, uint32_t len, bool write)
{
	bool aligned = (uintptr_t)p % len == 0;
	uint64_t x = 0;

	if (write)
		memcpy(&x, data, len);
	if (aligned && len == 8) {
		if (write)
			__atomic_store_n((uint64_t *)(void *)p, x, __ATOMIC_RELEASE);
		else
			x = __atomic_load_n((uint64_t *)(void *)p, __ATOMIC_ACQUIRE);
	} else if (aligned && len == 4) {
		if (write)
			__atomic_store_n((uint32_t *)(void *)p, (uint32_t)x, __ATOMIC_RELEASE);
		else
			x = __atomic_load_n((uint32_t *)(void *)p, __ATOMIC_ACQUIRE);
	} else if (write) {
		memcpy(p, &x, len);
	} else {
		memcpy(&x, p, len);
	}
	if (!write)
		memcpy(data, &x, len);
}

/* What the guest accesses is lost, and not for us to make up: the VM stands still before it. */
static bool is_lost(struct hst_vcpu *v, roff_t off, const char *what)
{
	if (!block_page_is_lost(v->h, off))
		return false;
	if (!hst_is_paused(v->h))
		trouble_lost(v->h, off, what);
	return true;
}

static void carry_out_load(struct hst_vcpu *v)
{
	if (v->left) {
		/* As where there never was memory. */
		memset(v->load.data, 0xff, v->load.len);
		return;
	}
	access_alias(v->h->mem.alias + v->fault_off.v, v->load.data, v->load.len, false);
}

/*
 * What the guest has stored must be there before it goes on. True: it is not, and waits. Also
 * called when the block has come, whether the vCPU runs or is at rest: whoever reads the memory
 * after its registers must find the store.
 */
static bool stores_wait(struct hst_vcpu *v)
{
	while (v->store_count > 0) {
		struct hst_store *st = &v->stores[0];

		if (vcpu_wait_for(v, st->off, HST_PHASE_STORE) ||
		    is_lost(v, st->off, "the guest stores to it"))
			return true;
		access_alias(v->h->mem.alias + st->off.v, &st->data, st->len, true);
		hst_wrote(v->h, st->off, st->len);
		v->store_count--;
		memmove(st, st + 1, v->store_count * sizeof(*st));
	}
	return false;
}

void vcpu_memory_left(struct hst_vcpu *v, uint32_t from, uint32_t end)
{
	uint32_t at = block_of(v->h, v->fault_off), kept = 0;

	for (uint32_t i = 0; i < v->store_count; i++) {
		uint32_t block = block_of(v->h, v->stores[i].off);

		if (block < from || block >= end)
			v->stores[kept++] = v->stores[i];
	}
	v->store_count = kept;
	v->left |= v->phase != HST_PHASE_RUN && at >= from && at < end;
}

/* The phase ends without its block; the guest comes back for what it still needs. */
static void drop_phase(struct hst_vcpu *v)
{
	waiter_unlink(&v->sync);
	v->sync_done = false;
	if (v->phase != HST_PHASE_RUN)
		vcpu_wait_over(v, hst_now(v->h));
}

bool vcpu_is_late(const struct hst_vcpu *v)
{
	const struct hst_fetch *f = v->sync.fetch;

	return v->phase == HST_PHASE_GRACE && f && f->state == HST_FETCH_READING && f->rd.late;
}

void vcpu_stores_begin(struct hst_vcpu *v)
{
	(void)stores_wait(v);
}

/* INIT clears them, and with them what the guest was told. */
static void forget_registers(struct hst_vcpu *v)
{
	v->queued.token = 0;
	eng_reset(&v->eng);
	vcpu_keep_area(v);
}

void hst_vcpu_reset(struct hst_vcpu *v)
{
	/*
	 * Whatever it was waiting for, an EN write among it, it is not doing any more. But what it
	 * has stored is stored.
	 */
	if (v->phase != HST_PHASE_STORE)
		drop_phase(v);
	forget_registers(v);
	/* Its thread may wait for what was dropped. */
	vcpu_kick(v);
}

/*
 * Before the VMM may look at the vCPU. What KVM has half done stays as it is, in the phase: an
 * access or a register write that has not taken effect, which the guest would make again
 * elsewhere.
 */
void vcpu_rest(struct hst_vcpu *v)
{
	back_in_host(v);
	v->halted = false;
	if (v->phase == HST_PHASE_GRACE || v->phase == HST_PHASE_STALL)
		drop_phase(v);
	timer_cancel(&v->h->timers, &v->wake);
	pf_take_back(v);
}

/* ---- on we go ---- */

/*
 * Nothing may be sent. pf2-strict has the fault in its books all the same: then the block has two
 * waiters, this halt and the fault, whose page ready comes whether or not the halt lasts so long.
 */
static void stall(struct hst_vcpu *v, gfn_t gfn)
{
	uint32_t ix;

	v->phase = HST_PHASE_STALL;
	trace(v->h, APF_TRACE_HALT, v->index, v->fault_off, 0, 0);
	v->stall_event = v->cpu.event_pending;
	v->stall_by_text = false;
	if (v->h->cfg.faults != HST_FAULTS_USER)
		return;
	switch (eng_halt(&v->eng, &v->cpu, slot_read(v), gfn, &ix)) {
	case ENG_HALT_SILENT:
		return;
	case ENG_HALT_JOINED:
		break;
	case ENG_HALT_ENTERED:
		waiter_link(&v->tokens[ix], v->sync.fetch, v->sync.since_ns);
		break;
	}
	v->stall_by_text = true;
}

/* The window is over: tell the guest if it may be told, else halt the vCPU. */
static void announce_or_stall(struct hst_vcpu *v, uint64_t now)
{
	struct hst *h = v->h;
	struct hst_fetch *f = v->sync.fetch;
	gfn_t gfn = gpa_to_gfn(ram_gpa(&h->ram, v->fault_off));
	enum eng_verdict w = ENG_NOT_ENABLED;
	struct eng_event ev;
	uint32_t ix;

	/*
	 * A window that was waited out tells that this read is slow. One that was not even
	 * opened tells nothing: then the read itself will, or a source once slow would
	 * stay slow for ever.
	 */
	if (f->backing && !f->sampled && now - v->phase_since_ns >= GRACE_WORTH_NS) {
		grace_sample(&f->backing->grace, NS_NEVER);
		f->sampled = true;
	}
	if (h->cfg.faults == HST_FAULTS_USER)
		w = eng_may_send_missing(&v->eng, &v->cpu, slot_read(v));
	if (w != ENG_MAY_SEND) {
		v->stats.stalls++;
		v->stats.stall_why[w]++;
		stall(v, gfn);
		return;
	}
	ix = eng_send_missing(&v->eng, gfn, &ev);
	slot_store(v, &ev.store);
	pf_queue(v, &v->cpu, &ev);
	v->stats.missing_events++;
	trace(h, APF_TRACE_TOLD, v->index, v->fault_off, 0, ev.token);
	waiter_unlink(&v->sync);
	waiter_link(&v->tokens[ix], f, v->sync.since_ns);
	vcpu_wait_over(v, now);
}

/* Until a kick: whatever ends a wait kicks. */
static enum hst_next wait(struct hst_vcpu *v)
{
	vcpu_in_wait(v);
	return HST_WAIT;
}

/*
 * A deadline is the driver's own timer, not a time-out of the waiting thread: most grace
 * windows end early, and a thread that arms and disarms a timer of its own for each fault
 * pays for it with guest time.
 */
static enum hst_next wait_until(struct hst_vcpu *v, uint64_t until_ns)
{
	if (until_ns != NS_NEVER)
		timer_arm(&v->h->timers, &v->wake, until_ns);
	return wait(v);
}

static void wake_fire(struct timer *tm, uint64_t now_ns)
{
	(void)now_ns;
	vcpu_kick(CONTAINER_OF(tm, struct hst_vcpu, wake));
}

static enum hst_next enter(struct hst_vcpu *v, enum hst_next how)
{
	/* Its area has been found lost on the way here. */
	if (hst_is_paused(v->h))
		return wait(v);
	hold_let_go_instruction(v);
	/* A halt that a reset has left behind ends with it; pf2-strict: a HLT with page ready. */
	if (how == HST_ENTER && (v->halted || v->unhalt) && v->phase != HST_PHASE_STALL)
		how = HST_ENTER_RUNNABLE;
	v->unhalt = false;
	if (how != HST_ENTER)
		v->halted = how == HST_ENTER_HALTED;
	vcpu_in_guest(v);
	return how;
}

/* Its block is there; or pf2-strict takes it for there, and the guest touches it again. */
static bool stall_is_over(const struct hst_vcpu *v)
{
	return v->sync_done || (v->stall_by_text && v->unhalt);
}

/* Halted by us, and not in the guest just now. */
static enum hst_next next_stalled(struct hst_vcpu *v, bool fresh, uint64_t now)
{
	uint32_t untaken;

	if (stall_is_over(v)) {
		vcpu_wait_over(v, now);
		deliver(v, &v->cpu);
		return enter(v, HST_ENTER_RUNNABLE);
	}
	untaken = v->cpu.untaken_token;
	deliver(v, &v->cpu);
	if (stall_is_over(v)) {
		vcpu_wait_over(v, now);
		return enter(v, HST_ENTER_RUNNABLE);
	}
	if (v->cpu.untaken_token && v->cpu.untaken_token != untaken) {
		/* A page-ready #PF for another task; the fault at hand comes back after it. */
		vcpu_wait_over(v, now);
		return enter(v, HST_ENTER_RUNNABLE);
	}
	if (v->cpu.event_pending && v->stall_event)
		/* Half-delivered event: halting would run it again and again. Wait outside. */
		return wait(v);
	if (v->cpu.event_pending) {
		/* Accepted since: KVM delivers it only to a vCPU that is not halted. */
		vcpu_wait_over(v, now);
		return enter(v, HST_ENTER_RUNNABLE);
	}
	return enter(v, fresh ? HST_ENTER_HALTED : HST_ENTER);
}

/* The block that the phase waited for has been taken away since. True: wait once more. */
static bool gone_again(struct hst_vcpu *v)
{
	enum hst_phase phase = v->phase;

	if (block_kind(v->h, block_of(v->h, v->fault_off)) == BLOCK_PRESENT)
		return false;
	vcpu_wait_over(v, hst_now(v->h));
	return vcpu_wait_for(v, v->fault_off, phase);
}

/*
 * A fault in its grace window. True: it waits on. False: the block has come, or the window is over
 * and the guest has been told or the vCPU is halted.
 */
static bool in_grace(struct hst_vcpu *v, uint64_t now)
{
	if (v->sync_done) {
		vcpu_wait_over(v, now);
		if (v->grace_until_ns == NS_NEVER)
			v->stats.blocked++;
		else
			v->stats.graced++;
		return false;
	}
	if (now < v->grace_until_ns)
		return true;
	announce_or_stall(v, now);
	return false;
}

/* Carries out the access or register write that the vCPU waited with. False: it waits on. */
static bool waited(struct hst_vcpu *v, uint64_t now)
{
	bool writes = v->phase == HST_PHASE_WRMSR, left = v->left;

	if (!left && (!v->sync_done || gone_again(v)))
		return false;
	if (!left && v->phase == HST_PHASE_LOAD &&
	    is_lost(v, v->fault_off, "the guest loads from it"))
		return false;
	if (v->phase == HST_PHASE_LOAD)
		carry_out_load(v);
	vcpu_wait_over(v, now);
	if (writes)
		/* It may name more that is absent, and there may be other memory by now. */
		hst_wrmsr(v, v->msr.index, v->msr.value);
	return v->phase == HST_PHASE_RUN;
}

enum hst_next hst_next(struct hst_vcpu *v)
{
	struct hst *h = v->h;
	uint64_t now = hst_now(h);
	bool fresh_stall = false;

	back_in_host(v);
	v->now_ns = now;
	if (hst_is_paused(h) || hold_is_on(h))
		return wait(v);
	if (now < v->crowded_until_ns)
		return wait_until(v, v->crowded_until_ns);
	/* The kernel writes there while the vCPU is halted, too; the fault comes back. */
	if ((v->phase == HST_PHASE_GRACE || v->phase == HST_PHASE_STALL) && areas_due(v))
		drop_phase(v);
	if (v->phase == HST_PHASE_GRACE) {
		if (in_grace(v, now))
			return wait_until(v, v->grace_until_ns);
		fresh_stall = v->phase == HST_PHASE_STALL;
	}
	switch (v->phase) {
	case HST_PHASE_STALL:
		return next_stalled(v, fresh_stall, now);
	case HST_PHASE_STORE:
		return wait(v); /* whoever brings the block carries it out */
	case HST_PHASE_LOAD:
	case HST_PHASE_WRMSR:
	case HST_PHASE_AREA:
		if (!waited(v, now))
			return wait(v);
		break;
	case HST_PHASE_RUN:
	case HST_PHASE_GRACE:
		break;
	}
	if (stores_wait(v) || areas_wait(v))
		return wait(v);
	/* What the VMM may have changed is asked for before it decides anything: drive.c. */
	deliver(v, v->cpu_stale ? NULL : &v->cpu);
	return enter(v, HST_ENTER);
}

static void note_arrived(struct hst_vcpu *v, roff_t off)
{
	if (v->arrived_count < HST_ARRIVED_MAX)
		v->arrived[v->arrived_count++] = off;
}

unsigned hst_take_arrived(struct hst_vcpu *v, roff_t *ret)
{
	const struct hst *h = v->h;
	unsigned n = 0;

	ASSERT(v->where == HST_IN_GUEST);
	for (unsigned i = 0; i < v->arrived_count; i++) {
		uint32_t block = block_of(h, v->arrived[i]);

		if (block_kind(h, block) != BLOCK_PRESENT)
			continue;
		/* No vCPU is held while memory is discarded. */
		vcpu_keep(v, HST_KEPT_ARRIVED + n, block);
		ret[n++] = v->arrived[i];
	}
	v->arrived_count = 0;
	v->arrived_kept = n;
	return n;
}

/* The page of a fault in the engine's books. */
static void token_ready(struct hst_vcpu *v, uint32_t ix)
{
	struct hst *h = v->h;
	roff_t off;

	/* For one that halted the vCPU, the halt has its own waiter. */
	if (v->eng.faults[ix].state != ENG_FAULT_HALTED &&
	    ram_find(&h->ram, (gpa_t){v->eng.faults[ix].gfn << PAGE_SHIFT}, 1, &off))
		note_arrived(v, off);
	if (!eng_page_ready(&v->eng, ix)) {
		v->stats.ready_late++;
		return;
	}
	vcpu_unhalt(v);
	/* Whichever thread brought the block; what needs the CPU state waits for hst_next. */
	deliver(v, NULL);
}

/* The waiter is unlinked. */
static void block_ready(struct hst *h, struct hst_waiter *w, uint64_t now)
{
	struct hst_vcpu *v = w->v;

	v->now_ns = now;
	/* A fault that halted the vCPU was waited for once. */
	if (w != &v->sync && v->eng.faults[w - v->tokens].state == ENG_FAULT_HALTED) {
		token_ready(v, (uint32_t)(w - v->tokens));
		return;
	}
	v->wait_hist[hist_bucket((now - w->since_ns) / NS_PER_US)]++;
	v->stats.wait_max_ns = max_u64(v->stats.wait_max_ns, now - w->since_ns);
	if (w == &v->sync) {
		if (v->phase == HST_PHASE_GRACE || v->phase == HST_PHASE_STALL)
			note_arrived(v, v->fault_off);
		else if (v->phase != HST_PHASE_RUN)
			v->stats.blocked++;
		v->sync_done = true;
		timer_cancel(&h->timers, &v->wake);
		if (v->phase == HST_PHASE_STORE) {
			vcpu_wait_over(v, now);
			if (stores_wait(v))
				return;
			vcpu_kick(v);
			return;
		}
		/* Stalled or waiting, it must look; a guest that has gone on needs nothing. */
		if (v->phase != HST_PHASE_RUN)
			vcpu_kick(v);
		return;
	}
	token_ready(v, (uint32_t)(w - v->tokens));
}

void vcpu_init(struct hst_vcpu *v)
{
	v->wake.fire = wake_fire;
	v->sync.v = v;
	v->sync.ready = block_ready;
	for (uint32_t i = 0; i < v->h->cfg.faults_max; i++) {
		v->tokens[i].v = v;
		v->tokens[i].ready = block_ready;
	}
	/* Until it has run the VMM may have restored anything. */
	v->changed = true;
	for (unsigned i = 0; i < HST_KEPT; i++)
		v->kept[i] = BLOCK_NONE;
}
