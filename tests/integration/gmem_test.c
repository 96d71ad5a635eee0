/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory on the real userfaultfd: start-up that does not depend on size, poison and
 * present in every order, touches as the kernel reports them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem/gmem.h"
#include "mem/uffd.h"
#include "mem/uffd_abi.h"

#define PAGES 1024u

static struct gmem *open_memory(uint64_t bytes, bool poison)
{
	struct gmem *g = NULL;
	struct err e = {0};
	int rc = gmem_open(bytes, &g, &e);

	if (rc == 0)
		rc = gmem_userfault(g, poison, false, &e);
	if (rc == 0)
		rc = gmem_watch(g, (roff_t){0}, bytes, true, &e);
	if (rc < 0)
		print_error("%s\n", e.text);
	assert_int_equal(rc, 0);
	return g;
}

static void present(struct gmem *g, uint64_t page, uint64_t pages)
{
	struct mem m = gmem_mem(g);
	struct err e = {0};

	assert_int_equal(m.ops->present(m.ctx, (roff_t){page * PAGE_BYTES}, pages * PAGE_BYTES,
					false, &e), 0);
}

static void poison(struct gmem *g, uint64_t page, uint64_t pages)
{
	struct mem m = gmem_mem(g);
	struct err e = {0};

	assert_int_equal(m.ops->poison(m.ctx, (roff_t){page * PAGE_BYTES}, pages * PAGE_BYTES, &e),
			 0);
}

/* What the guest would read: only for pages that are present. */
static const unsigned char *guest(struct gmem *g, uint64_t page)
{
	return (const unsigned char *)(uintptr_t)gmem_hva(g, (roff_t){page * PAGE_BYTES}).v;
}

static unsigned long page_table_kb(void)
{
	unsigned long kb = 0;
	char line[128];
	FILE *f = fopen("/proc/self/status", "re");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "VmPTE: %lu", &kb) == 1)
			break;
	fclose(f);
	return kb;
}

static void start_up_does_not_depend_on_size(void **state)
{
	unsigned long before = page_table_kb();
	struct gmem *g = open_memory(64ull << 30, true);

	(void)state;
	/* 64 GiB poisoned at once would be 128 MiB of page tables. */
	assert_true(page_table_kb() - before < 1024);
	gmem_close(g);
}

static void content_goes_in_by_the_alias_and_out_by_the_guest_mapping(void **state)
{
	struct gmem *g = open_memory(PAGES * PAGE_BYTES, true);
	unsigned char *alias = gmem_mem(g).alias;

	(void)state;
	memset(alias + 5 * PAGE_BYTES, 0xa5, PAGE_BYTES);
	poison(g, 0, 16);
	present(g, 5, 1);
	assert_int_equal(guest(g, 5)[17], 0xa5);
	/* A page that nobody wrote is zeroes, not an error. */
	present(g, 6, 1);
	assert_int_equal(guest(g, 6)[17], 0);
	gmem_close(g);
}

static void present_and_poison_pass_over_what_is_there(void **state)
{
	struct gmem *g = open_memory(PAGES * PAGE_BYTES, true);
	unsigned char *alias = gmem_mem(g).alias;

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		alias[i * PAGE_BYTES] = (unsigned char)(i + 1);
	present(g, 3, 1);
	present(g, 9, 2);
	poison(g, 0, 16); /* over pages that are there: they stay */
	assert_int_equal(guest(g, 3)[0], 4);
	assert_int_equal(guest(g, 10)[0], 11);
	present(g, 0, 16); /* over both kinds */
	present(g, 0, 16); /* and over everything once more */
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(guest(g, i)[0], i + 1);
	gmem_close(g);
}

struct toucher {
	const unsigned char *at;
	unsigned char value;
	pthread_t thread;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;

	t->value = *(const volatile unsigned char *)t->at;
	return NULL;
}

static void touches_are_reported_and_released(void **state)
{
	struct gmem *g = open_memory(PAGES * PAGE_BYTES, false);
	unsigned char *alias = gmem_mem(g).alias;
	struct pollfd p = {.fd = gmem_event_fd(g), .events = POLLIN};
	struct toucher t = {.at = guest(g, 7) + 100};
	struct err e = {0};
	roff_t offs[4];

	(void)state;
	assert_int_equal(gmem_touches(g, offs, 4, &e), 0);
	assert_int_equal(pthread_create(&t.thread, NULL, touch, &t), 0);
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(gmem_touches(g, offs, 4, &e), 1);
	assert_int_equal(offs[0].v / PAGE_BYTES, 7);
	alias[7 * PAGE_BYTES + 100] = 0x5a;
	present(g, 7, 1);
	pthread_join(t.thread, NULL);
	assert_int_equal(t.value, 0x5a);
	gmem_close(g);
}

static void addresses_map_back(void **state)
{
	struct gmem *g = open_memory(PAGES * PAGE_BYTES, false);
	roff_t off;

	(void)state;
	assert_true(gmem_roff(g, gmem_hva(g, (roff_t){12345}), &off));
	assert_int_equal(off.v, 12345);
	assert_false(gmem_roff(g, (hva_t){gmem_hva(g, (roff_t){0}).v - 1}, &off));
	assert_false(gmem_roff(g, (hva_t){gmem_hva(g, (roff_t){0}).v + PAGES * PAGE_BYTES}, &off));
	/* The alias is no guest address. */
	assert_false(gmem_roff(g, (hva_t){(uintptr_t)gmem_mem(g).alias}, &off));
	gmem_close(g);
}

static void unknown_features_are_refused_by_name(void **state)
{
	struct err e = {0};
	uint64_t has;

	(void)state;
	assert_int_equal(uffd_open(1ull << 60, 0, &has, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.text, "0x1000000000000000"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(start_up_does_not_depend_on_size),
		cmocka_unit_test(content_goes_in_by_the_alias_and_out_by_the_guest_mapping),
		cmocka_unit_test(present_and_poison_pass_over_what_is_there),
		cmocka_unit_test(touches_are_reported_and_released),
		cmocka_unit_test(addresses_map_back),
		cmocka_unit_test(unknown_features_are_refused_by_name),
	};
	struct err e = {0};
	uint64_t has;
	int fd = uffd_open(UFFD_FEATURE_POISON | UFFD_FEATURE_MINOR_SHMEM, 0, &has, &e);

	if (fd < 0) {
		printf("SKIP: %s\n", e.text);
		return 77;
	}
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
