/* SPDX-License-Identifier: Apache-2.0 */
/* See drive_fixture.h. */
#include "drive_fixture.h"

struct hst_step dx_pumped(struct rig *x, unsigned vcpu, struct hst_step s)
{
	while (s.next == HST_DO_PUMP) {
		rig_pump(x);
		hst_vcpu_step(rig_v(x, vcpu), HST_DID_PUMP, NULL, false, &s);
	}
	rig_assert_sound(x);
	return s;
}

struct hst_step dx_did(struct rig *x, unsigned vcpu, enum hst_did did, bool wanted)
{
	struct hst_step s;

	hst_vcpu_step(rig_v(x, vcpu), did, NULL, wanted, &s);
	return dx_pumped(x, vcpu, s);
}

struct hst_step dx_call(struct rig *x)
{
	return dx_did(x, 0, HST_DID_CALL, false);
}

struct hst_step dx_exit_step(struct rig *x, unsigned vcpu, struct plat_exit e)
{
	const struct rig_vcpu *g = &x->vcpus[vcpu];
	struct hst_step s;

	e.cpu = g->cpu;
	e.cpu.untaken_token = g->untaken;
	e.cpu.event_pending |= g->untaken != 0;
	e.cpu.in_instruction |= e.kind == PLAT_EXIT_RAM_IO || e.kind == PLAT_EXIT_WRMSR ||
				e.kind == PLAT_EXIT_RDMSR;
	e.cpu.event_pending |= e.cpu.in_instruction;
	hst_vcpu_step(rig_v(x, vcpu), HST_DID_RUN, &e, false, &s);
	return s;
}

struct hst_step dx_exit(struct rig *x, struct plat_exit e)
{
	return dx_pumped(x, 0, dx_exit_step(x, 0, e));
}

struct hst_step dx_fault(struct rig *x, uint64_t page)
{
	return dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_FAULT,
					     .roff = {page << PAGE_SHIFT}});
}

struct hst_step dx_kicked(struct rig *x)
{
	return dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_KICK});
}

struct hst_step dx_io(struct rig *x, uint64_t off, void *data, uint32_t len, bool write)
{
	return dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_RAM_IO,
					     .gpa = {RIG_GPA + off},
					     .io = {.data = data, .len = len, .write = write}});
}

struct hst_step dx_wrmsr(struct rig *x, uint32_t msr, uint64_t value)
{
	x->vcpus[0].msr_done = false;
	return dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_WRMSR, .msr = {msr, value}});
}

/* ---- set-up ---- */

struct rig *dx_open(enum hst_faults faults)
{
	struct hst_cfg cfg = rig_cfg(faults, APF_REV_OFF);

	return rig_open(&cfg);
}

struct rig *dx_open_called(enum apf_rev rev)
{
	struct rig *x = rig_open_on(rev, 1);

	dx_must_enter(dx_call(x), PLAT_ENTER);
	rig_log_clear(x);
	return x;
}

void dx_must_rest(struct rig *x)
{
	const struct hst_vcpu *v = rig_v(x, 0);

	assert_true(hst_vcpu_is_at_rest(v));
	assert_int_equal(v->where, HST_IN_HOST);
	assert_int_equal(x->vcpus[0].untaken, 0);
	assert_int_not_equal(v->phase, HST_PHASE_GRACE);
	assert_int_not_equal(v->phase, HST_PHASE_STALL);
	assert_false(timer_armed(&v->wake));
	assert_false(v->halted);
}
