/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source/file.c over a fake port/io.h that answers with as many bytes as the test says:
 * short reads go on where they ended, the end of a file that has shrunk is an error,
 * cancel and reuse of requests. The real io is in tests/integration/uring_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "source_fixture.h"

/* Answers of the fake's hole(); the last has to == 0. */
struct fake_hole {
	uint64_t from, to;
};

struct fake_io {
	struct fixture fx;
	struct io_req *rd; /* the one outstanding read */
	uint64_t off;
	void *buf;
	size_t len;
	unsigned reads, cancels, raises, opens, closes;
	const struct fake_hole *holes; /* NULL: it has none */
	uint64_t every; /* else: a hole of a page in as many bytes, without end; 0: no */
	uint64_t look_ns; /* how long each takes then */
	unsigned looks;
	bool changed, uncached;
	uint64_t size; /* 0: 1000 */
	uint64_t asked_off, asked_len; /* of cached() */
};

/* Any address will do: file.c may not look inside. */
static struct io_file *fake_file(struct fake_io *fi)
{
	return (struct io_file *)(void *)fi;
}

static int fake_open(void *ctx, const char *path, struct io_file **ret_file, uint64_t *ret_size,
		     struct err *e)
{
	struct fake_io *fi = ctx;

	if (strcmp(path, "missing") == 0)
		return err_sys(e, -ENOENT, "open %s", path);
	assert_string_equal(path, "a file");
	fi->opens++;
	*ret_file = fake_file(fi);
	*ret_size = fi->size ? fi->size : 1000;
	return 0;
}

static void fake_close(void *ctx, struct io_file *file)
{
	struct fake_io *fi = ctx;

	fi->closes += file != NULL;
}

static int fake_hole(void *ctx, struct io_file *file, uint64_t off, uint64_t *ret_from,
		     uint64_t *ret_to)
{
	struct fake_io *fi = ctx;

	assert_ptr_equal(file, fake_file(fi));
	fi->looks++;
	if (fi->every) {
		*ret_from = align_up(off, fi->every);
		*ret_to = *ret_from + PAGE_BYTES;
		fi->fx.now_ns += fi->look_ns;
		return 0;
	}
	if (!fi->holes || !fi->holes->to)
		return -ENXIO;
	*ret_from = fi->holes->from;
	*ret_to = fi->holes->to;
	fi->holes++;
	return 0;
}

static bool fake_unchanged(void *ctx, const struct io_file *file)
{
	const struct fake_io *fi = ctx;

	(void)file;
	return !fi->changed;
}

/* Every second byte; beyond a byte that no file has, it is refused. */
static int64_t fake_cached(void *ctx, const struct io_file *file, uint64_t off, uint64_t len)
{
	struct fake_io *fi = ctx;

	assert_ptr_equal(file, fake_file(fi));
	fi->asked_off = off;
	fi->asked_len = len;
	return off == 999 ? -EPERM : (int64_t)len / 2;
}

static void fake_uncached(void *ctx, struct io_file *file)
{
	struct fake_io *fi = ctx;

	assert_ptr_equal(file, fake_file(fi));
	fi->uncached = true;
}

static void fake_read(void *ctx, struct io_file *file, struct io_req *rd, uint64_t off, void *buf,
		      size_t len)
{
	struct fake_io *fi = ctx;

	assert_ptr_equal(file, fake_file(fi));
	assert_null(fi->rd);
	fi->rd = rd;
	fi->off = off;
	fi->buf = buf;
	fi->len = len;
	fi->reads++;
}

static void fake_cancel(void *ctx, struct io_req *rd)
{
	struct fake_io *fi = ctx;

	assert_ptr_equal(rd, fi->rd);
	fi->cancels++;
}

static void fake_raise(void *ctx, struct io_req *rd, enum turn turn)
{
	struct fake_io *fi = ctx;

	assert_ptr_equal(rd, fi->rd);
	assert_true(turn < rd->turn);
	rd->turn = (uint8_t)turn;
	fi->raises++;
}

static void fake_answer(struct fake_io *fi, int res)
{
	struct io_req *rd = fi->rd;

	fi->rd = NULL;
	for (int i = 0; i < res; i++)
		((unsigned char *)fi->buf)[i] = (unsigned char)(fi->off + (uint64_t)i);
	rd->done(rd, res);
}

