/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest half against a scripted host: what each revision does with a #PF and a ready
 * interrupt, in which order it touches the area and the MSRs, and who is woken when.
 * The host is this file: it writes the area as abi.md says and records what comes back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "guest/guest.h"

#define CPUS 2
#define NODES 8
#define VECTOR 0xec
#define GPA 0x4000ull
#define LOG_MAX 32

#define READY APF_REASON_READY
#define MISSING APF_REASON_MISSING
#define WAKE_ALL APF_TOKEN_WAKE_ALL

enum entry_kind { E_WRMSR, E_WAKE };

/* One call of the guest half, and the slot as the host saw it at that moment. */
struct entry {
	enum entry_kind kind;
	uint32_t msr;
	uint64_t value;
	void *task;
	uint32_t reason, token;
	bool area_zero;
};

struct world {
	struct gst_table table;
	struct gst_node nodes[NODES];
	struct apf_area area[CPUS] __attribute__((aligned(64)));
	struct gst_cpu cpu[CPUS];
	struct entry log[LOG_MAX];
	unsigned log_count;
	unsigned writes_until_gp; /* 0: none raises #GP */
};

static struct world w;
static int task[16]; /* only their addresses matter */

static bool all_zero(const void *p, size_t bytes)
{
	const unsigned char *b = p;

	for (size_t i = 0; i < bytes; i++) {
		if (b[i])
			return false;
	}
	return true;
}

static struct entry *record(struct gst_cpu *cpu)
{
	struct entry *e = &w.log[w.log_count++];

	assert_true(w.log_count <= LOG_MAX);
	*e = (struct entry){.reason = cpu->area->reason, .token = cpu->area->token};
	e->area_zero = all_zero(cpu->area, sizeof(*cpu->area));
	return e;
}

static bool on_wrmsr(void *ctx, uint32_t msr, uint64_t value)
{
	struct entry *e = record(ctx);

	e->kind = E_WRMSR;
	e->msr = msr;
	e->value = value;
	return w.writes_until_gp == 0 || --w.writes_until_gp != 0;
}

static void on_wake(void *ctx, void *t)
{
	struct entry *e = record(ctx);

	e->kind = E_WAKE;
	e->task = t;
}

static const struct gst_ops ops = {.wrmsr = on_wrmsr, .wake = on_wake};

/* A fresh world in which CPUs 0 and 1 are registered; the log is empty. */
static void start_nodes(enum apf_rev rev, uint32_t nodes)
{
	memset(&w, 0, sizeof(w));
	gst_table_init(&w.table, w.nodes, nodes);
	for (unsigned i = 0; i < CPUS; i++) {
		w.cpu[i] = (struct gst_cpu){.ops = &ops, .ctx = &w.cpu[i], .area = &w.area[i],
					    .area_gpa = GPA + 64 * i, .table = &w.table, .rev = rev,
					    .cpu = (uint16_t)i, .vector = VECTOR};
		assert_int_equal(gst_enable(&w.cpu[i]), rev != APF_REV_OFF);
	}
	w.log_count = 0;
}

static void start(enum apf_rev rev)
{
	start_nodes(rev, NODES);
}

static void expect_wrmsr(unsigned i, uint32_t msr, uint64_t value)
{
	assert_true(i < w.log_count);
	assert_int_equal(w.log[i].kind, E_WRMSR);
	assert_int_equal(w.log[i].msr, msr);
	assert_int_equal(w.log[i].value, value);
}

static void expect_wake(unsigned i, const void *t)
{
	assert_true(i < w.log_count);
	assert_int_equal(w.log[i].kind, E_WAKE);
	assert_ptr_equal(w.log[i].task, t);
}

static bool woken(const void *t)
{
	for (unsigned i = 0; i < w.log_count; i++) {
		if (w.log[i].kind == E_WAKE && w.log[i].task == t)
			return true;
	}
	return false;
}

