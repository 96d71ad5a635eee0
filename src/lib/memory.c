/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory and what stands behind it, as the VMM gives it: at any time, part by part.
 * Test: tests/integration/adopt_test.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <time.h>

#include "base/size.h"
#include "lib/internal.h"
#include "rights/limits.h"
#include "source/source.h"

#define SPAN_MIN (64ull << 20)
#define SPAN_MAX (1ull << 40)
#define SPAN_USUAL (64ull << 30)

bool lib_find(struct apf *a, gpa_t gpa, uint64_t len, roff_t *ret)
{
	bool found;

	pthread_rwlock_rdlock(&a->slot_lock);
	found = ram_find(&a->hst.ram, gpa, len, ret);
	pthread_rwlock_unlock(&a->slot_lock);
	return found;
}

bool lib_next_ram(struct apf *a, uint64_t *at, uint64_t end, uint64_t *ret_len)
{
	const struct ram *ram = &a->hst.ram;
	bool found = false;

	pthread_rwlock_rdlock(&a->slot_lock);
	for (unsigned i = 0; i < ram->region_count && !found; i++) {
		const struct ram_region *r = ram_region(ram, i);
		uint64_t from = max_u64(*at, r->gpa.v), to = min_u64(end, r->gpa.v + r->bytes);

		if (from >= to)
			continue;
		*at = from;
		*ret_len = to - from;
		found = true;
	}
	pthread_rwlock_unlock(&a->slot_lock);
	return found;
}

/* ---- addresses and tables ---- */

/*
 * Where the VMM does not tell: four times what the host has, as absent memory costs nothing; of a
 * limited process a quarter, as it is set aside twice.
 */
static uint64_t usual_span(void)
{
	uint64_t span = SPAN_USUAL;
	struct sysinfo si;
	struct rlimit as;

	if (sysinfo(&si) == 0)
		span = max_u64(span, 4ull * si.totalram * si.mem_unit);
	if (getrlimit(RLIMIT_AS, &as) == 0 && as.rlim_cur != RLIM_INFINITY)
		span = min_u64(span, as.rlim_cur / 4);
	return max_u64(min_u64(span, SPAN_MAX), SPAN_MIN);
}

