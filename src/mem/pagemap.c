/* SPDX-License-Identifier: Apache-2.0 */
/* See pagemap.h. Test: tests/integration/gmem_test.c. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "mem/pagemap.h"
#include "mem/uffd_abi.h"

/* At worst every other page is a region of its own. */
#define REGIONS_MAX (MEM_PAGES_MAX / 2)

/* Sets the bits of the pages whose categories, `inverted` flipped, include all of `mask`. */
static int scan(int fd, const void *start, uint64_t len, uint64_t mask, uint64_t inverted,
		mem_pages ret, struct err *e)
{
	struct page_region regions[REGIONS_MAX + 1];
	uint64_t at = (uintptr_t)start;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = at,
		.end = at + len,
		.vec = (uintptr_t)regions,
		.vec_len = ARRAY_LEN(regions),
		.category_inverted = inverted,
		.category_mask = mask,
		.return_mask = mask,
	};
	int n;

	ASSERT(len <= MEM_PAGES_MAX * PAGE_BYTES);
	memset(ret, 0, sizeof(mem_pages));
	n = ioctl(fd, PAGEMAP_SCAN, &arg);
	if (n < 0)
		return err_sys(e, -errno, "pagemap: PAGEMAP_SCAN");
	for (int i = 0; i < n; i++)
		for (uint64_t a = regions[i].start; a < regions[i].end; a += PAGE_BYTES) {
			uint64_t page = (a - at) >> PAGE_SHIFT;

			ret[page / 64] |= 1ull << (page % 64);
		}
	return 0;
}

int pagemap_present(int fd, const void *start, uint64_t len, mem_pages ret, struct err *e)
{
	return scan(fd, start, len, PAGE_IS_PRESENT, 0, ret, e);
}

int pagemap_unwritten(int fd, const void *start, uint64_t len, mem_pages ret, struct err *e)
{
	/* What is left of a protected page is a marker: "swapped" and not "written". */
	return scan(fd, start, len, PAGE_IS_SWAPPED | PAGE_IS_WRITTEN, PAGE_IS_WRITTEN, ret, e);
}

int pagemap_written(int fd, const void *start, uint64_t len, mem_pages ret, struct err *e)
{
	return scan(fd, start, len, PAGE_IS_PRESENT | PAGE_IS_WRITTEN, 0, ret, e);
}

int pagemap_open(struct err *e)
{
	static const char probe;
	const void *page = (const void *)((uintptr_t)&probe & ~(uintptr_t)(PAGE_BYTES - 1));
	mem_pages pages;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return err_sys(e, -errno, "/proc/self/pagemap");
	rc = pagemap_present(fd, page, PAGE_BYTES, pages, e);
	if (rc < 0) {
		close(fd);
		return err_set(e, -EOPNOTSUPP,
			       "pagemap: this kernel has no PAGEMAP_SCAN; Linux 6.7 or later is "
			       "needed to take memory away from a guest");
	}
	return fd;
}