static void fake_init_again(struct fake_io *fi)
{
	static const struct io_ops ops = {
		.open = fake_open, .close = fake_close, .read = fake_read, .cancel = fake_cancel,
		.hole = fake_hole, .unchanged = fake_unchanged, .cached = fake_cached,
		.uncached = fake_uncached, .raise = fake_raise,
	};

	fixture_init(&fi->fx);
	fi->fx.env.io = (struct io){.ops = &ops, .ctx = fi};
	fi->fx.env.reads_max = 1;
	assert_int_equal(src_open("file:a%20file", &fi->fx.env, &fi->fx.src, NULL), 0);
	assert_true(fi->fx.src->size == (fi->size ? fi->size : 1000));
}

static void fake_init(struct fake_io *fi)
{
	memset(fi, 0, sizeof(*fi));
	fake_init_again(fi);
}

static void fake_init_sparse(struct fake_io *fi, uint64_t size, const struct fake_hole *holes)
{
	memset(fi, 0, sizeof(*fi));
	fi->size = size;
	fi->holes = holes;
	fake_init_again(fi);
}

static void fake_fini(struct fake_io *fi)
{
	src_close(fi->fx.src);
	assert_int_equal(fi->opens, 1);
	assert_int_equal(fi->closes, 1);
}

static void whole_read(void **state)
{
	struct fake_io fi;
	struct request rq;

	(void)state;
	fake_init(&fi);
	/* Pool of one: the second round needs the first one's request back. */
	for (int i = 0; i < 2; i++) {
		request_init(&rq, &fi.fx, 936, 64);
		request_read(&rq);
		assert_int_equal(fi.off, 936);
		assert_int_equal(fi.len, 64);
		assert_ptr_equal(fi.buf, rq.buf); /* in place */
		fake_answer(&fi, 64);
		assert_int_equal(rq.done, 1);
		assert_int_equal(rq.code, 0);
	}
	fake_fini(&fi);
}

static void short_read_goes_on(void **state)
{
	struct fake_io fi;
	struct request rq;

	(void)state;
	fake_init(&fi);
	request_init(&rq, &fi.fx, 100, 64);
	request_read(&rq);
	fake_answer(&fi, 1);
	assert_int_equal(rq.done, 0);
	assert_int_equal(fi.off, 101);
	assert_int_equal(fi.len, 63);
	fake_answer(&fi, 40);
	assert_int_equal(fi.off, 141);
	assert_int_equal(fi.len, 23);
	fake_answer(&fi, 23);
	assert_int_equal(rq.done, 1);
	assert_int_equal(rq.code, 0);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(rq.buf[i], 100 + i);
	fake_fini(&fi);
}

/* What is being read, and what of it is read next. */
static void a_raised_read_goes_by_its_new_turn(void **state)
{
	struct fake_io fi;
	struct request rq;

	(void)state;
	fake_init(&fi);
	request_init(&rq, &fi.fx, 100, 64);
	rq.rd.rank = SRC_FILL;
	request_read(&rq);
	assert_int_equal(fi.rd->turn, TURN_FILL);
	src_raise(fi.fx.src, &rq.rd, TURN_DEMAND);
	assert_int_equal(fi.rd->turn, TURN_DEMAND);
	src_raise(fi.fx.src, &rq.rd, TURN_AHEAD);
	assert_int_equal(fi.raises, 1);
	fake_answer(&fi, 1);
	assert_int_equal(fi.rd->turn, TURN_DEMAND);
	fake_answer(&fi, 63);
	assert_int_equal(rq.code, 0);
	fake_fini(&fi);
}

static void end_of_file_is_an_error_with_places(void **state)
{
	struct fake_io fi;
	struct request rq;

	(void)state;
	fake_init(&fi);
	request_init(&rq, &fi.fx, 100, 64);
	request_read(&rq);
	fake_answer(&fi, 10);
	fake_answer(&fi, 0);
	assert_int_equal(rq.done, 1);
	assert_int_equal(rq.code, -EIO);
	assert_string_equal(rq.text, "a file ended at byte 110 although it had 1000 when it was "
			    "opened");
	assert_int_equal(fi.reads, 2);
	fake_fini(&fi);
}

static void error_names_file_and_place(void **state)
{
	struct fake_io fi;
	struct request rq;

	(void)state;
	fake_init(&fi);
	request_init(&rq, &fi.fx, 100, 64);
	request_read(&rq);
	fake_answer(&fi, 10);
	fake_answer(&fi, -EBADMSG);
	assert_int_equal(rq.done, 1);
	assert_int_equal(rq.code, -EBADMSG);
	assert_string_equal(rq.text, "read a file at byte 110: Bad message");
	fake_fini(&fi);
}

