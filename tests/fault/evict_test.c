/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One story of memory that is taken away and comes back, under a limit, touched by a device and by
 * a thread of the VMM's in its own view, and given back by a balloon, told with call number
 * 1, 2, 3, … of a kind failing, once alone and once with all later ones, until none is left
 * that could fail. While calls fail the VM is resumed now and then, so that what repairs fails,
 * too. Then all is well again, and everything that was written must be there; or it is stopped
 * in the middle, and nothing is left in flight.
 */
#include <stdio.h>

#include "host_swap_fixture.h"

#define PAGES 72u
#define LIMIT 50u
#define ROUNDS 400u

enum kind {
	PRESENT,
	POISON,
	UNMAP,
	COLLECT,
	DROP,
	WATCH,
	RESIDENT,
	READ_FAILS,
	READ_HANGS,
	WRITE_FAILS,
	WRITE_SHORT,
	WRITE_NOTHING,
	WRITE_HANGS,
	KINDS
};

static const char *const kind_names[KINDS] = {
	"present", "poison", "unmap", "collect", "drop", "watch", "resident", "read fails",
	"read hangs", "write fails", "write short", "write nothing", "write hangs"};

struct story {
	struct rig *x;
	enum kind kind;
	unsigned at; /* this call fails; 0: none */
	bool on;     /* and all later ones */
	unsigned calls, failed;
	unsigned next;		/* page of the story that is due */
	struct hst_waiter w;	/* the device that tells it */
	unsigned vmm_next;	/* touch of the VMM's that is due */
	unsigned discards;	/* done so far */
	struct hst_discard discard; /* under way: end > 0 */
	struct hst_waiter balloon;
	bool paused_once;
};

static bool fails(struct story *s, enum kind kind)
{
	if (kind != s->kind)
		return false;
	s->calls++;
	if (s->at == 0 || s->calls < s->at || (s->calls > s->at && !s->on))
		return false;
	s->failed++;
	return true;
}

/* ---- the tables, with our hand in between ---- */

static struct story *story_of(void *ctx)
{
	return ((struct rig *)ctx)->user;
}

static int result(void *ctx, enum kind kind, struct err *e)
{
	return fails(story_of(ctx), kind) ? err_set(e, -ENOMEM, "%s fails", kind_names[kind]) : 0;
}

static int story_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch,
			 struct err *e)
{
	return result(ctx, PRESENT, e) < 0 ? -ENOMEM :
		rig_swap_present(ctx, off, len, views, watch, e);
}

static int story_poison(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	return result(ctx, POISON, e) < 0 ? -ENOMEM : rig_poison(ctx, off, len, e);
}

/* Fails in the middle. */
static int story_unmap(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	rig_swap(ctx)->fail[RIG_TAKE_UNMAP] = fails(story_of(ctx), UNMAP);
	return rig_unmap(ctx, off, len, e);
}

static int story_collect(void *ctx, roff_t off, uint64_t len, mem_pages written,
			 mem_pages vmm, struct err *e)
{
	rig_swap(ctx)->fail[RIG_TAKE_COLLECT] = fails(story_of(ctx), COLLECT);
	return rig_collect(ctx, off, len, written, vmm, e);
}

static int story_drop(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	rig_swap(ctx)->fail[RIG_TAKE_DROP] = fails(story_of(ctx), DROP);
	return rig_drop(ctx, off, len, e);
}

static int story_watch(void *ctx, struct err *e)
{
	return result(ctx, WATCH, e) < 0 ? -ENOMEM : rig_watch_all(ctx, e);
}

static int story_resident(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e)
{
	return result(ctx, RESIDENT, e) < 0 ? -ENOMEM : rig_resident(ctx, off, len, ret, e);
}

static void story_read(struct src *src, struct src_read *rd)
{
	struct rig_src *f = CONTAINER_OF(src, struct rig_src, src);

	f->answers = fails(f->x->user, READ_FAILS)   ? RIG_FAILS_AT_ONCE
		     : fails(f->x->user, READ_HANGS) ? RIG_LATER
						     : RIG_AT_ONCE;
	rig_src_read(src, rd);
}

static struct rig *open_story(struct story *s, enum hst_faults faults)
{
	static const struct src_ops src_ops = {
		.name = "story", .read = story_read, .cancel = rig_src_cancel};
	static struct mem_ops mem_ops;
	struct hst_cfg cfg = rig_cfg(faults, APF_REV_OFF);
	struct rig *x;

	cfg.retries_max = 1;
	cfg.queue_depth = 4;
	cfg.source_timeout_ns = 50 * NS_PER_MS;
	x = rig_swap_open(&cfg, PAGES, false, LIMIT);
	mem_ops = *x->h.mem.ops;
	mem_ops.present = story_present;
	mem_ops.poison = story_poison;
	mem_ops.unmap = story_unmap;
	mem_ops.collect = story_collect;
	mem_ops.drop = story_drop;
	mem_ops.watch_all = story_watch;
	mem_ops.resident = story_resident;
	x->h.mem.ops = &mem_ops;
	rig_swap(x)->src.src.ops = &src_ops;
	rig_swap(x)->half = 3;
	rig_swap(x)->later = true;
	x->user = s;
	s->x = x;
	return x;
}

