/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf check`: the command line only. The work is check_main()'s.
 * Test: tests/error/cli_test.py.
 */
#include <string.h>

#include "cli/check/check.h"
#include "cli/cli.h"
#include "cli/opts.h"
#include "vmm/machine/machine.h"

enum { FAULTS_USER, FAULTS_KERNEL };
static const char *const faults_words[] = {"user", "kernel", NULL};
/* In the order of `abis`. */
static const char *const abi_names[] = {"int", "pf2", "pf2-strict", "legacy", NULL};
static const enum apf_abi abis[] = {APF_ABI_INT, APF_ABI_PF2, APF_ABI_PF2_STRICT, APF_ABI_LEGACY};

struct parsed {
	struct check_opts check;
	unsigned faults;
	unsigned abi;
};

static const struct opt rows[] = {
	{OPT_CHOICE(struct parsed, abi), .name = "abi", .arg = "WORD", .choices = abi_names,
	 .help = "The protocol: int, pf2, pf2-strict or legacy; default int."},
	{OPT_CHOICE(struct parsed, faults), .name = "faults", .arg = "WORD",
	 .choices = faults_words,
	 .help = "Whose half is checked: user (ours) or kernel (KVM's own, which speaks int); "
		 "default user."},
	{OPT_TEXT(struct parsed, check.only), .name = "only", .arg = "LIST",
	 .help = "Only checks whose name starts with one of these words, separated by commas."},
	{OPT_U32(struct parsed, check.cpus), .name = "cpus", .arg = "N", .min = 1,
	 .max = MACHINE_CPUS_MAX,
	 .help = "The guest's processors; the second is for the checks of INIT; default 2."},
	{OPT_U32(struct parsed, check.delay_us), .name = "delay-us", .arg = "N", .min = 1000,
	 .max = 1000000, .help = "How long an absent page takes; default 20000."},
	{.name = NULL},
};

static const struct opts check_table = {
	.verb = "check",
	.about = "Runs a guest kernel that checks, from the inside, what the host promises about\n"
		 "page fault events, and shows its lines (TAP). Exit code 0: all is as promised,\n"
		 "or differs where that is known; then the line says why.",
	.rows = rows,
};

int cmd_check(int argc, char **argv)
{
	struct parsed p = {
		.check = {.cpus = 2, .delay_us = 20000},
		.faults = FAULTS_USER,
	};
	int operand;
	int r = cli_begin(&check_table, argc, argv, &p, &operand);

	if (r >= 0)
		return r;
	p.check.faults = p.faults == FAULTS_KERNEL ? APF_FAULTS_KERNEL : APF_FAULTS_USER;
	p.check.abi = abis[p.abi];
	if (p.faults == FAULTS_KERNEL && p.check.abi != APF_ABI_INT) {
		cli_error("bad value: --abi %s: --faults kernel speaks int only; leave --abi out "
			  "or use --faults user", abi_names[p.abi]);
		return CLI_USAGE;
	}
	if (p.check.only && strlen(p.check.only) > 100) {
		cli_error("bad value: --only %.20s...: longer than 100 characters; name a group, "
			  "such as 'ready.'", p.check.only);
		return CLI_USAGE;
	}
	return check_main(&p.check);
}
