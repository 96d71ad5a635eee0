/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of src/host share, the rig: a clock that a test turns, guest memory with an alias
 * array, a source that answers when told, a platform that remembers what it was asked, and
 * a guest as small as can be: it takes events, frees its slot and acknowledges when a test
 * says so. Everything that the driver does goes into one log, so that order can be checked.
 *
 * Guest RAM starts at RIG_GPA, so that an address and a RAM offset never agree by accident.
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

#define RIG_GPA 0x40000000ull
#define RIG_VECTOR 0xf3u
#define RIG_AREA_PAGE 0u
#define RIG_VCPUS 4u
#define RIG_LOG 1024u
#define RIG_READS 1024u
#define RIG_PAGES 64u

enum rig_op {
	RIG_READ,    /* a: source offset, b: length */
	RIG_CANCEL,  /* a: source offset */
	RIG_PRESENT, /* a: RAM offset, b: length; vcpu: the views */
	RIG_POISON,
	RIG_INJECT,    /* a: token */
	RIG_CANCEL_PF, /* a: token */
	RIG_MSR,       /* a: value, b: #GP */
	RIG_SET_MSR,   /* a: index, b: value */
	RIG_IRQ,       /* a: vector, b: accepted */
	RIG_KICK,
	RIG_TROUBLE, /* a: gpa, b: tries */
	RIG_GOES_ON,
	RIG_OUTSIDE,
	RIG_SHOW, /* a: EN, b: CTL */
	RIG_PASS_FAULT,
	RIG_OPS,
};

struct rig_entry {
	enum rig_op op;
	unsigned vcpu;
	uint64_t a, b;
};

/* What the fake source does with a read, and with a wish to end it. */
enum rig_answers { RIG_LATER, RIG_AT_ONCE, RIG_FAILS_AT_ONCE };
enum rig_cancels { RIG_CANCEL_ENDS, RIG_CANCEL_ENDS_LATER, RIG_CANCEL_DEAF };

struct rig;

struct rig_src {
	struct src src;
	struct rig *x;
	enum rig_answers answers;
	enum rig_cancels cancels;
	struct src_read *reads[RIG_READS]; /* outstanding, oldest first */
	bool cancelled[RIG_READS];
	unsigned count, count_max, raises;
	unsigned nesting; /* of read() within read() */
	const unsigned char *disk; /* what it holds; NULL: rig_byte */
	bool *allocated; /* for each page of RAM, that a read came there; NULL: not noted */
};

struct rig_vcpu {
	struct cpu_state cpu;
	uint32_t untaken; /* #PF queued by the driver and not taken */
	bool irr;	  /* RIG_VECTOR is pending */
	bool apic_off;	  /* refuses interrupts */
	int irq_rc;	  /* what refusing answers: 0 or -Exxx */
	bool kicked;	  /* since a test last looked */
	bool msr_done, msr_gp;
	uint64_t msr_value;
	struct plat_registers in_kvm; /* what the VMM has set there */
};

/* Makes call number `at` of mem present, poison and wake fail, and all later ones if `on`. */
struct rig_mem_faults {
	unsigned calls, at;
	bool on;
};

struct rig {
	struct hst h;
	void *space;
	uint64_t now;
	unsigned char *alias;
	struct rig_src src;
	struct rig_vcpu vcpus[RIG_VCPUS];
	struct rig_mem_faults mem_faults;
	int set_msr_rc;
	bool rom; /* no memslot can be written to */
	struct rig_entry log[RIG_LOG];
	unsigned log_len;
	unsigned counts[RIG_OPS]; /* since rig_open or rig_log_clear */
	struct hst_trouble trouble; /* the last one */
	unsigned traced[APF_TRACE_WITHDRAWN + 1]; /* hooks.trace by kind, since rig_open */
	uint64_t until;		    /* of the last rig_next that said HST_WAIT */
	struct rig_swap *swap; /* host_swap_fixture.h */
	const struct hst_discard *discards; /* a discard that is under way; NULL: none */
	void (*on_present)(struct rig *x, roff_t off, uint64_t len);
	void (*on_refusal)(struct rig *x, unsigned vcpu); /* while the interrupt is refused */
	void *user;
};

/* ---- log ---- */

void rig_log(struct rig *x, enum rig_op op, unsigned vcpu, uint64_t a, uint64_t b);
void rig_log_clear(struct rig *x);

/* Place in the log of the nth (from 0) entry of a kind; RIG_LOG when there is none. */
unsigned rig_nth(const struct rig *x, enum rig_op op, unsigned n);
const struct rig_entry *rig_entry(const struct rig *x, enum rig_op op, unsigned n);

/* ---- clock, memory ---- */

uint64_t rig_now(void *ctx);
int rig_mem_result(struct rig *x, const char *what, struct err *e);
int rig_mem_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch_writes,
		    struct err *e);
int rig_mem_poison(void *ctx, roff_t off, uint64_t len, struct err *e);

/* ---- source ---- */

/* The content of the source: each page has a byte of its own, never 0. */
unsigned char rig_byte(uint64_t offset);
void rig_fill(const struct src_read *rd);

/* What the source holds of an offer's piece, copied. */
void rig_copy_piece(struct rig_src *s, const struct hst_offer *o, const struct hst_piece *p);

