/* SPDX-License-Identifier: Apache-2.0 */
/* See host_fixture.h. */
#include "host_fixture.h"

/* ---- log ---- */

void hx_log(struct hx *x, enum hx_op op, unsigned vcpu, uint64_t a, uint64_t b)
{
	x->counts[op]++;
	if (x->log_len < HX_LOG)
		x->log[x->log_len++] = (struct hx_entry){op, vcpu, a, b};
}

void hx_log_clear(struct hx *x)
{
	x->log_len = 0;
	memset(x->counts, 0, sizeof(x->counts));
}

unsigned hx_nth(const struct hx *x, enum hx_op op, unsigned n)
{
	for (unsigned i = 0; i < x->log_len; i++)
		if (x->log[i].op == op && n-- == 0)
			return i;
	return HX_LOG;
}

const struct hx_entry *hx_entry(const struct hx *x, enum hx_op op, unsigned n)
{
	unsigned at = hx_nth(x, op, n);

	assert_true(at < HX_LOG);
	return &x->log[at];
}

/* ---- clock, memory ---- */

uint64_t hx_now(void *ctx)
{
	return ((struct hx *)ctx)->now;
}

int hx_mem_result(struct hx *x, const char *what, struct err *e)
{
	struct hx_mem_faults *f = &x->mem_faults;
	bool fails = f->at != 0 && (++f->calls == f->at || (f->on && f->calls > f->at));

	return fails ? err_set(e, -ENOMEM, "fake memory: %s", what) : 0;
}

int hx_mem_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch_writes,
		   struct err *e)
{
	struct hx *x = ctx;

	(void)watch_writes;
	hx_log(x, HX_PRESENT, views, off.v, len);
	if (x->on_present)
		x->on_present(x, off, len);
	return hx_mem_result(x, "present", e);
}

int hx_mem_poison(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	hx_log(ctx, HX_POISON, 0, off.v, len);
	return hx_mem_result(ctx, "poison", e);
}

/* ---- source ---- */

unsigned char hx_byte(uint64_t offset)
{
	return (unsigned char)(1 + (offset >> PAGE_SHIFT) % 251);
}

void hx_fill(const struct src_read *rd)
{
	unsigned char *p = rd->buf;
	uint64_t at = rd->offset, end = rd->offset + rd->len;

	while (at < end) {
		uint64_t n = min_u64(end - at, PAGE_BYTES - at % PAGE_BYTES);

		memset(p, hx_byte(at), n);
		p += n;
		at += n;
	}
}

void hx_copy_piece(struct hx_src *s, const struct hst_offer *o, const struct hst_piece *p)
{
	const struct src_read rd = {
		.offset = o->offset + p->from, .buf = p->to, .len = (uint32_t)p->len};
	struct hst *h = p->fetch->h;

	hx_fill(&rd);
	if (s->allocated)
		for (uint64_t at = 0; at < p->len; at += PAGE_BYTES)
			s->allocated[((uintptr_t)p->to - (uintptr_t)h->mem.alias + at) >>
				     PAGE_SHIFT] = true;
}

void hx_src_answer(struct hx_src *s, unsigned i, int code)
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
			hx_fill(rd);
		rd->done(rd, NULL);
		return;
	}
	/* What a failed read leaves behind is undefined. */
	memset(rd->buf, 0xee, rd->len);
	err_set(&why, code, "fake source: error %d at %llu", -code, (unsigned long long)rd->offset);
	rd->done(rd, &why);
}

void hx_answer(struct hx *x, unsigned i, int code)
{
	hx_src_answer(&x->src, i, code);
}

void hx_src_read(struct src *s, struct src_read *rd)
{
	struct hx_src *f = CONTAINER_OF(s, struct hx_src, src);

	assert_true(rd->len > 0 && rd->offset + rd->len <= s->size && f->count < HX_READS);
	hx_log(f->x, HX_READ, 0, rd->offset, rd->len);
	f->cancelled[f->count] = false;
	f->reads[f->count++] = rd;
	assert_true(f->count <= f->x->h.cfg.queue_depth);
	if (f->count > f->count_max)
		f->count_max = f->count;
	assert_int_equal(f->nesting++, 0);
	if (f->answers != HX_LATER)
		hx_src_answer(f, f->count - 1, f->answers == HX_AT_ONCE ? 0 : -EIO);
	f->nesting--;
}

