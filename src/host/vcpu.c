/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPU's part: one fault from the exit to the decision how to go on. The phase
 * says what the vCPU thread is in the middle of; hst_next is the only place that moves
 * it on. Test: tests/unit/host_vcpu_test.c.
 */
#include "base/assert.h"
#include "host/internal.h"

/* A guest that faults this often in a row on memory that is there: show it once more, then pause.
 */
#define REDUNDANT_AGAIN 16u
#define REDUNDANT_MAX 4096u
/*
 * An interrupt that ends a stall leaves a read behind; a guest that goes on to touch other
 * pages can use up all fetches. Then it stands still this long, and touches again.
 */
#define CROWDED_NS NS_PER_MS

void vcpu_kick(struct hst_vcpu *v)
{
	if (v->where == HST_IN_HOST || v->kicked)
		return;
	v->kicked = true;
	v->h->plat.ops->kick(v->h->plat.ctx, v->index);
}

void vcpu_kick_all(struct hst *h)
{
	for (unsigned i = 0; i < h->cfg.vcpus; i++)
		vcpu_kick(&h->vcpus[i]);
}

static void back_in_host(struct hst_vcpu *v)
{
	v->where = HST_IN_HOST;
	v->kicked = false;
}

static void wait_over(struct hst_vcpu *v, uint64_t now)
{
	uint64_t ns = now - v->phase_since_ns;

	timer_cancel(&v->h->timers, &v->wake);
	v->stats.host_wait_ns += ns;
	if (v->phase == HST_PHASE_STALL && v->phase_kernel_mode)
		v->stats.stall_kernel_mode_ns += ns;
	else if (v->phase == HST_PHASE_STALL)
		v->stats.stall_other_ns += ns;
	v->phase = HST_PHASE_RUN;
}

void hst_exit(struct hst_vcpu *v, const struct cpu_state *cpu, bool kick_only)
{
	back_in_host(v);
	v->cpu = *cpu;
	hold_instruction(v);
	if (!kick_only) {
		/* "In a row" means with no other exit between. */
		if (!v->redundant_last)
			v->redundant_run = 0;
		v->redundant_last = false;
	}
	if (v->phase == HST_PHASE_STALL && !kick_only)
		/* An interrupt ended the halt; if the guest still needs the block it comes back. */
		wait_over(v, hst_now(v->h));
}

