/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a cache counts and notes, exactly: hits, misses and evictions of one image in a file that
 * has room for it, and in whose entry a use is noted. The clock is the test's, so that a minute
 * passes at once.
 */
#include <semaphore.h>

#include "cache_fixture.h"
#include "source/cache.h"

#define CHUNKS 40u /* more than a file of 16 MiB has buckets: some have a neighbour in theirs */
#define IMAGE_BYTES (CHUNKS * CACHE_CHUNK_BYTES)
#define MINUTE_NS (60 * NS_PER_S)
/* Of the loop, each of at most 100 ms, until a write that was begun is over. */
#define TURNS_MAX 300u
/* Of an entry, where cache_format.c has them. */
#define ENTRY_CHUNK_AT 16u
#define ENTRY_LEN_AT 24u

static uint64_t later_now_ns(void *ctx)
{
	return rig_now_ns(NULL) + ((struct bed *)ctx)->later_ns;
}

static void open_cache(struct bed *b)
{
	static const struct clock_ops later = {.now_ns = later_now_ns};
	struct err e = {0};

	snprintf(b->uri, sizeof(b->uri), "cache+file:%s?cache-dir=%s/c&cache-size=16M&cache-key=1",
		 b->image, b->folder);
	rig_open(&b->rig);
	b->rig.env.clock = (struct clock){.ops = &later, .ctx = b};
	if (src_open(b->uri, &b->rig.env, &b->rig.src, &e) < 0)
		fail_msg("%s", e.text);
}

static void each_is_counted_as_what_it_is(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	const struct src_counts *c = &b->rig.counts;

	(void)state;
	open_cache(b);
	bed_read_and_settle(b);
	assert_int_equal(c->cache_misses, CHUNKS);
	assert_int_equal(c->cache_hits, 0);
	assert_int_equal(c->cache_filled_bytes, IMAGE_BYTES);
	assert_int_equal(c->cache_evictions, 0); /* there is room for all of it */
	assert_int_equal(c->cache_mismatches, 0);
	assert_int_equal(c->cache_write_errors, 0);
	rig_close(&b->rig);
	open_cache(b);
	bed_expect(b, 4096, 4096);
	assert_int_equal(c->cache_hits, 1);
	/* No whole page: its chunk is loaded from the cache, and is a hit all the same. */
	bed_expect(b, 3 * CACHE_CHUNK_BYTES + 10, 100);
	assert_int_equal(c->cache_hits, 2);
	assert_int_equal(c->cache_misses, 0);
	assert_int_equal(c->cache_filled_bytes, 0);
	rig_close(&b->rig);
	bed_fini(b);
}

struct noted {
	uint64_t used_ms;
	unsigned way;
};

static uint64_t number_at(int fd, uint64_t at, unsigned bytes)
{
	uint64_t v = 0;

	assert_true(bytes <= sizeof(v));
	assert_int_equal(pread(fd, &v, bytes, (off_t)at), bytes);
	return v;
}

/* When each chunk was used, as the file says. */
static void look(const struct bed *b, struct noted ret[static CHUNKS])
{
	struct cache_layout l = cache_layout_for(CACHE_BYTES_MIN);
	int fd = open(b->file, O_RDONLY | O_CLOEXEC);
	unsigned found = 0;

	assert_true(fd >= 0);
	for (uint64_t bucket = 0; bucket < l.buckets; bucket++)
		for (unsigned way = 0; way < CACHE_WAYS; way++) {
			uint64_t at = cache_entry_at(&l, bucket, way), chunk;

			if (number_at(fd, at + ENTRY_LEN_AT, 4) == 0)
				continue;
			chunk = number_at(fd, at + ENTRY_CHUNK_AT, 8);
			assert_true(chunk < CHUNKS);
			ret[chunk] = (struct noted){
				number_at(fd, at + CACHE_ENTRY_USED_AT, CACHE_ENTRY_USED_BYTES),
				way};
			found++;
		}
	assert_int_equal(found, CHUNKS);
	close(fd);
}

