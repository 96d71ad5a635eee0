/* SPDX-License-Identifier: Apache-2.0 */
/* See snap_plan.h. */
#include "vmm/snap/snap_plan.h"

#include <errno.h>
#include <string.h>

/* Added after each pass that gained less than a quarter. */
#define SLOWER 30u
#define SLOW_MAX 98u

const struct snap_rules snap_rules_usual = {
	.piece_pages = SNAP_PIECE_PAGES,
	.cut_pages = (16u << 20) / PAGE_BYTES,
	.cuts_max = 8,
	.passes_max = 64,
	.cut_ns = 40 * NS_PER_MS,
	.rest_ns = 10 * NS_PER_S,
	/* What a guest does not notice much. */
	.turn_ns = 20 * NS_PER_MS,
};

/* ---- maps ---- */

static uint64_t words(const struct snap_plan *p)
{
	return p->cfg.pages / SNAP_WORD_PAGES;
}

static void add(const struct snap_plan *p, uint64_t *to, const uint64_t *from)
{
	for (uint64_t w = 0; w < words(p); w++)
		to[w] |= from[w];
}

static void clear(const struct snap_plan *p, uint64_t *map)
{
	memset(map, 0, words(p) * sizeof(*map));
}

static uint64_t count(const struct snap_plan *p, const uint64_t *map)
{
	uint64_t found = 0;

	for (uint64_t w = 0; w < words(p); w++)
		for (uint64_t bits = map[w]; bits; bits &= bits - 1)
			found++;
	return found;
}

static bool has(const uint64_t *map, uint64_t page)
{
	return map[page / SNAP_WORD_PAGES] >> page % SNAP_WORD_PAGES & 1;
}

/* The next one from p->at on, within a piece. */
static bool find_run(const struct snap_plan *p, const uint64_t *map, struct snap_run *ret)
{
	uint64_t page = p->at, piece = p->cfg.rules.piece_pages, end;

	while (page < p->cfg.pages && !has(map, page))
		page += map[page / SNAP_WORD_PAGES] >> page % SNAP_WORD_PAGES
				? 1
				: SNAP_WORD_PAGES - page % SNAP_WORD_PAGES;
	if (page >= p->cfg.pages)
		return false;
	*ret = (struct snap_run){.page = page};
	end = min_u64(p->cfg.pages, (page / piece + 1) * piece);
	while (page < end && has(map, page))
		page++;
	ret->pages = page - ret->page;
	return true;
}

static void begin_runs(struct snap_plan *p, const uint64_t *map)
{
	p->at = 0;
	p->done = 0;
	p->left = count(p, map);
}

/* ---- what comes after what ---- */

static enum snap_todo fail(struct snap_plan *p, int rc)
{
	p->rc = rc;
	if (p->stands)
		return SNAP_TODO_GO;
	return p->stopped ? SNAP_TODO_RESUME : SNAP_TODO_END;
}

/* The last try is patient. */
static bool is_patient(const struct snap_plan *p)
{
	return !p->cfg.keep_running || p->cuts == p->cfg.rules.cuts_max;
}

static enum snap_todo next_copy(struct snap_plan *p, uint64_t now_ns)
{
	struct snap_run r;

	if (!find_run(p, p->cfg.pending, &r)) {
		if (p->stands)
			return SNAP_TODO_GO;
		/* Before it is looked who has written meanwhile. */
		clear(p, p->cfg.pending);
		p->fresh = false;
		return p->stopped ? SNAP_TODO_RESUME : SNAP_TODO_LOOK;
	}
	if (p->slow > 0 && !p->stopped && now_ns >= p->turn_ns)
		return p->stands ? SNAP_TODO_GO : SNAP_TODO_SLOW;
	return SNAP_TODO_COPY;
}

static enum snap_todo begin_pass(struct snap_plan *p, uint64_t now_ns)
{
	if (p->passes++ == p->cfg.rules.passes_max)
		return fail(p, -EAGAIN);
	begin_runs(p, p->cfg.pending);
	return next_copy(p, now_ns);
}

/* The rest can be kept while the guest stands still; or it is copied as well, while it runs. */
static enum snap_todo pass_over(struct snap_plan *p, uint64_t now_ns)
{
	const struct snap_rules *r = &p->cfg.rules;
	uint64_t left = count(p, p->cfg.pending), before = p->before;

	p->before = left;
	if (left <= r->cut_pages) {
		p->cuts++;
		p->until_ns = is_patient(p) ? NS_NEVER : now_ns + r->cut_ns;
		return SNAP_TODO_STOP;
	}
	/* It does not come to an end by itself. */
	if (left > before / 4 * 3)
		p->slow = (uint32_t)min_u64(p->slow + SLOWER, SLOW_MAX);
	return begin_pass(p, now_ns);
}

static enum snap_todo looked(struct snap_plan *p, uint64_t now_ns)
{
	if (p->stopped)
		return SNAP_TODO_PAGES;
	return p->passes == 0 ? begin_pass(p, now_ns) : pass_over(p, now_ns);
}

static enum snap_todo next_keep(struct snap_plan *p)
{
	struct snap_run r;

	if (find_run(p, p->cfg.pending, &r))
		return SNAP_TODO_KEEP;
	memcpy(p->cfg.kept, p->cfg.pending, words(p) * sizeof(*p->cfg.kept));
	return SNAP_TODO_RESUME;
}

