/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `asyncpf demo` was asked to do. cmd_demo.c fills it, demo_main() does the
 * work. Test of the filling: tests/unit/demo_opts_test.c.
 */
#ifndef CLI_DEMO_H
#define CLI_DEMO_H

#include "abi/small.h"
#include "base/types.h"

/* One way of serving faults that the demo measures. */
enum demo_run {
	DEMO_RUN_BLOCK,
	DEMO_RUN_STALL,
	DEMO_RUN_KERNEL,
	DEMO_RUN_USER_LEGACY,
	DEMO_RUN_USER_PF2,
	DEMO_RUN_USER_PF2_STRICT,
	DEMO_RUN_USER_INT,
	DEMO_RUN_COLLISION, /* the legacy protocol's collision, and the others without it */
	DEMO_RUN_COUNT,
};

#define DEMO_GRACE_AUTO (-1)
/* Not said: DEMO_PAGES, or all of an image that has fewer. */
#define DEMO_PAGES_DEFAULT UINT64_MAX
#define DEMO_PAGES 2048

struct demo_opts {
	uint32_t vcpus;             /* 1..SMALL_VCPUS_MAX */
	uint32_t tasks;             /* vcpus..SMALL_TASKS_MAX */
	uint64_t pages;             /* 0: all of the image; DEMO_PAGES_DEFAULT */
	uint64_t delay_us;          /* added to every fetch */
	int64_t grace_us;           /* wait this long before an event; DEMO_GRACE_AUTO */
	uint64_t block_bytes;       /* fetched at once: a power of two, 4 KiB to 2 MiB */
	uint64_t read_ahead;        /* bytes; 0: none */
	unsigned pattern;           /* enum small_pattern */
	const char *image;          /* path; NULL: the demo makes its own */
	const char *json;           /* path to write the results to; NULL: none */
	const char *trace;          /* path of a timeline; NULL: none */
	const char *source_wrap;    /* wrappers for the source URI, "fault?..."; NULL: none */
	uint32_t outstanding;       /* faults per vCPU */
	uint32_t queue_depth;       /* reads in flight at the source */
	unsigned io;                /* enum apf_io */
	uint64_t source_timeout_ms; /* 0: none */
	uint32_t timer_hz;          /* guest's preemption timer; 0: none */
	uint64_t seed;
	bool quiet;                 /* no progress, result table only */
	bool plot;                  /* and a picture of it */
	bool cold;                  /* each run begins without the image in the page cache */
	uint32_t runs_n;            /* 1..DEMO_RUN_COUNT */
	enum demo_run runs[DEMO_RUN_COUNT]; /* in the order asked for, none twice */
};

/* "block", "user:int", …: as --runs takes it. */
const char *demo_run_name(enum demo_run run);

/* Does the work and prints the result. Returns an enum cli_exit, or ends by a signal. */
int demo_main(const struct demo_opts *o);

#endif
