/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/disk/blk_file.c: what may be opened as a disk and what is said otherwise; its five
 * functions.
 */
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/disk/blk_file.h"

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

	for (unsigned flags = 0; flags < 2; flags++) {
		assert_int_equal(blk_file_open(&file, path, flags, &b, &e), code);
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
	expect_refused(f, f->path, -EINVAL, "0 bytes; a disk has a sector of 512 at least");
	make(f, 511);
	expect_refused(f, f->path, -EINVAL, "511 bytes; a disk has a sector of 512 at least");
	unlink(f->path);
	/* A pipe nobody writes to must not make us wait. */
	assert_int_equal(mkfifo(f->path, 0600), 0);
	expect_refused(f, f->path, -EINVAL, "neither a regular file nor a block device");
	expect_refused(f, "/dev/null", -EINVAL, "neither a regular file nor a block device");
	struct blk_backing b;
	struct blk_file file = {0};
	struct err e;

	assert_int_equal(blk_file_open(&file, f->folder, BLK_READ_ONLY, &b, &e), -EINVAL);
	assert_int_equal(blk_file_open(&file, f->folder, 0, &b, &e), -EINVAL);
}

static void one_writer_or_many_readers(void **state)
{
	struct fixture *f = *state;
	struct blk_file a = {0}, b = {0};
	struct blk_backing k;
	struct err e;

	make(f, 4096);
	assert_int_equal(blk_file_open(&a, f->path, 0, &k, &e), 0);
	assert_true(k.bytes == 4096 && !k.read_only);
	assert_true(fcntl(a.fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(blk_file_open(&b, f->path, 0, &k, &e), -EBUSY);
	assert_non_null(strstr(e.text, "in use as a disk by another process or VM"));
	assert_int_equal(blk_file_open(&b, f->path, BLK_READ_ONLY, &k, &e), -EBUSY);
	blk_file_close(&a);
	assert_int_equal(blk_file_open(&a, f->path, BLK_READ_ONLY, &k, &e), 0);
	assert_true(k.read_only);
	assert_int_equal(blk_file_open(&b, f->path, BLK_READ_ONLY, &k, &e), 0);
	blk_file_close(&b);
	assert_int_equal(blk_file_open(&b, f->path, 0, &k, &e), -EBUSY);
	blk_file_close(&a);
	blk_file_close(&a);
}

/* Somebody without any lock: a shell's redirection, a copy under way, a loop device. */
static void not_while_it_is_written(void **state)
{
	struct fixture *f = *state;
	struct blk_file file = {0};
	struct blk_backing k;
	struct err e;
	int fd;

	make(f, 4096);
	fd = open(f->path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	for (unsigned flags = 0; flags < 2; flags++) {
		assert_int_equal(blk_file_open(&file, f->path, flags, &k, &e), -EBUSY);
		assert_non_null(strstr(e.text, "another program has it open for writing"));
	}
	close(fd);
	/* Who only reads does no harm. */
	fd = open(f->path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(blk_file_open(&file, f->path, 0, &k, &e), 0);
	blk_file_close(&file);
	close(fd);
}

static void odd_sizes(void **state)
{
	struct fixture *f = *state;
	struct blk_file file = {0};
	struct blk_backing k = {.bytes = 99};
	struct err e;

	make(f, 1000);
	assert_int_equal(blk_file_open(&file, f->path, 0, &k, &e), -EINVAL);
	assert_non_null(strstr(e.text, ": 1000 bytes are no whole number of 512-byte sectors; give "
				       "',ro' to read it without the last 488 bytes, or make it "
				       "larger with truncate -s %512"));
	assert_int_equal(k.bytes, 99);
	assert_int_equal(blk_file_open(&file, f->path, BLK_READ_ONLY, &k, &e), 0);
	assert_true(k.bytes == 512 && k.hidden_bytes == 488 && k.block_bytes == 512);
	blk_file_close(&file);
}

static void what_looks_like_no_raw_disk(void **state)
{
	static const char gzip[] = "\x1f\x8b\x08";
	struct fixture *f = *state;
	struct blk_file file = {0};
	struct blk_backing k;
	struct err e;
	int fd;

	for (int odd = 0; odd < 2; odd++) {
		make(f, 4096 + odd);
		fd = open(f->path, O_WRONLY | O_CLOEXEC);
		assert_int_equal(pwrite(fd, gzip, sizeof(gzip), 0), sizeof(gzip));
		close(fd);
		for (unsigned flags = 0; flags < 2; flags++) {
			assert_int_equal(blk_file_open(&file, f->path, flags, &k, &e), -EINVAL);
			assert_non_null(strstr(e.text, ": it looks like what gzip compresses"));
		}
	}
	assert_int_equal(blk_file_open(&file, f->path, BLK_READ_ONLY | BLK_RAW, &k, &e), 0);
	assert_int_equal(k.bytes, 4096);
	blk_file_close(&file);
}

/* Its first is its last. */
static void a_disk_of_one_sector(void **state)
{
	struct fixture *f = *state;
	struct blk_file file = {0};
	struct blk_backing k;
	struct err e;
	int fd;

	make(f, 512);
	assert_int_equal(blk_file_open(&file, f->path, 0, &k, &e), 0);
	assert_int_equal(k.bytes, 512);
	blk_file_close(&file);
	fd = open(f->path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(fd, "koly", 4), 4);
	close(fd);
	assert_int_equal(blk_file_open(&file, f->path, 0, &k, &e), -EINVAL);
	assert_non_null(strstr(e.text, "a DMG image"));
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
	assert_int_equal(blk_file_open(&file, f->path, 0, &k, NULL), 0);
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
	assert_int_equal(blk_file_open(&file, f->path, BLK_READ_ONLY, &k, NULL), 0);
	assert_int_equal(move(&k, true, 0, buf, 512), -EBADF);
	/* Memory that cannot be touched is not the disk's fault. */
	assert_int_equal(move(&k, false, 0, (void *)(uintptr_t)1, 512), -EFAULT);
	blk_file_close(&file);
}

/* The kernel moves a little less than 2 GiB at once: the rest goes where it belongs. */
static void more_than_the_kernel_moves_at_once(void **state)
{
	const size_t segment = 64u << 20, count = 33;
	const unsigned char mark[] = "the last of it";
	/* Of a memfd, holes take no memory when they are read. */
	int fd = memfd_create("disk", MFD_CLOEXEC);
	struct iovec v[33];
	struct blk_file file;
	struct blk_backing k;
	unsigned char *to;

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)(segment * count)), 0);
	assert_int_equal(pwrite(fd, mark, sizeof(mark), (off_t)(segment * count - sizeof(mark))),
			 sizeof(mark));
	k = blk_file_backing(&file, fd);
	/* All of it to one place, behind which nothing may be written. */
	to = mmap(NULL, segment + 4096, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(to, MAP_FAILED);
	assert_int_equal(mprotect(to + segment, 4096, PROT_NONE), 0);
	for (size_t i = 0; i < count; i++)
		v[i] = (struct iovec){to, segment};
	assert_int_equal(k.ops->readv(k.ctx, 0, v, (unsigned)count), 0);
	assert_memory_equal(to + segment - sizeof(mark), mark, sizeof(mark));
	munmap(to, segment + 4096);
	blk_file_close(&file);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(refusals),
		TEST(one_writer_or_many_readers),
		TEST(not_while_it_is_written),
		TEST(odd_sizes),
		TEST(what_looks_like_no_raw_disk),
		TEST(a_disk_of_one_sector),
		TEST(functions),
		TEST(more_than_the_kernel_moves_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
