/* SPDX-License-Identifier: Apache-2.0 */
/* See tty_guard.h. */
#include "cli/tty_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* In the child: a byte says that all is well, the end of the pipe without one that it is not. */
static void guard(int tty_fd, int pipe_fd, const struct termios *saved)
{
	sigset_t all;
	char byte;
	ssize_t n;

	/* Whatever is meant for the process group ends it first; that is what we wait for. */
	sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	(void)prctl(PR_SET_NAME, "asyncpf-tty");
	if (dup2(tty_fd, 0) < 0 || dup2(pipe_fd, 3) < 0)
		_exit(1);
	(void)close_range(4, ~0u, 0);
	(void)close_range(1, 2, 0);
	do
		n = read(3, &byte, 1);
	while (n < 0 && errno == EINTR);
	/* SIGTTOU is blocked: this works from the background, too. */
	if (n == 0)
		(void)tcsetattr(0, TCSANOW, saved);
	_exit(0);
}

int tty_guard_start(struct tty_guard *g, int tty_fd, struct err *e)
{
	struct termios saved;
	int ends[2];

	*g = (struct tty_guard){.fd = -1};
	/* In the background the modes are left alone, and belong to somebody else. */
	if (tcgetattr(tty_fd, &saved) < 0 || tcgetpgrp(tty_fd) != getpgrp())
		return 0;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(e, -errno, "terminal: a pipe for its guard");
	g->pid = fork();
	if (g->pid == 0) {
		close(ends[1]);
		guard(tty_fd, ends[0], &saved);
	}
	close(ends[0]);
	if (g->pid < 0) {
		int rc = err_sys(e, -errno, "terminal: a process to guard it");

		g->pid = 0;
		close(ends[1]);
		return rc;
	}
	g->fd = ends[1];
	return 0;
}

void tty_guard_end(struct tty_guard *g)
{
	if (g->pid == 0)
		return;
	(void)!write(g->fd, "", 1);
	close(g->fd);
	while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR)
		;
	g->pid = 0;
}
