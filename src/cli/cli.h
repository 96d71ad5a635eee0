/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every verb of the command shares: exit codes, the form of an error, the
 * entry points. Only src/cli prints, reads argv or decides an exit code.
 * Test: tests/error/cli_test.py.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1, /* the work was tried and failed, or the answer is "no" */
	CLI_USAGE = 2,  /* the command line was wrong; nothing was tried */
};

/*
 * Prints "asyncpf: <text>" as one line on stderr; control characters become '?'.
 * The text reads: what failed: on what: why; what to do. Returns CLI_FAILED.
 */
int cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints the version. Returns CLI_OK. */
int cli_version(void);

struct opts;

/*
 * opts_parse() with help, version and error done, as every verb wants it: returns -1
 * when the verb shall run, otherwise the exit code. Parameters as in opts.h.
 */
int cli_begin(const struct opts *o, int argc, char **argv, void *into, int *ret_operand);

/* One verb: argv[0] is the verb itself. Returns an enum cli_exit. */
int cmd_check(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_evict(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_lab_relay(int argc, char **argv);
int cmd_run(int argc, char **argv); /* or the guest's own status: asyncpf-run(1) */
int cmd_status(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_sim(int argc, char **argv);

#endif
