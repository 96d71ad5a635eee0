/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of src/host share: a clock that a test turns, guest memory with an alias
 * array, a source that answers when told, a platform that remembers what it was asked, and
 * a guest as small as can be: it takes events, frees its slot and acknowledges when a test
 * says so. Everything that the driver does goes into one log, so that order can be checked.
 *
 * Guest RAM starts at HX_GPA, so that an address and a RAM offset never agree by accident.
 */
#ifndef HOST_FIXTURE_H
#define HOST_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/block.h"
#include "host/budget.h"
#include "host/fetch.h"
#include "host/keep.h"
#include "host_sound.h"

#define HX_GPA 0x40000000ull
#define HX_VECTOR 0xf3u
#define HX_AREA_PAGE 0u
#define HX_VCPUS 4u
#define HX_LOG 1024u
#define HX_READS 1024u
#define HX_PAGES 64u

enum hx_op {
	HX_READ,    /* a: source offset, b: length */
	HX_CANCEL,  /* a: source offset */
	HX_PRESENT, /* a: RAM offset, b: length; vcpu: the views */
	HX_POISON,
	HX_INJECT,    /* a: token */
	HX_CANCEL_PF, /* a: token */
	HX_MSR,       /* a: value, b: #GP */
	HX_SET_MSR,   /* a: index, b: value */
	HX_IRQ,       /* a: vector, b: accepted */
	HX_KICK,
	HX_TROUBLE, /* a: gpa, b: tries */
	HX_GOES_ON,
	HX_OUTSIDE,
	HX_SHOW, /* a: EN, b: CTL */
	HX_PASS_FAULT,
	HX_OPS,
};

struct hx_entry {
	enum hx_op op;
	unsigned vcpu;
	uint64_t a, b;
};

/* What the fake source does with a read, and with a wish to end it. */
enum hx_answers { HX_LATER, HX_AT_ONCE, HX_FAILS_AT_ONCE };
enum hx_cancels { HX_CANCEL_ENDS, HX_CANCEL_ENDS_LATER, HX_CANCEL_DEAF };

struct hx;

struct hx_src {
	struct src src;
	struct hx *x;
	enum hx_answers answers;
	enum hx_cancels cancels;
	struct src_read *reads[HX_READS]; /* outstanding, oldest first */
	bool cancelled[HX_READS];
	unsigned count, count_max;
	unsigned nesting; /* of read() within read() */
	const unsigned char *disk; /* what it holds; NULL: hx_byte */
	bool *allocated; /* for each page of RAM, that a read came there; NULL: not noted */
};

struct hx_vcpu {
	struct cpu_state cpu;
	uint32_t untaken; /* #PF queued by the driver and not taken */
	bool irr;	  /* HX_VECTOR is pending */
	bool apic_off;	  /* refuses interrupts */
	int irq_rc;	  /* what refusing answers: 0 or -Exxx */
	bool kicked;	  /* since a test last looked */
	bool msr_done, msr_gp;
	uint64_t msr_value;
	struct plat_registers in_kvm; /* what the VMM has set there */
};

/* Makes call number `at` of mem present, poison and wake fail, and all later ones if `on`. */
struct hx_mem_faults {
	unsigned calls, at;
	bool on;
};

struct hx {
	struct hst h;
	void *space;
	uint64_t now;
	unsigned char *alias;
	struct hx_src src;
	struct hx_vcpu vcpus[HX_VCPUS];
	struct hx_mem_faults mem_faults;
	int set_msr_rc;
	struct hx_entry log[HX_LOG];
	unsigned log_len;
	unsigned counts[HX_OPS]; /* since hx_open or hx_log_clear */
	struct hst_trouble trouble; /* the last one */
	uint64_t until;		    /* of the last hx_next that said HST_WAIT */
	struct hx_swap *swap; /* host_swap_fixture.h */
	const struct hst_discard *discards; /* a discard that is under way; NULL: none */
	void (*on_present)(struct hx *x, roff_t off, uint64_t len);
	void (*on_refusal)(struct hx *x, unsigned vcpu); /* while the interrupt is refused */
	void *user;
};

/* ---- log ---- */

void hx_log(struct hx *x, enum hx_op op, unsigned vcpu, uint64_t a, uint64_t b);
void hx_log_clear(struct hx *x);

/* Place in the log of the nth (from 0) entry of a kind; HX_LOG when there is none. */
unsigned hx_nth(const struct hx *x, enum hx_op op, unsigned n);
const struct hx_entry *hx_entry(const struct hx *x, enum hx_op op, unsigned n);

/* ---- clock, memory ---- */

uint64_t hx_now(void *ctx);
int hx_mem_result(struct hx *x, const char *what, struct err *e);
int hx_mem_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch_writes,
		   struct err *e);
int hx_mem_poison(void *ctx, roff_t off, uint64_t len, struct err *e);

/* ---- source ---- */

/* The content of the source: each page has a byte of its own, never 0. */
unsigned char hx_byte(uint64_t offset);
void hx_fill(const struct src_read *rd);

/* What the source holds of an offer's piece, copied. */
void hx_copy_piece(struct hx_src *s, const struct hst_offer *o, const struct hst_piece *p);

