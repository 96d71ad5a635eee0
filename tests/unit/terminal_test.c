/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/console/terminal.c on a pseudo-terminal: raw and back on every way out, left alone when it is
 * no terminal, the escape.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/console/terminal.h"

static int pair(int *ret_master)
{
	char name[64];
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	assert_true(master >= 0);
	assert_int_equal(grantpt(master), 0);
	assert_int_equal(unlockpt(master), 0);
	assert_int_equal(ptsname_r(master, name, sizeof(name)), 0);
	int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);

	assert_true(slave >= 0);
	*ret_master = master;
	return slave;
}

/* In a child whose controlling terminal it is: only then is there a foreground. */
static void in_session(void (*body)(int slave))
{
	int master, status;
	int slave = pair(&master);
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
			_exit(2);
		body(slave);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(master);
	close(slave);
}

#define CHECK(expr) \
	do { \
		if (!(expr)) { \
			fprintf(stderr, "%d: %s\n", __LINE__, #expr); \
			_exit(1); \
		} \
	} while (0)

static int same_modes(const struct termios *a, const struct termios *b)
{
	return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag &&
	       a->c_cflag == b->c_cflag && a->c_lflag == b->c_lflag &&
	       memcmp(a->c_cc, b->c_cc, sizeof(a->c_cc)) == 0;
}

static int is_raw(int fd)
{
	struct termios now;

	CHECK(tcgetattr(fd, &now) == 0);
	return !(now.c_lflag & (ICANON | ECHO | ISIG | IEXTEN)) && !(now.c_iflag & (IXON | ICRNL));
}

static int has_modes(int fd, const struct termios *want)
{
	struct termios now;

	CHECK(tcgetattr(fd, &now) == 0);
	return same_modes(&now, want);
}

static void raw_body(int slave)
{
	struct termios before, now;
	struct terminal t;

	CHECK(tcgetattr(slave, &before) == 0);
	terminal_init(&t);
	for (int way = 0; way < 3; way++) {
		CHECK(terminal_open(&t, slave, slave, NULL, NULL) == 0);
		CHECK(is_raw(slave));
		CHECK(tcgetattr(slave, &now) == 0);
		CHECK(now.c_oflag == before.c_oflag);
		if (way == 0) {
			terminal_close(&t);
		} else if (way == 1) {
			errno = ENOENT;
			terminal_restore(&t);
			CHECK(errno == ENOENT);
		} else {
			terminal_restore(&t);
			terminal_close(&t);
		}
		CHECK(has_modes(slave, &before));
		/* Once only: what somebody sets afterwards stays. */
		now = before;
		now.c_lflag ^= ECHO;
		CHECK(tcsetattr(slave, TCSANOW, &now) == 0);
		terminal_close(&t);
		CHECK(!has_modes(slave, &before));
		CHECK(tcsetattr(slave, TCSANOW, &before) == 0);
	}
	terminal_fini(&t);
}

static void raw_and_back(void **state)
{
	(void)state;
	in_session(raw_body);
}

/* What body does in a process group of its own, in the background; it is not to be stopped. */
static void in_background(int slave, void (*body)(int slave))
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK(setpgid(0, 0) == 0);
		body(slave);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, WUNTRACED) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* From the background one needs SIGTTOU blocked for that, which a shell has. */
static void set_foreground(int slave, pid_t group)
{
	sigset_t stop, old;

	sigemptyset(&stop);
	sigaddset(&stop, SIGTTOU);
	CHECK(sigprocmask(SIG_BLOCK, &stop, &old) == 0);
	CHECK(tcsetpgrp(slave, group) == 0);
	CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
}

static void background_group(int slave)
{
	struct termios before;
	struct terminal t;
	char typed[4];

	CHECK(tcgetattr(slave, &before) == 0);
	terminal_init(&t);
	CHECK(terminal_open(&t, slave, slave, NULL, NULL) == 0);
	CHECK(has_modes(slave, &before));
	CHECK(!terminal_look(&t));
	CHECK(terminal_read(&t, typed, sizeof(typed)) == -EAGAIN);
	terminal_fini(&t);
	CHECK(has_modes(slave, &before));
}

static void background_body(int slave)
{
	in_background(slave, background_group);
}

static void background_is_not_stopped(void **state)
{
	(void)state;
	in_session(background_body);
}

/* No signal tells of it: a shell's `fg` of a job that runs, and another job that takes over. */
static void moved_group(int slave)
{
	struct termios before, shells;
	struct terminal t;
	pid_t shell = getppid();

	CHECK(tcgetattr(slave, &before) == 0);
	terminal_init(&t);
	CHECK(terminal_open(&t, slave, slave, NULL, NULL) == 0);
	CHECK(!terminal_look(&t));
	set_foreground(slave, getpgrp());
	CHECK(terminal_look(&t));
	CHECK(is_raw(slave));
	/* A shell that takes the terminal and leaves its modes. */
	set_foreground(slave, shell);
	CHECK(!terminal_look(&t));
	CHECK(has_modes(slave, &before));
	set_foreground(slave, getpgrp());
	CHECK(terminal_look(&t));
	CHECK(is_raw(slave));
	/* One that sets its own: they stay. */
	set_foreground(slave, shell);
	shells = before;
	shells.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	CHECK(signal(SIGTTOU, SIG_IGN) != SIG_ERR);
	CHECK(tcsetattr(slave, TCSANOW, &shells) == 0);
	CHECK(signal(SIGTTOU, SIG_DFL) != SIG_ERR);
	CHECK(!terminal_look(&t));
	CHECK(has_modes(slave, &shells));
	/* And are what is put back the next time. */
	set_foreground(slave, getpgrp());
	CHECK(terminal_look(&t));
	CHECK(is_raw(slave));
	terminal_close(&t);
	CHECK(has_modes(slave, &shells));
	/* One that sets nothing but a key: that stays, too. */
	CHECK(terminal_open(&t, slave, slave, NULL, NULL) == 0);
	set_foreground(slave, shell);
	CHECK(tcgetattr(slave, &shells) == 0);
	shells.c_cc[VINTR] ^= 1;
	CHECK(signal(SIGTTOU, SIG_IGN) != SIG_ERR);
	CHECK(tcsetattr(slave, TCSANOW, &shells) == 0);
	CHECK(signal(SIGTTOU, SIG_DFL) != SIG_ERR);
	CHECK(!terminal_look(&t));
	CHECK(has_modes(slave, &shells));
	terminal_fini(&t);
}

