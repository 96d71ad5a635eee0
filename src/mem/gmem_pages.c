/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages of guest memory, as port/mem.h has the driver ask for them: shown in the views, looked
 * at, taken out of the views and given back to the host. Test: tests/integration/gmem_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/size.h"
#include "mem/gmem_internal.h"
#include "mem/own.h"
#include "mem/pagemap.h"
#include "mem/uffd.h"

/* ---- showing ---- */

static int show_pages(struct gmem *g, unsigned char *at, roff_t off, uint64_t len, bool protect,
		      struct err *e)
{
	int rc = uffd_continue(g->uffd, at, len, protect, e);

	if (rc != -EFAULT)
		return rc;
	/* Some page was never written: a hole in the memfd. Give it its zeroes. */
	rc = own_reserve(part_at(g, off)->limited, g->alias + off.v, len, e);
	if (rc < 0)
		return rc;
	rc = uffd_continue(g->uffd, at, len, protect, e);
	return rc == -EFAULT ? err_sys(e, rc, "userfaultfd: UFFDIO_CONTINUE") : rc;
}

/*
 * What the kernel refuses to promise is not for one memfd alone. In the sandbox the vCPU's thread,
 * which asks, could not make one.
 */
static int gmem_room(void *ctx, struct err *e)
{
	int spare = ((const struct gmem *)ctx)->spare, rc = 0; /* a memfd has no limit */

	if (fallocate(spare, 0, 0, CHUNK_BYTES) < 0 && (errno == ENOSPC || errno == ENOMEM))
		rc = own_no_room(false, CHUNK_BYTES, e);
	fallocate(spare, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, CHUNK_BYTES);
	return rc;
}

static int gmem_reserve(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct gmem *g = ctx;

	return g->refusable ? own_reserve(part_at(g, off)->limited, g->alias + off.v, len, e) : 0;
}

/* A read of a page that the host has lost fails, where a touch would be a signal. */
static bool gmem_is_broken(void *ctx, roff_t off)
{
	const struct part *p = part_at(ctx, off);
	struct gmem *g = ctx;
	char byte;

	if (pread(p->fd, &byte, 1, (off_t)(p->offset + (off.v - p->roff.v))) >= 0 || errno != EIO)
		return false;
	__atomic_store_n(&g->lost, true, __ATOMIC_RELAXED);
	return true;
}

uint64_t gmem_whole(struct gmem *g, roff_t off, uint64_t len)
{
	uint64_t end = off.v + len;

	if (!__atomic_load_n(&g->lost, __ATOMIC_RELAXED))
		return len;
	for (roff_t at = off; at.v < end; at.v = (at.v & ~(PAGE_BYTES - 1)) + PAGE_BYTES)
		if (gmem_is_broken(g, at))
			return at.v - off.v;
	return len;
}

/* Lost pages cannot be shown, and are told as such when they are touched: as poison is. */
static int show_around_lost(struct gmem *g, unsigned char *at, roff_t off, uint64_t len,
			    bool protect, struct err *e)
{
	int rc = 0;

	for (uint64_t i = 0; rc == 0 && i < len; i += PAGE_BYTES) {
		roff_t page = {off.v + i};

		rc = gmem_is_broken(g, page) ? uffd_poison(g->uffd, at + i, PAGE_BYTES, e)
					   : show_pages(g, at + i, page, PAGE_BYTES, protect, e);
	}
	return rc;
}

static int show(struct gmem *g, unsigned char *at, roff_t off, uint64_t len, bool protect,
		struct err *e)
{
	int rc = show_pages(g, at, off, len, protect, e);

	/* EIO of the page itself, EHWPOISON of a hole that was to be filled beside it. */
	if ((rc == -EIO || rc == -EHWPOISON) && g->refuse)
		rc = show_around_lost(g, at, off, len, protect, e);
	return rc;
}

static int gmem_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch_writes,
			struct err *e)
{
	struct gmem *g = ctx;
	bool protect = watch_writes && g->protect;
	unsigned char *vmm = views & MEM_VIEW_VMM ? vmm_at(g, off) : NULL;
	int rc = 0;

	if (gmem_is_unwatched(g, off))
		return 0;
	if (views & MEM_VIEW_GUEST)
		rc = show(g, g->guest + off.v, off, len, protect, e);
	if (rc == 0 && vmm)
		rc = show(g, vmm, off, len, protect, e);
	return rc;
}

static int gmem_poison(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct gmem *g = ctx;

	return gmem_is_unwatched(g, off) ? 0 : uffd_poison(g->uffd, g->guest + off.v, len, e);
}

static int gmem_refuse(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct gmem *g = ctx;
	unsigned char *vmm = gmem_is_unwatched(g, off) ? NULL : vmm_at(g, off);

	if (!vmm)
		return 0;
	__atomic_store_n(&part_at(g, off)->refused, true, __ATOMIC_RELAXED);
	return uffd_poison(g->uffd, vmm, len, e);
}

/* In the memfd, whatever the views show (mincore(2): of a shared mapping, the page cache). */
static int there(unsigned char *at, uint64_t len, mem_pages ret, struct err *e)
{
	unsigned char pages[MEM_PAGES_MAX];

	if (mincore(at, len, pages) < 0)
		return err_sys(e, -errno, "guest memory: mincore");
	for (uint64_t i = 0; i < len >> PAGE_SHIFT; i++)
		ret[i / 64] |= (uint64_t)(pages[i] & 1) << (i % 64);
	return 0;
}

