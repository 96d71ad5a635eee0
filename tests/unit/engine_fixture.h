/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine tests share: one vCPU, the area that its guest would own, the CPU
 * state that an exit would report, and a host that performs each event to the letter.
 * The guest has no behaviour of its own here; a test plays it.
 */
#ifndef ENGINE_FIXTURE_H
#define ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/engine.h"

#define FX_FAULTS 64u
#define FX_VCPU 5u
#define FX_GPA 0x123440ull
#define FX_VECTOR 0xf3u
#define FX_EN_PF (FX_GPA | APF_EN_ENABLED)
#define FX_EN_IRQ (FX_EN_PF | APF_EN_INT)
#define FX_PF2_ON (APF_PF2_ENABLED | FX_VECTOR)
#define FX_SAVE_MAX (56u + 16u * FX_FAULTS)

struct fx {
	struct eng_vcpu v;
	struct eng_fault faults[FX_FAULTS];
	struct apf_area area;
	bool area_lost;
	struct cpu_state cpu;
	bool no_cpu; /* scan as another thread would */
	struct eng_event ev; /* the last one performed */
	unsigned irqs, pfs;  /* raised so far */
};

const char *fx_rev_name(enum apf_rev rev);
bool fx_is_pf2(enum apf_rev rev);
struct cpu_state fx_cpu_user(void);
void fx_init_cfg(struct fx *fx, const struct eng_cfg *cfg);

/* A vCPU after power-on: events off. */
void fx_init(struct fx *fx, enum apf_rev rev);
struct eng_slot fx_slot(const struct fx *fx);
enum eng_wrmsr fx_wrmsr(struct fx *fx, uint32_t msr, uint64_t value);

uint64_t fx_rdmsr(const struct fx *fx, uint32_t msr);
void fx_perform(struct fx *fx, const struct eng_event *ev);
enum eng_verdict fx_may(const struct fx *fx);

/* A fault that must be announced; it is, and the #PF waits to be taken. */
uint32_t fx_missing(struct fx *fx, uint64_t gfn);

/* The guest takes its #PF and empties word 0, as the first thing that its handler does. */
uint32_t fx_take_pf(struct fx *fx);

/* Announced and taken: a sleeper exists. Returns the index; the token is fx->ev.token. */
uint32_t fx_sleeper(struct fx *fx, uint64_t gfn);
enum eng_ready fx_peek(struct fx *fx, struct eng_event *ret_ev);

/* One look for a page-ready event; what may be sent is sent. */
enum eng_ready fx_scan(struct fx *fx);

/* The guest takes a page-ready event and frees the slot by the rules of its revision. */
void fx_consume(struct fx *fx);

/* The next page-ready event must carry `token`; the guest takes it. */
void fx_expect_ready(struct fx *fx, uint32_t token);

/* Enables with `en`; registers in the order that the revision documents. */
void fx_enable_en(struct fx *fx, uint64_t en);

/* Enabled, page ready by interrupt where the revision can, and the wake-all is over. */
void fx_init_on(struct fx *fx, enum apf_rev rev);

/* pf2 and pf2-strict with bit 3 clear: page ready by #PF, as in legacy. */
void fx_init_on_by_pf(struct fx *fx, enum apf_rev rev);

/* Everything that the engine may change, for "nothing changed". */
struct fx_state {
	struct eng_vcpu v;
	struct eng_fault faults[FX_FAULTS];
};

void fx_keep(const struct fx *fx, struct fx_state *ret_s);
bool fx_same(const struct fx *fx, const struct fx_state *s);

/*
 * Invariants 2, 3, 15, 16, 17: every entry is in exactly one place, the counters agree,
 * tokens are this vCPU's and distinct. NULL, or what is broken.
 */
const char *fx_broken(const struct eng_vcpu *v);
void fx_assert_sound(const struct fx *fx);

/* One named test for each row of a table whose rows begin with `const char *name`. */
void fx_fill_rows(struct CMUnitTest *tests, const void *rows, size_t n, size_t stride,
		  CMUnitTestFunction run);

#define FX_RUN_ROWS(rows, run) \
	__extension__({ \
		struct CMUnitTest fx_tests_[ARRAY_LEN(rows)]; \
		fx_fill_rows(fx_tests_, rows, ARRAY_LEN(rows), sizeof((rows)[0]), run); \
		cmocka_run_group_tests_name(#rows, fx_tests_, NULL, NULL); \
	})

#endif