/* Codes whose own words say nothing of a read. */
static void shortages_are_named(void **state)
{
	static const struct {
		int res, code;
		const char *text;
	} rows[] = {
		{-EFAULT, -ENOMEM, "read a file at byte 100: the host has no memory for it, or may "
				   "not promise it (vm.overcommit_memory=2)"},
		{-EAGAIN, -EAGAIN, "read a file at byte 100: the kernel cannot start a thread for "
				   "it (ulimit -u)"},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fake_io fi;
		struct request rq;

		fake_init(&fi);
		request_init(&rq, &fi.fx, 100, 64);
		request_read(&rq);
		fake_answer(&fi, rows[i].res);
		assert_int_equal(rq.code, rows[i].code);
		assert_string_equal(rq.text, rows[i].text);
		fake_fini(&fi);
	}
}

/* A cancel that comes too late to stop a short piece must still stop what follows it. */
static void cancel_ends_a_read_in_pieces(void **state)
{
	struct fake_io fi;
	struct request rq;

	(void)state;
	fake_init(&fi);
	request_init(&rq, &fi.fx, 100, 64);
	request_read(&rq);
	request_cancel(&rq);
	request_cancel(&rq);
	assert_int_equal(fi.cancels, 1);
	assert_int_equal(rq.done, 0);
	fake_answer(&fi, 10);
	assert_int_equal(rq.done, 1);
	assert_int_equal(rq.code, -ECANCELED);
	assert_int_equal(fi.reads, 1);

	request_init(&rq, &fi.fx, 100, 64);
	request_read(&rq);
	request_cancel(&rq);
	fake_answer(&fi, 64); /* it was complete after all */
	assert_int_equal(rq.done, 1);
	assert_int_equal(rq.code, 0);
	fake_fini(&fi);
}

static void done_may_read_again(void **state)
{
	struct fake_io fi;
	struct request rq[2];

	(void)state;
	fake_init(&fi);
	request_init(&rq[0], &fi.fx, 0, 64);
	request_init(&rq[1], &fi.fx, 64, 64);
	rq[0].then = &rq[1];
	request_read(&rq[0]);
	fake_answer(&fi, 64);
	fake_answer(&fi, 64);
	assert_int_equal(rq[0].done, 1);
	assert_int_equal(rq[1].done, 1);
	assert_int_equal(rq[1].code, 0);
	fake_fini(&fi);
}

static void open_failure_comes_through_a_stack(void **state)
{
	struct src *untouched = (void *)0x10;
	struct src *ret = untouched;
	struct fake_io fi;
	struct err e;

	(void)state;
	fake_init(&fi);
	assert_int_equal(src_open("delay+file:missing?us=1", &fi.fx.env, &ret, &e), -ENOENT);
	assert_string_equal(e.text, "open missing: No such file or directory");
	assert_ptr_equal(ret, untouched);
	fake_fini(&fi);
}

/* Reads 64 bytes; true: without the file. */
static bool reads_hole(struct fake_io *fi, uint64_t offset)
{
	unsigned reads = fi->reads;
	struct request rq;

	request_init(&rq, &fi->fx, offset, 64);
	memset(rq.buf, 0xaa, 64);
	request_read(&rq);
	if (fi->reads > reads) {
		fake_answer(fi, 64);
		assert_int_equal(rq.done, 1);
		return false;
	}
	assert_int_equal(rq.done, 1);
	assert_int_equal(rq.code, 0);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(rq.buf[i], 0);
	return true;
}

static void a_hole_needs_no_read(void **state)
{
	static const struct fake_hole holes[] = {
		{0, 4096}, {8192, 8192 + 512}, {16384, 40960}, {65536, 1 << 20}, {0, 0}};
	struct fake_io fi;

	(void)state;
	/* The last reaches beyond the size that was told. */
	fake_init_sparse(&fi, 100000, holes);
	assert_true(reads_hole(&fi, 0));
	assert_true(reads_hole(&fi, 4096 - 64));
	assert_false(reads_hole(&fi, 4096 - 63));
	assert_false(reads_hole(&fi, 4096));
	/* Smaller than a page: not worth a place. */
	assert_false(reads_hole(&fi, 8192));
	assert_false(reads_hole(&fi, 16383));
	assert_true(reads_hole(&fi, 16384));
	assert_true(reads_hole(&fi, 40960 - 64));
	assert_false(reads_hole(&fi, 40960));
	assert_true(reads_hole(&fi, 100000 - 64));
	fake_fini(&fi);
}

/* What is written into a hole later, and an end that has come nearer, are for the file to tell. */
static void a_changed_file_is_read(void **state)
{
	static const struct fake_hole holes[] = {{0, 8192}, {0, 0}};
	struct fake_io fi;

	(void)state;
	fake_init_sparse(&fi, 8192, holes);
	assert_true(reads_hole(&fi, 100));
	fi.changed = true;
	assert_false(reads_hole(&fi, 100));
	/* For good: its times may be set back. */
	fi.changed = false;
	assert_false(reads_hole(&fi, 100));
	fake_fini(&fi);
}

