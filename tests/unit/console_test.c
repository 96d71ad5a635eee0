/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/console/console.c: what is printed arrives in order and in pieces, a reader who takes nothing
 * holds up nobody but a guest that prints, and what is typed waits for the port.
 */
#include "chip_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/time.h"
#include "vmm/console/console.h"

enum { RBR = 0, LSR = 5 };

struct fix {
	struct console c;
	struct serial s;
	struct bus b;
	int wake, in[2], out[2];
};

/* Whose guest prints a byte whenever something is written; NULL: none does. */
static struct fix *printing;

/* The C library's, for console.c as well. */
ssize_t write(int fd, const void *bytes, size_t len)
{
	if (printing && fd == printing->c.out_fd)
		console_put(&printing->c, '!');
	return syscall(SYS_write, fd, bytes, len);
}

static void no_output(void *ctx, uint8_t byte)
{
	(void)ctx;
	(void)byte;
}

static int setup(void **state)
{
	static const struct serial_ops ops = {.output = no_output};
	struct irq_line unconnected = {.ops = NULL};
	struct fix *x = calloc(1, sizeof(*x));
	struct err e;

	assert_non_null(x);
	x->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(pipe2(x->in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(x->out, O_CLOEXEC), 0);
	serial_init(&x->s, &ops, x, &unconnected);
	bus_init(&x->b);
	assert_int_equal(bus_add(&x->b, BUS_PORTS, SERIAL_COM1_PORT, SERIAL_PORTS,
				 &serial_bus_ops, &x->s, "COM1", &e), 0);
	assert_int_equal(console_open(&x->c, x->in[0], x->out[1], x->wake, NULL, NULL, &e), 0);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fix *x = *state;

	console_close(&x->c);
	serial_fini(&x->s);
	close(x->wake);
	for (int i = 0; i < 2; i++) {
		if (x->in[i] >= 0)
			close(x->in[i]);
		if (x->out[i] >= 0)
			close(x->out[i]);
	}
	free(x);
	return 0;
}

static void put_text(struct fix *x, const char *s)
{
	while (*s)
		console_put(&x->c, (uint8_t)*s++);
}

static uint64_t wakes(struct fix *x)
{
	uint64_t n = 0;

	(void)!read(x->wake, &n, sizeof(n));
	return n;
}

static void test_one_wake_for_many_bytes(void **state)
{
	struct fix *x = *state;
	char got[32] = "";

	assert_false(console_has_output(&x->c));
	put_text(x, "hello, world");
	assert_true(console_has_output(&x->c));
	assert_int_equal(wakes(x), 1);
	assert_int_equal(console_flush(&x->c), 0);
	assert_false(console_has_output(&x->c));
	assert_int_equal(read(x->out[0], got, sizeof(got)), 12);
	assert_string_equal(got, "hello, world");
	put_text(x, "!");
	assert_int_equal(wakes(x), 1);
}

static void *print_much(void *arg)
{
	struct fix *x = arg;

	for (unsigned i = 0; i < 10 * CONSOLE_OUT_BYTES; i++)
		console_put(&x->c, (uint8_t)i);
	return NULL;
}

/* More than pipe and ring hold: everything arrives, in order, once. */
static void test_slow_reader(void **state)
{
	struct fix *x = *state;
	unsigned char piece[4096];
	unsigned total = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, print_much, x), 0);
	while (total < 10 * CONSOLE_OUT_BYTES) {
		struct pollfd p = {.fd = x->out[0], .events = POLLIN};

		assert_true(console_flush(&x->c) >= 0);
		if (poll(&p, 1, 1) == 0)
			continue;
		ssize_t n = read(x->out[0], piece, sizeof(piece));

		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(piece[i], (uint8_t)(total + (unsigned)i));
		total += (unsigned)n;
	}
	pthread_join(thread, NULL);
	assert_false(console_has_output(&x->c));
}