/* A page-missing event, delivered as `rev` does it, and the demultiplexer's answer. */
static enum gst_pf missing(struct gst_cpu *cpu, uint32_t token)
{
	uint32_t got = 0;

	cpu->area->reason = MISSING;
	if (cpu->rev == APF_REV_PF2 || cpu->rev == APF_REV_PF2_STRICT)
		cpu->area->token = token; /* one 8-byte store, both events (docs/abi.md) */
	enum gst_pf what = gst_pf_enter(cpu, token, &got);
	if (what == GST_PF_MISSING)
		assert_int_equal(got, token);
	return what;
}

static void sleep_ok(unsigned cpu, uint32_t token, void *t)
{
	assert_int_equal(missing(&w.cpu[cpu], token), GST_PF_MISSING);
	assert_true(gst_sleep(&w.cpu[cpu], token, t));
}

/* A page-ready interrupt as the host sends it, and the handler. */
static void ready(unsigned cpu, uint32_t token)
{
	w.area[cpu].token = token;
	if (w.cpu[cpu].rev != APF_REV_INT)
		w.area[cpu].reason = READY;
	gst_ready_irq(&w.cpu[cpu]);
}

/* ---- Registration ---------------------------------------------------------------- */

/* gp_at: which write raises #GP, from 1; 0: none. */
static bool enable_with_gp(enum apf_rev rev, bool send_always, unsigned gp_at)
{
	memset(&w, 0, sizeof(w));
	w.writes_until_gp = gp_at;
	gst_table_init(&w.table, w.nodes, NODES);
	memset(w.area, 0x5a, sizeof(w.area));
	w.cpu[0] = (struct gst_cpu){.ops = &ops, .ctx = &w.cpu[0], .area = &w.area[0],
				    .area_gpa = GPA, .table = &w.table, .rev = rev,
				    .vector = VECTOR, .send_always = send_always};
	bool on = gst_enable(&w.cpu[0]);

	assert_int_equal(w.cpu[0].enabled, on);
	for (unsigned i = 0; i < w.log_count; i++)
		assert_true(w.log[i].area_zero); /* before the first write, not after */
	return on;
}

static void enable_from_dirty(enum apf_rev rev, bool send_always)
{
	assert_int_equal(enable_with_gp(rev, send_always, 0), rev != APF_REV_OFF);
}

static void test_enable_int(void **state)
{
	(void)state;
	enable_from_dirty(APF_REV_INT, false);
	assert_int_equal(w.log_count, 2);
	expect_wrmsr(0, APF_MSR_CTL, VECTOR);
	expect_wrmsr(1, APF_MSR_EN, GPA | APF_EN_ENABLED | APF_EN_INT);
}

static void test_enable_pf2(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_PF2, APF_REV_PF2_STRICT};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(revs); i++) {
		enable_from_dirty(revs[i], false);
		assert_int_equal(w.log_count, 3);
		expect_wrmsr(0, APF_MSR_CTL, 0); /* another kernel's vector may be there */
		expect_wrmsr(1, APF_MSR_EN, GPA | APF_EN_ENABLED | APF_EN_INT);
		expect_wrmsr(2, APF_MSR_CTL, VECTOR | APF_PF2_ENABLED);
	}
}

/*
 * Whichever write the host refuses: the CPU is not registered, and nothing is half done. EN is 0
 * behind it also where EN was refused: Linux's own host keeps the value (B12).
 */
static void test_enable_gp(void **state)
{
	static const struct {
		enum apf_rev rev;
		unsigned writes; /* of a registration */
	} rows[] = {{APF_REV_LEGACY, 1}, {APF_REV_INT, 2}, {APF_REV_PF2, 3},
		    {APF_REV_PF2_STRICT, 3}};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(rows); r++)
		for (unsigned at = 1; at <= rows[r].writes; at++) {
			assert_false(enable_with_gp(rows[r].rev, false, at));
			assert_int_equal(w.log_count, at + 1);
			expect_wrmsr(at, APF_MSR_EN, 0);

			/* A second try is a whole one. */
			assert_true(gst_enable(&w.cpu[0]));
			assert_int_equal(w.log_count, at + 1 + rows[r].writes);
			assert_true(w.cpu[0].enabled);
		}
}

