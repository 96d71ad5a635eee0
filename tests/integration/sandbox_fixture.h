/* SPDX-License-Identifier: Apache-2.0 */
/* A process that is bound by src/sandbox, since nobody leaves a sandbox, and how it ended. */
#ifndef TESTS_SANDBOX_FIXTURE_H
#define TESTS_SANDBOX_FIXTURE_H

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/types.h"
#include "sandbox/sandbox.h"

#define EXIT_FORBIDDEN 77
#define EXIT_START 78
#define EXIT_WENT_THROUGH 79
#define EXIT_WRONG 80

#define RESOLVER "/etc/resolv.conf"

/* ---- a process that is bound ---- */

static inline struct sandbox *open_sandbox(const char *removes)
{
	const struct sandbox_path paths[] = {
		{SANDBOX_NET, LANDLOCK_READS, RESOLVER},
		{SANDBOX_SOURCES, LANDLOCK_READS, RESOLVER},
		{SANDBOX_MAIN, LANDLOCK_REMOVES, removes},
	};
	const struct sandbox_cfg cfg = {
		.paths = paths,
		.paths_count = (unsigned)ARRAY_LEN(paths) - (removes ? 0 : 1),
		.overrides = removes ? 1u << SANDBOX_MAIN : 0,
		.loss = "the test is ended",
		.exit_code = EXIT_FORBIDDEN,
		.start_code = EXIT_START,
	};
	struct sandbox *s = NULL;
	struct err e = {0};
	int missing = 0;

	if (sandbox_open(&cfg, &s, &missing, &e) < 0 || missing != 0) {
		dprintf(STDERR_FILENO, "no sandbox: %s (%d)", e.text, missing);
		_exit(EXIT_WRONG);
	}
	return s;
}

struct in_thread {
	struct sandbox *s;
	enum sandbox_role role;
	void (*work)(void *ctx);
	void *ctx;
};

static inline void *in_thread(void *arg)
{
	const struct in_thread *t = arg;

	sandbox_thread(t->s, t->role);
	t->work(t->ctx);
	return NULL;
}

/* By a thread that has all signals blocked, as most of ours. */
static inline __attribute__((noreturn)) void child(enum sandbox_role role, void (*work)(void *),
					     void *ctx)
{
	struct in_thread t = {open_sandbox(NULL), role, work, ctx};
	pthread_t thread;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	if (pthread_create(&thread, NULL, in_thread, &t) != 0)
		_exit(EXIT_WRONG);
	pthread_join(thread, NULL);
	_exit(EXIT_WENT_THROUGH);
}

struct end {
	int status;
	char said[512];
};

static inline void run(enum sandbox_role role, void (*work)(void *), void *ctx, struct end *ret)
{
	size_t used = 0;
	int ends[2];
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		child(role, work, ctx);
	}
	assert_true(pid > 0);
	close(ends[1]);
	while ((n = read(ends[0], ret->said + used, sizeof(ret->said) - 1 - used)) > 0)
		used += (size_t)n;
	ret->said[used] = '\0';
	close(ends[0]);
	assert_int_equal(waitpid(pid, &ret->status, 0), pid);
}

static inline void expect_exit(const struct end *end, int code)
{
	if (!WIFEXITED(end->status) || WEXITSTATUS(end->status) != code)
		fail_msg("status %#x, not exit code %d; it said: %s", end->status, code, end->said);
}

#endif