unsigned hx_src_read_at(const struct hx_src *s, uint64_t offset)
{
	for (unsigned i = 0; i < s->count; i++)
		if (s->reads[i]->offset == offset)
			return i;
	fail_msg("no outstanding read at %llu", (unsigned long long)offset);
	return 0;
}

unsigned hx_read_at(const struct hx *x, uint64_t offset)
{
	return hx_src_read_at(&x->src, offset);
}

void hx_src_cancel(struct src *s, struct src_read *rd)
{
	struct hx_src *f = CONTAINER_OF(s, struct hx_src, src);
	unsigned i = hx_src_read_at(f, rd->offset);

	assert_ptr_equal(f->reads[i], rd); /* outstanding, as the contract wants it */
	hx_log(f->x, HX_CANCEL, 0, rd->offset, 0);
	f->cancelled[i] = true;
	if (f->cancels == HX_CANCEL_ENDS)
		hx_src_answer(f, i, -ECANCELED);
}

/* ---- platform ---- */

struct apf_area *hx_area(struct hx *x, unsigned vcpu)
{
	size_t at = HX_AREA_PAGE * PAGE_BYTES + 64u * vcpu;

	return (struct apf_area *)(void *)(x->alias + at);
}

bool hx_slot_full(struct hx *x, unsigned vcpu)
{
	const struct apf_area *a = hx_area(x, vcpu);

	return x->h.cfg.rev == APF_REV_INT ? a->token != 0 : a->reason != 0;
}

void hx_slot_free(struct hx *x, unsigned vcpu)
{
	if (x->h.cfg.rev == APF_REV_INT)
		hx_area(x, vcpu)->token = 0;
	else
		hx_area(x, vcpu)->reason = 0;
}

void hx_inject_pf(void *ctx, unsigned vcpu, uint32_t token)
{
	struct hx *x = ctx;

	assert_int_equal(x->vcpus[vcpu].untaken, 0);
	assert_int_equal(x->h.vcpus[vcpu].where, HST_IN_HOST);
	assert_int_not_equal(hx_area(x, vcpu)->reason, 0); /* stored before it is told */
	x->vcpus[vcpu].untaken = token;
	hx_log(x, HX_INJECT, vcpu, token, 0);
}

void hx_cancel_pf(void *ctx, unsigned vcpu)
{
	struct hx *x = ctx;

	assert_int_equal(x->h.vcpus[vcpu].where, HST_IN_HOST);
	hx_log(x, HX_CANCEL_PF, vcpu, x->vcpus[vcpu].untaken, 0);
	x->vcpus[vcpu].untaken = 0;
}

void hx_finish_msr(void *ctx, unsigned vcpu, uint64_t value, bool gp)
{
	struct hx *x = ctx;

	x->vcpus[vcpu].msr_done = true;
	x->vcpus[vcpu].msr_value = value;
	x->vcpus[vcpu].msr_gp = gp;
	hx_log(x, HX_MSR, vcpu, value, gp);
}

int hx_set_msr(void *ctx, unsigned vcpu, uint32_t msr, uint64_t value)
{
	struct hx *x = ctx;

	hx_log(x, HX_SET_MSR, vcpu, msr, value);
	return x->set_msr_rc;
}

void hx_take_registers(void *ctx, unsigned vcpu, struct plat_registers *ret)
{
	struct hx *x = ctx;

	*ret = x->vcpus[vcpu].in_kvm;
}

void hx_show_registers(void *ctx, unsigned vcpu, uint64_t en, uint64_t ctl)
{
	hx_log(ctx, HX_SHOW, vcpu, en, ctl);
}

void hx_pass_fault(void *ctx, unsigned vcpu)
{
	hx_log(ctx, HX_PASS_FAULT, vcpu, 0, 0);
}

