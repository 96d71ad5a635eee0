/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for what a guest does to the driver and its engines: registers, its area,
 * touches of absent memory, whatever its processors are at; while reads end well or badly,
 * memory is taken away, time passes. Three bytes of set-up, then one step after another
 * (msr_steps.h): a byte chooses the step and the vCPU, more say what it needs.
 *
 * What must hold: the books, after each step; nothing but the named area is written to; when
 * all around is well again, no vCPU is kept waiting, and nothing is left under way; and the
 * driver becomes idle when it is told to stop.
 */
#include "msr_steps.h"

#define ROUNDS_MAX 1000u

UNFOLLOWED static void begin(struct world *w, struct bytes *in)
{
	uint8_t rev = take8(in), mode = take8(in), size = take8(in);
	struct hst_cfg cfg = rig_cfg((enum hst_faults)(mode & 8 ? HST_FAULTS_USER : mode & 3),
				     (enum apf_rev)(rev % (APF_REV_INT + 1)));
	bool source = !(mode & 4) || !(size & 0x80);
	struct rig *x;

	cfg.vcpus = 1 + (mode >> 4 & 1);
	cfg.block_shift = 12 + (mode >> 5 & 1);
	cfg.faults_max = 1 + size % 8;
	cfg.queue_depth = 1 + (size >> 3) % 4;
	cfg.retries_max = (size >> 5) % 3;
	cfg.grace_ns = mode & 0x40 ? HST_GRACE_AUTO : 0;
	cfg.source_timeout_ns = mode & 0x80 ? 20 * NS_PER_MS : NS_NEVER;
	x = mode & 4 ? rig_swap_open(&cfg, PAGES, source, 0) : rig_open_pages(&cfg, PAGES);
	x->src.answers = RIG_LATER;
	if (x->swap)
		x->swap->later = true;
	driver_any_area(x);
	for (uint64_t i = 0; source && i < PAGES * PAGE_WORDS; i++)
		w->want[i] = rig_byte(i * 8) * 0x0101010101010101ull;
	w->x = x;
}

/* ---- the end ---- */

static void be_well(struct world *w)
{
	struct rig *x = w->x;

	for (unsigned i = 0; i < ARRAY_LEN(w->outside); i++)
		hst_forget(&w->outside[i]);
	for (unsigned c = 0; c < x->h.cfg.vcpus; c++) {
		x->vcpus[c].apic_off = false;
		x->vcpus[c].cpu = fx_cpu_user();
	}
	x->on_refusal = NULL;
	x->mem_faults = (struct rig_mem_faults){0};
	x->src.answers = RIG_LATER;
	x->src.cancels = RIG_CANCEL_ENDS;
	if (x->swap)
		memset(x->swap->fail, 0, sizeof(x->swap->fail));
	while (x->src.count)
		rig_answer(x, 0, 0);
	hst_resume(&x->h);
}

/* Something is under way, or a vCPU is kept waiting. */
static bool busy(const struct rig *x)
{
	for (unsigned c = 0; c < x->h.cfg.vcpus; c++)
		if (x->h.vcpus[c].where == HST_IN_WAIT)
			return true;
	return x->src.count || (x->swap && x->swap->count) || x->h.in_flight ||
	       x->h.free_count != x->h.fetch_count || hst_is_paused(&x->h) ||
	       hst_evict_forced(&x->h);
}

static void well_round(struct world *w)
{
	struct rig *x = w->x;
	uint64_t next;

	while (x->src.count)
		rig_answer(x, 0, 0);
	rig_pump(x);
	while (x->swap && x->swap->count)
		rig_write_ok(x, 0);
	while (x->swap && rig_job(x))
		;
	/* A vCPU looks when it is kicked: nothing else may be needed. */
	for (unsigned c = 0; c < x->h.cfg.vcpus; c++) {
		if (!x->vcpus[c].kicked)
			continue;
		if (rig_v(x, c)->where == HST_IN_GUEST)
			rig_exit(x, c, true);
		go_on(w, c);
	}
	note_areas(w);
	driver_check(x);
	next = timers_next_ns(&x->h.timers);
	/* Who was held for long is left alone for as long: not a matter of rounds. */
	if (next != NS_NEVER)
		rig_after(x, max_u64(max_u64(next, x->h.evict.hold.after_ns), x->now) - x->now);
}

/* Memory holds what was there or what the guest wrote last, but for its areas. */
UNFOLLOWED static void check_content(const struct world *w)
{
	const struct rig *x = w->x;

	for (uint64_t i = 0; i < PAGES * PAGE_WORDS; i++) {
		uint64_t page = i * 8 >> PAGE_SHIFT, is;

		memcpy(&is, x->alias + i * 8, 8);
		if (x->swap ? rig_visible(x, page) : rig_present(x, page))
			must(is == w->want[i] || w->area[i]);
	}
}

static void stop(struct rig *x)
{
	hst_stop(&x->h);
	for (unsigned i = 0; !hst_is_idle(&x->h); i++) {
		must(i < ROUNDS_MAX);
		while (x->src.count)
			rig_answer(x, 0, -ECANCELED);
		while (x->swap && x->swap->count)
			rig_write_end(x, 0, -ECANCELED);
		if (timers_next_ns(&x->h.timers) != NS_NEVER)
			rig_after(x, max_u64(timers_next_ns(&x->h.timers), x->now) - x->now);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world *w = calloc(1, sizeof(*w));
	unsigned rounds = 0;

	must(w != NULL);
	w->in = (struct bytes){data, size};
	begin(w, &w->in);
	while (w->in.left) {
		uint8_t choice = take8(&w->in);
		const struct step *s = &steps[choice % ARRAY_LEN(steps)];
		unsigned c = choice / ARRAY_LEN(steps) % w->x->h.cfg.vcpus;

		if (!s->by_guest || in_guest(w, c))
			s->run(w, c);
		note_areas(w);
		driver_check(w->x);
	}
	be_well(w);
	do {
		must(rounds++ < ROUNDS_MAX);
		well_round(w);
	} while (busy(w->x));
	check_content(w);
	stop(w->x);
	rig_free(w->x);
	free(w);
	return 0;
}
