/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/blk_file.c: what may be opened as a disk and what is said otherwise; its five functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/blk_file.h"

struct fixture {
	char folder[64];
	char path[96];
};

static int setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));

	snprintf(f->folder, sizeof(f->folder), "/tmp/blk_file_test.XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/disk", f->folder);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unlink(f->path);
	rmdir(f->folder);
	test_free(f);
	return 0;
}

static void make(const struct fixture *f, off_t bytes)
{
	int fd = open(f->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, bytes), 0);
	close(fd);
}

static void expect_refused(const struct fixture *f, const char *path, int code, const char *text)
{
	struct blk_file file = {0};
	struct blk_backing b = {.bytes = 99};
	char want[200];
	struct err e;

	for (int ro = 0; ro < 2; ro++) {
		assert_int_equal(blk_file_open(&file, path, ro, &b, &e), code);
		snprintf(want, sizeof(want), "disk %s: %s", path, text);
		if (strncmp(e.text, want, strlen(want)) != 0)
			fail_msg("%s", e.text);
		assert_int_equal(b.bytes, 99);
		blk_file_close(&file);
	}
	(void)f;
}

static void refusals(void **state)
{
	struct fixture *f = *state;

	expect_refused(f, f->path, -ENOENT, "open for reading");
	make(f, 0);
	expect_refused(f, f->path, -EINVAL, "0 bytes are no whole number of 512-byte sectors");
	make(f, 1000);
	expect_refused(f, f->path, -EINVAL, "1000 bytes are no whole number");
	unlink(f->path);
	/* A pipe nobody writes to must not make us wait. */
	assert_int_equal(mkfifo(f->path, 0600), 0);
	expect_refused(f, f->path, -EINVAL, "neither a regular file nor a block device");
	expect_refused(f, "/dev/null", -EINVAL, "neither a regular file nor a block device");
	struct blk_backing b;
	struct blk_file file = {0};
	struct err e;

	assert_int_equal(blk_file_open(&file, f->folder, true, &b, &e), -EINVAL);
	assert_int_equal(blk_file_open(&file, f->folder, false, &b, &e), -EISDIR);
}

static void one_writer_or_many_readers(void **state)
{
	struct fixture *f = *state;
	struct blk_file a = {0}, b = {0};
	struct blk_backing k;
	struct err e;

	make(f, 4096);
	assert_int_equal(blk_file_open(&a, f->path, false, &k, &e), 0);
	assert_true(k.bytes == 4096 && !k.read_only);
	assert_true(fcntl(a.fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(blk_file_open(&b, f->path, false, &k, &e), -EBUSY);
	assert_non_null(strstr(e.text, "in use as a disk by another process or VM"));
	assert_int_equal(blk_file_open(&b, f->path, true, &k, &e), -EBUSY);
	blk_file_close(&a);
	assert_int_equal(blk_file_open(&a, f->path, true, &k, &e), 0);
	assert_true(k.read_only);
	assert_int_equal(blk_file_open(&b, f->path, true, &k, &e), 0);
	blk_file_close(&b);
	assert_int_equal(blk_file_open(&b, f->path, false, &k, &e), -EBUSY);
	blk_file_close(&a);
	blk_file_close(&a);
}

/* In three pieces, of which the first is short. */
static int move(const struct blk_backing *k, bool write, uint64_t off, void *buf, size_t len)
{
	unsigned char *b = buf;
	struct iovec v[3] = {{b, 1}, {b + 1, len / 2}, {b + 1 + len / 2, len - len / 2 - 1}};

	return (write ? k->ops->writev : k->ops->readv)(k->ctx, off, v, 3);
}

static void functions(void **state)
{
	struct fixture *f = *state;
	static char buf[200000], got[200000], zeroes[200000];
	struct blk_file file = {0};
	struct blk_backing k;
	struct stat st;

	make(f, 409600);
	memset(buf, 0x5a, sizeof(buf));
	assert_int_equal(blk_file_open(&file, f->path, false, &k, NULL), 0);
	assert_int_equal(move(&k, true, 512, buf, sizeof(buf)), 0);
	assert_int_equal(k.ops->flush(k.ctx), 0);
	assert_int_equal(move(&k, false, 512, got, sizeof(got)), 0);
	assert_memory_equal(got, buf, sizeof(buf));
	for (int unmap = 0; unmap < 2; unmap++) {
		assert_int_equal(move(&k, true, 0, buf, sizeof(buf)), 0);
		assert_int_equal(k.ops->zero(k.ctx, 512, 150016, unmap), 0);
		assert_int_equal(move(&k, false, 0, got, sizeof(got)), 0);
		assert_memory_equal(got, buf, 512);
		assert_memory_equal(got + 512, zeroes, 150016);
		assert_memory_equal(got + 512 + 150016, buf, 1024);
	}
	assert_int_equal(k.ops->discard(k.ctx, 0, 4096), 0);
	/* Nothing of it changes the size; its end is an error and not zeroes. */
	assert_int_equal(k.ops->zero(k.ctx, 409600 - 512, 512, true), 0);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_size, 409600);
	assert_int_equal(move(&k, false, 409600 - 512, got, 1024), -EIO);
	blk_file_close(&file);
	assert_int_equal(blk_file_open(&file, f->path, true, &k, NULL), 0);
	assert_int_equal(move(&k, true, 0, buf, 512), -EBADF);
	/* Memory that cannot be touched is not the disk's fault. */
	assert_int_equal(move(&k, false, 0, (void *)(uintptr_t)1, 512), -EFAULT);
	blk_file_close(&file);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(refusals),
		TEST(one_writer_or_many_readers),
		TEST(functions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