static int open_tables(struct apf *a, struct err *e)
{
	a->space_bytes = hst_bytes(&a->hcfg, a->span);
	a->space = mmap(NULL, a->space_bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (a->space != MAP_FAILED)
		return 0;
	a->space = NULL;
	return err_set(e, -ENOMEM, "tables of our own for %s of guest memory: %s of addresses; "
		       "lower memory_max", SIZE_WORD(a->span), SIZE_TEXT(a->space_bytes));
}

static int open_span(struct apf *a, uint64_t bytes, struct err *e)
{
	bool ours = a->cfg.faults != APF_FAULTS_KERNEL;
	int rc;

	a->span = align_up(bytes, CHUNK_BYTES);
	rc = open_tables(a, e);
	if (rc == 0)
		rc = gmem_open(a->span, ours, a->hcfg.evict, &a->gmem, e);
	if (rc < 0)
		lib_memory_close(a);
	return rc;
}

int lib_memory_open(struct apf *a, struct err *e)
{
	uint64_t span = a->cfg.memory_max ? a->cfg.memory_max : usual_span();
	int rc = open_span(a, span, e);

	/* What the VMM has not asked for can be less. */
	while (rc == -ENOMEM && a->cfg.memory_max == 0 && span > SPAN_MIN) {
		span /= 2;
		rc = open_span(a, span, e);
	}
	return rc;
}

void lib_memory_close(struct apf *a)
{
	gmem_close(a->gmem);
	a->gmem = NULL;
	if (a->space)
		munmap(a->space, a->space_bytes);
	a->space = NULL;
	free(a->ram_tables);
	a->ram_tables = NULL;
}

/* ---- parts ---- */

int lib_check_limits(const struct apf *a, uint64_t ram, struct err *e)
{
	return limits_check("", ram, a->cfg.resident_max ? min_u64(a->cfg.resident_max, ram) : ram,
			    e);
}

static int ram_add_error(enum ram_add r, const char *what, uint64_t gpa, uint64_t bytes,
			 uint32_t align, struct err *e)
{
	static const char *const why[] = {
		[RAM_ADDED] = "",
		[RAM_FULL] = "too many of them",
		[RAM_UNALIGNED] = "not aligned to blocks, empty, or beyond 2^64",
		[RAM_OVERLAP] = "overlaps an earlier one",
		[RAM_OUTSIDE] = "not within guest RAM",
	};

	if (r == RAM_ADDED)
		return 0;
	return err_set(e, r == RAM_FULL ? -ENOSPC : -EINVAL, "%s at %#llx, %s: %s (blocks are of "
		       "%s)", what, (unsigned long long)gpa, SIZE_WORD(bytes), why[r],
		       SIZE_WORD(align));
}

/*
 * The kernel fills RAM without a source by itself: nobody need be told of its first touch. It is
 * watched from the moment that memory is to be taken away; from the start where that may be soon,
 * where a block would be filled in part only (evict_init), and by the VMM, as what it has
 * written must be known. So it is where the host may refuse a page: KVM fails only where the guest
 * has interrupts off, and else tries the touch again without end (its own async page fault, which
 * does not look whether it has the page).
 */
static int watch(struct apf *a, roff_t off, uint64_t bytes, struct err *e)
{
	bool refusable = gmem_may_be_refused(a->gmem, off, limits_promises(""));
	bool first = refusable ||
		     (a->hcfg.evict && (a->started || a->cfg.block_bytes > PAGE_BYTES));
	int rc = gmem_watch(a->gmem, off, bytes, first, e);

	return rc == 0 ? gmem_watch_vmm(a->gmem, off, bytes, refusable || a->hcfg.evict, e) : rc;
}

/* What the VMM's memfd holds already. */
static void find_data(struct apf *a, roff_t off, uint64_t bytes)
{
	roff_t end = {off.v + bytes};
	uint64_t len;

	for (; off.v < end.v && gmem_next_data(a->gmem, &off, end, &len); off.v += len)
		hst_ram_found(&a->hst, off, len);
}

/* Both locks. */
static int more_tables(struct apf *a, struct err *e)
{
	if (!ram_needs_more(&a->hst.ram))
		return 0;
	a->ram_tables = calloc(1, sizeof(*a->ram_tables));
	if (!a->ram_tables)
		return err_sys(e, -ENOMEM, "guest memory: tables");
	ram_more(&a->hst.ram, a->ram_tables);
	return 0;
}

/* Both locks. */
static int map_part(struct apf *a, uint64_t gpa, struct gmem_part *part, struct err *e)
{
	int rc = more_tables(a, e);

	/* Those that were there before apf_start it looks at itself. */
	if (rc == 0 && a->started)
		rc = lib_check_limits(a, a->hst.ram.bytes + part->bytes, e);
	if (rc < 0)
		return rc;
	rc = ram_add_error(ram_add_region(&a->hst.ram, (gpa_t){gpa}, part->bytes,
					  a->cfg.block_bytes),
			   "guest memory", gpa, part->bytes, a->cfg.block_bytes, e);
	if (rc < 0)
		return rc;
	(void)ram_find(&a->hst.ram, (gpa_t){gpa}, 1, &part->roff);
	rc = lib_swap_grow(a, a->hst.ram.end, e);
	if (rc == 0)
		rc = gmem_add(a->gmem, part, e);
	if (rc == 0 && watch(a, part->roff, part->bytes, e) < 0) {
		rc = e->code;
		gmem_remove(a->gmem, part->roff);
	}
	if (rc < 0)
		(void)ram_remove_region(&a->hst.ram, (gpa_t){gpa});
	return rc;
}

/* Locked. */
static int add_part(struct apf *a, uint64_t gpa, struct gmem_part *part, struct err *e)
{
	int rc;

	pthread_rwlock_wrlock(&a->slot_lock);
	rc = map_part(a, gpa, part, e);
	pthread_rwlock_unlock(&a->slot_lock);
	if (rc < 0)
		return rc;
	hst_ram_added(&a->hst);
	find_data(a, part->roff, part->bytes);
	return 0;
}

int apf_memory_add(struct apf *a, uint64_t gpa, uint64_t bytes, struct apf_error *error)
{
	struct gmem_part part = {.bytes = bytes, .fd = -1};
	struct err e = {0};
	int rc;

	lib_lock(a);
	rc = add_part(a, gpa, &part, &e);
	lib_unlock(a);
	return rc < 0 ? lib_error(error, &e) : 0;
}

static int check_adopt(const struct apf *a, const struct apf_memory *m, struct err *e)
{
	if (m->fd < 0 && (m->vmm || m->offset))
		return err_set(e, -EINVAL, "apf_memory: a mapping or an offset without a memfd");
	if (a->hcfg.evict && !a->cfg.pins_are_held)
		return err_set(e, -EINVAL, "apf_memory_adopt with a swap file: what a device "
			       "writes to pages that the kernel has pinned (io_uring's fixed "
			       "buffers, O_DIRECT, vhost, VFIO) would be lost; bracket that by "
			       "apf_hold and apf_release, and set pins_are_held");
	return 0;
}

static int read_memory(const struct apf_memory *m, struct apf_memory *ret, struct err *e)
{
	static const struct lib_struct type = {
		"apf_memory", offsetof(struct apf_memory, guest) + sizeof(m->guest), sizeof(*ret)};

	*ret = (struct apf_memory){.size = 0};
	return lib_struct_read(&type, m, ret, e);
}

int apf_memory_adopt(struct apf *a, struct apf_memory *m, struct apf_error *error)
{
	struct gmem_part part;
	struct apf_memory in;
	struct err e = {0};
	int rc = read_memory(m, &in, &e);

	if (rc == 0)
		rc = check_adopt(a, &in, &e);
	if (rc < 0)
		return lib_error(error, &e);
	part = (struct gmem_part){.bytes = in.bytes, .fd = in.fd, .offset = in.offset,
				  .vmm = in.vmm, .make_vmm = true};
	lib_lock(a);
	rc = add_part(a, in.gpa, &part, &e);
	if (rc == 0) {
		if (m->fd < 0)
			m->fd = gmem_fd(a->gmem, part.roff, &m->offset);
		m->vmm = gmem_vmm(a->gmem, part.roff);
		m->guest = (void *)(uintptr_t)gmem_hva(a->gmem, part.roff).v;
	}
	lib_unlock(a);
	return rc < 0 ? lib_error(error, &e) : 0;
}

void *apf_memory_hva(struct apf *a, uint64_t gpa)
{
	roff_t off;

	if (!lib_find(a, (gpa_t){gpa}, 1, &off))
		return NULL;
	return (void *)(uintptr_t)gmem_hva(a->gmem, off).v;
}

/* ---- giving back ---- */

/* Locked; lets go of the lock meanwhile. The first of the blocks is where gpa is. */
static int discard(struct apf *a, struct hst_discard *d, gpa_t gpa, struct err *e)
{
	uint64_t first = (uint64_t)d->at << a->hcfg.block_shift;
	int rc = 0;

	while (rc == 0) {
		enum hst_discarding next = hst_discard_step(&a->hst, d);
		roff_t off = {(uint64_t)d->at << a->hcfg.block_shift};

		if (next == HST_DISCARD_DONE)
			break;
		if (next == HST_DISCARD_LATER) {
			rc = lib_ensure(a, (gpa_t){gpa.v + (off.v - first)}, off);
			continue;
		}
		/* What is taken in hand keeps its part from leaving. */
		lib_unlock(a);
		hst_discard_work(&a->hst, d);
		lib_lock(a);
	}
	if (rc == -EBUSY)
		return err_set(e, rc, "the VM is paused: %s", a->trouble.text);
	if (rc < 0)
		return err_set(e, rc, "guest memory at %#llx: %s", (unsigned long long)gpa.v,
			       rc == -EINTR ? "the VM is ending" : "it has left");
	*e = d->why;
	return d->why.code;
}

/* What is not a whole block: [from, end) is blocks. */
static int discard_edges(struct apf *a, uint64_t gpa, uint64_t len, uint64_t from, uint64_t end)
{
	static const unsigned char zeroes[4096];
	int rc = 0;

	for (uint64_t at = gpa, n; rc == 0 && at < gpa + len; at += n) {
		n = min_u64(gpa + len - at, sizeof(zeroes));
		if (at >= from && at < end) {
			n = end - at;
			continue;
		}
		n = at < from ? min_u64(n, from - at) : n;
		rc = lib_write(a, at, zeroes, n);
	}
	return rc;
}

int apf_discard(struct apf *a, uint64_t gpa, uint64_t len)
{
	uint64_t block = a->cfg.block_bytes;
	uint64_t from = align_up(gpa, block), end = (gpa + len) & ~(block - 1);
	struct hst_discard d = {.at = 0};
	struct err e = {0};
	roff_t off;
	int rc;

	if (!lib_find(a, (gpa_t){gpa}, len, &off))
		return -EFAULT;
	lib_lock(a);
	a->users++;
	lib_release(a);
	rc = discard_edges(a, gpa, len, from, end);
	lib_lock(a);
	if (rc == 0 && from < end) {
		rc = ram_find(&a->hst.ram, (gpa_t){from}, end - from, &off) ? 0 : -EFAULT;
		d.at = (uint32_t)(off.v >> a->hcfg.block_shift);
		d.end = (uint32_t)((off.v + (end - from)) >> a->hcfg.block_shift);
	}
	if (rc == 0 && from < end)
		rc = discard(a, &d, (gpa_t){from}, &e);
	lib_leave(a);
	return rc;
}

void lib_close_unused_sources(struct apf *a)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->source_count; i++) {
		bool used = false;

		for (unsigned k = 0; k < a->hst.ram.backing_count; k++)
			used |= ram_backing(&a->hst.ram, k)->src == a->sources[i];
		if (used)
			a->sources[n++] = a->sources[i];
		else
			src_close(a->sources[i]);
	}
	a->source_count = n;
}

