/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a seed asks for. Each seed leaves most faults out: what always happens hides what
 * happens rarely.
 */
#include "base/prng.h"
#include "sim/world.h"

#define PICK(p, ...) pick_of(p, (const uint64_t[]){__VA_ARGS__}, \
			     sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static uint64_t pick_of(struct prng *p, const uint64_t *of, size_t n)
{
	return of[prng_below(p, n)];
}

static uint32_t pick32(struct prng *p, const uint64_t *of, size_t n)
{
	return (uint32_t)pick_of(p, of, n);
}

#define PICK32(p, ...) pick32(p, (const uint64_t[]){__VA_ARGS__}, \
			      sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static bool once_in(struct prng *p, uint64_t n)
{
	return prng_below(p, n) == 0;
}

static uint32_t some_faults(struct prng *p)
{
	uint32_t on = 0;
	/* One seed in eight has none, the others each with the same chance. */
	uint64_t share = prng_below(p, 8);

	for (unsigned f = 0; f < SIM_FAULTS; f++)
		if (prng_below(p, 16) < share)
			on |= 1u << f;
	/* It makes most of the checkers blind. */
	if (!once_in(p, 6))
		on &= ~(1u << SIM_FAULT_HOSTILE);
	return on;
}

void sim_cfg_set_rev(struct sim_cfg *c, enum apf_rev rev)
{
	c->rev = rev;
	if (rev == APF_REV_INT || rev == APF_REV_PF2)
		return;
	/* These know neither hidden registers nor the paging test; legacy has no CTL. */
	c->protected_state = false;
	c->faults_on &= ~(1u << SIM_FAULT_FORAY | 1u << SIM_FAULT_CONTROL);
	/* A real fault that meets a page ready of this revision is misread: that is known. */
	if (rev == APF_REV_LEGACY)
		c->faults_on &= ~(1u << SIM_FAULT_REAL);
}

/* Settings that exclude each other, or depend on others. */
static void fit_together(struct sim_cfg *c, struct prng *p)
{
	/* Late for the rate's sake would be too late. */
	if (c->source_timeout_ns != NS_NEVER)
		c->rate_bytes_per_s = 0;
	/* A machine that can be saved has all its memory from the start. */
	if (c->parts)
		c->faults_on &= ~(1u << SIM_FAULT_SNAPSHOT);
	else if (once_in(p, 3))
		c->faults_on |= 1u << SIM_FAULT_SNAPSHOT;
	if (!c->evict)
		c->resident_blocks = 0;
	else if (c->resident_blocks)
		c->resident_blocks += sim_resident_min(c);
	sim_cfg_set_rev(c, c->rev);
}

