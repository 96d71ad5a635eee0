/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory for loaders and devices, control. Accesses go through the
 * residency map and the alias, never through the guest mapping.
 */
#include <errno.h>
#include <time.h>

#include "base/time.h"
#include "lib/internal.h"
#include "lib/guard.h"

/* How long a call may wait. */
struct patience {
	uint64_t until_ns;   /* NS_NEVER: no limit */
	struct apf_vcpu *v;  /* a kick of it ends the wait, too; NULL */
	bool served;         /* only while it is served: not until a paused VM goes on */
};

static const struct patience endless = {.until_ns = NS_NEVER};
/* Of who cannot be left waiting for somebody to resume the VM: it may be his to do. */
static const struct patience while_served = {.until_ns = NS_NEVER, .served = true};

/* 0; or why the block of off is not to be waited for any longer. */
static int is_over(struct apf *a, roff_t off, const struct patience *p)
{
	if (hst_is_stopping(&a->hst) || (p->v && hst_vcpu_is_called_back(p->v->hv)))
		return -EINTR;
	if (p->served && hst_is_stuck(&a->hst, off))
		return -EBUSY;
	return p->until_ns != NS_NEVER && hst_now_ns(&a->hst) >= p->until_ns ? -ETIMEDOUT : 0;
}

/* Locked; drops the lock while waiting, until until_ns at most. */
static void wait_outside(struct apf *a, uint64_t until_ns)
{
	struct timespec until = timespec_of_ns(until_ns);

	if (until_ns == NS_NEVER)
		pthread_cond_wait(&a->outside, &a->lock);
	else
		(void)pthread_cond_timedwait(&a->outside, &a->lock, &until);
}

/* Nobody tells when a fetch is free again. */
#define ROOM_LOOK_NS NS_PER_MS

/*
 * Locked. Until the block may be asked for. A fetch goes on without whoever gave up waiting for it:
 * many of those must leave some for the rest.
 */
static int wait_for_room(struct apf *a, roff_t off, const struct patience *p)
{
	int rc = 0;

	while (rc == 0 && !hst_ensure_room(&a->hst, off)) {
		rc = is_over(a, off, p);
		if (rc == 0)
			wait_outside(a, min_u64(p->until_ns, hst_now_ns(&a->hst) + ROOM_LOOK_NS));
	}
	return rc;
}

/* Locked. Its part may have left while nobody held the lock, and another have come. */
static bool is_at(const struct apf *a, gpa_t gpa, roff_t off)
{
	roff_t now;

	return ram_find(&a->hst.ram, gpa, 1, &now) && now.v == off.v;
}

/* Locked; lets go of the lock meanwhile. The block of off, where gpa is, is there: 0. */
static int ensure(struct apf *a, gpa_t gpa, roff_t off, const struct patience *p)
{
	struct hst_waiter w = {.v = NULL};
	int rc = hst_is_stopping(&a->hst) ? -EINTR : 0;

	if (rc == 0 && !is_at(a, gpa, off))
		return -EFAULT;
	if (rc == 0 && hst_is_there(&a->hst, off))
		return 0;
	while (rc == 0 && a->outside_count >= HST_OUTSIDE_MAX) {
		rc = is_over(a, off, p);
		if (rc == 0)
			wait_outside(a, p->until_ns);
	}
	if (rc < 0)
		return rc;
	a->outside_count++;
	if (p->v || p->until_ns != NS_NEVER || p->served)
		rc = wait_for_room(a, off, p);
	if (rc == 0 && !is_at(a, gpa, off))
		rc = -EFAULT;
	/* Once more if it was taken away between its coming and our waking up. */
	while (rc == 0 && !hst_ensure(&a->hst, off, &w)) {
		lib_pump(a);
		while (w.fetch && rc == 0) {
			/* What we set in motion needs the timer while we sleep. */
			lib_unlock(a);
			lib_lock(a);
			rc = is_over(a, off, p);
			if (w.fetch && rc == 0)
				wait_outside(a, p->until_ns);
		}
		if (rc == 0 && !is_at(a, gpa, off))
			rc = -EFAULT;
	}
	a->outside_count--;
	hst_forget(&w);
	if (a->outside_count == HST_OUTSIDE_MAX - 1)
		pthread_cond_broadcast(&a->outside);
	return hst_is_stopping(&a->hst) ? -EINTR : rc;
}

