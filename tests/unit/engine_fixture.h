/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine tests share: one vCPU, the area that its guest would own, the CPU
 * state that an exit would report, and a host that performs each event to the letter.
 * The guest has no behaviour of its own here; a test plays it.
 */
#ifndef ENGINE_FIXTURE_H
#define ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/engine.h"

#define FX_FAULTS 64u
#define FX_VCPU 5u
#define FX_GPA 0x123440ull
#define FX_VECTOR 0xf3u
#define FX_EN_PF (FX_GPA | APF_EN_ENABLED)
#define FX_EN_IRQ (FX_EN_PF | APF_EN_INT)
#define FX_PF2_ON (APF_PF2_ENABLED | FX_VECTOR)
#define FX_SAVE_MAX (48u + 16u * FX_FAULTS)

struct fx {
	struct eng_vcpu v;
	struct eng_fault faults[FX_FAULTS];
	struct apf_area area;
	bool area_lost;
	struct cpu_state cpu;
	bool no_cpu; /* scan as another thread would */
	struct eng_event ev; /* the last one performed */
	unsigned irqs, pfs;  /* raised so far */
};

static inline const char *fx_rev_name(enum apf_rev rev)
{
	static const char *const names[] = {"off", "legacy", "pf2", "pf2-strict", "int"};

	return names[rev];
}

static inline bool fx_is_pf2(enum apf_rev rev)
{
	return rev == APF_REV_PF2 || rev == APF_REV_PF2_STRICT;
}

static inline struct cpu_state fx_cpu_user(void)
{
	return (struct cpu_state){.cpl = 3, .interrupts_on = true, .paging = true};
}

static inline void fx_init_cfg(struct fx *fx, const struct eng_cfg *cfg)
{
	memset(fx, 0, sizeof(*fx));
	fx->cpu = fx_cpu_user();
	eng_init(&fx->v, cfg, fx->faults);
}

/* A vCPU after power-on: events off. */
static inline void fx_init(struct fx *fx, enum apf_rev rev)
{
	struct eng_cfg cfg = {
		.rev = rev,
		.vcpu_id = FX_VCPU,
		.features = eng_features(rev),
		.has_lapic = true,
		.faults_max = 16,
	};

	fx_init_cfg(fx, &cfg);
}

static inline struct eng_slot fx_slot(const struct fx *fx)
{
	struct eng_slot slot = {.readable = !fx->area_lost};

	if (slot.readable) {
		slot.reason = fx->area.reason;
		slot.token = fx->area.token;
	}
	return slot;
}

static inline enum eng_wrmsr fx_wrmsr(struct fx *fx, uint32_t msr, uint64_t value)
{
	struct eng_wrmsr_in in = {.msr = msr, .value = value, .area_ok = true};
	enum eng_wrmsr r = eng_wrmsr(&fx->v, &in);

	if (r == ENG_WRMSR_ENABLED && eng_zeroes_area(&fx->v))
		memset(&fx->area, 0, sizeof(fx->area));
	return r;
}

static inline uint64_t fx_rdmsr(const struct fx *fx, uint32_t msr)
{
	uint64_t value = 0xdeaddeaddeaddeadull;

	assert_true(eng_rdmsr(&fx->v, msr, &value));
	return value;
}

static inline void fx_perform(struct fx *fx, const struct eng_event *ev)
{
	if (ev->store.len) {
		assert_false(fx->area_lost);
		memcpy((char *)&fx->area + ev->store.off, &ev->store.value, ev->store.len);
	}
	switch (ev->how) {
	case ENG_HOW_NOTHING:
		break;
	case ENG_HOW_PF:
		assert_int_equal(fx->cpu.untaken_token, 0);
		fx->cpu.untaken_token = ev->token;
		fx->pfs++;
		break;
	case ENG_HOW_IRQ:
		fx->irqs++;
		break;
	case ENG_HOW_CANCEL_PF:
		assert_int_equal(fx->cpu.untaken_token, ev->token);
		fx->cpu.untaken_token = 0;
		break;
	}
	fx->ev = *ev;
}

static inline enum eng_verdict fx_may(const struct fx *fx)
{
	return eng_may_send_missing(&fx->v, &fx->cpu, fx_slot(fx));
}

