/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast cold memory leaves: the small guest on the local KVM writes to every page of 256 MiB
 * and ends; then everything that can be taken is evicted by one command, three times:
 *
 *   dirty   every page differs from what stands behind it: unmapped, written out, given back
 *   clean   fetched again and not written to: unmapped, given back
 *   zeroes  all zeroes: unmapped, looked at, given back
 *
 * MB/s is guest memory given back over wall time of apf_evict. What is measured
 * ends when the content is durable, as far as FOLDER's file system and disk say so. One line for
 * each folder named on the command line. Promise: at least 200 MB/s (10^6 bytes) for dirty pages.
 * --check makes a broken promise the exit code.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/types.h"
#include "vmm/small/small.h"

#define PAGES 65536u
#define ROUNDS 3
#define IMAGE_GPA (1ull << 32)
#define PROMISE_MB_S 200.0

enum kind { DIRTY, CLEAN, ZEROES, KINDS };

struct bench {
	struct apf *a;
	double mb_s[KINDS];
	struct apf_error e;
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *text)
{
	fprintf(stderr, "bench-evict: %s\n", text);
	exit(1);
}

static struct apf_stats stats(struct apf *a)
{
	struct apf_stats s = {.size = sizeof(s)};

	apf_stats_get(a, &s);
	return s;
}

static double evict(struct bench *b, enum kind kind)
{
	struct apf_stats before = stats(b->a), after;
	uint64_t pages, told[KINDS];
	double start = now_s(), took;

	if (apf_evict(b->a, 0, NULL, &b->e) < 0)
		die(b->e.text);
	took = now_s() - start;
	after = stats(b->a);
	pages = after.evicted - before.evicted;
	told[DIRTY] = after.swapped - before.swapped;
	told[CLEAN] = after.unmapped_clean - before.unmapped_clean;
	told[ZEROES] = after.unmapped_zero - before.unmapped_zero;
	/* A few pages of the guest's kernel are what they are. */
	if (pages < PAGES || told[kind] < PAGES)
		die("not everything was evicted, or not as what it was meant to be");
	return (double)(pages * PAGE_BYTES) / took / 1e6;
}

static void tick(void *ctx, struct apf *a, struct apf_vcpu *const *vcpus, bool first)
{
	struct bench *b = ctx;

	(void)vcpus;
	(void)first;
	b->a = a;
}

/* The guest has ended: nothing is warm. */
static void end(void *ctx)
{
	static const unsigned char zeroes[64 * PAGE_BYTES];
	struct bench *b = ctx;

	b->mb_s[DIRTY] = evict(b, DIRTY);
	if (apf_populate(b->a, IMAGE_GPA, PAGES * PAGE_BYTES) < 0)
		die("fetching again");
	b->mb_s[CLEAN] = evict(b, CLEAN);
	for (uint64_t at = 0; at < PAGES * PAGE_BYTES; at += sizeof(zeroes))
		if (apf_write(b->a, IMAGE_GPA + at, zeroes, sizeof(zeroes)) < 0)
			die("writing zeroes");
	b->mb_s[ZEROES] = evict(b, ZEROES);
}

static void measure(const char *swap, struct bench *b)
{
	static uint64_t expect[PAGES];
	static const unsigned char page[PAGE_BYTES];
	struct small_outcome out;
	struct err e = {0};
	struct small_cfg cfg = {
		.boot = {.vcpus = 1, .tasks = 8, .timer_hz = 250, .pages = PAGES, .seed = 7,
			 .rev = APF_ABI_INT, .vector = 0xec, .pattern = SMALL_REWRITE, .rounds = 1},
		.expect = expect,
		.stop_fd = -1,
		.time_limit_ms = 60000,
		.tick = tick,
		.end = end,
		.ctx = b,
	};

	for (unsigned i = 0; i < PAGES; i++)
		expect[i] = small_page_hash(page);
	apf_config_init(&cfg.apf);
	cfg.apf.swap = swap;
	if (small_run(&cfg, &out, &e) < 0 || out.status != 0)
		die(e.text[0] ? e.text : "the guest found a wrong page");
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median of each kind. True: the promise is kept. */
static bool one_folder(const char *folder)
{
	double runs[KINDS][ROUNDS];
	char swap[256];

	snprintf(swap, sizeof(swap), "%s/asyncpf-bench-swap", folder);
	for (unsigned r = 0; r < ROUNDS; r++) {
		struct bench b = {0};

		measure(swap, &b);
		for (unsigned k = 0; k < KINDS; k++)
			runs[k][r] = b.mb_s[k];
	}
	printf("%-24s", folder);
	for (unsigned k = 0; k < KINDS; k++) {
		qsort(runs[k], ROUNDS, sizeof(double), by_value);
		printf(" %8.0f", runs[k][ROUNDS / 2]);
	}
	printf("\n");
	if (runs[DIRTY][ROUNDS / 2] >= PROMISE_MB_S)
		return true;
	printf("BROKEN: dirty pages at %.0f MB/s, promised at least %.0f\n",
	       runs[DIRTY][ROUNDS / 2], PROMISE_MB_S);
	return false;
}

int main(int argc, char **argv)
{
	bool check = argc > 1 && strcmp(argv[1], "--check") == 0, kept = true;

	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		printf("SKIP: /dev/kvm: %s\n", strerror(errno));
		return 77;
	}
	printf("MB/s, swap file in          dirty    clean   zeroes\n");
	for (int i = check ? 2 : 1; i < argc; i++)
		kept &= one_folder(argv[i]);
	return check && !kept ? 1 : 0;
}