int lib_ensure(struct apf *a, gpa_t gpa, roff_t off)
{
	return ensure(a, gpa, off, &while_served);
}

void lib_leave(struct apf *a)
{
	lib_unlock(a);
	/* apf_close may free everything once this is let go of: no settling any more. */
	lib_lock(a);
	if (--a->users == 0 && hst_is_stopping(&a->hst))
		pthread_cond_broadcast(&a->outside);
	lib_release(a);
}

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_POPULATE, ACCESS_PIN, ACCESS_HOLD };

/* Copied without the lock at a time; so much takes a few microseconds. */
#define PIECE_BYTES (64ull << 10)
/* Blocks that are looked at under the lock before others get it, where nothing is copied. */
#define LOOKS_MAX 64u

/* Returns the bytes, up to a page that the host has lost; if there are none: why. */
static int64_t copy(struct apf *a, roff_t off, unsigned char *buf, uint64_t n, enum access how)
{
	unsigned char *guest = a->hst.mem.alias + off.v;
	/* Once there is one, also for a VMM without a handler that could tell of the next. */
	uint64_t whole = gmem_whole(a->gmem, off, n);
	size_t done;
	int rc;

	if (whole == 0)
		return -EHWPOISON;
	rc = how == ACCESS_READ ? guard_copy(buf, guest, whole, guest, &done)
				: guard_copy(guest, buf, whole, guest, &done);
	return done > 0 ? (int64_t)done : rc;
}

static uint64_t to_end_of_block(const struct apf *a, roff_t off)
{
	return a->cfg.block_bytes - off.v % a->cfg.block_bytes;
}

/*
 * Locked. Holds what is there from off on, `len` bytes at most: never waits, as whoever holds
 * a block must not. Returns the bytes; release() undoes it.
 */
static uint64_t hold(struct apf *a, roff_t off, uint64_t len)
{
	uint64_t n = 0;

	while (n < len && hst_hold(&a->hst, (roff_t){off.v + n}))
		n += to_end_of_block(a, (roff_t){off.v + n});
	return min_u64(n, len);
}

static void release(struct apf *a, roff_t off, uint64_t n)
{
	for (uint64_t at = 0; at < n; at += to_end_of_block(a, (roff_t){off.v + at}))
		hst_release(&a->hst, (roff_t){off.v + at});
}

/* Locked. Of several blocks. */
static void wrote(struct apf *a, roff_t off, uint64_t len)
{
	for (uint64_t at = 0, n; at < len; at += n) {
		n = min_u64(len - at, to_end_of_block(a, (roff_t){off.v + at}));
		hst_wrote(&a->hst, (roff_t){off.v + at}, n);
	}
}

/*
 * Locked; the block of off is there. Copies a piece, and more than a page with the lock dropped:
 * that takes longer than others should wait, and the time without the lock is what they need to
 * get it. Returns the bytes; or why not one could be copied.
 */
static int64_t copy_piece(struct apf *a, roff_t off, unsigned char *buf, uint64_t len,
			  enum access how)
{
	uint64_t held = len > PAGE_BYTES ? hold(a, off, min_u64(len, PIECE_BYTES)) : 0;
	int64_t n;

	if (held == 0) {
		/* Little, or held by very many already. */
		len = min_u64(min_u64(len, to_end_of_block(a, off)), PAGE_BYTES);
		n = copy(a, off, buf, len, how);
	} else {
		lib_unlock(a);
		n = copy(a, off, buf, held, how);
		lib_lock(a);
	}
	if (n > 0 && how == ACCESS_WRITE)
		wrote(a, off, (uint64_t)n);
	release(a, off, held);
	return n;
}

/* What an access does with one range of guest memory. */
struct access_job {
	uint64_t gpa;
	unsigned char *buf; /* NULL where nothing is copied */
	uint64_t len;
	enum access how;
	uint64_t done; /* bytes of it */
};

/* Locked. The block of off is there: as many bytes of the job as go at once, or -Exxx. */
static int64_t do_piece(struct apf *a, roff_t off, const struct access_job *j, uint64_t len)
{
	if (j->buf)
		return copy_piece(a, off, j->buf + j->done, len, j->how);
	if ((j->how == ACCESS_PIN && !hst_pin(&a->hst, off)) ||
	    (j->how == ACCESS_HOLD && !hst_hold_long(&a->hst, off)))
		return -ENOSPC;
	return (int64_t)min_u64(len, to_end_of_block(a, off));
}