static void test_enable_legacy(void **state)
{
	(void)state;
	enable_from_dirty(APF_REV_LEGACY, true);
	assert_int_equal(w.log_count, 1);
	expect_wrmsr(0, APF_MSR_EN, GPA | APF_EN_ENABLED | APF_EN_SEND_ALWAYS);
}

static void test_enable_off(void **state)
{
	(void)state;
	enable_from_dirty(APF_REV_OFF, false);
	assert_int_equal(w.log_count, 0);

	/* Also where the CPU was registered, and comes back by INIT on a host without events. */
	start(APF_REV_INT);
	w.cpu[0].rev = APF_REV_OFF;
	assert_false(gst_enable(&w.cpu[0]));
	assert_false(w.cpu[0].enabled);
	assert_int_equal(w.log_count, 0);
}

static void test_disable(void **state)
{
	(void)state;
	start(APF_REV_INT);
	sleep_ok(0, 0x1000, &task[0]);
	sleep_ok(1, 0x1001, &task[1]);
	w.area[0].token = 0x2000; /* an event that will not be taken any more */
	w.log_count = 0;
	gst_disable(&w.cpu[0]);
	assert_int_equal(w.log_count, 2);
	expect_wrmsr(0, APF_MSR_EN, 0); /* first: nobody writes the area behind it */
	assert_int_equal(w.log[0].token, 0x2000);
	expect_wake(1, &task[0]); /* and not task 1, which waits on the other CPU */
	assert_true(all_zero(&w.area[0], sizeof(w.area[0])));
	assert_false(w.cpu[0].enabled);

	/* The interrupt that was on its way finds nothing. */
	gst_ready_irq(&w.cpu[0]);
	assert_int_equal(w.cpu[0].spurious_count, 1);
	gst_disable(&w.cpu[0]);
	assert_int_equal(w.log_count, 3); /* the ACK; a second disable does nothing */

	assert_true(gst_enable(&w.cpu[0]));
	assert_true(w.cpu[0].enabled);
	expect_wrmsr(3, APF_MSR_CTL, VECTOR);
}

/* CTL survives an INIT: the next kernel on this CPU finds no vector of ours there. */
static void test_disable_pf2(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_PF2, APF_REV_PF2_STRICT};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(revs); i++) {
		start(revs[i]);
		sleep_ok(0, 0x1000, &task[0]);
		gst_disable(&w.cpu[0]);
		assert_int_equal(w.log_count, 3);
		expect_wrmsr(0, APF_MSR_EN, 0);
		expect_wrmsr(1, APF_MSR_CTL, 0);
		expect_wake(2, &task[0]);
	}
}

/* ---- Discovery ------------------------------------------------------------------- */

struct cpuid_leaf {
	uint32_t leaf, regs[4];
};

/* leaves: the processor's, leaf 0 ends them. What is not there reads as the first. */
static void on_cpuid(void *ctx, uint32_t leaf, uint32_t ret[4])
{
	const struct cpuid_leaf *first = ctx, *l = first;

	while (l->leaf && l->leaf != leaf)
		l++;
	memcpy(ret, l->leaf ? l->regs : first->regs, sizeof(l->regs));
}

#define SIGNATURE(eax) {(eax), APF_CPUID_PF2_EBX, APF_CPUID_PF2_ECX, APF_CPUID_PF2_EDX}
#define KVM_SIGNATURE {0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d}

