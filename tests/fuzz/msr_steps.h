/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of which msr_fuzz.c makes a history: what a guest does, and what happens around
 * it. Each takes what it needs to know from the input. The driver's contract is kept, as the
 * library keeps it; the guest's is not.
 */
#ifndef FUZZ_MSR_STEPS_H
#define FUZZ_MSR_STEPS_H

#include "driver.h"

#define PAGES RIG_SWAP_PAGES
UNFOLLOWED_BEGIN
#include "host_swap_fixture.h"
UNFOLLOWED_END

#define PAGE_WORDS (PAGE_BYTES / 8)

struct world {
	struct rig *x;
	struct bytes in;
	struct hst_waiter outside[2];
	bool mid_instruction[RIG_VCPUS]; /* at its next exit that is no kick and no touch */
	/* What memory holds, word by word; area: the driver writes there. */
	uint64_t want[PAGES * PAGE_WORDS];
	bool area[PAGES * PAGE_WORDS];
};

static void note_areas(struct world *w)
{
	for (unsigned c = 0; c < w->x->h.cfg.vcpus; c++) {
		const struct eng_vcpu *e = &rig_v(w->x, c)->eng;
		roff_t off;

		/* The address as the protocol has it: 64-byte aligned. */
		if (eng_enabled(e) && ram_find(&w->x->h.ram, (gpa_t){e->en & ~0x3full}, 8, &off))
			w->area[off.v / 8] = true;
	}
}

static void go_on(struct world *w, unsigned c)
{
	struct cpu_state *cpu = &w->x->vcpus[c].cpu;

	rig_pump(w->x);
	w->x->vcpus[c].kicked = false;
	if (w->x->swap)
		w->x->swap->held[c] = false;
	if (rig_next(w->x, c) != HST_WAIT)
		cpu->event_pending = w->mid_instruction[c] = false;
}

static bool in_guest(struct world *w, unsigned c)
{
	if (rig_v(w->x, c)->where == HST_IN_GUEST)
		return true;
	if (rig_v(w->x, c)->where == HST_IN_HOST)
		rig_exit(w->x, c, true);
	go_on(w, c);
	return false;
}

/* Leaves the guest by an instruction that is not finished, or perhaps. */
static void leave(struct world *w, unsigned c)
{
	struct cpu_state *cpu = &w->x->vcpus[c].cpu, before = *cpu;

	cpu->in_instruction = w->mid_instruction[c];
	cpu->event_pending |= w->mid_instruction[c];
	rig_exit(w->x, c, false);
	*cpu = before;
}

/* ---- the guest ---- */

static uint32_t some_msr(struct world *w)
{
	static const uint32_t msrs[] = {
		APF_MSR_EN, APF_MSR_CTL, APF_MSR_ACK, PV_MSR_STEAL_TIME, PV_MSR_EOI,
		PV_MSR_SYSTEM_TIME, PV_MSR_WALL_CLOCK, PV_MSR_STEAL_TIME + 2,
	};

	return msrs[take8(&w->in) % ARRAY_LEN(msrs)];
}

static uint64_t some_value(struct world *w)
{
	uint8_t page = take8(&w->in);

	if (page & 0x80)
		return take(&w->in, 8);
	/* Two of the pages are beyond the end of memory. */
	return RIG_GPA + ((uint64_t)(page % (PAGES + 2)) << PAGE_SHIFT) +
	       take(&w->in, 2) % PAGE_BYTES;
}

static void step_wrmsr(struct world *w, unsigned c)
{
	uint32_t msr = some_msr(w);

	leave(w, c);
	hst_wrmsr(rig_v(w->x, c), msr, some_value(w));
	go_on(w, c);
}

static void step_rdmsr(struct world *w, unsigned c)
{
	leave(w, c);
	hst_rdmsr(rig_v(w->x, c), some_msr(w));
	go_on(w, c);
}

static void step_touch(struct world *w, unsigned c)
{
	uint8_t what = take8(&w->in);
	roff_t off = {(uint64_t)(what % PAGES) << PAGE_SHIFT};
	struct rig *x = w->x;
	struct err e;

	if (x->swap && !x->swap->watched && x->swap->pages[what % PAGES] == RIG_HOLE) {
		rig_native(x, what % PAGES);
		return;
	}
	if (x->swap ? x->swap->pages[what % PAGES] == RIG_HOLE
		    : x->h.cfg.faults == HST_FAULTS_KERNEL || !x->h.chunk_poisoned[0]) {
		if (rig_kernel_touch(&x->h, off, &e) < 0)
			hst_pause(&x->h);
		rig_pump(x);
		return;
	}
	if (what & 0x80) {
		leave(w, c);
		rig_load(rig_v(x, c), off);
	} else {
		rig_exit(x, c, false);
		hst_fault(rig_v(x, c), off);
	}
	go_on(w, c);
}

/* Words of the area, aimed or not, with any value. */
static void step_scribble(struct world *w, unsigned c)
{
	struct rig *x = w->x;
	uint64_t gpa = some_value(w), page;
	roff_t off;

	if (gpa % PAGE_BYTES == 1)
		gpa = eng_area_gpa(rig_v(x, c)->eng.en).v;
	if (!ram_find(&x->h.ram, (gpa_t){gpa & ~7ull}, 8, &off))
		return;
	page = off.v >> PAGE_SHIFT;
	if (x->swap ? !rig_visible(x, page) : !rig_present(x, page))
		return;
	if (x->swap)
		x->swap->guarded[page] = false;
	w->want[off.v / 8] = take(&w->in, 8);
	memcpy(x->alias + off.v, &w->want[off.v / 8], 8);
}

