/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts a terminal's modes back whatever ends this process, SIGKILL included: a child process
 * waits for our end. A handler of fatal signals could not do that for signals that cannot be
 * handled, nor for those that are blocked where they are raised (SIGBUS in vCPU threads).
 * Test: tests/error/run_terminal_test.py.
 */
#ifndef CLI_TTY_GUARD_H
#define CLI_TTY_GUARD_H

#include <sys/types.h>

#include "base/err.h"

struct tty_guard {
	pid_t pid; /* 0: there is none */
	int fd;    /* the child sees its end */
};

/*
 * Before the modes are changed, and before any thread is made. No terminal, or
 * not its foreground: does nothing.
 */
int tty_guard_start(struct tty_guard *g, int tty_fd, struct err *e);
/* The modes have been put back: the child leaves them alone and ends. */
void tty_guard_end(struct tty_guard *g);

#endif
