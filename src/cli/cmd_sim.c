/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf sim`: the options of the deterministic simulator, which is src/sim.
 * Test: tests/sim/sim_test.py.
 */
#include <errno.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/opts.h"
#include "sim/main.h"

struct sim_opts {
	uint64_t seed;
	uint64_t seeds;
	uint32_t jobs;
	uint32_t vcpus;
	uint32_t tasks;
	uint32_t accesses;
	unsigned rev;
	uint64_t states;
	uint64_t faults;
	bool exhaustive;
	bool scale;
	bool no_faults;
	bool log;
};

/* By enum apf_rev. */
static const char *const revs[] = {"seed", "legacy", "pf2", "pf2-strict", "int", NULL};

static const struct opt rows[] = {
	{OPT_U64(struct sim_opts, seed), .name = "seed", .arg = "N", .max = UINT64_MAX,
	 .help = "The first seed (1)."},
	{OPT_U64(struct sim_opts, seeds), .name = "seeds", .arg = "N", .min = 1,
	 .max = UINT32_MAX, .help = "How many seeds (1)."},
	{OPT_U32(struct sim_opts, jobs), .name = "jobs", .arg = "N", .min = 1, .max = 64,
	 .help = "Processes that share the seeds (one per CPU)."},
	{OPT_U32(struct sim_opts, vcpus), .name = "vcpus", .arg = "N", .min = 1, .max = 4,
	 .help = "vCPUs, instead of what the seed says."},
	{OPT_U32(struct sim_opts, tasks), .name = "tasks", .arg = "N", .min = 1, .max = 64,
	 .help = "Tasks per vCPU, instead of what the seed says; --scale: only those lines."},
	{OPT_U32(struct sim_opts, accesses), .name = "faults-per-task", .arg = "N", .min = 1,
	 .max = 1000000, .help = "Accesses of each task, instead of what the seed says."},
	{OPT_CHOICE(struct sim_opts, rev), .name = "abi", .arg = "REVISION", .choices = revs,
	 .help = "legacy, pf2, pf2-strict or int, instead of what the seed says."},
	{OPT_FLAG(struct sim_opts, exhaustive), .name = "exhaustive",
	 .help = "All interleavings of 2 vCPUs, 2 tasks each, 2 pages, instead of seeds."},
	{OPT_U64(struct sim_opts, states), .name = "states", .arg = "N", .min = 1000,
	 .max = 1u << 30, .help = "Where --exhaustive stops (2000000)."},
	{OPT_FLAG(struct sim_opts, scale), .name = "scale",
	 .help = "10,240 vCPUs on one host, as a queueing model over the engine: CSV."},
	{OPT_U64(struct sim_opts, faults), .name = "faults", .arg = "N", .min = 1000,
	 .max = 10000000000, .help = "For each row of --scale (1000000)."},
	{OPT_FLAG(struct sim_opts, no_faults), .name = "no-faults",
	 .help = "Nothing breaks, whatever the seed says."},
	{OPT_FLAG(struct sim_opts, log), .name = "log",
	 .help = "Print everything that happens; one seed."},
	{.name = NULL},
};

static const struct opts sim_table = {
	.verb = "sim",
	.about = "Runs engine, host driver, guest half and sources, as they are shipped, on a\n"
		 "simulated clock, memory, disk and processor. One seed decides everything,\n"
		 "faults included. Exit code 1: a promise is broken; the command that replays\n"
		 "it is printed.",
	.rows = rows,
};

#define SIM_STATES 2000000u
#define SIM_FAULTS 1000000u

/* An option that was given and has no meaning there. NULL: none. */
static const char *not_for(const struct sim_opts *o)
{
	bool seeds = !o->scale && !o->exhaustive;
	const struct {
		const char *option;
		bool given, meant;
	} all[] = {
		{"exhaustive", o->exhaustive, !o->scale},
		{"seed", o->seed != 1, seeds},
		{"seeds", o->seeds != 1, seeds},
		{"jobs", o->jobs != 0, seeds},
		{"vcpus", o->vcpus != 0, seeds},
		{"tasks", o->tasks != 0, seeds || o->scale},
		{"faults-per-task", o->accesses != 0, seeds},
		{"abi", o->rev != 0, !o->scale},
		{"states", o->states != SIM_STATES, o->exhaustive},
		{"faults", o->faults != SIM_FAULTS, o->scale},
		{"no-faults", o->no_faults, seeds},
		{"log", o->log, seeds},
	};

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (all[i].given && !all[i].meant)
			return all[i].option;
	return NULL;
}

int cmd_sim(int argc, char **argv)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct sim_opts o = {
		.seed = 1,
		.seeds = 1,
		.states = SIM_STATES,
		.faults = SIM_FAULTS,
	};
	const char *odd;
	struct err e = {0};
	int operand;
	int r = cli_begin(&sim_table, argc, argv, &o, &operand);

	if (r >= 0)
		return r;
	odd = not_for(&o);
	if (odd) {
		cli_error("conflicting options: --%s: it has no meaning %s; leave it out", odd,
			  o.scale	 ? "with --scale"
			  : o.exhaustive ? "with --exhaustive"
					 : "with seeds");
		return CLI_USAGE;
	}
	o.jobs = o.jobs ? o.jobs : cpus > 0 ? (uint32_t)cpus : 1;
	if (o.log && o.seeds != 1) {
		cli_error("wrong usage: --log: prints one seed, not %llu; leave --seeds out",
			  (unsigned long long)o.seeds);
		return CLI_USAGE;
	}
	if (o.scale && o.tasks && !is_pow2(o.tasks)) {
		cli_error("bad value: --tasks %u: --scale has lines of 1, 2, 4 and so on up to 64; "
			  "name one of them", o.tasks);
		return CLI_USAGE;
	}
	if (o.scale)
		return sim_scale_main(o.faults, o.tasks, &e) == 0 ? CLI_OK : cli_refused(&e);
	if (o.tasks > 8) {
		cli_error("wrong usage: --tasks: %u tasks are for --scale; a seed has 8 at most",
			  o.tasks);
		return CLI_USAGE;
	}
	const struct sim_request request = {
		.seed = o.seed,
		.count = o.seeds,
		.jobs = o.jobs,
		.states = o.exhaustive ? o.states : 0,
		.log = o.log,
		.vcpus = o.vcpus,
		.tasks = o.tasks,
		.accesses = o.accesses,
		.rev = o.rev,
		.no_faults = o.no_faults,
	};

	r = sim_main(&request, &e);
	if (r == -EINTR)
		return cli_failed(&e);
	return r == 0 ? CLI_OK : r < 0 ? cli_refused(&e) : CLI_FAILED;
}
