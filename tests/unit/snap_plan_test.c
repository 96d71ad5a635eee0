/* SPDX-License-Identifier: Apache-2.0 */
/* src/vmm/snap/snap_plan.c: the steps of a snapshot, their order, and where it is given up. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/snap/snap_plan.h"

#define PAGES 128u
#define WORDS (PAGES / SNAP_WORD_PAGES)

struct fixture {
	struct snap_plan plan;
	struct snap_step step;
	uint64_t pending[WORDS], kept[WORDS], found[WORDS], since[WORDS];
	uint64_t now_ns;
};

static const struct snap_rules rules = {
	.piece_pages = 64,
	.cut_pages = 4,
	.cuts_max = 2,
	.passes_max = 6,
	.cut_ns = 100,
	.rest_ns = 1000,
	.turn_ns = 100,
};

static void begin(struct fixture *f, bool keep_running, bool changes)
{
	const struct snap_plan_cfg cfg = {
		.rules = rules,
		.pages = PAGES,
		.keep_running = keep_running,
		.changes = changes,
		.pending = f->pending,
		.kept = f->kept,
		.found = f->found,
		.since = f->since,
	};

	memset(f->kept, 0, sizeof(f->kept));
	memset(f->found, 0, sizeof(f->found));
	snap_plan_init(&f->plan, &cfg);
	snap_plan_next(&f->plan, 0, f->now_ns, &f->step);
}

/* The step that there is, ends so. */
static void ends(struct fixture *f, enum snap_todo todo, int rc)
{
	assert_int_equal(f->step.todo, todo);
	snap_plan_next(&f->plan, rc, f->now_ns, &f->step);
}

static void ends_run(struct fixture *f, enum snap_todo todo, uint64_t page, uint64_t pages)
{
	assert_int_equal(f->step.todo, todo);
	assert_int_equal(f->step.run.page, page);
	assert_int_equal(f->step.run.pages, pages);
	snap_plan_next(&f->plan, 0, f->now_ns, &f->step);
}

static void is_over(struct fixture *f, int rc)
{
	assert_int_equal(f->step.todo, SNAP_TODO_END);
	assert_int_equal(f->step.rc, rc);
}

static void whole_pass(struct fixture *f)
{
	ends_run(f, SNAP_TODO_COPY, 0, 64);
	ends_run(f, SNAP_TODO_COPY, 64, 64);
}

static void running(void **state)
{
	struct fixture f = {.now_ns = 7};

	(void)state;
	begin(&f, true, false);
	ends(&f, SNAP_TODO_NOTE, 0);
	assert_true(f.step.fresh && !f.step.stopped);
	assert_int_equal(f.step.left, PAGES);
	whole_pass(&f);
	/* Too much to be kept: another pass, and the file has something there now. */
	f.found[0] = 0xf0f;
	ends(&f, SNAP_TODO_LOOK, 0);
	assert_false(f.step.fresh);
	ends_run(&f, SNAP_TODO_COPY, 0, 4);
	ends_run(&f, SNAP_TODO_COPY, 8, 4);
	f.found[1] = 2;
	ends(&f, SNAP_TODO_LOOK, 0);
	assert_int_equal(f.step.limit_ns, rules.cut_ns);
	ends(&f, SNAP_TODO_STOP, 0);
	ends(&f, SNAP_TODO_STATE, 0);
	f.found[0] = 1;
	ends(&f, SNAP_TODO_LOOK, 0);
	assert_int_equal(f.since[0], 0xf0f);
	assert_int_equal(f.since[1], 2);
	ends(&f, SNAP_TODO_PAGES, 0);
	assert_int_equal(f.step.until_ns, 7 + rules.cut_ns);
	assert_int_equal(f.step.left, 2);
	ends_run(&f, SNAP_TODO_KEEP, 0, 1);
	assert_int_equal(f.step.kept, 1);
	ends_run(&f, SNAP_TODO_KEEP, 65, 1);
	ends(&f, SNAP_TODO_RESUME, 0);
	ends_run(&f, SNAP_TODO_PUT, 0, 1);
	assert_int_equal(f.step.kept, 1);
	ends_run(&f, SNAP_TODO_PUT, 65, 1);
	is_over(&f, 0);
	/* Its state may not be written yet. */
	assert_int_equal(f.since[0], 0xf0f);
	assert_int_equal(f.since[1], 2);
	snap_plan_made(&f.plan);
	assert_int_equal(f.since[0] | f.since[1], 0);
}

static void standing(void **state)
{
	struct fixture f = {.now_ns = 0};

	(void)state;
	begin(&f, false, false);
	assert_int_equal(f.step.limit_ns, rules.rest_ns);
	ends(&f, SNAP_TODO_STOP, 0);
	ends(&f, SNAP_TODO_STATE, 0);
	ends(&f, SNAP_TODO_NOTE, 0);
	ends(&f, SNAP_TODO_LOOK, 0);
	ends(&f, SNAP_TODO_PAGES, 0);
	assert_true(f.step.fresh && f.step.stopped);
	whole_pass(&f);
	ends(&f, SNAP_TODO_RESUME, 0);
	is_over(&f, 0);
}

