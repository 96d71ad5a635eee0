/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory in several files: any range of it comes from where the list says, errors and cancels pass
 * through, and a list that is cut, changed or of something else opens nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/prng.h"
#include "source/layers_format.h"
#include "source_fixture.h"

#define PAGES 512u
#define BYTES (PAGES * 4096u)
#define LEN_MAX 40000u
#define FILES 3u

struct bed {
	struct fixture fx;
	const void *list; /* the file's content; NULL: there is none */
	size_t list_len;
	struct layer all[LAYERS_MAX];
	struct layers layers;
	uint64_t pages[FILES][PAGES / 64];
	struct io_req *held; /* the read that is not answered */
	bool hold;
	bool busy; /* a cancel comes too late: the file answers all the same */
	unsigned reads;
	unsigned asked[FILES][PAGES]; /* by cached() */
	unsigned opens, closes;
	uint64_t size; /* of the files */
	unsigned char buf[LEN_MAX];
};

static unsigned char content(unsigned file, uint64_t off)
{
	return (unsigned char)(file * 83 + off / 4096 * 7 + off % 4096);
}

static unsigned char want(const struct bed *b, uint64_t off)
{
	return content(layers_find(&b->layers, off / 4096), off);
}

/* "d/0" to "d/2", and the list. None is looked into. */
static int fake_open(void *ctx, const char *path, struct io_file **ret_file, uint64_t *ret_size,
		     struct err *e)
{
	struct bed *b = ctx;
	bool is_list = strcmp(path, "d/list") == 0;

	assert_memory_equal(path, "d/", 2);
	if (path[2] == 'x' || (is_list && !b->list))
		return err_sys(e, -ENOENT, "open %s", path);
	*ret_file = (struct io_file *)(void *)(is_list ? &b->all[FILES] : &b->all[path[2] - '0']);
	*ret_size = is_list ? b->list_len : b->size;
	b->opens++;
	return 0;
}

static void fake_close(void *ctx, struct io_file *file)
{
	((struct bed *)ctx)->closes += file != NULL;
}

static void fill(struct bed *b, struct io_file *file, uint64_t off, unsigned char *to, size_t len)
{
	unsigned n = (unsigned)((struct layer *)(void *)file - b->all);

	for (size_t i = 0; i < len; i++)
		to[i] = content(n, off + i);
}

static void fake_read(void *ctx, struct io_file *file, struct io_req *rd, uint64_t off, void *buf,
		      size_t len)
{
	struct bed *b = ctx;

	b->reads++;
	if (b->hold) {
		b->held = rd;
		return;
	}
	fill(b, file, off, buf, len);
	rd->done(rd, (int)len);
}

static void fake_cancel(void *ctx, struct io_req *rd)
{
	struct bed *b = ctx;

	assert_ptr_equal(rd, b->held);
	if (!b->busy)
		rd->done(rd, -ECANCELED);
}

static void fake_raise(void *ctx, struct io_req *rd, enum turn turn)
{
	assert_ptr_equal(rd, ((struct bed *)ctx)->held);
	rd->turn = (uint8_t)turn;
}

static int fake_load(void *ctx, struct io_file *file, const char *path, uint64_t off, void *buf,
		     size_t len, struct err *e)
{
	const struct bed *b = ctx;

	(void)e;
	if (strcmp(path, "d/list") == 0)
		memcpy(buf, (const char *)b->list + off, len);
	else
		fill(ctx, file, off, buf, len);
	return 0;
}

/* Notes who is asked for which page. */
static int64_t fake_cached(void *ctx, const struct io_file *file, uint64_t off, uint64_t len)
{
	struct bed *b = ctx;

	for (uint64_t at = off; at < off + len; at += 4096)
		b->asked[(const struct layer *)(const void *)file - b->all][at / 4096]++;
	return (int64_t)len;
}

static void write_list(struct bed *b, const void *bytes, size_t len)
{
	b->list = bytes;
	b->list_len = len;
}

