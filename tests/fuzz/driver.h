/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For entries that drive the shipped driver: a platform that finds the guest's area where its
 * register says, wherever that is, and what must hold of each vCPU between two calls.
 */
#ifndef FUZZ_DRIVER_H
#define FUZZ_DRIVER_H

#include "bytes.h"
#include "engine/engine.h"
#include "host/block.h"
#include "host/deliver.h"
#include "host/fetch.h"

#define RIG_SWAP_PAGES 16u /* the fixture's array need not be larger, nor be cleared each time */
UNFOLLOWED_BEGIN
#include "engine_fixture.h"
#include "host_fixture.h"
UNFOLLOWED_END

#define FAULTS_MAX 16u

static inline void driver_inject_pf(void *ctx, unsigned vcpu, uint32_t token)
{
	struct eng_slot slot = slot_read(rig_v(ctx, vcpu));
	struct rig_vcpu *g = &((struct rig *)ctx)->vcpus[vcpu];

	/* Stored before it is told. */
	must(slot.readable && slot.reason != 0);
	must(g->untaken == 0 && rig_v(ctx, vcpu)->where == HST_IN_HOST);
	g->untaken = token;
}

static inline void driver_cancel_pf(void *ctx, unsigned vcpu)
{
	must(rig_v(ctx, vcpu)->where == HST_IN_HOST);
	((struct rig *)ctx)->vcpus[vcpu].untaken = 0;
}

static inline int driver_raise_irq(void *ctx, unsigned vcpu, uint8_t vector)
{
	struct eng_slot slot = slot_read(rig_v(ctx, vcpu));
	struct rig *x = ctx;

	must(slot.readable && (x->h.cfg.rev == APF_REV_INT ? slot.token : slot.reason) != 0);
	if (!x->vcpus[vcpu].apic_off) {
		x->vcpus[vcpu].irr |= vector == RIG_VECTOR;
		return 1;
	}
	if (x->on_refusal)
		x->on_refusal(x, vcpu);
	return x->vcpus[vcpu].irq_rc;
}

static inline void driver_any_area(struct rig *x)
{
	static const struct plat_ops ops = {
		.name = "fuzz",
		.inject_pf = driver_inject_pf,
		.cancel_pf = driver_cancel_pf,
		.finish_msr = rig_finish_msr,
		.is_writable = rig_is_writable,
		.set_msr = rig_set_msr,
		.take_registers = rig_take_registers,
		.show_registers = rig_show_registers,
		.pass_fault = rig_pass_fault,
		.raise_irq = driver_raise_irq,
		.kick = rig_kick,
	};

	/* An assertion of the fixture ends the program, and says which. */
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	x->h.plat.ops = &ops;
}

/* Behind the engine's part: each store, their number and a magic (host/save.c). */
#define STORE_BYTES 20u
#define TRAILER_BYTES 8u
#define HOST_SAVE_MAX (FX_SAVE_MAX + HST_STORES_MAX * STORE_BYTES + TRAILER_BYTES)

/* What an engine saves, an engine takes, and says the same again. */
UNFOLLOWED static inline void driver_check_save(const struct hst_vcpu *v)
{
	unsigned char said[HOST_SAVE_MAX], again[FX_SAVE_MAX];
	struct eng_fault faults[FAULTS_MAX];
	struct eng_vcpu other;
	size_t whole = hst_vcpu_save(v, said), len = eng_save(&v->eng, again);

	must(whole <= hst_vcpu_save_bytes(v) && v->eng.cfg.faults_max <= FAULTS_MAX);
	must(whole == len + v->store_count * STORE_BYTES + TRAILER_BYTES);
	must(memcmp(said, again, len) == 0);
	eng_init(&other, &v->eng.cfg, faults);
	must(eng_restore(&other, said, len));
	must(!fx_broken(&other));
	must(eng_save(&other, again) == len && memcmp(again, said, len) == 0);
}

UNFOLLOWED static inline void driver_check(struct rig *x)
{
	rig_assert_sound(x);
	for (unsigned c = 0; c < x->h.cfg.vcpus; c++)
		must(!fx_broken(&rig_v(x, c)->eng));
}

#endif
