/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every verb of the command shares: exit codes, the form of an error, the
 * entry points. Only src/cli prints, reads argv or decides an exit code.
 * Tests: tests/error/cli_test.py, exit_codes_test.py.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

/*
 * One meaning in every verb; asyncpf(1) is the list for users. What SIGINT, SIGTERM or SIGHUP
 * ended ends by that signal (stop_signals_die), which shells show as 128 and its number.
 */
enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,  /* the work was begun and failed, or the answer is "no" */
	CLI_USAGE = 2,   /* the command line was wrong; nothing was tried */
	CLI_REFUSED = 3, /* it could not begin: what it needs is missing, refused or in use */
	CLI_RESET = 4,   /* run: the guest reset the machine */
	CLI_STOPPED = 5, /* run: its user ended it, by Ctrl-A x or `asyncpf stop` */
	CLI_SANDBOX = 6, /* run, pager: a thread made a system call that is forbidden to it */
	CLI_LAB = 125,   /* run: the lab itself failed; tools/lab has it, too */
	CLI_GUEST = 160, /* run --exit-port: this plus what the guest wrote, 255 at most */
};

#define CLI_GUEST_MAX 255

/*
 * Prints "asyncpf: <text>" as one line on stderr; control characters become '?'.
 * The text reads: what failed: on what: why; what to do. Returns CLI_FAILED.
 */
int cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * The same, of what a VM that runs has to say, and does not wait: what nobody makes room for by
 * reading is left out. By any thread, under any lock.
 */
void cli_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * The same for a failure whose text may lack what to do; that is added by its code. Returns
 * CLI_FAILED.
 */
int cli_failed(const struct err *e);

/*
 * Whether all that was printed on standard output has arrived; what did not is told, and is a
 * failure even where the work was done.
 */
bool cli_output_arrived(void);

/* As cli_failed, for what failed before the work began. Returns CLI_REFUSED. */
int cli_refused(const struct err *e);
/* "; what to do" about a limit of the process or of the system; NULL: the code tells of none. */
const char *cli_limit_advice(int code);
/* "; what to do" by the code; "" where the text says it, or only the text could. */
const char *cli_advice(const struct err *e);

/* Of --io, in the order of enum apf_io, NULL at the end. */
extern const char *const cli_io_names[];
#define CLI_IO_HELP \
	"What reads and writes page source and swap file: uring, threads, or auto, the first of " \
	"them that the system lets be used; default auto."

/* --sandbox, in the order of cli_sandbox_names, which has NULL at the end. */
enum cli_sandbox { CLI_SANDBOX_ON, CLI_SANDBOX_STRICT, CLI_SANDBOX_OFF };
extern const char *const cli_sandbox_names[];
#define CLI_USER_NEEDS_SANDBOX \
	"conflicting options: --user and --sandbox off: it is the sandbox that becomes another " \
	"user; leave one out"

#define CLI_COLUMNS 80 /* of a terminal; tables, help and verdicts fit in it */

/*
 * Prints text, whose first word comes at column `at`, broken at spaces so that it fits; further
 * lines start at `indent`. A longer word is not broken. Ends the line.
 */
void cli_wrapped(FILE *out, const char *text, unsigned at, unsigned indent);

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
int cmd_balloon(int argc, char **argv);
int cmd_events(int argc, char **argv);
int cmd_evict(int argc, char **argv);
int cmd_image(int argc, char **argv);
int cmd_pager(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_resize(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_lab_relay(int argc, char **argv);
int cmd_run(int argc, char **argv); /* or the guest's own status: asyncpf-run(1) */
int cmd_status(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_sim(int argc, char **argv);

#endif
