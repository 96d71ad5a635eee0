/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source that decompresses, over an inner source and workers that do what the test says and
 * when: who waits for what, cancel in each state, slots that are all taken, errors, urgent reads,
 * and a random walk over all of it. The real ones are in tests/integration/zst_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/prng.h"
#include "source/zst_manifest.h"
#include "source_fixture.h"
#include "zst_make.h"

#define FRAME_BYTES 10000u
#define FRAMES 24u
#define CONTENT_BYTES (FRAME_BYTES * (FRAMES - 1) + 123u)
#define SLOTS 4u /* the fewest */
#define READ_MAX 30000u
#define PENDING_MAX 64u

/* A read larger than what the fixture's has room for. */
struct big {
	struct request rq;
	unsigned char buf[READ_MAX];
};

struct bed {
	struct fixture fx;
	struct src inner;
	struct zst_made file;
	unsigned char content[CONTENT_BYTES];
	struct src_read *reads[PENDING_MAX]; /* of the inner source, in order of arrival */
	unsigned read_count, read_total, cancels, closes, files_open, job_count;
	struct work_job *jobs[PENDING_MAX];
	bool urgent[PENDING_MAX];
	char manifest[4096];
	bool unreadable; /* load fails */
	uint64_t asked_to, frames_end; /* by cached(); in the file */
	struct big big[READS_MAX];
};

/* ---- the inner source ---- */

static struct bed *bed_of(struct src *s)
{
	return CONTAINER_OF(s, struct bed, inner);
}

static void inner_read(struct src *s, struct src_read *rd)
{
	struct bed *b = bed_of(s);

	assert_true(rd->len > 0 && rd->offset + rd->len <= s->size);
	assert_true(b->read_count < PENDING_MAX);
	b->reads[b->read_count++] = rd;
	b->read_total++;
}

static void inner_cancel(struct src *s, struct src_read *rd)
{
	struct bed *b = bed_of(s);
	unsigned i = 0;

	while (b->reads[i] != rd)
		assert_true(++i < b->read_count);
	b->cancels++;
}

static int inner_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e)
{
	struct bed *b = bed_of(s);

	if (b->unreadable)
		return err_set(e, -EIO, "load fails");
	memcpy(buf, b->file.at + offset, len);
	return 0;
}

static void inner_close(struct src *s)
{
	assert_int_equal(bed_of(s)->read_count, 0);
	bed_of(s)->closes++;
}

static int64_t inner_cached(struct src *s, uint64_t offset, uint64_t len)
{
	assert_int_equal(offset, bed_of(s)->asked_to); /* on from where the last range ended */
	bed_of(s)->asked_to += len;
	return (int64_t)len;
}

static const struct src_ops inner_ops = {
	.name = "inner", .read = inner_read, .cancel = inner_cancel, .load = inner_load,
	.cached = inner_cached, .close = inner_close};

/* Answers the i-th that is outstanding; code: 0 or -Exxx. */
static void answer(struct bed *b, unsigned i, int code)
{
	struct src_read *rd = b->reads[i];
	struct err why;

	assert_true(i < b->read_count);
	memmove(b->reads + i, b->reads + i + 1, (--b->read_count - i) * sizeof(*b->reads));
	if (code == 0)
		memcpy(rd->buf, b->file.at + rd->offset, rd->len);
	else
		(void)err_set(&why, code, "inner says %d", code);
	rd->done(rd, code ? &why : NULL);
}

/* ---- the workers ---- */

static int fake_threads(void *ctx, struct err *e)
{
	(void)ctx;
	(void)e;
	return 3;
}

static void fake_queue(void *ctx, struct work_job *job, enum turn turn)
{
	struct bed *b = ctx;

	assert_true(b->job_count < PENDING_MAX);
	b->urgent[b->job_count] = turn == TURN_URGENT;
	b->jobs[b->job_count++] = job;
}

static void work(struct bed *b, unsigned i)
{
	struct work_job *job = b->jobs[i];

	assert_true(i < b->job_count);
	memmove(b->jobs + i, b->jobs + i + 1, (--b->job_count - i) * sizeof(*b->jobs));
	memmove(b->urgent + i, b->urgent + i + 1, (b->job_count - i) * sizeof(*b->urgent));
	job->run(job, i % 3);
	job->done(job);
}

/* ---- the manifest's file ---- */

static int io_open(void *ctx, const char *path, struct io_file **ret, uint64_t *ret_size,
		   struct err *e)
{
	struct bed *b = ctx;

