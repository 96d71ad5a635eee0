/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/fd.h: all of it is written, in order and at its place, whatever a call takes of it. Calls
 * to the kernel are replaced: what they do stands in a script, a call each. pwrite64 is what pwrite
 * is called where offsets have 64 bits.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include <cmocka.h>

#include "base/fd.h"

#define FD 17
#define CALLS_MAX 8u

/* What the next calls return: bytes, or -Exxx; the rest take all. */
static int script[CALLS_MAX];
static unsigned scripted, calls;
static char file[64];
static size_t position;

static ssize_t take(const void *bytes, size_t len, size_t at)
{
	int64_t n = calls < scripted ? script[calls] : (int64_t)len;

	calls++;
	assert_true(len > 0 && calls <= CALLS_MAX);
	if (n < 0) {
		errno = (int)-n;
		return -1;
	}
	assert_true((size_t)n <= len && at + (size_t)n <= sizeof(file));
	memcpy(file + at, bytes, (size_t)n);
	return n;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t len);
ssize_t __wrap_pwrite64(int fd, const void *bytes, size_t len, off_t off);

ssize_t __wrap_write(int fd, const void *bytes, size_t len)
{
	ssize_t n = take(bytes, len, position);

	assert_int_equal(fd, FD);
	position += n > 0 ? (size_t)n : 0;
	return n;
}

ssize_t __wrap_pwrite64(int fd, const void *bytes, size_t len, off_t off)
{
	assert_int_equal(fd, FD);
	return take(bytes, len, (size_t)off);
}

static void begin(const int *what, unsigned count)
{
	memset(file, 0, sizeof(file));
	if (count)
		memcpy(script, what, count * sizeof(*what));
	scripted = count;
	calls = 0;
	position = 0;
}

static void short_and_interrupted_calls_are_followed_by_another(void **state)
{
	static const int what[] = {-EINTR, 3, -EINTR, 1};

	(void)state;
	begin(what, 4);
	assert_int_equal(fd_write(FD, "ten bytes.", 10), 0);
	assert_memory_equal(file, "ten bytes.", 11);
	assert_int_equal(calls, 5);
	begin(what, 4);
	assert_int_equal(fd_write_at(FD, "ten bytes.", 10, 20), 0);
	assert_memory_equal(file + 20, "ten bytes.", 11);
	assert_memory_equal(file + 17, "\0\0\0", 3);
	assert_int_equal(calls, 5);
}

static void a_failure_is_told_as_it_is(void **state)
{
	static const int what[] = {4, -EDQUOT};

	(void)state;
	begin(what, 2);
	assert_int_equal(fd_write(FD, "ten bytes.", 10), -EDQUOT);
	assert_int_equal(calls, 2);
	begin(what, 2);
	assert_int_equal(fd_write_at(FD, "ten bytes.", 10, 0), -EDQUOT);
	assert_int_equal(calls, 2);
}

static void a_file_that_takes_nothing_is_full(void **state)
{
	static const int what[] = {4, 0};

	(void)state;
	begin(what, 2);
	assert_int_equal(fd_write(FD, "ten bytes.", 10), -ENOSPC);
	assert_int_equal(calls, 2);
	begin(what, 2);
	assert_int_equal(fd_write_at(FD, "ten bytes.", 10, 0), -ENOSPC);
	assert_int_equal(calls, 2);
}

static void nothing_is_no_call(void **state)
{
	(void)state;
	begin(NULL, 0);
	assert_int_equal(fd_write(FD, "", 0), 0);
	assert_int_equal(fd_write_at(FD, "", 0, 5), 0);
	assert_int_equal(calls, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(short_and_interrupted_calls_are_followed_by_another),
		cmocka_unit_test(a_failure_is_told_as_it_is),
		cmocka_unit_test(a_file_that_takes_nothing_is_full),
		cmocka_unit_test(nothing_is_no_call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
