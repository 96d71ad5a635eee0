/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the VMM's own view costs, wall time of a touch by one thread, per page, median of the
 * rounds:
 *
 *   absent    first touch of what the source has, which answers at once (zero:), so that what is
 *             measured is everything but the source
 *   present   first touch of what is in memory already, as the guest's view shows it
 *   evicted   touch of what lies in the swap file, beyond that file's own read, which is measured
 *             beside it by pread of as much
 *   continue  UFFDIO_CONTINUE of the second view alone, page by page, and 512 pages at a time
 *   start     apf_open to apf_start, by size of guest memory
 *
 * Promise: the start-up does not depend on the size: the largest at most 1.5 times the smallest.
 * --check makes a broken promise the exit code.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <asyncpf/asyncpf.h>

#include "base/types.h"
#include "mem/gmem.h"

#define PAGES 4096u
#define ROUNDS 5
#define PROMISE_START 1.5

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void die(const char *text)
{
	fprintf(stderr, "bench-views: %s\n", text);
	exit(1);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v)
{
	qsort(v, ROUNDS, sizeof(*v), by_value);
	return v[ROUNDS / 2];
}

static int open_vm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);

	if (vm < 0)
		die("/dev/kvm");
	close(kvm);
	return vm;
}

struct bench {
	int vm;
	struct apf *a;
	struct apf_memory m;
};

static struct bench open_bench(int vm, uint64_t bytes, const char *swap)
{
	struct bench b = {.vm = vm, .m = {.size = sizeof(b.m), .bytes = bytes, .fd = -1}};
	struct apf_config c;
	struct apf_error e;

	apf_config_init(&c);
	c.swap = swap;
	c.pins_are_held = 1;
	c.memory_max = bytes;
	if (apf_open(b.vm, &c, &b.a, &e) < 0 || apf_memory_adopt(b.a, &b.m, &e) < 0 ||
	    apf_source_add(b.a, 0, bytes, "zero:?size=1T", 0, NULL, &e) < 0 ||
	    apf_start(b.a, &e) < 0)
		die(e.text);
	return b;
}

static void close_bench(struct bench *b)
{
	apf_close(b->a);
	close(b->vm);
}

/* us per page; write: what it held is replaced. */
static double touch_all(const struct bench *b, bool write)
{
	double start = now_us();

	for (uint64_t p = 0; p < PAGES; p++) {
		volatile uint64_t *at = (void *)((char *)b->m.vmm + p * PAGE_BYTES);

		if (write)
			*at = p + 1;
		else
			(void)*at;
	}
	return (now_us() - start) / PAGES;
}

static double absent(void)
{
	struct bench b = open_bench(open_vm(), PAGES * PAGE_BYTES, NULL);
	double us = touch_all(&b, false);

	close_bench(&b);
	return us;
}

static double present(void)
{
	struct bench b = open_bench(open_vm(), PAGES * PAGE_BYTES, NULL);
	double us;

	if (apf_populate(b.a, 0, PAGES * PAGE_BYTES) < 0)
		die("populate");
	us = touch_all(&b, false);
	close_bench(&b);
	return us;
}

/* As the library reads: one page at a time, around the page cache. */
static double read_of_file(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	char *page = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
	double start, us;

	if (fd < 0)
		fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || !page)
		die(dir);
	memset(page, 1, PAGE_BYTES);
	for (uint64_t p = 0; p < PAGES; p++)
		if (pwrite(fd, page, PAGE_BYTES, (off_t)(p * PAGE_BYTES)) != PAGE_BYTES)
			die("write");
	start = now_us();
	for (uint64_t p = 0; p < PAGES; p++)
		if (pread(fd, page, PAGE_BYTES, (off_t)(p * PAGE_BYTES)) != PAGE_BYTES)
			die("read");
	us = (now_us() - start) / PAGES;
	free(page);
	close(fd);
	return us;
}

static double evicted(const char *dir)
{
	char swap[256];
	struct bench b;
	struct apf_error e;
	uint64_t left = 1;
	double us;

	snprintf(swap, sizeof(swap), "%s/bench-views.swap", dir);
	b = open_bench(open_vm(), PAGES * PAGE_BYTES, swap);
	(void)touch_all(&b, true);
	while (left > 0)
		if (apf_evict(b.a, 0, &left, &e) < 0)
			die(e.text);
	us = touch_all(&b, false);
	close_bench(&b);
	return us;
}

/* The second view alone: no library, no thread. */
static double make_visible(uint64_t pages_at_once)
{
	const struct gmem_part part = {.bytes = PAGES * PAGE_BYTES, .fd = -1, .make_vmm = true};
	uint64_t len = pages_at_once * PAGE_BYTES;
	struct gmem *g;
	struct mem m;
	struct err e;
	double start;

	if (gmem_open(part.bytes, true, false, &g, &e) < 0 || gmem_add(g, &part, &e) < 0 ||
	    gmem_watch(g, part.roff, part.bytes, true, &e) < 0 ||
	    gmem_watch_vmm(g, part.roff, part.bytes, true, &e) < 0)
		die(e.text);
	m = gmem_mem(g);
	memset(m.alias, 1, part.bytes);
	for (uint64_t at = 0; at < part.bytes; at += CHUNK_BYTES)
		if (m.ops->present(m.ctx, (roff_t){at}, CHUNK_BYTES, MEM_VIEW_GUEST, false, &e) < 0)
			die(e.text);
	start = now_us();
	for (uint64_t at = 0; at < part.bytes; at += len)
		if (m.ops->present(m.ctx, (roff_t){at}, len, MEM_VIEW_VMM, false, &e) < 0)
			die(e.text);
	start = (now_us() - start) / PAGES;
	gmem_close(g);
	return start;
}

static double start_up(uint64_t bytes)
{
	int vm = open_vm();
	double start = now_us();
	struct bench b = open_bench(vm, bytes, NULL);

	start = now_us() - start;
	close_bench(&b);
	return start;
}

static void row(const char *what, double us)
{
	printf("%-34s %8.2f us\n", what, us);
}

int main(int argc, char **argv)
{
	static const uint64_t sizes[] = {16ull << 20, 1ull << 30, 64ull << 30};
	bool check = argc > 1 && strcmp(argv[1], "--check") == 0;
	const char *dir = argc > 1 + check ? argv[1 + check] : "/var/tmp";
	double v[6][ROUNDS], s[ARRAY_LEN(sizes)][ROUNDS], ratio;

	for (unsigned r = 0; r < ROUNDS; r++) {
		v[0][r] = absent();
		v[1][r] = present();
		v[2][r] = evicted(dir);
		v[3][r] = read_of_file(dir);
		v[4][r] = make_visible(1);
		v[5][r] = make_visible(512);
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			s[i][r] = start_up(sizes[i]);
	}
	row("first touch, absent", median(v[0]));
	row("first touch, in memory", median(v[1]));
	row("touch of an evicted page", median(v[2]));
	row("... of it a read of the swap file", median(v[3]));
	row("UFFDIO_CONTINUE, alone", median(v[4]));
	row("UFFDIO_CONTINUE, 512 at a time", median(v[5]));
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		printf("start-up, %6llu MiB %21.2f us\n", (unsigned long long)(sizes[i] >> 20),
		       median(s[i]));
	ratio = median(s[ARRAY_LEN(sizes) - 1]) / median(s[0]);
	if (ratio > PROMISE_START)
		printf("BROKEN: the largest takes %.2f times as long to start as the smallest\n",
		       ratio);
	return check && ratio > PROMISE_START ? 1 : 0;
}
