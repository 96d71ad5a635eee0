/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/virtio_queue.c against virtio 1.2, 2.7: chains direct and indirect, every way in which
 * a driver can break the rules, both ways of suppressing notifications, indices that wrap.
 * Behind the fixture's memory lies a page that may not be touched.
 */
#include "base/prng.h"
#include "virtio_fixture.h"

#define BAD VIRTQ_MALFORMED
#define SIZE 8u

struct fixture {
	struct vx x;
	struct virtq q;
	struct virtq_chain c;
};

static void start(struct fixture *f, uint64_t features)
{
	f->q = (struct virtq){
		.size = SIZE, .desc = {VX_DESC}, .avail = {VX_AVAIL}, .used = {VX_USED}};
	f->x.size = SIZE;
	f->x.avail_idx = f->x.used_seen = 0;
	memset(f->x.low + VX_DESC, 0, VX_TABLE - VX_DESC);
	assert_int_equal(virtq_start(&f->q, &f->x.mem, features), 0);
}

static int setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));

	vx_init(&f->x);
	start(f, VIRTIO_F_INDIRECT_DESC);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vx_fini(&f->x);
	test_free(f);
	return 0;
}

static int pop_one(struct fixture *f, unsigned head)
{
	vx_offer(&f->x, head);
	return virtq_pop(&f->q, &f->c);
}

/* ---- where a ring may lie ---- */

static void ring_is_checked(void **state)
{
	static const struct {
		uint32_t size;
		uint64_t desc, avail, used;
		int rc;
	} table[] = {
		{8, 0x1000, 0x2000, 0x3000, 0},
		{1, 0x1000, 0x2000, 0x3000, 0},
		{256, 0x1000, 0x2000, 0x3000, 0},
		{8, GUEST_HIGH_GPA, 0x2000, 0x3000, 0},
		{8, 0, 0x2000, 0x3000, 0},
		{0, 0x1000, 0x2000, 0x3000, BAD},
		{3, 0x1000, 0x2000, 0x3000, BAD},
		{255, 0x1000, 0x2000, 0x3000, BAD},
		{512, 0x1000, 0x2000, 0x3000, BAD},
		{0x80000000, 0x1000, 0x2000, 0x3000, BAD},
		{UINT32_MAX, 0x1000, 0x2000, 0x3000, BAD},
		{8, 0x1008, 0x2000, 0x3000, BAD}, /* alignment */
		{8, 0x1000, 0x2001, 0x3000, BAD},
		{8, 0x1000, 0x2002, 0x3000, 0},
		{8, 0x1000, 0x2000, 0x3002, BAD},
		{8, 0x1000, 0x2000, 0x3004, 0},
		{8, VX_LOW_BYTES - 128, 0x2000, 0x3000, 0}, /* ends of RAM */
		{8, VX_LOW_BYTES - 112, 0x2000, 0x3000, BAD},
		{8, 0x1000, VX_LOW_BYTES - 22, 0x3000, 0},
		{8, 0x1000, VX_LOW_BYTES - 20, 0x3000, BAD},
		{8, 0x1000, 0x2000, VX_LOW_BYTES - 72, 0},
		{8, 0x1000, 0x2000, VX_LOW_BYTES - 68, BAD},
		{8, GUEST_HOLE_GPA, 0x2000, 0x3000, BAD},
		{8, 0x1000, 0xfffffffffffffffe, 0x3000, BAD},
		{8, 0x1000, 0x2000, 0xfffffffffffffffc, BAD},
		{8, 0xfffffffffffffff0, 0x2000, 0x3000, BAD},
	};
	struct fixture *f = *state;

	vx_forbid(&f->x, true);
	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		struct virtq q = {
			.size = table[i].size, .desc = {table[i].desc},
			.avail = {table[i].avail}, .used = {table[i].used}};

		assert_int_equal(virtq_start(&q, &f->x.mem, 0), table[i].rc);
	}
	vx_forbid(&f->x, false);
}

/* ---- chains ---- */

