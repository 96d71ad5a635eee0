/* SPDX-License-Identifier: Apache-2.0 */
/* See gmem.h. Test: tests/integration/gmem_test.c. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "mem/gmem.h"
#include "mem/uffd.h"
#include "mem/uffd_abi.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

struct gmem {
	int memfd;
	int uffd;
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
	if (g->memfd >= 0)
		close(g->memfd);
	free(g);
}

int gmem_userfault(struct gmem *g, bool poison, struct err *e)
{
	uint64_t features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM;
	int rc;

	ASSERT(g->uffd < 0);
	if (poison)
		features |= UFFD_FEATURE_POISON;
	rc = uffd_open(features, e);
	if (rc < 0)
		return rc;
	g->uffd = rc;
	return uffd_register(g->uffd, g->guest, g->bytes, e);
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

static int gm_present(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct gmem *g = ctx;
	int rc = uffd_continue(g->uffd, g->guest + off.v, len, e);

	if (rc != -EFAULT)
		return rc;
	/* Some page was never written: a hole in the memfd. Give it its zeroes. */
	if (madvise(g->alias + off.v, len, MADV_POPULATE_WRITE) < 0)
		return err_sys(e, -errno, "guest memory: no room for %llu more bytes",
			       (unsigned long long)len);
	rc = uffd_continue(g->uffd, g->guest + off.v, len, e);
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

static const struct mem_ops gmem_ops = {
	.present = gm_present,
	.poison = gm_poison,
	.wake = gm_wake,
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
