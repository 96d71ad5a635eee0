/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command: finds the verb and runs it. A verb is a row in `verbs` and a file
 * cmd_<verb>.c (cmd_control.c has seven). Test: tests/error/cli_test.py.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/types.h"
#include "cli/cli.h"
#include "cli/opts.h"

/* Tried with every verb: tests/error/limits_test.py. */
#define STACK_BYTES (256u * 1024)

struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary; /* NULL: for our own use, not shown */
};

static const struct verb verbs[] = {
	{"balloon", cmd_balloon, "ask a running VM's guest for memory, or give it back"},
	{"check", cmd_check, "what a host promises about page fault events, checked by a guest"},
	{"demo", cmd_demo, "the main job in one minute: ways of serving faults compared"},
	{"doctor", cmd_doctor, "what this host can do, what will work here, and why not"},
	{"events", cmd_events, "what happens to a running VM, line by line as it happens"},
	{"evict", cmd_evict, "take memory away from a running VM"},
	{"image", cmd_image, "pack guest memory, unpack, verify and describe it"},
	{"pager", cmd_pager, "serve the memory of Firecracker's VMs from page sources"},
	{"pause", cmd_pause, "stop a running VM's processors"},
	{"report", cmd_report, "a trace as a page with pictures"},
	{"resize", cmd_resize, "change how much of a running VM's memory may be resident"},
	{"restore", cmd_restore, "run a snapshot on, its memory coming as it is touched"},
	{"resume", cmd_resume, "let a paused VM go on, and try again what failed"},
	{"run", cmd_run, "boot a kernel: stock Linux, or a test kernel of yours"},
	{"snapshot", cmd_snapshot, "write a running VM to a folder"},
	{"status", cmd_status, "what a running VM does, and why it is paused"},
	{"stop", cmd_stop, "ask a running VM to end"},
	{"sim", cmd_sim, "deterministic simulation of the shipped code, faults included"},
	{"lab-relay", cmd_lab_relay, NULL},
};

static void print_usage(FILE *out)
{
	fputs("usage: asyncpf VERB [OPTION]...\n\n"
	      "Asynchronous page faults for KVM guests, in user space.\n\nVerbs:\n", out);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (verbs[i].summary)
			fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].summary);
	fputs("\n'asyncpf VERB --help' lists the options of a verb; 'asyncpf --version' shows the\n"
	      "version. Exit codes: 0 success, 1 failure, 2 wrong usage, 3 it could not begin;\n"
	      "asyncpf(1) has all.\n", out);
}

static int unknown_verb(const char *word)
{
	static const char *const options[] = {"help", "version", NULL};
	const char *names[ARRAY_LEN(verbs) + 2];
	const char *bare = word + strspn(word, "-");
	const char *what = bare > word ? "option" : "verb";
	const char *why = bare > word ? "a verb comes first" : "there is no such verb";
	const char *meant = NULL;
	size_t n = 0;

	if (!*word)
		word = "''";
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (verbs[i].summary)
			names[n++] = verbs[i].name;
	names[n++] = "help";
	names[n] = NULL;
	if (bare == word)
		meant = opts_nearest(word, names);
	if (meant)
		cli_error("unknown verb: %.60s: %s; did you mean '%s'?", word, why, meant);
	else if ((meant = opts_nearest(bare, options)))
		cli_error("unknown %s: %.60s: %s; did you mean '--%s'?", what, word, why, meant);
	else
		cli_error("unknown %s: %.60s: %s; see 'asyncpf --help'", what, word, why);
	return CLI_USAGE;
}

/* `asyncpf help` and `asyncpf help VERB`, which many try first. */
static int help_about(char *verb)
{
	char option[] = "--help";
	char *argv[] = {verb, option, NULL};

	if (!verb || strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0) {
		print_usage(stdout);
		return CLI_OK;
	}
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(verb, verbs[i].name) == 0)
			return verbs[i].run(2, argv);
	return unknown_verb(verb);
}

static int run_verb(int argc, char **argv)
{
	if (argc < 2) {
		cli_error("missing verb: command line: nothing to do; see 'asyncpf --help'");
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		print_usage(stdout);
		return CLI_OK;
	}
	if (strcmp(argv[1], "--version") == 0)
		return cli_version();
	if (strcmp(argv[1], "help") == 0 && argc > 3) {
		cli_error("unexpected operand: %.60s: 'asyncpf help' takes one verb; see "
			  "'asyncpf --help'", argv[3]);
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "help") == 0)
		return help_about(argc == 3 ? argv[2] : NULL);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	return unknown_verb(argv[1]);
}

/*
 * Where a standard stream is closed, the next file opened would get its number, and our
 * messages would be written into it. This descriptor can neither be read nor written.
 */
static void guard_standard_streams(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			(void)open("/", O_PATH); /* the lowest free number: fd */
}

/*
 * A stack that is too small has no error: it is a SIGSEGV. Threads get what RLIMIT_STACK was when
 * the program was started. False, and told: too small, and not ours to raise.
 */
static bool have_stack(void)
{
	struct rlimit limit;
	pthread_attr_t attr;

	if (getrlimit(RLIMIT_STACK, &limit) < 0 || limit.rlim_cur >= STACK_BYTES)
		return true;
	limit.rlim_cur = STACK_BYTES;
	if (limit.rlim_max < STACK_BYTES || setrlimit(RLIMIT_STACK, &limit) < 0) {
		cli_error("cannot start: stack: RLIMIT_STACK allows %lluK, %uK are needed; raise "
			  "it (ulimit -s)", (unsigned long long)limit.rlim_max / 1024,
			  STACK_BYTES / 1024);
		return false;
	}
	if (pthread_getattr_default_np(&attr) == 0) {
		if (pthread_attr_setstacksize(&attr, STACK_BYTES) == 0)
			(void)pthread_setattr_default_np(&attr);
		(void)pthread_attr_destroy(&attr);
	}
	return true;
}

int main(int argc, char **argv)
{
	guard_standard_streams();
	if (!have_stack())
		return CLI_REFUSED;
	/* A write beyond RLIMIT_FSIZE is an error of that write, not the end. */
	(void)signal(SIGXFSZ, SIG_IGN);

	int r = run_verb(argc, argv);

	return cli_output_arrived() || r != CLI_OK ? r : CLI_FAILED;
}