	if (strcmp(path, "manifest") != 0)
		return err_sys(e, -ENOENT, "open %s", path);
	b->files_open++;
	*ret = (struct io_file *)(void *)b;
	*ret_size = strlen(b->manifest);
	return 0;
}

static void io_close(void *ctx, struct io_file *file)
{
	((struct bed *)ctx)->files_open -= file != NULL;
}

static int io_load(void *ctx, struct io_file *file, const char *path, uint64_t off, void *buf,
		   size_t len, struct err *e)
{
	(void)file;
	(void)path;
	(void)e;
	memcpy(buf, ((struct bed *)ctx)->manifest + off, len);
	return 0;
}

/* ---- the bed ---- */

static int bed_open(struct bed *b, const char *manifest, struct err *e)
{
	const struct src_zst_opts opts = {.cache_bytes = 1, .manifest = manifest};

	return src_zst_open(&b->inner, "image", &opts, &b->fx.env, &b->fx.src, e);
}

static struct bed *bed_make(void)
{
	static const struct work_ops work_ops = {.threads = fake_threads, .queue = fake_queue};
	static const struct io_ops io_ops = {.open = io_open, .close = io_close, .load = io_load};
	struct bed *b = calloc(1, sizeof(*b));
	struct prng p;

	assert_non_null(b);
	fixture_init(&b->fx);
	b->fx.env.work = (struct work){&work_ops, b};
	b->fx.env.io = (struct io){&io_ops, b};
	prng_init(&p, 1);
	for (unsigned i = 0; i < CONTENT_BYTES; i++)
		b->content[i] = (unsigned char)(prng_next(&p) & (i / FRAME_BYTES % 2 ? 0xff : 7));
	zst_begin(&b->file, true);
	for (unsigned i = 0; i < FRAMES; i++)
		zst_frame(&b->file, b->content + i * FRAME_BYTES,
			  min_u64(FRAME_BYTES, CONTENT_BYTES - i * FRAME_BYTES));
	b->frames_end = b->file.len;
	zst_finish(&b->file);
	b->inner = (struct src){.ops = &inner_ops, .size = b->file.len};
	for (unsigned i = 0; i < READS_MAX; i++)
		request_init(&b->big[i].rq, &b->fx, 0, 1);
	return b;
}

static struct bed *bed_init(void)
{
	struct bed *b = bed_make();
	struct err e;

	assert_int_equal(bed_open(b, NULL, &e), 0);
	assert_int_equal(b->fx.src->size, CONTENT_BYTES);
	return b;
}

static void bed_fini(struct bed *b)
{
	assert_int_equal(b->job_count, 0);
	src_close(b->fx.src);
	assert_int_equal(b->closes, 1);
	zst_free(&b->file);
	free(b);
}

static struct request *ask(struct bed *b, unsigned i, uint64_t offset, uint32_t len)
{
	struct big *g = &b->big[i];

	request_init(&g->rq, &b->fx, offset, len);
	g->rq.rd.buf = g->buf;
	memset(g->buf, 0xee, len);
	request_read(&g->rq);
	return &g->rq;
}

static struct request *ask_frame(struct bed *b, unsigned i, unsigned frame)
{
	return ask(b, i, frame * FRAME_BYTES, 100);
}

static void right(const struct bed *b, const struct request *rq)
{
	assert_int_equal(rq->done, 1);
	assert_int_equal(rq->code, 0);
	assert_memory_equal(rq->rd.buf, b->content + rq->rd.offset, rq->rd.len);
}

static void ended(const struct request *rq, int code)
{
	assert_int_equal(rq->done, 1);
	assert_int_equal(rq->code, code);
}

/* ---- tests ---- */

/* The frames of ranges side by side lie side by side, each in one of them. */
static void what_is_in_the_page_cache(void **state)
{
	struct bed *b = bed_init();

	(void)state;
	for (uint64_t at = 0, len, frame = 0; at < CONTENT_BYTES; at += len) {
		len = min_u64(at % 7 ? 3000 : 25000, CONTENT_BYTES - at);
		assert_int_equal(src_cached(b->fx.src, at, len) > 0,
				 frame * FRAME_BYTES < at + len);
		frame = (at + len + FRAME_BYTES - 1) / FRAME_BYTES;
	}
	assert_int_equal(b->asked_to, b->frames_end);
	bed_fini(b);
}