/* By a read of so many bytes. */
static void note_use(size_t len)
{
	struct noted before[CHUNKS] = {0}, after[CHUNKS] = {0};
	struct bed *b = bed_init(IMAGE_BYTES);
	uint64_t used = 0;

	open_cache(b);
	bed_read_and_settle(b);
	rig_close(&b->rig);
	look(b, before);
	while (used < CHUNKS && before[used].way == 0)
		used++;
	assert_true(used < CHUNKS);
	b->later_ns = MINUTE_NS + NS_PER_S;
	open_cache(b);
	bed_expect(b, used * CACHE_CHUNK_BYTES, len);
	for (unsigned turns = 0;; turns++) {
		look(b, after);
		if (memcmp(after, before, sizeof(before)) != 0)
			break;
		if (turns == TURNS_MAX)
			fail_msg("no use was noted");
		rig_turn(&b->rig);
	}
	rig_close(&b->rig);
	for (unsigned i = 0; i < CHUNKS; i++)
		if (i == used)
			assert_true(after[i].used_ms >= before[i].used_ms + 60000);
		else
			assert_int_equal(after[i].used_ms, before[i].used_ms);
	/* It is good for what it was before. */
	open_cache(b);
	bed_expect(b, used * CACHE_CHUNK_BYTES, 4096);
	assert_int_equal(b->rig.counts.cache_hits, 1);
	assert_int_equal(b->rig.counts.cache_misses, 0);
	rig_close(&b->rig);
	bed_fini(b);
}

/*
 * In the entry of the chunk that was used, whatever its place in the bucket, and in no other; also
 * of less than a page, for which the whole chunk is loaded.
 */
static void a_use_is_noted_where_it_belongs(void **state)
{
	(void)state;
	note_use(4096);
	note_use(100);
}

/* A head says how large the file may be, and no larger. */
static void the_largest_cache(void **state)
{
	struct cache_layout l = cache_layout_for(CACHE_BYTES_MAX), got = {0};
	struct zst_hasher *h = zst_hasher_open();
	unsigned char head[CACHE_HEAD_BYTES];

	(void)state;
	assert_non_null(h);
	assert_int_equal(cache_head_write(h, &l, head), 0);
	assert_int_equal(cache_head_read(h, head, &got), 0);
	assert_true(got.buckets == l.buckets);
	l.buckets++;
	assert_int_equal(cache_head_write(h, &l, head), 0);
	assert_int_equal(cache_head_read(h, head, &got), -EINVAL);
	zst_hasher_close(h);
}

/* A read is given up, and another one has just joined it: chunk 0, whose bucket it is, stays. */
static void who_joins_what_is_given_up_evicts_nobody(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	const struct src_counts *c = &b->rig.counts;
	struct rig_read given_up, joins;
	const uint64_t bytes = 16ull << 20;
	uint64_t at = cache_layout_for(bytes).buckets * CACHE_CHUNK_BYTES;

	(void)state;
	open_cache(b);
	bed_expect(b, 0, PAGE_BYTES);
	rig_settle(&b->rig, CACHE_CHUNK_BYTES);
	rig_begin(&b->rig, &given_up, at, b->got, PAGE_BYTES);
	while (c->cache_misses < 2)
		rig_turn(&b->rig);
	b->rig.src->ops->cancel(b->rig.src, &given_up.rd);
	rig_begin(&b->rig, &joins, at, b->got + PAGE_BYTES, PAGE_BYTES);
	rig_wait(&b->rig, &given_up);
	rig_wait(&b->rig, &joins);
	assert_int_equal(joins.why.code, 0);
	assert_memory_equal(b->got + PAGE_BYTES, b->content + at, PAGE_BYTES);
	rig_settle(&b->rig, 2 * CACHE_CHUNK_BYTES);
	assert_int_equal(c->cache_misses, 3);
	bed_expect(b, 0, PAGE_BYTES);
	bed_expect(b, at, PAGE_BYTES);
	assert_int_equal(c->cache_misses, 3);
	assert_int_equal(c->cache_evictions, 0);
	rig_close(&b->rig);
	bed_fini(b);
}

/* ---- who gives up, and who does not ---- */

#define WORKERS 2u /* of the rig */

struct busy {
	struct work_job job;
	sem_t *go;
	unsigned *left;
};

static void busy_run(struct work_job *job, unsigned thread)
{
	(void)thread;
	sem_wait(CONTAINER_OF(job, struct busy, job)->go);
}