static int begin(void **state)
{
	static const struct io_ops ops = {.open = fake_open, .close = fake_close,
					  .read = fake_read, .cancel = fake_cancel,
					  .raise = fake_raise, .load = fake_load,
					  .cached = fake_cached};
	struct bed *b = calloc(1, sizeof(*b));

	fixture_init(&b->fx);
	b->fx.env.io = (struct io){.ops = &ops, .ctx = b};
	b->size = BYTES;
	b->layers = (struct layers){.bytes = BYTES, .count = FILES, .all = b->all};
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(b->all[i].path, sizeof(b->all[i].path), "%u", i);
		memset(b->all[i].id, (int)i + 1, sizeof(b->all[i].id));
		for (unsigned p = 0; p < PAGES; p++)
			if (p % (i * 3 + 2) == i)
				b->pages[i][p / 64] |= 1ull << p % 64;
		b->all[i].pages = i + 1 < FILES ? b->pages[i] : NULL;
	}
	*state = b;
	return 0;
}

static int end(void **state)
{
	struct bed *b = *state;

	src_close(b->fx.src);
	assert_int_equal(b->closes, b->opens);
	free(b);
	return 0;
}

static void *list_of(const struct bed *b, size_t *ret_len)
{
	void *bytes;
	struct err e;

	assert_int_equal(layers_format(&b->layers, &bytes, ret_len, &e), 0);
	return bytes;
}

static int open_list(struct bed *b, struct err *e)
{
	return src_open("layers:d/list", &b->fx.env, &b->fx.src, e);
}

static void open_it(struct bed *b)
{
	size_t len;
	void *bytes = list_of(b, &len);
	struct err e = {0};

	write_list(b, bytes, len);
	if (open_list(b, &e) < 0)
		fail_msg("%s", e.text);
	free(bytes);
	assert_int_equal(b->opens, FILES + 1);
	assert_int_equal(b->fx.src->size, BYTES);
}

static void read_range(struct bed *b, struct request *rq, uint64_t offset, uint32_t len)
{
	request_init(rq, &b->fx, offset, len);
	rq->rd.buf = b->buf;
	b->fx.ends = 0;
	request_read(rq);
}

static void expect(const struct bed *b, uint64_t offset, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		if (b->buf[i] != want(b, offset + i))
			fail_msg("byte %u behind %llu", i, (unsigned long long)offset);
}

static void any_range(void **state)
{
	struct bed *b = *state;
	struct request rq;
	struct prng prng;

	open_it(b);
	prng_init(&prng, 7);
	for (unsigned i = 0; i < 500; i++) {
		uint32_t len = 1 + (uint32_t)prng_below(&prng, i % 2 ? LEN_MAX : 5000);
		uint64_t offset = prng_below(&prng, BYTES - len + 1);
		struct err e;

		memset(b->buf, 0x55, len);
		read_range(b, &rq, offset, len);
		assert_int_equal(rq.done, 1);
		assert_int_equal(rq.code, 0);
		expect(b, offset, len);
		memset(b->buf, 0x55, len);
		assert_int_equal(src_load(b->fx.src, offset, b->buf, len, &e), 0);
		expect(b, offset, len);
	}
}

/* Each file is asked for the pages that come from it, and for no others. */
static void what_is_in_the_page_cache(void **state)
{
	struct bed *b = *state;

	open_it(b);
	assert_int_equal(src_cached(b->fx.src, 4096, BYTES - 2 * 4096), BYTES - 2 * 4096);
	for (unsigned page = 0; page < PAGES; page++)
		for (unsigned i = 0; i < FILES; i++)
			assert_int_equal(b->asked[i][page],
					 page > 0 && page < PAGES - 1 &&
						 layers_find(&b->layers, page) == i);
}

static void errors_and_cancels_pass(void **state)
{
	struct bed *b = *state;
	struct request rq;

	open_it(b);
	b->hold = true;
	for (unsigned i = 0; i < 3 * READS_MAX; i++) {
		read_range(b, &rq, i * 4096, 3 * 4096);
		assert_int_equal(rq.done, 0);
		if (i % 2)
			request_cancel(&rq);
		else
			b->held->done(b->held, -EIO);
		assert_int_equal(rq.done, 1);
		assert_int_equal(rq.code, i % 2 ? -ECANCELED : -EIO);
	}
}

/* What was cancelled asks no other file, where that which was asked answers all the same. */
static void a_cancel_ends_it_at_the_next_file(void **state)
{
	struct bed *b = *state;
	struct request rq;
	unsigned before;

	open_it(b);
	b->hold = b->busy = true;
	for (uint32_t page = 0; page + 2 < PAGES; page++) {
		bool two = layers_find(&b->layers, page) != layers_find(&b->layers, page + 1);

		read_range(b, &rq, page * 4096, 2 * 4096);
		before = b->reads;
		request_cancel(&rq);
		assert_int_equal(rq.done, 0);
		b->held->done(b->held, two ? 4096 : 2 * 4096);
		assert_int_equal(b->reads, before);
		assert_int_equal(rq.done, 1);
		assert_int_equal(rq.code, two ? -ECANCELED : 0);
	}
}

