/* SPDX-License-Identifier: Apache-2.0 */
/* See gmem.h. Test: tests/integration/gmem_test.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "mem/gmem.h"
#include "mem/pagemap.h"
#include "mem/uffd.h"
#include "mem/uffd_abi.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

struct gmem {
	int memfd;
	int uffd;
	int pagemap;  /* -1: memory is never taken away */
	bool poison;  /* absent pages carry markers */
	bool protect; /* the kernel can note first writes */
	uint64_t bytes;
	unsigned char *guest; /* never dereferenced */
	unsigned char *alias;
};

static int map_twice(struct gmem *g, struct err *e)
{
	g->memfd = memfd_create("asyncpf-guest-ram", MFD_CLOEXEC);
	if (g->memfd < 0)
		return err_sys(e, -errno, "memfd_create for guest memory");
	if (ftruncate(g->memfd, (off_t)g->bytes) < 0)
		return err_sys(e, -errno, "guest memory of %llu bytes",
			       (unsigned long long)g->bytes);
	g->guest = mmap(NULL, g->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			g->memfd, 0);
	if (g->guest == MAP_FAILED)
		return err_sys(e, -errno, "mmap of %llu bytes of guest memory",
			       (unsigned long long)g->bytes);
	g->alias = mmap(NULL, g->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			g->memfd, 0);
	if (g->alias == MAP_FAILED)
		return err_sys(e, -errno, "second mmap of %llu bytes of guest memory",
			       (unsigned long long)g->bytes);
	/* Residency is per page; a huge page would appear in one piece. */
	(void)madvise(g->guest, g->bytes, MADV_NOHUGEPAGE);
	(void)madvise(g->alias, g->bytes, MADV_NOHUGEPAGE);
	/* A child must not hold guest memory, nor a core file gigabytes of it. */
	(void)madvise(g->guest, g->bytes, MADV_DONTFORK);
	(void)madvise(g->alias, g->bytes, MADV_DONTFORK);
	(void)madvise(g->guest, g->bytes, MADV_DONTDUMP);
	(void)madvise(g->alias, g->bytes, MADV_DONTDUMP);
	return 0;
}

int gmem_open(uint64_t bytes, struct gmem **ret, struct err *e)
{
	struct gmem *g = calloc(1, sizeof(*g));
	int rc;

	ASSERT(bytes > 0 && bytes % PAGE_BYTES == 0);
	if (!g)
		return err_sys(e, -ENOMEM, "guest memory");
	g->memfd = -1;
	g->uffd = -1;
	g->pagemap = -1;
	g->bytes = bytes;
	g->guest = MAP_FAILED;
	g->alias = MAP_FAILED;
	rc = map_twice(g, e);
	if (rc < 0) {
		gmem_close(g);
		return rc;
	}
	*ret = g;
	return 0;
}

void gmem_close(struct gmem *g)
{
	if (!g)
		return;
	if (g->guest != MAP_FAILED)
		munmap(g->guest, g->bytes);
	if (g->alias != MAP_FAILED)
		munmap(g->alias, g->bytes);
	if (g->uffd >= 0)
		close(g->uffd);
	if (g->pagemap >= 0)
		close(g->pagemap);
	if (g->memfd >= 0)
		close(g->memfd);
	free(g);
}

int gmem_userfault(struct gmem *g, bool poison, bool unmap, struct err *e)
{
	const uint64_t noting = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	uint64_t features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM;
	uint64_t has = 0;
	int rc;

	ASSERT(g->uffd < 0);
	if (poison)
		features |= UFFD_FEATURE_POISON;
	rc = uffd_open(features, unmap ? noting : 0, &has, e);
	if (rc < 0)
		return rc;
	g->uffd = rc;
	g->poison = poison;
	g->protect = (has & noting) == noting;
	if (!unmap)
		return 0;
	rc = pagemap_open(e);
	if (rc < 0)
		return rc;
	g->pagemap = rc;
	return 0;
}

int gmem_watch(struct gmem *g, roff_t off, uint64_t len, bool first, struct err *e)
{
	uint64_t modes = UFFDIO_REGISTER_MODE_MINOR;

	if (first)
		modes |= UFFDIO_REGISTER_MODE_MISSING;
	if (g->protect)
		modes |= UFFDIO_REGISTER_MODE_WP;
	return uffd_register(g->uffd, g->guest + off.v, len, modes, e);
}

int gmem_event_fd(const struct gmem *g)
{
	return g->uffd;
}

int gmem_touches(struct gmem *g, roff_t *ret_offs, unsigned max, struct err *e)
{
	struct uffd_msg msgs[32];
	unsigned want = max < ARRAY_LEN(msgs) ? max : (unsigned)ARRAY_LEN(msgs);
	unsigned found = 0;
	ssize_t n = read(g->uffd, msgs, want * sizeof(msgs[0]));

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0
							 : err_sys(e, -errno, "userfaultfd: read");
	for (size_t i = 0; i < (size_t)n / sizeof(msgs[0]); i++) {
		hva_t hva = {msgs[i].arg.pagefault.address};

		if (msgs[i].event == UFFD_EVENT_PAGEFAULT && gmem_roff(g, hva, &ret_offs[found]))
			found++;
	}
	return (int)found;
}

