/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/disk/file_use.c on regular files: locks between descriptors and processes, who writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/disk/file_use.h"

static char path[] = "/tmp/file_use_test.XXXXXX";

static int open_as(int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int setup(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(path);
}

static void locks(void **state)
{
	int a = open_as(O_RDWR), b = open_as(O_RDWR);

	(void)state;
	assert_int_equal(file_use_lock(a, false), 0);
	assert_int_equal(file_use_lock(b, false), 0);
	assert_int_equal(file_use_lock(b, true), -EBUSY);
	close(a);
	assert_int_equal(file_use_lock(b, true), 0);
	a = open_as(O_RDWR);
	assert_int_equal(file_use_lock(a, false), -EBUSY);
	close(b);
	assert_int_equal(file_use_lock(a, false), 0);
	close(a);
}

/* Single bytes, as other VMMs lock their disks. */
static void locks_of_others(void **state)
{
	struct flock byte = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
	int a = open_as(O_RDWR), status;
	pid_t child = fork();

	(void)state;
	if (child == 0) {
		int b = open(path, O_RDWR | O_CLOEXEC);

		_exit(!(fcntl(b, F_OFD_SETLK, &byte) == 0 && file_use_lock(a, true) == -EBUSY &&
			file_use_lock(a, false) == 0));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(file_use_lock(a, true), 0);
	close(a);
}

static void who_writes(void **state)
{
	int reader = open_as(O_RDONLY), other = open_as(O_RDONLY), writer;

	(void)state;
	assert_false(file_use_is_written(reader));
	writer = open_as(O_WRONLY);
	assert_true(file_use_is_written(reader));
	assert_true(file_use_is_written(other));
	close(writer);
	assert_false(file_use_is_written(reader));
	/* The lease was given back: an opener neither waits nor breaks one. */
	writer = open_as(O_RDWR | O_NONBLOCK);
	close(writer);
	close(reader);
	close(other);
}

static void no_loop_device(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(stat(path, &st), 0);
	assert_false(file_use_is_loop(&st));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(locks),
		cmocka_unit_test(locks_of_others),
		cmocka_unit_test(who_writes),
		cmocka_unit_test(no_loop_device),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
