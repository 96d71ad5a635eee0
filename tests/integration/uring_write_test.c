/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes, syncs and uncached files of src/io on real files, by the kernel's io_uring and by
 * threads; what of a file is in the page cache.
 */
#include "uring_fixture.h"

#include <signal.h>
#include <sys/mman.h>

/* Neither kind waits for the other, however many there are of it. */
static void reads_and_writes_do_not_wait_for_each_other(void **state)
{
	struct io_file empty, full;
	int fds[2], write_fd;
	struct bed b;

	(void)state;
	bed_init(&b, 1);
	empty = pipe_open(&write_fd);
	request_read(&b.rq[0], &empty, 0, READ_BYTES); /* hangs, and takes up all of the depth */
	request_read(&b.rq[1], &empty, 0, READ_BYTES);
	b.io.ops->write(b.io.ctx, b.file, &b.rq[2].rd, 0, b.rq[2].buf, READ_BYTES);
	b.io.ops->sync(b.io.ctx, b.file, &b.rq[3].rd);
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 2);
	assert_int_equal(b.rq[2].done + b.rq[3].done, 2);
	b.io.ops->cancel(b.io.ctx, &b.rq[1].rd);
	b.io.ops->cancel(b.io.ctx, &b.rq[0].rd);
	(void)close(write_fd); /* what a thread is in ends by itself alone */
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 4);

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(fcntl(fds[1], F_SETPIPE_SZ, 4096), 4096);
	assert_int_equal(write(fds[1], b.bufs, 4096), 4096);
	full = (struct io_file){.fd = fds[1], .direct_fd = -1};
	for (unsigned i = 0; i < IO_WRITES_MAX + 1; i++)
		b.io.ops->write(b.io.ctx, &full, &b.rq[8 + i].rd, 0, b.bufs, READ_BYTES);
	b.rq[4].done = 0;
	request_read(&b.rq[4], b.file, 8 * READ_BYTES, READ_BYTES);
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 5);
	check_content(&b.rq[4], 8 * READ_BYTES);
	for (unsigned i = 0; i < IO_WRITES_MAX + 1; i++)
		b.io.ops->cancel(b.io.ctx, &b.rq[8 + i].rd);
	(void)close(fds[0]);
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 5 + IO_WRITES_MAX + 1);
	(void)close(fds[1]);
	(void)close(empty.fd);
	bed_fini(&b);
}

static void a_sync_tells_how_it_went(void **state)
{
	struct io_file pipe;
	struct bed b;
	int write_fd;

	(void)state;
	bed_init(&b, 4);
	pipe = pipe_open(&write_fd);
	b.io.ops->sync(b.io.ctx, b.file, &b.rq[0].rd);
	b.io.ops->sync(b.io.ctx, &pipe, &b.rq[1].rd); /* cannot be synced */
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 2);
	assert_int_equal(b.rq[0].res, 0);
	assert_int_equal(b.rq[1].res, -EINVAL);
	assert_int_equal(b.rq[0].done + b.rq[1].done, 2);
	(void)close(write_fd);
	(void)close(pipe.fd);
	bed_fini(&b);
}

/* Pages of the file that are in the page cache. */
static unsigned cached_pages(struct bed *b)
{
	static unsigned char in[FILE_BYTES / PAGE_BYTES];
	void *map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, b->file->fd, 0);
	unsigned n = 0;

	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mincore(map, FILE_BYTES, in), 0);
	for (unsigned i = 0; i < sizeof(in); i++)
		n += in[i] & 1;
	munmap(map, FILE_BYTES);
	return n;
}