static void moved_body(int slave)
{
	in_background(slave, moved_group);
}

static void the_foreground_is_looked_at_each_time(void **state)
{
	(void)state;
	in_session(moved_body);
}

static void away_body(int slave)
{
	struct termios before;
	struct terminal t;

	CHECK(tcgetattr(slave, &before) == 0);
	terminal_init(&t);
	/* Before it is open, as a signal may come then. */
	terminal_away(&t);
	terminal_back(&t);
	CHECK(terminal_open(&t, slave, slave, NULL, NULL) == 0);
	terminal_away(&t);
	CHECK(has_modes(slave, &before));
	/* Another thread must not make it raw again before the process has stopped. */
	CHECK(!terminal_look(&t));
	CHECK(has_modes(slave, &before));
	terminal_back(&t);
	CHECK(is_raw(slave));
	/* Stopped by SIGSTOP: the shell has set its modes, and nobody told us. */
	CHECK(tcsetattr(slave, TCSANOW, &before) == 0);
	terminal_back(&t);
	CHECK(is_raw(slave));
	terminal_close(&t);
	CHECK(has_modes(slave, &before));
	terminal_back(&t);
	CHECK(has_modes(slave, &before));
	terminal_fini(&t);
}

static void away_and_back(void **state)
{
	(void)state;
	in_session(away_body);
}

/* Another process puts back what is to be put back, and nothing else. */
static void shared_body(int slave)
{
	struct terminal_modes *modes = mmap(NULL, sizeof(*modes), PROT_READ | PROT_WRITE,
					    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct termios before;
	struct terminal t;

	CHECK(modes != MAP_FAILED);
	CHECK(tcgetattr(slave, &before) == 0);
	terminal_modes_restore(slave, modes);
	CHECK(has_modes(slave, &before));
	terminal_init(&t);
	CHECK(terminal_open(&t, slave, slave, modes, NULL) == 0);
	CHECK(is_raw(slave));
	terminal_modes_restore(slave, modes);
	CHECK(has_modes(slave, &before));
}

static void shared_modes(void **state)
{
	(void)state;
	in_session(shared_body);
}

static void no_terminal(void **state)
{
	static const uint8_t typed[] = {TERMINAL_ESCAPE, 'x', TERMINAL_ESCAPE};
	uint8_t out[sizeof(typed) + 1];
	struct terminal t;
	size_t len;
	int fds[2];
	char got[8];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	terminal_init(&t);
	assert_int_equal(terminal_open(&t, fds[0], fds[1], NULL, NULL), 0);
	assert_false(t.is_tty);
	assert_true(terminal_look(&t));
	/* A pipe has no escape: every byte is the guest's. */
	assert_true(terminal_filter(&t, typed, sizeof(typed), out, &len));
	assert_int_equal(len, sizeof(typed));
	assert_memory_equal(out, typed, sizeof(typed));
	assert_int_equal(terminal_write(&t, "hello", 5), 0);
	assert_int_equal(read(fds[0], got, sizeof(got)), 5);
	terminal_close(&t);
	close(fds[0]);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(terminal_write(&t, "hello", 5), -EPIPE);
	close(fds[1]);
	terminal_close(&t);
	terminal_fini(&t);
}

static void escape(void **state)
{
	static const struct {
		const char *in, *out;
		int go_on;
	} table[] = {
		{"abc", "abc", 1},         {"\x01x", "", 0},        {"ab\x01xcd", "ab", 0},
		{"\x01X", "", 0},          {"\x01\x01x", "\x01x", 1}, {"\x01q", "\x01q", 1},
		{"\x01\x01\x01x", "\x01", 0}, {"", "", 1},
	};
	struct terminal t;
	uint8_t out[16];
	size_t len, total;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		memset(&t, 0, sizeof(t));
		t.is_tty = true;
		assert_int_equal(terminal_filter(&t, (const uint8_t *)table[i].in,
						 strlen(table[i].in), out, &len), table[i].go_on);
		assert_int_equal(len, strlen(table[i].out));
		assert_memory_equal(out, table[i].out, len);
		/* The same byte by byte, as one types. */
		memset(&t, 0, sizeof(t));
		t.is_tty = true;
		total = 0;
		for (const char *p = table[i].in; *p; p++) {
			bool more = terminal_filter(&t, (const uint8_t *)p, 1, out + total, &len);

			total += len;
			if (!more)
				break;
		}
		assert_int_equal(total, strlen(table[i].out));
		assert_memory_equal(out, table[i].out, total);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(raw_and_back),
		cmocka_unit_test(background_is_not_stopped),
		cmocka_unit_test(the_foreground_is_looked_at_each_time),
		cmocka_unit_test(away_and_back),
		cmocka_unit_test(shared_modes),
		cmocka_unit_test(no_terminal),
		cmocka_unit_test(escape),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