static void test_discovery(void **state)
{
	struct cpuid_leaf there[] = {{1, {0, 0, 1u << 31, 0}},
				     {0x40000000, KVM_SIGNATURE},
				     {0x40000001, {0xffffffff, 0, 0, 0}},
				     {0x40000300, SIGNATURE(0x40000301)},
				     {0x40000301, {0xfffffffd, 7, 7, 7}},
				     {0, {0}}};

	(void)state;
	assert_int_equal(APF_CPUID_PF2_BASE, 0x40000300);
	/* Bits that have no meaning yet are not passed on. */
	assert_int_equal(gst_pf2_revisions(on_cpuid, there), APF_CPUID_REV_PF2);
	there[4].regs[0] = 2;
	assert_int_equal(gst_pf2_revisions(on_cpuid, there), APF_CPUID_REV_PF2_STRICT);
	there[3].leaf = there[3].regs[0] = 0x4000ff00; /* the last place, and no room behind it */
	there[4].leaf = 0x4000ff01;
	assert_int_equal(gst_pf2_revisions(on_cpuid, there), 0);
	there[3].regs[0] = 0x4000ff01;
	assert_int_equal(gst_pf2_revisions(on_cpuid, there), APF_CPUID_REV_PF2_STRICT);
	there[3].regs[3]++; /* one byte is wrong */
	assert_int_equal(gst_pf2_revisions(on_cpuid, there), 0);
	there[3].regs[3]--;
	there[0].regs[2] = 0; /* no hypervisor: the leaves are somebody else's */
	assert_int_equal(gst_pf2_revisions(on_cpuid, there), 0);
}

/* ---- The #PF entry --------------------------------------------------------------- */

static void test_pf_real(void **state)
{
	uint32_t token = 77;

	(void)state;
	for (unsigned rev = APF_REV_OFF; rev <= APF_REV_INT; rev++) {
		start((enum apf_rev)rev);
		assert_int_equal(gst_pf_enter(&w.cpu[0], 0x7fc00000, &token), GST_PF_REAL);
		assert_int_equal(token, 77);
		assert_int_equal(w.cpu[0].missing_count, 0);
		assert_int_equal(w.cpu[0].bad_count, 0);
	}
}

static void test_pf_missing(void **state)
{
	(void)state;
	for (unsigned rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		start((enum apf_rev)rev);
		assert_int_equal(missing(&w.cpu[0], 0x5000), GST_PF_MISSING);
		assert_int_equal(w.area[0].reason, 0); /* consumed: the next #PF is real */
		assert_int_equal(w.cpu[0].missing_count, 1);
		assert_int_equal(w.log_count, 0);
	}
}

/* int: the words are independent, a page-missing event leaves a waiting token alone. */
static void test_pf_missing_keeps_token(void **state)
{
	(void)state;
	start(APF_REV_INT);
	w.area[0].token = 0x9000;
	assert_int_equal(missing(&w.cpu[0], 0x5000), GST_PF_MISSING);
	assert_int_equal(w.area[0].token, 0x9000);
}

static void test_pf_bad_reason(void **state)
{
	uint32_t token;

	(void)state;
	for (unsigned rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		start((enum apf_rev)rev);
		w.area[0].reason = 4;
		assert_int_equal(gst_pf_enter(&w.cpu[0], 0x5000, &token), GST_PF_REAL);
		assert_int_equal(w.area[0].reason, 0);
		assert_int_equal(w.cpu[0].bad_count, 1);
		assert_int_equal(w.cpu[0].missing_count, 0);
	}
	/* int: bit 0 counts, whatever a later revision says with the others. */
	start(APF_REV_INT);
	w.area[0].reason = 5;
	assert_int_equal(gst_pf_enter(&w.cpu[0], 0x5000, &token), GST_PF_MISSING);
	assert_int_equal(token, 0x5000);
	assert_int_equal(w.cpu[0].bad_count, 1);
}

/* The collision: a real #PF while the page-ready event waits in the slot. */
static void test_pf_real_while_ready_pf2(void **state)
{
	uint32_t token;

	(void)state;
	start(APF_REV_PF2);
	sleep_ok(0, 0x1000, &task[0]);
	w.area[0].reason = READY;
	w.area[0].token = 0x1000;
	assert_int_equal(gst_pf_enter(&w.cpu[0], 0x7fc00040, &token), GST_PF_REAL);
	assert_int_equal(w.area[0].reason, READY);
	assert_int_equal(w.area[0].token, 0x1000);
	assert_int_equal(w.log_count, 0);
	gst_ready_irq(&w.cpu[0]);
	assert_true(woken(&task[0]));
}

