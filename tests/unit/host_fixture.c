/* SPDX-License-Identifier: Apache-2.0 */
/* See host_fixture.h. */
#include "host_fixture.h"

/* ---- log ---- */

void rig_log(struct rig *x, enum rig_op op, unsigned vcpu, uint64_t a, uint64_t b)
{
	x->counts[op]++;
	if (x->log_len < RIG_LOG)
		x->log[x->log_len++] = (struct rig_entry){op, vcpu, a, b};
}

void rig_log_clear(struct rig *x)
{
	x->log_len = 0;
	memset(x->counts, 0, sizeof(x->counts));
}

unsigned rig_nth(const struct rig *x, enum rig_op op, unsigned n)
{
	for (unsigned i = 0; i < x->log_len; i++)
		if (x->log[i].op == op && n-- == 0)
			return i;
	return RIG_LOG;
}

const struct rig_entry *rig_entry(const struct rig *x, enum rig_op op, unsigned n)
{
	unsigned at = rig_nth(x, op, n);

	assert_true(at < RIG_LOG);
	return &x->log[at];
}

/* ---- clock, memory ---- */

uint64_t rig_now(void *ctx)
{
	return ((struct rig *)ctx)->now;
}

int rig_mem_result(struct rig *x, const char *what, struct err *e)
{
	struct rig_mem_faults *f = &x->mem_faults;
	bool fails = f->at != 0 && (++f->calls == f->at || (f->on && f->calls > f->at));

	return fails ? err_set(e, -ENOMEM, "fake memory: %s", what) : 0;
}

int rig_mem_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch_writes,
		    struct err *e)
{
	struct rig *x = ctx;

	(void)watch_writes;
	rig_log(x, RIG_PRESENT, views, off.v, len);
	if (x->on_present)
		x->on_present(x, off, len);
	return rig_mem_result(x, "present", e);
}

int rig_mem_poison(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	rig_log(ctx, RIG_POISON, 0, off.v, len);
	return rig_mem_result(ctx, "poison", e);
}

/* ---- source ---- */

unsigned char rig_byte(uint64_t offset)
{
	return (unsigned char)(1 + (offset >> PAGE_SHIFT) % 251);
}

void rig_fill(const struct src_read *rd)
{
	unsigned char *p = rd->buf;
	uint64_t at = rd->offset, end = rd->offset + rd->len;

	while (at < end) {
		uint64_t n = min_u64(end - at, PAGE_BYTES - at % PAGE_BYTES);

		memset(p, rig_byte(at), n);
		p += n;
		at += n;
	}
}

void rig_copy_piece(struct rig_src *s, const struct hst_offer *o, const struct hst_piece *p)
{
	const struct src_read rd = {
		.offset = o->offset + p->from, .buf = p->to, .len = (uint32_t)p->len};
	struct hst *h = p->fetch->h;

	rig_fill(&rd);
	if (s->allocated)
		for (uint64_t at = 0; at < p->len; at += PAGE_BYTES)
			s->allocated[((uintptr_t)p->to - (uintptr_t)h->mem.alias + at) >>
				     PAGE_SHIFT] = true;
}

void rig_src_answer(struct rig_src *s, unsigned i, int code)
{
	struct src_read *rd = s->reads[i];
	struct err why;

	assert_true(i < s->count);
	s->count--;
	if (s->allocated)
		for (uint64_t at = 0; at < rd->len; at += PAGE_BYTES)
			s->allocated[((uintptr_t)rd->buf - (uintptr_t)s->x->alias + at) >>
				     PAGE_SHIFT] = true;
	memmove(&s->reads[i], &s->reads[i + 1], (s->count - i) * sizeof(s->reads[0]));
	memmove(&s->cancelled[i], &s->cancelled[i + 1], (s->count - i) * sizeof(bool));
	if (code == 0) {
		if (s->disk)
			memcpy(rd->buf, s->disk + rd->offset, rd->len);
		else
			rig_fill(rd);
		rd->done(rd, NULL);
		return;
	}
	/* What a failed read leaves behind is undefined. */
	memset(rd->buf, 0xee, rd->len);
	err_set(&why, code, "fake source: error %d at %llu", -code, (unsigned long long)rd->offset);
	rd->done(rd, &why);
}

void rig_answer(struct rig *x, unsigned i, int code)
{
	rig_src_answer(&x->src, i, code);
}