static void a_file_system_that_leads_nowhere(void **state)
{
	static const struct fake_hole rows[][3] = {
		{{16384, 32768}, {0, 8192}, {0, 0}},         /* backwards */
		{{16384, 32768}, {32768, 32768}, {0, 0}},    /* empty: it would never end */
		{{16384, 32768}, {1 << 20, 2 << 20}, {0, 0}}, /* behind the end */
	};
	struct fake_io fi;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		fake_init_sparse(&fi, 100000, rows[i]);
		assert_int_equal(fi.looks, 2);
		assert_true(reads_hole(&fi, 16384));
		assert_false(reads_hole(&fi, 0));
		assert_false(reads_hole(&fi, 40960));
		fake_fini(&fi);
	}
}

static void there_are_holes_without_end(void **state)
{
	struct fake_io fi;

	(void)state;
	memset(&fi, 0, sizeof(fi));
	fi.size = 1ull << 50;
	fi.every = 8192;
	fi.look_ns = NS_PER_US;
	fake_init_again(&fi);
	assert_int_equal(fi.looks, 32768);
	assert_true(reads_hole(&fi, 32767 * 8192ull));
	assert_false(reads_hole(&fi, 32768 * 8192ull));
	fake_fini(&fi);
	/* A slow file system is not asked for long. */
	fi.opens = fi.closes = fi.looks = 0;
	fi.look_ns = 10 * NS_PER_MS;
	fake_init_again(&fi);
	assert_int_equal(fi.looks, 20);
	assert_true(reads_hole(&fi, 0));
	fake_fini(&fi);
}

/* Wrappers that have the file's bytes ask for the same range; what is no file knows nothing. */
static void what_is_in_the_page_cache(void **state)
{
	static const char *const uris[] = {
		"file:a%20file", "delay+file:a%20file?ms=1", "retry+file:a%20file",
		"fault+rate+file:a%20file?bw=1M&fault-hang-at=9",
	};
	struct fake_io fi;
	struct src *s;
	struct err e;

	(void)state;
	fake_init(&fi);
	for (unsigned i = 0; i < ARRAY_LEN(uris); i++) {
		if (src_open(uris[i], &fi.fx.env, &s, &e) < 0)
			fail_msg("%s", e.text);
		assert_int_equal(src_cached(s, 100 + i, 600), 300);
		assert_int_equal(fi.asked_off, 100 + i);
		assert_int_equal(fi.asked_len, 600);
		assert_int_equal(src_cached(s, 999, 1), -EPERM);
		src_close(s);
		fi.opens--; /* those that are left are the fixture's */
		fi.closes--;
	}
	assert_int_equal(src_open("delay+zero:?size=1M&ms=1", &fi.fx.env, &s, &e), 0);
	assert_int_equal(src_cached(s, 0, 4096), -ENOENT);
	src_close(s);
	fake_fini(&fi);
}

static void direct_or_not(void **state)
{
	struct fake_io fi;
	struct src *s = NULL;
	struct err e;

	(void)state;
	fake_init(&fi);
	for (unsigned direct = 0; direct < 2; direct++) {
		assert_int_equal(src_open(direct ? "file:a%20file?direct=1"
						 : "file:a%20file?direct=0",
					  &fi.fx.env, &s, &e), 0);
		assert_int_equal(fi.uncached, direct);
		src_close(s);
		fi.opens--; /* those that are left are the fixture's */
		fi.closes--;
	}
	assert_int_equal(src_check("file:a?direct=2", &e), -EINVAL);
	fake_fini(&fi);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_read),
		cmocka_unit_test(short_read_goes_on),
		cmocka_unit_test(a_raised_read_goes_by_its_new_turn),
		cmocka_unit_test(end_of_file_is_an_error_with_places),
		cmocka_unit_test(error_names_file_and_place),
		cmocka_unit_test(shortages_are_named),
		cmocka_unit_test(cancel_ends_a_read_in_pieces),
		cmocka_unit_test(done_may_read_again),
		cmocka_unit_test(open_failure_comes_through_a_stack),
		cmocka_unit_test(a_hole_needs_no_read),
		cmocka_unit_test(a_changed_file_is_read),
		cmocka_unit_test(a_file_system_that_leads_nowhere),
		cmocka_unit_test(there_are_holes_without_end),
		cmocka_unit_test(what_is_in_the_page_cache),
		cmocka_unit_test(direct_or_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