static void one_frame_is_read_once_for_all(void **state)
{
	struct bed *b = bed_init();
	struct request *first = ask_frame(b, 0, 3), *second = ask(b, 1, 3 * FRAME_BYTES + 5000, 7);

	(void)state;
	assert_int_equal(b->read_count, 1);
	answer(b, 0, 0);
	/* While it is decompressed, too. */
	ask_frame(b, 2, 3);
	assert_int_equal(b->job_count, 1);
	work(b, 0);
	right(b, first);
	right(b, second);
	right(b, &b->big[2].rq);
	/* And of what is kept there is no read. */
	right(b, ask(b, 3, 4 * FRAME_BYTES - 1, 1));
	assert_int_equal(b->read_total, 1);
	bed_fini(b);
}

/* A large read goes through frame by frame; a worker copies what is large of each. */
static void a_read_of_several_frames(void **state)
{
	struct bed *b = bed_init();
	struct request *rq = ask(b, 0, 9000, 13000);

	(void)state;
	answer(b, 0, 0);
	work(b, 0); /* frame 0, of which 1000 bytes are copied at once */
	answer(b, 0, 0);
	work(b, 0); /* frame 1 */
	assert_int_equal(rq->done, 0);
	assert_int_equal(b->job_count, 1);
	work(b, 0); /* its 10000 bytes */
	answer(b, 0, 0);
	work(b, 0); /* frame 2 */
	right(b, rq);
	assert_int_equal(b->read_total, 3);
	bed_fini(b);
}

static void the_last_byte(void **state)
{
	struct bed *b = bed_init();
	struct request *rq = ask(b, 0, CONTENT_BYTES - 1, 1);

	(void)state;
	answer(b, 0, 0);
	work(b, 0);
	right(b, rq);
	bed_fini(b);
}

/* Exactly those who wait for that frame; the next one tries anew. */
static void an_error_reaches_who_waits_for_it(void **state)
{
	struct bed *b = bed_init();
	struct request *one = ask_frame(b, 0, 1), *two = ask_frame(b, 1, 1),
		       *other = ask_frame(b, 2, 2);

	(void)state;
	answer(b, 0, -ENETDOWN);
	ended(one, -ENETDOWN);
	ended(two, -ENETDOWN);
	assert_string_equal(one->text, "inner says -100");
	assert_int_equal(other->done, 0);
	answer(b, 0, 0);
	work(b, 0);
	right(b, other);
	one = ask_frame(b, 0, 1);
	answer(b, 0, 0);
	work(b, 0);
	right(b, one);
	bed_fini(b);
}

static void a_broken_frame_is_named_and_read_anew(void **state)
{
	struct bed *b = bed_init();
	struct request *rq = ask_frame(b, 0, 0);

	(void)state;
	b->file.at[0] ^= 1;
	answer(b, 0, 0);
	work(b, 0);
	ended(rq, -EIO);
	print_message("%s\n", rq->text);
	assert_non_null(strstr(rq->text, "image: frame 0 (bytes 0 to "));
	assert_non_null(strstr(rq->text, "0 to 9999 of the content) is broken: "));
	b->file.at[0] ^= 1;
	rq = ask_frame(b, 0, 0);
	answer(b, 0, 0);
	work(b, 0);
	right(b, rq);
	bed_fini(b);
}

static void whoever_finds_no_slot_waits_for_one(void **state)
{
	struct bed *b = bed_init();
	struct request *late[3];

	(void)state;
	for (unsigned i = 0; i < SLOTS; i++)
		ask_frame(b, i, i);
	for (unsigned i = 0; i < 3; i++)
		late[i] = ask_frame(b, SLOTS + i, SLOTS + i);
	assert_int_equal(b->read_count, SLOTS);
	answer(b, 0, 0);
	assert_int_equal(b->read_count, SLOTS - 1);
	work(b, 0);
	right(b, &b->big[0].rq);
	/* The slot is the oldest waiter's. */
	assert_int_equal(b->read_count, SLOTS);
	while (b->read_count || b->job_count) {
		if (b->read_count)
			answer(b, 0, 0);
		if (b->job_count)
			work(b, 0);
	}
	for (unsigned i = 0; i < 3; i++)
		right(b, late[i]);
	for (unsigned i = 0; i + 1 < 3; i++)
		assert_ptr_equal(b->fx.ended[SLOTS + i], late[i]);
	bed_fini(b);
}

