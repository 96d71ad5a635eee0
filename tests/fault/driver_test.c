/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One story, told with call number 1, 2, 3, … of a kind failing, once alone and once with
 * all later ones, until none is left that could fail: two vCPUs, their registers, tasks that
 * touch pages alone and together, accesses of the host, a device, a thread of the VMM's that
 * touches memory through its view, a balloon. Each run must end with
 * everybody served, or paused with a reason and served after the repair; or it is stopped in
 * the middle, and nothing is left in flight.
 */
#include <stdio.h>

#include "host_fixture.h"

#define VCPUS 2u
#define TOUCHES 10u
#define ROUNDS 4000u

enum kind {
	PRESENT,
	POISON,
	UNMAP,
	COLLECT,
	DROP,
	READ_FAILS,
	READ_HANGS,
	IRQ_REFUSED,
	IRQ_FAILS,
	KINDS
};

static const char *const kind_names[KINDS] = {
	"present", "poison", "unmap", "collect", "drop", "read fails", "read hangs",
	"irq refused", "irq fails"};

struct guest {
	unsigned registers, touches; /* done so far */
	unsigned asleep;
	bool waits, halted;
};

struct story {
	struct rig *x;
	enum kind kind;
	unsigned at; /* this call fails; 0: none */
	bool on;     /* and all later ones */
	unsigned calls, failed;
	struct guest guests[VCPUS];
	struct hst_waiter device;
	bool device_asked;
	unsigned vmm_touches; /* done so far */
	struct hst_discard discard;
	struct hst_waiter balloon;
	bool discarding, discarded;
	char text[ERR_TEXT_MAX]; /* why it was paused */
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

static int mem_result(struct rig *x, enum kind kind, struct err *e)
{
	return fails(x->user, kind) ? err_set(e, -ENOMEM, "%s fails", kind_names[kind]) : 0;
}

static int story_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch_writes,
			 struct err *e)
{
	int rc = mem_result(ctx, PRESENT, e);

	return rc < 0 ? rc : rig_mem_present(ctx, off, len, views, watch_writes, e);
}

static int story_poison(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	int rc = mem_result(ctx, POISON, e);

	return rc < 0 ? rc : rig_mem_poison(ctx, off, len, e);
}

static int story_unmap(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	(void)off;
	(void)len;
	return mem_result(ctx, UNMAP, e);
}

static int story_collect(void *ctx, roff_t off, uint64_t len, mem_pages written, mem_pages vmm,
			 struct err *e)
{
	(void)off;
	(void)len;
	(void)written;
	(void)vmm;
	return mem_result(ctx, COLLECT, e);
}

static int story_drop(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct rig *x = ctx;
	int rc = mem_result(ctx, DROP, e);

	if (rc == 0)
		memset(x->alias + off.v, 0, len);
	return rc;
}

static void story_read(struct src *src, struct src_read *rd)
{
	struct rig_src *f = CONTAINER_OF(src, struct rig_src, src);
	struct story *s = f->x->user;
	enum rig_answers answers = f->answers;

	if (fails(s, READ_FAILS))
		f->answers = RIG_FAILS_AT_ONCE;
	else if (fails(s, READ_HANGS))
		f->answers = RIG_LATER;
	rig_src_read(src, rd);
	f->answers = answers;
}

static int story_irq(void *ctx, unsigned vcpu, uint8_t vector)
{
	struct rig *x = ctx;

	if (fails(x->user, IRQ_REFUSED))
		return 0;
	if (fails(x->user, IRQ_FAILS))
		return -EIO;
	return rig_raise_irq(ctx, vcpu, vector);
}

static struct rig *open_story(struct story *s, const struct hst_cfg *cfg)
{
	static const struct src_ops src_ops = {
		.name = "story", .read = story_read, .cancel = rig_src_cancel};
	static const struct mem_ops mem_ops = {
		.present = story_present, .poison = story_poison,
		.unmap = story_unmap, .collect = story_collect, .drop = story_drop};
	static struct plat_ops plat_ops;
	struct rig *x = rig_open(cfg);