/* Ends outstanding read i; code 0: with its content, else with this failure. */
void rig_src_answer(struct rig_src *s, unsigned i, int code);
void rig_answer(struct rig *x, unsigned i, int code);
void rig_src_read(struct src *s, struct src_read *rd);
unsigned rig_src_read_at(const struct rig_src *s, uint64_t offset);
unsigned rig_read_at(const struct rig *x, uint64_t offset);
void rig_src_cancel(struct src *s, struct src_read *rd);
void rig_src_raise(struct src *s, struct src_read *rd);

/* ---- platform ---- */

struct apf_area *rig_area(struct rig *x, unsigned vcpu);
bool rig_slot_full(struct rig *x, unsigned vcpu);
void rig_slot_free(struct rig *x, unsigned vcpu);
void rig_inject_pf(void *ctx, unsigned vcpu, uint32_t token);
void rig_cancel_pf(void *ctx, unsigned vcpu);
void rig_finish_msr(void *ctx, unsigned vcpu, uint64_t value, bool gp);
int rig_set_msr(void *ctx, unsigned vcpu, uint32_t msr, uint64_t value);
bool rig_is_writable(void *ctx, unsigned vcpu, gpa_t gpa);
void rig_take_registers(void *ctx, unsigned vcpu, struct plat_registers *ret);
void rig_show_registers(void *ctx, unsigned vcpu, uint64_t en, uint64_t ctl);
void rig_pass_fault(void *ctx, unsigned vcpu);
int rig_raise_irq(void *ctx, unsigned vcpu, uint8_t vector);
void rig_kick(void *ctx, unsigned vcpu);

/* ---- hooks ---- */

void rig_outside_ready(void *ctx);
void rig_trouble(void *ctx, const struct hst_trouble *t);
void rig_trace(void *ctx, const struct apf_trace *t);

/* ---- set-up ---- */

struct hst_cfg rig_cfg(enum hst_faults faults, enum apf_rev rev);

/* One region of `bytes`; the source, as large, stands behind nothing yet. */
struct rig *rig_prepare(uint64_t bytes);

/* A touch of the guest's, reported by the kernel. */
int rig_kernel_touch(struct hst *h, roff_t off, struct err *e);
int rig_vmm_touch(struct hst *h, roff_t off, struct err *e);
void rig_start(struct rig *x, const struct hst_cfg *cfg);

/* `pages` of RAM, the source behind all of it. */
struct rig *rig_open_pages(const struct hst_cfg *cfg, uint64_t pages);
struct rig *rig_open(const struct hst_cfg *cfg);
void rig_assert_sound(const struct rig *x);
void rig_free(struct rig *x);
void rig_close(struct rig *x);

/* ---- driving ---- */

/* What lib_pump does: makes visible whatever is filled. */
unsigned rig_pump(struct rig *x);

uint64_t rig_block(const struct rig *x, uint64_t page);

/* The read of the block that page lies in ends well, and the block is made visible. */
void rig_bring(struct rig *x, uint64_t page);
void rig_after(struct rig *x, uint64_t ns);
bool rig_present(const struct rig *x, uint64_t page);

/* Has page fetched by a device, whatever the source does with it. */
void rig_populate(struct rig *x, uint64_t page);
struct hst_vcpu *rig_v(struct rig *x, unsigned vcpu);
void rig_exit(struct rig *x, unsigned vcpu, bool kick_only);
void rig_fault(struct rig *x, unsigned vcpu, uint64_t page);
enum hst_next rig_next(struct rig *x, unsigned vcpu);

/* It enters the guest; in pf2-strict what has become ready ends a HLT on the way. */
void rig_enters(struct rig *x, unsigned vcpu);

/* The guest faults and goes on as the driver says, with no kick in between. */
enum hst_next rig_fault_next(struct rig *x, unsigned vcpu, uint64_t page);

/* An exit for nothing in particular, and on. */
enum hst_next rig_pass(struct rig *x, unsigned vcpu);

/* KVM hands out a load of 8 bytes, or as many as are left of the page. */
void rig_load(struct hst_vcpu *v, roff_t off);

/* ---- the guest ---- */

void rig_wrmsr(struct rig *x, unsigned vcpu, uint32_t msr, uint64_t value);
void rig_wrmsr_ok(struct rig *x, unsigned vcpu, uint32_t msr, uint64_t value);

uint64_t rig_rdmsr(struct rig *x, unsigned vcpu, uint32_t msr);

/* Takes the #PF and empties word 0 first of all. Returns CR2. */
uint32_t rig_take_pf(struct rig *x, unsigned vcpu);

/* Takes the interrupt and frees the slot, without acknowledging. Returns the token. */
uint32_t rig_take_irq(struct rig *x, unsigned vcpu);
void rig_ack(struct rig *x, unsigned vcpu);
bool rig_by_irq(const struct rig *x);

uint64_t rig_en(const struct rig *x, unsigned vcpu);

uint64_t rig_ctl(const struct rig *x);

/* Takes one page-ready event by the rules of the revision. Returns its token. */
uint32_t rig_take_ready(struct rig *x, unsigned vcpu);

/* Events on, the wake-all taken. */
void rig_enable(struct rig *x, unsigned vcpu);

/* user faults, revision rev, events on at every vCPU. */
struct rig *rig_open_on(enum apf_rev rev, unsigned vcpus);

/* A task of the guest touches page and sleeps under the token that is returned. */
uint32_t rig_sleeper(struct rig *x, unsigned vcpu, uint64_t page);

#endif