/* ---- the story ---- */

/* The swap file's turn: the oldest write ends, or something happens to it. */
static void end_a_write(struct story *s)
{
	struct rig_swap *f = rig_swap(s->x);
	int len;

	if (f->count == 0)
		return;
	len = (int)f->writes[0].len;
	if (f->writes[0].cancelled)
		rig_write_end(s->x, 0, -ECANCELED);
	else if (fails(s, WRITE_FAILS))
		rig_write_end(s->x, 0, -EIO);
	else if (fails(s, WRITE_SHORT))
		rig_write_end(s->x, 0, (len + 1) / 2);
	else if (fails(s, WRITE_NOTHING))
		rig_write_end(s->x, 0, 0);
	else if (fails(s, WRITE_HANGS))
		rig_after(s->x, 60 * NS_PER_MS);
	else
		rig_write_ok(s->x, 0);
}

static void evictor(struct story *s)
{
	struct hst_job job;

	if (!hst_evict_next(&s->x->h, &job))
		return;
	hst_evict_work(&s->x->h, &job);
	hst_evict_done(&s->x->h, &job);
}

/* Page of the nth step: each is written, read, written again, some more often than others. */
static uint64_t page_of(unsigned n)
{
	return n * 29 % PAGES * (n % 4 != 3);
}

#define VMM_TOUCHES 30u
#define DISCARDS 4u

static bool told(const struct story *s)
{
	return s->next == 2 * PAGES && !s->w.fetch && s->vmm_next == VMM_TOUCHES &&
	       s->discards == DISCARDS && !hst_evict_forced(&s->x->h);
}

static void vmm_thread(struct story *s)
{
	struct rig *x = s->x;
	uint64_t page = s->vmm_next * 17 % PAGES;
	struct err e;

	/* Not all at once. */
	if (s->vmm_next == VMM_TOUCHES || s->vmm_next * 4 > s->next)
		return;
	if (!rig_swap(x)->vmm[page]) {
		if (rig_vmm_touch(&x->h, (roff_t){page << PAGE_SHIFT}, &e) < 0)
			hst_pause_for(&x->h, &(struct hst_trouble){.why = e, .tries = 1});
		return;
	}
	assert_true(rig_right(x, page));
	if (s->vmm_next++ % 2) {
		rig_swap(x)->vmm_guarded[page] = false;
		rig_put(x, page, 0x2000 + s->vmm_next);
	}
}

/* All of it is zeroes; or, if it has failed, some of it that is in memory may be. */
static void note_zeroes(struct story *s, uint32_t from, uint32_t end)
{
	struct rig *x = s->x;

	for (uint64_t p = from; p < end; p++) {
		assert_true(s->discard.why.code != 0 || rig_words(x, p)[0] == 0);
		if (rig_words(x, p)[0] == 0 &&
		    (s->discard.why.code == 0 || s->discard.was != BLOCK_ABSENT ||
		     !block_is(&x->h, (uint32_t)p, BLOCK_IN_SWAP)))
			rig_swap(x)->want[p] = 1;
	}
}

static void balloon(struct story *s)
{
	struct rig *x = s->x;
	struct hst_discard *d = &s->discard;
	enum hst_discarding next;
	uint32_t at;

	if (s->balloon.fetch)
		return;
	if (d->end == 0 && s->discards < DISCARDS && s->next > 30 * (s->discards + 1))
		*d = (struct hst_discard){.at = 10 * s->discards, .end = 10 * s->discards + 20};
	if (d->end == 0)
		return;
	at = d->at;
	if (block_kind(&x->h, at) == BLOCK_FETCHING &&
	    block_fetch(&x->h, at)->state == HST_FETCH_FAILED && !block_fetch(&x->h, at)->filled)
		rig_swap(x)->want[at] = 1; /* its source is not asked again */
	next = hst_discard_step(&x->h, d);
	if (d->why.code == 0)
		note_zeroes(s, at, next == HST_DISCARD_WORK ? d->run.block : d->at);
	x->discards = next == HST_DISCARD_WORK ? d : NULL;
	if (next == HST_DISCARD_WORK) {
		hst_discard_work(&x->h, d);
		note_zeroes(s, d->run.block, d->run.block + d->run.count);
	} else if (next == HST_DISCARD_LATER) {
		(void)hst_ensure(&x->h, (roff_t){(uint64_t)d->at << PAGE_SHIFT}, &s->balloon);
	} else {
		assert_true(d->why.code == 0 || d->why.text[0] != 0);
		d->end = 0;
		s->discards++;
	}
}