int hx_raise_irq(void *ctx, unsigned vcpu, uint8_t vector)
{
	struct hx *x = ctx;
	struct hx_vcpu *g = &x->vcpus[vcpu];

	assert_true(hx_slot_full(x, vcpu)); /* stored before it is told */
	hx_log(x, HX_IRQ, vcpu, vector, !g->apic_off);
	if (g->apic_off) {
		if (x->on_refusal)
			x->on_refusal(x, vcpu);
		return g->irq_rc;
	}
	g->irr |= vector == HX_VECTOR;
	return 1;
}

void hx_kick(void *ctx, unsigned vcpu)
{
	struct hx *x = ctx;

	x->vcpus[vcpu].kicked = true;
	hx_log(x, HX_KICK, vcpu, 0, 0);
}

/* ---- hooks ---- */

void hx_outside_ready(void *ctx)
{
	hx_log(ctx, HX_OUTSIDE, 0, 0, 0);
}

void hx_trouble(void *ctx, const struct hst_trouble *t)
{
	struct hx *x = ctx;

	if (t)
		x->trouble = *t;
	hx_log(x, t ? HX_TROUBLE : HX_GOES_ON, 0, t ? t->gpa.v : 0, t ? t->tries : 0);
}

/* ---- set-up ---- */

struct hst_cfg hx_cfg(enum hst_faults faults, enum apf_rev rev)
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

struct hx *hx_prepare(uint64_t bytes)
{
	static const struct src_ops src_ops = {
		.name = "fake", .read = hx_src_read, .cancel = hx_src_cancel};
	struct hx *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	x->now = NS_PER_S;
	x->alias = aligned_alloc(PAGE_BYTES, bytes);
	assert_non_null(x->alias);
	memset(x->alias, 0, bytes);
	x->src.src = (struct src){.ops = &src_ops, .size = bytes};
	x->src.x = x;
	for (unsigned i = 0; i < HX_VCPUS; i++)
		x->vcpus[i].cpu =
			(struct cpu_state){.cpl = 3, .interrupts_on = true, .paging = true};
	return x;
}

int hx_kernel_touch(struct hst *h, roff_t off, struct err *e)
{
	const struct mem_touch t = {off, MEM_VIEW_GUEST};

	return hst_kernel_touch(h, &t, e);
}

int hx_vmm_touch(struct hst *h, roff_t off, struct err *e)
{
	const struct mem_touch t = {off, MEM_VIEW_VMM};

	return hst_kernel_touch(h, &t, e);
}

void hx_start(struct hx *x, const struct hst_cfg *cfg)
{
	static const struct clock_ops clock_ops = {.now_ns = hx_now};
	static const struct mem_ops mem_ops = {
		.present = hx_mem_present, .poison = hx_mem_poison};
	static const struct plat_ops plat_ops = {
		.name = "fake",
		.inject_pf = hx_inject_pf,
		.cancel_pf = hx_cancel_pf,
		.finish_msr = hx_finish_msr,
		.set_msr = hx_set_msr,
		.take_registers = hx_take_registers,
		.show_registers = hx_show_registers,
		.pass_fault = hx_pass_fault,
		.raise_irq = hx_raise_irq,
		.kick = hx_kick,
	};

	assert_true(cfg->vcpus <= HX_VCPUS);
	x->h.clock = (struct clock){&clock_ops, x};
	x->h.mem = (struct mem){&mem_ops, x, x->alias, x->h.ram.bytes};
	x->h.plat = (struct plat){&plat_ops, x};
	x->h.hooks = (struct hst_hooks){
		.outside_ready = hx_outside_ready, .trouble = hx_trouble, .ctx = x};
	x->space = calloc(1, hst_bytes(cfg, x->h.ram.bytes));
	assert_non_null(x->space);
	hst_init(&x->h, cfg, x->space);
}

struct hx *hx_open_pages(const struct hst_cfg *cfg, uint64_t pages)
{
	uint64_t block = 1ull << cfg->block_shift, bytes = align_up(pages << PAGE_SHIFT, block);
	struct hx *x = hx_prepare(bytes);

	assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){HX_GPA}, bytes, block), RAM_ADDED);
	assert_int_equal(
		ram_add_backing(&x->h.ram, (gpa_t){HX_GPA}, bytes, &x->src.src, 0, block),
		RAM_ADDED);
	hx_start(x, cfg);
	return x;
}

