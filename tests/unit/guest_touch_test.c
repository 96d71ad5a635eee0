/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/memory/guest_touch.c: a touch that fails takes its thread back, if it is guarded and of guest
 * memory; every other SIGBUS goes where it went before, which may be the end of the program.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/memory/guest_touch.h"

#define PAGES 4u

static struct guest_mem mem; /* both ranges: the first page of each is there, the others are not */
static unsigned char *other; /* lost memory that is not the guest's */

static sigjmp_buf out;
static void *volatile told;

static void unguarded(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	told = si->si_addr;
	if (si->si_code > 0)
		siglongjmp(out, 1);
}

static unsigned char *map_lost(size_t there)
{
	int fd = memfd_create("lost", MFD_CLOEXEC);
	unsigned char *at;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)there), 0);
	at = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(at != MAP_FAILED);
	close(fd);
	return at;
}

static int touch(volatile unsigned char *at)
{
	struct guest_touch t;

	guest_touch_begin(&t, &mem);
	if (sigsetjmp(t.env, 1) != 0)
		return -EFAULT;
	*at = 1;
	guest_touch_end();
	return 0;
}

/* Where SIGBUS went before is told of the touch. */
static void expect_told(volatile unsigned char *at, bool guarded)
{
	told = NULL;
	if (sigsetjmp(out, 1) == 0) {
		if (guarded)
			(void)touch(at);
		else
			*at = 1;
		fail();
	}
	guest_touch_end();
	assert_ptr_equal(told, at);
}

static void a_failing_touch_comes_back(void **state)
{
	(void)state;
	guest_touch_init();
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(touch(mem.low), 0);
		assert_int_equal(touch(mem.low + PAGE_BYTES), -EFAULT);
		assert_int_equal(touch(mem.low + PAGES * PAGE_BYTES - 1), -EFAULT);
		assert_int_equal(touch(mem.high + 2 * PAGE_BYTES), -EFAULT);
		assert_int_equal(touch(mem.high), 0);
	}
}

static void others_go_where_they_went(void **state)
{
	struct sigaction sa = {.sa_sigaction = unguarded, .sa_flags = SA_SIGINFO};

	(void)state;
	(void)sigaction(SIGBUS, &sa, NULL);
	guest_touch_init();
	expect_told(mem.low + PAGE_BYTES, false);
	assert_int_equal(touch(mem.low), 0); /* not guarded any more */
	expect_told(mem.low + PAGE_BYTES, false);
	expect_told(other, true);
	/* Sent by hand: nobody's touch. */
	struct guest_touch t;

	guest_touch_begin(&t, &mem);
	if (sigsetjmp(t.env, 1) != 0)
		fail();
	told = &t;
	(void)raise(SIGBUS);
	guest_touch_end();
	assert_true(told != &t);
}

/* ---- each in a process of its own, with what was there before ---- */

static void plain(int sig)
{
	(void)sig;
	_exit(7);
}

static int in_child(void (*handler)(int), volatile unsigned char *at)
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		(void)signal(SIGBUS, handler);
		guest_touch_init();
		guest_touch_init();
		if (touch(mem.low + PAGE_BYTES) != -EFAULT)
			_exit(99);
		if (at)
			*at = 1;
		else
			(void)raise(SIGBUS);
		_exit(8);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void what_was_there_before(void **state)
{
	(void)state;
	assert_int_equal(in_child(SIG_DFL, other), -SIGBUS);
	assert_int_equal(in_child(SIG_DFL, NULL), -SIGBUS);
	assert_int_equal(in_child(SIG_IGN, other), -SIGBUS);
	assert_int_equal(in_child(SIG_IGN, NULL), 8);
	assert_int_equal(in_child(plain, other), 7);
	assert_int_equal(in_child(plain, NULL), 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_failing_touch_comes_back),
		cmocka_unit_test(others_go_where_they_went),
		cmocka_unit_test(what_was_there_before),
	};

	mem = (struct guest_mem){.low_bytes = PAGES * PAGE_BYTES, .high_bytes = PAGES * PAGE_BYTES};
	mem.low = map_lost(PAGE_BYTES);
	mem.high = map_lost(PAGE_BYTES);
	other = map_lost(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