static void step_cpu(struct world *w, unsigned c)
{
	struct cpu_state *cpu = &w->x->vcpus[c].cpu;
	uint8_t bits = take8(&w->in);

	*cpu = (struct cpu_state){
		.cpl = bits & 1 ? 0 : 3, .interrupts_on = !(bits & 2), .shadow = bits & 4,
		.event_pending = bits & 8, .paging = !(bits & 16), .nested = bits & 32,
		.protected_state = bits & 64,
	};
	w->mid_instruction[c] = bits & 128;
	if (!w->mid_instruction[c])
		return;
	cpu->ip = some_value(w);
	cpu->cr3 = some_value(w);
	cpu->cr4 = take(&w->in, 2);
	cpu->efer = take(&w->in, 2);
}

static void step_exit(struct world *w, unsigned c)
{
	uint8_t what = take8(&w->in);

	if (what & 1)
		w->x->vcpus[c].untaken = 0; /* the exception was taken, the slot not freed */
	if (what & 2)
		rig_exit(w->x, c, true);
	else
		leave(w, c);
	if (what & 4) {
		hst_vcpu_reset(rig_v(w->x, c));
		w->x->vcpus[c].untaken = 0;
	}
	if (what & 8)
		driver_check_save(rig_v(w->x, c));
	if (what & 16) {
		uint32_t msr = some_msr(w);

		(void)hst_vcpu_set_msr(rig_v(w->x, c), msr, some_value(w));
	}
	note_areas(w);
	go_on(w, c);
}

/* ---- what is around it ---- */

static void refusal(struct rig *x, unsigned c)
{
	roff_t off;

	/* The guest empties its slot just then. */
	if (!ram_find(&x->h.ram, eng_area_gpa(rig_v(x, c)->eng.en), 8, &off))
		return;
	memset(x->alias + off.v, 0, 8);
	if (x->swap)
		x->swap->guarded[off.v >> PAGE_SHIFT] = false;
}

static void step_platform(struct world *w, unsigned c)
{
	uint8_t what = take8(&w->in);

	w->x->vcpus[c].apic_off = what & 1;
	w->x->vcpus[c].irq_rc = what & 2 ? -EIO : 0;
	w->x->on_refusal = what & 4 ? refusal : NULL;
	w->x->set_msr_rc = what & 8 ? -EINVAL : 0;
	w->x->mem_faults = (struct rig_mem_faults){.at = what >> 4};
}

static void step_time(struct world *w, unsigned c)
{
	uint64_t next = timers_next_ns(&w->x->h.timers), now = w->x->now;
	uint8_t what = take8(&w->in);

	(void)c;
	if ((what & 1) && next != NS_NEVER)
		rig_after(w->x, max_u64(next, now) - now);
	else
		rig_after(w->x, 1ull << (what >> 1) % 36);
	rig_pump(w->x);
}

static void step_source(struct world *w, unsigned c)
{
	static const int codes[] = {0, 0, -EIO, -ECANCELED};
	uint8_t what = take8(&w->in);
	struct rig_src *s = &w->x->src;

	(void)c;
	if (what & 0x80) {
		s->answers = (enum rig_answers)(what % 3);
		s->cancels = (enum rig_cancels)(what / 3 % 3);
	} else if (s->count) {
		rig_answer(w->x, (what >> 2) % s->count, codes[what & 3]);
		if (what & 0x40)
			rig_pump(w->x);
	}
}

static void step_pause(struct world *w, unsigned c)
{
	uint8_t what = take8(&w->in);
	struct hst_waiter *o = &w->outside[what & 1];
	roff_t off = {(uint64_t)(what >> 4) % PAGES << PAGE_SHIFT};

	(void)c;
	if ((what & 0xe) == 0)
		hst_pause(&w->x->h);
	else if ((what & 0xe) == 2)
		hst_resume(&w->x->h);
	else if (o->fetch)
		hst_forget(o);
	else if (hst_ensure(&w->x->h, off, o) && (what & 0xe) == 4)
		(void)hst_pin(&w->x->h, off);
}

static void end_write(struct rig *x, uint8_t what)
{
	unsigned i = what % x->swap->count;
	int len = (int)x->swap->writes[i].len;

	rig_write_end(x, i, what & 4 ? -EIO : what & 8 ? len / 2 : len);
}

static void step_evict(struct world *w, unsigned c)
{
	uint8_t what = take8(&w->in);
	struct rig *x = w->x;

	(void)c;
	if (!x->swap)
		return;
	if (what & 0x80) {
		hst_evict_to(&x->h, (uint64_t)(what % PAGES) << PAGE_SHIFT);
	} else if (what & 0x40) {
		x->swap->fail[what % RIG_TAKES] = 1;
	} else if (what & 0x20) {
		if (x->swap->count)
			end_write(x, what);
	} else {
		(void)rig_job(x);
	}
}

/* ---- all of them ---- */

struct step {
	void (*run)(struct world *w, unsigned c);
	bool by_guest;
};

static const struct step steps[] = {
	{step_wrmsr, true}, {step_rdmsr, true}, {step_touch, true}, {step_touch, true},
	{step_scribble, false}, {step_cpu, false}, {step_exit, true}, {step_platform, false},
	{step_time, false}, {step_source, false}, {step_source, false}, {step_pause, false},
	{step_evict, false}, {step_wrmsr, true}, {step_exit, true}, {step_evict, false},
};

#endif
