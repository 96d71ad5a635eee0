/* SPDX-License-Identifier: Apache-2.0 */
/* See drive_fixture.h. */
#include "drive_fixture.h"

struct hst_step dx_pumped(struct hx *x, unsigned vcpu, struct hst_step s)
{
	while (s.todo == HST_TODO_PUMP) {
		hx_pump(x);
		hst_vcpu_step(hx_v(x, vcpu), HST_DID_PUMP, NULL, false, &s);
	}
	hx_assert_sound(x);
	return s;
}

struct hst_step dx_did(struct hx *x, unsigned vcpu, enum hst_did did, bool wanted)
{
	struct hst_step s;

	hst_vcpu_step(hx_v(x, vcpu), did, NULL, wanted, &s);
	return dx_pumped(x, vcpu, s);
}

struct hst_step dx_call(struct hx *x)
{
	return dx_did(x, 0, HST_DID_CALL, false);
}

struct hst_step dx_exit_step(struct hx *x, unsigned vcpu, struct plat_exit e)
{
	const struct hx_vcpu *g = &x->vcpus[vcpu];
	struct hst_step s;

	e.cpu = g->cpu;
	e.cpu.untaken_token = g->untaken;
	e.cpu.event_pending |= g->untaken != 0;
	e.cpu.in_instruction |= e.kind == PLAT_EXIT_RAM_IO || e.kind == PLAT_EXIT_WRMSR ||
				e.kind == PLAT_EXIT_RDMSR;
	e.cpu.event_pending |= e.cpu.in_instruction;
	hst_vcpu_step(hx_v(x, vcpu), HST_DID_RUN, &e, false, &s);
	return s;
}

struct hst_step dx_exit(struct hx *x, struct plat_exit e)
{
	return dx_pumped(x, 0, dx_exit_step(x, 0, e));
}

struct hst_step dx_fault(struct hx *x, uint64_t page)
{
	return dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_FAULT,
					     .roff = {page << PAGE_SHIFT}});
}

struct hst_step dx_kicked(struct hx *x)
{
	return dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_KICK});
}

struct hst_step dx_io(struct hx *x, uint64_t off, void *data, uint32_t len, bool write)
{
	return dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_RAM_IO,
					     .gpa = {HX_GPA + off},
					     .io = {.data = data, .len = len, .write = write}});
}

struct hst_step dx_wrmsr(struct hx *x, uint32_t msr, uint64_t value)
{
	x->vcpus[0].msr_done = false;
	return dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_WRMSR, .msr = {msr, value}});
}

/* ---- set-up ---- */

struct hx *dx_open(enum hst_faults faults)
{
	struct hst_cfg cfg = hx_cfg(faults, APF_REV_OFF);

	return hx_open(&cfg);
}

struct hx *dx_open_called(enum apf_rev rev)
{
	struct hx *x = hx_open_on(rev, 1);

	dx_must_enter(dx_call(x), PLAT_ENTER);
	hx_log_clear(x);
	return x;
}

void dx_must_rest(struct hx *x)
{
	const struct hst_vcpu *v = hx_v(x, 0);

	assert_true(hst_vcpu_is_at_rest(v));
	assert_int_equal(v->where, HST_IN_HOST);
	assert_int_equal(x->vcpus[0].untaken, 0);
	assert_int_not_equal(v->phase, HST_PHASE_GRACE);
	assert_int_not_equal(v->phase, HST_PHASE_STALL);
	assert_false(timer_armed(&v->wake));
	assert_false(v->halted);
}