static void test_pf_real_while_ready_strict(void **state)
{
	uint32_t token;

	(void)state;
	start(APF_REV_PF2_STRICT);
	sleep_ok(0, 0x1000, &task[0]);
	w.area[0].reason = READY;
	w.area[0].token = 0x1000;
	/* Hazard S2, kept: swallowed, and the interrupt then finds nothing. */
	assert_int_equal(gst_pf_enter(&w.cpu[0], 0x7fc00040, &token), GST_PF_DONE);
	assert_int_equal(w.area[0].reason, 0);
	assert_int_equal(w.table.early_count, 0); /* CR2 is not taken for a token */
	gst_ready_irq(&w.cpu[0]);
	assert_int_equal(w.cpu[0].spurious_count, 1);
	assert_false(woken(&task[0]));
}

static void test_pf_real_while_ready_int(void **state)
{
	uint32_t token;

	(void)state;
	start(APF_REV_INT);
	sleep_ok(0, 0x1000, &task[0]);
	w.area[0].token = 0x1000;
	assert_int_equal(gst_pf_enter(&w.cpu[0], 0x7fc00040, &token), GST_PF_REAL);
	assert_int_equal(w.area[0].token, 0x1000);
	gst_ready_irq(&w.cpu[0]);
	assert_true(woken(&task[0]));
}

static void test_legacy_ready(void **state)
{
	uint32_t token;

	(void)state;
	start(APF_REV_LEGACY);
	sleep_ok(0, 0x1000, &task[0]);
	w.area[0].reason = READY;
	assert_int_equal(gst_pf_enter(&w.cpu[0], 0x1000, &token), GST_PF_DONE);
	assert_int_equal(w.area[0].reason, 0);
	assert_int_equal(w.log_count, 1);
	expect_wake(0, &task[0]);
	assert_int_equal(w.cpu[0].ready_count, 1);

	sleep_ok(0, 0x2000, &task[1]);
	w.area[0].reason = READY;
	assert_int_equal(gst_pf_enter(&w.cpu[0], WAKE_ALL, &token), GST_PF_DONE);
	assert_true(woken(&task[1]));
	assert_int_equal(w.cpu[0].wake_all_count, 1);
	assert_int_equal(w.cpu[0].ready_count, 1);

	/* There is no ready interrupt in this revision. */
	w.area[0].reason = READY;
	gst_ready_irq(&w.cpu[0]);
	assert_int_equal(w.cpu[0].spurious_count, 1);
	assert_int_equal(w.area[0].reason, READY);
}

/* ---- The ready interrupt --------------------------------------------------------- */

/* read token -> wake -> token = 0 -> ACK (invariant 37). */
static void test_ready_order_int(void **state)
{
	(void)state;
	start(APF_REV_INT);
	sleep_ok(0, 0x1000, &task[0]);
	ready(0, 0x1000);
	assert_int_equal(w.log_count, 2);
	expect_wake(0, &task[0]);
	assert_int_equal(w.log[0].token, 0x1000); /* not freed yet */
	expect_wrmsr(1, APF_MSR_ACK, APF_ACK_READY);
	assert_int_equal(w.log[1].token, 0); /* freed before */
	assert_int_equal(w.cpu[0].ready_count, 1);
}

/* read token -> reason = 0 -> wake; no acknowledgement exists. */
static void test_ready_order_pf2(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_PF2, APF_REV_PF2_STRICT};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(revs); i++) {
		start(revs[i]);
		sleep_ok(0, 0x1000, &task[0]);
		ready(0, 0x1000);
		assert_int_equal(w.log_count, 1);
		expect_wake(0, &task[0]);
		assert_int_equal(w.log[0].reason, 0);
		assert_int_equal(w.cpu[0].ready_count, 1);
	}
}

