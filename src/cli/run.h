/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf run` in its parts: cmd_run.c is the command line, run.c the run, run_report.c what
 * is told about it afterwards.
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include <stdio.h>

#include "vmm/machine.h"

/* Beside 0, 1 and 2: the guest reset the machine. Odd codes are the exit port's. */
#define RUN_EXIT_RESET 4

struct run_opts {
	struct machine_cfg machine; /* all but the descriptors */
	const char *control;        /* the control socket's path; NULL: none */
	const char *json;           /* a file for the outcome; NULL: none */
	bool stats;
	bool quiet;
};

/* In the order of enum apf_faults and enum apf_abi, NULL at the end. */
extern const char *const run_faults_names[];
extern const char *const run_abi_names[];

/* Runs it; returns the exit code, or ends by the signal that ended the run. */
int run_main(const struct run_opts *o);

/* Exit code of a run that had no failure. */
int run_exit_code(const struct machine_outcome *out);

/* error: NULL, or why the run failed. */
void run_report_stats(const struct machine_outcome *out, FILE *to);
/* 0 or -EIO. */
int run_report_json(const struct run_opts *o, const struct machine_outcome *out,
		    const struct err *error, FILE *to);

#endif