static void direct_chain(void **state)
{
	struct fixture *f = *state;
	unsigned char buf[256];

	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	vx_desc(&f->x, 5, VX_DATA, 10, DESC_NEXT, 2);
	vx_desc(&f->x, 2, GUEST_HIGH_GPA + 7, 20, DESC_NEXT, 7);
	vx_desc(&f->x, 7, VX_DATA + 50, 0, DESC_NEXT, 1); /* empty: allowed, skipped */
	vx_desc(&f->x, 1, VX_DATA + 100, 30, DESC_NEXT | DESC_WRITE, 0);
	vx_desc(&f->x, 0, VX_DATA + 200, 40, DESC_WRITE, 0xffff); /* next means nothing */
	assert_int_equal(pop_one(f, 5), 1);
	assert_int_equal(f->c.head, 5);
	assert_int_equal(f->c.out_count, 2);
	assert_int_equal(f->c.out_len, 30);
	assert_int_equal(f->c.in_count, 2);
	assert_int_equal(f->c.in_len, 70);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);

	for (unsigned i = 0; i < 30; i++)
		*vx_at(&f->x, i < 10 ? VX_DATA + i : GUEST_HIGH_GPA + 7 + i - 10, 1) =
			(unsigned char)i;
	for (unsigned off = 0; off <= 30; off++)
		for (unsigned len = 0; len <= 30 - off; len++) {
			virtq_chain_read(&f->c, off, buf, len);
			for (unsigned i = 0; i < len; i++)
				assert_int_equal(buf[i], off + i);
		}
	for (unsigned i = 0; i < 70; i++)
		buf[i] = (unsigned char)(i + 1);
	virtq_chain_write(&f->c, 0, buf, 25);
	virtq_chain_write(&f->c, 25, buf + 25, 45);
	assert_memory_equal(vx_at(&f->x, VX_DATA + 100, 30), buf, 30);
	assert_memory_equal(vx_at(&f->x, VX_DATA + 200, 40), buf + 30, 40);
	assert_int_equal(*vx_at(&f->x, VX_DATA + 130, 1), 0);
	assert_int_equal(*vx_at(&f->x, VX_DATA + 240, 1), 0);
}

static void indirect_chain(void **state)
{
	struct fixture *f = *state;

	/* A direct part may come first; the write flag of the indirect one means nothing. */
	vx_desc(&f->x, 0, VX_DATA, 16, DESC_NEXT, 1);
	vx_desc(&f->x, 1, VX_TABLE, 48, DESC_INDIRECT | DESC_WRITE, 0);
	vx_desc_at(&f->x, VX_TABLE, 0, VX_DATA + 16, 4, DESC_NEXT, 2);
	vx_desc_at(&f->x, VX_TABLE, 2, VX_DATA + 32, 5, DESC_NEXT | DESC_WRITE, 1);
	vx_desc_at(&f->x, VX_TABLE, 1, VX_DATA + 64, 6, DESC_WRITE, 0);
	assert_int_equal(pop_one(f, 0), 1);
	assert_int_equal(f->c.out_count, 2);
	assert_int_equal(f->c.out_len, 20);
	assert_int_equal(f->c.in_count, 2);
	assert_int_equal(f->c.in_len, 11);
	/* As large as it may be, more than the queue itself has. */
	vx_desc(&f->x, 0, VX_TABLE, 256 * 16, DESC_INDIRECT, 0);
	for (unsigned i = 0; i < 256; i++)
		vx_desc_at(&f->x, VX_TABLE, i, VX_DATA, 1, i < 255 ? DESC_NEXT : 0, i + 1);
	assert_int_equal(pop_one(f, 0), 1);
	assert_int_equal(f->c.out_count, 256);
}