void rig_src_read(struct src *s, struct src_read *rd)
{
	struct rig_src *f = CONTAINER_OF(s, struct rig_src, src);

	assert_true(rd->len > 0 && rd->offset + rd->len <= s->size && f->count < RIG_READS);
	rig_log(f->x, RIG_READ, 0, rd->offset, rd->len);
	f->cancelled[f->count] = false;
	f->reads[f->count++] = rd;
	assert_true(f->count <= f->x->h.cfg.queue_depth);
	if (f->count > f->count_max)
		f->count_max = f->count;
	assert_int_equal(f->nesting++, 0);
	if (f->answers != RIG_LATER)
		rig_src_answer(f, f->count - 1, f->answers == RIG_AT_ONCE ? 0 : -EIO);
	f->nesting--;
}

unsigned rig_src_read_at(const struct rig_src *s, uint64_t offset)
{
	for (unsigned i = 0; i < s->count; i++)
		if (s->reads[i]->offset == offset)
			return i;
	fail_msg("no outstanding read at %llu", (unsigned long long)offset);
	return 0;
}

unsigned rig_read_at(const struct rig *x, uint64_t offset)
{
	return rig_src_read_at(&x->src, offset);
}

void rig_src_cancel(struct src *s, struct src_read *rd)
{
	struct rig_src *f = CONTAINER_OF(s, struct rig_src, src);
	unsigned i = rig_src_read_at(f, rd->offset);

	assert_ptr_equal(f->reads[i], rd); /* outstanding, as the contract wants it */
	rig_log(f->x, RIG_CANCEL, 0, rd->offset, 0);
	f->cancelled[i] = true;
	if (f->cancels == RIG_CANCEL_ENDS)
		rig_src_answer(f, i, -ECANCELED);
}

void rig_src_raise(struct src *s, struct src_read *rd)
{
	struct rig_src *f = CONTAINER_OF(s, struct rig_src, src);
	unsigned i = rig_src_read_at(f, rd->offset);

	assert_ptr_equal(f->reads[i], rd);
	assert_false(f->cancelled[i]);
	f->raises++;
}

/* ---- platform ---- */

struct apf_area *rig_area(struct rig *x, unsigned vcpu)
{
	size_t at = RIG_AREA_PAGE * PAGE_BYTES + 64u * vcpu;

	return (struct apf_area *)(void *)(x->alias + at);
}

bool rig_slot_full(struct rig *x, unsigned vcpu)
{
	const struct apf_area *a = rig_area(x, vcpu);

	return x->h.cfg.rev == APF_REV_INT ? a->token != 0 : a->reason != 0;
}

void rig_slot_free(struct rig *x, unsigned vcpu)
{
	if (x->h.cfg.rev == APF_REV_INT)
		rig_area(x, vcpu)->token = 0;
	else
		rig_area(x, vcpu)->reason = 0;
}

void rig_inject_pf(void *ctx, unsigned vcpu, uint32_t token)
{
	struct rig *x = ctx;

	assert_int_equal(x->vcpus[vcpu].untaken, 0);
	assert_int_equal(x->h.vcpus[vcpu].where, HST_IN_HOST);
	assert_int_not_equal(rig_area(x, vcpu)->reason, 0); /* stored before it is told */
	x->vcpus[vcpu].untaken = token;
	rig_log(x, RIG_INJECT, vcpu, token, 0);
}

void rig_cancel_pf(void *ctx, unsigned vcpu)
{
	struct rig *x = ctx;

	assert_int_equal(x->h.vcpus[vcpu].where, HST_IN_HOST);
	rig_log(x, RIG_CANCEL_PF, vcpu, x->vcpus[vcpu].untaken, 0);
	x->vcpus[vcpu].untaken = 0;
}

void rig_finish_msr(void *ctx, unsigned vcpu, uint64_t value, bool gp)
{
	struct rig *x = ctx;

	x->vcpus[vcpu].msr_done = true;
	x->vcpus[vcpu].msr_value = value;
	x->vcpus[vcpu].msr_gp = gp;
	rig_log(x, RIG_MSR, vcpu, value, gp);
}

int rig_set_msr(void *ctx, unsigned vcpu, uint32_t msr, uint64_t value)
{
	struct rig *x = ctx;

	rig_log(x, RIG_SET_MSR, vcpu, msr, value);
	return x->set_msr_rc;
}

bool rig_is_writable(void *ctx, unsigned vcpu, gpa_t gpa)
{
	const struct rig *x = ctx;

	(void)vcpu;
	(void)gpa;
	return !x->rom;
}

void rig_take_registers(void *ctx, unsigned vcpu, struct plat_registers *ret)
{
	struct rig *x = ctx;

	*ret = x->vcpus[vcpu].in_kvm;
}

