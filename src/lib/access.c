/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory for loaders and devices, control. Accesses go through the
 * residency map and the alias, never through the guest mapping.
 */
#include <errno.h>
#include <string.h>

#include "lib/apf.h"

int lib_ensure(struct apf *a, roff_t off)
{
	struct hst_waiter w = {.v = NULL};

	while (a->outside_count >= HST_OUTSIDE_MAX && !hst_is_stopping(&a->hst))
		pthread_cond_wait(&a->outside, &a->lock);
	if (hst_is_stopping(&a->hst))
		return -EINTR;
	a->outside_count++;
	/* Once more if it was taken away between its coming and our waking up. */
	while (!hst_is_stopping(&a->hst) && !hst_ensure(&a->hst, off, &w)) {
		lib_pump(a);
		while (w.fetch && !hst_is_stopping(&a->hst)) {
			/* What we set in motion needs the timer while we sleep. */
			lib_unlock(a);
			lib_lock(a);
			if (w.fetch && !hst_is_stopping(&a->hst))
				pthread_cond_wait(&a->outside, &a->lock);
		}
	}
	a->outside_count--;
	hst_forget(&w);
	if (a->outside_count == HST_OUTSIDE_MAX - 1)
		pthread_cond_broadcast(&a->outside);
	return hst_is_stopping(&a->hst) ? -EINTR : 0;
}

void lib_leave(struct apf *a)
{
	lib_unlock(a);
	/* apf_close may free everything once this is let go of: no settling any more. */
	lib_lock(a);
	if (--a->users == 0 && hst_is_stopping(&a->hst))
		pthread_cond_broadcast(&a->outside);
	pthread_mutex_unlock(&a->lock);
}

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_POPULATE, ACCESS_PIN, ACCESS_HOLD };

/* Copied without the lock at a time; so much takes a few microseconds. */
#define PIECE_BYTES (64ull << 10)
/* Blocks that are looked at under the lock before others get it, where nothing is copied. */
#define LOOKS_MAX 64u

static void copy(struct apf *a, roff_t off, unsigned char *buf, uint64_t n, enum access how)
{
	if (how == ACCESS_READ)
		memcpy(buf, a->hst.mem.alias + off.v, n);
	else
		memcpy(a->hst.mem.alias + off.v, buf, n);
}

static uint64_t to_end_of_block(const struct apf *a, roff_t off)
{
	return a->cfg.block_bytes - off.v % a->cfg.block_bytes;
}

/*
 * Locked. Holds what is there from off on, `len` bytes at most: never waits, as whoever holds
 * a block must not. Returns the bytes; release() undoes it.
 */
static uint64_t hold(struct apf *a, roff_t off, uint64_t len, enum access how)
{
	uint64_t n = 0;

	while (n < len && hst_hold(&a->hst, (roff_t){off.v + n})) {
		if (how == ACCESS_WRITE)
			hst_wrote(&a->hst, (roff_t){off.v + n},
				  min_u64(len - n, to_end_of_block(a, (roff_t){off.v + n})));
		n += to_end_of_block(a, (roff_t){off.v + n});
	}
	return min_u64(n, len);
}

static void release(struct apf *a, roff_t off, uint64_t n)
{
	for (uint64_t at = 0; at < n; at += to_end_of_block(a, (roff_t){off.v + at}))
		hst_release(&a->hst, (roff_t){off.v + at});
}

/*
 * Locked; the block of off is there. Copies a piece, and more than a page with the lock dropped:
 * that takes longer than others should wait, and the time without the lock is what they need to
 * get it. Returns the bytes.
 */
static uint64_t copy_piece(struct apf *a, roff_t off, unsigned char *buf, uint64_t len,
			   enum access how)
{
	uint64_t n = len > PAGE_BYTES ? hold(a, off, min_u64(len, PIECE_BYTES), how) : 0;

	if (n == 0) {
		/* Little, or held by very many already. */
		n = min_u64(min_u64(len, to_end_of_block(a, off)), PAGE_BYTES);
		if (how == ACCESS_WRITE)
			hst_wrote(&a->hst, off, n);
		copy(a, off, buf, n, how);
		return n;
	}
	lib_unlock(a);
	copy(a, off, buf, n, how);
	lib_lock(a);
	release(a, off, n);
	return n;
}

static int each_block(struct apf *a, uint64_t gpa, unsigned char *buf, uint64_t len,
		      enum access how)
{
	unsigned looks = 0;
	roff_t off;
	int rc = 0;

	if (!a->started)
		return -EINVAL;
	if (!lib_find(a, (gpa_t){gpa}, len, &off))
		return -EFAULT;
	lib_lock(a);
	a->users++;
	while (len > 0 && rc == 0) {
		uint64_t n = min_u64(len, to_end_of_block(a, off));

		rc = lib_ensure(a, off);
		if (rc == 0 && buf)
			n = copy_piece(a, off, buf, len, how);
		else if (rc == 0 && how == ACCESS_PIN)
			rc = hst_pin(&a->hst, off) ? 0 : -ENOSPC;
		else if (rc == 0 && how == ACCESS_HOLD)
			rc = hst_hold_long(&a->hst, off) ? 0 : -ENOSPC;
		if (buf)
			buf += n;
		else if (++looks % LOOKS_MAX == 0)
			lib_give_way(a);
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

int apf_unpin(struct apf *a, uint64_t gpa, uint64_t len)
{
	roff_t off;

	if (!lib_find(a, (gpa_t){gpa}, len, &off))
		return -EFAULT;
	lib_lock(a);
	for (uint64_t at = 0; at < len; at += to_end_of_block(a, (roff_t){off.v + at}))
		hst_unpin(&a->hst, (roff_t){off.v + at});
	lib_unlock(a);
	return 0;
}

/* Locked. The first n bytes of what was held. */
static void release_long(struct apf *a, roff_t off, uint64_t n)
{
	for (uint64_t at = 0, step; at < n; at += step) {
		roff_t here = {off.v + at};

		step = min_u64(n - at, to_end_of_block(a, here));
		hst_wrote(&a->hst, here, step);
		hst_release_long(&a->hst, here);
	}
}

int apf_hold(struct apf *a, uint64_t gpa, uint64_t len)
{
	uint64_t done = 0;
	roff_t off;
	int rc = 0;

	if (!lib_find(a, (gpa_t){gpa}, len, &off))
		return -EFAULT;
	/* Block by block, so that it is known how far it came. */
	while (rc == 0 && done < len) {
		uint64_t n = min_u64(len - done, to_end_of_block(a, (roff_t){off.v + done}));

		rc = each_block(a, gpa + done, NULL, n, ACCESS_HOLD);
		done += rc == 0 ? n : 0;
	}
	if (rc < 0 && done > 0) {
		lib_lock(a);
		release_long(a, off, done);
		lib_unlock(a);
	}
	return rc;
}

void apf_release(struct apf *a, uint64_t gpa, uint64_t len)
{
	roff_t off;

	if (!lib_find(a, (gpa_t){gpa}, len, &off))
		return;
	lib_lock(a);
	release_long(a, off, len);
	lib_unlock(a);
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