	plat_ops = *x->h.plat.ops;
	plat_ops.raise_irq = story_irq;
	x->src.src.ops = &src_ops;
	x->src.answers = RIG_AT_ONCE;
	x->h.mem.ops = &mem_ops;
	x->h.plat.ops = &plat_ops;
	x->user = s;
	s->x = x;
	return x;
}

/* ---- the guests ---- */

static void go_on(struct story *s, unsigned c)
{
	struct rig *x = s->x;
	struct guest *g = &s->guests[c];
	enum hst_next next;

	x->vcpus[c].kicked = false;
	rig_pump(x);
	next = rig_next(x, c);
	rig_pump(x);
	g->waits = next == HST_WAIT;
	if (next == HST_ENTER_HALTED)
		g->halted = true;
	else if (next == HST_ENTER_RUNNABLE || x->vcpus[c].untaken)
		g->halted = false;
}

/* The guest empties its area before it names it, unless it may rely on the host to. */
static bool area_is_empty(struct story *s, unsigned c)
{
	struct rig *x = s->x;

	if (c == 1 && (x->h.cfg.rev == APF_REV_INT || x->h.cfg.rev == APF_REV_PF2))
		return true;
	if (!rig_present(x, RIG_AREA_PAGE)) {
		rig_exit(x, c, false);
		hst_fault(rig_v(x, c), (roff_t){RIG_AREA_PAGE << PAGE_SHIFT});
		go_on(s, c);
		return false;
	}
	memset(rig_area(x, c), 0, sizeof(struct apf_area));
	return true;
}

static void set_register(struct story *s, unsigned c)
{
	struct rig *x = s->x;

	if (s->guests[c].registers == 0 && !area_is_empty(s, c))
		return;
	switch (s->guests[c].registers++) {
	case 0:
		rig_wrmsr(x, c, APF_MSR_EN, rig_en(x, c));
		break;
	case 1:
		rig_wrmsr(x, c, APF_MSR_CTL, rig_ctl(x));
		break;
	default:
		s->guests[c].registers = 9;
		rig_exit(x, c, false);
	}
	go_on(s, c);
}

static void kernel_touch(struct story *s, uint64_t page)
{
	struct err e = {0};

	if (rig_kernel_touch(&s->x->h, (roff_t){page << PAGE_SHIFT}, &e) < 0) {
		/* As the library does. */
		snprintf(s->text, sizeof(s->text), "%s", e.text);
		hst_pause(&s->x->h);
	}
	rig_pump(s->x);
}

/* ---- the VMM ---- */

#define VMM_TOUCHES 4u

static void vmm_thread(struct story *s)
{
	/* One that a guest touches, too, the device's, the balloon's, and one of its own. */
	static const uint64_t pages[VMM_TOUCHES] = {5, 40, 51, 60};
	struct hst *h = &s->x->h;
	struct err e = {0};

	if (s->vmm_touches == VMM_TOUCHES)
		return;
	roff_t off = {pages[s->vmm_touches] << PAGE_SHIFT};

	if (rig_present(s->x, pages[s->vmm_touches]) && block_is(h, block_of(h, off), BLOCK_VMM)) {
		s->vmm_touches++;
		return;
	}
	if (rig_vmm_touch(h, off, &e) < 0) {
		snprintf(s->text, sizeof(s->text), "%s", e.text);
		hst_pause(h);
	}
}

/* Of what it could not give back nothing is lost. */
static void balloon(struct story *s)
{
	struct rig *x = s->x;
	enum hst_discarding next;

	if (s->discarded || s->balloon.fetch)
		return;
	if (!s->discarding)
		s->discard = (struct hst_discard){.at = 4, .end = 54};
	s->discarding = true;
	next = hst_discard_step(&x->h, &s->discard);
	x->discards = next == HST_DISCARD_WORK ? &s->discard : NULL;
	if (next == HST_DISCARD_WORK) {
		rig_pump(x);
		hst_discard_work(&x->h, &s->discard);
	} else if (next == HST_DISCARD_LATER) {
		(void)hst_ensure(&x->h, (roff_t){(uint64_t)s->discard.at << PAGE_SHIFT},
				 &s->balloon);
	} else {
		assert_true(s->discard.why.code == 0 || s->discard.why.text[0] != 0);
		s->discarded = true;
	}
}