/* Each row: what makes this chain wrong. Descriptor 0 is the head, 1 its usual next. */
static void hostile_descriptors(void **state)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
		unsigned flags, next;
		uint64_t addr1;
		uint32_t len1;
		unsigned flags1, next1;
	} table[] = {
		{VX_DATA, 1, DESC_NEXT, 0, 0, 0, 0, 0}, /* loops */
		{VX_DATA, 1, DESC_NEXT, 1, VX_DATA, 1, DESC_NEXT, 0},
		{VX_DATA, 0, DESC_NEXT, 1, VX_DATA, 0, DESC_NEXT, 1},
		{VX_DATA, 1, DESC_NEXT, SIZE, 0, 0, 0, 0}, /* out of the table */
		{VX_DATA, 1, DESC_NEXT, 0xffff, 0, 0, 0, 0},
		{VX_LOW_BYTES, 1, 0, 0, 0, 0, 0, 0}, /* out of RAM */
		{VX_LOW_BYTES - 1, 2, 0, 0, 0, 0, 0, 0},
		{VX_DATA, UINT32_MAX, 0, 0, 0, 0, 0, 0},
		{0, VX_LOW_BYTES + 1, DESC_WRITE, 0, 0, 0, 0, 0},
		{UINT64_MAX, 1, 0, 0, 0, 0, 0, 0},
		{UINT64_MAX, 2, 0, 0, 0, 0, 0, 0},
		{0xffffffffff000000, UINT32_MAX, DESC_WRITE, 0, 0, 0, 0, 0},
		{GUEST_HIGH_GPA - 1, 2, 0, 0, 0, 0, 0, 0},
		{GUEST_HIGH_GPA + VX_HIGH_BYTES, 1, 0, 0, 0, 0, 0, 0},
		{VX_DATA, 1, DESC_NEXT | DESC_WRITE, 1, VX_DATA, 1, 0, 0}, /* direction */
		{VX_TABLE, 0, DESC_INDIRECT, 0, 0, 0, 0, 0}, /* indirect */
		{VX_TABLE, 15, DESC_INDIRECT, 0, 0, 0, 0, 0},
		{VX_TABLE, 17, DESC_INDIRECT, 0, 0, 0, 0, 0},
		{VX_TABLE, 257 * 16, DESC_INDIRECT, 0, 0, 0, 0, 0},
		{VX_TABLE, UINT32_MAX & ~15u, DESC_INDIRECT, 0, 0, 0, 0, 0},
		{VX_LOW_BYTES - 15, 16, DESC_INDIRECT, 0, 0, 0, 0, 0},
		{UINT64_MAX - 14, 16, DESC_INDIRECT, 0, 0, 0, 0, 0},
		{VX_TABLE, 16, DESC_INDIRECT | DESC_NEXT, 1, VX_DATA, 1, 0, 0},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		start(f, VIRTIO_F_INDIRECT_DESC);
		vx_desc_at(&f->x, VX_TABLE, 0, VX_DATA, 1, 0, 0); /* the table would be fine */
		vx_desc(&f->x, 0, table[i].addr, table[i].len, table[i].flags, table[i].next);
		vx_desc(&f->x, 1, table[i].addr1, table[i].len1, table[i].flags1,
			table[i].next1);
		if (pop_one(f, 0) != BAD)
			fail_msg("row %u", i);
	}
}

static void hostile_tables(void **state)
{
	static const struct {
		uint32_t bytes;
		unsigned flags, next;
		uint64_t addr;
		uint32_t len;
	} table[] = {
		{16, DESC_NEXT, 0, VX_DATA, 1}, /* loop */
		{16, DESC_NEXT, 1, VX_DATA, 1}, /* out of the table, though not of RAM */
		{32, DESC_NEXT, 0xffff, VX_DATA, 1},
		{32, DESC_INDIRECT, 0, VX_TABLE, 16}, /* nested */
		{16, 0, 0, VX_LOW_BYTES, 1},
		{16, DESC_WRITE, 0, VX_DATA, UINT32_MAX},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		start(f, VIRTIO_F_INDIRECT_DESC);
		vx_desc(&f->x, 0, VX_TABLE, table[i].bytes, DESC_INDIRECT, 0);
		vx_desc_at(&f->x, VX_TABLE, 0, table[i].addr, table[i].len, table[i].flags,
			   table[i].next);
		if (pop_one(f, 0) != BAD)
			fail_msg("row %u", i);
	}
	/* Direction is one rule for both parts of a chain. */
	start(f, VIRTIO_F_INDIRECT_DESC);
	vx_desc(&f->x, 0, VX_DATA, 1, DESC_WRITE | DESC_NEXT, 1);
	vx_desc(&f->x, 1, VX_TABLE, 16, DESC_INDIRECT, 0);
	vx_desc_at(&f->x, VX_TABLE, 0, VX_DATA, 1, 0, 0);
	assert_int_equal(pop_one(f, 0), BAD);
	/* Both parts together are too many. */
	start(f, VIRTIO_F_INDIRECT_DESC);
	vx_desc(&f->x, 0, VX_DATA, 1, DESC_NEXT, 1);
	vx_desc(&f->x, 1, VX_TABLE, 256 * 16, DESC_INDIRECT, 0);
	for (unsigned i = 0; i < 256; i++)
		vx_desc_at(&f->x, VX_TABLE, i, VX_DATA, 1, i < 255 ? DESC_NEXT : 0, i + 1);
	assert_int_equal(pop_one(f, 0), BAD);
	/* Not negotiated. */
	start(f, 0);
	vx_desc(&f->x, 0, VX_TABLE, 16, DESC_INDIRECT, 0);
	vx_desc_at(&f->x, VX_TABLE, 0, VX_DATA, 1, 0, 0);
	assert_int_equal(pop_one(f, 0), BAD);
}

