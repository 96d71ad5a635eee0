/* SPDX-License-Identifier: Apache-2.0 */
/* See engine_fixture.h. */
#include "engine_fixture.h"

const char *fx_rev_name(enum apf_rev rev)
{
	static const char *const names[] = {"off", "legacy", "pf2", "pf2-strict", "int"};

	return names[rev];
}

bool fx_is_pf2(enum apf_rev rev)
{
	return rev == APF_REV_PF2 || rev == APF_REV_PF2_STRICT;
}

struct cpu_state fx_cpu_user(void)
{
	return (struct cpu_state){.cpl = 3, .interrupts_on = true, .paging = true};
}

void fx_init_cfg(struct fx *fx, const struct eng_cfg *cfg)
{
	memset(fx, 0, sizeof(*fx));
	fx->cpu = fx_cpu_user();
	eng_init(&fx->v, cfg, fx->faults);
}

void fx_init(struct fx *fx, enum apf_rev rev)
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

struct eng_slot fx_slot(const struct fx *fx)
{
	struct eng_slot slot = {.readable = !fx->area_lost};

	if (slot.readable) {
		slot.reason = fx->area.reason;
		slot.token = fx->area.token;
	}
	return slot;
}

enum eng_wrmsr fx_wrmsr(struct fx *fx, uint32_t msr, uint64_t value)
{
	struct eng_wrmsr_in in = {.msr = msr, .value = value, .area_ok = true};
	enum eng_wrmsr r = eng_wrmsr(&fx->v, &in);

	if (r == ENG_WRMSR_ENABLED && eng_zeroes_area(&fx->v))
		memset(&fx->area, 0, sizeof(fx->area));
	return r;
}

uint64_t fx_rdmsr(const struct fx *fx, uint32_t msr)
{
	uint64_t value = 0xdeaddeaddeaddeadull;

	assert_true(eng_rdmsr(&fx->v, msr, &value));
	return value;
}

void fx_perform(struct fx *fx, const struct eng_event *ev)
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

enum eng_verdict fx_may(const struct fx *fx)
{
	return eng_may_send_missing(&fx->v, &fx->cpu, fx_slot(fx));
}

uint32_t fx_missing(struct fx *fx, uint64_t gfn)
{
	struct eng_event ev;

	assert_int_equal(fx_may(fx), ENG_MAY_SEND);
	uint32_t ix = eng_send_missing(&fx->v, (gfn_t){gfn}, &ev);

	fx_perform(fx, &ev);
	return ix;
}

uint32_t fx_take_pf(struct fx *fx)
{
	uint32_t token = fx->cpu.untaken_token;

	assert_int_not_equal(token, 0);
	fx->cpu.untaken_token = 0;
	fx->area.reason = 0;
	return token;
}

uint32_t fx_sleeper(struct fx *fx, uint64_t gfn)
{
	uint32_t ix = fx_missing(fx, gfn);

	fx_take_pf(fx);
	return ix;
}

enum eng_ready fx_peek(struct fx *fx, struct eng_event *ret_ev)
{
	return eng_next_ready(&fx->v, fx->no_cpu ? NULL : &fx->cpu, fx_slot(fx), ret_ev);
}

enum eng_ready fx_scan(struct fx *fx)
{
	struct eng_event ev;
	enum eng_ready r = fx_peek(fx, &ev);

	if (r == ENG_READY_SEND) {
		fx_perform(fx, &ev);
		eng_ready_sent(&fx->v, &ev);
	}
	return r;
}

void fx_consume(struct fx *fx)
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

void fx_expect_ready(struct fx *fx, uint32_t token)
{
	assert_int_equal(fx_scan(fx), ENG_READY_SEND);
	assert_int_not_equal(fx->ev.how, ENG_HOW_NOTHING);
	assert_int_equal(fx->ev.token, token);
	fx_consume(fx);
}

void fx_enable_en(struct fx *fx, uint64_t en)
{
	if (fx->v.cfg.rev == APF_REV_INT)
		assert_int_equal(fx_wrmsr(fx, APF_MSR_CTL, FX_VECTOR), ENG_WRMSR_RESCAN);
	assert_int_equal(fx_wrmsr(fx, APF_MSR_EN, en), ENG_WRMSR_ENABLED);
	if (fx_is_pf2(fx->v.cfg.rev) && (en & APF_EN_INT))
		assert_int_equal(fx_wrmsr(fx, APF_MSR_CTL, FX_PF2_ON), ENG_WRMSR_RESCAN);
}

void fx_init_on(struct fx *fx, enum apf_rev rev)
{
	fx_init(fx, rev);
	fx_enable_en(fx, rev == APF_REV_LEGACY ? FX_EN_PF : FX_EN_IRQ);
	fx_expect_ready(fx, APF_TOKEN_WAKE_ALL);
	assert_int_equal(fx_scan(fx), ENG_READY_NONE);
	fx->irqs = fx->pfs = 0;
}

void fx_init_on_by_pf(struct fx *fx, enum apf_rev rev)
{
	fx_init(fx, rev);
	fx_enable_en(fx, FX_EN_PF);
	fx_expect_ready(fx, APF_TOKEN_WAKE_ALL);
	fx->irqs = fx->pfs = 0;
}

void fx_keep(const struct fx *fx, struct fx_state *ret_s)
{
	memcpy(&ret_s->v, &fx->v, sizeof(fx->v));
	memcpy(ret_s->faults, fx->faults, sizeof(fx->faults));
}

bool fx_same(const struct fx *fx, const struct fx_state *s)
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

const char *fx_broken(const struct eng_vcpu *v)
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

void fx_assert_sound(const struct fx *fx)
{
	const char *what = fx_broken(&fx->v);

	if (what)
		fail_msg("engine state: %s", what);
}

void fx_fill_rows(struct CMUnitTest *tests, const void *rows, size_t n, size_t stride,
		  CMUnitTestFunction run)
{
	for (size_t i = 0; i < n; i++) {
		const char *row = (const char *)rows + i * stride;

		memset(&tests[i], 0, sizeof(tests[i]));
		memcpy(&tests[i].name, row, sizeof(tests[i].name));
		tests[i].test_func = run;
		tests[i].initial_state = (void *)(uintptr_t)row;
	}
}