static void test_ready_spurious(void **state)
{
	(void)state;
	start(APF_REV_INT);
	sleep_ok(0, 0x1000, &task[0]);
	gst_ready_irq(&w.cpu[0]);
	assert_int_equal(w.log_count, 1);
	expect_wrmsr(0, APF_MSR_ACK, APF_ACK_READY);
	assert_int_equal(w.cpu[0].spurious_count, 1);
	assert_int_equal(w.cpu[0].ready_count, 0);
	assert_int_equal(w.table.early_count, 0);

	start(APF_REV_PF2);
	sleep_ok(0, 0x1000, &task[0]);
	gst_ready_irq(&w.cpu[0]);
	assert_int_equal(w.log_count, 0);
	assert_int_equal(w.cpu[0].spurious_count, 1);
}

static void test_wake_all_is_per_cpu(void **state)
{
	(void)state;
	start(APF_REV_INT);
	sleep_ok(0, 0x1000, &task[0]);
	sleep_ok(0, 0x2000, &task[1]);
	sleep_ok(1, 0x1001, &task[2]);
	ready(0, WAKE_ALL);
	assert_true(woken(&task[0]));
	assert_true(woken(&task[1]));
	assert_false(woken(&task[2]));
	assert_int_equal(w.cpu[0].wake_all_count, 1);
	assert_int_equal(w.cpu[0].ready_count, 0);
	assert_int_equal(w.area[0].token, 0);
	ready(1, WAKE_ALL);
	assert_true(woken(&task[2]));
}

/* ---- Sleepers -------------------------------------------------------------------- */

static void test_ready_on_another_cpu(void **state)
{
	(void)state;
	start(APF_REV_INT);
	sleep_ok(0, 0x1000, &task[0]);
	ready(1, 0x1000);
	assert_true(woken(&task[0]));
}

static void test_wake_before_sleep(void **state)
{
	(void)state;
	start(APF_REV_INT);
	ready(1, 0x1000);
	ready(1, 0x1000); /* twice, remembered once */
	assert_int_equal(w.table.early_count, 1);
	assert_int_equal(missing(&w.cpu[0], 0x1000), GST_PF_MISSING);
	assert_false(gst_sleep(&w.cpu[0], 0x1000, &task[0]));
	assert_int_equal(w.table.early_count, 0);
	sleep_ok(0, 0x1000, &task[0]); /* consumed by exactly one */
}

static void test_early_dropped_on_wake_all(void **state)
{
	(void)state;
	start(APF_REV_INT);
	ready(0, 0x1000);
	ready(1, 0x2000);
	assert_int_equal(w.table.early_count, 2);
	ready(0, WAKE_ALL);
	assert_int_equal(w.table.early_count, 1);
	sleep_ok(0, 0x1000, &task[0]); /* forgotten */
	assert_false(gst_sleep(&w.cpu[1], 0x2000, &task[1])); /* the other CPU's is not */
}

/*
 * The wake-up that a wake-all forgets may be for a task that another CPU is about to park: each
 * other CPU's next sleeper is sent back once.
 */
static void test_early_of_another_cpu_on_wake_all(void **state)
{
	(void)state;
	start(APF_REV_INT);
	assert_int_equal(missing(&w.cpu[0], 0x1000), GST_PF_MISSING);
	ready(1, 0x1000);
	ready(1, WAKE_ALL);
	assert_int_equal(w.table.early_count, 0);
	assert_false(gst_sleep(&w.cpu[0], 0x1000, &task[0]));
	sleep_ok(0, 0x2000, &task[0]);
	sleep_ok(1, 0x3001, &task[1]); /* nobody is on the way where the wake-all came */

	/* With nothing forgotten nobody is sent back. */
	ready(1, WAKE_ALL);
	assert_true(woken(&task[1]));
	sleep_ok(0, 0x4000, &task[2]);
	assert_int_equal(w.table.overflow_count, 0);
}

