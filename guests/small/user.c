/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tasks of the small guest. CPL 3 at SMALL_USER_GPA, native speed everywhere. A task
 * knows the kernel only by the addresses it touches (user_stubs.S).
 */
#include "kernel.h"

#include "base/hist.h"

uint8_t user_touch(const void *address);
void user_call(uint64_t call);

struct apf_area user_areas[SMALL_VCPUS_MAX] __attribute__((aligned(64)));
uint32_t user_walkers_left;
uint8_t user_stacks[SMALL_TASKS_MAX][USER_STACK_BYTES] __attribute__((aligned(16)));
/* Where the compute loop leaves its value, so that it is not optimised away. */
static volatile uint64_t user_sink;

#define PROBES_PER_TASK 4
#define SCRIBBLE_MS 200

/* One task's walk: pages [first, first + count), in what order. */
struct walk {
	uint64_t id;
	uint64_t first, count;
	uint64_t start;      /* SMALL_SHARED: where in the range it begins */
	unsigned half_bits;  /* SMALL_RANDOM: half the width of the permuted number */
	uint64_t round;      /* SMALL_REWRITE */
	struct small_task_result *result;
};

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * 0x7fb5d329728ea185ull;
	x = (x ^ x >> 27) * 0x81dadef4bc2dd44dull;
	return x ^ x >> 33;
}

/*
 * Entry i of a permutation of 0..count-1 that needs no memory: a balanced Feistel
 * network permutes the next power of four (less than 4 * count), and whatever falls
 * outside is permuted again; that walks along a cycle, so it ends and stays a bijection.
 */
static uint64_t permute(const struct walk *w, uint64_t i)
{
	uint64_t mask = (1ull << w->half_bits) - 1;

	do {
		uint64_t l = i >> w->half_bits, r = i & mask;
		for (uint64_t round = 0; round < 4; round++) {
			uint64_t f = mix(r + (BOOT->seed ^ round << 56) + w->id) & mask;
			uint64_t old = r;
			r = l ^ f;
			l = old;
		}
		i = l << w->half_bits | r;
	} while (i >= w->count);
	return i;
}

static uint64_t page_at(const struct walk *w, uint64_t i)
{
	if (BOOT->pattern == SMALL_RANDOM)
		return w->first + permute(w, i);
	if (BOOT->pattern == SMALL_SHARED)
		return (w->start + i) % w->count;
	return w->first + i;
}

static void compute(uint64_t iterations)
{
	uint64_t x = iterations;

	for (uint64_t i = 0; i < iterations; i++)
		x = x * 6364136223846793005ull + 1442695040888963407ull;
	user_sink = x;
}

/* Word i of what SMALL_REWRITE leaves in a page in a round. */
static uint64_t word_of(uint64_t page, uint64_t round, uint64_t i)
{
	return (page + 1) * 0x9e3779b97f4a7c15ull + round * 0xbf58476d1ce4e5b9ull + i * i;
}

/* Is the page as the last round, or before the first one the image, left it? */
static bool page_is_right(const uint8_t *p, uint64_t page, uint64_t round)
{
	const uint64_t *words = (const uint64_t *)p;
	uint64_t wrong = 0;

	if (round == 0)
		return small_page_hash(p) == ((const uint64_t *)SMALL_EXPECT_GPA)[page];
	for (uint64_t i = 0; i < PAGE_BYTES / 8; i++)
		wrong |= words[i] ^ word_of(page, round - 1, i);
	return wrong == 0;
}

static void overwrite(uint8_t *p, uint64_t page, uint64_t round)
{
	uint64_t *words = (uint64_t *)p;

	for (uint64_t i = 0; i < PAGE_BYTES / 8; i++)
		words[i] = word_of(page, round, i);
}

static void visit(const struct walk *w, uint64_t page)
{
	uint8_t *p = (uint8_t *)BOOT->image_gpa + page * PAGE_BYTES;
	struct small_task_result *r = w->result;

	uint64_t t0 = rdtsc();
	user_touch(p);
	uint64_t us = (rdtsc() - t0) * 1000 / BOOT->tsc_khz;

	__atomic_fetch_add(&RESULTS->hist[hist_bucket(us)], 1u, __ATOMIC_RELAXED);
	r->wait_us_max = max_u64(r->wait_us_max, us);
	if (!page_is_right(p, page, w->round)) {
		if (r->pages_bad == 0)
			r->first_bad_page = page;
		r->pages_bad++;
	}
	r->pages_done++;
	if (BOOT->pattern == SMALL_REWRITE)
		overwrite(p, page, w->round);
	if (BOOT->compute_per_page)
		compute(BOOT->compute_per_page);
}