static void urgent_ones_go_first(void **state)
{
	struct bed *b = bed_init();

	(void)state;
	for (unsigned i = 0; i < SLOTS; i++)
		ask_frame(b, i, i);
	ask_frame(b, 5, 5);
	request_init(&b->big[6].rq, &b->fx, 6 * FRAME_BYTES, 50);
	b->big[6].rq.rd.urgent = true;
	request_read(&b->big[6].rq);
	answer(b, 0, 0);
	assert_false(b->urgent[0]);
	work(b, 0);
	/* Frame 6 has the slot, not frame 5; its inner read and its job are urgent, too. */
	assert_true(b->reads[b->read_count - 1]->urgent);
	answer(b, b->read_count - 1, 0);
	assert_int_equal(b->job_count, 1);
	assert_true(b->urgent[0]);
	work(b, 0);
	ended(&b->big[6].rq, 0);
	assert_int_equal(b->big[5].rq.done, 0);
	while (b->read_count)
		answer(b, 0, 0);
	while (b->job_count)
		work(b, 0);
	right(b, &b->big[5].rq);
	bed_fini(b);
}

/* All slots are copied from: none of them is filled anew. */
static void a_frame_in_use_is_not_replaced(void **state)
{
	struct bed *b = bed_init();

	(void)state;
	for (unsigned i = 0; i < SLOTS; i++) {
		ask(b, i, i * FRAME_BYTES, FRAME_BYTES);
		answer(b, 0, 0);
		work(b, i); /* behind the copies that are not done */
		assert_int_equal(b->job_count, i + 1);
	}
	ask_frame(b, SLOTS, SLOTS);
	assert_int_equal(b->read_count, 0);
	work(b, 2);
	right(b, &b->big[2].rq);
	assert_int_equal(b->read_count, 1);
	answer(b, 0, 0);
	work(b, 3);
	right(b, &b->big[SLOTS].rq);
	while (b->job_count)
		work(b, 0);
	for (unsigned i = 0; i < SLOTS; i++)
		right(b, &b->big[i].rq);
	bed_fini(b);
}

/* ---- cancel ---- */

static void cancel_while_starved(void **state)
{
	struct bed *b = bed_init();

	(void)state;
	for (unsigned i = 0; i < SLOTS; i++)
		ask_frame(b, i, i);
	for (unsigned i = 0; i < 3; i++)
		ask_frame(b, SLOTS + i, SLOTS + i);
	request_cancel(&b->big[SLOTS + 1].rq);
	ended(&b->big[SLOTS + 1].rq, -ECANCELED);
	assert_int_equal(b->cancels, 0);
	while (b->read_count || b->job_count) {
		if (b->read_count)
			answer(b, 0, 0);
		if (b->job_count)
			work(b, 0);
	}
	right(b, &b->big[SLOTS].rq);
	right(b, &b->big[SLOTS + 2].rq);
	assert_int_equal(b->read_total, SLOTS + 2);
	bed_fini(b);
}

static void cancel_while_reading(void **state)
{
	struct bed *b = bed_init();
	struct request *one = ask_frame(b, 0, 0), *two = ask_frame(b, 1, 0);

	(void)state;
	/* While somebody else waits, it is just one less. */
	request_cancel(one);
	ended(one, -ECANCELED);
	assert_int_equal(b->cancels, 0);
	/* The last one takes the read with it. */
	request_cancel(two);
	assert_int_equal(two->done, 0);
	assert_int_equal(b->cancels, 1);
	request_cancel(two);
	assert_int_equal(b->cancels, 1);
	answer(b, 0, -ECANCELED);
	ended(two, -ECANCELED);
	bed_fini(b);
}

/* Who comes while the read is being given up gets it anew; also if it was there after all. */
static void cancelled_and_wanted_again(void **state)
{
	static const int codes[] = {-ECANCELED, 0, -EIO};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(codes); i++) {
		struct bed *b = bed_init();
		struct request *one = ask_frame(b, 0, 0), *two;

		request_cancel(one);
		two = ask_frame(b, 1, 0);
		answer(b, 0, codes[i]);
		ended(one, -ECANCELED);
		if (codes[i] == -EIO) {
			ended(two, -EIO);
		} else {
			assert_int_equal(two->done, 0);
			answer(b, 0, 0);
			work(b, 0);
			right(b, two);
		}
		bed_fini(b);
	}
}

static void cancel_while_decompressing(void **state)
{
	struct bed *b = bed_init();
	struct request *one = ask_frame(b, 0, 0), *two = ask_frame(b, 1, 0);

	(void)state;
	answer(b, 0, 0);
	request_cancel(one);
	ended(one, -ECANCELED);
	request_cancel(two);
	assert_int_equal(two->done, 0);
	work(b, 0);
	ended(two, -ECANCELED);
	/* It is there now. */
	right(b, ask_frame(b, 2, 0));
	assert_int_equal(b->cancels, 0);
	bed_fini(b);
}