void rig_show_registers(void *ctx, unsigned vcpu, uint64_t en, uint64_t ctl)
{
	rig_log(ctx, RIG_SHOW, vcpu, en, ctl);
}

void rig_pass_fault(void *ctx, unsigned vcpu)
{
	rig_log(ctx, RIG_PASS_FAULT, vcpu, 0, 0);
}

int rig_raise_irq(void *ctx, unsigned vcpu, uint8_t vector)
{
	struct rig *x = ctx;
	struct rig_vcpu *g = &x->vcpus[vcpu];

	assert_true(rig_slot_full(x, vcpu)); /* stored before it is told */
	rig_log(x, RIG_IRQ, vcpu, vector, !g->apic_off);
	if (g->apic_off) {
		if (x->on_refusal)
			x->on_refusal(x, vcpu);
		return g->irq_rc;
	}
	g->irr |= vector == RIG_VECTOR;
	return 1;
}

void rig_kick(void *ctx, unsigned vcpu)
{
	struct rig *x = ctx;

	x->vcpus[vcpu].kicked = true;
	rig_log(x, RIG_KICK, vcpu, 0, 0);
}

/* ---- hooks ---- */

void rig_outside_ready(void *ctx)
{
	rig_log(ctx, RIG_OUTSIDE, 0, 0, 0);
}

void rig_trouble(void *ctx, const struct hst_trouble *t)
{
	struct rig *x = ctx;

	if (t)
		x->trouble = *t;
	rig_log(x, t ? RIG_TROUBLE : RIG_GOES_ON, 0, t ? t->gpa.v : 0, t ? t->tries : 0);
}

void rig_trace(void *ctx, const struct apf_trace *t)
{
	struct rig *x = ctx;

	assert_in_range(t->kind, APF_TRACE_TOUCH, APF_TRACE_WITHDRAWN);
	x->traced[t->kind]++;
}

/* ---- set-up ---- */

struct hst_cfg rig_cfg(enum hst_faults faults, enum apf_rev rev)
{
	return (struct hst_cfg){
		.faults = faults,
		.rev = rev,
		.vcpus = 1,
		.block_shift = PAGE_SHIFT,
		.faults_max = 8,
		.queue_depth = 16,
		.retries_max = 2,
		.grace_ns = 0,
		.source_timeout_ns = NS_NEVER,
	};
}

struct rig *rig_prepare(uint64_t bytes)
{
	static const struct src_ops src_ops = {
		.name = "fake", .read = rig_src_read, .cancel = rig_src_cancel,
		.raise = rig_src_raise};
	struct rig *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	x->now = NS_PER_S;
	x->alias = aligned_alloc(PAGE_BYTES, bytes);
	assert_non_null(x->alias);
	memset(x->alias, 0, bytes);
	x->src.src = (struct src){.ops = &src_ops, .size = bytes};
	x->src.x = x;
	for (unsigned i = 0; i < RIG_VCPUS; i++)
		x->vcpus[i].cpu =
			(struct cpu_state){.cpl = 3, .interrupts_on = true, .paging = true};
	return x;
}

int rig_kernel_touch(struct hst *h, roff_t off, struct err *e)
{
	const struct mem_touch t = {off, MEM_VIEW_GUEST};

	return hst_kernel_touch(h, &t, e);
}

int rig_vmm_touch(struct hst *h, roff_t off, struct err *e)
{
	const struct mem_touch t = {off, MEM_VIEW_VMM};

	return hst_kernel_touch(h, &t, e);
}

void rig_start(struct rig *x, const struct hst_cfg *cfg)
{
	static const struct clock_ops clock_ops = {.now_ns = rig_now};
	static const struct mem_ops mem_ops = {
		.present = rig_mem_present, .poison = rig_mem_poison};
	static const struct plat_ops plat_ops = {
		.name = "fake",
		.inject_pf = rig_inject_pf,
		.cancel_pf = rig_cancel_pf,
		.finish_msr = rig_finish_msr,
		.set_msr = rig_set_msr,
		.is_writable = rig_is_writable,
		.take_registers = rig_take_registers,
		.show_registers = rig_show_registers,
		.pass_fault = rig_pass_fault,
		.raise_irq = rig_raise_irq,
		.kick = rig_kick,
	};

	assert_true(cfg->vcpus <= RIG_VCPUS);
	x->h.clock = (struct clock){&clock_ops, x};
	x->h.mem = (struct mem){&mem_ops, x, x->alias, x->h.ram.bytes};
	x->h.plat = (struct plat){&plat_ops, x};
	x->h.hooks = (struct hst_hooks){.outside_ready = rig_outside_ready,
					.trouble = rig_trouble,
					.trace = rig_trace,
					.ctx = x};
	x->space = calloc(1, hst_bytes(cfg, x->h.ram.bytes));
	assert_non_null(x->space);
	hst_init(&x->h, cfg, x->space);
}

