/* SPDX-License-Identifier: Apache-2.0 */
/* See console.h. */
#include "vmm/console/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/time.h"

/*
 * The same terminal or pipe, but opened by us: O_NONBLOCK belongs to the open file, which
 * others may share. Where that cannot be had (a socket, somebody else's terminal), the caller's
 * own serves; then a reader who sleeps holds us up.
 */
static int open_again(int fd)
{
	char path[32];
	struct stat st;
	int again = -1;

	if (fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		again = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	}
	return again >= 0 ? again : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

int console_open(struct console *c, int in_fd, int out_fd, int wake_fd, struct terminal *terminal,
		 struct terminal_modes *modes, struct err *e)
{
	memset(c, 0, sizeof(*c));
	c->out_fd = -1;
	c->wake_fd = wake_fd;
	terminal_init(&c->own);
	c->terminal = terminal ? terminal : &c->own;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->room, NULL);
	c->is_open = true;
	if (out_fd >= 0) {
		c->out_fd = open_again(out_fd);
		if (c->out_fd < 0)
			return err_sys(e, -errno, "console: output descriptor %d", out_fd);
	}
	if (in_fd >= 0) {
		int rc = terminal_open(c->terminal, in_fd, out_fd, modes, e);

		if (rc < 0)
			return rc;
		c->in_open = true;
	}
	return 0;
}

void console_close(struct console *c)
{
	if (!c->is_open)
		return;
	terminal_close(c->terminal);
	terminal_fini(&c->own);
	if (c->out_fd >= 0)
		close(c->out_fd);
	pthread_cond_destroy(&c->room);
	pthread_mutex_destroy(&c->lock);
	memset(c, 0, sizeof(*c));
}

/* ---- output ---- */

static void wake(struct console *c)
{
	static const uint64_t one = 1;

	(void)!write(c->wake_fd, &one, sizeof(one));
}

void console_put(struct console *c, uint8_t byte)
{
	bool first;

	pthread_mutex_lock(&c->lock);
	said_put(&c->said, byte);
	while (c->out_len == CONSOLE_OUT_BYTES && !c->closing)
		pthread_cond_wait(&c->room, &c->lock);
	first = c->out_len == 0;
	if (c->out_fd >= 0 && c->lost.code == 0 && c->out_len < CONSOLE_OUT_BYTES) {
		c->out[(c->out_at + c->out_len) % CONSOLE_OUT_BYTES] = byte;
		c->out_len++;
	}
	first = first && c->out_len == 1;
	pthread_mutex_unlock(&c->lock);
	if (first)
		wake(c);
}

void console_hurry(struct console *c)
{
	pthread_mutex_lock(&c->lock);
	c->closing = true;
	pthread_cond_broadcast(&c->room);
	pthread_mutex_unlock(&c->lock);
}

void console_said(struct console *c, struct said *ret)
{
	pthread_mutex_lock(&c->lock);
	*ret = c->said;
	pthread_mutex_unlock(&c->lock);
}

bool console_has_output(struct console *c)
{
	bool has;

	pthread_mutex_lock(&c->lock);
	has = c->out_len > 0;
	pthread_mutex_unlock(&c->lock);
	return has;
}

/* Only this thread takes from the ring: its bytes stay where they are while unlocked. */
int console_flush(struct console *c)
{
	size_t left;
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	left = c->out_len;
	while (left > 0 && rc == 0) {
		const uint8_t *from = c->out + c->out_at;
		size_t len = min_u64(left, CONSOLE_OUT_BYTES - c->out_at);
		ssize_t n;

		pthread_mutex_unlock(&c->lock);
		n = write(c->out_fd, from, len);
		if (n < 0)
			rc = errno == EAGAIN ? 1 : errno == EINTR ? 0 : -errno;
		pthread_mutex_lock(&c->lock);
		if (n > 0) {
			c->out_at = (c->out_at + (size_t)n) % CONSOLE_OUT_BYTES;
			c->out_len -= (size_t)n;
			left -= (size_t)n;
		} else if (rc < 0) {
			err_sys(&c->lost, rc, "console: writing what the guest prints");
			c->out_len = 0;
		}
		pthread_cond_broadcast(&c->room);
	}
	pthread_mutex_unlock(&c->lock);
	return rc == -EPIPE || rc == -EIO || rc == 1 ? rc : 0;
}

/* ---- input ---- */

/* How long what was read is kept for the port, and nothing else read; -1: until it is taken. */
static int full_ms(const struct console *c)
{
	uint64_t now;

	if (c->in_len == 0)
		return 0;
	if (!c->terminal->is_tty)
		return -1;
	now = monotonic_ns();
	return now < c->stuck_ns ? (int)((c->stuck_ns - now + NS_PER_MS - 1) / NS_PER_MS) : 0;
}

int console_input_fd(struct console *c, int *ret_ms)
{
	*ret_ms = c->in_open ? full_ms(c) : -1;
	if (*ret_ms != 0)
		return -1;
	*ret_ms = -1;
	/* In the background what is typed is somebody else's. */
	if (terminal_look(c->terminal))
		return c->terminal->in_fd;
	*ret_ms = TERMINAL_LOOK_MS;
	return -1;
}

void console_push(struct console *c, struct serial *to)
{
	size_t taken = c->in_len ? serial_push(to, c->in + c->in_at, c->in_len) : 0;

	c->in_at += taken;
	c->in_len -= taken;
	if (taken)
		c->stuck_ns = monotonic_ns() + CONSOLE_STUCK_MS * NS_PER_MS;
}

bool console_read(struct console *c, struct serial *to)
{
	uint8_t typed[CONSOLE_IN_BYTES], lost[CONSOLE_IN_BYTES + 1];
	size_t lost_len;
	ssize_t n;
	bool go_on;

	/* The port tells of room when half of it is free, and has some as soon as it was read. */
	console_push(c, to);
	if (full_ms(c) != 0)
		return true;
	n = terminal_read(c->terminal, typed, sizeof(typed));
	if (n == -EINTR || n == -EAGAIN)
		return true;
	if (n <= 0) {
		c->in_open = false;
		return true;
	}
	if (c->in_len > 0)
		return terminal_filter(c->terminal, typed, (size_t)n, lost, &lost_len);
	c->in_at = 0;
	go_on = terminal_filter(c->terminal, typed, (size_t)n, c->in, &c->in_len);
	console_push(c, to);
	return go_on;
}
