/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf run` in its parts: cmd_run.c is the command line, run_net.c what --net says, run.c the
 * run, run_report.c what is told about it afterwards, run_files.c which files it has,
 * run_sandbox.c what it takes away from itself, run_lab.c the same run in the lab.
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include <stdio.h>

#include "cli/cli.h"
#include "cli/opts.h"
#include "sandbox/sandbox.h"
#include "source/layers_format.h"
#include "vmm/machine/machine.h"

struct run_opts {
	struct machine_cfg machine; /* all but the descriptors */
	const char *name;           /* what the user calls the VM; NULL: nothing */
	const char *snapshot;       /* the folder that is restored; NULL: none */
	const char *control;        /* the control socket's path; NULL: none */
	const char *json;           /* a file for the outcome; NULL: none */
	const char *trace;          /* a file for a timeline; NULL: none */
	const char *prefetch;       /* the file of a working set to bring; NULL: none */
	const char *record;         /* a file for the working set; NULL: none */
	uint32_t record_s;          /* of the time from the first touch on */
	enum cli_sandbox sandbox;
	struct sandbox_user user;   /* whose rights it has once everything is open */
	bool stats;
	bool quiet;
};

#define RUN_NET_BYTES 1024u /* of what stands behind --net */

/* The command line: what the option table fills and cannot check. */
struct run_line {
	struct run_opts run;
	struct opts_list initrds;
	struct opts_list disks; /* each "FILE[,WORD]..."; run.machine.disks once checked */
	char net_words[MACHINE_NETS_MAX][RUN_NET_BYTES]; /* of nets, in pieces */
	struct opts_list nets;  /* each "user[,WORD]..." or "tap=NAME[,WORD]..." */
	const char *rng;        /* "bw=SIZE"; NULL: not given */
	uint32_t cpus;
	unsigned faults;
	unsigned abi;
	unsigned io;
	unsigned sandbox;
	unsigned balloon;
	const char *vsock; /* "uds=PATH[,cid=N]"; run.machine.vsock once checked */
	const char *user; /* "NAME[:GID]" or "UID[:GID]"; run.user once checked */
	bool lab;
	bool local;
};

/* Rows of the option table that `asyncpf restore` has, too; `line` is what each fills. */
#define RUN_ROW_RESIDENT_MAX(line) \
	{OPT_SIZE(line, run.machine.apf.resident_max), .name = "resident-max", .arg = "SIZE", \
	 .min = MACHINE_RESIDENT_MIN, .max = MACHINE_MEMORY_MAX, \
	 .help = "Keep at most this much guest memory in host memory; the rest goes to --swap."}
#define RUN_ROWS_OF_OUTPUT(line) \
	{OPT_FLAG(line, run.stats), .name = "stats", \
	 .help = "Show how faults were served at the end, on standard error."}, \
	{OPT_TEXT(line, run.trace), .name = "trace", .arg = "FILE", \
	 .help = "Write a timeline of every fault to FILE, for ui.perfetto.dev."}, \
	{OPT_TEXT(line, run.json), .name = "json", .arg = "FILE", \
	 .help = "Write how it ended and the statistics to FILE as JSON; with -, to standard " \
		 "output, as its last line."}, \
	{OPT_FLAG(line, run.quiet), .name = "quiet", \
	 .help = "Say nothing but what the guest prints and errors."}

extern const struct opts run_table;
void run_line_init(struct run_line *l); /* the defaults */
/* What no table checks, of the words that `asyncpf restore` has, too. `user`: into o->user. */
int run_opts_check(struct run_opts *o, const char *user, struct err *e);

/*
 * What stands behind --vsock, which is changed; NULL changes nothing. Without an address the guest
 * keeps that of m->vsock, if it has one. 0, or -EINVAL with the text.
 */
int run_vsock_parse(const char *words, struct machine_cfg *m, struct err *e);

/* In the order of enum apf_faults and enum apf_abi, NULL at the end. */
extern const char *const run_faults_names[];
extern const char *const run_abi_names[];

/* ---- run_net.c ---- */

/* What stands behind --net, of which *ret has parts in `words`. 0, or -EINVAL with the text. */
int run_net_parse(const char *text, char words[static RUN_NET_BYTES], struct machine_net *ret,
		  struct err *e);

/* ---- run_files.c ---- */

/*
 * below: what the snapshot consists of; NULL: it is none. 0, or -Exxx: two of them are the same
 * file, of which one is written. Looks at names and writes nothing.
 */
int run_files_check(const struct run_opts *o, const struct layers *below, struct err *e);

/* ---- run_sandbox.c ---- */

/*
 * Before anything is opened: closes the descriptors that we were started with and that no option
 * names (/dev/fd/N), and makes *ret; NULL: --sandbox off. 0 or -Exxx.
 */
int run_sandbox_open(const struct run_opts *o, struct sandbox **ret, struct err *e);
/* When everything is open: those that were named. */
void run_sandbox_opened(const struct run_opts *o);
void run_sandbox_machine_thread(struct sandbox *s, enum machine_thread which,
				const struct run_opts *o);
/* For apf_config; ctx is the struct sandbox. */
void run_sandbox_library_thread(void *ctx, const char *name);

/* Runs it; returns an enum cli_exit, or ends by the signal that ended the run. */
int run_main(const struct run_opts *o);

/* ---- run_lab.c ---- */

/* What the lab's words depend on beside the command line. */
struct run_lab_host {
	const char *self;    /* path of asyncpf */
	const char *tool;    /* path of tools/lab */
	uint64_t file_bytes; /* of the kernel and its modules */
	bool swap_is_device; /* --swap is a block device; else it is a file to be made */
};

/* Pure: the command line that does the same as `l`, in the lab. Appends to ret. */
void run_lab_words(const struct run_line *l, const struct run_lab_host *h, struct words *ret);

/* ---- run_lab_main.c ---- */

/*
 * True: the KVM here cannot run what is to be run, and ret_why says why not. A kernel that
 * cannot be read is no reason: it will be said where it is loaded.
 */
bool run_lab_needed(const struct run_line *l, char *ret_why, size_t why_bytes);

/*
 * Checks what can be checked here, then becomes tools/lab, whose exit code is that of the run
 * in the lab, or CLI_LAB. Returns only when that failed: CLI_REFUSED or CLI_LAB.
 * why: what run_lab_needed() said, which is told; NULL: the lab was asked for.
 */
int run_lab_main(const struct run_line *l, const char *why);

/* Exit code of a run that had no failure. */
int run_exit_code(const struct machine_outcome *out);

/* How it ended, in a word; error: NULL, or why the run failed. */
const char *run_end_name(const struct machine_outcome *out, const struct err *error);

/* error: NULL, or why the run failed. */
void run_report_stats(const struct run_opts *o, const struct machine_outcome *out, FILE *to);
/* 0 or -EIO. */
int run_report_json(const struct run_opts *o, const struct machine_outcome *out,
		    const struct err *error, FILE *to);

#endif
