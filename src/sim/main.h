/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of `asyncpf sim`: runs seeds in child processes, so that an assertion or an endless
 * loop in what is simulated is a finding and not the end, and prints what it saw.
 */
#ifndef SIM_MAIN_H
#define SIM_MAIN_H

#include "base/err.h"
#include "sim/sim.h"

struct sim_request {
	uint64_t seed;  /* the first */
	uint64_t count; /* how many */
	uint32_t jobs;  /* processes */
	uint64_t states; /* all interleavings of a small scope, up to so many states; 0: seeds */
	bool log;       /* print the whole log; one seed */
	/* Instead of what the seed says; 0: as it says. */
	uint32_t vcpus, tasks, accesses;
	unsigned rev;      /* enum apf_rev */
	bool no_faults;
};

/* Prints; returns 0, 1 when a promise was broken, or -Exxx when the run could not be made. */
int sim_main(const struct sim_request *r, struct err *e);
/*
 * The sweep of scale.c as CSV, so many faults for each row; tasks: those rows only, 0: all.
 * 0, or -Exxx.
 */
int sim_scale_main(uint64_t faults, uint32_t tasks, struct err *e);

#endif