struct hx *hx_open(const struct hst_cfg *cfg)
{
	return hx_open_pages(cfg, HX_PAGES);
}

void hx_assert_sound(const struct hx *x)
{
	const char *what = hx_broken(&x->h, x->discards);

	if (what)
		fail_msg("driver state: %s", what);
}

void hx_free(struct hx *x)
{
	free(x->space);
	free(x->alias);
	free(x->swap);
	free(x);
}

void hx_close(struct hx *x)
{
	hx_assert_sound(x);
	hx_free(x);
}

/* ---- driving ---- */

unsigned hx_pump(struct hx *x)
{
	struct hst_fetch *f;
	unsigned n = 0;

	while ((f = hst_take_filled(&x->h))) {
		struct err e = {0};
		int rc = hst_make_visible(f, &e);

		for (const struct hst_fetch *at = f; at; at = at->next)
			n++;
		hst_shown(f, rc < 0 ? &e : NULL);
	}
	hx_assert_sound(x);
	return n;
}

uint64_t hx_block(const struct hx *x, uint64_t page)
{
	return page << PAGE_SHIFT >> x->h.cfg.block_shift;
}

void hx_bring(struct hx *x, uint64_t page)
{
	hx_answer(x, hx_read_at(x, hx_block(x, page) << x->h.cfg.block_shift), 0);
	hx_pump(x);
}

void hx_after(struct hx *x, uint64_t ns)
{
	x->now += ns;
	timers_run(&x->h.timers, x->now);
	hx_assert_sound(x);
}

bool hx_present(const struct hx *x, uint64_t page)
{
	return block_kind(&x->h, (uint32_t)hx_block(x, page)) == BLOCK_PRESENT;
}

void hx_populate(struct hx *x, uint64_t page)
{
	struct hst_waiter w = {.v = NULL};

	if (hst_ensure(&x->h, (roff_t){page << PAGE_SHIFT}, &w))
		return;
	if (x->src.answers == HX_LATER && w.fetch->state == HST_FETCH_READING)
		hx_bring(x, page);
	hx_pump(x);
	assert_true(hx_present(x, page));
}

struct hst_vcpu *hx_v(struct hx *x, unsigned vcpu)
{
	return &x->h.vcpus[vcpu];
}

void hx_exit(struct hx *x, unsigned vcpu, bool kick_only)
{
	struct cpu_state cpu = x->vcpus[vcpu].cpu;

	cpu.untaken_token = x->vcpus[vcpu].untaken;
	cpu.event_pending |= cpu.untaken_token != 0;
	hst_exit(hx_v(x, vcpu), &cpu, kick_only);
}

void hx_fault(struct hx *x, unsigned vcpu, uint64_t page)
{
	hx_exit(x, vcpu, false);
	hst_fault(hx_v(x, vcpu), (roff_t){page << PAGE_SHIFT});
}

enum hst_next hx_next(struct hx *x, unsigned vcpu)
{
	struct hst_vcpu *v = hx_v(x, vcpu);
	enum hst_next next = hst_next(v);

	x->until = next != HST_WAIT ? 0 : timer_armed(&v->wake) ? v->wake.due_ns : NS_NEVER;

	hx_assert_sound(x);
	return next;
}

void hx_enters(struct hx *x, unsigned vcpu)
{
	enum hst_next next = hx_next(x, vcpu);

	if (x->h.cfg.rev != APF_REV_PF2_STRICT || next != HST_ENTER_RUNNABLE)
		assert_int_equal(next, HST_ENTER);
}

enum hst_next hx_fault_next(struct hx *x, unsigned vcpu, uint64_t page)
{
	hx_fault(x, vcpu, page);
	return hx_next(x, vcpu);
}

enum hst_next hx_pass(struct hx *x, unsigned vcpu)
{
	hx_exit(x, vcpu, false);
	return hx_next(x, vcpu);
}

void hx_load(struct hst_vcpu *v, roff_t off)
{
	static unsigned char data[8];
	const struct plat_io io = {
		.data = data, .len = (uint32_t)min_u64(8, PAGE_BYTES - off.v % PAGE_BYTES)};

	hst_ram_io(v, off, &io);
}

/* ---- the guest ---- */

