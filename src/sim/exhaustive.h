/* SPDX-License-Identifier: Apache-2.0 */
/* All interleavings of a small scope: exhaustive.c. Test: tests/sim/sim_test.py. */
#ifndef SIM_EXHAUSTIVE_H
#define SIM_EXHAUSTIVE_H

#include "sim/sim.h"

struct sim_explored {
	uint64_t runs, states, events;
	uint64_t ends;  /* runs that came to the end of all tasks */
	uint32_t depth; /* most choices in a row */
	bool complete;  /* every choice was tried */
	bool cut;       /* a run had more choices than there is room for */
	struct sim_verdict verdict;
};

/* False: out of memory. states_max: stops there. */
bool sim_explore(struct sim *w, enum apf_rev rev, uint64_t states_max,
		 struct sim_explored *ret);

#endif