/* A guest that never pauses does not keep the thread: what it prints meanwhile is written later. */
static void test_prints_meanwhile(void **state)
{
	struct fix *x = *state;
	char got[32] = "";

	put_text(x, "hello");
	printing = x;
	assert_int_equal(console_flush(&x->c), 0);
	printing = NULL;
	assert_int_equal(read(x->out[0], got, sizeof(got)), 5);
	assert_true(console_has_output(&x->c));
	assert_int_equal(console_flush(&x->c), 0);
	assert_int_equal(read(x->out[0], got, sizeof(got)), 1);
	assert_string_equal(got, "!ello");
}

/* The reader sleeps: flush says so and returns; a vCPU that prints is let go by hurry. */
static void test_sleeping_reader(void **state)
{
	struct fix *x = *state;
	pthread_t thread;
	int rc = 0;

	assert_int_equal(pthread_create(&thread, NULL, print_much, x), 0);
	while (rc == 0)
		rc = console_flush(&x->c);
	assert_int_equal(rc, 1);
	console_hurry(&x->c);
	pthread_join(thread, NULL);
	/* The descriptor that the caller gave still blocks for the others who share it. */
	assert_false(fcntl(x->out[1], F_GETFL) & O_NONBLOCK);
}

static void test_reader_is_gone(void **state)
{
	struct fix *x = *state;

	signal(SIGPIPE, SIG_IGN);
	close(x->out[0]);
	x->out[0] = -1;
	put_text(x, "nobody");
	assert_int_equal(console_flush(&x->c), -EPIPE);
	assert_int_equal(x->c.lost.code, -EPIPE);
	/* Lost without a wait, however much it is. */
	print_much(x);
	assert_false(console_has_output(&x->c));
}

/* A full disk loses the output, tells so, and is no reason to end the machine. */
static void test_full_disk(void **state)
{
	struct fix *x = *state;
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct err e;

	if (full < 0)
		skip();
	console_close(&x->c);
	assert_int_equal(console_open(&x->c, -1, full, x->wake, NULL, NULL, &e), 0);
	close(full);
	put_text(x, "x");
	assert_int_equal(console_flush(&x->c), 0);
	assert_int_equal(x->c.lost.code, -ENOSPC);
	assert_string_equal(x->c.lost.text, "console: writing what the guest prints: "
			    "No space left on device");
}

static void test_typed(void **state)
{
	struct fix *x = *state;
	int ms = 0;

	assert_int_equal(console_input_fd(&x->c, &ms), x->in[0]);
	assert_int_equal(ms, -1); /* nobody has to look again */
	assert_int_equal(write(x->in[1], "ab", 2), 2);
	assert_true(console_read(&x->c, &x->s));
	assert_int_equal(inb(&x->b, SERIAL_COM1_PORT + LSR) & 1, 1);
	assert_int_equal(inb(&x->b, SERIAL_COM1_PORT + RBR), 'a');
	assert_int_equal(inb(&x->b, SERIAL_COM1_PORT + RBR), 'b');
	assert_int_equal(inb(&x->b, SERIAL_COM1_PORT + LSR) & 1, 0);
	/* No terminal: Ctrl-A is a byte like any other. */
	assert_int_equal(write(x->in[1], "\x01x", 2), 2);
	assert_true(console_read(&x->c, &x->s));
	assert_int_equal(inb(&x->b, SERIAL_COM1_PORT + RBR), 1);
	close(x->in[1]);
	x->in[1] = -1;
	assert_true(console_read(&x->c, &x->s));
	assert_int_equal(console_input_fd(&x->c, &ms), -1);
}

/* Nothing is read from the descriptor while the port has not taken what was read before. */
static void test_port_is_full(void **state)
{
	struct fix *x = *state;
	uint8_t bytes[CONSOLE_IN_BYTES];
	unsigned total = 0;
	int ms;

	memset(bytes, 'z', sizeof(bytes));
	while (console_input_fd(&x->c, &ms) >= 0) {
		assert_int_equal(write(x->in[1], bytes, sizeof(bytes)), sizeof(bytes));
		assert_true(console_read(&x->c, &x->s));
		total += sizeof(bytes);
	}
	assert_true(total > SERIAL_BACKLOG_BYTES);
	for (unsigned i = 0; i < total; i++) {
		assert_int_equal(inb(&x->b, SERIAL_COM1_PORT + LSR) & 1, 1);
		assert_int_equal(inb(&x->b, SERIAL_COM1_PORT + RBR), 'z');
		console_push(&x->c, &x->s);
	}
	assert_int_equal(console_input_fd(&x->c, &ms), x->in[0]);
}

