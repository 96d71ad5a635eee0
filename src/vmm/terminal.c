/* SPDX-License-Identifier: Apache-2.0 */
/* See terminal.h. */
#include "vmm/terminal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

int terminal_open(struct terminal *t, int in_fd, int out_fd, struct err *e)
{
	struct termios raw;

	memset(t, 0, sizeof(*t));
	t->in_fd = in_fd;
	t->out_fd = out_fd;
	t->is_tty = isatty(in_fd);
	/* In the background a change of modes would stop us (SIGTTOU). */
	if (!t->is_tty || tcgetpgrp(in_fd) != getpgrp())
		return 0;
	if (tcgetattr(in_fd, &t->saved) < 0)
		return err_sys(e, -errno, "terminal: reading its modes");
	raw = t->saved;
	raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | IGNBRK | IGNCR | INLCR | INPCK | ISTRIP |
				   IXOFF | IXON | PARMRK);
	raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
	raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	/* Before the change: a signal between the two puts back what is there anyway. */
	atomic_store(&t->raw, true);
	if (tcsetattr(in_fd, TCSANOW, &raw) < 0) {
		int rc = -errno;

		terminal_restore(t);
		return err_sys(e, rc, "terminal: raw mode");
	}
	return 0;
}

void terminal_restore(struct terminal *t)
{
	int saved_errno = errno;

	/* TCSANOW never waits for output that a stopped terminal does not take. */
	if (atomic_exchange(&t->raw, false))
		(void)tcsetattr(t->in_fd, TCSANOW, &t->saved);
	errno = saved_errno;
}

void terminal_close(struct terminal *t)
{
	if (t)
		terminal_restore(t);
}

bool terminal_filter(struct terminal *t, const uint8_t *in, size_t len, uint8_t *ret_out,
		     size_t *ret_len)
{
	size_t n = 0;
	bool go_on = true;

	for (size_t i = 0; i < len && go_on; i++) {
		uint8_t c = in[i];

		if (!t->is_tty) {
			ret_out[n++] = c;
		} else if (!t->escaped) {
			t->escaped = c == TERMINAL_ESCAPE;
			if (!t->escaped)
				ret_out[n++] = c;
		} else {
			t->escaped = false;
			if (c == 'x' || c == 'X') {
				go_on = false;
			} else {
				/* Not for us: Ctrl-A itself is typed as two. */
				ret_out[n++] = TERMINAL_ESCAPE;
				if (c != TERMINAL_ESCAPE)
					ret_out[n++] = c;
			}
		}
	}
	*ret_len = n;
	return go_on;
}

int terminal_write(const struct terminal *t, const void *bytes, size_t len)
{
	const char *from = bytes;

	while (len) {
		ssize_t n = write(t->out_fd, from, len);

		if (n >= 0) {
			from += n;
			len -= (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			/* Somebody else who shares the terminal may have set O_NONBLOCK. */
			struct pollfd p = {.fd = t->out_fd, .events = POLLOUT};

			(void)poll(&p, 1, -1);
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}