struct rig *rig_open_pages(const struct hst_cfg *cfg, uint64_t pages)
{
	uint64_t block = 1ull << cfg->block_shift, bytes = align_up(pages << PAGE_SHIFT, block);
	struct rig *x = rig_prepare(bytes);

	assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){RIG_GPA}, bytes, block), RAM_ADDED);
	assert_int_equal(
		ram_add_backing(&x->h.ram, (gpa_t){RIG_GPA}, bytes, &x->src.src, 0, block),
		RAM_ADDED);
	rig_start(x, cfg);
	return x;
}

struct rig *rig_open(const struct hst_cfg *cfg)
{
	return rig_open_pages(cfg, RIG_PAGES);
}

void rig_assert_sound(const struct rig *x)
{
	const char *what = rig_broken(&x->h, x->discards);

	if (what)
		fail_msg("driver state: %s", what);
}

void rig_free(struct rig *x)
{
	free(x->space);
	free(x->alias);
	free(x->swap);
	free(x);
}

void rig_close(struct rig *x)
{
	rig_assert_sound(x);
	rig_free(x);
}

/* ---- driving ---- */

unsigned rig_pump(struct rig *x)
{
	struct hst_fetch *f;
	unsigned n = 0;

	while ((f = hst_take_filled(&x->h))) {
		struct err e = {0};
		int rc = hst_make_visible(f, &e);

		for (const struct hst_fetch *at = f; at; at = hst_fetch_next(at))
			n++;
		hst_shown(f, rc < 0 ? &e : NULL);
	}
	rig_assert_sound(x);
	return n;
}

uint64_t rig_block(const struct rig *x, uint64_t page)
{
	return page << PAGE_SHIFT >> x->h.cfg.block_shift;
}

void rig_bring(struct rig *x, uint64_t page)
{
	rig_answer(x, rig_read_at(x, rig_block(x, page) << x->h.cfg.block_shift), 0);
	rig_pump(x);
}

void rig_after(struct rig *x, uint64_t ns)
{
	x->now += ns;
	timers_run(&x->h.timers, x->now);
	rig_assert_sound(x);
}

bool rig_present(const struct rig *x, uint64_t page)
{
	return block_kind(&x->h, (uint32_t)rig_block(x, page)) == BLOCK_PRESENT;
}

void rig_populate(struct rig *x, uint64_t page)
{
	struct hst_waiter w = {.v = NULL};

	if (hst_ensure(&x->h, (roff_t){page << PAGE_SHIFT}, &w))
		return;
	if (x->src.answers == RIG_LATER && w.fetch->state == HST_FETCH_READING)
		rig_bring(x, page);
	rig_pump(x);
	assert_true(rig_present(x, page));
}

struct hst_vcpu *rig_v(struct rig *x, unsigned vcpu)
{
	return &x->h.vcpus[vcpu];
}

void rig_exit(struct rig *x, unsigned vcpu, bool kick_only)
{
	struct cpu_state cpu = x->vcpus[vcpu].cpu;

	cpu.untaken_token = x->vcpus[vcpu].untaken;
	cpu.event_pending |= cpu.untaken_token != 0;
	hst_exit(rig_v(x, vcpu), &cpu, kick_only);
}

void rig_fault(struct rig *x, unsigned vcpu, uint64_t page)
{
	rig_exit(x, vcpu, false);
	hst_fault(rig_v(x, vcpu), (roff_t){page << PAGE_SHIFT});
}

enum hst_next rig_next(struct rig *x, unsigned vcpu)
{
	struct hst_vcpu *v = rig_v(x, vcpu);
	enum hst_next next = hst_next(v);

	x->until = next != HST_WAIT ? 0 : timer_armed(&v->wake) ? v->wake.due_ns : NS_NEVER;

	rig_assert_sound(x);
	return next;
}

void rig_enters(struct rig *x, unsigned vcpu)
{
	enum hst_next next = rig_next(x, vcpu);

	if (x->h.cfg.rev != APF_REV_PF2_STRICT || next != HST_ENTER_RUNNABLE)
		assert_int_equal(next, HST_ENTER);
}

enum hst_next rig_fault_next(struct rig *x, unsigned vcpu, uint64_t page)
{
	rig_fault(x, vcpu, page);
	return rig_next(x, vcpu);
}

enum hst_next rig_pass(struct rig *x, unsigned vcpu)
{
	rig_exit(x, vcpu, false);
	return rig_next(x, vcpu);
}

