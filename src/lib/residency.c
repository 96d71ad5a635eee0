/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where content is, for the VMM: the residency map, what the page cache has of sources' files.
 * Tests: tests/integration/adopt_test.c, snapshot_run_test.py.
 */
#include <errno.h>
#include <string.h>

#include "lib/internal.h"
#include "source/source.h"

_Static_assert(APF_BLOCK_PRESENT == HST_BLOCK_THERE && APF_BLOCK_CHANGED == HST_BLOCK_CHANGED &&
		       APF_BLOCK_ZEROES == HST_BLOCK_ZEROES,
	       "the public names are the driver's");

/* Locked. A chunk, or what is left of the range in it; ret has room for one. */
static int64_t look_at_piece(struct apf *a, uint64_t gpa, uint64_t len, unsigned char *ret)
{
	const struct ram_region *r;
	struct err e;
	roff_t off;
	uint64_t n;
	int rc;

	if (!ram_find(&a->hst.ram, (gpa_t){gpa}, 1, &off))
		return -EFAULT;
	r = ram_region_at(&a->hst.ram, off);
	n = min_u64(len, CHUNK_BYTES - off.v % CHUNK_BYTES);
	n = min_u64(n, r->roff.v + r->bytes - off.v);
	rc = hst_residency(&a->hst, off, n, ret, &e);
	return rc < 0 ? rc : (int64_t)n;
}

int apf_residency(struct apf *a, uint64_t gpa, uint64_t len, unsigned char *ret)
{
	unsigned char piece[CHUNK_BYTES / PAGE_BYTES];
	int64_t n = 0;

	if ((gpa | len) % a->cfg.block_bytes != 0)
		return -EINVAL;
	lib_lock(a);
	while (len > 0) {
		n = look_at_piece(a, gpa, len, piece);
		if (n < 0)
			break;
		gpa += (uint64_t)n;
		len -= (uint64_t)n;
		/* The caller's may be in a view, and have to come. */
		lib_unlock(a);
		memcpy(ret, piece, (uint64_t)n / a->cfg.block_bytes);
		ret += (uint64_t)n / a->cfg.block_bytes;
		lib_lock(a);
		lib_give_way(a);
	}
	lib_unlock(a);
	return n < 0 ? (int)n : 0;
}

/* ---- the page cache ---- */

/* Locked. The first that has something at off or behind it; NULL: none. */
static const struct ram_backing *backing_from(const struct ram *r, roff_t off)
{
	for (unsigned i = 0; i < r->backing_count; i++) {
		const struct ram_backing *b = ram_backing(r, i);

		if (off.v < b->roff.v + b->bytes)
			return b;
	}
	return NULL;
}

/*
 * Locked. What a source has of the next piece, with its end, so that a chunk at most is looked at
 * before somebody else gets the lock.
 */
static int64_t cached_piece(const struct ram_backing *b, roff_t *off)
{
	uint64_t skip = max_u64(off->v, b->roff.v) - b->roff.v, end;
	uint64_t at = b->src_offset + skip;
	uint64_t len = min_u64(b->bytes - skip, CHUNK_BYTES);
	int64_t n = -ENOENT;

	if (at < b->src->size)
		n = src_cached(b->src, at, min_u64(len, b->src->size - at));
	/* Where there is no file there is none behind it. */
	end = n == -ENOENT ? b->bytes : skip + len;
	off->v = b->roff.v + end;
	return n;
}

int64_t apf_shared_bytes(struct apf *a)
{
	const struct ram_backing *b;
	int64_t sum = -ENOENT, n;
	roff_t off = {0};

	lib_lock(a);
	while ((b = backing_from(&a->hst.ram, off))) {
		n = cached_piece(b, &off);
		if (n >= 0) {
			sum = sum < 0 ? n : sum + n;
		} else if (n != -ENOENT) {
			sum = n;
			break;
		}
		lib_give_way(a);
	}
	lib_unlock(a);
	return sum;
}
