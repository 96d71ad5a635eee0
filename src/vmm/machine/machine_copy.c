/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_copy.h. Memory is read through the library, which brings what is absent. */
#include "vmm/machine/machine_copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "base/zero.h"

#define AHEAD_PAGES 4096u
/* A read that waits for its source looks this often whether anybody still waits for it. */
#define LOOK_NS (100 * NS_PER_MS)

int machine_copy_open(struct machine_copy *c, struct machine *m, int fd, const atomic_bool *cancel,
		      struct err *e)
{
	*c = (struct machine_copy){.m = m, .fd = fd, .cancel = cancel};
	c->piece = malloc(SNAP_PIECE_PAGES * PAGE_BYTES);
	if (!c->piece)
		return err_sys(e, -ENOMEM, "snapshot");
	if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)m->cfg.memory_bytes) < 0)
		return err_sys(e, -errno, "snapshot: size of the memory file");
	return 0;
}

void machine_copy_close(struct machine_copy *c)
{
	free(c->piece);
	free(c->kept);
}

gpa_t machine_copy_gpa(const struct machine_copy *c, uint64_t page)
{
	uint64_t low = c->m->dirty.map.low_pages;

	return (gpa_t){page < low ? page << PAGE_SHIFT
				  : GUEST_HIGH_GPA + ((page - low) << PAGE_SHIFT)};
}

/* False: it is known to be zeroes. */
static bool holds_anything(const struct machine_copy *c, const struct snap_run *r)
{
	uint64_t gpa = machine_copy_gpa(c, r->page).v, len = r->pages << PAGE_SHIFT;
	uint32_t block = c->m->cfg.apf.block_bytes;
	unsigned char map[SNAP_PIECE_PAGES];
	bool holds = (gpa | len) % block != 0 || apf_residency(c->m->apf, gpa, len, map) < 0;

	for (uint64_t i = 0; !holds && i < len / block; i++)
		holds = !(map[i] & APF_BLOCK_ZEROES);
	return holds;
}

/*
 * What its source has of the next pages comes side by side, and not one after the other. A list
 * that is there already stays: it says what the guest will need.
 */
static void bring_ahead(struct machine_copy *c, const struct snap_run *r)
{
	const struct machine_cfg *cfg = &c->m->cfg;
	uint64_t low = c->m->dirty.map.low_pages, end = r->page < low ? low : c->m->dirty.map.pages;
	struct apf_range range;

	if (!cfg->restore || cfg->prefetch_count || cfg->fill || r->page < c->ahead)
		return;
	c->ahead = min_u64(end, r->page + AHEAD_PAGES);
	range = (struct apf_range){
		.gpa = machine_copy_gpa(c, r->page).v, .len = (c->ahead - r->page) << PAGE_SHIFT};
	(void)apf_prefetch(c->m->apf, &range, 1);
}

static int is_cancelled(const struct machine_copy *c, struct err *e)
{
	if (!atomic_load(c->cancel))
		return 0;
	return err_set(e, -ECANCELED, "snapshot: nobody waits for it any more");
}

/*
 * What fails while all stands still is tried again when the VM is resumed, which it is not before
 * we are done.
 */
static int is_stuck(const struct machine_copy *c, struct err *e)
{
	struct apf_error why;

	if (apf_trouble_get(c->m->apf, &why) == 0)
		return 0;
	return err_set(e, -EBUSY, "snapshot: memory cannot be read: %.150s; mend that and try "
		       "again", why.text);
}

static int read_run(const struct machine_copy *c, const struct snap_step *s, unsigned char *to,
		    struct err *e)
{
	uint64_t from = machine_copy_gpa(c, s->run.page).v;
	uint64_t len = s->run.pages << PAGE_SHIFT, done = 0;

	while (done < len) {
		struct apf_range range = {from + done, to + done, len - done};
		uint64_t now = monotonic_ns(), left = s->until_ns > now ? s->until_ns - now : 0;
		struct apf_wait wait;
		int64_t n;
		int rc = is_cancelled(c, e);

		if (rc < 0)
			return rc;
		if (left == 0)
			return err_set(e, -ETIME, "snapshot: reading guest memory takes too long");
		apf_wait_init(&wait);
		wait.timeout_ns = (int64_t)min_u64(left, LOOK_NS);
		n = apf_readv(c->m->apf, &range, 1, &wait);
		if (n < 0 && n != -ETIMEDOUT)
			return err_sys(e, (int)n, "snapshot: reading guest memory");
		done += n > 0 ? (uint64_t)n : 0;
		rc = s->stopped && n <= 0 ? is_stuck(c, e) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int put_at(int fd, const unsigned char *p, uint64_t len, uint64_t off, struct err *e)
{
	int rc = fd_write_at(fd, p, len, off);

	return rc < 0 ? err_sys(e, rc, "snapshot: writing guest memory") : 0;
}

/* fresh: the file is a hole there, and what is zero stays one. */
static int put_run(const struct machine_copy *c, const struct snap_run *r, const unsigned char *p,
		   bool fresh, struct err *e)
{
	uint64_t from = 0, at, off = r->page << PAGE_SHIFT, len = r->pages << PAGE_SHIFT;
	int rc = 0;

	for (at = 0; rc == 0 && fresh && at < len; at += PAGE_BYTES) {
		if (!is_zero(p + at, PAGE_BYTES))
			continue;
		if (at > from)
			rc = put_at(c->fd, p + from, at - from, off + from, e);
		from = at + PAGE_BYTES;
	}
	return rc == 0 && len > from ? put_at(c->fd, p + from, len - from, off + from, e) : rc;
}

static void count_written(const struct machine_copy *c, const struct snap_run *r)
{
	atomic_fetch_add(&c->m->snap.written_bytes, r->pages << PAGE_SHIFT);
}

/* ---- steps ---- */

int machine_copy_run(struct machine_copy *c, const struct snap_step *s, struct err *e)
{
	int rc = is_cancelled(c, e);

	atomic_store(&c->m->snap.left_bytes, s->left << PAGE_SHIFT);
	if (rc < 0 || (s->fresh && !holds_anything(c, &s->run)))
		return rc;
	if (s->fresh)
		bring_ahead(c, &s->run);
	rc = read_run(c, s, c->piece, e);
	if (rc == 0)
		rc = put_run(c, &s->run, c->piece, s->fresh, e);
	count_written(c, &s->run);
	return rc;
}

int machine_copy_keep(struct machine_copy *c, const struct snap_step *s, struct err *e)
{
	if (s->kept == 0) {
		free(c->kept);
		c->kept = malloc((size_t)s->left << PAGE_SHIFT);
		if (!c->kept)
			return err_sys(e, -ENOMEM, "snapshot: %s that the guest has just written",
				       "memory");
	}
	return read_run(c, s, c->kept + (s->kept << PAGE_SHIFT), e);
}

int machine_copy_put(struct machine_copy *c, const struct snap_step *s, struct err *e)
{
	int rc = put_run(c, &s->run, c->kept + (s->kept << PAGE_SHIFT), false, e);

	count_written(c, &s->run);
	return rc == 0 ? is_cancelled(c, e) : rc;
}
