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
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "mem/gmem.h"
#include "mem/own.h"

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

static unsigned open_descriptors(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* Parts of one memfd share a descriptor, which goes with the last of them. */
static void a_shared_descriptor(void **state)
{
	int fd = memfd_create("shared", MFD_CLOEXEC);
	struct gmem_part part = {.bytes = CHUNK_BYTES, .fd = fd};
	struct gmem *g = NULL;
	struct err e = {0};
	uint64_t off;
	unsigned before;

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)(2 * CHUNK_BYTES)), 0);
	assert_int_equal(gmem_open(2 * CHUNK_BYTES, false, false, &g, &e), 0);
	before = open_descriptors();
	assert_int_equal(gmem_add(g, &part, &e), 0);
	part.roff.v = part.offset = CHUNK_BYTES;
	assert_int_equal(gmem_add(g, &part, &e), 0);
	assert_int_equal(open_descriptors(), before + 1);
	gmem_remove(g, (roff_t){0});
	assert_true(fcntl(gmem_fd(g, part.roff, &off), F_GETFD) >= 0);
	assert_int_equal(off, CHUNK_BYTES);
	gmem_remove(g, part.roff);
	assert_int_equal(open_descriptors(), before);
	gmem_close(g);
	close(fd);
}

/* The VMM's own mapping stays the VMM's. */
static void a_vmm_mapping_is_left_alone_again(void **state)
{
	int fd = memfd_create("vmm", MFD_CLOEXEC);
	struct gmem_part part = {.bytes = CHUNK_BYTES, .fd = fd};
	struct gmem *g = NULL;
	struct err e = {0};
	char flags[512];

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)CHUNK_BYTES), 0);
	part.vmm = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(part.vmm != MAP_FAILED);
	assert_int_equal(gmem_open(CHUNK_BYTES, false, false, &g, &e), 0);
	assert_int_equal(gmem_add(g, &part, &e), 0);
	assert_int_equal(gmem_watch_vmm(g, (roff_t){0}, CHUNK_BYTES, true, &e), 0);
	flags_of((uintptr_t)part.vmm, flags);
	assert_non_null(strstr(flags, " um"));
	gmem_remove(g, (roff_t){0});
	flags_of((uintptr_t)part.vmm, flags);
	assert_true(*flags && !strstr(flags, " um") && !strstr(flags, " ui"));
	gmem_close(g);
	munmap(part.vmm, CHUNK_BYTES);
	close(fd);
}

/* All that this process may map is mapped: its views are, that for the VMM cannot be. */
static void a_part_that_fails_leaves_nothing(void **state)
{
	struct gmem_part part = {.bytes = CHUNK_BYTES, .fd = -1, .make_vmm = true};
	struct gmem *g = NULL;
	struct err e = {0};
	struct rlimit limit, full;
	unsigned long pages = 0;
	char flags[512];
	FILE *f;
	int rc;

	(void)state;
	assert_int_equal(gmem_open(CHUNK_BYTES, false, false, &g, &e), 0);
	assert_int_equal(getrlimit(RLIMIT_AS, &limit), 0);
	f = fopen("/proc/self/statm", "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu", &pages), 1);
	full = (struct rlimit){pages * PAGE_BYTES, limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_AS, &full), 0);
	rc = gmem_add(g, &part, &e);
	assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
	(void)fclose(f);
	assert_int_equal(rc, -ENOMEM);
	flags_of(gmem_hva(g, (roff_t){0}).v, flags);
	assert_true(*flags && !strstr(flags, "rd ") && !strstr(flags, " dc"));
	assert_int_equal(gmem_add(g, &part, &e), 0);
	gmem_close(g);
}

/* What is written before a VM begins, within a range. */
static void what_is_there_already(void **state)
{
	int fd = memfd_create("data", MFD_CLOEXEC);
	struct gmem_part part = {
		.bytes = 16 * PAGE_BYTES, .fd = fd, .offset = 4 * PAGE_BYTES};
	struct gmem *g = NULL;
	struct err e = {0};
	uint64_t len = 0;
	roff_t at = {0};

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)CHUNK_BYTES), 0);
	/* Pages 2 to 9 of the part. */
	for (uint64_t page = 6; page < 14; page++)
		assert_int_equal(pwrite(fd, "x", 1, (off_t)(page * PAGE_BYTES)), 1);
	assert_int_equal(gmem_open(CHUNK_BYTES, false, false, &g, &e), 0);
	assert_int_equal(gmem_add(g, &part, &e), 0);
	assert_true(gmem_next_data(g, &at, (roff_t){5 * PAGE_BYTES}, &len));
	assert_int_equal(at.v, 2 * PAGE_BYTES);
	assert_int_equal(len, 3 * PAGE_BYTES);
	at.v = 4 * PAGE_BYTES;
	assert_true(gmem_next_data(g, &at, (roff_t){16 * PAGE_BYTES}, &len));
	assert_int_equal(at.v, 4 * PAGE_BYTES);
	assert_int_equal(len, 6 * PAGE_BYTES);
	at.v = 10 * PAGE_BYTES;
	assert_false(gmem_next_data(g, &at, (roff_t){16 * PAGE_BYTES}, &len));
	gmem_close(g);
	close(fd);
}

/* A VMM's memory is open for reading and writing, and mapped so, in however many pieces. */
static void what_may_be_adopted(void **state)
{
	int fd = memfd_create("own", MFD_CLOEXEC), one_way;
	unsigned char *at;
	struct err e = {0};
	char path[40];

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)CHUNK_BYTES), 0);
	assert_int_equal(own_check_fd(fd, 0, CHUNK_BYTES, &e), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (int mode = O_RDONLY; mode <= O_WRONLY; mode++) {
		one_way = open(path, mode | O_CLOEXEC);
		assert_true(one_way >= 0);
		assert_int_equal(own_check_fd(one_way, 0, CHUNK_BYTES, &e), -EINVAL);
		close(one_way);
	}
	at = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(at != MAP_FAILED);
	/* The kernel keeps what differs in a mapping of its own. */
	assert_int_equal(madvise(at + CHUNK_BYTES / 2, CHUNK_BYTES / 2, MADV_DONTDUMP), 0);
	assert_int_equal(own_check_mapping(at, fd, 0, CHUNK_BYTES, &e), 0);
	assert_int_equal(mprotect(at + CHUNK_BYTES / 2, CHUNK_BYTES / 2, PROT_READ), 0);
	assert_int_equal(own_check_mapping(at, fd, 0, CHUNK_BYTES / 2, &e), 0);
	assert_int_equal(own_check_mapping(at, fd, 0, CHUNK_BYTES, &e), -EINVAL);
	munmap(at, CHUNK_BYTES);
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
		cmocka_unit_test(a_shared_descriptor),
		cmocka_unit_test(a_vmm_mapping_is_left_alone_again),
		cmocka_unit_test(a_part_that_fails_leaves_nothing),
		cmocka_unit_test(what_is_there_already),
		cmocka_unit_test(what_may_be_adopted),
	};

	return can_watch() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
