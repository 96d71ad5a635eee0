/* SPDX-License-Identifier: Apache-2.0 */
/* The residency map for the VMM. Test: tests/integration/adopt_test.c. */
#include <errno.h>

#include "lib/apf.h"

_Static_assert(APF_BLOCK_PRESENT == HST_BLOCK_THERE && APF_BLOCK_CHANGED == HST_BLOCK_CHANGED &&
		       APF_BLOCK_ZEROES == HST_BLOCK_ZEROES,
	       "the public names are the driver's");

/* Locked. A chunk, or what is left of the range in it. */
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
	int64_t n = 0;

	if ((gpa | len) % a->cfg.block_bytes != 0)
		return -EINVAL;
	lib_lock(a);
	while (len > 0) {
		n = look_at_piece(a, gpa, len, ret);
		if (n < 0)
			break;
		gpa += (uint64_t)n;
		len -= (uint64_t)n;
		ret += (uint64_t)n / a->cfg.block_bytes;
		lib_give_way(a);
	}
	lib_unlock(a);
	return n < 0 ? (int)n : 0;
}