static enum snap_todo next_put(struct snap_plan *p)
{
	struct snap_run r;

	return find_run(p, p->cfg.kept, &r) ? SNAP_TODO_PUT : SNAP_TODO_END;
}

/* It would have taken too long; the guest runs again, and what is pending stays so. */
static enum snap_todo cut_failed(struct snap_plan *p, int rc, uint64_t now_ns)
{
	if (is_patient(p) || (rc != -EBUSY && rc != -ETIME))
		return fail(p, rc);
	p->rc = 0;
	return begin_pass(p, now_ns);
}

static enum snap_todo resumed(struct snap_plan *p, uint64_t now_ns)
{
	p->stopped = false;
	if (p->rc < 0)
		return cut_failed(p, p->rc, now_ns);
	begin_runs(p, p->cfg.kept);
	return next_put(p);
}

/* A turn has begun, or would have. */
static enum snap_todo turned(struct snap_plan *p, bool stands, uint64_t now_ns)
{
	uint64_t ns = p->cfg.rules.turn_ns;

	p->stands = stands;
	p->turn_ns = now_ns + (stands ? ns : ns * (100 - p->slow) / max_u64(p->slow, 1));
	return p->rc < 0 ? fail(p, p->rc) : next_copy(p, now_ns);
}

static enum snap_todo after(struct snap_plan *p, int rc, uint64_t now_ns)
{
	switch (p->todo) {
	case SNAP_TODO_STOP:
		if (rc < 0)
			return cut_failed(p, rc, now_ns);
		p->stopped = true;
		return SNAP_TODO_STATE;
	case SNAP_TODO_SLOW:
		return turned(p, rc == 0, now_ns);
	case SNAP_TODO_GO:
		return turned(p, false, now_ns);
	case SNAP_TODO_RESUME:
		return resumed(p, now_ns);
	default:
		break;
	}
	if (rc < 0)
		return fail(p, rc);
	switch (p->todo) {
	case SNAP_TODO_NOTE:
		/* Without a base all is pending, so that there is nothing to look for yet. */
		return p->stopped || p->cfg.changes ? SNAP_TODO_LOOK : begin_pass(p, now_ns);
	case SNAP_TODO_STATE:
		/* Only now: KVM notes in guest memory that a vCPU does not run. */
		return p->cfg.keep_running ? SNAP_TODO_LOOK : SNAP_TODO_NOTE;
	case SNAP_TODO_LOOK:
		return looked(p, now_ns);
	case SNAP_TODO_PAGES:
		begin_runs(p, p->cfg.pending);
		return p->cfg.keep_running ? next_keep(p) : next_copy(p, now_ns);
	case SNAP_TODO_COPY:
		return next_copy(p, now_ns);
	case SNAP_TODO_KEEP:
		return next_keep(p);
	default:
		return next_put(p);
	}
}

/* ---- steps ---- */

/* Also of a look that failed: where it was noted it is forgotten. */
static void take_found(struct snap_plan *p)
{
	add(p, p->cfg.since, p->cfg.found);
	add(p, p->cfg.pending, p->cfg.found);
	clear(p, p->cfg.found);
}

static void give_run(struct snap_plan *p, const uint64_t *map, struct snap_step *ret)
{
	(void)find_run(p, map, &ret->run);
	p->at = ret->run.page + ret->run.pages;
	ret->kept = p->done;
	ret->left = p->left;
	p->done += ret->run.pages;
	p->left -= ret->run.pages;
}

static void give(struct snap_plan *p, struct snap_step *ret)
{
	const struct snap_rules *r = &p->cfg.rules;

	*ret = (struct snap_step){.todo = p->todo, .rc = p->rc, .until_ns = NS_NEVER};
	switch (p->todo) {
	case SNAP_TODO_COPY:
		ret->fresh = p->fresh;
		ret->stopped = p->stopped;
		give_run(p, p->cfg.pending, ret);
		break;
	case SNAP_TODO_KEEP:
		ret->stopped = true;
		ret->until_ns = p->until_ns;
		give_run(p, p->cfg.pending, ret);
		break;
	case SNAP_TODO_PUT:
		give_run(p, p->cfg.kept, ret);
		break;
	case SNAP_TODO_SLOW:
		ret->limit_ns = r->cut_ns;
		break;
	case SNAP_TODO_STOP:
		ret->limit_ns = is_patient(p) ? r->rest_ns : r->cut_ns;
		break;
	default:
		break;
	}
}

void snap_plan_init(struct snap_plan *p, const struct snap_plan_cfg *cfg)
{
	*p = (struct snap_plan){.cfg = *cfg, .fresh = true, .before = UINT64_MAX};
	if (cfg->changes)
		memcpy(cfg->pending, cfg->since, words(p) * sizeof(*cfg->pending));
	else
		memset(cfg->pending, 0xff, words(p) * sizeof(*cfg->pending));
}

void snap_plan_next(struct snap_plan *p, int rc, uint64_t now_ns, struct snap_step *ret)
{
	if (!p->begun)
		p->todo = p->cfg.keep_running ? SNAP_TODO_NOTE : SNAP_TODO_STOP;
	else {
		if (p->todo == SNAP_TODO_LOOK)
			take_found(p);
		p->todo = after(p, rc, now_ns);
	}
	p->begun = true;
	give(p, ret);
}

void snap_plan_made(struct snap_plan *p)
{
	clear(p, p->cfg.since);
}