/* In the file that is being read, and in those that come next. */
static void a_raised_read_goes_by_its_new_turn(void **state)
{
	struct bed *b = *state;
	struct request rq;

	open_it(b);
	b->hold = true;
	request_init(&rq, &b->fx, 0, 16 * 4096);
	rq.rd.buf = calloc(16, 4096);
	rq.rd.rank = SRC_FILL;
	request_read(&rq);
	assert_int_equal(b->held->turn, TURN_FILL);
	src_raise(b->fx.src, &rq.rd, TURN_DEMAND);
	while (rq.done == 0) {
		assert_int_equal(b->held->turn, TURN_DEMAND);
		b->held->done(b->held, 4096);
	}
	assert_true(b->reads > 2);
	assert_int_equal(rq.code, 0);
	free(rq.rd.buf);
}

static void refused(struct bed *b, const void *bytes, size_t len, const char *says)
{
	struct err e = {0};

	write_list(b, bytes, len);
	assert_true(open_list(b, &e) < 0);
	assert_null(b->fx.src);
	assert_int_equal(b->closes, b->opens);
	if (!strstr(e.text, says))
		fail_msg("'%s' is not in '%s'", says, e.text);
}

static void what_is_no_list_is_refused(void **state)
{
	struct bed *b = *state;
	size_t len;
	unsigned char *bytes = list_of(b, &len);
	struct err e = {0};

	assert_true(open_list(b, &e) == -ENOENT);
	refused(b, bytes, 0, "cut short");
	refused(b, bytes, 31, "cut short");
	refused(b, bytes, len - 1, "cut short");
	/* Whichever byte: none is a path to elsewhere, or a bit that was not written. */
	for (size_t at = 0; at < len; at += at < 64 ? 1 : 97) {
		bytes[at] ^= 0x10;
		refused(b, bytes, len, "");
		bytes[at] ^= 0x10;
	}
	b->size = BYTES - 4096;
	refused(b, bytes, len, "not as long as");
	b->size = BYTES + 4096;
	refused(b, bytes, len, "not as long as");
	b->size = BYTES;
	free(bytes);
	snprintf(b->all[2].path, LAYERS_PATH_MAX, "x");
	bytes = list_of(b, &len);
	refused(b, bytes, len, "No such file");
	free(bytes);
	b->all[2].path[0] = 0;
	bytes = list_of(b, &len);
	refused(b, bytes, len, "a path that does not end");
	free(bytes);
	b->layers.count = LAYERS_MAX + 1;
	assert_int_equal(layers_format(&b->layers, (void **)&bytes, &len, &e), -E2BIG);
	assert_int_equal(src_check("layers:", &e), -EINVAL);
}

/* The last of as many as there may be has all that no other has. */
static void as_many_as_there_may_be(void **state)
{
	static const uint64_t none[PAGES / 64] = {0};
	struct bed *b = *state;
	struct layers got;
	struct err e = {0};
	size_t len;
	void *bytes;

	for (unsigned i = 0; i < LAYERS_MAX; i++) {
		snprintf(b->all[i].path, sizeof(b->all[i].path), "%u", i);
		b->all[i].pages = none;
	}
	b->all[LAYERS_MAX - 1].pages = NULL;
	b->layers.count = LAYERS_MAX;
	bytes = list_of(b, &len);
	if (layers_parse(bytes, len, &got, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(got.count, LAYERS_MAX);
	assert_string_equal(got.all[LAYERS_MAX - 1].path, b->all[LAYERS_MAX - 1].path);
	assert_int_equal(layers_find(&got, PAGES - 1), LAYERS_MAX - 1);
	layers_free(&got);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(any_range, begin, end),
		cmocka_unit_test_setup_teardown(what_is_in_the_page_cache, begin, end),
		cmocka_unit_test_setup_teardown(errors_and_cancels_pass, begin, end),
		cmocka_unit_test_setup_teardown(a_cancel_ends_it_at_the_next_file, begin, end),
		cmocka_unit_test_setup_teardown(a_raised_read_goes_by_its_new_turn, begin, end),
		cmocka_unit_test_setup_teardown(what_is_no_list_is_refused, begin, end),
		cmocka_unit_test_setup_teardown(as_many_as_there_may_be, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
