/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block of a migration file of QEMU's as a source: any range of it, pages that were not stored
 * are zeroes although something lies at their place, one read of the file at most, errors and
 * cancels of which pass through, files that are none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "base/prng.h"
#include "mapped_ram_make.h"
#include "source_fixture.h"

#define PAGES 100u
#define BYTES (PAGES * 4096u)
#define LEN_MAX 40000u

struct bed {
	struct fixture fx;
	struct src inner;
	struct mapped_made file;
	struct src_read *held; /* the inner read that is not answered */
	bool hold;
	unsigned reads, closes;
	uint64_t pages_at;
	unsigned char want[BYTES];
	unsigned char buf[LEN_MAX];
};

static struct bed *bed_of(struct src *s)
{
	return CONTAINER_OF(s, struct bed, inner);
}

static void answer(struct bed *b, struct src_read *rd, int code)
{
	struct err why;

	if (code < 0) {
		(void)err_sys(&why, code, "the file");
		rd->done(rd, &why);
		return;
	}
	memcpy(rd->buf, b->file.at + rd->offset, rd->len);
	rd->done(rd, NULL);
}

static void inner_read(struct src *s, struct src_read *rd)
{
	struct bed *b = bed_of(s);

	assert_true(rd->len > 0 && rd->offset + rd->len <= b->file.len);
	b->reads++;
	if (b->hold)
		b->held = rd;
	else
		answer(b, rd, 0);
}

static void inner_cancel(struct src *s, struct src_read *rd)
{
	assert_ptr_equal(bed_of(s)->held, rd);
	answer(bed_of(s), rd, -ECANCELED);
}

static int inner_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e)
{
	(void)e;
	assert_true(offset + len <= s->size);
	memcpy(buf, bed_of(s)->file.at + offset, len);
	return 0;
}

static int64_t inner_cached(struct src *s, uint64_t offset, uint64_t len)
{
	assert_int_equal(offset, bed_of(s)->pages_at + 2 * 4096);
	return (int64_t)len;
}

static void inner_close(struct src *s)
{
	bed_of(s)->closes++;
}

static int open_block(struct bed *b, const char *block, struct err *e)
{
	return src_qemu_open(&b->inner, "vm.mig", block, &b->fx.env, &b->fx.src, e);
}

static int begin(void **state)
{
	static const struct src_ops ops = {.name = "inner", .read = inner_read,
					   .cancel = inner_cancel, .load = inner_load,
					   .cached = inner_cached, .close = inner_close};
	struct bed *b = calloc(1, sizeof(*b));
	struct err e;

	fixture_init(&b->fx);
	mapped_begin(&b->file, 2 * BYTES);
	mapped_block(&b->file, "vga.vram", BYTES, 0);
	mapped_block(&b->file, "pc.ram", BYTES, 0);
	/* What an earlier pass has left behind. */
	b->pages_at = b->file.len - BYTES;
	for (unsigned i = 0; i < PAGES; i++) {
		if (i % 3 == 0)
			memset(b->want + i * 4096, (int)(i + 1), 4096);
		else
			memset(b->file.at + b->pages_at + i * 4096, 0xee, 4096);
	}
	mapped_end(&b->file);
	b->inner = (struct src){.ops = &ops, .size = b->file.len};
	assert_int_equal(open_block(b, "pc.ram", &e), 0);
	assert_int_equal(b->fx.src->size, BYTES);
	*state = b;
	return 0;
}

static int end(void **state)
{
	struct bed *b = *state;

	src_close(b->fx.src);
	assert_int_equal(b->closes, 1);
	free(b->file.at);
	free(b);
	return 0;
}

static void read_range(struct bed *b, struct request *rq, uint64_t offset, uint32_t len)
{
	request_init(rq, &b->fx, offset, len);
	rq->rd.buf = b->buf;
	memset(b->buf, 0x55, sizeof(b->buf));
	b->fx.ends = 0;
	request_read(rq);
}

static void any_range(void **state)
{
	struct bed *b = *state;
	struct request rq;
	struct prng prng;

	prng_init(&prng, 7);
	for (unsigned i = 0; i < 5000; i++) {
		uint32_t len = 1 + (uint32_t)prng_below(&prng, i % 2 ? LEN_MAX : 5000);
		uint64_t offset = prng_below(&prng, BYTES - len + 1);
		struct err e;

		b->reads = 0;
		read_range(b, &rq, offset, len);
		assert_int_equal(rq.done, 1);
		assert_int_equal(rq.code, 0);
		assert_memory_equal(b->buf, b->want + offset, len);
		assert_true(b->reads <= 1);
		memset(b->buf, 0x55, len);
		assert_int_equal(src_load(b->fx.src, offset, b->buf, len, &e), 0);
		assert_memory_equal(b->buf, b->want + offset, len);
	}
}

static void what_is_in_the_page_cache(void **state)
{
	struct bed *b = *state;

	assert_int_equal(src_cached(b->fx.src, 2 * 4096, 3 * 4096), 3 * 4096);
}

static void what_was_not_stored_is_not_read(void **state)
{
	struct bed *b = *state;
	struct request rq;

	read_range(b, &rq, 1 * 4096, 2 * 4096);
	assert_int_equal(rq.done, 1);
	assert_int_equal(b->reads, 0);
	read_range(b, &rq, 1 * 4096, 4 * 4096);
	assert_int_equal(b->reads, 1);
}