/* Ends outstanding read i; code 0: with its content, else with this failure. */
void hx_src_answer(struct hx_src *s, unsigned i, int code);
void hx_answer(struct hx *x, unsigned i, int code);
void hx_src_read(struct src *s, struct src_read *rd);
unsigned hx_src_read_at(const struct hx_src *s, uint64_t offset);
unsigned hx_read_at(const struct hx *x, uint64_t offset);
void hx_src_cancel(struct src *s, struct src_read *rd);

/* ---- platform ---- */

struct apf_area *hx_area(struct hx *x, unsigned vcpu);
bool hx_slot_full(struct hx *x, unsigned vcpu);
void hx_slot_free(struct hx *x, unsigned vcpu);
void hx_inject_pf(void *ctx, unsigned vcpu, uint32_t token);
void hx_cancel_pf(void *ctx, unsigned vcpu);
void hx_finish_msr(void *ctx, unsigned vcpu, uint64_t value, bool gp);
int hx_set_msr(void *ctx, unsigned vcpu, uint32_t msr, uint64_t value);
void hx_take_registers(void *ctx, unsigned vcpu, struct plat_registers *ret);
void hx_show_registers(void *ctx, unsigned vcpu, uint64_t en, uint64_t ctl);
void hx_pass_fault(void *ctx, unsigned vcpu);
int hx_raise_irq(void *ctx, unsigned vcpu, uint8_t vector);
void hx_kick(void *ctx, unsigned vcpu);

/* ---- hooks ---- */

void hx_outside_ready(void *ctx);
void hx_trouble(void *ctx, const struct hst_trouble *t);

/* ---- set-up ---- */

struct hst_cfg hx_cfg(enum hst_faults faults, enum apf_rev rev);

/* One region of `bytes`; the source, as large, stands behind nothing yet. */
struct hx *hx_prepare(uint64_t bytes);

/* A touch of the guest's, reported by the kernel. */
int hx_kernel_touch(struct hst *h, roff_t off, struct err *e);
int hx_vmm_touch(struct hst *h, roff_t off, struct err *e);
void hx_start(struct hx *x, const struct hst_cfg *cfg);

/* `pages` of RAM, the source behind all of it. */
struct hx *hx_open_pages(const struct hst_cfg *cfg, uint64_t pages);
struct hx *hx_open(const struct hst_cfg *cfg);
void hx_assert_sound(const struct hx *x);
void hx_free(struct hx *x);
void hx_close(struct hx *x);

/* ---- driving ---- */

/* What lib_pump does: makes visible whatever is filled. */
unsigned hx_pump(struct hx *x);

uint64_t hx_block(const struct hx *x, uint64_t page);

/* The read of the block that page lies in ends well, and the block is made visible. */
void hx_bring(struct hx *x, uint64_t page);
void hx_after(struct hx *x, uint64_t ns);
bool hx_present(const struct hx *x, uint64_t page);

/* Has page fetched by a device, whatever the source does with it. */
void hx_populate(struct hx *x, uint64_t page);
struct hst_vcpu *hx_v(struct hx *x, unsigned vcpu);
void hx_exit(struct hx *x, unsigned vcpu, bool kick_only);
void hx_fault(struct hx *x, unsigned vcpu, uint64_t page);
enum hst_next hx_next(struct hx *x, unsigned vcpu);

/* It enters the guest; in pf2-strict what has become ready ends a HLT on the way. */
void hx_enters(struct hx *x, unsigned vcpu);

/* The guest faults and goes on as the driver says, with no kick in between. */
enum hst_next hx_fault_next(struct hx *x, unsigned vcpu, uint64_t page);

/* An exit for nothing in particular, and on. */
enum hst_next hx_pass(struct hx *x, unsigned vcpu);

/* KVM hands out a load of 8 bytes, or as many as are left of the page. */
void hx_load(struct hst_vcpu *v, roff_t off);

/* ---- the guest ---- */

void hx_wrmsr(struct hx *x, unsigned vcpu, uint32_t msr, uint64_t value);
void hx_wrmsr_ok(struct hx *x, unsigned vcpu, uint32_t msr, uint64_t value);

uint64_t hx_rdmsr(struct hx *x, unsigned vcpu, uint32_t msr);

/* Takes the #PF and empties word 0 first of all. Returns CR2. */
uint32_t hx_take_pf(struct hx *x, unsigned vcpu);

/* Takes the interrupt and frees the slot, without acknowledging. Returns the token. */
uint32_t hx_take_irq(struct hx *x, unsigned vcpu);
void hx_ack(struct hx *x, unsigned vcpu);
bool hx_by_irq(const struct hx *x);

uint64_t hx_en(const struct hx *x, unsigned vcpu);

uint64_t hx_ctl(const struct hx *x);

/* Takes one page-ready event by the rules of the revision. Returns its token. */
uint32_t hx_take_ready(struct hx *x, unsigned vcpu);

/* Events on, the wake-all taken. */
void hx_enable(struct hx *x, unsigned vcpu);

/* user faults, revision rev, events on at every vCPU. */
struct hx *hx_open_on(enum apf_rev rev, unsigned vcpus);

/* A task of the guest touches page and sleeps under the token that is returned. */
uint32_t hx_sleeper(struct hx *x, unsigned vcpu, uint64_t page);

#endif
