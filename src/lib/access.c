/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory for loaders and devices, control. Accesses go through the
 * residency map and the alias, never through the guest mapping.
 */
#include <errno.h>
#include <string.h>

#include "lib/apf.h"

/* Waits until the block of off is there. Locked; drops the lock while waiting. */
static int ensure(struct apf *a, roff_t off)
{
	struct hst_waiter w = {.v = NULL};

	while (a->outside_count >= HST_OUTSIDE_MAX && !a->hst.stopping)
		pthread_cond_wait(&a->outside, &a->lock);
	if (a->hst.stopping)
		return -EINTR;
	a->outside_count++;
	/* Once more if it was taken away between its coming and our waking up. */
	while (!a->hst.stopping && !hst_ensure(&a->hst, off, &w)) {
		lib_settle(a);
		while (w.fetch && !a->hst.stopping) {
			/* What we set in motion needs the timer while we sleep. */
			lib_unlock(a);
			lib_lock(a);
			if (w.fetch && !a->hst.stopping)
				pthread_cond_wait(&a->outside, &a->lock);
		}
	}
	a->outside_count--;
	hst_forget(&w);
	if (a->outside_count == HST_OUTSIDE_MAX - 1)
		pthread_cond_broadcast(&a->outside);
	return a->hst.stopping ? -EINTR : 0;
}

void lib_leave(struct apf *a)
{
	lib_unlock(a);
	/* apf_close may free everything once this is let go of: no settling any more. */
	lib_lock(a);
	if (--a->users == 0 && a->hst.stopping)
		pthread_cond_broadcast(&a->outside);
	pthread_mutex_unlock(&a->lock);
}

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_POPULATE, ACCESS_PIN };

static int each_block(struct apf *a, uint64_t gpa, unsigned char *buf, uint64_t len,
		      enum access how)
{
	uint64_t block = a->cfg.block_bytes;
	roff_t off;
	int rc = 0;

	if (!a->started)
		return -EINVAL;
	if (!ram_find(&a->hst.ram, (gpa_t){gpa}, len, &off))
		return -EFAULT;
	lib_lock(a);
	a->users++;
	while (len > 0 && rc == 0) {
		uint64_t n = min_u64(len, block - off.v % block);

		rc = ensure(a, off);
		if (rc == 0 && how == ACCESS_READ)
			memcpy(buf, a->hst.mem.alias + off.v, n);
		else if (rc == 0 && how == ACCESS_WRITE) {
			hst_wrote(&a->hst, off);
			memcpy(a->hst.mem.alias + off.v, buf, n);
		} else if (rc == 0 && how == ACCESS_PIN) {
			rc = hst_pin(&a->hst, off) ? 0 : -ENOSPC;
		}
		if (buf)
			buf += n;
		off.v += n;
		len -= n;
	}
	lib_leave(a);
	return rc;
}

int apf_read(struct apf *a, uint64_t gpa, void *buf, size_t len)
{
	return each_block(a, gpa, buf, len, ACCESS_READ);
}

int apf_write(struct apf *a, uint64_t gpa, const void *buf, size_t len)
{
	/* each_block only reads from it when writing. */
	return each_block(a, gpa, (unsigned char *)(uintptr_t)buf, len, ACCESS_WRITE);
}

int apf_populate(struct apf *a, uint64_t gpa, uint64_t len)
{
	return each_block(a, gpa, NULL, len, ACCESS_POPULATE);
}

int apf_pin(struct apf *a, uint64_t gpa, uint64_t len)
{
	return each_block(a, gpa, NULL, len, ACCESS_PIN);
}

/* ---- control ---- */

void apf_pause(struct apf *a)
{
	lib_lock(a);
	hst_pause(&a->hst);
	lib_unlock(a);
}

void apf_resume(struct apf *a)
{
	lib_lock(a);
	hst_resume(&a->hst);
	lib_unlock(a);
}

int apf_is_paused(struct apf *a)
{
	int paused;

	lib_lock(a);
	paused = hst_is_paused(&a->hst);
	lib_unlock(a);
	return paused;
}

int apf_trouble_get(struct apf *a, struct apf_error *e)
{
	struct apf_error t;

	lib_lock(a);
	t = a->trouble;
	lib_unlock(a);
	if (e && t.code != 0)
		*e = t;
	return t.code;
}
