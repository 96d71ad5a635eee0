/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine of `asyncpf run` on KVM, with guests/multiboot as its kernel: how a run can
 * end, what is told about it, the console, and what others may do with a running machine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/machine/machine.h"
#include "need_kvm.h"

#define TEXT_MAX 65536
#define WAIT_MS 60000 /* for what must come; only a failure waits that long */

/* Made by tools/embed from guests/multiboot. */
extern const unsigned char multiboot_elf[];
extern const size_t multiboot_elf_bytes;

struct fix {
	char kernel[32];
	struct machine_cfg cfg;
	struct machine *m;
	struct machine_outcome out;
	struct err err;
	int in[2], screen[2], stop;
	char text[TEXT_MAX];
	size_t len;
	pthread_t thread;
	int rc;
};

static void write_kernel(struct fix *x)
{
	int fd;

	snprintf(x->kernel, sizeof(x->kernel), "/tmp/machine-test-XXXXXX");
	fd = mkostemp(x->kernel, O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, multiboot_elf, multiboot_elf_bytes), multiboot_elf_bytes);
	close(fd);
}

static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	write_kernel(x);
	assert_int_equal(pipe2(x->in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(x->screen, O_CLOEXEC), 0);
	x->stop = eventfd(0, EFD_CLOEXEC);
	x->cfg = (struct machine_cfg){
		.kernel = x->kernel,
		.memory_bytes = 8 << 20,
		.cpus = 1,
		.exit_port = true,
		.in_fd = x->in[0],
		.out_fd = x->screen[1],
		.stop_fd = x->stop,
	};
	apf_config_init(&x->cfg.apf);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fix *x = *state;
	const int fds[] = {x->in[0], x->in[1], x->screen[0], x->screen[1], x->stop};

	machine_close(x->m);
	unlink(x->kernel);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		close(fds[i]);
	free(x);
	return 0;
}

static void *run_thread(void *arg)
{
	struct fix *x = arg;

	x->rc = machine_run(x->m, &x->out, &x->err);
	return NULL;
}

static void start(struct fix *x, const char *cmdline)
{
	x->cfg.cmdline = cmdline;
	if (machine_open(&x->cfg, &x->m, &x->err) < 0)
		fail_msg("%s", x->err.text);
	assert_false(machine_is_running(x->m));
	assert_int_equal(pthread_create(&x->thread, NULL, run_thread, x), 0);
}

/* Reads what is printed until `word` is in it. */
static void read_until(struct fix *x, const char *word)
{
	while (!strstr(x->text, word)) {
		struct pollfd p = {.fd = x->screen[0], .events = POLLIN};

		if (poll(&p, 1, WAIT_MS) != 1)
			fail_msg("no \"%s\" in what was printed:\n%s", word, x->text);
		ssize_t n = read(x->screen[0], x->text + x->len, TEXT_MAX - 1 - x->len);

		assert_true(n > 0);
		x->len += (size_t)n;
	}
}

static int finish(struct fix *x)
{
	pthread_join(x->thread, NULL);
	return x->rc;
}

static void expect_end(struct fix *x, const char *cmdline, enum machine_end end)
{
	start(x, cmdline);
	if (finish(x) < 0)
		fail_msg("%s", x->err.text);
	assert_int_equal(x->out.end, end);
	assert_false(machine_is_running(x->m));
}

static void test_power_off(void **state)
{
	expect_end(*state, "off", MACHINE_POWERED_OFF);
}

static void test_reset(void **state)
{
	expect_end(*state, "reset", MACHINE_RESET);
}

static void test_exit_port(void **state)
{
	struct fix *x = *state;

	expect_end(x, "exit=42", MACHINE_EXITED);
	assert_int_equal(x->out.status, 42);
	read_until(x, "argument 1: exit=42\nexit 42\n");
	assert_true(x->out.stats.memory_bytes == 8 << 20);
	assert_true(x->out.wall_s > 0 && x->out.vcpu_cpu_s > 0);
}

/* Each way of serving memory, with more than the first processor there. */
static void test_every_way(void **state)
{
	struct fix *x = *state;

	x->cfg.cpus = 4;
	for (int faults = APF_FAULTS_BLOCK; faults <= APF_FAULTS_USER; faults++) {
		x->cfg.apf.faults = (enum apf_faults)faults;
		expect_end(x, "exit=1", MACHINE_EXITED);
		machine_close(x->m);
		x->m = NULL;
	}
}

static void test_module_and_high_memory(void **state)
{
	struct fix *x = *state;

	x->cfg.memory_bytes = 4ull << 30;
	x->cfg.modules[0] = x->kernel;
	x->cfg.modules_count = 1;
	expect_end(x, "exit=0", MACHINE_EXITED);
	read_until(x, "memory 0x0000000000100000 + 0x00000000bff00000 type 1\n");
	read_until(x, "memory 0x0000000100000000 + 0x0000000040000000 type 1\n");
	read_until(x, "modules: 1\n");
}

