/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf check` in its parts: cmd_check.c is the command line, check.c runs the conformance
 * guest (guests/conformance) in a machine, check_tap.c reads what it prints and knows which
 * differences are expected. The table of checks is docs/conformance.md.
 */
#ifndef CLI_CHECK_H
#define CLI_CHECK_H

#include <asyncpf/asyncpf.h>
#include <stdio.h>

#include "base/types.h"

struct check_opts {
	enum apf_faults faults; /* APF_FAULTS_USER or APF_FAULTS_KERNEL */
	enum apf_abi abi;
	uint32_t cpus;
	uint32_t delay_us;  /* of each absent page */
	const char *only;   /* prefixes of checks, separated by commas; NULL: all */
};

int check_main(const struct check_opts *o);

/* ---- check_tap.c ---- */

/* The names of the checks that are expected to fail, separated by commas; "" if there are none. */
void check_tap_differences(enum apf_faults faults, enum apf_abi abi, char *text, size_t size);

struct check_tap {
	enum apf_faults faults;
	enum apf_abi abi;
	unsigned passed, skipped;
	unsigned expected; /* failures that are known differences */
	unsigned failed;   /* all other failures */
	unsigned planned;  /* by the plan line */
	bool has_plan;
	bool bailed_out;
};

/*
 * One line of the guest's, without its newline. It is written to `out`; a failure that is a known
 * difference is marked as TAP marks those, with the reason.
 */
void check_tap_line(struct check_tap *t, const char *line, FILE *out);

/*
 * NULL: every check that was planned ran, not all were skipped, and each failure is a known one.
 * Otherwise what is wrong, as cli_error() takes it.
 */
const char *check_tap_fault(const struct check_tap *t);

#endif
