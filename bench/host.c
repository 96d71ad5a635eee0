/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a fault costs the host, whatever the size of the guest: CPU time per fault of the
 * shipped driver on real guest memory (memfd, userfaultfd, UFFDIO_POISON, UFFDIO_CONTINUE)
 * with an instant source and no vCPU, for guests of 4 Ki to 1 Mi pages. In each size 4096
 * faults touch every page of 8 chunks of 2 MiB that are spread evenly over the memory.
 *
 * Promises: the cost does not grow with the memory (largest at most 1.5 times smallest), and
 * memory beside guest RAM is at most 16 bytes per page and 64 KiB per vCPU.
 * --check makes a broken promise the exit code.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/time.h"
#include "host/host.h"
#include "mem/gmem.h"

#define CHUNKS 8u
#define ROUNDS 5

static uint64_t now_ns(void *ctx)
{
	(void)ctx;
	return monotonic_ns();
}

static void no_kick(void *ctx, unsigned vcpu)
{
	(void)ctx;
	(void)vcpu;
}

static void no_trouble(void *ctx, const struct hst_trouble *t)
{
	(void)ctx;
	if (t) {
		fprintf(stderr, "bench-host: %s\n", t->why.text);
		exit(1);
	}
}

static void no_outside(void *ctx)
{
	(void)ctx;
}

static const struct clock_ops clock_ops = {.now_ns = now_ns};
static const struct plat_ops plat_ops = {.name = "none", .kick = no_kick};

static void die(const struct err *e)
{
	fprintf(stderr, "bench-host: %s\n", e->text);
	exit(1);
}

static void one_fault(struct hst *h, roff_t off, struct err *e)
{
	struct cpu_state cpu = {.cpl = 3, .interrupts_on = true, .paging = true};
	struct hst_vcpu *v = &h->vcpus[0];
	struct hst_fetch *f;

	hst_exit(v, &cpu, false);
	hst_fault(v, off);
	while ((f = hst_take_filled(h))) {
		if (hst_make_visible(f, e) < 0)
			die(e);
		hst_shown(f, NULL);
	}
	if (hst_next(v) != HST_ENTER)
		die(&(struct err){.text = "a fault was not served at once"});
}

/* CPU nanoseconds per fault in a fresh guest of `pages` pages; *ret_bytes: beside guest RAM. */
static double measure(uint64_t pages, size_t *ret_bytes)
{
	const struct hst_cfg cfg = {
		.faults = HST_FAULTS_BLOCK,
		.vcpus = 1,
		.block_shift = PAGE_SHIFT,
		.faults_max = 256,
		.queue_depth = 256,
		.source_timeout_ns = NS_NEVER,
	};
	uint64_t chunks = pages * PAGE_BYTES / CHUNK_BYTES;
	struct gmem *g = NULL;
	struct err e = {0};
	struct hst *h = calloc(1, sizeof(*h));
	size_t bytes = hst_bytes(&cfg, pages * PAGE_BYTES);
	void *space = calloc(1, bytes);

	const struct gmem_part part = {.bytes = pages * PAGE_BYTES, .fd = -1};

	if (!h || !space || gmem_open(pages * PAGE_BYTES, true, false, &g, &e) < 0 ||
	    gmem_add(g, &part, &e) < 0 ||
	    gmem_watch(g, (roff_t){0}, pages * PAGE_BYTES, true, &e) < 0)
		die(&e);
	if (ram_add_region(&h->ram, (gpa_t){0}, pages * PAGE_BYTES, PAGE_BYTES) != RAM_ADDED)
		die(&(struct err){.text = "RAM"});
	h->mem = gmem_mem(g);
	h->plat = (struct plat){.ops = &plat_ops};
	h->clock = (struct clock){.ops = &clock_ops};
	h->hooks = (struct hst_hooks){.outside_ready = no_outside, .trouble = no_trouble};
	hst_init(h, &cfg, space);

	uint64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);

	for (uint64_t c = 0; c < CHUNKS; c++) {
		uint64_t base = c * chunks / CHUNKS * CHUNK_BYTES;

		if (hst_kernel_touch(h, &(struct mem_touch){{base}, MEM_VIEW_GUEST}, &e) < 0)
			die(&e);
		for (uint64_t p = 0; p < CHUNK_BYTES / PAGE_BYTES; p++)
			one_fault(h, (roff_t){base + p * PAGE_BYTES}, &e);
	}
	uint64_t spent = clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;

	gmem_close(g);
	free(space);
	*ret_bytes = bytes + sizeof(*h);
	free(h);
	return (double)spent / (double)(CHUNKS * (CHUNK_BYTES / PAGE_BYTES));
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static const uint64_t sizes[] = {4096, 65536, 1048576};
	bool check = argc > 1 && strcmp(argv[1], "--check") == 0, kept = true;
	double runs[ARRAY_LEN(sizes)][ROUNDS], lowest = 0, highest = 0;
	size_t bytes[ARRAY_LEN(sizes)];

	/* Sizes interleaved: a machine that becomes slower meanwhile is so for all of them. */
	for (unsigned r = 0; r < ROUNDS; r++)
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			runs[i][r] = measure(sizes[i], &bytes[i]);
	printf("guest pages   CPU us per fault   bytes beside guest RAM, per page\n");
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		qsort(runs[i], ROUNDS, sizeof(double), by_value);
		double us = runs[i][ROUNDS / 2] / 1000.0;
		size_t allowed = 16 * sizes[i] + (64 << 10);

		printf("%11llu   %16.2f   %11zu  %.1f\n", (unsigned long long)sizes[i], us,
		       bytes[i], (double)bytes[i] / (double)sizes[i]);
		lowest = i == 0 || us < lowest ? us : lowest;
		highest = us > highest ? us : highest;
		if (bytes[i] > allowed) {
			printf("BROKEN: %zu bytes, %zu are allowed\n", bytes[i], allowed);
			kept = false;
		}
	}
	if (highest > 1.5 * lowest) {
		printf("BROKEN: %.2f times from the cheapest size to the dearest\n",
		       highest / lowest);
		kept = false;
	}
	return check && !kept ? 1 : 0;
}
