/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the protocol costs: one page missing, its page ready and the guest's answer, for
 * 1 to 1024 outstanding faults. Measures the engine alone, as the host calls it: ask,
 * record the fault, complete it, ask for the event, mark it sent, and look again. The
 * guest is two stores to its area; int's acknowledgement stays in KVM. Pages
 * complete in a random order, so lists are cut in their midst. No system call, no memory
 * allocation: malloc is wrapped at link time and counted.
 *
 * Promise: below 100 ns per pair, and flat: the slowest line of a table takes at most 1.5
 * times the fastest. With --check a broken promise is exit status 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/time.h"
#include "engine/engine.h"

#define RUNS 9
#define PAIRS 200000u
#define OUTSTANDING_MAX 1024u
#define VECTOR 0xf3u
#define PROMISE_NS 100.0
#define PROMISE_SPREAD 1.5

static unsigned long allocations;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
	allocations++;
	return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t m)
{
	allocations++;
	return __real_calloc(n, m);
}

void *__wrap_realloc(void *p, size_t n)
{
	allocations++;
	return __real_realloc(p, n);
}

struct bench {
	struct eng_vcpu v;
	struct eng_fault faults[OUTSTANDING_MAX];
	uint32_t order[OUTSTANDING_MAX]; /* indices, shuffled */
	struct apf_area area;
	struct cpu_state cpu;
};

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench/engine: %s\n", what);
	exit(1);
}

static struct eng_slot slot_of(const struct bench *b)
{
	const volatile struct apf_area *area = &b->area;

	return (struct eng_slot){.readable = true, .reason = area->reason, .token = area->token};
}

static void store(struct bench *b, const struct eng_store *s)
{
	char *at = (char *)&b->area + s->off;

	if (s->len == 8)
		memcpy(at, &s->value, 8);
	else if (s->len == 4)
		memcpy(at, &s->value, 4);
}

static void wrmsr(struct bench *b, uint32_t msr, uint64_t value)
{
	struct eng_wrmsr_in in = {.msr = msr, .value = value, .area_ok = true};

	check(eng_wrmsr(&b->v, &in) != ENG_WRMSR_GP, "#GP");
}

/* The guest's handlers: the #PF one empties word 0, the ready one its word. */
static void guest_takes_pf(struct bench *b)
{
	b->area.reason = 0;
}

static void guest_takes_ready(struct bench *b)
{
	if (b->v.cfg.rev == APF_REV_INT)
		b->area.token = 0;
	else
		b->area.reason = 0;
}

static uint32_t missing(struct bench *b, uint64_t gfn)
{
	struct eng_event ev;

	check(eng_may_send_missing(&b->v, &b->cpu, slot_of(b)) == ENG_MAY_SEND, "refused");
	uint32_t ix = eng_send_missing(&b->v, (gfn_t){gfn}, &ev);

	store(b, &ev.store);
	guest_takes_pf(b);
	return ix;
}

static void ready(struct bench *b)
{
	struct eng_event ev;

	check(eng_next_ready(&b->v, &b->cpu, slot_of(b), &ev) == ENG_READY_SEND, "not sent");
	store(b, &ev.store);
	eng_ready_sent(&b->v, &ev);
	guest_takes_ready(b);
}

static void set_up(struct bench *b, enum apf_rev rev, uint32_t outstanding)
{
	struct eng_cfg cfg = {
		.rev = rev,
		.vcpu_id = 1,
		.features = eng_features(rev),
		.has_lapic = true,
		.faults_max = outstanding,
	};
	uint64_t rng = 1;

	memset(b, 0, sizeof(*b));
	b->cpu = (struct cpu_state){.cpl = 3, .interrupts_on = true, .paging = true};
	eng_init(&b->v, &cfg, b->faults);
	if (rev == APF_REV_INT)
		wrmsr(b, APF_MSR_CTL, VECTOR);
	wrmsr(b, APF_MSR_EN, 0x1000 | APF_EN_ENABLED | (rev == APF_REV_LEGACY ? 0 : APF_EN_INT));
	if (rev == APF_REV_PF2)
		wrmsr(b, APF_MSR_CTL, VECTOR | APF_PF2_ENABLED);
	ready(b); /* the wake-all */
	for (uint32_t i = 0; i < outstanding; i++)
		b->order[i] = missing(b, i);
	for (uint32_t i = outstanding; i > 1; i--) {
		uint32_t tmp = b->order[i - 1], at;

		rng = rng * 6364136223846793005ull + 1442695040888963407ull;
		at = (uint32_t)(rng >> 33) % i;
		b->order[i - 1] = b->order[at];
		b->order[at] = tmp;
	}
}