/* Neither 0 nor ~0 is ever remembered (invariant 34). */
static void test_no_early_for_reserved_tokens(void **state)
{
	(void)state;
	start(APF_REV_PF2);
	ready(0, 0);
	gst_wake(&w.cpu[0], 0);
	assert_int_equal(w.table.early_count, 0);
	gst_wake(&w.cpu[0], WAKE_ALL);
	assert_int_equal(w.table.early_count, 0);
	assert_int_equal(w.log_count, 0);
}

static void test_two_tasks_one_token(void **state)
{
	(void)state;
	start(APF_REV_INT);
	sleep_ok(0, 0x1000, &task[0]);
	assert_false(gst_sleep(&w.cpu[0], 0x1000, &task[1]));
	ready(0, 0x1000);
	assert_true(woken(&task[0]));
	assert_false(woken(&task[1]));
	assert_int_equal(w.table.early_count, 0);
}

/* Many tokens in few buckets: chains keep their members when one in the middle goes. */
static void test_chains(void **state)
{
	static struct gst_node nodes[4096];

	(void)state;
	start(APF_REV_INT);
	gst_table_init(&w.table, nodes, ARRAY_LEN(nodes));
	for (uint32_t i = 1; i <= ARRAY_LEN(nodes); i++)
		assert_true(gst_sleep(&w.cpu[0], i << APF_TOKEN_VCPU_BITS, &task[i % 16]));
	for (uint32_t k = 0; k < ARRAY_LEN(nodes); k++) {
		uint32_t i = (k * 1237) % ARRAY_LEN(nodes) + 1; /* odd factor: each once */
		w.log_count = 0;
		gst_wake(&w.cpu[0], i << APF_TOKEN_VCPU_BITS);
		assert_int_equal(w.log_count, 1);
		expect_wake(0, &task[i % 16]);
	}
	assert_int_equal(w.table.early_count, 0);
	assert_int_equal(w.table.overflow_count, 0);
	/* And all nodes are free again. */
	for (uint32_t i = 1; i <= ARRAY_LEN(nodes); i++)
		assert_true(gst_sleep(&w.cpu[0], i, &task[0]));
}

/* ---- Overflow -------------------------------------------------------------------- */

static void test_sleep_overflow(void **state)
{
	(void)state;
	start_nodes(APF_REV_INT, 2);
	sleep_ok(0, 0x1000, &task[0]);
	sleep_ok(1, 0x1001, &task[1]);
	assert_false(gst_sleep(&w.cpu[0], 0x2000, &task[2]));
	assert_true(woken(&task[0]));
	assert_true(woken(&task[1])); /* of every CPU */
	assert_int_equal(w.table.overflow_count, 1);
	sleep_ok(0, 0x3000, &task[2]); /* there is room again */
}

/*
 * A wake-up that is forgotten for want of room may be the one that a CPU is just about
 * to wait for: each CPU's next sleeper is sent back once, and only once.
 */
static void test_early_overflow_loses_nothing(void **state)
{
	(void)state;
	start_nodes(APF_REV_INT, 2);
	sleep_ok(0, 0x1000, &task[0]);
	ready(1, 0x2000); /* came first; its sleeper is on its way on CPU 0 */
	ready(1, 0x3000); /* no room: everything goes */
	assert_true(woken(&task[0]));
	assert_int_equal(w.table.overflow_count, 1);
	assert_int_equal(w.table.early_count, 0);
	assert_false(gst_sleep(&w.cpu[0], 0x2000, &task[1]));
	assert_false(gst_sleep(&w.cpu[1], 0x3000, &task[2]));
	sleep_ok(0, 0x4000, &task[1]);
	sleep_ok(1, 0x5000, &task[2]);
	ready(0, 0x4000);
	assert_true(woken(&task[1]));
}

/*
 * B7: pf2-strict sends page ready for what only halted the vCPU, and nobody sleeps under that
 * token, ever. Each is remembered as early; the table is never full of them for good, and whoever
 * does sleep is woken.
 */