/* Bytes of the terminal's that were not read. */
static int unread(int slave)
{
	int n = 0;

	assert_int_equal(ioctl(slave, FIONREAD, &n), 0);
	return n;
}

static void type(int master, int slave, const void *bytes, size_t len)
{
	int all = unread(slave) + (int)len;

	assert_int_equal(write(master, bytes, len), len);
	while (unread(slave) < all)
		sched_yield();
}

/* The guest's side of a terminal that is ours, in the foreground. */
static void at_terminal(struct fix *x, int master, int slave)
{
	uint8_t bytes[CONSOLE_IN_BYTES];
	unsigned total = 0, got = 0;
	int ms;

	memset(bytes, 'z', sizeof(bytes));
	while (console_input_fd(&x->c, &ms) == slave) {
		type(master, slave, bytes, sizeof(bytes));
		assert_true(console_read(&x->c, &x->s));
		assert_int_equal(unread(slave), 0);
		total += (unsigned)sizeof(bytes);
	}
	/* It is full, and may yet be read: nothing is lost. */
	assert_in_range(ms, 1, CONSOLE_STUCK_MS);
	type(master, slave, "a", 1);
	assert_true(console_read(&x->c, &x->s));
	assert_int_equal(unread(slave), 1);
	/* The time is over, and meanwhile a byte was read. */
	assert_int_equal(inb(&x->b, SERIAL_COM1_PORT + RBR), 'z');
	x->c.stuck_ns = monotonic_ns();
	assert_int_equal(console_input_fd(&x->c, &ms), slave);
	assert_true(console_read(&x->c, &x->s));
	assert_int_equal(unread(slave), 1);
	assert_int_equal(console_input_fd(&x->c, &ms), -1);
	/* Or none was. */
	x->c.stuck_ns = monotonic_ns();
	assert_int_equal(console_input_fd(&x->c, &ms), slave);
	assert_true(console_read(&x->c, &x->s));
	assert_int_equal(unread(slave), 0);
	type(master, slave, "\x01x", 2);
	assert_int_equal(console_input_fd(&x->c, &ms), slave);
	assert_false(console_read(&x->c, &x->s));
	/* The guest has what came before that. */
	while (inb(&x->b, SERIAL_COM1_PORT + LSR) & 1) {
		assert_int_equal(inb(&x->b, SERIAL_COM1_PORT + RBR), 'z');
		console_push(&x->c, &x->s);
		got++;
	}
	assert_int_equal(got, total - 1);
}

/* The escape is heard though the guest has stopped to read. In a child whose terminal it is. */
static void test_escape_while_full(void **state)
{
	struct fix *x = *state;
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave, status;
	char name[64];
	struct err e;
	pid_t pid;

	assert_true(master >= 0);
	assert_int_equal(grantpt(master), 0);
	assert_int_equal(unlockpt(master), 0);
	assert_int_equal(ptsname_r(master, name, sizeof(name)), 0);
	slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(slave >= 0);
	console_close(&x->c);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
			_exit(2);
		assert_int_equal(console_open(&x->c, slave, x->out[1], x->wake, NULL, NULL, &e), 0);
		at_terminal(x, master, slave);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(master);
	close(slave);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_one_wake_for_many_bytes),
		T(test_slow_reader),
		T(test_prints_meanwhile),
		T(test_sleeping_reader),
		T(test_reader_is_gone),
		T(test_full_disk),
		T(test_typed),
		T(test_port_is_full),
		T(test_escape_while_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
