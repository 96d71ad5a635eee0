/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated processor as port/platform.h shows it: what may be queued, when it is
 * accepted, what an exit tells. The instruction side is guest.c.
 */
#include <string.h>

#include "base/assert.h"
#include "sim/world.h"

void sim_cpu_reset(struct sim_vcpu *v)
{
	/* The host's halt is KVM's state: a VMM that sets registers does not end it. */
	bool halted = v->cpu.halted_by_host;

	v->cpu = (struct sim_cpu){.paging = true,
				  .apic_on = v->cpu.apic_on,
				  .halted = halted,
				  .halted_by_host = halted};
	v->kernel_wait = false;
	v->incomplete = false;
}

void sim_cpu_irq(struct sim_vcpu *v, uint8_t vector)
{
	v->cpu.irr[vector / 64] |= 1ull << (vector % 64);
}

static bool irr_any(const struct sim_cpu *c)
{
	return c->irr[0] | c->irr[1] | c->irr[2] | c->irr[3];
}

bool sim_cpu_wakes(const struct sim_vcpu *v)
{
	const struct sim_cpu *c = &v->cpu;

	return c->pf.kind != SIM_EV_NONE || c->reinject.kind != SIM_EV_NONE ||
	       (c->nmi_pending && !c->in_nmi) ||
	       (c->interrupts_on && !c->shadow && !c->in_service && irr_any(c));
}

void sim_cpu_state(const struct sim_vcpu *v, struct cpu_state *ret)
{
	const struct sim_cpu *c = &v->cpu;
	bool hidden = v->w->cfg.protected_state;

	*ret = (struct cpu_state){
		.cpl = hidden ? 3 : c->cpl,
		.interrupts_on = c->interrupts_on,
		.shadow = c->shadow,
		.event_pending = v->incomplete || c->pf.kind != SIM_EV_NONE ||
				 c->reinject.kind != SIM_EV_NONE,
		.in_instruction = v->incomplete,
		.paging = c->paging,
		.protected_state = hidden,
		.untaken_token = c->pf.kind != SIM_EV_NONE && c->pf_known ? (uint32_t)c->pf.cr2 : 0,
	};
}

static struct sim_vcpu *vcpu_of(void *ctx, unsigned vcpu)
{
	struct sim *w = ctx;

	ASSERT(vcpu < w->cfg.vcpus);
	return &w->vcpus[vcpu];
}

static void plat_inject_pf(void *ctx, unsigned vcpu, uint32_t token)
{
	struct sim_vcpu *v = vcpu_of(ctx, vcpu);
	enum sim_event_kind kind = SIM_EV_MISSING;

	sim_chk_inject(v, token, &kind);
	v->cpu.pf = (struct sim_event){.kind = kind, .cr2 = token};
	v->cpu.pf_known = true;
	if (v->cpu.halted_by_host) {
		v->cpu.halted_by_host = false;
		v->cpu.halted = false;
	}
}

static void plat_cancel_pf(void *ctx, unsigned vcpu)
{
	struct sim_vcpu *v = vcpu_of(ctx, vcpu);

	/* A reset forgot it, and the VMM has set the registers of the next life. */
	if (v->cpu.pf.kind == SIM_EV_NONE && sim_hv(v)->queued.token == 0)
		return;
	sim_chk_cancel(v);
	v->cpu.pf.kind = SIM_EV_NONE;
}

static void plat_finish_msr(void *ctx, unsigned vcpu, uint64_t value, bool gp)
{
	struct sim_vcpu *v = vcpu_of(ctx, vcpu);

	v->msr_done = true;
	v->msr_gp = gp;
	v->msr_value = value;
	if (gp)
		sim_log_add(v->w->log, v->w->now_ns, SIM_OP_GP, v->index, v->exit.msr.index, 0);
	if (v->exit.kind == PLAT_EXIT_WRMSR)
		sim_chk_written(v, v->exit.msr.index, v->exit.msr.value, gp);
}

/* One memslot for all of it. */
static bool plat_is_writable(void *ctx, unsigned vcpu, gpa_t gpa)
{
	(void)ctx;
	(void)vcpu;
	(void)gpa;
	return true;
}

/* The kernel looks for the memory when it is told of it, and never again. */
static int plat_set_msr(void *ctx, unsigned vcpu, uint32_t msr, uint64_t value)
{
	struct sim_vcpu *v = vcpu_of(ctx, vcpu);
	uint32_t page;

	ASSERT(msr == PV_MSR_SYSTEM_TIME);
	v->kvm_clock = value;
	v->clock_left = !sim_gpa_page(v->w, (gpa_t){value & ~1ull}, &page);
	v->clock_there = !v->clock_left && v->w->host->visible[page];
	return 0;
}

static int plat_raise_irq(void *ctx, unsigned vcpu, uint8_t vector)
{
	struct sim_vcpu *v = vcpu_of(ctx, vcpu);
	bool accepted = v->cpu.apic_on;

	sim_chk_irq(v, vector, accepted);
	if (accepted)
		sim_cpu_irq(v, vector);
	return accepted;
}

static void plat_kick(void *ctx, unsigned vcpu)
{
	struct sim_vcpu *v = vcpu_of(ctx, vcpu);

	v->kick = true;
	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_KICK, vcpu, 0, 0);
}

/* As kvm/registers.c has them. */
static void plat_take_registers(void *ctx, unsigned vcpu, struct plat_registers *ret)
{
	struct sim_vcpu *v = vcpu_of(ctx, vcpu);

	*ret = (struct plat_registers){
		.area = {[PV_SYSTEM_TIME] = v->kvm_clock},
		.en = v->kvm_en,
		.ctl = v->kvm_ctl,
		.changed = v->kvm_en != v->shown_en || v->kvm_ctl != v->shown_ctl,
	};
	v->kvm_en = 0;
}

static void plat_show_registers(void *ctx, unsigned vcpu, uint64_t en, uint64_t ctl)
{
	struct sim_vcpu *v = vcpu_of(ctx, vcpu);

	/* KVM has no room for pf2's enable bit. */
	v->kvm_ctl = ctl & APF_CTL_VECTOR_MASK;
	v->kvm_en = en;
	v->shown_en = v->kvm_en;
	v->shown_ctl = v->kvm_ctl;
}

/* begin(), run(), wait() and rest() are the thread's own steps: thread.c. */
const struct plat_ops sim_plat_ops = {
	.name = "simulated",
	.inject_pf = plat_inject_pf,
	.cancel_pf = plat_cancel_pf,
	.finish_msr = plat_finish_msr,
	.is_writable = plat_is_writable,
	.set_msr = plat_set_msr,
	.take_registers = plat_take_registers,
	.show_registers = plat_show_registers,
	.raise_irq = plat_raise_irq,
	.kick = plat_kick,
};