/* ---- the guests' touches ---- */

/* Page of a guest's nth touch: some are its own, some both have. */
static uint64_t page_of(unsigned c, unsigned n)
{
	return n % 3 ? 4 + n : 20 + 10 * c + n;
}

static void touch(struct story *s, unsigned c)
{
	struct rig *x = s->x;
	struct guest *g = &s->guests[c];
	uint64_t page = page_of(c, g->touches);
	bool kernel = x->h.cfg.faults == HST_FAULTS_KERNEL;

	if (kernel || !x->h.chunk_poisoned[0] || g->touches == 2) {
		kernel_touch(s, page);
		if (!kernel && g->touches != 2)
			return;
	}
	if (rig_present(x, page)) {
		g->touches++;
		return;
	}
	if (kernel)
		return;
	rig_exit(x, c, false);
	if (g->touches % 4 == 3)
		rig_load(rig_v(x, c), (roff_t){page << PAGE_SHIFT});
	else
		hst_fault(rig_v(x, c), (roff_t){page << PAGE_SHIFT});
	go_on(s, c);
}

static void take_pf(struct story *s, unsigned c)
{
	bool ready = rig_area(s->x, c)->reason == APF_REASON_READY;
	uint32_t token = rig_take_pf(s->x, c);
	struct guest *g = &s->guests[c];

	if (!ready) {
		g->asleep++;
		g->touches++; /* another task goes on with the next */
	} else if (token == APF_TOKEN_WAKE_ALL) {
		g->asleep = 0;
	} else {
		g->asleep--;
	}
}

static void take_irq(struct story *s, unsigned c)
{
	uint32_t token = rig_take_irq(s->x, c);
	struct guest *g = &s->guests[c];

	g->halted = false;
	if (token == APF_TOKEN_WAKE_ALL)
		g->asleep = 0;
	else
		assert_true(g->asleep-- > 0);
	if (s->x->h.cfg.rev == APF_REV_INT)
		rig_wrmsr(s->x, c, APF_MSR_ACK, 1);
	else
		rig_exit(s->x, c, false);
	go_on(s, c);
}

static void guest_step(struct story *s, unsigned c)
{
	struct guest *g = &s->guests[c];
	struct rig_vcpu *v = &s->x->vcpus[c];

	if (g->waits) {
		go_on(s, c);
	} else if (v->kicked) {
		rig_exit(s->x, c, true);
		go_on(s, c);
	} else if (v->untaken) {
		take_pf(s, c);
	} else if (v->irr) {
		take_irq(s, c);
	} else if (g->halted) {
		return;
	} else if (s->x->h.cfg.faults == HST_FAULTS_USER && g->registers < 9) {
		set_register(s, c);
	} else if (g->touches < TOUCHES) {
		touch(s, c);
	}
}

static bool served(const struct story *s)
{
	const struct hst *h = &s->x->h;

	for (unsigned c = 0; c < VCPUS; c++) {
		const struct guest *g = &s->guests[c];

		if (g->touches < TOUCHES || g->asleep || g->waits || g->halted ||
		    rig_v(s->x, c)->eng.outstanding || rig_v(s->x, c)->eng.wake_all_due)
			return false;
	}
	return s->device_asked && !s->device.fetch && s->vmm_touches == VMM_TOUCHES &&
	       s->discarded && h->free_count == h->fetch_count;
}

/* Until everybody is served, the VM is paused, or it has taken too long. */
static void tell(struct story *s)
{
	struct rig *x = s->x;

	for (unsigned round = 0; round < ROUNDS && !served(s) && !hst_is_paused(&x->h); round++) {
		uint64_t next;

		for (unsigned c = 0; c < VCPUS; c++)
			guest_step(s, c);
		if (round == 7) {
			s->device_asked = true;
			(void)hst_ensure(&x->h, (roff_t){40 * PAGE_BYTES}, &s->device);
		}
		if (round % 2)
			vmm_thread(s);
		if (round > 9)
			balloon(s);
		rig_pump(x);
		next = timers_next_ns(&x->h.timers);
		if (round % 4 == 3 && next != NS_NEVER)
			rig_after(x, next > x->now ? next - x->now : 0);
		rig_pump(x);
	}
}

