/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is to come before anybody touches it. The driver reads it (host/plan.c); here the
 * VMM's list becomes the driver's, and sources are let go of when nothing is left in them.
 * Test: tests/integration/prefetch_test.c.
 */
#include <errno.h>
#include <stdlib.h>

#include "lib/internal.h"

/* Locked. The runs of [gpa, gpa + len); runs NULL: only counts. -EFAULT: not all of it is RAM. */
static int add_runs(const struct apf *a, uint64_t gpa, uint64_t len, struct hst_run *runs,
		    size_t *count)
{
	unsigned shift = a->hcfg.block_shift;

	if (gpa + len < gpa)
		return -EFAULT;
	while (len > 0) {
		const struct ram_region *r;
		uint64_t n, first;
		roff_t off;

		if (!ram_find(&a->hst.ram, (gpa_t){gpa}, 1, &off))
			return -EFAULT;
		r = ram_region_at(&a->hst.ram, off);
		n = min_u64(len, r->roff.v + r->bytes - off.v);
		first = off.v >> shift;
		if (runs)
			runs[*count] = (struct hst_run){
				(uint32_t)first,
				(uint32_t)(((off.v + n - 1) >> shift) - first + 1)};
		(*count)++;
		gpa += n;
		len -= n;
	}
	return 0;
}

static int add_all(const struct apf *a, const struct apf_range *v, unsigned count,
		   struct hst_run *runs, size_t *ret_count)
{
	int rc = 0;

	*ret_count = 0;
	for (unsigned i = 0; rc == 0 && i < count; i++)
		rc = add_runs(a, v[i].gpa, v[i].len, runs, ret_count);
	return rc == 0 && *ret_count > UINT32_MAX ? -ENOMEM : rc;
}

int apf_prefetch(struct apf *a, const struct apf_range *v, unsigned count)
{
	struct hst_run *runs = NULL, *before = NULL;
	size_t n;
	int rc;

	if (!a->started)
		return -EINVAL;
	lib_lock(a);
	rc = add_all(a, v, count, NULL, &n);
	if (rc == 0) {
		runs = calloc(n ? n : 1, sizeof(*runs));
		rc = runs ? add_all(a, v, count, runs, &n) : -ENOMEM;
	}
	if (rc == 0) {
		before = a->plan;
		a->plan = runs;
		hst_plan(&a->hst, runs, (uint32_t)n);
	}
	lib_unlock(a);
	free(rc == 0 ? before : runs);
	return rc;
}

int apf_fill(struct apf *a)
{
	if (!a->started)
		return -EINVAL;
	lib_lock(a);
	hst_fill(&a->hst);
	lib_unlock(a);
	return 0;
}

void lib_let_go_of_sources(struct apf *a)
{
	bool gone, whole;

	pthread_rwlock_wrlock(&a->slot_lock);
	gone = hst_let_go(&a->hst, &whole);
	pthread_rwlock_unlock(&a->slot_lock);
	if (!gone)
		return;
	/* What was discarded is marked in the guest's view. */
	whole = whole && !gmem_is_refusable(a->gmem);
	for (unsigned i = 0; whole && i < a->hst.ram.region_count; i++)
		gmem_unwatch(a->gmem, ram_region(&a->hst.ram, i)->roff);
	/* Last, as it can be seen from outside: a closed source says that all of it is done. */
	lib_close_unused_sources(a);
}
