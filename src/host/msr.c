/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers of a vCPU, written by its guest or by the VMM, and the memory that they name: the
 * kernel, or we, write there without asking, so it is there before the guest runs and stays.
 * Test: tests/unit/host_msr_test.c.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/deliver.h"
#include "host/keep.h"
#include "host/kick.h"
#include "host/msr.h"
#include "host/wait.h"

/* What a register write names: the first byte and, on another page maybe, the last one. */
struct named {
	roff_t first, last;
};

/* False: it names none, or no RAM. */
static bool named_memory(const struct hst_vcpu *v, uint32_t msr, uint64_t value,
			 struct named *ret)
{
	enum pv_area area = pv_area_of(msr);
	int on = 0;
	gpa_t gpa;

	if (msr == APF_MSR_EN) {
		on = (value & APF_EN_ENABLED) != 0;
		gpa = eng_area_gpa(value);
	} else if (area != PV_AREAS) {
		gpa.v = pv_area_gpa(area, value, &on);
	}
	if (!on || !ram_find(&v->h->ram, gpa, 1, &ret->first))
		return false;
	gpa.v += msr == APF_MSR_EN ? 7 : pv_area_bytes(area) - 1;
	/* The kernel writes as much as it can reach. */
	if (!ram_find(&v->h->ram, gpa, 1, &ret->last))
		ret->last = ret->first;
	return true;
}

/* The kernel writes there from now on. */
static void apply_pv(struct hst_vcpu *v, uint32_t msr, uint64_t value)
{
	const struct plat *p = &v->h->plat;
	struct named at;
	int rc = p->ops->set_msr(p->ctx, v->index, msr, value);

	if (rc == 0) {
		v->area_value[pv_area_of(msr)] = value;
		vcpu_keep(v, pv_area_of(msr),
			  named_memory(v, msr, value, &at) ? block_of(v->h, at.first) : BLOCK_NONE);
	}
	p->ops->finish_msr(p->ctx, v->index, 0, rc < 0);
}

/* The guest can write there, and the host; asked only of a write that switches events on. */
static bool area_is_ram(const struct hst_vcpu *v, uint64_t en)
{
	const struct plat *p = &v->h->plat;
	roff_t off;

	return (en & APF_EN_ENABLED) && ram_find(&v->h->ram, eng_area_gpa(en), 8, &off) &&
	       p->ops->is_writable(p->ctx, v->index, eng_area_gpa(en));
}

/* Its memory is there. */
static void apply(struct hst_vcpu *v, uint32_t msr, uint64_t value)
{
	const struct plat *p = &v->h->plat;
	struct eng_wrmsr_in in = {.msr = msr, .value = value};
	enum eng_wrmsr r;

	if (pv_area_of(msr) != PV_AREAS) {
		apply_pv(v, msr, value);
		return;
	}
	if (msr == APF_MSR_EN)
		in.area_ok = area_is_ram(v, value);
	r = eng_wrmsr(&v->eng, &in);
	vcpu_keep_area(v);
	if (r == ENG_WRMSR_ENABLED && eng_zeroes_area(&v->eng))
		slot_store(v, &(struct eng_store){.off = 0, .len = 8, .value = 0});
	p->ops->finish_msr(p->ctx, v->index, 0, r == ENG_WRMSR_GP);
}

void hst_wrmsr(struct hst_vcpu *v, uint32_t msr, uint64_t value)
{
	struct named at;

	/* Memory must be there before we, or the kernel, write into it. */
	if (named_memory(v, msr, value, &at) && (vcpu_wait_for(v, at.first, HST_PHASE_WRMSR) ||
						 vcpu_wait_for(v, at.last, HST_PHASE_WRMSR))) {
		v->msr.index = msr;
		v->msr.value = value;
		return;
	}
	apply(v, msr, value);
}

void hst_rdmsr(struct hst_vcpu *v, uint32_t msr)
{
	const struct plat *p = &v->h->plat;
	uint64_t value = 0;
	bool ok = eng_rdmsr(&v->eng, msr, &value);

	p->ops->finish_msr(p->ctx, v->index, value, !ok);
}

/* ---- what the VMM set in KVM's own state ---- */