static void four_gigabytes_are_too_long(void **state)
{
	struct fixture *f = *state;

	/* Only lengths are looked at: nothing of it is touched. */
	f->x.mem.high_bytes = 1ull << 40;
	vx_desc(&f->x, 0, GUEST_HIGH_GPA, 0x80000000, DESC_NEXT, 1);
	vx_desc(&f->x, 1, GUEST_HIGH_GPA, 0x7fffffff, DESC_WRITE, 0);
	assert_int_equal(pop_one(f, 0), 1);
	vx_desc(&f->x, 1, GUEST_HIGH_GPA, 0x80000000, DESC_WRITE, 0);
	assert_int_equal(pop_one(f, 0), BAD);
}

static void index_jumps(void **state)
{
	static const uint16_t bad[] = {SIZE + 1, 0x7fff, 0x8000, 0xffff};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		start(f, 0);
		vx_put16(&f->x, VX_AVAIL + 2, bad[i]);
		assert_int_equal(virtq_pop(&f->q, &f->c), BAD);
	}
	start(f, 0);
	vx_desc(&f->x, 0, VX_DATA, 1, 0, 0);
	vx_put16(&f->x, VX_AVAIL + 2, SIZE);
	for (unsigned i = 0; i < SIZE; i++)
		assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	vx_put16(&f->x, VX_AVAIL + 2, SIZE - 1); /* backwards */
	assert_int_equal(virtq_pop(&f->q, &f->c), BAD);
	start(f, 0);
	assert_int_equal(pop_one(f, SIZE), BAD);
	start(f, 0);
	assert_int_equal(pop_one(f, 0xffff), BAD);
}

/* ---- taken once, read once ---- */

static void unpop_gives_it_again(void **state)
{
	struct fixture *f = *state;

	vx_desc(&f->x, 3, VX_DATA, 1, 0, 0);
	assert_int_equal(pop_one(f, 3), 1);
	assert_int_equal(virtq_pop(&f->q, &f->c), 0);
	virtq_unpop(&f->q);
	assert_int_equal(virtq_pop(&f->q, &f->c), 1);
	assert_int_equal(f->c.head, 3);
	(void)virtq_push(&f->q, 3, 0);
	assert_int_equal(vx_used_idx(&f->x), 1);
}

struct rewriter {
	struct vx *x;
	int stop; /* atomic */
};

/* Right and wrong by turns, whatever the device has looked at. */
static void *rewrite(void *arg)
{
	struct rewriter *r = arg;
	static const uint32_t lens[2] = {5, UINT32_MAX};

	for (unsigned i = 0; !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); i++)
		vx_put(r->x, VX_DESC + 8, &lens[i % 2], 4);
	return NULL;
}