/* A fault that must be announced; it is, and the #PF waits to be taken. */
static inline uint32_t fx_missing(struct fx *fx, uint64_t gfn)
{
	struct eng_event ev;

	assert_int_equal(fx_may(fx), ENG_MAY_SEND);
	uint32_t ix = eng_send_missing(&fx->v, (gfn_t){gfn}, &ev);

	fx_perform(fx, &ev);
	return ix;
}

/* The guest takes its #PF and empties word 0, as the first thing that its handler does. */
static inline uint32_t fx_take_pf(struct fx *fx)
{
	uint32_t token = fx->cpu.untaken_token;

	assert_int_not_equal(token, 0);
	fx->cpu.untaken_token = 0;
	fx->area.reason = 0;
	return token;
}

/* Announced and taken: a sleeper exists. Returns the index; the token is fx->ev.token. */
static inline uint32_t fx_sleeper(struct fx *fx, uint64_t gfn)
{
	uint32_t ix = fx_missing(fx, gfn);

	fx_take_pf(fx);
	return ix;
}

static inline enum eng_ready fx_peek(struct fx *fx, struct eng_event *ret_ev)
{
	return eng_next_ready(&fx->v, fx->no_cpu ? NULL : &fx->cpu, fx_slot(fx), ret_ev);
}

/* One look for a page-ready event; what may be sent is sent. */
static inline enum eng_ready fx_scan(struct fx *fx)
{
	struct eng_event ev;
	enum eng_ready r = fx_peek(fx, &ev);

	if (r == ENG_READY_SEND) {
		fx_perform(fx, &ev);
		eng_ready_sent(&fx->v, &ev);
	}
	return r;
}

/* The guest takes a page-ready event and frees the slot by the rules of its revision. */
static inline void fx_consume(struct fx *fx)
{
	if (fx->ev.how == ENG_HOW_PF) {
		fx_take_pf(fx);
	} else if (fx->v.cfg.rev == APF_REV_INT) {
		fx->area.token = 0;
		assert_int_equal(fx_wrmsr(fx, APF_MSR_ACK, APF_ACK_READY), ENG_WRMSR_RESCAN);
	} else {
		fx->area.reason = 0;
	}
}

/* The next page-ready event must carry `token`; the guest takes it. */
static inline void fx_expect_ready(struct fx *fx, uint32_t token)
{
	assert_int_equal(fx_scan(fx), ENG_READY_SEND);
	assert_int_not_equal(fx->ev.how, ENG_HOW_NOTHING);
	assert_int_equal(fx->ev.token, token);
	fx_consume(fx);
}

/* Enables with `en`; registers in the order that the revision documents. */
static inline void fx_enable_en(struct fx *fx, uint64_t en)
{
	if (fx->v.cfg.rev == APF_REV_INT)
		assert_int_equal(fx_wrmsr(fx, APF_MSR_CTL, FX_VECTOR), ENG_WRMSR_RESCAN);
	assert_int_equal(fx_wrmsr(fx, APF_MSR_EN, en), ENG_WRMSR_ENABLED);
	if (fx_is_pf2(fx->v.cfg.rev) && (en & APF_EN_INT))
		assert_int_equal(fx_wrmsr(fx, APF_MSR_CTL, FX_PF2_ON), ENG_WRMSR_RESCAN);
}

/* Enabled, page ready by interrupt where the revision can, and the wake-all is over. */
static inline void fx_init_on(struct fx *fx, enum apf_rev rev)
{
	fx_init(fx, rev);
	fx_enable_en(fx, rev == APF_REV_LEGACY ? FX_EN_PF : FX_EN_IRQ);
	fx_expect_ready(fx, APF_TOKEN_WAKE_ALL);
	assert_int_equal(fx_scan(fx), ENG_READY_NONE);
	fx->irqs = fx->pfs = 0;
}

/* pf2 and pf2-strict with bit 3 clear: page ready by #PF, as in legacy. */
static inline void fx_init_on_by_pf(struct fx *fx, enum apf_rev rev)
{
	fx_init(fx, rev);
	fx_enable_en(fx, FX_EN_PF);
	fx_expect_ready(fx, APF_TOKEN_WAKE_ALL);
	fx->irqs = fx->pfs = 0;
}

/* Everything that the engine may change, for "nothing changed". */
struct fx_state {
	struct eng_vcpu v;
	struct eng_fault faults[FX_FAULTS];
};

