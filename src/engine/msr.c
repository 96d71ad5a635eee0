/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The APF registers: what a write may contain, what it sets off, what reads back.
 * One function per register and revision, each a column of the table in
 * docs/engine.md; the first condition that applies decides.
 *
 * A write that raises #GP changes nothing. (Linux stores EN before it binds the
 * area and keeps the value when that fails; so does pf2-strict.)
 * Tests: tests/unit/engine_msr_test.c.
 */
#include "engine/internal.h"

uint32_t eng_features(enum apf_rev rev)
{
	switch (rev) {
	case APF_REV_OFF:
		return 0;
	case APF_REV_LEGACY:
	case APF_REV_PF2:
	case APF_REV_PF2_STRICT:
		/*
		 * Not ASYNC_PF_INT for pf2: a mainline guest that sees the bit speaks `int` to the
		 * same register and would wait for ever. pf2 guests know by other means.
		 */
		return APF_CPUID_ASYNC_PF;
	case APF_REV_INT:
		return APF_CPUID_ASYNC_PF | APF_CPUID_ASYNC_PF_INT;
	}
	return 0;
}

static bool offered(const struct eng_vcpu *v, uint32_t feature)
{
	return (v->cfg.features & feature) != 0;
}

gpa_t eng_area_gpa(uint64_t en)
{
	return (gpa_t){en & APF_EN_GPA_MASK};
}

bool eng_enabled(const struct eng_vcpu *v)
{
	uint64_t need = APF_EN_ENABLED;

	if (v->cfg.rev == APF_REV_OFF)
		return false;
	if (v->cfg.rev == APF_REV_INT)
		need |= APF_EN_INT;
	return (v->en & need) == need;
}

bool eng_zeroes_area(const struct eng_vcpu *v)
{
	return v->cfg.rev == APF_REV_PF2 || v->cfg.rev == APF_REV_INT;
}

/* The wake-all that an enabling EN write sends; pf2: not before CTL is enabled too. */
static bool en_sends_wake_all(const struct eng_vcpu *v)
{
	if (eng_pf2_wire(v) && (v->en & APF_EN_INT))
		return (v->ctl & APF_PF2_ENABLED) != 0;
	return true;
}

static uint64_t en_reserved(const struct eng_vcpu *v)
{
	return v->cfg.rev == APF_REV_LEGACY ? 0x38 : 0x30;
}

static enum eng_wrmsr write_en(struct eng_vcpu *v, const struct eng_wrmsr_in *in)
{
	uint64_t value = in->value;
	uint64_t enables = APF_EN_ENABLED;

	if (!offered(v, APF_CPUID_ASYNC_PF) || (value & en_reserved(v)))
		return ENG_WRMSR_GP;
	if (v->cfg.rev == APF_REV_INT) {
		if ((value & APF_EN_PF_VMEXIT) && !offered(v, APF_CPUID_ASYNC_PF_VMEXIT))
			return ENG_WRMSR_GP;
		if ((value & APF_EN_INT) && !offered(v, APF_CPUID_ASYNC_PF_INT))
			return ENG_WRMSR_GP;
		if (!v->cfg.has_lapic && value != 0)
			return ENG_WRMSR_GP;
		enables |= APF_EN_INT;
	}
	if ((value & enables) != enables) {
		v->en = value;
		eng_retire_all(v);
		return ENG_WRMSR_OK;
	}
	if (!in->area_ok) {
		if (v->cfg.rev == APF_REV_PF2_STRICT)
			v->en = value;
		return ENG_WRMSR_GP;
	}
	v->en = value;
	if (en_sends_wake_all(v))
		eng_queue_wake_all(v);
	return ENG_WRMSR_ENABLED;
}

static enum eng_wrmsr write_ctl(struct eng_vcpu *v, uint64_t value)
{
	uint64_t valid = APF_CTL_VECTOR_MASK;

	switch (v->cfg.rev) {
	case APF_REV_INT:
		if (!offered(v, APF_CPUID_ASYNC_PF_INT))
			return ENG_WRMSR_GP;
		break;
	case APF_REV_PF2:
	case APF_REV_PF2_STRICT:
		valid |= APF_PF2_ENABLED;
		break;
	case APF_REV_OFF:
	case APF_REV_LEGACY:
		return ENG_WRMSR_GP;
	}
	if ((value & ~valid) || !v->cfg.has_lapic)
		return ENG_WRMSR_GP;
	v->ctl = value;
	if (eng_pf2_wire(v) && (value & APF_PF2_ENABLED)) {
		/*
		 * Hazard S7: with EN.0 clear the wake-all would be drained to nowhere. The EN
		 * write that comes later sends its own.
		 */
		if (eng_enabled(v) || v->cfg.rev == APF_REV_PF2_STRICT)
			eng_queue_wake_all(v);
	}
	return ENG_WRMSR_RESCAN;
}

/* A hint that the slot is free. Where KVM has the register it does not come here. */
static enum eng_wrmsr write_ack(const struct eng_vcpu *v, uint64_t value)
{
	if (v->cfg.rev != APF_REV_INT || !offered(v, APF_CPUID_ASYNC_PF_INT))
		return ENG_WRMSR_GP;
	return value & APF_ACK_READY ? ENG_WRMSR_RESCAN : ENG_WRMSR_OK;
}

enum eng_wrmsr eng_wrmsr(struct eng_vcpu *v, const struct eng_wrmsr_in *in)
{
	if (v->cfg.rev == APF_REV_OFF)
		return ENG_WRMSR_GP;
	switch (in->msr) {
	case APF_MSR_EN:
		return write_en(v, in);
	case APF_MSR_CTL:
		return write_ctl(v, in->value);
	case APF_MSR_ACK:
		return write_ack(v, in->value);
	default:
		return ENG_WRMSR_GP;
	}
}

bool eng_rdmsr(const struct eng_vcpu *v, uint32_t msr, uint64_t *ret_value)
{
	enum apf_rev rev = v->cfg.rev;

	switch (msr) {
	case APF_MSR_EN:
		if (rev == APF_REV_OFF || !offered(v, APF_CPUID_ASYNC_PF))
			return false;
		*ret_value = v->en;
		return true;
	case APF_MSR_CTL:
		if (!eng_pf2_wire(v) && !(rev == APF_REV_INT && offered(v, APF_CPUID_ASYNC_PF_INT)))
			return false;
		*ret_value = v->ctl;
		return true;
	case APF_MSR_ACK:
		if (rev != APF_REV_INT || !offered(v, APF_CPUID_ASYNC_PF_INT))
			return false;
		*ret_value = 0;
		return true;
	default:
		return false;
	}
}

/* The founding text leaves PF2 alone at reset; mainline zeroes its register. */
static bool reset_clears_ctl(const struct eng_vcpu *v)
{
	return v->cfg.rev == APF_REV_INT;
}

void eng_reset(struct eng_vcpu *v)
{
	v->en = 0;
	if (reset_clears_ctl(v))
		v->ctl = 0;
	eng_retire_all(v);
}

bool eng_reset_is_seen(const struct eng_vcpu *v)
{
	return v->en != 0 || (reset_clears_ctl(v) && v->ctl != 0);
}
