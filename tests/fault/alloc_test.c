/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Setting the library up with allocation number 1, 2, 3, … failing, once alone and once
 * with all later ones, until none fails: each time a stated error or success, and after
 * apf_close no memory and no descriptor is left. Needs /dev/kvm; skips without it.
 *
 * The allocations counted are the library's own (linked with --wrap), not libc's.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <asyncpf/asyncpf.h>

#include "kvm/vm.h"

#define MIB (1u << 20)
#define SKIPPED 77

static struct {
	unsigned calls, at;
	bool on;
	long live;
} heap;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
char *__real_strdup(const char *s);
void __real_free(void *p);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
char *__wrap_strdup(const char *s);
void __wrap_free(void *p);

static bool fails(void)
{
	heap.calls++;
	return heap.at != 0 && (heap.calls == heap.at || (heap.on && heap.calls > heap.at));
}

void *__wrap_malloc(size_t bytes)
{
	void *p = fails() ? NULL : __real_malloc(bytes);

	heap.live += p != NULL;
	return p;
}

void *__wrap_calloc(size_t n, size_t bytes)
{
	void *p = fails() ? NULL : __real_calloc(n, bytes);

	heap.live += p != NULL;
	return p;
}

char *__wrap_strdup(const char *s)
{
	char *p = fails() ? NULL : __real_strdup(s);

	heap.live += p != NULL;
	return p;
}

void __wrap_free(void *p)
{
	heap.live -= p != NULL;
	__real_free(p);
}

static void check(bool ok, int line, const char *condition)
{
	if (ok)
		return;
	fprintf(stderr, "alloc_test:%d: not true with allocation %u failing%s: %s\n", line, heap.at,
		heap.on ? " and all later ones" : "", condition);
	exit(1);
}

#define CHECK(condition) check(condition, __LINE__, #condition)

static unsigned open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(d != NULL);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* A failure states its reason; a success does not need one. */
static bool stated(int rc, const struct apf_error *e)
{
	if (rc == 0)
		return true;
	if (rc != -ENOMEM)
		fprintf(stderr, "alloc_test: %s\n", e->text);
	CHECK(rc == -ENOMEM && e->code == rc && e->text[0] != 0);
	return false;
}

/* A source of our own; freed after apf_close. */
static struct apf_source *own;

static void read_own(void *ctx, const struct apf_read_request *rd)
{
	(void)ctx;
	CHECK(apf_read_zeroes(own, rd->id) == 0);
}

static int add_own(struct apf *a, struct apf_error *e)
{
	const struct apf_source_config c = {
		.size = sizeof(c), .bytes = MIB, .wrap = "delay?us=1", .read = read_own};
	int rc = apf_source_custom(a, &c, &own, e);

	return rc < 0 ? rc : apf_source_place(own, 3 * MIB, MIB, 0, e);
}

static int add_sources(struct apf *a, struct apf_error *e)
{
	static const char *const uris[] = {
		"file:/proc/self/exe",
		"rate+retry+delay+fault+zero:?size=1M&us=1&fault-error-at=2&iops=9",
		"fault+delay+file:/proc/self/exe?us=1&seed=3&fault-hang-at=9999",
	};
	int rc = 0;

	for (unsigned i = 0; i < 3 && rc == 0; i++) {
		rc = apf_source_add(a, i * MIB, MIB, uris[i], 0, NULL, e);
		/* Refused for want of memory, it may be asked again. */
		if (rc != 0 && !heap.on) {
			CHECK(!stated(rc, e));
			rc = apf_source_add(a, i * MIB, MIB, uris[i], 0, NULL, e);
		}
	}
	return rc < 0 ? rc : add_own(a, e);
}

static bool set_up_and_use(int vm_fd)
{
	struct apf_config cfg;
	struct apf_error e = {0};
	struct apf *a = NULL;
	struct apf_stats stats = {.size = sizeof(stats)};
	bool whole = false;

	apf_config_init(&cfg);
	if (!stated(apf_open(vm_fd, &cfg, &a, &e), &e)) {
		CHECK(!a);
		return false;
	}
	CHECK(apf_memory_add(a, 0, 4 * MIB, &e) == 0);
	if (stated(add_sources(a, &e), &e) && stated(apf_start(a, &e), &e)) {
		unsigned calls = heap.calls;

		CHECK(apf_populate(a, 0, 16 * 4096) == 0);
		CHECK(apf_populate(a, MIB, 4 * 4096) == 0);
		CHECK(apf_populate(a, 2 * MIB, 4 * 4096) == 0);
		CHECK(apf_populate(a, 3 * MIB, 4 * 4096) == 0);
		apf_stats_get(a, &stats);
		CHECK(stats.reads >= 28);
		CHECK(heap.calls == calls); /* nothing is allocated once it runs */
		whole = true;
	}
	apf_close(a);
	CHECK(apf_source_free(own) == 0);
	own = NULL;
	return whole;
}

int main(void)
{
	struct err e = {0};
	int kvm_fd, vm_fd;
	unsigned before, whole = 0;

	if (kvmp_vm_open(&kvm_fd, &vm_fd, &e) < 0 || kvmp_vm_irqchip(vm_fd, &e) < 0) {
		printf("SKIP: %s\n", e.text);
		return SKIPPED;
	}
	memset(&heap, 0, sizeof(heap));
	CHECK(set_up_and_use(vm_fd)); /* also opens what stays open for good */
	before = open_descriptors();
	for (unsigned on = 0; on < 2; on++) {
		do {
			unsigned at = heap.on == on ? heap.at + 1 : 1;

			memset(&heap, 0, sizeof(heap));
			heap.at = at;
			heap.on = on;
			whole += set_up_and_use(vm_fd);
			CHECK(heap.live == 0);
			CHECK(heap.at < 1000);
		} while (heap.calls >= heap.at);
		CHECK(heap.at > 10);
	}
	CHECK(open_descriptors() == before);
	CHECK(whole >= 2);
	close(vm_fd);
	close(kvm_fd);
	printf("alloc_test: %u allocations, each failed in turn\n", heap.at - 1);
	return 0;
}