#define LEAVE_LOOK_NS (NS_PER_MS)

/* Locked. The part that begins at gpa. */
static bool find_part(const struct apf *a, gpa_t gpa, roff_t *ret)
{
	return ram_find(&a->hst.ram, gpa, 1, ret) &&
	       ram_region_at(&a->hst.ram, *ret)->roff.v == ret->v;
}

/* Locked; lets go of the lock meanwhile. */
static int leave(struct apf *a, gpa_t gpa, struct err *e)
{
	const struct timespec moment = {.tv_nsec = LEAVE_LOOK_NS};
	bool gone = false;

	while (!gone) {
		struct hst_discard d;
		roff_t off;

		/* Another thread may have been faster. */
		if (!find_part(a, gpa, &off))
			return err_set(e, -ENOENT, "guest memory: none begins at %#llx",
				       (unsigned long long)gpa.v);
		if (!hst_ram_leave(&a->hst, gpa, &d))
			return err_set(e, -EBUSY, "guest memory at %#llx: some of it is held; "
				       "apf_release comes first", (unsigned long long)gpa.v);
		if (discard(a, &d, gpa, e) < 0)
			return e->code;
		pthread_rwlock_wrlock(&a->slot_lock);
		gone = hst_ram_remove(&a->hst, gpa);
		if (gone)
			gmem_remove(a->gmem, off);
		pthread_rwlock_unlock(&a->slot_lock);
		if (gone)
			break;
		if (hst_ram_is_stuck(&a->hst, gpa))
			return err_set(e, -EBUSY, "the VM is paused: %s", a->trouble.text);
		if (hst_is_stopping(&a->hst))
			return err_set(e, -EINTR, "the VM is ending");
		/* What was on its way ends soon. */
		lib_unlock(a);
		(void)nanosleep(&moment, NULL);
		lib_lock(a);
	}
	lib_close_unused_sources(a);
	return 0;
}

