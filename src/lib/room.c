/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cgroup's limit that comes nearer while the VM runs: lowered, or used up by others. The kernel
 * kills there without asking, so that the VM is paused shortly before. Looked at as often as the
 * guest could get there by what the kernel fills by itself, and when a limit is written to.
 * A limit that is set below what is in use already cannot be forestalled: the kernel kills within
 * the system call that sets it. By the library's thread, and whoever resumes the VM; locked.
 * Test: tests/integration/cgroup_test.c.
 */
#include <errno.h>
#include <sys/stat.h>

#include "base/size.h"
#include "lib/internal.h"

/* A guest of several vCPUs does not touch new memory faster. */
#define FILL_BYTES_PER_MS (2ull << 20)
#define LOOK_MS_MIN 2u
#define LOOK_MS_MAX 250u
/* Before it is used up: what may be touched between two looks, and what else the process needs. */
#define MARGIN_MAX (32ull << 20)
#define MARGIN_SHARE 8u
/*
 * What is not guest memory grows as well: the heap, a neighbour. A VM that takes no more itself is
 * left alone until so little is left.
 */
#define FLOOR (1ull << 20)
#define LOOK_MS_FULL 20u
/*
 * A VM that was paused goes on only where so much more is left, as a share of the margin: what the
 * kernel has charged ahead for each CPU (64 pages) comes back by itself, and is soon gone again.
 */
#define AGAIN_SHARE 2u

static void look_in(struct apf *a, uint64_t ms)
{
	const struct clock *c = &a->hst.clock;

	timer_arm(&a->hst.timers, &a->room_timer, c->ops->now_ns(c->ctx) + ms * NS_PER_MS);
}

static struct apf *apf_of(struct timer *tm)
{
	return (struct apf *)((char *)tm - offsetof(struct apf, room_timer));
}

/* What the swap file takes of host memory. */
static uint64_t swap_bytes(const struct apf *a)
{
	struct stat st;

	return a->evict.in_memory && fstat(a->evict.fd, &st) == 0 ? (uint64_t)st.st_blocks * 512
								  : 0;
}

/*
 * What the guest may still make resident. Where the swap file is host memory as well, there is
 * room in there for all that the guest has.
 */
static uint64_t may_grow(const struct apf *a)
{
	uint64_t have = hst_resident_bytes(&a->hst), most = a->hst.ram.bytes;

	if (a->hst.cfg.resident_max)
		most = min_u64(most, a->hst.cfg.resident_max);
	if (a->evict.in_memory) {
		most += a->hst.ram.bytes;
		have += swap_bytes(a);
	}
	return most > have ? most - have : 0;
}

/* So near to the limit the kernel may already be where we cannot follow. */
static uint64_t margin_of(const struct apf *a, uint64_t limit)
{
	uint64_t margin = min_u64(MARGIN_MAX, limit / MARGIN_SHARE);

	/* Writes that are under way take memory before they give any back. */
	return a->evict.in_memory ? margin + HST_WRITES_MAX * HST_WRITE_BYTES_MAX : margin;
}

static void pause_for(struct apf *a, const struct room_left *left)
{
	struct hst_trouble t = {.tries = 0};

	err_set(&t.why, -ENOMEM, "%s of host memory are left of the %s that %.120s allows, and the "
		"kernel would kill the VM; raise it, or evict", SIZE_TEXT(left->bytes),
		SIZE_WORD(left->limit_bytes), left->file);
	hst_pause_for(&a->hst, &t);
	a->room_short = true;
}

/* What must be left for the VM to run. */
static uint64_t needed(const struct apf *a, uint64_t margin, uint64_t grow)
{
	uint64_t bytes = max_u64(min_u64(margin, grow), FLOOR);

	return a->room_short ? bytes + bytes / AGAIN_SHARE : bytes;
}

void lib_room_look(struct apf *a)
{
	uint64_t grow, margin, ms = LOOK_MS_MAX;
	struct room_left left;

	if (a->room.count == 0 || hst_is_stopping(&a->hst))
		return;
	grow = may_grow(a);
	room_look(&a->room, max_u64(grow, 2 * MARGIN_MAX), &left);
	if (left.bytes == LIMITS_NONE) {
		a->room_short = false;
		/* Until it is written to. */
		if (a->room.watch_fd < 0)
			look_in(a, LOOK_MS_MAX);
		return;
	}
	margin = margin_of(a, left.limit_bytes);
	if (!hst_is_paused(&a->hst)) {
		if (left.bytes < needed(a, margin, grow))
			pause_for(a, &left);
		else
			a->room_short = false;
	}
	if (left.bytes >= grow && left.bytes < MARGIN_MAX)
		ms = LOOK_MS_FULL;
	else if (left.bytes < grow && !hst_is_paused(&a->hst))
		ms = min_u64(max_u64((left.bytes - min_u64(left.bytes, margin)) / FILL_BYTES_PER_MS,
				     LOOK_MS_MIN), LOOK_MS_MAX);
	look_in(a, ms);
}

static void look_again(struct timer *tm, uint64_t now_ns)
{
	(void)now_ns;
	lib_room_look(apf_of(tm));
}

void lib_room_open(struct apf *a)
{
	a->room_timer.fire = look_again;
	room_open(&a->room, "");
	/* Without a place for the timer nobody looks, as where there is no cgroup. */
	if (a->room.count > 0 && !timers_lend(&a->hst.timers))
		room_close(&a->room);
}

void lib_room_close(struct apf *a)
{
	if (a->room.count == 0)
		return;
	timer_cancel(&a->hst.timers, &a->room_timer);
	timers_take_back(&a->hst.timers);
	room_close(&a->room);
}