/* Locked. All of it within one part, from off on, where gpa is. */
static int do_part(struct apf *a, roff_t off, struct access_job *j, uint64_t len,
		   const struct patience *p)
{
	unsigned looks = 0;

	while (len > 0) {
		int64_t n = ensure(a, (gpa_t){j->gpa + j->done}, off, p);

		if (n == 0)
			n = do_piece(a, off, j, len);
		if (n < 0)
			return (int)n;
		if (!j->buf && ++looks % LOOKS_MAX == 0)
			lib_give_way(a);
		j->done += (uint64_t)n;
		off.v += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* Locked. How much from there on is RAM of one part; 0: none. */
static uint64_t part_bytes(const struct apf *a, uint64_t gpa, uint64_t len, roff_t *ret_off)
{
	const struct ram_region *r;

	if (!ram_find(&a->hst.ram, (gpa_t){gpa}, 1, ret_off))
		return 0;
	r = ram_region_at(&a->hst.ram, *ret_off);
	return min_u64(len, r->roff.v + r->bytes - ret_off->v);
}

/* Locked. */
static bool is_ram(const struct apf *a, uint64_t gpa, uint64_t len)
{
	roff_t off;

	if (gpa + len < gpa)
		return false;
	for (uint64_t n; len > 0; gpa += n, len -= n) {
		n = part_bytes(a, gpa, len, &off);
		if (n == 0)
			return false;
	}
	return true;
}

/* Locked; not while it touches the view, as a device would: `to` or `from`. */
static int copy_view(struct apf *a, void *to, const void *from, size_t n, const void *view)
{
	size_t done;
	int rc;

	lib_unlock(a);
	rc = guard_copy(to, from, n, view, &done);
	lib_lock(a);
	return rc < 0 && hst_is_stopping(&a->hst) ? -EINTR : rc;
}

/*
 * Locked. The same as do_part where the job's own buffer is in a view, and may have to come as
 * well: who waits for that has neither the lock nor a hold.
 */
static int do_part_by_view(struct apf *a, roff_t off, struct access_job *j, uint64_t len,
			   const struct patience *p)
{
	_Alignas(8) unsigned char between[PAGE_BYTES];
	int rc = 0;

	for (uint64_t n; rc == 0 && len > 0; len -= n, off.v += n) {
		uint64_t gpa = j->gpa + j->done;
		unsigned char *buf = j->buf + j->done;
		struct access_job piece = {gpa, between, 0, j->how, 0};

		n = min_u64(len, PAGE_BYTES - gpa % PAGE_BYTES);
		if (j->how == ACCESS_WRITE)
			rc = copy_view(a, between, buf, n, buf);
		if (rc == 0)
			rc = do_part(a, off, &piece, n, p);
		if (rc == 0 && j->how == ACCESS_READ)
			rc = copy_view(a, buf, between, n, buf);
		j->done += rc == 0 ? n : 0;
	}
	return rc;
}

/* Locked. Nothing is done if not all of it is RAM. */
static int do_job(struct apf *a, struct access_job *j, const struct patience *p)
{
	bool nowhere = !j->buf && j->len > 0 && (j->how == ACCESS_READ || j->how == ACCESS_WRITE);
	bool by_view = j->buf && gmem_is_view(a->gmem, j->buf, j->len);
	int rc = is_ram(a, j->gpa, j->len) && !nowhere ? 0 : -EFAULT;

	while (rc == 0 && j->done < j->len) {
		roff_t off;
		uint64_t n = part_bytes(a, j->gpa + j->done, j->len - j->done, &off);

		if (n == 0)
			return -EFAULT;
		rc = by_view ? do_part_by_view(a, off, j, n, p) : do_part(a, off, j, n, p);
	}
	return rc;
}

/* Locked. */
static void undo(struct apf *a, uint64_t gpa, uint64_t len, enum access how)
{
	for (uint64_t done = 0, n; done < len; done += n) {
		roff_t off;

		n = part_bytes(a, gpa + done, len - done, &off);
		if (n == 0)
			break;
		n = min_u64(n, to_end_of_block(a, off));
		if (how == ACCESS_PIN)
			hst_unpin(&a->hst, off);
		else
			hst_release_long(&a->hst, off, n);
	}
}

static int access_all(struct apf *a, struct access_job *j, const struct patience *p)
{
	int rc;

	if (!a->started)
		return -EINVAL;
	lib_lock(a);
	a->users++;
	rc = do_job(a, j, p);
	/* Before lib_leave, behind which there may be no VM any more. */
	if (rc < 0 && j->how == ACCESS_HOLD)
		undo(a, j->gpa, j->done, ACCESS_HOLD);
	lib_leave(a);
	return rc;
}

int apf_read(struct apf *a, uint64_t gpa, void *buf, size_t len)
{
	struct access_job j = {gpa, buf, len, ACCESS_READ, 0};

	return access_all(a, &j, &endless);
}

static int write_all(struct apf *a, uint64_t gpa, const void *buf, size_t len,
		     const struct patience *p)
{
	/* Only read from when writing. */
	struct access_job j = {gpa, (unsigned char *)(uintptr_t)buf, len, ACCESS_WRITE, 0};

	return access_all(a, &j, p);
}

int apf_write(struct apf *a, uint64_t gpa, const void *buf, size_t len)
{
	return write_all(a, gpa, buf, len, &endless);
}

int lib_write(struct apf *a, uint64_t gpa, const void *buf, uint64_t len)
{
	return write_all(a, gpa, buf, len, &while_served);
}

static int read_wait(const struct apf_wait *wait, struct apf_wait *ret)
{
	static const struct lib_struct type = {
		"apf_wait", offsetof(struct apf_wait, vcpu) + sizeof(wait->vcpu), sizeof(*ret)};
	struct err e;

	apf_wait_init(ret);
	return wait ? lib_struct_read(&type, wait, ret, &e) : 0;
}

static int64_t access_vector(struct apf *a, const struct apf_range *v, unsigned count,
			     const struct apf_wait *wait, enum access how)
{
	struct patience p = endless;
	struct apf_wait w;
	int64_t done = 0;
	int rc = 0;

	if (!a->started || read_wait(wait, &w) < 0)
		return -EINVAL;
	lib_lock(a);
	a->users++;
	p.v = w.vcpu;
	if (w.timeout_ns >= 0)
		p.until_ns = hst_now_ns(&a->hst) + (uint64_t)w.timeout_ns;
	for (unsigned i = 0; rc == 0 && i < count; i++) {
		struct access_job j = {v[i].gpa, v[i].buf, v[i].len, how, 0};

		rc = do_job(a, &j, &p);
		done += (int64_t)j.done;
	}
	lib_leave(a);
	return done > 0 ? done : rc;
}

int64_t apf_readv(struct apf *a, const struct apf_range *v, unsigned count,
		  const struct apf_wait *wait)
{
	return access_vector(a, v, count, wait, ACCESS_READ);
}

int64_t apf_writev(struct apf *a, const struct apf_range *v, unsigned count,
		   const struct apf_wait *wait)
{
	return access_vector(a, v, count, wait, ACCESS_WRITE);
}

int apf_populate(struct apf *a, uint64_t gpa, uint64_t len)
{
	struct access_job j = {gpa, NULL, len, ACCESS_POPULATE, 0};

	return access_all(a, &j, &endless);
}

int apf_pin(struct apf *a, uint64_t gpa, uint64_t len)
{
	struct access_job j = {gpa, NULL, len, ACCESS_PIN, 0};

	return access_all(a, &j, &while_served);
}

int apf_unpin(struct apf *a, uint64_t gpa, uint64_t len)
{
	int rc = 0;

	lib_lock(a);
	if (is_ram(a, gpa, len))
		undo(a, gpa, len, ACCESS_PIN);
	else
		rc = -EFAULT;
	lib_unlock(a);
	return rc;
}

int apf_hold(struct apf *a, uint64_t gpa, uint64_t len)
{
	struct access_job j = {gpa, NULL, len, ACCESS_HOLD, 0};

	return access_all(a, &j, &while_served);
}

void apf_release(struct apf *a, uint64_t gpa, uint64_t len)
{
	lib_lock(a);
	undo(a, gpa, len, ACCESS_HOLD);
	lib_unlock(a);
}

int apf_sigbus(const void *info, void *context)
{
	return guard_is_ours(info, context);
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
	/* Before the guest can take what is not there. */
	if (a->started)
		lib_room_look(a);
	lib_unlock(a);
}

int apf_is_paused(struct apf *a)
{
	int paused;

	lib_lock(a);
	paused = hst_is_paused(&a->hst);
	/* Not lib_unlock(): who only asks, a device under a sandbox, serves nobody's faults. */
	lib_release(a);
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
