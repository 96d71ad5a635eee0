/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts a terminal's modes back whatever ends this process, SIGKILL included: a child process waits
 * for our end, and shares what is to be put back then, if anything. A handler of fatal signals
 * could not do that for signals that cannot be handled, nor for those that are blocked where they
 * are raised (SIGBUS in vCPU threads).
 * Test: tests/error/run_terminal_test.py.
 */
#ifndef CLI_TTY_GUARD_H
#define CLI_TTY_GUARD_H

#include <sys/types.h>

#include "base/err.h"
#include "vmm/console/terminal.h"

struct tty_guard {
	pid_t pid; /* 0: there is none */
	int fd;    /* the child sees its end */
	struct terminal_modes *modes; /* in memory that both have; NULL: there is no terminal */
	/* Set before start: the first thing that the child does. NULL: nothing. */
	void (*begins)(void *ctx);
	void *begins_ctx;
};

/*
 * Before the modes are changed, and before any thread is made. No terminal: does nothing. In its
 * background too, since we may come to the foreground.
 */
int tty_guard_start(struct tty_guard *g, int tty_fd, struct err *e);
/* The modes have been put back: the child leaves them alone and ends. g->modes are gone. */
void tty_guard_end(struct tty_guard *g);

#endif
