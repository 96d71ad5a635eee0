/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_copy.h. Memory is read through the library, which brings what is absent. */
#include "vmm/machine/machine_copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/zero.h"

#define PIECE_PAGES 256u
#define AHEAD_PAGES 4096u
/* A read that waits for its source looks this often whether anybody still waits for it. */
#define LOOK_NS (100 * NS_PER_MS)
/* At a time; what a guest does not notice much. */
#define STAND_NS (20 * NS_PER_MS)
#define STAND_LIMIT_MS 40u

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t words(const struct machine_copy *c)
{
	return c->pages / DIRTY_WORD_PAGES;
}

int machine_copy_open(struct machine_copy *c, struct machine *m, int fd, const atomic_bool *cancel,
		      struct err *e)
{
	*c = (struct machine_copy){
		.m = m, .fd = fd, .cancel = cancel, .pages = m->dirty.map.pages, .fresh = true};
	c->pending = calloc(words(c), sizeof(*c->pending));
	c->piece = malloc(PIECE_PAGES * PAGE_BYTES);
	if (!c->pending || !c->piece)
		return err_sys(e, -ENOMEM, "snapshot");
	if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)m->cfg.memory_bytes) < 0)
		return err_sys(e, -errno, "snapshot: size of the memory file");
	return 0;
}

void machine_copy_close(struct machine_copy *c)
{
	free(c->pending);
	free(c->piece);
	free(c->kept);
	free(c->kept_pages);
}

void machine_copy_all(struct machine_copy *c)
{
	memset(c->pending, 0xff, words(c) * sizeof(*c->pending));
}

static uint64_t count(const uint64_t *bits, uint64_t n)
{
	uint64_t found = 0;

	for (uint64_t w = 0; w < n; w++)
		found += (uint64_t)__builtin_popcountll(bits[w]);
	return found;
}

uint64_t machine_copy_count(const struct machine_copy *c)
{
	return count(c->pending, words(c));
}

/* ---- runs of pages ---- */

struct run {
	uint64_t page, pages;
};

static bool has(const uint64_t *bits, uint64_t page)
{
	return bits[page / DIRTY_WORD_PAGES] >> page % DIRTY_WORD_PAGES & 1;
}

/* The next one from *at on, which is moved behind it; it ends with its piece, so at the hole. */
static bool next_run(const struct machine_copy *c, const uint64_t *bits, uint64_t *at,
		     struct run *ret)
{
	uint64_t p = *at, end;

	while (p < c->pages && !has(bits, p))
		p += bits[p / DIRTY_WORD_PAGES] >> p % DIRTY_WORD_PAGES
			     ? 1
			     : DIRTY_WORD_PAGES - p % DIRTY_WORD_PAGES;
	if (p >= c->pages)
		return false;
	*ret = (struct run){.page = p};
	end = min_u64(c->pages, (p / PIECE_PAGES + 1) * PIECE_PAGES);
	while (p < end && has(bits, p))
		p++;
	ret->pages = p - ret->page;
	*at = p;
	return true;
}

static uint64_t gpa_of(const struct machine_copy *c, uint64_t page)
{
	uint64_t low = c->m->dirty.map.low_pages;

	return page < low ? page << PAGE_SHIFT
			  : GUEST_HIGH_GPA + ((page - low) << PAGE_SHIFT);
}

/* False: it is known to be zeroes. */
static bool holds_anything(const struct machine_copy *c, const struct run *r)
{
	uint64_t gpa = gpa_of(c, r->page), len = r->pages << PAGE_SHIFT;
	uint32_t block = c->m->cfg.apf.block_bytes;
	unsigned char map[PIECE_PAGES];
	bool holds = (gpa | len) % block != 0 || apf_residency(c->m->apf, gpa, len, map) < 0;

	for (uint64_t i = 0; !holds && i < len / block; i++)
		holds = !(map[i] & APF_BLOCK_ZEROES);
	return holds;
}

/*
 * What its source has of the next pages comes side by side, and not one after the other. A list
 * that is there already stays: it says what the guest will need.
 */
static void bring_ahead(struct machine_copy *c, const struct run *r)
{
	const struct machine_cfg *cfg = &c->m->cfg;
	uint64_t low = c->m->dirty.map.low_pages, end = r->page < low ? low : c->pages;
	struct apf_range range;

	if (!cfg->restore || cfg->prefetch_count || cfg->fill || r->page < c->ahead)
		return;
	c->ahead = min_u64(end, r->page + AHEAD_PAGES);
	range = (struct apf_range){
		.gpa = gpa_of(c, r->page), .len = (c->ahead - r->page) << PAGE_SHIFT};
	(void)apf_prefetch(c->m->apf, &range, 1);
}