/* A cut that takes too long is tried again behind another pass; the last one has patience. */
static void cuts(void **state)
{
	struct fixture f = {.now_ns = 0};

	(void)state;
	begin(&f, true, false);
	ends(&f, SNAP_TODO_NOTE, 0);
	whole_pass(&f);
	f.found[0] = 0xf; /* as many as may be kept */
	ends(&f, SNAP_TODO_LOOK, 0);
	ends(&f, SNAP_TODO_STOP, 0);
	ends(&f, SNAP_TODO_STATE, 0);
	ends(&f, SNAP_TODO_LOOK, 0);
	ends(&f, SNAP_TODO_PAGES, 0);
	ends(&f, SNAP_TODO_KEEP, -ETIME);
	ends(&f, SNAP_TODO_RESUME, 0);
	ends_run(&f, SNAP_TODO_COPY, 0, 4);
	ends(&f, SNAP_TODO_LOOK, 0);
	assert_int_equal(f.step.limit_ns, rules.rest_ns);
	ends(&f, SNAP_TODO_STOP, -EBUSY);
	is_over(&f, -EBUSY);
}

/* What gains little is slowed down by turns, and given up at last. */
static void too_fast(void **state)
{
	struct fixture f = {.now_ns = 0};

	(void)state;
	begin(&f, true, false);
	ends(&f, SNAP_TODO_NOTE, 0);
	whole_pass(&f);
	for (unsigned pass = 1; pass < rules.passes_max; pass++) {
		memset(f.found, 0xff, sizeof(f.found));
		f.now_ns += 100 * rules.turn_ns;
		ends(&f, SNAP_TODO_LOOK, 0);
		/* The first one has nothing to be compared with. */
		if (pass > 1)
			ends(&f, SNAP_TODO_SLOW, 0);
		ends(&f, SNAP_TODO_COPY, 0);
		f.now_ns += rules.turn_ns;
		ends(&f, SNAP_TODO_COPY, 0);
		if (pass > 1)
			ends(&f, SNAP_TODO_GO, 0);
	}
	/* However fast, it does not stand still for good. */
	assert_true(f.plan.turn_ns > f.now_ns);
	memset(f.found, 0xff, sizeof(f.found));
	ends(&f, SNAP_TODO_LOOK, 0);
	is_over(&f, -EAGAIN);
}

/* Who gains a quarter by a pass is not slowed down. */
static void a_quarter(void **state)
{
	struct fixture f = {.now_ns = 0};

	(void)state;
	begin(&f, true, false);
	ends(&f, SNAP_TODO_NOTE, 0);
	whole_pass(&f);
	f.found[0] = 0xff;
	ends(&f, SNAP_TODO_LOOK, 0);
	ends_run(&f, SNAP_TODO_COPY, 0, 8);
	f.found[0] = 0x3f;
	ends(&f, SNAP_TODO_LOOK, 0);
	ends_run(&f, SNAP_TODO_COPY, 0, 6);
	f.found[0] = 0x3f;
	ends(&f, SNAP_TODO_LOOK, 0);
	ends(&f, SNAP_TODO_SLOW, 0);
}

/* Of what changed alone; what a snapshot that fails has found is the next one's. */
static void changes(void **state)
{
	struct fixture f = {.since = {1, 0}};

	(void)state;
	begin(&f, true, true);
	ends(&f, SNAP_TODO_NOTE, 0);
	f.found[0] = 4;
	ends(&f, SNAP_TODO_LOOK, 0);
	ends_run(&f, SNAP_TODO_COPY, 0, 1);
	ends(&f, SNAP_TODO_COPY, -ENOSPC);
	is_over(&f, -ENOSPC);
	assert_int_equal(f.since[0], 5);
	begin(&f, false, true);
	ends(&f, SNAP_TODO_STOP, 0);
	ends(&f, SNAP_TODO_STATE, 0);
	ends(&f, SNAP_TODO_NOTE, 0);
	/* Some of a look that failed is forgotten where it was noted. */
	f.found[0] = 8;
	ends(&f, SNAP_TODO_LOOK, -EIO);
	ends(&f, SNAP_TODO_RESUME, 0);
	is_over(&f, -EIO);
	assert_int_equal(f.since[0], 0xd);
	/* So does one whose memory was written, and nothing else. */
	begin(&f, false, true);
	ends(&f, SNAP_TODO_STOP, 0);
	ends(&f, SNAP_TODO_STATE, 0);
	ends(&f, SNAP_TODO_NOTE, 0);
	f.found[0] = 2;
	ends(&f, SNAP_TODO_LOOK, 0);
	ends(&f, SNAP_TODO_PAGES, 0);
	ends_run(&f, SNAP_TODO_COPY, 0, 4);
	ends(&f, SNAP_TODO_RESUME, 0);
	is_over(&f, 0);
	begin(&f, false, true);
	assert_int_equal(f.pending[0], 0xf);
}

/* Whatever fails, nobody is left standing. */
static void failures(void **state)
{
	static const enum snap_todo all[] = {SNAP_TODO_STATE, SNAP_TODO_LOOK, SNAP_TODO_KEEP};
	struct fixture f;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
		bool stopped = false;

		f = (struct fixture){.now_ns = 0};
		begin(&f, true, false);
		while (f.step.todo != all[i] || !stopped) {
			stopped |= f.step.todo == SNAP_TODO_STOP;
			f.found[0] = 1;
			ends(&f, f.step.todo, 0);
		}
		ends(&f, all[i], -EIO);
		ends(&f, SNAP_TODO_RESUME, 0);
		is_over(&f, -EIO);
	}
	f = (struct fixture){.now_ns = 0};
	begin(&f, true, false);
	ends(&f, SNAP_TODO_NOTE, -EIO);
	is_over(&f, -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(running),  cmocka_unit_test(standing), cmocka_unit_test(cuts),
		cmocka_unit_test(too_fast), cmocka_unit_test(a_quarter), cmocka_unit_test(changes),
		cmocka_unit_test(failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