static void busy_done(struct work_job *job)
{
	--*CONTAINER_OF(job, struct busy, job)->left;
}

/* No hash is one of the image's. */
static void write_wrong_manifest(const char *path)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fprintf(f, "{\"manifest\": \"asyncpf-image\", \"version\": 1, \"hash\": \"sha256\", "
		"\"size\": %u, \"frame_bytes\": %u, \"frames\": [", IMAGE_BYTES, CACHE_CHUNK_BYTES);
	for (unsigned i = 0; i < CHUNKS; i++)
		fprintf(f, "%s\"%064u\"", i ? "," : "", i);
	fprintf(f, "]}");
	fclose(f);
}

/*
 * A chunk is not what the manifest says. Of two reads that wait for that to be found out the first
 * was cancelled, while no worker had the time for it: the other one fails for what it is.
 */
static void a_cancel_is_of_its_own_read(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	struct rig_read given_up, stays;
	struct busy busy[WORKERS];
	const struct cache_src *c;
	unsigned left = WORKERS;
	struct err e = {0};
	char path[100];
	sem_t go;

	(void)state;
	snprintf(path, sizeof(path), "%s/manifest", b->folder);
	write_wrong_manifest(path);
	snprintf(b->uri, sizeof(b->uri), "cache+file:%s?cache-dir=%s/c&cache-size=16M&"
		 "cache-manifest=%s", b->image, b->folder, path);
	rig_open(&b->rig);
	if (src_open(b->uri, &b->rig.env, &b->rig.src, &e) < 0)
		fail_msg("%s", e.text);
	c = CONTAINER_OF(b->rig.src, struct cache_src, wrap.src);
	assert_int_equal(sem_init(&go, 0, 0), 0);
	for (unsigned i = 0; i < WORKERS; i++) {
		busy[i] = (struct busy){.job = {.run = busy_run, .done = busy_done}, .go = &go,
					.left = &left};
		b->rig.env.work.ops->queue(b->rig.env.work.ctx, &busy[i].job, TURN_URGENT);
	}
	rig_begin(&b->rig, &given_up, 0, b->got, PAGE_BYTES);
	while (c->fills[0].state != FILL_CHECKS)
		rig_turn(&b->rig);
	b->rig.src->ops->cancel(b->rig.src, &given_up.rd);
	assert_false(given_up.over);
	rig_begin(&b->rig, &stays, PAGE_BYTES, b->got + PAGE_BYTES, PAGE_BYTES);
	for (unsigned i = 0; i < WORKERS; i++)
		sem_post(&go);
	rig_wait(&b->rig, &given_up);
	rig_wait(&b->rig, &stays);
	while (left > 0)
		rig_turn(&b->rig);
	assert_int_equal(given_up.why.code, -ECANCELED);
	assert_int_equal(stays.why.code, -EBADMSG);
	assert_non_null(strstr(stays.why.text, "the manifest's "));
	sem_destroy(&go);
	rig_close(&b->rig);
	bed_fini(b);
}

/* ---- whose turn it is ---- */

#define TURN_READS 24u
#define TURN_FILLS 20u

struct turn_read {
	struct rig_read read;
	unsigned order; /* of its end, from 1 */
};

static unsigned turn_ends;

static void turn_done(struct src_read *rd, const struct err *why)
{
	rig_done(rd, why);
	CONTAINER_OF(CONTAINER_OF(rd, struct rig_read, rd), struct turn_read, read)->order =
		++turn_ends;
}

static void turn_open(struct bed *b, const char *wrapper, const char *keys)
{
	struct err e = {0};

	turn_ends = 0;
	rig_open(&b->rig);
	snprintf(b->uri, sizeof(b->uri), "cache+%s+file:%s?cache-dir=%s/c&cache-size=16M&"
		 "cache-key=1&cache-memory=1M&%s", wrapper, b->image, b->folder, keys);
	if (src_open(b->uri, &b->rig.env, &b->rig.src, &e) < 0)
		fail_msg("%s: %s", b->uri, e.text);
}

