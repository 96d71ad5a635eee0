/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies that meet a page which the host has lost: src/lib/guard.c. A poisoned page of userfaultfd
 * stands for it, which raises the same signal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/prng.h"
#include "lib/guard.h"
#include "mem/gmem.h"
#include "mem/uffd.h"
#include "mem/uffd_abi.h"

#define PAGES 64u /* the last one is lost */
#define LOST ((PAGES - 1) * PAGE_BYTES)

static unsigned char ours[PAGES * PAGE_BYTES];
static sigjmp_buf elsewhere;

static void on_sigbus(int sig, siginfo_t *si, void *context)
{
	(void)sig;
	if (!guard_is_ours(si, context))
		siglongjmp(elsewhere, 1);
}

static unsigned char *open_lost(struct gmem **ret)
{
	const struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
	const struct gmem_part part = {.bytes = PAGES * PAGE_BYTES, .fd = -1};
	struct err e = {0};
	struct mem m;

	assert_int_equal(sigaction(SIGBUS, &sa, NULL), 0);
	if (gmem_open(CHUNK_BYTES, true, false, ret, &e) < 0 || gmem_add(*ret, &part, &e) < 0 ||
	    gmem_watch(*ret, (roff_t){0}, part.bytes, true, &e) < 0)
		fail_msg("%s", e.text);
	m = gmem_mem(*ret);
	assert_int_equal(m.ops->present(m.ctx, (roff_t){0}, LOST, MEM_VIEW_GUEST, false, &e), 0);
	assert_int_equal(m.ops->poison(m.ctx, (roff_t){LOST}, PAGE_BYTES, &e), 0);
	for (unsigned i = 0; i < PAGES * PAGE_BYTES; i++)
		m.alias[i] = (unsigned char)(i * 31 + i / 251);
	return (unsigned char *)gmem_hva(*ret, (roff_t){0}).v;
}

/* All before the lost page is copied, whatever the lengths and places, and nothing else. */
static void copies_end_where_the_page_begins(void **state)
{
	struct gmem *g;
	unsigned char *guest = open_lost(&g), *alias = gmem_mem(g).alias;
	struct prng rng;
	size_t done;

	(void)state;
	prng_init(&rng, 5);
	for (unsigned round = 0; round < 2000; round++) {
		uint64_t room = prng_below(&rng, 4) ? 300 : 3 * PAGE_BYTES;
		uint64_t off = LOST - prng_below(&rng, room), len = 1 + prng_below(&rng, room);
		uint64_t want = min_u64(len, LOST - off), at = prng_below(&rng, 16);

		memset(ours, 0x77, at + len + 1);
		assert_int_equal(guard_copy(ours + at, guest + off, len, guest + off, &done) < 0,
				 want < len);
		assert_int_equal(done, want);
		assert_memory_equal(ours + at, alias + off, want);
		assert_int_equal(ours[at + want], 0x77);
		for (uint64_t i = 0; i < len; i++)
			ours[at + i] = (unsigned char)(round + i);
		(void)guard_copy(guest + off, ours + at, len, guest + off, &done);
		assert_int_equal(done, want);
		assert_memory_equal(ours + at, alias + off, want);
	}
	assert_int_equal(alias[LOST], (unsigned char)(LOST * 31 + LOST / 251));
	gmem_close(g);
}

static void whole_copies_are_whole(void **state)
{
	struct gmem *g;
	unsigned char *guest = open_lost(&g);
	size_t done;

	(void)state;
	for (uint64_t len = 0; len < 2000; len++) {
		memset(ours, 0x77, len + 1);
		assert_int_equal(guard_copy(ours, guest + 5, len, guest + 5, &done), 0);
		assert_int_equal(done, len);
		assert_memory_equal(ours, guest + 5, len);
		assert_int_equal(ours[len], 0x77);
	}
	gmem_close(g);
}

/* What the VMM's own pointers touch, and its own end of a copy, is the VMM's. */
static void what_others_touch_is_theirs(void **state)
{
	struct gmem *g;
	unsigned char *guest = open_lost(&g);
	volatile bool reached = false;
	size_t done;

	(void)state;
	if (sigsetjmp(elsewhere, 1) == 0) {
		(void)*(volatile unsigned char *)(guest + LOST);
		reached = true;
	}
	assert_false(reached);
	/* The lost page is the buffer, guest memory is the other one. */
	if (sigsetjmp(elsewhere, 1) == 0) {
		(void)guard_copy(guest + LOST, ours, 8, ours, &done);
		reached = true;
	}
	assert_false(reached);
	gmem_close(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copies_end_where_the_page_begins),
		cmocka_unit_test(whole_copies_are_whole),
		cmocka_unit_test(what_others_touch_is_theirs),
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