void rig_load(struct hst_vcpu *v, roff_t off)
{
	static unsigned char data[8];
	const struct plat_io io = {
		.data = data, .len = (uint32_t)min_u64(8, PAGE_BYTES - off.v % PAGE_BYTES)};

	hst_ram_io(v, off, &io);
}

/* ---- the guest ---- */

void rig_wrmsr(struct rig *x, unsigned vcpu, uint32_t msr, uint64_t value)
{
	x->vcpus[vcpu].msr_done = false;
	rig_exit(x, vcpu, false);
	hst_wrmsr(rig_v(x, vcpu), msr, value);
}

void rig_wrmsr_ok(struct rig *x, unsigned vcpu, uint32_t msr, uint64_t value)
{
	rig_wrmsr(x, vcpu, msr, value);
	assert_true(x->vcpus[vcpu].msr_done && !x->vcpus[vcpu].msr_gp);
	rig_enters(x, vcpu);
}

uint64_t rig_rdmsr(struct rig *x, unsigned vcpu, uint32_t msr)
{
	rig_exit(x, vcpu, false);
	hst_rdmsr(rig_v(x, vcpu), msr);
	assert_false(x->vcpus[vcpu].msr_gp);
	assert_int_equal(rig_next(x, vcpu), HST_ENTER);
	return x->vcpus[vcpu].msr_value;
}

uint32_t rig_take_pf(struct rig *x, unsigned vcpu)
{
	uint32_t token = x->vcpus[vcpu].untaken;

	assert_int_not_equal(token, 0);
	x->vcpus[vcpu].untaken = 0;
	rig_area(x, vcpu)->reason = 0;
	return token;
}

uint32_t rig_take_irq(struct rig *x, unsigned vcpu)
{
	uint32_t token = rig_area(x, vcpu)->token;

	assert_true(x->vcpus[vcpu].irr);
	x->vcpus[vcpu].irr = false;
	rig_slot_free(x, vcpu);
	return token;
}

void rig_ack(struct rig *x, unsigned vcpu)
{
	rig_wrmsr_ok(x, vcpu, APF_MSR_ACK, APF_ACK_READY);
}

bool rig_by_irq(const struct rig *x)
{
	return x->h.cfg.rev != APF_REV_LEGACY;
}

uint64_t rig_en(const struct rig *x, unsigned vcpu)
{
	uint64_t en = (RIG_GPA + RIG_AREA_PAGE * PAGE_BYTES + 64u * vcpu) | APF_EN_ENABLED;

	return rig_by_irq(x) ? en | APF_EN_INT : en;
}

uint64_t rig_ctl(const struct rig *x)
{
	return RIG_VECTOR | (x->h.cfg.rev == APF_REV_INT ? 0 : APF_PF2_ENABLED);
}

uint32_t rig_take_ready(struct rig *x, unsigned vcpu)
{
	uint32_t token;

	if (!rig_by_irq(x)) {
		token = rig_take_pf(x, vcpu);
		rig_pass(x, vcpu);
		return token;
	}
	token = rig_take_irq(x, vcpu);
	if (x->h.cfg.rev == APF_REV_INT)
		rig_ack(x, vcpu);
	else
		rig_pass(x, vcpu);
	return token;
}

void rig_enable(struct rig *x, unsigned vcpu)
{
	rig_populate(x, RIG_AREA_PAGE);
	memset(rig_area(x, vcpu), 0, sizeof(struct apf_area));
	if (x->h.cfg.rev == APF_REV_INT)
		rig_wrmsr_ok(x, vcpu, APF_MSR_CTL, rig_ctl(x));
	rig_wrmsr_ok(x, vcpu, APF_MSR_EN, rig_en(x, vcpu));
	if (x->h.cfg.rev != APF_REV_INT && rig_by_irq(x))
		rig_wrmsr_ok(x, vcpu, APF_MSR_CTL, rig_ctl(x));
	assert_int_equal(rig_take_ready(x, vcpu), APF_TOKEN_WAKE_ALL);
	rig_log_clear(x);
}

struct rig *rig_open_on(enum apf_rev rev, unsigned vcpus)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, rev);
	struct rig *x;

	cfg.vcpus = vcpus;
	x = rig_open(&cfg);
	for (unsigned i = 0; i < vcpus; i++)
		rig_enable(x, i);
	return x;
}

uint32_t rig_sleeper(struct rig *x, unsigned vcpu, uint64_t page)
{
	assert_int_equal(rig_fault_next(x, vcpu, page), HST_ENTER);
	return rig_take_pf(x, vcpu);
}