int apf_memory_remove(struct apf *a, uint64_t gpa, struct apf_error *error)
{
	struct err e = {0};
	int rc;

	lib_lock(a);
	a->users++;
	rc = leave(a, (gpa_t){gpa}, &e);
	lib_leave(a);
	return rc < 0 ? lib_error(error, &e) : 0;
}

/* ---- sources ---- */

struct src_env lib_src_env(struct apf *a)
{
	return (struct src_env){
		.io = ioq_io(a->ioq),
		.work = thread_pool_work(a->pool),
		.net = net_lazy_net(a->net),
		.clock = a->hst.clock,
		.timers = &a->hst.timers,
		.reads_max = a->cfg.queue_depth,
		.counts = &a->source_counts,
		/* Who wants memory taken away does not want it in the page cache instead. */
		.uncached = a->cfg.swap != NULL,
	};
}

/* Whole chunks of the region: calls on a chunk must not meet a border within it. */
static int watch_backed(struct apf *a, gpa_t gpa, uint64_t bytes, struct err *e)
{
	const struct ram_region *r;
	uint64_t start, end;
	roff_t off;
	bool again;
	int rc;

	(void)ram_find(&a->hst.ram, gpa, bytes, &off);
	r = ram_region_at(&a->hst.ram, off);
	start = off.v & ~(CHUNK_BYTES - 1);
	end = min_u64(align_up(off.v + bytes, CHUNK_BYTES), r->roff.v + r->bytes);
	/* After lib_let_go_of_sources: a part is watched as a whole or not at all. */
	again = gmem_is_unwatched(a->gmem, off);
	rc = again ? watch(a, r->roff, r->bytes, e) : 0;
	if (rc == 0)
		rc = gmem_watch(a->gmem, (roff_t){start}, end - start, true, e);
	if (rc == 0)
		rc = gmem_watch_vmm(a->gmem, (roff_t){start}, end - start, true, e);
	if (rc == 0 && again)
		gmem_watched_again(a->gmem, r->roff);
	else if (again)
		gmem_unwatch(a->gmem, r->roff);
	return rc;
}