static void errors_and_cancels_pass(void **state)
{
	struct bed *b = *state;
	struct request rq;

	b->hold = true;
	for (unsigned i = 0; i < 3 * READS_MAX; i++) {
		read_range(b, &rq, 0, 4096);
		assert_int_equal(rq.done, 0);
		if (i % 2)
			request_cancel(&rq);
		else
			answer(b, b->held, -EIO);
		assert_int_equal(rq.done, 1);
		assert_int_equal(rq.code, i % 2 ? -ECANCELED : -EIO);
	}
}

static void refused(struct bed *b, const char *block, const char *says)
{
	struct src *before = b->fx.src;
	struct err e = {0};

	assert_true(open_block(b, block, &e) < 0);
	print_message("%s\n", e.text);
	assert_non_null(strstr(e.text, says));
	assert_ptr_equal(b->fx.src, before);
	assert_int_equal(b->closes, 0);
}

static void what_is_none(void **state)
{
	struct bed *b = *state;

	refused(b, "pc.rom", "it has no RAM block pc.rom; there are vga.vram, pc.ram");
	b->inner.size = 4;
	refused(b, NULL, "open vm.mig: no file of QEMU's migration");
	b->inner.size = b->file.len / 2;
	refused(b, NULL, "beyond its end");
	b->inner.size = b->file.len;
	b->file.at[0] = 0;
	refused(b, NULL, "no file of QEMU's migration");
}

/* ---- memory so large that its bitmap is read in pieces ---- */

#define LARGE_BYTES (36ull << 30)
#define LARGE_PAGE 9000000u /* the only one that was stored: its bit is in the second piece */

struct large {
	struct src inner;
	struct mapped_made head, end;
	uint64_t bitmap_at, pages_at;
	unsigned reads;
};

static void lay_over(void *buf, uint64_t offset, size_t len, const unsigned char *bytes,
		     uint64_t at, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (at + i >= offset && at + i - offset < len)
			((unsigned char *)buf)[at + i - offset] = bytes[i];
}

static int large_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e)
{
	const struct large *l = CONTAINER_OF(s, struct large, inner);
	const unsigned char bit = 1u << LARGE_PAGE % 8;

	(void)e;
	memset(buf, 0, len);
	lay_over(buf, offset, len, l->head.at, 0, l->head.len);
	lay_over(buf, offset, len, &bit, l->bitmap_at + LARGE_PAGE / 8, 1);
	lay_over(buf, offset, len, l->end.at, l->pages_at + LARGE_BYTES, l->end.len);
	return 0;
}

static void large_read(struct src *s, struct src_read *rd)
{
	struct large *l = CONTAINER_OF(s, struct large, inner);

	assert_int_equal(rd->offset, l->pages_at + LARGE_PAGE * 4096ull);
	memset(rd->buf, 0x77, rd->len);
	l->reads++;
	rd->done(rd, NULL);
}

static void large_close(struct src *s)
{
	(void)s;
}

static void each_piece_of_a_bitmap(void **state)
{
	static const struct src_ops ops = {.name = "inner", .read = large_read,
					   .load = large_load, .close = large_close};
	struct large l = {.end.at = calloc(1, 64)};
	struct bed *b = calloc(1, sizeof(*b));
	struct request rq;
	struct err e = {0};

	(void)state;
	fixture_init(&b->fx);
	mapped_begin(&l.head, LARGE_BYTES);
	mapped_text(&l.head, "pc.ram");
	mapped_put(&l.head, LARGE_BYTES, 8);
	l.bitmap_at = l.head.len + 28;
	l.pages_at = (l.bitmap_at + LARGE_BYTES / 4096 / 8 + 0xfffff) & ~0xfffffull;
	mapped_put(&l.head, 1, 4);
	mapped_put(&l.head, 4096, 8);
	mapped_put(&l.head, l.bitmap_at, 8);
	mapped_put(&l.head, l.pages_at, 8);
	mapped_end(&l.end);
	l.inner = (struct src){.ops = &ops, .size = l.pages_at + LARGE_BYTES + l.end.len};
	if (src_qemu_open(&l.inner, "vm.mig", NULL, &b->fx.env, &b->fx.src, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(b->fx.src->size, LARGE_BYTES);
	read_range(b, &rq, LARGE_PAGE * 4096ull, 4096);
	assert_int_equal(rq.done, 1);
	assert_int_equal(b->buf[0], 0x77);
	/* The page of the same bit in the first piece. */
	read_range(b, &rq, (LARGE_PAGE - (8ull << 20)) * 4096, 4096);
	assert_int_equal(rq.done, 1);
	assert_int_equal(b->buf[0], 0);
	assert_int_equal(l.reads, 1);
	src_close(b->fx.src);
	free(l.head.at);
	free(l.end.at);
	free(b);
}

static void uris(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(src_check("qemu:vm.mig?block=pc.ram", &e), 0);
	assert_int_equal(src_check("delay+qemu+file:vm.mig?ms=1", &e), 0);
	assert_int_equal(src_check("qemu:", &e), -EINVAL);
	assert_string_equal(e.text, "source URI: qemu: needs a path, as in "
			    "qemu:vm.mig?block=pc.ram");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(any_range, begin, end),
		cmocka_unit_test_setup_teardown(what_is_in_the_page_cache, begin, end),
		cmocka_unit_test_setup_teardown(what_was_not_stored_is_not_read, begin, end),
		cmocka_unit_test_setup_teardown(errors_and_cancels_pass, begin, end),
		cmocka_unit_test_setup_teardown(what_is_none, begin, end),
		cmocka_unit_test(each_piece_of_a_bitmap),
		cmocka_unit_test(uris),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