void hx_wrmsr(struct hx *x, unsigned vcpu, uint32_t msr, uint64_t value)
{
	x->vcpus[vcpu].msr_done = false;
	hx_exit(x, vcpu, false);
	hst_wrmsr(hx_v(x, vcpu), msr, value);
}

void hx_wrmsr_ok(struct hx *x, unsigned vcpu, uint32_t msr, uint64_t value)
{
	hx_wrmsr(x, vcpu, msr, value);
	assert_true(x->vcpus[vcpu].msr_done && !x->vcpus[vcpu].msr_gp);
	hx_enters(x, vcpu);
}

uint64_t hx_rdmsr(struct hx *x, unsigned vcpu, uint32_t msr)
{
	hx_exit(x, vcpu, false);
	hst_rdmsr(hx_v(x, vcpu), msr);
	assert_false(x->vcpus[vcpu].msr_gp);
	assert_int_equal(hx_next(x, vcpu), HST_ENTER);
	return x->vcpus[vcpu].msr_value;
}

uint32_t hx_take_pf(struct hx *x, unsigned vcpu)
{
	uint32_t token = x->vcpus[vcpu].untaken;

	assert_int_not_equal(token, 0);
	x->vcpus[vcpu].untaken = 0;
	hx_area(x, vcpu)->reason = 0;
	return token;
}

uint32_t hx_take_irq(struct hx *x, unsigned vcpu)
{
	uint32_t token = hx_area(x, vcpu)->token;

	assert_true(x->vcpus[vcpu].irr);
	x->vcpus[vcpu].irr = false;
	hx_slot_free(x, vcpu);
	return token;
}

void hx_ack(struct hx *x, unsigned vcpu)
{
	hx_wrmsr_ok(x, vcpu, APF_MSR_ACK, APF_ACK_READY);
}

bool hx_by_irq(const struct hx *x)
{
	return x->h.cfg.rev != APF_REV_LEGACY;
}

uint64_t hx_en(const struct hx *x, unsigned vcpu)
{
	uint64_t en = (HX_GPA + HX_AREA_PAGE * PAGE_BYTES + 64u * vcpu) | APF_EN_ENABLED;

	return hx_by_irq(x) ? en | APF_EN_INT : en;
}

uint64_t hx_ctl(const struct hx *x)
{
	return HX_VECTOR | (x->h.cfg.rev == APF_REV_INT ? 0 : APF_PF2_ENABLED);
}

uint32_t hx_take_ready(struct hx *x, unsigned vcpu)
{
	uint32_t token;

	if (!hx_by_irq(x)) {
		token = hx_take_pf(x, vcpu);
		hx_pass(x, vcpu);
		return token;
	}
	token = hx_take_irq(x, vcpu);
	if (x->h.cfg.rev == APF_REV_INT)
		hx_ack(x, vcpu);
	else
		hx_pass(x, vcpu);
	return token;
}

void hx_enable(struct hx *x, unsigned vcpu)
{
	hx_populate(x, HX_AREA_PAGE);
	memset(hx_area(x, vcpu), 0, sizeof(struct apf_area));
	if (x->h.cfg.rev == APF_REV_INT)
		hx_wrmsr_ok(x, vcpu, APF_MSR_CTL, hx_ctl(x));
	hx_wrmsr_ok(x, vcpu, APF_MSR_EN, hx_en(x, vcpu));
	if (x->h.cfg.rev != APF_REV_INT && hx_by_irq(x))
		hx_wrmsr_ok(x, vcpu, APF_MSR_CTL, hx_ctl(x));
	assert_int_equal(hx_take_ready(x, vcpu), APF_TOKEN_WAKE_ALL);
	hx_log_clear(x);
}

struct hx *hx_open_on(enum apf_rev rev, unsigned vcpus)
{
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_USER, rev);
	struct hx *x;

	cfg.vcpus = vcpus;
	x = hx_open(&cfg);
	for (unsigned i = 0; i < vcpus; i++)
		hx_enable(x, i);
	return x;
}

uint32_t hx_sleeper(struct hx *x, unsigned vcpu, uint64_t page)
{
	assert_int_equal(hx_fault_next(x, vcpu, page), HST_ENTER);
	return hx_take_pf(x, vcpu);
}
