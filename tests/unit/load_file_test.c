/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/boot/load_file.c: what it reads, and every kind of file that it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/boot/load_file.h"

struct fix {
	char dir[32];
	char path[64];
	struct load_bytes file;
	struct err err;
};

static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	snprintf(x->dir, sizeof(x->dir), "/tmp/load-file-XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	snprintf(x->path, sizeof(x->path), "%s/k", x->dir);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fix *x = *state;

	unlink(x->path);
	rmdir(x->dir);
	free(x);
	return 0;
}

static void write_file(const struct fix *x, const char *text)
{
	FILE *f = fopen(x->path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void refused(struct fix *x, uint64_t max, int code, const char *text)
{
	x->file = (struct load_bytes){0};
	assert_int_equal(load_file_read(x->path, "kernel", max, &x->file, &x->err), code);
	assert_non_null(strstr(x->err.text, text));
	assert_non_null(strstr(x->err.text, x->path));
	assert_null(x->file.bytes);
}

static void test_reads(void **state)
{
	struct fix *x = *state;

	write_file(x, "seven b");
	assert_int_equal(load_file_read(x->path, "kernel", 7, &x->file, &x->err), 0);
	assert_int_equal(x->file.len, 7);
	assert_memory_equal(x->file.bytes, "seven b", 7);
	assert_string_equal(x->file.name, x->path);
	load_file_free(&x->file);
	assert_null(x->file.bytes);
	load_file_free(&x->file);
}

static void test_refuses(void **state)
{
	struct fix *x = *state;

	refused(x, 7, -ENOENT, "kernel /tmp/");
	write_file(x, "");
	refused(x, 7, -EINVAL, "an empty file");
	write_file(x, "eight by");
	refused(x, 7, -EFBIG, "8 bytes; at most 7 are possible");
	assert_int_equal(truncate(x->path, 1ll << 40), 0);
	refused(x, LOAD_KERNEL_BYTES_MAX, -EFBIG, "at most 536870912");
	unlink(x->path);
	assert_int_equal(mkfifo(x->path, 0600), 0);
	refused(x, 7, -EINVAL, "not a regular file"); /* and does not wait */
	unlink(x->path);
	snprintf(x->path, sizeof(x->path), "%s", x->dir);
	refused(x, 7, -EINVAL, "not a regular file");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refuses, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