static int gm_present(void *ctx, roff_t off, uint64_t len, bool watch_writes, struct err *e)
{
	struct gmem *g = ctx;
	bool protect = watch_writes && g->protect;
	int rc = uffd_continue(g->uffd, g->guest + off.v, len, protect, e);

	if (rc != -EFAULT)
		return rc;
	/* Some page was never written: a hole in the memfd. Give it its zeroes. */
	if (madvise(g->alias + off.v, len, MADV_POPULATE_WRITE) < 0)
		return err_sys(e, -errno, "guest memory: no room for %llu more bytes",
			       (unsigned long long)len);
	rc = uffd_continue(g->uffd, g->guest + off.v, len, protect, e);
	return rc == -EFAULT ? err_sys(e, rc, "userfaultfd: UFFDIO_CONTINUE") : rc;
}

static int gm_poison(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct gmem *g = ctx;

	return uffd_poison(g->uffd, g->guest + off.v, len, e);
}

static int gm_wake(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct gmem *g = ctx;

	return uffd_wake(g->uffd, g->guest + off.v, len, e);
}

/* ---- taking away ---- */

static int gm_watch_all(void *ctx, struct err *e)
{
	struct gmem *g = ctx;

	return gmem_watch(g, (roff_t){0}, g->bytes, true, e);
}

static int gm_resident(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e)
{
	struct gmem *g = ctx;

	return pagemap_present(g->pagemap, g->guest + off.v, len, ret, e);
}

/*
 * What the guest mapping goes through (measured on 6.12 and 6.18, tests/integration/gmem_test):
 * taken out, a page that was never written to leaves the marker of its protection behind, and
 * any other page nothing. Markers refuse the poison, so they go first. A touch meanwhile is
 * a minor fault, which waits for user space and populates nothing.
 */
static int gm_unmap(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct gmem *g = ctx;

	if (madvise(g->guest + off.v, len, MADV_DONTNEED) < 0)
		return err_sys(e, -errno, "guest memory: taking %llu bytes out of the mapping",
			       (unsigned long long)len);
	return 0;
}

static int gm_collect(void *ctx, roff_t off, uint64_t len, mem_pages ret_written, struct err *e)
{
	struct gmem *g = ctx;
	unsigned char *at = g->guest + off.v;
	mem_pages kept = {0};
	uint64_t markers = 0;
	int rc = 0;

	if (g->protect)
		rc = pagemap_unwritten(g->pagemap, at, len, kept, e);
	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		markers |= kept[i];
	if (rc == 0 && markers)
		rc = uffd_unprotect(g->uffd, at, len, e);
	if (rc == 0 && g->poison)
		rc = uffd_poison(g->uffd, at, len, e);
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(kept); i++)
		ret_written[i] = ~kept[i];
	return rc;
}

static int gm_drop(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct gmem *g = ctx;

	/* Poison markers stay: punching a hole zaps pages, not markers. */
	if (fallocate(g->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off.v,
		      (off_t)len) < 0)
		return err_sys(e, -errno, "guest memory: giving %llu bytes back",
			       (unsigned long long)len);
	return 0;
}

static uint64_t gm_resident_bytes(void *ctx)
{
	struct gmem *g = ctx;
	struct stat st;

	/* A memfd has no block but its pages. */
	return fstat(g->memfd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* A read of a page that the host has lost fails, where a touch would be a signal. */
static bool gm_is_broken(void *ctx, roff_t off)
{
	struct gmem *g = ctx;
	char byte;

	return pread(g->memfd, &byte, 1, (off_t)off.v) < 0 && errno == EIO;
}

static const struct mem_ops gmem_ops = {
	.present = gm_present,
	.poison = gm_poison,
	.wake = gm_wake,
	.is_broken = gm_is_broken,
	.watch_all = gm_watch_all,
	.resident = gm_resident,
	.unmap = gm_unmap,
	.collect = gm_collect,
	.drop = gm_drop,
	.resident_bytes = gm_resident_bytes,
};

struct mem gmem_mem(struct gmem *g)
{
	return (struct mem){.ops = &gmem_ops, .ctx = g, .alias = g->alias, .bytes = g->bytes};
}

hva_t gmem_hva(const struct gmem *g, roff_t off)
{
	return (hva_t){(uintptr_t)g->guest + off.v};
}

bool gmem_roff(const struct gmem *g, hva_t hva, roff_t *ret_off)
{
	uintptr_t base = (uintptr_t)g->guest;

	if (hva.v < base || hva.v - base >= g->bytes)
		return false;
	ret_off->v = hva.v - base;
	return true;
}
