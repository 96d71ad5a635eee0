/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of guest memory on the real userfaultfd: what belongs to each, where they begin elsewhere
 * in their descriptor than in guest RAM, up to the end of what was set aside; and who else must
 * not have them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mem/gmem.h"

/* The flags of the mapping that an address is in (/proc/PID/smaps). */
static void flags_of(uintptr_t at, char ret[static 512])
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long start = 0, end = 0;
	char line[512];

	assert_non_null(f);
	*ret = '\0';
	while (!*ret && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "VmFlags:", 8) == 0 && at >= start && at < end)
			snprintf(ret, 512, "%s", line + 8);
		else
			(void)sscanf(line, "%lx-%lx ", &start, &end);
	}
	(void)fclose(f);
}

/* Neither a child nor a core file has guest memory, by any of its views. */
static void no_child_and_no_core_file_has_it(void **state)
{
	struct gmem_part part = {.bytes = CHUNK_BYTES, .fd = -1, .make_vmm = true};
	struct gmem *g = NULL;
	struct err e = {0};

	(void)state;
	assert_int_equal(gmem_open(CHUNK_BYTES, false, false, &g, &e), 0);
	/* All that was set aside. */
	assert_int_equal(gmem_add(g, &part, &e), 0);
	const uintptr_t views[] = {
		gmem_hva(g, (roff_t){0}).v, (uintptr_t)gmem_mem(g).alias,
		(uintptr_t)gmem_vmm(g, (roff_t){0})};

	for (unsigned i = 0; i < 3; i++) {
		char flags[512];

		flags_of(views[i], flags);
		assert_non_null(strstr(flags, " dc"));
		assert_non_null(strstr(flags, " dd"));
	}
	part.roff.v = CHUNK_BYTES;
	part.bytes = PAGE_BYTES;
	assert_int_equal(gmem_add(g, &part, &e), -ENOSPC);
	gmem_close(g);
}

/*
 * Parts of one memfd that begin elsewhere in it than in guest RAM: what is given back is theirs and
 * no other's, and what all of them have in memory counts once.
 */
static void parts_within_a_descriptor(void **state)
{
	const uint64_t first = 3 * PAGE_BYTES, second = CHUNK_BYTES + 5 * PAGE_BYTES;
	int fd = memfd_create("parts", MFD_CLOEXEC);
	struct gmem_part part = {.bytes = 4 * PAGE_BYTES, .fd = fd, .offset = second};
	struct gmem *g = NULL;
	struct err e = {0};
	unsigned char byte = 7;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(2 * CHUNK_BYTES)), 0);
	for (uint64_t i = 0; i < 8; i++) {
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)(i * PAGE_BYTES)), 1);
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)(second + i * PAGE_BYTES)), 1);
	}
	assert_int_equal(gmem_open(4 * CHUNK_BYTES, false, false, &g, &e), 0);
	assert_int_equal(gmem_add(g, &part, &e), 0);
	part.roff.v = 2 * CHUNK_BYTES;
	part.offset = first;
	assert_int_equal(gmem_add(g, &part, &e), 0);
	struct mem m = gmem_mem(g);

	assert_int_equal(m.ops->resident_bytes(m.ctx), 16 * PAGE_BYTES);
	/* Page 1 of the part at 2 MiB * 2, page 4 of the descriptor. */
	assert_int_equal(m.ops->drop(m.ctx, (roff_t){part.roff.v + PAGE_BYTES}, PAGE_BYTES, &e), 0);
	assert_int_equal(m.ops->drop(m.ctx, (roff_t){0}, PAGE_BYTES, &e), 0);
	for (uint64_t i = 0; i < 8; i++) {
		assert_int_equal(pread(fd, &byte, 1, (off_t)(i * PAGE_BYTES)), 1);
		assert_int_equal(byte, i == 4 ? 0 : 7);
		assert_int_equal(pread(fd, &byte, 1, (off_t)(second + i * PAGE_BYTES)), 1);
		assert_int_equal(byte, i == 0 ? 0 : 7);
	}
	gmem_close(g);
	close(fd);
}

static bool can_watch(void)
{
	struct gmem *g = NULL;
	struct err e = {0};

	if (gmem_open(CHUNK_BYTES, false, false, &g, &e) == 0) {
		gmem_close(g);
		return true;
	}
	printf("SKIP: %s\n", e.text);
	return false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_child_and_no_core_file_has_it),
		cmocka_unit_test(parts_within_a_descriptor),
	};

	return can_watch() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