/* until_ns: NS_NEVER, or -ETIME then. */
static int read_run(const struct machine_copy *c, const struct run *r, unsigned char *to,
		    uint64_t until_ns, struct err *e)
{
	uint64_t len = r->pages << PAGE_SHIFT, done = 0;

	while (done < len) {
		struct apf_range range = {gpa_of(c, r->page) + done, to + done, len - done};
		uint64_t now = now_ns(), left = until_ns > now ? until_ns - now : 0;
		struct apf_wait wait;
		int64_t n;

		if (atomic_load(c->cancel))
			return err_set(e, -ECANCELED, "snapshot: nobody waits for it any more");
		if (left == 0)
			return err_set(e, -ETIME, "snapshot: reading guest memory takes too long");
		apf_wait_init(&wait);
		wait.timeout_ns = (int64_t)min_u64(left, LOOK_NS);
		n = apf_readv(c->m->apf, &range, 1, &wait);
		if (n < 0 && n != -ETIMEDOUT)
			return err_sys(e, (int)n, "snapshot: reading guest memory");
		done += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

static int put_at(int fd, const unsigned char *p, uint64_t len, uint64_t off, struct err *e)
{
	int rc = fd_write_at(fd, p, len, off);

	return rc < 0 ? err_sys(e, rc, "snapshot: writing guest memory") : 0;
}

/* What is zero stays a hole, where the file is one. */
static int put_run(const struct machine_copy *c, const struct run *r, const unsigned char *p,
		   struct err *e)
{
	uint64_t from = 0, at, off = r->page << PAGE_SHIFT, len = r->pages << PAGE_SHIFT;
	int rc = 0;

	for (at = 0; rc == 0 && c->fresh && at < len; at += PAGE_BYTES) {
		if (!is_zero(p + at, PAGE_BYTES))
			continue;
		if (at > from)
			rc = put_at(c->fd, p + from, at - from, off + from, e);
		from = at + PAGE_BYTES;
	}
	return rc == 0 && len > from ? put_at(c->fd, p + from, len - from, off + from, e) : rc;
}

/* ---- a guest that writes faster ---- */

static void take_turns(struct machine_copy *c)
{
	uint64_t now = now_ns(), run_ns = STAND_NS * (100 - c->slow) / max_u64(c->slow, 1);
	struct err e;

	if (c->slow == 0 || now < c->turn_ns)
		return;
	if (c->stands) {
		machine_go_on(c->m);
		c->stands = false;
		c->turn_ns = now + run_ns;
	} else {
		c->stands = machine_stand(c->m, STAND_LIMIT_MS, &e) == 0;
		c->turn_ns = now_ns() + (c->stands ? STAND_NS : run_ns);
	}
}

static void end_turns(struct machine_copy *c)
{
	if (c->stands)
		machine_go_on(c->m);
	c->stands = false;
}

/* ---- writing ---- */

int machine_copy_write(struct machine_copy *c, struct err *e)
{
	struct machine_snap_told *told = &c->m->snap;
	uint64_t at = 0, left = machine_copy_count(c);
	struct run r;
	int rc = 0;

	while (rc == 0 && next_run(c, c->pending, &at, &r)) {
		uint64_t bytes = r.pages << PAGE_SHIFT;

		atomic_store(&told->left_bytes, left << PAGE_SHIFT);
		take_turns(c);
		if (atomic_load(c->cancel))
			rc = err_set(e, -ECANCELED, "snapshot: nobody waits for it any more");
		left -= r.pages;
		if (rc < 0 || (c->fresh && !holds_anything(c, &r)))
			continue;
		if (c->fresh)
			bring_ahead(c, &r);
		rc = read_run(c, &r, c->piece, NS_NEVER, e);
		if (rc == 0)
			rc = put_run(c, &r, c->piece, e);
		atomic_fetch_add(&told->written_bytes, bytes);
	}
	end_turns(c);
	if (rc < 0)
		return rc;
	atomic_store(&told->left_bytes, 0);
	memset(c->pending, 0, words(c) * sizeof(*c->pending));
	c->fresh = false;
	return 0;
}

int machine_copy_keep(struct machine_copy *c, uint64_t until_ns, struct err *e)
{
	uint64_t at = 0, kept = 0, pages = machine_copy_count(c);
	struct run r;
	int rc = 0;

	c->kept = malloc((size_t)max_u64(pages, 1) << PAGE_SHIFT);
	c->kept_pages = calloc(words(c), sizeof(*c->kept_pages));
	if (!c->kept || !c->kept_pages)
		rc = err_sys(e, -ENOMEM, "snapshot: %s that the guest has just written",
			     "memory");
	while (rc == 0 && next_run(c, c->pending, &at, &r)) {
		rc = read_run(c, &r, c->kept + (kept << PAGE_SHIFT), until_ns, e);
		kept += r.pages;
	}
	if (rc < 0) {
		free(c->kept);
		free(c->kept_pages);
		c->kept = NULL;
		c->kept_pages = NULL;
		return rc;
	}
	memcpy(c->kept_pages, c->pending, words(c) * sizeof(*c->pending));
	memset(c->pending, 0, words(c) * sizeof(*c->pending));
	return 0;
}

int machine_copy_write_kept(struct machine_copy *c, struct err *e)
{
	struct machine_snap_told *told = &c->m->snap;
	uint64_t at = 0, done = 0;
	struct run r;
	int rc = 0;

	while (rc == 0 && next_run(c, c->kept_pages, &at, &r)) {
		rc = put_run(c, &r, c->kept + (done << PAGE_SHIFT), e);
		done += r.pages;
		atomic_fetch_add(&told->written_bytes, r.pages << PAGE_SHIFT);
		if (rc == 0 && atomic_load(c->cancel))
			rc = err_set(e, -ECANCELED, "snapshot: nobody waits for it any more");
	}
	return rc;
}