/* Last words: which processor, and where. */
static void test_triple_fault(void **state)
{
	struct fix *x = *state;

	start(x, "crash");
	assert_int_equal(finish(x), -EIO);
	assert_memory_equal(x->err.text, "vCPU 0: the guest triple-faulted", 32);
	if (!strstr(x->err.text, "has lost where"))
		assert_non_null(strstr(x->err.text, ": rip=0x100"));
	assert_non_null(strstr(x->err.text, "cr2=0 cr3=0"));
	/* What it had printed is not lost. */
	read_until(x, "argument 1: crash\n");
}

static void test_typed(void **state)
{
	struct fix *x = *state;

	start(x, "echo off");
	read_until(x, "argument 1: echo\n");
	assert_int_equal(write(x->in[1], "typed line\n", 11), 11);
	read_until(x, "typed line\n");
	assert_int_equal(finish(x), 0);
	assert_int_equal(x->out.end, MACHINE_POWERED_OFF);
}

static void test_stop_by_descriptor(void **state)
{
	static const uint64_t one = 1;
	struct fix *x = *state;

	start(x, "spin");
	read_until(x, "argument 1: spin\n");
	assert_true(machine_is_running(x->m));
	assert_int_equal(write(x->stop, &one, sizeof(one)), sizeof(one));
	assert_int_equal(finish(x), 0);
	assert_int_equal(x->out.end, MACHINE_INTERRUPTED);
}

/* A reader who reads nothing holds up the guest, and not the end. */
static void test_stop_while_nobody_reads(void **state)
{
	struct fix *x = *state;
	struct pollfd full = {.fd = x->screen[1], .events = POLLOUT};

	(void)fcntl(x->screen[1], F_SETPIPE_SZ, 4096);
	start(x, "flood=100000");
	while (poll(&full, 1, 0) == 1)
		usleep(1000);
	usleep(20000);
	machine_stop(x->m);
	assert_int_equal(finish(x), 0);
	assert_int_equal(x->out.end, MACHINE_STOPPED);
}

/* What a control server does, from another thread, while it runs. */
static void test_control(void **state)
{
	struct apf_stats s = {.size = sizeof(s)};
	struct fix *x = *state;
	struct apf *a;

	x->cfg.cpus = 3;
	start(x, "echo off");
	read_until(x, "argument 1: echo\n");
	a = machine_apf(x->m);
	assert_int_equal(machine_vcpus(x->m), 3);
	for (unsigned i = 0; i < 3; i++)
		assert_non_null(machine_vcpu(x->m, i));
	assert_null(machine_vcpu(x->m, 3));
	apf_pause(a);
	assert_true(apf_is_paused(a));
	apf_stats_get(a, &s);
	assert_true(s.bytes == 8 << 20 && s.bytes_present > 0);
	/* It is typed, but the guest stands still. */
	assert_int_equal(write(x->in[1], "later\n", 6), 6);
	usleep(20000);
	assert_null(strstr(x->text, "later"));
	apf_resume(a);
	read_until(x, "later\n");
	assert_int_equal(finish(x), 0);
}

/* A paused machine ends when it is told to. */
static void test_stop_while_paused(void **state)
{
	struct fix *x = *state;

	start(x, "spin");
	read_until(x, "argument 1: spin\n");
	apf_pause(machine_apf(x->m));
	machine_stop(x->m);
	assert_int_equal(finish(x), 0);
	assert_int_equal(x->out.end, MACHINE_STOPPED);
}

/* ---- what cannot be ---- */

static void refused(struct fix *x, int code, const char *text)
{
	assert_int_equal(machine_open(&x->cfg, &x->m, &x->err), code);
	assert_null(x->m);
	if (!strstr(x->err.text, text))
		fail_msg("expected \"%s\", it says: %s", text, x->err.text);
}

static void test_refused(void **state)
{
	struct fix *x = *state;
	const struct machine_cfg good = x->cfg;

	x->cfg.kernel = NULL;
	refused(x, -EINVAL, "machine: no kernel");
	x->cfg = good;
	x->cfg.cpus = 17;
	refused(x, -EINVAL, "machine: 17 processors, not 1 to 16");
	x->cfg.cpus = 0;
	refused(x, -EINVAL, "machine: 0 processors");
	x->cfg = good;
	x->cfg.memory_bytes = (8 << 20) + 4096;
	refused(x, -EINVAL, "not a multiple of 2 MiB");
	x->cfg.memory_bytes = 65ull << 30;
	refused(x, -EINVAL, "up to 64 GiB");
	x->cfg = good;
	x->cfg.kernel = "/nowhere/kernel";
	refused(x, -ENOENT, "kernel /nowhere/kernel: No such file or directory");
	x->cfg = good;
	x->cfg.disks_count = 1;
	x->cfg.disks[0] = (struct machine_disk){.path = "/nowhere/disk"};
	refused(x, -ENOENT, "disk /nowhere/disk: open for reading and writing");
	x->cfg = good;
	x->cfg.apf.faults_max = 0;
	refused(x, -EINVAL, "apf_config: faults_max is 0");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_power_off),
		T(test_reset),
		T(test_exit_port),
		T(test_every_way),
		T(test_module_and_high_memory),
		T(test_triple_fault),
		T(test_typed),
		T(test_stop_by_descriptor),
		T(test_stop_while_nobody_reads),
		T(test_control),
		T(test_stop_while_paused),
		T(test_refused),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