static inline void fx_keep(const struct fx *fx, struct fx_state *ret_s)
{
	memcpy(&ret_s->v, &fx->v, sizeof(fx->v));
	memcpy(ret_s->faults, fx->faults, sizeof(fx->faults));
}

static inline bool fx_same(const struct fx *fx, const struct fx_state *s)
{
	if (memcmp(&s->v, &fx->v, sizeof(fx->v)) != 0)
		return false;
	/* `place` is scratch. */
	for (unsigned i = 0; i < ARRAY_LEN(fx->faults); i++) {
		struct eng_fault f = fx->faults[i];

		f.place = s->faults[i].place;
		if (memcmp(&s->faults[i], &f, sizeof(f)) != 0)
			return false;
	}
	return true;
}

/*
 * Invariants 2, 3, 15, 16, 17: every entry is in exactly one place, the counters agree,
 * tokens are this vCPU's and distinct. NULL, or what is broken.
 */
static inline const char *fx_broken(const struct eng_vcpu *v)
{
	uint32_t n = 0, ready = 0, free_len = 0, prev = ENG_NIL;

	for (uint32_t ix = v->issue_head; ix != ENG_NIL; prev = ix, ix = v->faults[ix].next) {
		const struct eng_fault *f = &v->faults[ix];

		if (ix >= v->cfg.faults_max || n++ >= v->cfg.faults_max)
			return "issue list leaves the pool or has a cycle";
		if (f->prev != prev)
			return "issue list: prev";
		if (f->state == ENG_FAULT_FREE)
			return "issue list holds a free entry";
		if (f->token == 0 || f->token == APF_TOKEN_WAKE_ALL ||
		    (f->token & APF_TOKEN_VCPU_MASK) != v->cfg.vcpu_id ||
		    f->token >> APF_TOKEN_VCPU_BITS == 0)
			return "token is 0, the wake-all, or not this vCPU's";
		for (uint32_t o = f->next; o != ENG_NIL; o = v->faults[o].next)
			if (v->faults[o].token == f->token)
				return "two faults under one token";
		ready += f->state == ENG_FAULT_READY;
	}
	if (prev != v->issue_tail || n != v->outstanding)
		return "issue list: tail or count";
	if (ready != v->ready_len)
		return "ready queue: count";
	prev = ENG_NIL;
	for (uint32_t ix = v->ready_head; ix != ENG_NIL; prev = ix, ix = v->faults[ix].ready_next)
		if (v->faults[ix].state != ENG_FAULT_READY || ready-- == 0)
			return "ready queue: state or length";
	if (prev != v->ready_tail || ready != 0)
		return "ready queue: tail or length";
	for (uint32_t ix = v->free_head; ix != ENG_NIL; ix = v->faults[ix].ready_next)
		if (v->faults[ix].state != ENG_FAULT_FREE || free_len++ >= v->cfg.faults_max)
			return "free list";
	if (n + free_len != v->cfg.faults_max)
		return "an entry is in no list";
	if (v->wake_all_after > v->ready_len)
		return "wake-all behind the end of the queue";
	if (v->next_id > 0xfffff)
		return "next id";
	return NULL;
}

static inline void fx_assert_sound(const struct fx *fx)
{
	const char *what = fx_broken(&fx->v);

	if (what)
		fail_msg("engine state: %s", what);
}

/* One named test for each row of a table whose rows begin with `const char *name`. */
static inline void fx_fill_rows(struct CMUnitTest *tests, const void *rows, size_t n,
				size_t stride, CMUnitTestFunction run)
{
	for (size_t i = 0; i < n; i++) {
		const char *row = (const char *)rows + i * stride;

		memset(&tests[i], 0, sizeof(tests[i]));
		memcpy(&tests[i].name, row, sizeof(tests[i].name));
		tests[i].test_func = run;
		tests[i].initial_state = (void *)(uintptr_t)row;
	}
}

#define FX_RUN_ROWS(rows, run) \
	__extension__({ \
		struct CMUnitTest fx_tests_[ARRAY_LEN(rows)]; \
		fx_fill_rows(fx_tests_, rows, ARRAY_LEN(rows), sizeof((rows)[0]), run); \
		cmocka_run_group_tests_name(#rows, fx_tests_, NULL, NULL); \
	})

#endif