static void test_untold_ready_strict(void **state)
{
	(void)state;
	start_nodes(APF_REV_PF2_STRICT, 4);
	for (uint32_t i = 1; i <= 100; i++) {
		uint32_t token = (2 * i) << APF_TOKEN_VCPU_BITS;
		void *t = &task[i % 16];

		w.log_count = 0;
		assert_int_equal(missing(&w.cpu[0], token), GST_PF_MISSING);
		bool sleeps = gst_sleep(&w.cpu[0], token, t);

		ready(0, token + (1u << APF_TOKEN_VCPU_BITS)); /* nobody's */
		ready(0, token);
		/* Sent back, or woken: by its own event, or with all when there was no room. */
		assert_int_equal(woken(t), sleeps);
		assert_true(w.table.early_count <= 4);
	}
	assert_int_equal(w.cpu[0].ready_count, 200);
	assert_int_equal(w.cpu[0].bad_count + w.cpu[0].spurious_count, 0);
	assert_true(w.table.overflow_count > 10 && w.table.overflow_count <= 100);
	ready(0, WAKE_ALL);
	assert_int_equal(w.table.early_count, 0);
	/* All nodes are there. */
	for (uint32_t i = 0; i < 4; i++)
		assert_true(gst_sleep(&w.cpu[0], 0x900000 + i, &task[i]) || i == 0);
}

/* The token is given again to somebody who is told: sent back once, asleep under the next. */
static void test_untold_token_is_given_again(void **state)
{
	(void)state;
	start(APF_REV_PF2_STRICT);
	ready(0, 0x1000);
	assert_int_equal(w.table.early_count, 1);
	assert_int_equal(missing(&w.cpu[0], 0x1000), GST_PF_MISSING);
	assert_false(gst_sleep(&w.cpu[0], 0x1000, &task[0]));
	assert_int_equal(w.table.early_count, 0);
	sleep_ok(0, 0x2000, &task[0]);
	ready(0, 0x1000); /* of the fault that it did not sleep for */
	assert_false(woken(&task[0]));
	ready(0, 0x2000);
	assert_true(woken(&task[0]));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_enable_int),
		cmocka_unit_test(test_enable_pf2),
		cmocka_unit_test(test_enable_gp),
		cmocka_unit_test(test_enable_legacy),
		cmocka_unit_test(test_enable_off),
		cmocka_unit_test(test_disable),
		cmocka_unit_test(test_disable_pf2),
		cmocka_unit_test(test_discovery),
		cmocka_unit_test(test_pf_real),
		cmocka_unit_test(test_pf_missing),
		cmocka_unit_test(test_pf_missing_keeps_token),
		cmocka_unit_test(test_pf_bad_reason),
		cmocka_unit_test(test_pf_real_while_ready_pf2),
		cmocka_unit_test(test_pf_real_while_ready_strict),
		cmocka_unit_test(test_pf_real_while_ready_int),
		cmocka_unit_test(test_legacy_ready),
		cmocka_unit_test(test_ready_order_int),
		cmocka_unit_test(test_ready_order_pf2),
		cmocka_unit_test(test_ready_spurious),
		cmocka_unit_test(test_wake_all_is_per_cpu),
		cmocka_unit_test(test_ready_on_another_cpu),
		cmocka_unit_test(test_wake_before_sleep),
		cmocka_unit_test(test_early_dropped_on_wake_all),
		cmocka_unit_test(test_early_of_another_cpu_on_wake_all),
		cmocka_unit_test(test_no_early_for_reserved_tokens),
		cmocka_unit_test(test_two_tasks_one_token),
		cmocka_unit_test(test_chains),
		cmocka_unit_test(test_sleep_overflow),
		cmocka_unit_test(test_early_overflow_loses_nothing),
		cmocka_unit_test(test_untold_ready_strict),
		cmocka_unit_test(test_untold_token_is_given_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
