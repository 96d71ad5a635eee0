/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See gmem.h. Opening, the parts and their views, and touches that the kernel reports;
 * gmem_pages.c has the pages. Test: tests/integration/gmem_parts_test.c, gmem_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/size.h"
#include "mem/gmem_internal.h"
#include "mem/own.h"
#include "mem/pagemap.h"
#include "mem/uffd.h"
#include "mem/uffd_abi.h"

/* Addresses that nothing is behind, at a multiple of 2 MiB. */
static unsigned char *set_aside(uint64_t span)
{
	unsigned char *p = mmap(NULL, span + CHUNK_BYTES, PROT_NONE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t skip;

	if (p == MAP_FAILED)
		return MAP_FAILED;
	skip = -(uintptr_t)p & (CHUNK_BYTES - 1);
	if (skip > 0)
		munmap(p, skip);
	munmap(p + skip + span, CHUNK_BYTES - skip);
	return p + skip;
}

/*
 * epoll refers to what it watches without keeping it open. A ring does keep it, is itself kept by
 * its mapping, and so by KVM's async faults, which hold the address space and wait for the
 * userfaultfd to answer or close: what is killed then would never go away.
 */
static int watch_uffd(struct gmem *g, struct err *e)
{
	struct epoll_event touch = {.events = EPOLLIN};

	g->events = epoll_create1(EPOLL_CLOEXEC);
	if (g->events < 0 || epoll_ctl(g->events, EPOLL_CTL_ADD, g->uffd, &touch) < 0)
		return err_sys(e, -errno, "guest memory: epoll");
	return 0;
}

static int set_up(struct gmem *g, bool unmap, struct err *e)
{
	const uint64_t noting = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	uint64_t features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM;
	uint64_t has = 0;
	int rc;

	g->guest = set_aside(g->span);
	g->alias = set_aside(g->span);
	g->part_of = calloc((g->span >> CHUNK_SHIFT) + 1, sizeof(*g->part_of));
	if (g->guest == MAP_FAILED || g->alias == MAP_FAILED || !g->part_of)
		return err_set(e, -ENOMEM, "guest memory: %s cannot be set aside twice; use less "
			       "(memory_max), or raise RLIMIT_AS (ulimit -v)",
			       SIZE_WORD(g->span));
	if (g->poison)
		features |= UFFD_FEATURE_POISON;
	/* To refuse touches at the end, where the kernel can. */
	rc = uffd_open(features, UFFD_FEATURE_POISON | (unmap ? noting : 0), &has, e);
	if (rc < 0)
		return rc;
	g->uffd = rc;
	rc = watch_uffd(g, e);
	if (rc < 0)
		return rc;
	g->protect = (has & noting) == noting;
	g->refuse = has & UFFD_FEATURE_POISON;
	g->spare = own_new_memfd("asyncpf-room", e);
	if (g->spare < 0)
		return g->spare;
	if (!unmap)
		return 0;
	rc = pagemap_open(e);
	if (rc < 0)
		return rc;
	g->pagemap = rc;
	return 0;
}

int gmem_open(uint64_t span, bool poison, bool unmap, struct gmem **ret, struct err *e)
{
	struct gmem *g = calloc(1, sizeof(*g));
	int rc;

	ASSERT(span > 0 && span % CHUNK_BYTES == 0);
	if (!g)
		return err_sys(e, -ENOMEM, "guest memory");
	g->uffd = -1;
	g->events = -1;
	g->own = -1;
	g->spare = -1;
	g->pagemap = -1;
	g->span = span;
	g->poison = poison;
	g->guest = MAP_FAILED;
	g->alias = MAP_FAILED;
	rc = set_up(g, unmap, e);
	if (rc < 0) {
		gmem_close(g);
		return rc;
	}
	*ret = g;
	return 0;
}

/* ---- parts ---- */

/* Another part has the same descriptor: a process has only so many. */
static bool is_shared(const struct gmem *g, const struct part *p)
{
	for (const struct part *q = g->parts; q < g->parts + GMEM_PARTS_MAX; q++)
		if (q != p && q->bytes > 0 && q->fd == p->fd)
			return true;
	return false;
}

static void free_part(struct gmem *g, struct part *p)
{
	unsigned char *vmm = p->vmm;

	__atomic_store_n(&p->vmm, NULL, __ATOMIC_RELEASE);
	if (vmm && p->vmm_ours)
		munmap(vmm, p->bytes);
	else if (vmm)
		uffd_unregister(g->uffd, vmm, p->bytes);
	/* The markers would refuse what comes, too. Content stays in the memfd. */
	if (vmm && !p->vmm_ours && __atomic_load_n(&p->refused, __ATOMIC_RELAXED))
		(void)madvise(vmm, p->bytes, MADV_DONTNEED);
	if (p->fd >= 0 && p->fd != g->own && !is_shared(g, p))
		close(p->fd);
	*p = (struct part){.fd = -1};
}

void gmem_close(struct gmem *g)
{
	if (!g)
		return;
	const int fds[] = {g->own, g->spare, g->events, g->uffd, g->pagemap};

	for (unsigned i = 0; i < GMEM_PARTS_MAX; i++)
		if (g->parts[i].bytes > 0)
			free_part(g, &g->parts[i]);
	if (g->guest != MAP_FAILED)
		munmap(g->guest, g->span);
	if (g->alias != MAP_FAILED)
		munmap(g->alias, g->span);
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(g->part_of);
	free(g);
}

/* Where the part lies in the memfd of our own, which becomes longer. */
static int get_own(struct gmem *g, struct part *p, struct err *e)
{
	struct stat st;

	if (g->own < 0)
		g->own = own_new_memfd("asyncpf-guest-ram", e);
	if (g->own < 0)
		return g->own;
	if (fstat(g->own, &st) < 0)
		return err_sys(e, -errno, "guest memory: its descriptor");
	p->fd = g->own;
	p->offset = p->roff.v;
	if ((uint64_t)st.st_size < p->roff.v + p->bytes &&
	    ftruncate(g->own, (off_t)(p->roff.v + p->bytes)) < 0)
		return err_sys(e, -errno, "guest memory of %s", SIZE_WORD(p->bytes));
	p->dev = st.st_dev;
	p->ino = st.st_ino;
	return 0;
}

/* Each part keeps account of its memory, and takes it away, as if nobody else had it. */
static int check_alone(const struct gmem *g, const struct gmem_part *in, const struct part *p,
		       struct err *e)
{
	for (const struct part *q = g->parts; q < g->parts + GMEM_PARTS_MAX; q++)
		if (q != p && q->bytes > 0 && q->dev == p->dev && q->ino == p->ino &&
		    in->offset < q->offset + q->bytes && q->offset < in->offset + in->bytes)
			return err_set(e, -EINVAL, "guest memory: descriptor %d: some of the "
				       "%llu bytes from %llu on are guest memory already; for "
				       "a second address make a second memslot of the same view",
				       in->fd, (unsigned long long)in->bytes,
				       (unsigned long long)in->offset);
	return 0;
}

/* The memfd, of the VMM's or of ours. */
static int get_fd(struct gmem *g, const struct gmem_part *in, struct part *p, struct err *e)
{
	struct stat st;
	int rc;

	if (in->fd < 0)
		return get_own(g, p, e);
	rc = own_check_fd(in->fd, in->offset, in->bytes, e);
	if (rc == 0 && in->vmm)
		rc = own_check_mapping(in->vmm, in->fd, in->offset, in->bytes, e);
	if (rc < 0)
		return rc;
	if (fstat(in->fd, &st) < 0)
		return err_sys(e, -errno, "guest memory: descriptor %d", in->fd);
	p->dev = st.st_dev;
	p->ino = st.st_ino;
	rc = check_alone(g, in, p, e);
	if (rc < 0)
		return rc;
	for (const struct part *q = g->parts; q < g->parts + GMEM_PARTS_MAX && p->fd < 0; q++)
		if (q != p && q->bytes > 0 && q->dev == p->dev && q->ino == p->ino)
			p->fd = q->fd;
	if (p->fd < 0)
		p->fd = fcntl(in->fd, F_DUPFD_CLOEXEC, 0);
	return p->fd < 0 ? err_sys(e, -errno, "guest memory: descriptor %d", in->fd) : 0;
}

/* at: NULL, or an address that was set aside. */
static int map_part(const struct part *p, void *at, unsigned char **ret, struct err *e)
{
	int fixed = at ? MAP_FIXED : 0;
	void *m = mmap(at, p->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | fixed,
		       p->fd, (off_t)p->offset);

	if (m == MAP_FAILED)
		return err_sys(e, -errno, "mmap of %s of guest memory", SIZE_WORD(p->bytes));
	/* Residency is per page; a huge page would appear in one piece. */
	(void)madvise(m, p->bytes, MADV_NOHUGEPAGE);
	/* A child must not hold guest memory, nor a core file gigabytes of it. */
	(void)madvise(m, p->bytes, MADV_DONTFORK);
	(void)madvise(m, p->bytes, MADV_DONTDUMP);
	*ret = m;
	return 0;
}

static int map_views(struct gmem *g, const struct gmem_part *in, struct part *p, struct err *e)
{
	unsigned char *vmm = in->vmm, *at;
	int rc = map_part(p, g->guest + p->roff.v, &at, e);

	if (rc == 0)
		rc = map_part(p, g->alias + p->roff.v, &at, e);
	if (rc == 0 && !vmm && in->make_vmm) {
		rc = map_part(p, NULL, &vmm, e);
		p->vmm_ours = true;
	} else if (rc == 0 && vmm) {
		(void)madvise(vmm, p->bytes, MADV_NOHUGEPAGE);
	}
	if (rc < 0)
		return rc;
	__atomic_store_n(&p->vmm, vmm, __ATOMIC_RELEASE);
	return 0;
}

static void set_part_of(struct gmem *g, const struct part *p, uint16_t entry)
{
	for (uint64_t at = p->roff.v; at < p->roff.v + p->bytes; at += CHUNK_BYTES)
		g->part_of[at >> CHUNK_SHIFT] = entry;
}

/* What was set aside is so again. */
static void unmap_part(struct gmem *g, const struct part *p)
{
	unsigned char *at[] = {g->guest + p->roff.v, g->alias + p->roff.v};

	for (unsigned i = 0; i < ARRAY_LEN(at); i++)
		(void)mmap(at[i], p->bytes, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

int gmem_add(struct gmem *g, const struct gmem_part *part, struct err *e)
{
	struct part *p = g->parts;
	int rc;

	ASSERT(part->roff.v % CHUNK_BYTES == 0 && part->bytes % PAGE_BYTES == 0);
	if (part->roff.v > g->span || part->bytes > g->span - part->roff.v)
		return err_set(e, -ENOSPC, "guest memory of %s does not fit into the %s that were "
			       "set aside; raise memory_max", SIZE_WORD(part->bytes),
			       SIZE_WORD(g->span));
	while (p->bytes > 0)
		if (++p == g->parts + GMEM_PARTS_MAX)
			return err_set(e, -ENOSPC, "guest memory: more than %u parts",
				       GMEM_PARTS_MAX);
	*p = (struct part){
		.bytes = part->bytes, .roff = part->roff, .fd = -1, .offset = part->offset};
	rc = get_fd(g, part, p, e);
	if (rc == 0)
		rc = map_views(g, part, p, e);
	if (rc < 0) {
		unmap_part(g, p);
		free_part(g, p);
		return rc;
	}
	set_part_of(g, p, (uint16_t)(p - g->parts + 1));
	if (p >= g->parts + g->parts_end)
		g->parts_end = (unsigned)(p - g->parts) + 1;
	return 0;
}

void gmem_remove(struct gmem *g, roff_t roff)
{
	struct part *p = part_at(g, roff);

	set_part_of(g, p, 0);
	unmap_part(g, p);
	free_part(g, p);
}

int gmem_fd(const struct gmem *g, roff_t roff, uint64_t *ret_offset)
{
	*ret_offset = part_at(g, roff)->offset;
	return part_at(g, roff)->fd;
}

void *gmem_vmm(const struct gmem *g, roff_t roff)
{
	return part_at(g, roff)->vmm;
}

static bool overlap(const void *a, uint64_t a_len, const void *b, uint64_t b_len)
{
	uintptr_t at = (uintptr_t)a, other = (uintptr_t)b;

	return at < other ? other - at < a_len : at - other < b_len;
}

bool gmem_is_view(const struct gmem *g, const void *at, uint64_t len)
{
	bool view = overlap(at, len, g->guest, g->span);

	for (const struct part *p = g->parts; !view && p < g->parts + g->parts_end; p++)
		view = p->vmm && overlap(at, len, p->vmm, p->bytes);
	return view;
}

bool gmem_may_be_refused(struct gmem *g, roff_t roff, bool any)
{
	struct part *p = part_at(g, roff);

	p->limited = own_is_limited(p->fd);
	g->refusable |= any || p->limited;
	return any || p->limited;
}

bool gmem_is_refusable(const struct gmem *g)
{
	return g->refusable;
}

bool gmem_next_data(const struct gmem *g, roff_t *at, roff_t end, uint64_t *ret_len)
{
	const struct part *p = part_at(g, *at);
	uint64_t base = p->offset - p->roff.v; /* modulo 2^64 */
	off_t data = lseek(p->fd, (off_t)(base + at->v), SEEK_DATA);
	off_t hole;

	if (data < 0 || (uint64_t)data - base >= end.v)
		return false;
	hole = lseek(p->fd, data, SEEK_HOLE);
	at->v = (uint64_t)data - base;
	*ret_len = min_u64((uint64_t)hole - base, end.v) - at->v;
	return true;
}

/* ---- watching ---- */

static uint64_t watch_modes(const struct gmem *g, bool first)
{
	uint64_t modes = UFFDIO_REGISTER_MODE_MINOR;

	if (first)
		modes |= UFFDIO_REGISTER_MODE_MISSING;
	if (g->protect)
		modes |= UFFDIO_REGISTER_MODE_WP;
	return modes;
}

int gmem_watch(struct gmem *g, roff_t off, uint64_t len, bool first, struct err *e)
{
	return uffd_register(g->uffd, g->guest + off.v, len, watch_modes(g, first), e);
}

int gmem_watch_vmm(struct gmem *g, roff_t off, uint64_t len, bool first, struct err *e)
{
	unsigned char *at = vmm_at(g, off);
	int rc;

	if (!at)
		return 0;
	rc = uffd_register(g->uffd, at, len, watch_modes(g, first), e);
	/* Content stays in the memfd. */
	if (rc == 0 && madvise(at, len, MADV_DONTNEED) < 0)
		rc = err_sys(e, -errno, "guest memory: taking %s out of the VMM's mapping",
			     SIZE_WORD(len));
	return rc;
}

bool gmem_is_unwatched(const struct gmem *g, roff_t off)
{
	return __atomic_load_n(&part_at(g, off)->unwatched, __ATOMIC_SEQ_CST);
}

void gmem_watched_again(struct gmem *g, roff_t roff)
{
	/* Last: before, pages cannot be shown through userfaultfd. */
	__atomic_store_n(&part_at(g, roff)->unwatched, false, __ATOMIC_SEQ_CST);
}

void gmem_unwatch(struct gmem *g, roff_t roff)
{
	struct part *p = part_at(g, roff);

	/* First: who shows a page afterwards finds nothing to do. */
	__atomic_store_n(&p->unwatched, true, __ATOMIC_SEQ_CST);
	uffd_unregister(g->uffd, g->guest + roff.v, p->bytes);
	if (p->vmm)
		uffd_unregister(g->uffd, p->vmm, p->bytes);
}

int gmem_event_fd(const struct gmem *g)
{
	return g->events;
}

static bool find_touch(const struct gmem *g, hva_t hva, struct mem_touch *ret)
{
	ret->view = MEM_VIEW_GUEST;
	if (gmem_roff(g, hva, &ret->off))
		return true;
	ret->view = MEM_VIEW_VMM;
	for (unsigned i = 0; i < GMEM_PARTS_MAX; i++) {
		const struct part *p = &g->parts[i];
		uintptr_t vmm = (uintptr_t)__atomic_load_n(&p->vmm, __ATOMIC_ACQUIRE);

		if (vmm && hva.v >= vmm && hva.v - vmm < p->bytes) {
			ret->off.v = p->roff.v + (hva.v - vmm);
			return true;
		}
	}
	return false;
}

int gmem_touches(struct gmem *g, struct mem_touch *ret, unsigned max, bool *ret_more,
		 struct err *e)
{
	struct uffd_msg msgs[32];
	unsigned want = max < ARRAY_LEN(msgs) ? max : (unsigned)ARRAY_LEN(msgs);
	unsigned found = 0;
	ssize_t n = read(g->uffd, msgs, want * sizeof(msgs[0]));

	*ret_more = n == (ssize_t)(want * sizeof(msgs[0]));
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0
							 : err_sys(e, -errno, "userfaultfd: read");
	for (size_t i = 0; i < (size_t)n / sizeof(msgs[0]); i++) {
		hva_t hva = {msgs[i].arg.pagefault.address};

		if (msgs[i].event == UFFD_EVENT_PAGEFAULT && find_touch(g, hva, &ret[found]))
			found++;
	}
	return (int)found;
}

/* ---- addresses ---- */

hva_t gmem_hva(const struct gmem *g, roff_t off)
{
	return (hva_t){(uintptr_t)g->guest + off.v};
}

bool gmem_roff(const struct gmem *g, hva_t hva, roff_t *ret_off)
{
	uintptr_t base = (uintptr_t)g->guest;

	if (hva.v < base || hva.v - base >= g->span)
		return false;
	ret_off->v = hva.v - base;
	return true;
}

hva_t gmem_guest_hva(const struct gmem *g, hva_t hva)
{
	uintptr_t base = (uintptr_t)g->alias;

	if (hva.v < base || hva.v - base >= g->span)
		return hva;
	return gmem_hva(g, (roff_t){hva.v - base});
}