/* What was checked is what is used: torn lengths are wrong, too, or shorter than all of RAM. */
static void read_once(void **state)
{
	struct fixture *f = *state;
	struct rewriter r = {.x = &f->x};
	unsigned verdicts[2] = {0};
	pthread_t thread;

	vx_desc(&f->x, 0, VX_DATA, 5, 0, 0);
	vx_offer(&f->x, 0);
	assert_int_equal(pthread_create(&thread, NULL, rewrite, &r), 0);
	while (verdicts[0] < 2000 || verdicts[1] < 2000) {
		int rc = virtq_pop(&f->q, &f->c);

		verdicts[rc == 1]++;
		if (rc != 1)
			continue;
		assert_int_equal(f->c.out_count, 1);
		assert_int_equal(f->c.out_len, f->c.segs[0].iov_len);
		assert_ptr_equal(f->c.segs[0].iov_base, f->x.low + VX_DATA);
		assert_true(f->c.segs[0].iov_len <= VX_LOW_BYTES - VX_DATA);
		virtq_unpop(&f->q);
	}
	__atomic_store_n(&r.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

/* ---- used ring and notifications ---- */

static void indices_wrap(void **state)
{
	struct fixture *f = *state;
	uint32_t head, len;

	for (unsigned i = 0; i < SIZE; i++)
		vx_desc(&f->x, i, VX_DATA, 1, DESC_WRITE, 0);
	for (unsigned n = 0; n < 140000; n++) {
		assert_int_equal(pop_one(f, n * 5 % SIZE), 1);
		assert_int_equal(f->c.head, n * 5 % SIZE);
		(void)virtq_push(&f->q, f->c.head, n);
		assert_true(vx_take(&f->x, &head, &len));
		assert_int_equal(head, n * 5 % SIZE);
		assert_int_equal(len, n);
		assert_false(vx_take(&f->x, &head, &len));
	}
}

/* ---- who asks what a device wrote ---- */

#define MAP_PAGES ((VX_LOW_BYTES + VX_HIGH_BYTES) / PAGE_BYTES)
#define MAP_WORDS (MAP_PAGES / DIRTY_WORD_PAGES + 1)

static bool is_marked(struct dirty_map *d, uint64_t page)
{
	uint64_t bits[MAP_WORDS] = {0};

	dirty_map_take(d, bits);
	/* As if nobody had looked. */
	for (unsigned w = 0; w < MAP_WORDS; w++)
		atomic_fetch_or(&d->bits[w], bits[w]);
	return bits[page / DIRTY_WORD_PAGES] >> page % DIRTY_WORD_PAGES & 1;
}

/* What it is given to write to, and the used ring; not what it reads, nor while nobody asks. */
static void writes_are_marked(void **state)
{
	struct fixture *f = *state;
	_Atomic uint64_t bits[MAP_WORDS] = {0};
	uint64_t low_pages = VX_LOW_BYTES / PAGE_BYTES, none[MAP_WORDS] = {0};
	struct dirty_map map = {
		.low_pages = low_pages,
		.high_gpa = GUEST_HIGH_GPA,
		.pages = MAP_WORDS * DIRTY_WORD_PAGES,
		.bits = bits,
	};

	f->x.mem.dirty = &map;
	vx_desc(&f->x, 0, VX_DATA, 1, DESC_NEXT, 1);
	vx_desc(&f->x, 1, GUEST_HIGH_GPA, 1, DESC_WRITE, 0);
	assert_int_equal(pop_one(f, 0), 1);
	(void)virtq_push(&f->q, 0, 1);
	for (unsigned w = 0; w < MAP_WORDS; w++)
		assert_int_equal(bits[w], 0);
	atomic_store(&map.on, true);
	assert_int_equal(pop_one(f, 0), 1);
	assert_false(is_marked(&map, VX_DATA / PAGE_BYTES));
	assert_true(is_marked(&map, low_pages));
	assert_false(is_marked(&map, VX_USED / PAGE_BYTES));
	(void)virtq_push(&f->q, 0, 1);
	assert_true(is_marked(&map, VX_USED / PAGE_BYTES));
	assert_false(is_marked(&map, VX_AVAIL / PAGE_BYTES));
	dirty_map_take(&map, none);
	for (unsigned w = 0; w < MAP_WORDS; w++)
		assert_int_equal(bits[w], 0);
}

static void suppression_by_flag(void **state)
{
	struct fixture *f = *state;

	vx_desc(&f->x, 0, VX_DATA, 1, 0, 0);
	for (unsigned flags = 0; flags < 4; flags++) {
		vx_put16(&f->x, VX_AVAIL, (uint16_t)flags);
		assert_int_equal(pop_one(f, 0), 1);
		assert_int_equal(virtq_push(&f->q, 0, 0), !(flags & 1));
	}
	/* Ours stays as the driver left it. */
	assert_int_equal(virtq_rearm(&f->q), 0);
	assert_int_equal(vx_get16(&f->x, VX_USED), 0);
	assert_int_equal(vx_get16(&f->x, VX_USED + 4 + 8 * SIZE), 0);
}

static void suppression_by_event(void **state)
{
	struct fixture *f = *state;

	start(f, VIRTIO_F_EVENT_IDX);
	vx_put16(&f->x, VX_AVAIL, 1); /* without meaning now */
	vx_desc(&f->x, 0, VX_DATA, 1, 0, 0);
	/* An interrupt exactly when index `event` is used, wrapping included. */
	for (unsigned n = 0; n < 70000; n++) {
		uint16_t event = (uint16_t)(n + n % 5 - 2);

		vx_put16(&f->x, VX_AVAIL + 4 + 2 * SIZE, event);
		assert_int_equal(pop_one(f, 0), 1);
		assert_int_equal(virtq_push(&f->q, 0, 0), event == (uint16_t)n);
	}
	/* And the driver is told from where on to kick. */
	assert_int_equal(virtq_rearm(&f->q), 0);
	assert_int_equal(vx_get16(&f->x, VX_USED + 4 + 8 * SIZE), f->x.avail_idx);
	vx_offer(&f->x, 0);
	assert_int_equal(virtq_rearm(&f->q), 1);
}

/* ---- mutation ---- */

/* Rings of random bits near the truth: always a verdict, never an access outside. */
static void mutated_rings(void **state)
{
	struct fixture *f = *state;
	struct prng rng;
	unsigned verdicts[3] = {0};

	prng_init(&rng, 20240517);
	for (unsigned round = 0; round < 40000; round++) {
		start(f, prng_next(&rng) & (VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC));
		for (unsigned i = 0; i < SIZE; i++) {
			vx_desc(&f->x, i, VX_DATA + 64 * i, 64, i % 3 ? DESC_NEXT : 0, i + 1);
			vx_desc_at(&f->x, VX_TABLE, i, VX_DATA + 64 * i, 64,
				   i % 2 ? DESC_NEXT | DESC_WRITE : DESC_WRITE, i + 1);
		}
		vx_desc(&f->x, 4, VX_TABLE, SIZE * 16, DESC_INDIRECT, 0);
		for (unsigned i = 0; i < 4; i++)
			vx_offer(&f->x, (unsigned)prng_below(&rng, SIZE));
		for (uint64_t n = prng_below(&rng, 6); n-- > 0;) {
			static const uint32_t part[4] = {VX_DESC, VX_TABLE, VX_AVAIL, VX_USED};
			uint64_t at = part[prng_below(&rng, 4)] + prng_below(&rng, SIZE * 16);

			f->x.low[at] ^= (unsigned char)(1u << prng_below(&rng, 8));
		}
		for (unsigned i = 0; i < 8; i++) {
			unsigned char byte = 0;
			int rc = virtq_pop(&f->q, &f->c);

			assert_true(rc == 0 || rc == 1 || rc == BAD);
			verdicts[rc < 0 ? 2 : rc]++;
			if (rc != 1)
				break;
			if (f->c.out_len)
				virtq_chain_read(&f->c, f->c.out_len - 1, &byte, 1);
			if (f->c.in_len)
				virtq_chain_write(&f->c, f->c.in_len - 1, &byte, 1);
			(void)virtq_push(&f->q, f->c.head, 1);
		}
	}
	for (unsigned i = 0; i < 3; i++)
		assert_true(verdicts[i] > 1000); /* the loop sees all of it */
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ring_is_checked),
		TEST(direct_chain),
		TEST(indirect_chain),
		TEST(hostile_descriptors),
		TEST(hostile_tables),
		TEST(four_gigabytes_are_too_long),
		TEST(index_jumps),
		TEST(unpop_gives_it_again),
		TEST(read_once),
		TEST(indices_wrap),
		TEST(writes_are_marked),
		TEST(suppression_by_flag),
		TEST(suppression_by_event),
		TEST(mutated_rings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