/* Aligned or not, with O_DIRECT and without: the content is right, and nothing stays behind. */
static void an_uncached_file_leaves_nothing_in_the_page_cache(void **state)
{
	unsigned char *aligned = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
	struct bed b;

	(void)state;
	assert_non_null(aligned);
	for (unsigned way = 0; way < 2; way++) {
		unsigned char *buf;

		bed_init(&b, 4);
		if (!bed_answers_at_once(&b)) {
			print_message("SKIP: this file system has no page cache of its own\n");
			bed_fini(&b);
			break;
		}
		bed_make_cold(&b);
		b.io.ops->uncached(b.io.ctx, b.file);
		if (way)
			b.file->direct_align = 0;
		buf = b.rq[1].buf;
		b.rq[1].buf = aligned;
		request_read(&b.rq[0], b.file, 3 * READ_BYTES + 24, READ_BYTES);
		request_read(&b.rq[1], b.file, 90 * READ_BYTES, READ_BYTES);
		bed_flush(&b);
		bed_reap(&b);
		bed_wait(&b, 2);
		check_content(&b.rq[0], 3 * READ_BYTES + 24);
		check_content(&b.rq[1], 90 * READ_BYTES);
		assert_int_equal(cached_pages(&b), 0);
		b.io.ops->write(b.io.ctx, b.file, &b.rq[2].rd, 200 * READ_BYTES, aligned,
				READ_BYTES);
		bed_flush(&b);
		bed_reap(&b);
		bed_wait(&b, 3);
		assert_int_equal(b.rq[2].res, -EBADF); /* opened for reading */
		b.rq[1].buf = buf;
		bed_fini(&b);
	}
	free(aligned);
}

static int64_t cached(struct bed *b, uint64_t off, uint64_t len)
{
	return b->io.ops->cached(b->io.ctx, b->file, off, len);
}

/* What mincore() says of the file, too, whose owner we are. */
static void what_the_page_cache_has_is_told(void **state)
{
	struct bed b;

	(void)state;
	bed_init(&b, 4);
	if (cached(&b, 0, FILE_BYTES) == -ENOSYS) {
		print_message("SKIP: this kernel has no cachestat (Linux 6.5)\n");
		bed_fini(&b);
		return;
	}
	assert_int_equal(cached(&b, 0, FILE_BYTES), FILE_BYTES);
	bed_make_cold(&b);
	assert_int_equal(cached(&b, 0, FILE_BYTES), cached_pages(&b) * PAGE_BYTES);
	if (cached_pages(&b) > 0) {
		print_message("SKIP: this file system keeps all of a file in memory\n");
		bed_fini(&b);
		return;
	}
	/* Half of it. */
	assert_int_equal(posix_fadvise(b.file->fd, 0, 0, POSIX_FADV_RANDOM), 0);
	for (uint64_t at = FILE_BYTES / 2; at < FILE_BYTES; at += READ_BYTES)
		assert_int_equal(pread(b.file->fd, b.bufs, READ_BYTES, (off_t)at), READ_BYTES);
	assert_int_equal(cached_pages(&b) * PAGE_BYTES, FILE_BYTES / 2);
	assert_int_equal(cached(&b, 0, FILE_BYTES), FILE_BYTES / 2);
	assert_int_equal(cached(&b, 0, FILE_BYTES / 2), 0);
	/* A page counts where it begins, so that a page counts once. */
	assert_int_equal(cached(&b, FILE_BYTES / 2 - 1, 2), PAGE_BYTES);
	assert_int_equal(cached(&b, FILE_BYTES / 2 + 1, PAGE_BYTES - 1), 0);
	assert_int_equal(cached(&b, FILE_BYTES / 2 + 1, PAGE_BYTES), PAGE_BYTES);
	/* It is there, but nobody reads it from there. */
	b.io.ops->uncached(b.io.ctx, b.file);
	if (b.file->direct_fd >= 0)
		assert_int_equal(cached(&b, 0, FILE_BYTES), 0);
	bed_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_and_writes_do_not_wait_for_each_other),
		cmocka_unit_test(a_sync_tells_how_it_went),
		cmocka_unit_test(an_uncached_file_leaves_nothing_in_the_page_cache),
		cmocka_unit_test(what_the_page_cache_has_is_told),
	};

	/* A pipe that nobody reads any more is an error, and nothing else. */
	(void)signal(SIGPIPE, SIG_IGN);
	return BED_RUN(IOQ_URING, tests) + BED_RUN(IOQ_THREADS, tests);
}