/*
 * Locked. A block is read as one: what the VMM's memfd has of it would be overwritten, or the rest
 * be zeroes.
 */
static int check_whole(struct apf *a, uint64_t gpa, uint64_t bytes, struct err *e)
{
	uint64_t block = a->cfg.block_bytes, len;
	roff_t off, end;

	/* Not within one part: refused as such. */
	if (!ram_find(&a->hst.ram, (gpa_t){gpa}, bytes, &off))
		return 0;
	end.v = align_up(off.v + bytes, block);
	for (; off.v < end.v && gmem_next_data(a->gmem, &off, end, &len); off.v += len)
		if ((off.v | len) % block != 0)
			return err_set(e, -EINVAL, "source at %#llx, %s: the memfd has %s at %#llx "
				       "already, which is not whole blocks of %s; fill the block, "
				       "or have smaller ones (block_bytes)",
				       (unsigned long long)gpa, SIZE_WORD(bytes), SIZE_TEXT(len),
				       (unsigned long long)ram_gpa(&a->hst.ram, off).v,
				       SIZE_TEXT(block));
	return 0;
}

int lib_source_place(struct apf *a, uint64_t gpa, uint64_t bytes, struct src *s, uint64_t offset,
		     struct err *e)
{
	int rc = a->cfg.block_bytes > PAGE_BYTES ? check_whole(a, gpa, bytes, e) : 0;

	if (rc < 0)
		return rc;
	pthread_rwlock_wrlock(&a->slot_lock);
	rc = more_tables(a, e);
	if (rc == 0)
		rc = ram_add_error(ram_add_backing(&a->hst.ram, (gpa_t){gpa}, bytes, s, offset,
						   a->cfg.block_bytes),
				   "source", gpa, bytes, a->cfg.block_bytes, e);
	if (rc == 0 && watch_backed(a, (gpa_t){gpa}, bytes, e) < 0) {
		rc = e->code;
		ram_remove_backing(&a->hst.ram, (gpa_t){gpa}, bytes);
	}
	if (rc == 0)
		hst_source_added(&a->hst);
	pthread_rwlock_unlock(&a->slot_lock);
	return rc;
}

static int source_add(struct apf *a, uint64_t gpa, uint64_t bytes, const char *uri,
		      uint64_t offset, uint64_t *ret_size, struct err *e)
{
	const struct src_env env = lib_src_env(a);
	struct src *s;
	int rc;

	if (a->source_count == ARRAY_LEN(a->sources))
		return err_set(e, -ENOSPC, "sources: more than %u", RAM_BACKINGS_MAX);
	rc = src_open(uri, &env, &s, e);
	if (rc < 0)
		return rc;
	/* Opening may have let go of the lock. */
	if (a->source_count == ARRAY_LEN(a->sources)) {
		src_close(s);
		return err_set(e, -ENOSPC, "sources: more than %u", RAM_BACKINGS_MAX);
	}
	rc = lib_source_place(a, gpa, bytes, s, offset, e);
	if (rc < 0) {
		src_close(s);
		return rc;
	}
	a->sources[a->source_count++] = s;
	if (ret_size)
		*ret_size = s->size;
	return 0;
}

int apf_source_add(struct apf *a, uint64_t gpa, uint64_t bytes, const char *uri, uint64_t offset,
		   uint64_t *ret_size, struct apf_error *error)
{
	struct err e = {0};
	int rc;

	lib_lock(a);
	rc = source_add(a, gpa, bytes, uri, offset, ret_size, &e);
	lib_unlock(a);
	return rc < 0 ? lib_error(error, &e) : 0;
}