static uint64_t now_ns(void)
{
	/* The thread's own time: other load on the machine is not what is measured. */
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static double one_run(struct bench *b, uint32_t outstanding)
{
	struct eng_event ev;
	uint32_t at = 0;
	uint64_t start = now_ns();

	for (uint32_t i = 0; i < PAIRS; i++) {
		check(eng_page_ready(&b->v, b->order[at]), "released before");
		ready(b);
		check(eng_next_ready(&b->v, &b->cpu, slot_of(b), &ev) == ENG_READY_NONE, "more");
		b->order[at] = missing(b, i);
		if (++at == outstanding)
			at = 0;
	}
	return (double)(now_ns() - start) / PAIRS;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct column {
	enum apf_rev rev;
	const char *name;
	double max, spread;
};

static const uint32_t sizes[] = {1, 4, 16, 64, 256, 1024};

/*
 * One column: RUNS rounds over all sizes, so that a slow moment of the machine falls on
 * every line, and the median of each line.
 */
static void measure(struct column *c, double *ret_ns)
{
	static struct bench b[ARRAY_LEN(sizes)];
	double ns[ARRAY_LEN(sizes)][RUNS], min = 1e9;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		set_up(&b[i], c->rev, sizes[i]);
		(void)one_run(&b[i], sizes[i]); /* warm */
	}
	unsigned long before = allocations;
	for (unsigned run = 0; run < RUNS; run++)
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			ns[i][run] = one_run(&b[i], sizes[i]);
	check(allocations == before, "the engine allocated memory");
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		qsort(ns[i], RUNS, sizeof(ns[i][0]), by_value);
		ret_ns[i] = ns[i][RUNS / 2];
		if (ret_ns[i] > c->max)
			c->max = ret_ns[i];
		if (ret_ns[i] < min)
			min = ret_ns[i];
	}
	c->spread = c->max / min;
}

static void print_json(const struct column *cols, size_t n, double ns[][ARRAY_LEN(sizes)])
{
	printf("{\"bench\": \"engine\", \"unit\": \"ns per pair\", \"runs\": %d, "
	       "\"pairs_per_run\": %u, \"allocations\": 0, \"revisions\": [",
	       RUNS, PAIRS);
	for (size_t c = 0; c < n; c++) {
		printf("%s{\"abi\": \"%s\", \"spread\": %.3f, \"points\": [", c ? ", " : "",
		       cols[c].name, cols[c].spread);
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			printf("%s{\"outstanding\": %u, \"ns\": %.1f}", i ? ", " : "", sizes[i],
			       ns[c][i]);
		printf("]}");
	}
	printf("]}\n");
}

static void print_table(const struct column *cols, size_t n, double ns[][ARRAY_LEN(sizes)])
{
	printf("page missing + page ready, engine alone; ns per pair, "
	       "median of %d runs of %u\n\n%-12s", RUNS, PAIRS, "outstanding");
	for (size_t c = 0; c < n; c++)
		printf("%10s", cols[c].name);
	printf("\n");
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		printf("%-12u", sizes[i]);
		for (size_t c = 0; c < n; c++)
			printf("%10.1f", ns[c][i]);
		printf("\n");
	}
	printf("%-12s", "max/min");
	for (size_t c = 0; c < n; c++)
		printf("%10.2f", cols[c].spread);
	printf("\n\nallocations: 0\n");
	for (size_t c = 0; c < n; c++)
		printf("%s: below %.0f ns: %s; flat (max/min <= %.1f): %s\n", cols[c].name,
		       PROMISE_NS, cols[c].max < PROMISE_NS ? "kept" : "NOT KEPT", PROMISE_SPREAD,
		       cols[c].spread <= PROMISE_SPREAD ? "kept" : "NOT KEPT");
}

int main(int argc, char **argv)
{
	struct column cols[] = {
		{.rev = APF_REV_INT, .name = "int"},
		{.rev = APF_REV_PF2, .name = "pf2"},
		{.rev = APF_REV_LEGACY, .name = "legacy"},
	};
	double ns[ARRAY_LEN(cols)][ARRAY_LEN(sizes)];
	bool json = argc == 2 && strcmp(argv[1], "--json") == 0;
	bool assert_promise = argc == 2 && strcmp(argv[1], "--check") == 0;
	bool kept = true;

	if (argc > 1 && !json && !assert_promise) {
		fprintf(stderr, "usage: %s [--json | --check]\n", argv[0]);
		return 2;
	}
	for (size_t c = 0; c < ARRAY_LEN(cols); c++)
		measure(&cols[c], ns[c]);
	(json ? print_json : print_table)(cols, ARRAY_LEN(cols), ns);
	for (size_t c = 0; c < ARRAY_LEN(cols); c++)
		kept &= cols[c].max < PROMISE_NS && cols[c].spread <= PROMISE_SPREAD;
	return assert_promise && !kept;
}
