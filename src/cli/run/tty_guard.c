/* SPDX-License-Identifier: Apache-2.0 */
/* See tty_guard.h. */
#include "cli/run/tty_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the child: a byte says that all is well, the end of the pipe without one that it is not. */
static void guard(const struct tty_guard *g, int tty_fd, int pipe_fd)
{
	sigset_t all;
	char byte;
	ssize_t n;

	/* Whatever is meant for the process group ends it first; that is what we wait for. */
	sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	(void)prctl(PR_SET_NAME, "asyncpf-tty");
	if (g->begins)
		g->begins(g->begins_ctx);
	if (dup2(tty_fd, 0) < 0 || dup2(pipe_fd, 3) < 0)
		_exit(1);
	(void)close_range(4, ~0u, 0);
	(void)close_range(1, 2, 0);
	do
		n = read(3, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 0)
		terminal_modes_restore(0, g->modes);
	_exit(0);
}

static int start(struct tty_guard *g, int tty_fd, struct err *e)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(e, -errno, "terminal: a pipe for its guard");
	g->pid = fork();
	if (g->pid == 0) {
		close(ends[1]);
		guard(g, tty_fd, ends[0]);
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

static void forget_modes(struct tty_guard *g)
{
	if (g->modes)
		(void)munmap(g->modes, sizeof(*g->modes));
	g->modes = NULL;
}

int tty_guard_start(struct tty_guard *g, int tty_fd, struct err *e)
{
	int rc;

	g->pid = 0;
	g->fd = -1;
	g->modes = NULL;
	if (!isatty(tty_fd))
		return 0;
	g->modes = mmap(NULL, sizeof(*g->modes), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (g->modes == MAP_FAILED) {
		g->modes = NULL;
		return err_sys(e, -errno, "terminal: memory for its modes");
	}
	rc = start(g, tty_fd, e);
	if (rc < 0)
		forget_modes(g);
	return rc;
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
	forget_modes(g);
}