/* Begins to wait for the block of off; false: it is there. */
static bool begin_wait(struct hst_vcpu *v, roff_t off, enum hst_phase phase)
{
	struct hst *h = v->h;
	uint32_t block = block_of(h, off);
	uint64_t now = hst_now(h);
	struct hst_fetch *f;
	bool joined, read;

	ASSERT(v->phase == HST_PHASE_RUN && off.v < h->mem.bytes);
	waiter_unlink(&v->sync);
	v->sync_done = false;
	if (block_kind(h, block) == BLOCK_PRESENT)
		return false;
	read = block_kind(h, block) == BLOCK_ABSENT && block_is(h, block, BLOCK_IN_SWAP);
	f = fetch_for(h, block, v->index, &joined);
	v->stats.joined += joined;
	waiter_link(&v->sync, f, now);
	if (read && v->cpu.cpl == 0)
		fetch_around(h, block);
	v->phase = phase;
	v->fault_off = off;
	v->phase_since_ns = now;
	v->phase_kernel_mode = v->cpu.cpl == 0;
	return true;
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

static void redundant_fault(struct hst_vcpu *v, roff_t off)
{
	struct hst *h = v->h;
	uint32_t block = block_of(h, off);

	v->stats.redundant++;
	v->redundant_last = true;
	v->redundant_run++;
	if (v->redundant_run % REDUNDANT_AGAIN == 0 && fetch_room(h))
		fetch_present_again(h, block);
	if (v->redundant_run >= REDUNDANT_MAX) {
		struct hst_trouble t = {
			.why = {.code = -14 /* EFAULT */,
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

	/* Who comes again while it is on its way, after each interrupt, tells nothing new. */
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
	if (!begin_wait(v, off, HST_PHASE_GRACE)) {
		redundant_fault(v, off);
		return;
	}
	v->redundant_run = 0;
	grace = grace_for(v);
	v->grace_until_ns = grace == NS_NEVER ? NS_NEVER : v->phase_since_ns + grace;
}

void hst_ram_io(struct hst_vcpu *v, roff_t off)
{
	v->stats.faults_total++;
	note_mode(v, block_of(v->h, off));
	if (begin_wait(v, off, HST_PHASE_RAM_IO))
		return;
	/* There, but perhaps not any more when the access is carried out: hst_next looks. */
	v->stats.redundant++;
	v->sync_done = true;
	v->phase = HST_PHASE_RAM_IO;
	v->fault_off = off;
	v->phase_since_ns = hst_now(v->h);
}

/* ---- registers ---- */

/* The memory that a register write names; false: none, or no RAM. */
static bool named_memory(const struct hst_vcpu *v, uint32_t msr, uint64_t value, roff_t *ret)
{
	enum pv_area area = pv_area_of(msr);
	int on = 0;

	if (msr == APF_MSR_EN)
		return (value & APF_EN_ENABLED) &&
		       ram_find(&v->h->ram, eng_area_gpa(value), 8, ret);
	return area != PV_AREAS &&
	       ram_find(&v->h->ram, (gpa_t){pv_area_gpa(area, value, &on)}, 1, ret) && on;
}

void vcpu_keep(struct hst_vcpu *v, unsigned entry, uint32_t block)
{
	uint32_t before = v->kept[entry];
	bool kept = block == BLOCK_NONE || block_keep(v->h, block);

	/* vCPUs and hst_hold together cannot use up a block's count. */
	_Static_assert(HST_VCPUS_MAX * HST_KEPT + HST_HOLDS_MAX < UINT16_MAX, "no entry refused");
	ASSERT(kept);
	v->kept[entry] = block;
	if (before != BLOCK_NONE)
		block_let_go(v->h, before);
}

void vcpu_keep_area(struct hst_vcpu *v)
{
	roff_t off;
	bool on = eng_enabled(&v->eng) && ram_find(&v->h->ram, eng_area_gpa(v->eng.en), 8, &off);

	vcpu_keep(v, HST_KEPT_AREA, on ? block_of(v->h, off) : BLOCK_NONE);
}

/* The kernel writes there from now on. */
static void apply_pv(struct hst_vcpu *v, uint32_t msr, uint64_t value)
{
	const struct plat *p = &v->h->plat;
	roff_t off;
	int rc = p->ops->set_msr(p->ctx, v->index, msr, value);

	if (rc == 0)
		vcpu_keep(v, pv_area_of(msr),
			  named_memory(v, msr, value, &off) ? block_of(v->h, off) : BLOCK_NONE);
	p->ops->finish_msr(p->ctx, v->index, 0, rc < 0);
}

static void apply_wrmsr(struct hst_vcpu *v, uint32_t msr, uint64_t value)
{
	struct hst *h = v->h;
	struct eng_wrmsr_in in = {.msr = msr, .value = value};
	roff_t off;
	enum eng_wrmsr r;

	if (pv_area_of(msr) != PV_AREAS) {
		apply_pv(v, msr, value);
		return;
	}
	if (msr == APF_MSR_EN)
		in.area_ok = ram_find(&h->ram, eng_area_gpa(value), 8, &off);
	r = eng_wrmsr(&v->eng, &in);
	vcpu_keep_area(v);
	if (r == ENG_WRMSR_ENABLED && eng_zeroes_area(&v->eng))
		slot_store(v, &(struct eng_store){.off = 0, .len = 8, .value = 0});
	if (msr == APF_MSR_ACK)
		v->ack_missed = false;
	h->plat.ops->finish_msr(h->plat.ctx, v->index, 0, r == ENG_WRMSR_GP);
}

void hst_wrmsr(struct hst_vcpu *v, uint32_t msr, uint64_t value)
{
	roff_t off;

	/* Memory must be there before we, or the kernel, write into it. */
	if (named_memory(v, msr, value, &off) && begin_wait(v, off, HST_PHASE_WRMSR)) {
		v->msr.index = msr;
		v->msr.value = value;
		return;
	}
	apply_wrmsr(v, msr, value);
}

void hst_rdmsr(struct hst_vcpu *v, uint32_t msr)
{
	const struct plat *p = &v->h->plat;
	uint64_t value = 0;
	bool ok = eng_rdmsr(&v->eng, msr, &value);

	p->ops->finish_msr(p->ctx, v->index, value, !ok);
}

void hst_vcpu_reset(struct hst_vcpu *v)
{
	/* Whatever it was waiting for, an EN write among it, it is not doing any more. */
	waiter_unlink(&v->sync);
	if (v->phase != HST_PHASE_RUN)
		wait_over(v, hst_now(v->h));
	eng_reset(&v->eng);
	vcpu_keep_area(v);
}

/* ---- on we go ---- */

/* The window is over: tell the guest if it may be told, else halt the vCPU. */
static void announce_or_stall(struct hst_vcpu *v, uint64_t now)
{
	struct hst *h = v->h;
	struct hst_fetch *f = v->sync.fetch;
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
		v->phase = HST_PHASE_STALL;
		return;
	}
	ix = eng_send_missing(&v->eng, gpa_to_gfn(ram_gpa(&h->ram, v->fault_off)), &ev);
	slot_store(v, &ev.store);
	h->plat.ops->inject_pf(h->plat.ctx, v->index, ev.token);
	v->cpu.untaken_token = ev.token;
	v->cpu.event_pending = true;
	v->stats.missing_events++;
	waiter_unlink(&v->sync);
	waiter_link(&v->tokens[ix], f, v->sync.since_ns);
	wait_over(v, now);
}

/* Until a kick: whatever ends a wait kicks. */
static enum hst_next wait(struct hst_vcpu *v)
{
	v->where = HST_IN_WAIT;
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

void vcpu_init(struct hst_vcpu *v)
{
	v->wake.fire = wake_fire;
	for (unsigned i = 0; i < HST_KEPT; i++)
		v->kept[i] = BLOCK_NONE;
}

static enum hst_next enter(struct hst_vcpu *v, enum hst_next how)
{
	hold_no_instruction(v);
	v->where = HST_IN_GUEST;
	return how;
}

/* Halted by us, and not in the guest just now. */
static enum hst_next next_stalled(struct hst_vcpu *v, bool fresh, uint64_t now)
{
	uint32_t untaken;

	if (v->sync_done) {
		wait_over(v, now);
		deliver(v, &v->cpu);
		return enter(v, HST_ENTER_RUNNABLE);
	}
	untaken = v->cpu.untaken_token;
	deliver(v, &v->cpu);
	if (v->cpu.untaken_token && v->cpu.untaken_token != untaken) {
		/* A page-ready #PF for another task; the fault at hand comes back after it. */
		wait_over(v, now);
		return enter(v, HST_ENTER_RUNNABLE);
	}
	if (v->cpu.event_pending)
		/* Half-delivered event: halting would run it again and again. Wait outside. */
		return wait(v);
	return enter(v, fresh ? HST_ENTER_HALTED : HST_ENTER);
}

/* The block that the phase waited for has been taken away since. True: wait once more. */
static bool gone_again(struct hst_vcpu *v)
{
	enum hst_phase phase = v->phase;

	if (block_kind(v->h, block_of(v->h, v->fault_off)) == BLOCK_PRESENT)
		return false;
	wait_over(v, hst_now(v->h));
	return begin_wait(v, v->fault_off, phase);
}

enum hst_next hst_next(struct hst_vcpu *v)
{
	struct hst *h = v->h;
	uint64_t now = hst_now(h);
	bool fresh_stall = false;

	back_in_host(v);
	if (hst_is_paused(h) || h->evict.hold.on)
		return wait(v);
	if (now < v->crowded_until_ns)
		return wait_until(v, v->crowded_until_ns);
	if (v->phase == HST_PHASE_GRACE) {
		if (v->sync_done) {
			wait_over(v, now);
			if (v->grace_until_ns == NS_NEVER)
				v->stats.blocked++;
			else
				v->stats.graced++;
		} else if (now < v->grace_until_ns) {
			return wait_until(v, v->grace_until_ns);
		} else {
			announce_or_stall(v, now);
			fresh_stall = v->phase == HST_PHASE_STALL;
		}
	}
	switch (v->phase) {
	case HST_PHASE_STALL:
		return next_stalled(v, fresh_stall, now);
	case HST_PHASE_RAM_IO:
	case HST_PHASE_WRMSR:
		if (!v->sync_done || gone_again(v))
			return wait(v);
		v->stats.blocked++;
		if (v->phase == HST_PHASE_WRMSR)
			apply_wrmsr(v, v->msr.index, v->msr.value);
		wait_over(v, now);
		break;
	case HST_PHASE_RUN:
	case HST_PHASE_GRACE:
		break;
	}
	deliver(v, &v->cpu);
	return enter(v, HST_ENTER);
}

static void note_came(struct hst_vcpu *v, roff_t off)
{
	if (v->came_count < HST_CAME_MAX)
		v->came[v->came_count++] = off;
}

unsigned hst_take_came(struct hst_vcpu *v, roff_t *ret)
{
	const struct hst *h = v->h;
	unsigned n = 0;

	ASSERT(v->where == HST_IN_GUEST);
	for (unsigned i = 0; i < v->came_count; i++)
		if (block_kind(h, block_of(h, v->came[i])) == BLOCK_PRESENT)
			ret[n++] = v->came[i];
	v->came_count = 0;
	return n;
}

void vcpu_block_ready(struct hst_waiter *w, uint64_t now)
{
	struct hst_vcpu *v = w->v;
	uint32_t ix;
	roff_t off;

	v->wait_hist[hist_bucket((now - w->since_ns) / NS_PER_US)]++;
	v->stats.wait_max_ns = max_u64(v->stats.wait_max_ns, now - w->since_ns);
	if (w == &v->sync) {
		if (v->phase == HST_PHASE_GRACE || v->phase == HST_PHASE_STALL)
			note_came(v, v->fault_off);
		v->sync_done = true;
		timer_cancel(&v->h->timers, &v->wake);
		/* Stalled or waiting, it must look; a guest that has gone on needs nothing. */
		if (v->phase != HST_PHASE_RUN)
			vcpu_kick(v);
		return;
	}
	ix = (uint32_t)(w - v->tokens);
	if (ram_find(&v->h->ram, (gpa_t){v->eng.faults[ix].gfn << PAGE_SHIFT}, 1, &off))
		note_came(v, off);
	if (!eng_page_ready(&v->eng, ix)) {
		v->stats.ready_late++;
		return;
	}
	/* Whichever thread brought the block; what needs the CPU state waits for hst_next. */
	deliver(v, NULL);
}