/* ---- outcomes ---- */

static bool paused_with_a_reason(const struct story *s)
{
	const struct hst_trouble *t = &s->x->trouble;

	if (s->text[0])
		return true;
	return s->x->counts[RIG_TROUBLE] > 0 && t->tries > 0 && t->gpa.v >= RIG_GPA &&
	       (t->why.code == 0 ? s->kind == READ_HANGS : t->why.text[0] != 0);
}

static void check_soon_or_paused(struct story *s)
{
	if (served(s))
		return;
	if (hst_is_paused(&s->x->h)) {
		assert_true(paused_with_a_reason(s));
		return;
	}
	/* A local APIC that never takes an interrupt is the guest's own affair. */
	assert_true(s->on && (s->kind == IRQ_REFUSED || s->kind == IRQ_FAILS));
}

static void repair_and_go_on(struct story *s)
{
	s->at = 0;
	s->text[0] = 0;
	for (unsigned i = 0; i < 20 && !served(s); i++) {
		hst_resume(&s->x->h);
		rig_pump(s->x);
		for (unsigned c = 0; c < VCPUS; c++)
			s->x->vcpus[c].kicked = true;
		tell(s);
	}
	assert_true(served(s));
}

static void stop(struct story *s)
{
	struct rig *x = s->x;

	hst_stop(&x->h);
	while (x->src.count)
		rig_answer(x, 0, -ECANCELED);
	timers_run(&x->h.timers, x->now + NS_PER_S);
	rig_pump(x);
	assert_int_equal(x->h.in_flight, 0);
}

enum ending { REPAIR, STOP, ENDINGS };

static unsigned one_run(const struct hst_cfg *cfg, enum kind kind, unsigned at, bool on,
			enum ending ending)
{
	struct story s = {.kind = kind, .at = at, .on = on};
	struct rig *x = open_story(&s, cfg);

	tell(&s);
	check_soon_or_paused(&s);
	if (ending == REPAIR)
		repair_and_go_on(&s);
	stop(&s);
	hst_forget(&s.device);
	hst_forget(&s.balloon);
	rig_close(x);
	return s.failed;
}

static void each_call_in_turn(const struct hst_cfg *cfg)
{
	for (enum kind kind = 0; kind < KINDS; kind++) {
		for (unsigned variant = 0; variant < 2 * ENDINGS; variant++) {
			unsigned at = 1;

			while (one_run(cfg, kind, at, variant % 2, (enum ending)(variant / 2)))
				at++;
			assert_true(at < 200);
		}
	}
}

static struct hst_cfg story_cfg(enum hst_faults faults, enum apf_rev rev)
{
	struct hst_cfg cfg = rig_cfg(faults, rev);

	cfg.vcpus = VCPUS;
	cfg.queue_depth = 2;
	cfg.retries_max = 1;
	cfg.source_timeout_ns = 50 * NS_PER_MS;
	return cfg;
}

static void user_faults_survive(void **state)
{
	(void)state;
	for (enum apf_rev rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		struct hst_cfg cfg = story_cfg(HST_FAULTS_USER, rev);

		each_call_in_turn(&cfg);
	}
}

static void other_faults_survive(void **state)
{
	static const enum hst_faults modes[] = {HST_FAULTS_BLOCK, HST_FAULTS_STALL,
						HST_FAULTS_KERNEL};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
		struct hst_cfg cfg = story_cfg(modes[i], APF_REV_OFF);

		each_call_in_turn(&cfg);
	}
}

/* The story is worth telling: each kind of call occurs in it. */
static void every_kind_occurs(void **state)
{
	struct hst_cfg cfg = story_cfg(HST_FAULTS_USER, APF_REV_INT);

	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++)
		assert_int_equal(one_run(&cfg, kind, 1, false, REPAIR), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(user_faults_survive),
		cmocka_unit_test(other_faults_survive),
		cmocka_unit_test(every_kind_occurs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
