/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the thread that makes a snapshot does next: what of memory is copied and when, when it is
 * looked who has written meanwhile, when the guest stands still, and what is given up
 * (docs/decisions/0018). It decides alone, without a system call, clock or allocation;
 * machine_snap.c carries its steps out, and so does the simulator.
 *
 * Threads: one, the snapshot's. Tests: tests/unit/snap_plan_test.c, src/sim/snap.c.
 */
#ifndef VMM_SNAP_PLAN_H
#define VMM_SNAP_PLAN_H

#include "base/types.h"

#define SNAP_WORD_PAGES 64u  /* of a map: a bit per page */
#define SNAP_PIECE_PAGES 256u /* of snap_rules_usual */

struct snap_run {
	uint64_t page, pages;
};

enum snap_todo {
	SNAP_TODO_NOTE,   /* from now on it is noted who writes */
	SNAP_TODO_LOOK,   /* `found`: adds who wrote since the last look, also where it fails */
	SNAP_TODO_COPY,   /* reads `run` and writes it to the file, until until_ns */
	SNAP_TODO_SLOW,   /* brings the vCPUs to rest, within limit_ns */
	SNAP_TODO_GO,     /* they go on */
	SNAP_TODO_STOP,   /* the same, and devices, and nothing is delivered any more */
	SNAP_TODO_STATE,  /* saves all but memory, in place of what was saved before */
	SNAP_TODO_PAGES,  /* says which snapshot it is; `since` is what of memory is in it */
	SNAP_TODO_KEEP,   /* reads `run`, to be kept behind what is kept, until until_ns */
	SNAP_TODO_RESUME, /* the VM goes on */
	SNAP_TODO_PUT,    /* writes `run`, which is kept, to the file */
	SNAP_TODO_END,    /* memory is whole, then snap_plan_made(); or `rc` says why not */
};

struct snap_step {
	enum snap_todo todo;
	struct snap_run run;
	uint64_t kept;     /* KEEP, PUT: pages that are kept before those of `run` */
	uint64_t left;     /* COPY, KEEP: pages to go, those of `run` among them */
	uint64_t limit_ns; /* STOP, SLOW: -EBUSY then */
	uint64_t until_ns; /* COPY, KEEP: -ETIME then; NS_NEVER */
	bool fresh;        /* COPY: the file is a hole there; zeroes need not be written */
	bool stopped;      /* COPY: nobody can mend anything: what would wait for that is -EBUSY */
	int rc;            /* END: -EAGAIN: the guest writes faster; others: a step's */
};

struct snap_rules {
	uint32_t piece_pages; /* a run lies in one of these */
	uint32_t cut_pages;   /* so much may be kept at the cut, */
	uint32_t cuts_max;    /* which is tried so often; the last time it takes what it needs */
	uint32_t passes_max;
	uint64_t cut_ns;
	uint64_t rest_ns; /* for vCPUs to come to rest where there is patience */
	uint64_t turn_ns; /* what is too fast stands still for so long at a time */
};

extern const struct snap_rules snap_rules_usual;

struct snap_plan_cfg {
	struct snap_rules rules;
	uint64_t pages;    /* of memory, a multiple of SNAP_WORD_PAGES */
	bool keep_running; /* the guest stands still only for what it wrote to last */
	bool changes;      /* of memory what is in `since`, and comes to be, alone */
	/* A bit per page; the first three are zeroes, and the plan's until END. */
	uint64_t *pending; /* to be copied */
	uint64_t *kept;
	uint64_t *found;
	uint64_t *since;   /* what was written to since the last snapshot, as far as was looked */
};

struct snap_plan {
	struct snap_plan_cfg cfg;
	enum snap_todo todo; /* the step that is being made */
	bool begun;
	bool fresh;
	bool stopped;
	uint64_t at;     /* runs before this page are done */
	uint64_t done, left; /* pages of these, and those to go */
	uint64_t before; /* pages that the last pass had left */
	uint64_t until_ns;
	uint32_t passes, cuts;
	int rc;
	/*
	 * Of 100 parts of the time of a pass the guest stands still for so many, a moment each: it
	 * writes faster than is copied.
	 */
	uint32_t slow;
	bool stands;
	uint64_t turn_ns; /* when that changes */
};

void snap_plan_init(struct snap_plan *p, const struct snap_plan_cfg *cfg);
/*
 * The last step has ended with rc, 0 or -Exxx (nothing for the first call); now_ns: of the clock of
 * until_ns. What is next; not to be called after END.
 */
void snap_plan_next(struct snap_plan *p, int rc, uint64_t now_ns, struct snap_step *ret);
/*
 * Behind END, once all of the snapshot is written: what is written to from its moment on is what
 * the next one is made of. Without it `since` stays as it is, as behind one that failed.
 */
void snap_plan_made(struct snap_plan *p);

#endif