/* Of 64 bytes of a chunk. */
static void turn_begin(struct bed *b, struct turn_read *t, uint64_t chunk, enum turn turn)
{
	t->read.rd = (struct src_read){.offset = chunk * CACHE_CHUNK_BYTES, .len = 64,
				       .buf = b->got + 64 * chunk, .done = turn_done};
	src_turn_set(&t->read.rd, turn);
	b->rig.src->ops->read(b->rig.src, &t->read.rd);
}

/* All reads that were begun; then it is closed. */
static void turn_end(struct bed *b, const struct turn_read *reads, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		rig_wait(&b->rig, &reads[i].read);
		assert_int_equal(reads[i].read.why.code, 0);
	}
	rig_close(&b->rig);
	bed_fini(b);
}

/* Five chunks are asked for at a time; what comes last and is waited for is not asked for last. */
static void each_has_its_turn(void **state)
{
	static const enum turn last[] = {TURN_AHEAD, TURN_DEMAND, TURN_URGENT, TURN_URGENT};
	struct bed *b = bed_init(IMAGE_BYTES);
	struct turn_read reads[TURN_READS] = {0};

	(void)state;
	turn_open(b, "delay", "ms=20");
	for (unsigned i = 0; i < TURN_READS; i++)
		turn_begin(b, &reads[i], i, i < TURN_FILLS ? TURN_FILL : last[i - TURN_FILLS]);
	for (unsigned i = 0; i < TURN_READS; i++)
		rig_wait(&b->rig, &reads[i].read);
	for (unsigned i = TURN_FILLS; i < TURN_READS; i++)
		assert_in_range(reads[i].order, 1, TURN_FILLS / 2 + 4);
	turn_end(b, reads, TURN_READS);
}

/* Nor is what was begun for nobody, and is waited for now. */
static void who_is_raised_overtakes(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	struct turn_read reads[TURN_READS] = {0};

	(void)state;
	turn_open(b, "delay", "ms=20");
	for (unsigned i = 0; i < TURN_READS; i++)
		turn_begin(b, &reads[i], i, TURN_FILL);
	while (b->rig.counts.cache_misses < 5)
		rig_turn(&b->rig);
	for (unsigned i = TURN_FILLS; i < TURN_READS; i++)
		src_raise(b->rig.src, &reads[i].read.rd, TURN_DEMAND);
	for (unsigned i = 0; i < TURN_READS; i++)
		rig_wait(&b->rig, &reads[i].read);
	for (unsigned i = TURN_FILLS; i < TURN_READS; i++)
		assert_in_range(reads[i].order, 1, TURN_FILLS / 2 + 4);
	turn_end(b, reads, TURN_READS);
}

/*
 * Chunks that are asked for, two at once, and one more each quarter of a second: those that
 * somebody comes to wait for, by the read that asked for it or by another, are next.
 */
static void what_is_asked_for_is_raised(void **state)
{
	static const unsigned order[] = {3, 4, 2};
	struct bed *b = bed_init(IMAGE_BYTES);
	struct turn_read reads[6] = {0};

	(void)state;
	turn_open(b, "rate", "iops=4");
	for (unsigned i = 0; i < 5; i++)
		turn_begin(b, &reads[i], i, TURN_FILL);
	while (b->rig.counts.cache_misses < 5)
		rig_turn(&b->rig);
	turn_begin(b, &reads[5], 4, TURN_DEMAND);
	src_raise(b->rig.src, &reads[3].read.rd, TURN_URGENT);
	for (unsigned i = 0; i < ARRAY_LEN(order); i++)
		rig_wait(&b->rig, &reads[order[i]].read);
	for (unsigned i = 1; i < ARRAY_LEN(order); i++)
		assert_true(reads[order[i]].order > reads[order[i - 1]].order);
	assert_true(reads[2].order > reads[5].order);
	assert_int_equal(b->rig.counts.cache_misses, 5);
	turn_end(b, reads, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_is_counted_as_what_it_is),
		cmocka_unit_test(a_use_is_noted_where_it_belongs),
		cmocka_unit_test(the_largest_cache),
		cmocka_unit_test(who_joins_what_is_given_up_evicts_nobody),
		cmocka_unit_test(a_cancel_is_of_its_own_read),
		cmocka_unit_test(each_has_its_turn),
		cmocka_unit_test(who_is_raised_overtakes),
		cmocka_unit_test(what_is_asked_for_is_raised),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
