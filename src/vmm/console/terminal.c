/* SPDX-License-Identifier: Apache-2.0 */
/* See terminal.h. */
#include "vmm/console/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"

static bool in_foreground(int fd)
{
	return tcgetpgrp(fd) == getpgrp();
}

static bool same(const struct termios *a, const struct termios *b)
{
	return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_cflag == b->c_cflag &&
	       a->c_lflag == b->c_lflag && memcmp(a->c_cc, b->c_cc, sizeof(a->c_cc)) == 0;
}

/* From the background the kernel would stop us; TCSANOW never waits for a stopped terminal. */
static int set_modes(int fd, const struct termios *modes)
{
	sigset_t stop, old;
	int rc;

	sigemptyset(&stop);
	sigaddset(&stop, SIGTTOU);
	(void)pthread_sigmask(SIG_BLOCK, &stop, &old);
	rc = tcsetattr(fd, TCSANOW, modes) < 0 ? -errno : 0;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

void terminal_modes_restore(int fd, struct terminal_modes *m)
{
	struct termios now;

	if (!atomic_exchange(&m->raw, false))
		return;
	if (in_foreground(fd) || (tcgetattr(fd, &now) == 0 && same(&now, &m->ours)))
		(void)set_modes(fd, &m->saved);
}

void terminal_restore(struct terminal *t)
{
	int saved_errno = errno;

	if (t->modes)
		terminal_modes_restore(t->in_fd, t->modes);
	errno = saved_errno;
}

static void raw_of(const struct termios *from, struct termios *ret)
{
	*ret = *from;
	ret->c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | IGNBRK | IGNCR | INLCR | INPCK | ISTRIP |
				    IXOFF | IXON | PARMRK);
	ret->c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
	ret->c_cflag = (ret->c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
	ret->c_cc[VMIN] = 1;
	ret->c_cc[VTIME] = 0;
}

/* In the foreground. What a shell has set since is what is put back next time. */
static int make_raw(struct terminal *t, struct err *e)
{
	struct terminal_modes *m = t->modes;
	struct termios now;
	int rc;

	if (tcgetattr(t->in_fd, &now) < 0)
		return err_sys(e, -errno, "terminal: reading its modes");
	if (atomic_load(&m->raw) && same(&now, &m->ours))
		return 0;
	atomic_store(&m->raw, false);
	m->saved = now;
	raw_of(&now, &m->ours);
	/* Before the change: who is called between the two puts back what is there anyway. */
	atomic_store(&m->raw, true);
	rc = set_modes(t->in_fd, &m->ours);
	if (rc < 0) {
		terminal_restore(t);
		return err_sys(e, rc, "terminal: raw mode");
	}
	/* What the driver has made of it. */
	if (tcgetattr(t->in_fd, &now) == 0 && in_foreground(t->in_fd))
		m->ours = now;
	return 0;
}

/* Under the lock. False: not in the foreground, or not to be raw now. */
static bool look(struct terminal *t, int *ret_rc, struct err *e)
{
	bool ours = t->in_use && !t->away && in_foreground(t->in_fd);

	*ret_rc = ours ? make_raw(t, e) : 0;
	/* Meanwhile the terminal may have been taken from us. */
	if (!ours || *ret_rc < 0 || !in_foreground(t->in_fd)) {
		terminal_restore(t);
		return false;
	}
	return true;
}

void terminal_init(struct terminal *t)
{
	int rc;

	memset(t, 0, sizeof(*t));
	t->in_fd = t->out_fd = -1;
	rc = pthread_mutex_init(&t->lock, NULL);
	ASSERT(rc == 0);
}

void terminal_fini(struct terminal *t)
{
	terminal_close(t);
	pthread_mutex_destroy(&t->lock);
}

int terminal_open(struct terminal *t, int in_fd, int out_fd, struct terminal_modes *modes,
		  struct err *e)
{
	int rc;

	pthread_mutex_lock(&t->lock);
	t->in_fd = in_fd;
	t->out_fd = out_fd;
	t->modes = modes ? modes : &t->own;
	t->is_tty = isatty(in_fd);
	t->in_use = t->is_tty;
	(void)look(t, &rc, e);
	t->in_use &= rc == 0;
	pthread_mutex_unlock(&t->lock);
	return rc;
}

void terminal_close(struct terminal *t)
{
	pthread_mutex_lock(&t->lock);
	t->in_use = false;
	terminal_restore(t);
	pthread_mutex_unlock(&t->lock);
}

bool terminal_look(struct terminal *t)
{
	bool ours;
	int rc;

	if (!t->is_tty)
		return true;
	pthread_mutex_lock(&t->lock);
	ours = look(t, &rc, NULL);
	pthread_mutex_unlock(&t->lock);
	return ours;
}

void terminal_away(struct terminal *t)
{
	pthread_mutex_lock(&t->lock);
	t->away = true;
	terminal_restore(t);
	pthread_mutex_unlock(&t->lock);
}

void terminal_back(struct terminal *t)
{
	int rc;

	pthread_mutex_lock(&t->lock);
	t->away = false;
	(void)look(t, &rc, NULL);
	pthread_mutex_unlock(&t->lock);
}

/* A read from the background would stop us; with the signal blocked it fails. */
static ssize_t read_unstopped(int fd, void *buf, size_t len)
{
	sigset_t stop, old;
	ssize_t n;

	sigemptyset(&stop);
	sigaddset(&stop, SIGTTIN);
	(void)pthread_sigmask(SIG_BLOCK, &stop, &old);
	n = read(fd, buf, len);
	if (n < 0)
		n = -errno;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return n;
}

ssize_t terminal_read(struct terminal *t, void *buf, size_t len)
{
	ssize_t n;

	if (!t->is_tty) {
		n = read(t->in_fd, buf, len);
		return n < 0 ? -errno : n;
	}
	if (!terminal_look(t))
		return -EAGAIN;
	n = read_unstopped(t->in_fd, buf, len);
	return n == -EIO && tcgetpgrp(t->in_fd) >= 0 && !in_foreground(t->in_fd) ? -EAGAIN : n;
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