static int gmem_look(void *ctx, roff_t off, uint64_t len, mem_pages ret_there, mem_pages ret_guest,
		     mem_pages ret_vmm, struct err *e)
{
	struct gmem *g = ctx;
	unsigned char *vmm = vmm_at(g, off);
	int rc;

	memset(ret_there, 0, sizeof(mem_pages));
	memset(ret_guest, 0xff, sizeof(mem_pages));
	memset(ret_vmm, vmm ? 0xff : 0, sizeof(mem_pages));
	rc = there(g->alias + off.v, len, ret_there, e);
	if (rc == 0 && g->protect)
		rc = pagemap_written(g->pagemap, g->guest + off.v, len, ret_guest, e);
	if (rc == 0 && g->protect && vmm)
		rc = pagemap_written(g->pagemap, vmm, len, ret_vmm, e);
	return rc;
}

/* ---- taking away ---- */

static int gmem_watch_all(void *ctx, struct err *e)
{
	struct gmem *g = ctx;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < GMEM_PARTS_MAX; i++)
		if (g->parts[i].bytes > 0)
			rc = gmem_watch(g, g->parts[i].roff, g->parts[i].bytes, true, e);
	return rc;
}

static int gmem_resident(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e)
{
	struct gmem *g = ctx;

	return pagemap_present(g->pagemap, g->guest + off.v, len, ret, e);
}

/*
 * What a mapping goes through (measured on 6.12 and 6.18, tests/integration/gmem_test): taken out,
 * a page that was never written to leaves the marker of its protection behind, and any other page
 * nothing. Markers refuse the poison, so they go first. A touch meanwhile is a minor fault, which
 * waits for user space and populates nothing.
 */
static int take_out(unsigned char *at, uint64_t len, struct err *e)
{
	if (madvise(at, len, MADV_DONTNEED) < 0)
		return err_sys(e, -errno, "guest memory: taking %s out of the mapping",
			       SIZE_WORD(len));
	return 0;
}

static int gmem_unmap(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct gmem *g = ctx;
	unsigned char *vmm = vmm_at(g, off);
	int rc = take_out(g->guest + off.v, len, e);

	return rc == 0 && vmm ? take_out(vmm, len, e) : rc;
}

static int collect(const struct gmem *g, unsigned char *at, uint64_t len, mem_pages ret_written,
		   struct err *e)
{
	mem_pages kept = {0};
	uint64_t markers = 0;
	int rc = 0;

	if (g->protect)
		rc = pagemap_unwritten(g->pagemap, at, len, kept, e);
	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		markers |= kept[i];
	if (rc == 0 && markers)
		rc = uffd_unprotect(g->uffd, at, len, e);
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(kept); i++)
		ret_written[i] = ~kept[i];
	return rc;
}

static int gmem_collect(void *ctx, roff_t off, uint64_t len, mem_pages ret_guest, mem_pages ret_vmm,
			struct err *e)
{
	struct gmem *g = ctx;
	unsigned char *guest = g->guest + off.v, *vmm = vmm_at(g, off);
	int rc = collect(g, guest, len, ret_guest, e);

	if (rc == 0 && g->poison)
		rc = gmem_poison(ctx, off, len, e);
	return rc == 0 && vmm ? collect(g, vmm, len, ret_vmm, e) : rc;
}

static int gmem_drop(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	const struct part *p = part_at(ctx, off);
	struct gmem *g = ctx;

	/* Poison markers stay: punching a hole zaps pages, not markers. */
	if (fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(p->offset + (off.v - p->roff.v)), (off_t)len) < 0)
		return err_sys(e, -errno, "guest memory: giving %s back", SIZE_WORD(len));
	/* Nor the entry of a page that the host had lost, which would be lost here for ever. */
	(void)madvise(g->alias + off.v, len, MADV_DONTNEED);
	return 0;
}

/* Of the same memfd as an earlier part. */
static bool is_counted(const struct gmem *g, const struct part *p)
{
	for (const struct part *q = g->parts; q < p; q++)
		if (q->bytes > 0 && q->dev == p->dev && q->ino == p->ino)
			return true;
	return false;
}

/* A memfd of the VMM's counts wholly. */
static uint64_t gmem_resident_bytes(void *ctx)
{
	const struct gmem *g = ctx;
	uint64_t bytes = 0;
	struct stat st;

	/* A memfd has no block but its pages. */
	for (unsigned i = 0; i < GMEM_PARTS_MAX; i++)
		if (g->parts[i].bytes > 0 && !is_counted(g, &g->parts[i]) &&
		    fstat(g->parts[i].fd, &st) == 0)
			bytes += (uint64_t)st.st_blocks * 512;
	return bytes;
}

static const struct mem_ops gmem_ops = {
	.present = gmem_present,
	.poison = gmem_poison,
	.refuse = gmem_refuse,
	.is_broken = gmem_is_broken,
	.room = gmem_room,
	.reserve = gmem_reserve,
	.look = gmem_look,
	.watch_all = gmem_watch_all,
	.resident = gmem_resident,
	.unmap = gmem_unmap,
	.collect = gmem_collect,
	.drop = gmem_drop,
	.resident_bytes = gmem_resident_bytes,
};

struct mem gmem_mem(struct gmem *g)
{
	return (struct mem){.ops = &gmem_ops, .ctx = g, .alias = g->alias, .bytes = g->span};
}