static void cancel_while_copying(void **state)
{
	struct bed *b = bed_init();
	struct request *part = ask(b, 0, 0, FRAME_BYTES + 10), *all = ask(b, 1, 0, FRAME_BYTES);

	(void)state;
	answer(b, 0, 0);
	work(b, 0);
	assert_int_equal(b->job_count, 2);
	request_cancel(part);
	request_cancel(all);
	assert_int_equal(part->done + all->done, 0);
	work(b, 0);
	/* The rest is not begun; what is whole is whole. */
	ended(part, -ECANCELED);
	assert_int_equal(b->read_count, 0);
	work(b, 0);
	right(b, all);
	bed_fini(b);
}

static void closed_after_everything_was_cancelled(void **state)
{
	struct bed *b = bed_init();

	(void)state;
	for (unsigned i = 0; i < READS_MAX; i++)
		ask(b, i, i * FRAME_BYTES, i % 2 ? 100 : FRAME_BYTES);
	answer(b, 1, 0);
	answer(b, 0, 0);
	work(b, 0);
	for (unsigned i = 0; i < READS_MAX; i++)
		if (!b->big[i].rq.done)
			request_cancel(&b->big[i].rq);
	while (b->read_count || b->job_count) {
		if (b->read_count)
			answer(b, 0, -ECANCELED);
		if (b->job_count)
			work(b, 0);
	}
	for (unsigned i = 0; i < READS_MAX; i++)
		assert_int_equal(b->big[i].rq.done, 1);
	bed_fini(b);
}

/* ---- opening ---- */

static void refused(struct bed *b, const char *manifest, int code, const char *says)
{
	struct err e;

	assert_int_equal(bed_open(b, manifest, &e), code);
	print_message("%s\n", e.text);
	assert_non_null(strstr(e.text, says));
	assert_int_equal(b->closes, 0);
	assert_int_equal(b->files_open, 0);
}

static void what_cannot_be_opened(void **state)
{
	struct bed *b = bed_make();

	(void)state;
	b->unreadable = true;
	refused(b, NULL, -EIO, "load fails");
	b->unreadable = false;
	b->fx.env.work.ops = NULL;
	refused(b, NULL, -ENOTSUP, "nobody to decompress it");
	b->file.at[b->file.len - 1] ^= 1;
	refused(b, NULL, -EINVAL, "open image: it does not end with a seek table");
	b->inner.size = 8;
	refused(b, NULL, -EINVAL, "open image: too short");
	zst_free(&b->file);
	free(b);
}

static void write_manifest(struct bed *b)
{
	struct zst_hasher *h = zst_hasher_open();
	size_t n = (size_t)snprintf(b->manifest, sizeof(b->manifest),
				    "{\"manifest\":\"asyncpf-image\",\"version\":1,"
				    "\"hash\":\"sha256\","
				    "\"size\":%u,\"frame_bytes\":%u,\"frames\":[", CONTENT_BYTES,
				    FRAME_BYTES);

	for (unsigned i = 0; i < FRAMES; i++) {
		unsigned char hash[ZST_HASH_BYTES];
		char text[ZST_HASH_CHARS + 1];
		uint64_t len = min_u64(FRAME_BYTES, CONTENT_BYTES - i * FRAME_BYTES);

		assert_int_equal(zst_hash(h, b->content + i * FRAME_BYTES, len, hash, NULL), 0);
		zst_hash_text(hash, text);
		n += (size_t)snprintf(b->manifest + n, sizeof(b->manifest) - n, "%s\"%s\"",
				      i ? "," : "", text);
	}
	n += (size_t)snprintf(b->manifest + n, sizeof(b->manifest) - n, "]}");
	assert_true(n < sizeof(b->manifest));
	zst_hasher_close(h);
}

/* The frame and its checksum are right; it is another image's all the same. */
static void a_manifest_is_checked(void **state)
{
	struct bed *b = bed_make();
	struct request *rq;
	char *digit;
	struct err e;

	(void)state;
	write_manifest(b);
	/* The last hash. */
	digit = strrchr(b->manifest, ']') - 2;
	*digit = *digit == '0' ? '1' : '0';
	assert_int_equal(bed_open(b, "manifest", &e), 0);
	assert_int_equal(b->files_open, 0);
	rq = ask_frame(b, 0, 0);
	answer(b, 0, 0);
	work(b, 0);
	right(b, rq);
	rq = ask_frame(b, 0, FRAMES - 1);
	answer(b, 0, 0);
	work(b, 0);
	ended(rq, -EIO);
	print_message("%s\n", rq->text);
	assert_non_null(strstr(rq->text, "and the manifest says"));
	bed_fini(b);
}

