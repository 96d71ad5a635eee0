/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page source of a file (src/source/file.c) on real files, by either way of src/io: one that
 * shrinks, one with holes.
 */
#include "uring_fixture.h"

#include "port/clock.h"
#include "source/source.h"

/* A read through the page source on top. */
struct source_request {
	struct src_read rd;
	struct bed *bed;
	struct err why; /* code 0: all is well */
};

static void source_done(struct src_read *rd, const struct err *why)
{
	struct source_request *sr = CONTAINER_OF(rd, struct source_request, rd);

	if (why)
		sr->why = *why;
	sr->bed->ends++;
}

static uint64_t source_now_ns(void *ctx)
{
	(void)ctx;
	return bed_now();
}

static const struct clock_ops source_clock = {.now_ns = source_now_ns};

/* Whether the read was over at once, and its bytes are zeroes. */
static bool source_reads_zeroes(struct bed *b, struct src *src, uint64_t offset)
{
	struct source_request sr = {
		.rd = {.offset = offset, .buf = b->bufs, .len = READ_BYTES, .done = source_done},
		.bed = b,
	};
	bool at_once;

	memset(b->bufs, 0xaa, READ_BYTES);
	b->ends = 0;
	src->ops->read(src, &sr.rd);
	at_once = b->ends == 1;
	if (!at_once) {
		bed_flush(b);
		bed_reap(b);
		bed_wait(b, 1);
	}
	assert_int_equal(sr.why.code, 0);
	for (unsigned i = 0; at_once && i < READ_BYTES; i++)
		assert_int_equal(b->bufs[i], 0);
	return at_once;
}

/* A file with a page of content in the middle of nothing; then somebody writes to it. */
static void a_hole_needs_no_read(void **state)
{
	struct src_env env = {.reads_max = 1, .clock = {.ops = &source_clock}};
	struct src *src;
	struct bed b;
	int fd;

	(void)state;
	bed_init(&b, 4);
	env.io = b.io;
	assert_int_equal(truncate(b.path, 0), 0);
	assert_int_equal(truncate(b.path, FILE_BYTES), 0);
	fd = open(b.path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "content", 7, FILE_BYTES / 2), 7);
	assert_int_equal(fsync(fd), 0);
	if (lseek(fd, 0, SEEK_HOLE) != 0) {
		print_message("SKIP: the file system of /var/tmp does not tell of holes\n");
		close(fd);
		bed_fini(&b);
		return;
	}
	/* Just changed, it is read: another change could not be told. That passes soon. */
	for (;;) {
		assert_int_equal(src_file_open(b.path, &env, &src, NULL), 0);
		if (source_reads_zeroes(&b, src, 0))
			break;
		src_close(src);
	}
	assert_true(source_reads_zeroes(&b, src, FILE_BYTES - READ_BYTES));
	assert_false(source_reads_zeroes(&b, src, FILE_BYTES / 2));
	assert_string_equal((char *)b.bufs, "content");
	assert_int_equal(pwrite(fd, "changed", 7, 0), 7);
	assert_false(source_reads_zeroes(&b, src, 0));
	assert_string_equal((char *)b.bufs, "changed");
	close(fd);
	src_close(src);
	bed_fini(&b);
}

/* The file shrinks between open and read, to the middle of what is read. */
static void truncated_file_is_an_error(void **state)
{
	struct src_env env = {.reads_max = 1, .clock = {.ops = &source_clock}};
	struct source_request sr;
	char expect[ERR_TEXT_MAX];
	struct src *src;
	struct bed b;

	(void)state;
	bed_init(&b, 4);
	env.io = b.io;
	assert_int_equal(src_file_open(b.path, &env, &src, NULL), 0);
	for (int shrunk = 0; shrunk < 2; shrunk++) {
		sr = (struct source_request){
			.rd = {.offset = 4096, .buf = b.bufs, .len = 2 * READ_BYTES,
			       .done = source_done},
			.bed = &b,
		};
		b.ends = 0;
		if (shrunk)
			assert_int_equal(truncate(b.path, 5000), 0);
		src->ops->read(src, &sr.rd);
		bed_flush(&b);
		bed_reap(&b);
		bed_wait(&b, 1);
		assert_int_equal(sr.why.code, shrunk ? -EIO : 0);
	}
	snprintf(expect, sizeof(expect), "%s ended at byte 5000 although it had %u when it was "
		 "opened", b.path, FILE_BYTES);
	assert_string_equal(sr.why.text, expect);
	src_close(src);
	bed_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(truncated_file_is_an_error),
		cmocka_unit_test(a_hole_needs_no_read),
	};

	return BED_RUN(IOQ_URING, tests) + BED_RUN(IOQ_THREADS, tests);
}