static void walk_pages(uint64_t id, struct small_task_result *result)
{
	bool compute_pattern = BOOT->pattern == SMALL_COMPUTE;
	uint64_t walkers = BOOT->tasks - (compute_pattern ? 1 : 0);
	uint64_t index = id - (compute_pattern ? 1 : 0);
	struct walk w = {.id = id, .result = result, .half_bits = 1};
	bool probe = BOOT->scenario == SMALL_COLLIDE_A || BOOT->scenario == SMALL_COLLIDE_B;
	uint64_t pages = BOOT->pages - (BOOT->scenario == SMALL_STACK ? SMALL_STACK_PAGES : 0);

	if (BOOT->pattern == SMALL_SHARED) {
		w.count = pages;
		w.start = index * pages / walkers;
	} else {
		w.first = index * pages / walkers;
		w.count = (index + 1) * pages / walkers - w.first;
	}
	while (1ull << 2 * w.half_bits < w.count)
		w.half_bits++;
	do {
		for (uint64_t i = 0; i < w.count; i++) {
			if (probe && i < PROBES_PER_TASK)
				user_call(SMALL_CALL_PROBE);
			visit(&w, page_at(&w, i));
		}
		w.round++;
	} while (BOOT->pattern == SMALL_REWRITE && w.round < BOOT->rounds);
}

/* SMALL_COMPUTE, task 0: what is left of a CPU while others wait for pages. */
static void count_until_done(struct small_task_result *result)
{
	uint64_t t0 = rdtsc(), now = t0, count = 0;
	uint64_t end = BOOT->run_ms ? t0 + BOOT->run_ms * BOOT->tsc_khz : UINT64_MAX;

	while (now < end) {
		if (!BOOT->run_ms && !__atomic_load_n(&user_walkers_left, __ATOMIC_ACQUIRE))
			break;
		compute(1024);
		count += 1024;
		now = rdtsc();
	}
	result->count = count;
	result->count_tsc = now - t0;
}

/* SMALL_HOSTILE_SLOT, task 0: then asks the kernel to register anew, and behaves. */
static void scribble(void)
{
	uint64_t end = rdtsc() + SCRIBBLE_MS * BOOT->tsc_khz;
	volatile struct apf_area *area = &user_areas[0];
	uint64_t x = BOOT->seed;

	while (rdtsc() < end) {
		x = mix(x + 0x9e3779b97f4a7c15ull);
		/* Small reasons too: they are the ones that mean something. */
		area->reason = (uint32_t)(x & 8 ? x & 3 : x >> 32);
		area->token = (uint32_t)(x >> 16);
	}
	area->reason = 0;
	area->token = 0;
	user_call(CALL_REENABLE);
}

static void end_tsc_set(void)
{
	uint64_t *end = &RESULTS->end_tsc;
	uint64_t old = __atomic_load_n(end, __ATOMIC_RELAXED), now = rdtsc();

	while (old < now && !__atomic_compare_exchange_n(end, &old, now, false, __ATOMIC_RELAXED,
							 __ATOMIC_RELAXED))
		;
}

void user_main(uint64_t id)
{
	struct small_task_result *result = &RESULTS->task[id];
	uint64_t never = 0;

	__atomic_compare_exchange_n(&RESULTS->start_tsc, &never, rdtsc(), false, __ATOMIC_RELAXED,
				    __ATOMIC_RELAXED);
	if (BOOT->scenario == SMALL_HOSTILE_SLOT && id == 0)
		scribble();
	if (BOOT->pattern == SMALL_COMPUTE && id == 0) {
		count_until_done(result);
	} else {
		walk_pages(id, result);
		__atomic_sub_fetch(&user_walkers_left, 1u, __ATOMIC_RELEASE);
	}
	end_tsc_set();
	result->finished = 1;
	for (;;)
		user_call(SMALL_CALL_EXIT);
}