static void device(struct story *s)
{
	struct rig *x = s->x;
	uint64_t page = page_of(s->next);

	if (s->next == 2 * PAGES || s->w.fetch)
		return;
	if (!hst_ensure(&x->h, (roff_t){page << PAGE_SHIFT}, &s->w))
		return;
	assert_true(rig_right(x, page));
	if (s->next % 3) {
		hst_wrote(&x->h, (roff_t){page << PAGE_SHIFT}, 1);
		rig_put(x, page, s->next % 5 ? 0x1000 + s->next : 1);
	}
	if (s->next++ == PAGES)
		hst_evict_to(&x->h, 0);
}

static void to_next_timer(struct rig *x)
{
	uint64_t next = timers_next_ns(&x->h.timers);

	if (next != NS_NEVER)
		rig_after(x, next > x->now ? next - x->now : 0);
}

static void tell(struct story *s, unsigned rounds)
{
	struct rig *x = s->x;
	struct err e;

	while (rounds-- && !told(s)) {
		for (unsigned i = 0; i < 4; i++) {
			device(s);
			evictor(s);
			end_a_write(s);
			vmm_thread(s);
			balloon(s);
			rig_pump(x);
		}
		/* A touch that the kernel reports: poison, or shown again. */
		if (rounds % 8 == 5 && rig_kernel_touch(&x->h, (roff_t){7 * PAGE_BYTES}, &e) < 0)
			hst_pause_for(&x->h, &(struct hst_trouble){.why = e, .tries = 1});
		assert_true(x->h.evict.resident <= LIMIT);
		s->paused_once |= hst_is_paused(&x->h);
		if (hst_is_paused(&x->h) && rounds % 16 == 0)
			hst_resume(&x->h);
		if (rounds % 4 == 3)
			to_next_timer(x);
		rig_pump(x);
	}
}

static void repair(struct story *s)
{
	struct rig *x = s->x;

	s->at = 0;
	for (unsigned i = 0; i < 20 && !told(s); i++) {
		hst_resume(&x->h);
		tell(s, ROUNDS);
	}
	assert_true(told(s));
	/* What hung still may, and what failed may wait to be tried again. */
	hst_resume(&x->h);
	for (unsigned i = 0; x->h.evict.writes_used; i++) {
		assert_true(i < 100);
		end_a_write(s);
		to_next_timer(x);
	}
	assert_false(hst_is_paused(&x->h));
	rig_swap(x)->later = false;
	for (uint64_t p = 0; p < PAGES; p++) {
		rig_evict(x);
		rig_device(x, p, 0);
	}
}

static void stop(struct story *s)
{
	struct rig *x = s->x;

	hst_stop(&x->h);
	while (rig_swap(x)->src.count)
		rig_src_answer(&rig_swap(x)->src, 0, -ECANCELED);
	while (rig_swap(x)->count)
		rig_write_end(x, 0, -ECANCELED);
	timers_run(&x->h.timers, x->now + NS_PER_S);
	assert_int_equal(rig_swap(x)->count, 0);
	assert_true(hst_is_idle(&x->h));
	assert_false(hst_evict_wanted(&x->h));
	hst_forget(&s->w);
	hst_forget(&s->balloon);
}

enum ending { REPAIR, STOP, ENDINGS };

static unsigned one_run(enum hst_faults faults, enum kind kind, unsigned at, bool on,
			enum ending ending)
{
	struct story s = {.kind = kind, .at = at, .on = on};
	struct rig *x = open_story(&s, faults);

	tell(&s, on ? 60 + at * 4 : ROUNDS);
	/* One failure alone is retried, but for those that pause; none may be the end. */
	if (ending == REPAIR)
		repair(&s);
	stop(&s);
	assert_false(rig_swap(x)->broken_drop);
	rig_free(x);
	return s.failed;
}

static void each_call_in_turn(void **state)
{
	static const enum hst_faults modes[] = {HST_FAULTS_BLOCK, HST_FAULTS_KERNEL};
	unsigned runs = 0;

	(void)state;
	for (unsigned m = 0; m < ARRAY_LEN(modes); m++)
		for (enum kind kind = 0; kind < KINDS; kind++)
			for (unsigned variant = 0; variant < 2 * ENDINGS; variant++) {
				unsigned at = 1;

				while (one_run(modes[m], kind, at, variant % 2,
					       (enum ending)(variant / 2)))
					at++;
				runs += at;
				assert_true(at < 2000);
			}
	print_message("%u runs\n", runs);
}

/* The story is worth telling: each kind of call occurs in it, and those that must, pause. */
static void every_kind_occurs(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++)
		assert_int_equal(one_run(HST_FAULTS_BLOCK, kind, 1, false, REPAIR), 1);
	for (enum kind kind = UNMAP; kind <= RESIDENT; kind++) {
		struct story s = {.kind = kind, .at = 1};
		struct rig *x = open_story(&s, HST_FAULTS_BLOCK);

		tell(&s, ROUNDS);
		assert_true(s.paused_once && x->trouble.why.text[0] != 0);
		repair(&s);
		rig_close(x);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_call_in_turn),
		cmocka_unit_test(every_kind_occurs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