static void manifests_that_are_refused(void **state)
{
	struct bed *b = bed_make();

	(void)state;
	refused(b, "other", -ENOENT, "open other");
	refused(b, "manifest", -EINVAL, "open manifest: "); /* it is empty */
	snprintf(b->manifest, sizeof(b->manifest), "{}");
	refused(b, "manifest", -EINVAL, "open manifest: it is no manifest");
	write_manifest(b);
	strstr(b->manifest, "\"frame_bytes\":")[14] = '2';
	refused(b, "manifest", -EINVAL, "open manifest: it is no manifest: its frames are not as "
		"many");
	zst_free(&b->file);
	free(b);
}

/* ---- everything, by chance ---- */

static void walk_step(struct bed *b, struct prng *p, unsigned *outstanding)
{
	static const int codes[] = {0, 0, 0, 0, 0, -EIO, -ECANCELED};
	unsigned i = (unsigned)prng_below(p, READS_MAX);
	struct request *rq = &b->big[i].rq;
	bool idle = rq->done || !rq->rd.held_by;

	switch (prng_below(p, 4)) {
	case 0:
		if (!idle)
			return;
		if (rq->done && rq->code == 0 && rq->rd.held_by)
			right(b, rq);
		uint32_t len = (uint32_t)prng_below(p, prng_below(p, 2) ? READ_MAX : 64) + 1;

		request_init(rq, &b->fx, prng_below(p, CONTENT_BYTES - len), len);
		rq->rd.buf = b->big[i].buf;
		rq->rd.urgent = prng_below(p, 4) == 0;
		(*outstanding)++;
		b->fx.ends = 0;
		request_read(rq);
		return;
	case 1:
		if (!idle && prng_below(p, 4) == 0) {
			b->fx.ends = 0;
			request_cancel(rq);
		}
		return;
	case 2:
		b->fx.ends = 0;
		if (b->read_count > 0)
			answer(b, (unsigned)prng_below(p, b->read_count),
			       codes[prng_below(p, ARRAY_LEN(codes))]);
		return;
	default:
		b->fx.ends = 0;
		if (b->job_count > 0)
			work(b, (unsigned)prng_below(p, b->job_count));
	}
}

static void a_random_walk(void **state)
{
	struct prng p;

	(void)state;
	for (unsigned seed = 0; seed < 20; seed++) {
		struct bed *b = bed_init();
		unsigned outstanding = 0;

		prng_init(&p, seed);
		for (unsigned i = 0; i < 4000; i++)
			walk_step(b, &p, &outstanding);
		while (b->read_count || b->job_count) {
			b->fx.ends = 0;
			if (b->read_count)
				answer(b, 0, 0);
			if (b->job_count)
				work(b, 0);
		}
		for (unsigned i = 0; i < READS_MAX; i++) {
			const struct request *rq = &b->big[i].rq;

			if (!rq->rd.held_by)
				continue;
			assert_int_equal(rq->done, 1);
			if (rq->code == 0)
				right(b, rq);
		}
		assert_true(outstanding > 100);
		bed_fini(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_in_the_page_cache),
		cmocka_unit_test(one_frame_is_read_once_for_all),
		cmocka_unit_test(a_read_of_several_frames),
		cmocka_unit_test(the_last_byte),
		cmocka_unit_test(an_error_reaches_who_waits_for_it),
		cmocka_unit_test(a_broken_frame_is_named_and_read_anew),
		cmocka_unit_test(whoever_finds_no_slot_waits_for_one),
		cmocka_unit_test(urgent_ones_go_first),
		cmocka_unit_test(a_frame_in_use_is_not_replaced),
		cmocka_unit_test(cancel_while_starved),
		cmocka_unit_test(cancel_while_reading),
		cmocka_unit_test(cancelled_and_wanted_again),
		cmocka_unit_test(cancel_while_decompressing),
		cmocka_unit_test(cancel_while_copying),
		cmocka_unit_test(closed_after_everything_was_cancelled),
		cmocka_unit_test(what_cannot_be_opened),
		cmocka_unit_test(a_manifest_is_checked),
		cmocka_unit_test(manifests_that_are_refused),
		cmocka_unit_test(a_random_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
