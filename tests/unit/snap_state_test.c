/* SPDX-License-Identifier: Apache-2.0 */
/* src/vmm/snap/snap_state.c: what was put is found; what is cut, changed or odd is refused. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/snap/snap_state.h"

static struct snap_key key(const char *name, uint32_t index)
{
	return (struct snap_key){name, index, 1};
}

/* Two sections, as they are in a file. The caller frees it. */
static unsigned char *make(size_t *ret_len)
{
	struct snap_out o = {.bytes = NULL};
	int fd = memfd_create("state", MFD_CLOEXEC);
	unsigned char *bytes;
	struct err e;

	snap_put(&o, key("first", 0), "abc", 3);
	snap_put(&o, key("second", 7), "", 0);
	snap_put(&o, key("first", 1), "0123456789", 10);
	assert_int_equal(snap_out_write(&o, fd, &e), 0);
	*ret_len = (size_t)lseek(fd, 0, SEEK_END);
	assert_int_equal(*ret_len, 32 + 3 * 32 + 8 + 16);
	bytes = malloc(*ret_len);
	assert_non_null(bytes);
	assert_int_equal(pread(fd, bytes, *ret_len, 0), *ret_len);
	snap_out_free(&o);
	close(fd);
	return bytes;
}

static void what_was_put_is_found(void **state)
{
	size_t len, got;
	unsigned char *bytes = make(&len);
	struct snap_in in;
	const void *at;
	char text[10];
	struct err e;

	(void)state;
	assert_int_equal(snap_in_take(&in, bytes, len, &e), 0);
	assert_int_equal(snap_find(&in, key("first", 0), 3, &at, &got, &e), 0);
	assert_int_equal(got, 3);
	assert_memory_equal(at, "abc", 3);
	assert_int_equal(snap_find(&in, key("second", 7), 0, &at, &got, &e), 0);
	assert_int_equal(got, 0);
	assert_int_equal(snap_take(&in, key("first", 1), text, sizeof(text), &e), 0);
	assert_memory_equal(text, "0123456789", 10);
	snap_in_free(&in);
	free(bytes);
}

static void what_does_not_fit_is_refused(void **state)
{
	size_t len, got;
	unsigned char *bytes = make(&len);
	struct snap_key other = {"first", 0, 2};
	struct snap_in in;
	const void *at;
	char text[16];
	struct err e;

	(void)state;
	assert_int_equal(snap_in_take(&in, bytes, len, &e), 0);
	assert_int_equal(snap_find(&in, key("first", 2), 99, &at, &got, &e), -ENOENT);
	assert_int_equal(snap_find(&in, key("firs", 0), 99, &at, &got, &e), -ENOENT);
	assert_int_equal(snap_find(&in, other, 99, &at, &got, &e), -EPROTO);
	assert_int_equal(snap_find(&in, key("first", 0), 2, &at, &got, &e), -EMSGSIZE);
	assert_int_equal(snap_take(&in, key("first", 0), text, 4, &e), -EMSGSIZE);
	assert_int_equal(snap_take(&in, key("first", 1), text, 9, &e), -EMSGSIZE);
	snap_in_free(&in);
	free(bytes);
}

static void each_cut_and_each_change_is_seen(void **state)
{
	size_t len;
	unsigned char *bytes = make(&len);
	struct snap_in in;
	struct err e;

	(void)state;
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(snap_in_take(&in, bytes, cut, &e), -EBADMSG);
	for (size_t at = 0; at < len; at++) {
		bytes[at] ^= 0x10;
		/* The format, which comes before the sum, has a word of its own. */
		assert_int_equal(snap_in_take(&in, bytes, len, &e),
				 at >= 8 && at < 12 ? -EPROTO : -EBADMSG);
		bytes[at] ^= 0x10;
	}
	free(bytes);
}

static void a_file_that_cannot_be_written_is_told(void **state)
{
	struct snap_out o = {.bytes = NULL};
	struct err e = {0};

	(void)state;
	assert_int_equal(snap_out_write(&o, -1, &e), -ENOMEM); /* nothing was put */
	snap_put(&o, key("first", 0), "abc", 3);
	assert_int_equal(snap_out_write(&o, -1, &e), -EBADF);
	assert_true(*e.text);
	snap_out_free(&o);
}

/* The head of the file and that of the section, and what is in it, are as long as a file may be. */
static void as_much_as_a_state_may_be(void **state)
{
	const size_t most = SNAP_STATE_MAX - 64;
	char *big = calloc(1, most + 8);
	int fd = open("/dev/null", O_WRONLY);
	struct err e;

	(void)state;
	assert_non_null(big);
	for (unsigned more = 0; more <= 8; more += 8) {
		struct snap_out o = {.bytes = NULL};

		snap_put(&o, key("first", 0), big, most + more);
		assert_int_equal(snap_out_write(&o, fd, &e), more ? -ENOMEM : 0);
		snap_out_free(&o);
	}
	close(fd);
	free(big);
}

static void more_than_a_state_may_be_is_told(void **state)
{
	char *big = calloc(1, SNAP_STATE_MAX);
	struct snap_out o = {.bytes = NULL};
	struct err e;

	(void)state;
	assert_non_null(big);
	snap_put(&o, key("first", 0), big, SNAP_STATE_MAX);
	assert_int_equal(snap_out_write(&o, -1, &e), -ENOMEM);
	snap_out_free(&o);
	free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_put_is_found),
		cmocka_unit_test(what_does_not_fit_is_refused),
		cmocka_unit_test(each_cut_and_each_change_is_seen),
		cmocka_unit_test(a_file_that_cannot_be_written_is_told),
		cmocka_unit_test(as_much_as_a_state_may_be),
		cmocka_unit_test(more_than_a_state_may_be_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