static void keep_pv_area(struct hst_vcpu *v, enum pv_area area, uint64_t value)
{
	int on = 0;
	gpa_t gpa = {pv_area_gpa(area, value, &on)};
	roff_t off;
	bool there = on && ram_find(&v->h->ram, gpa, 1, &off);
	uint32_t block = there ? block_of(v->h, off) : BLOCK_NONE;

	/* It may have been absent when the VMM set it, and been fetched for another vCPU since. */
	if (block != BLOCK_NONE &&
	    (block_kind(v->h, block) != BLOCK_PRESENT || v->area_value[area] != value))
		v->areas_again |= 1u << area;
	v->area_value[area] = value;
	vcpu_keep(v, area, block);
}

void msr_memory_came(struct hst_vcpu *v)
{
	vcpu_keep_area(v);
	for (unsigned area = PV_SYSTEM_TIME; area < PV_AREAS; area++) {
		if (v->kept[area] != BLOCK_NONE)
			continue;
		keep_pv_area(v, (enum pv_area)area, v->area_value[area]);
		/* The kernel may write there whenever the vCPU enters the guest. */
		if (v->kept[area] != BLOCK_NONE)
			vcpu_kick(v);
	}
}

bool hst_vcpu_set_msr(struct hst_vcpu *v, uint32_t msr, uint64_t value)
{
	struct eng_wrmsr_in in = {.msr = msr, .value = value};
	roff_t off;

	if (msr == APF_MSR_EN)
		in.area_ok = ram_find(&v->h->ram, eng_area_gpa(value), 8, &off);
	if (eng_wrmsr(&v->eng, &in) == ENG_WRMSR_GP)
		return false;
	vcpu_keep_area(v);
	return true;
}

bool hst_vcpu_get_msr(const struct hst_vcpu *v, uint32_t msr, uint64_t *ret)
{
	return eng_rdmsr(&v->eng, msr, ret);
}

void msr_look(struct hst_vcpu *v)
{
	const struct plat *p = &v->h->plat;
	struct plat_registers r;

	p->ops->take_registers(p->ctx, v->index, &r);
	for (unsigned area = PV_SYSTEM_TIME; area < PV_AREAS; area++)
		keep_pv_area(v, (enum pv_area)area, r.area[area]);
	if (!r.changed)
		return;
	/*
	 * CTL first: an event that EN lets out needs its vector. KVM cannot hold pf2's, so what it
	 * has says nothing.
	 */
	if (v->eng.cfg.rev == APF_REV_INT)
		(void)hst_vcpu_set_msr(v, APF_MSR_CTL, r.ctl);
	(void)hst_vcpu_set_msr(v, APF_MSR_EN, r.en);
}

void msr_show(struct hst_vcpu *v)
{
	const struct plat *p = &v->h->plat;

	p->ops->show_registers(p->ctx, v->index, v->eng.en, v->eng.ctl);
}

/* The kernel may have been told of the area when it could not write there. */
static void tell_again(struct hst_vcpu *v, enum pv_area area)
{
	const struct plat *p = &v->h->plat;

	if (!(v->areas_again >> area & 1))
		return;
	v->areas_again &= ~(1u << area);
	(void)p->ops->set_msr(p->ctx, v->index, pv_area_msr(area), v->area_value[area]);
}

bool areas_due(const struct hst_vcpu *v)
{
	for (unsigned i = 0; i <= HST_KEPT_AREA; i++)
		if (v->kept[i] != BLOCK_NONE &&
		    (v->areas_again >> i & 1 || block_kind(v->h, v->kept[i]) != BLOCK_PRESENT))
			return true;
	return false;
}

bool areas_wait(struct hst_vcpu *v)
{
	for (unsigned i = 0; i <= HST_KEPT_AREA; i++) {
		roff_t off;
		uint64_t len;

		if (v->kept[i] == BLOCK_NONE)
			continue;
		if (block_kind(v->h, v->kept[i]) != BLOCK_PRESENT) {
			hst_block_range(v->h, v->kept[i], &off, &len);
			return vcpu_wait_for(v, off, HST_PHASE_AREA);
		}
		if (i < PV_AREAS)
			tell_again(v, (enum pv_area)i);
	}
	return false;
}