void sim_cfg_from_seed(struct sim_cfg *c, uint64_t seed)
{
	struct prng r;
	struct prng *p = &r;

	prng_init(p, seed);
	*c = (struct sim_cfg){.seed = seed};
	c->faults = (enum hst_faults)PICK(p, HST_FAULTS_USER, HST_FAULTS_USER, HST_FAULTS_USER,
					  HST_FAULTS_USER, HST_FAULTS_USER, HST_FAULTS_USER,
					  HST_FAULTS_USER, HST_FAULTS_BLOCK, HST_FAULTS_STALL,
					  HST_FAULTS_KERNEL);
	c->rev = (enum apf_rev)PICK(p, APF_REV_LEGACY, APF_REV_PF2, APF_REV_PF2_STRICT, APF_REV_INT,
				    APF_REV_INT, APF_REV_PF2);
	c->vcpus = PICK32(p, 1, 1, 2, 2, 3, 4);
	c->tasks = PICK32(p, 1, 2, 3, 4, 6, 8);
	c->pages = PICK32(p, 1, 2, 4, 8, 16, 48);
	c->accesses = PICK32(p, 3, 6, 12, 24);
	c->nodes = PICK32(p, 1, 2, 4, 16, SIM_NODES_MAX, SIM_NODES_MAX);
	c->block_shift = PICK32(p, 12, 12, 12, 13, 14);
	c->faults_max = PICK32(p, 1, 2, 4, 16, SIM_FAULTS_MAX);
	c->queue_depth = PICK32(p, 1, 2, 4, 16, SIM_QUEUE_MAX);
	c->retries_max = PICK32(p, 0, 1, 3);
	c->grace_ns = PICK(p, 0, 0, HST_GRACE_AUTO, 100 * NS_PER_US, 5 * NS_PER_MS);
	c->evict = once_in(p, 2);
	c->resident_blocks = PICK32(p, 0, 1, 4, 12);
	c->source_pages = (uint32_t)SIM_PAGE_FIRST + PICK32(p, 7, 40, 64, 64, 64);
	c->latency_ns = PICK(p, 0, 10 * NS_PER_US, 200 * NS_PER_US, 3 * NS_PER_MS, 20 * NS_PER_MS);
	c->jitter_ns = once_in(p, 2) ? c->latency_ns : 0;
	/* A source that is never in time would never be read. */
	c->source_timeout_ns = once_in(p, 2) ? NS_NEVER : 10 * NS_PER_MS + 4 * c->latency_ns;
	c->delay_wrapper = once_in(p, 4);
	c->step_ns = PICK(p, 100, 1000, 10 * NS_PER_US, 100 * NS_PER_US);
	/* Handlers leave most of the time to the tasks, and waiting is not all ticks. */
	c->tick_ns = PICK(p, 0, 0, 20, 100, 1000) * c->step_ns;
	if (c->tick_ns)
		c->tick_ns = max_u64(c->tick_ns, 100 * NS_PER_US + c->latency_ns / 4);
	c->write_one_in = PICK32(p, 0, 1, 2, 4);
	c->kernel_one_in = PICK32(p, 0, 0, 2, 4, 16);
	c->cli_one_in = PICK32(p, 0, 1, 2);
	c->shadow_one_in = PICK32(p, 0, 2, 8);
	c->port_one_in = PICK32(p, 0, 0, 0, 4, 32);
	c->clock = once_in(p, 2);
	c->sequential = once_in(p, 4);
	c->send_always = once_in(p, 8);
	c->protected_state = once_in(p, 10);
	c->emulated = once_in(p, 4);
	c->next_id = once_in(p, 4) ? 0x100000 - 1 - (uint32_t)prng_below(p, 6) : 1;
	c->faults_on = some_faults(p);
	c->director_ns = PICK(p, 5 * NS_PER_US, 50 * NS_PER_US, 500 * NS_PER_US, 5 * NS_PER_MS);
	c->safety_events = PICK32(p, 100, 400, 1200);
	c->live_events = 200000;
	/* Behind all others, so that those stay what they were. */
	c->writers = PICK32(p, 0, 0, 0, 1, 2, SIM_WRITERS_MAX);
	c->discards = once_in(p, 3);
	c->holds = once_in(p, 6);
	c->vmm_ns = PICK(p, 20 * NS_PER_US, 200 * NS_PER_US, 2 * NS_PER_MS);
	c->parts = once_in(p, 3);
	c->rude = once_in(p, 2);
	c->offers = once_in(p, 4);
	c->ahead_max = PICK32(p, 0, 0, 2, 8, SIM_AHEAD_MAX);
	c->rate_bytes_per_s = PICK(p, 0, 0, 0, 256 << 10, 1 << 20, 8 << 20);
	fit_together(c, p);
}

const char *sim_rev_name(enum apf_rev rev)
{
	static const char *const names[] = {
		[APF_REV_OFF] = "off",
		[APF_REV_LEGACY] = "legacy",
		[APF_REV_PF2] = "pf2",
		[APF_REV_PF2_STRICT] = "pf2-strict",
		[APF_REV_INT] = "int",
	};

	return (unsigned)rev < ARRAY_LEN(names) ? names[rev] : "?";
}

const char *sim_faults_name(enum hst_faults f)
{
	static const char *const names[] = {
		[HST_FAULTS_BLOCK] = "block",
		[HST_FAULTS_STALL] = "stall",
		[HST_FAULTS_KERNEL] = "kernel",
		[HST_FAULTS_USER] = "user",
	};

	return (unsigned)f < ARRAY_LEN(names) ? names[f] : "?";
}
