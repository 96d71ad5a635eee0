/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The APF protocol as a per-vCPU state machine: MSRs, tokens, which event may be
 * sent when. It decides and records; it performs nothing. The caller (host/)
 * reads the slot, stores what an event says, raises what it says, and reports
 * back. No OS call, no allocation, no clock, no lock: the caller's lock covers
 * it. Guest-controlled values are checked here and never asserted.
 *
 * Reading order: this file, msr.c (registers), fault.c (page missing), ready.c
 * (page ready), save.c. The decision tables are in docs/engine.md.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "abi/apf.h"
#include "base/cpu_state.h"
#include "base/types.h"

/* More outstanding faults than this per vCPU cannot be asked for. */
#define ENG_FAULTS_MAX 4096u
#define ENG_NIL UINT32_MAX

/* What the guest is told about (CPUID) decides what its MSR writes may ask for. */
struct eng_cfg {
	enum apf_rev rev;
	uint32_t vcpu_id;    /* 0..4095: the low bits of every token */
	uint32_t features;   /* APF_CPUID_* bits offered; normally eng_features(rev) */
	bool has_lapic;      /* a local APIC that can be handed a fixed interrupt */
	uint32_t faults_max; /* 1..ENG_FAULTS_MAX outstanding faults */
};

/* Life of one fault that the guest is told about; in pf2-strict also of one that halts its vCPU. */
enum eng_fault_state {
	ENG_FAULT_FREE,
	ENG_FAULT_WAITING, /* page missing was sent, the page is not there yet */
	/* pf2-strict: the same, but no page missing was sent: the vCPU was halted (eng_halt). */
	ENG_FAULT_HALTED,
	ENG_FAULT_READY,   /* the page is there, page ready is due */
	/*
	 * The guest was released otherwise (wake-all, disable, reset) while the fetch still
	 * runs. The entry stays taken until the caller reports the page, so that a late
	 * completion can never be taken for a newer fault's.
	 */
	ENG_FAULT_RETIRED,
};

struct eng_fault {
	uint64_t gfn;
	uint32_t token;
	uint32_t prev; /* issue order, all states but FREE */
	uint32_t next;
	uint32_t ready_next; /* READY: order of completion; FREE: free list */
	uint32_t place; /* scratch of save and restore */
	enum eng_fault_state state;
};

struct eng_vcpu {
	struct eng_cfg cfg;
	uint64_t en;  /* APF_MSR_EN, last accepted value */
	uint64_t ctl; /* APF_MSR_CTL, last accepted value */
	uint32_t next_id;
	uint32_t sent_token;     /* of the last page ready; its fault is forgotten by now */
	bool wake_all_due;       /* a wake-all is queued */
	uint32_t wake_all_after; /* it comes after this many entries of the ready queue */
	bool wake_all_in_slot;   /* it was written, and the guest has not freed the slot yet */
	/* Faults: a fixed pool, a list in issue order, a queue in completion order. */
	struct eng_fault *faults;
	uint32_t free_head;
	uint32_t issue_head, issue_tail;
	uint32_t ready_head, ready_tail;
	uint32_t outstanding; /* all states but FREE */
	uint32_t ready_len;
};

/* Bits of CPUID leaf 0x40000001 EAX that a revision announces. */
uint32_t eng_features(enum apf_rev rev);

/* faults: caller's array of cfg->faults_max; the engine's from here on. */
void eng_init(struct eng_vcpu *v, const struct eng_cfg *cfg, struct eng_fault *faults);

/* ---- registers (msr.c) ---- */

struct eng_wrmsr_in {
	uint32_t msr;
	uint64_t value;
	/* For APF_MSR_EN: eng_area_gpa(value) .. +8 is RAM that the caller can read and write. */
	bool area_ok;
};

enum eng_wrmsr {
	ENG_WRMSR_OK,
	ENG_WRMSR_GP,      /* raise #GP; nothing changed (pf2-strict: see msr.c) */
	/*
	 * Accepted, events are on: zero the area if eng_zeroes_area. Not where saved state is
	 * restored: it may hold an event that the guest has yet to take.
	 */
	ENG_WRMSR_ENABLED,
	ENG_WRMSR_RESCAN,  /* accepted: something may be deliverable now */
};

enum eng_wrmsr eng_wrmsr(struct eng_vcpu *v, const struct eng_wrmsr_in *in);

/* False: #GP. */
bool eng_rdmsr(const struct eng_vcpu *v, uint32_t msr, uint64_t *ret_value);

/* INIT or reset of the vCPU: events off, faults retired; EN and, in int, CTL read 0. */
void eng_reset(struct eng_vcpu *v);
/* It would change something that the guest can see. */
bool eng_reset_is_seen(const struct eng_vcpu *v);

/* Events are on, in the sense of the revision (legacy, pf2: EN.0; int: EN.0 and EN.3). */
bool eng_enabled(const struct eng_vcpu *v);
/* The area that EN names. Only while eng_enabled. */
gpa_t eng_area_gpa(uint64_t en);
/* Whether the host empties the area at an enabling write (pf2 and int). */
bool eng_zeroes_area(const struct eng_vcpu *v);

/* ---- the area, as the caller read it just now, both words at once ---- */

struct eng_slot {
	bool readable;
	uint32_t reason; /* word 0 */
	uint32_t token;  /* word 1 */
};

/* ---- page missing (fault.c) ---- */

/* Why a fault cannot be announced. ENG_MAY_SEND: it can. */
enum eng_verdict {
	ENG_MAY_SEND,
	ENG_NOT_ENABLED,
	ENG_NO_LAPIC,
	ENG_EVENT_PENDING, /* an exception pending or an event to re-inject */
	ENG_IRQS_OFF,      /* IF=0, or interrupt shadow */
	ENG_KERNEL_MODE,   /* CPL 0 without SEND_ALWAYS */
	ENG_NESTED,        /* in L2 without PF_VMEXIT */
	ENG_NO_PAGING,
	ENG_SLOT_BUSY,     /* pf2: the previous event was not consumed */
	ENG_AREA_LOST,     /* the area cannot be read */
	ENG_TOO_MANY,      /* faults_max are outstanding */
	ENG_VERDICTS,
};

/* One word for each verdict, for messages and statistics. */
const char *eng_verdict_name(enum eng_verdict w);

/* May "page missing" be sent now? Pure question. */
enum eng_verdict eng_may_send_missing(const struct eng_vcpu *v, const struct cpu_state *cpu,
				      struct eng_slot slot);

/* What to store in the area: `len` bytes (4 or 8) of `value`, at offset `off`. */
struct eng_store {
	uint8_t off;
	uint8_t len; /* 0: nothing */
	uint64_t value;
};

enum eng_how {
	ENG_HOW_NOTHING,  /* the event ends here: drained, or the founding text's hole S1/S8 */
	ENG_HOW_PF,       /* synthetic #PF, CR2 = token */
	ENG_HOW_IRQ,      /* fixed interrupt `vector` */
	ENG_HOW_CANCEL_PF, /* legacy: the untaken page-missing #PF of the same token is withdrawn */
};

struct eng_event {
	struct eng_store store; /* first */
	enum eng_how how;       /* then */
	uint32_t token;
	uint8_t vector;
	gfn_t gfn; /* of the fault; 0 for a wake-all */
};

/*
 * Records a fault on gfn and composes its page-missing event. Only right after
 * eng_may_send_missing said ENG_MAY_SEND. Returns the fault's index (< faults_max),
 * which the caller hands back in eng_page_ready.
 */
uint32_t eng_send_missing(struct eng_vcpu *v, gfn_t gfn, struct eng_event *ret_ev);

/* What ends a halt for which nothing was sent. */
enum eng_halt {
	ENG_HALT_SILENT,  /* its own page, without an event; an interrupt */
	/* pf2-strict: any page ready, too, and any page that comes. The page is in the books. */
	ENG_HALT_JOINED,
	/* pf2-strict: the same, and page ready will be sent, for a token that nobody was told. */
	ENG_HALT_ENTERED,
};

/*
 * The vCPU is to be halted for a fault on gfn, since eng_may_send_missing forbade to announce it.
 * The founding text queues such a fault like any other, where the CPU could take an exception: what
 * forbids the event is the guest's (CPL, L2, events off) or the area's. ENG_HALT_ENTERED:
 * *ret_index is the fault's, as of eng_send_missing. Else nothing has changed.
 */
enum eng_halt eng_halt(struct eng_vcpu *v, const struct cpu_state *cpu, struct eng_slot slot,
		       gfn_t gfn, uint32_t *ret_index);

/* ---- page ready (ready.c) ---- */

/*
 * The page of fault `index` is readable by the guest. True: page ready is now due.
 * False: the guest was released before, the entry is free again.
 */
bool eng_page_ready(struct eng_vcpu *v, uint32_t index);

enum eng_ready {
	ENG_READY_NONE,     /* nothing is due */
	ENG_READY_SEND,     /* perform *ret_ev, then eng_ready_sent */
	/* The guest has to free the slot first, or the area cannot be read: look again later. */
	ENG_READY_SLOT_BUSY,
	ENG_READY_NO_CPU,   /* needs the CPU state: ask again on the vCPU thread */
	ENG_READY_NOT_NOW,  /* the CPU state forbids it: ask again at a later exit */
	/* Switched off by the guest (pf2: CTL), or vector < 16: held until an MSR write. */
	ENG_READY_OFF,
};

/*
 * What is the next page-ready event, and may it be sent? cpu: NULL when the caller
 * is not on the vCPU thread at an exit. Notices a freed slot. Changes nothing else.
 */
enum eng_ready eng_next_ready(struct eng_vcpu *v, const struct cpu_state *cpu,
			      struct eng_slot slot, struct eng_event *ret_ev);

/* The event that eng_next_ready composed was performed. Not called: it stays due. */
void eng_ready_sent(struct eng_vcpu *v, const struct eng_event *ev);

/*
 * `ev` was queued as a #PF (ENG_HOW_PF; page missing, or page ready and reported by
 * eng_ready_sent), and was taken out of the CPU again before the guest saw it. A page missing is
 * forgotten as if it had never been sent: returns its fault's index, for which no page is to be
 * reported any more, or ENG_NIL if there is no such fault by now. A page ready or a wake-all is
 * due again, before all others: ENG_NIL.
 * slot: as read now; *ret_store: what the area needs so that the event is not in it.
 */
uint32_t eng_take_back(struct eng_vcpu *v, const struct eng_event *ev, struct eng_slot slot,
		       struct eng_store *ret_store);

/* ---- save and restore (save.c) ---- */

#define ENG_SAVE_VERSION 2u

/* Bytes that eng_save needs at most. */
size_t eng_save_bytes(const struct eng_vcpu *v);
/* Writes the whole state, little-endian, self-describing. Returns the bytes written. */
size_t eng_save(const struct eng_vcpu *v, unsigned char *buf);
/*
 * Restores into an initialised engine of the same revision and vCPU id. The bytes are
 * checked as hostile input; false leaves the engine as it was. Faults that were WAITING or HALTED
 * are so again: the caller finds them with eng_first/eng_next_waiting and fetches.
 */
bool eng_restore(struct eng_vcpu *v, const unsigned char *buf, size_t len);
/*
 * The saved state has events on, in the area at *ret_gpa, which the caller sees to it is RAM, as
 * for a guest's write. False: it names none (or is none that eng_restore would take).
 */
bool eng_saved_area(const struct eng_vcpu *v, const unsigned char *buf, size_t len,
		    gpa_t *ret_gpa);

/* Iterates WAITING and HALTED faults in issue order; ENG_NIL ends. */
uint32_t eng_first_waiting(const struct eng_vcpu *v);
uint32_t eng_next_waiting(const struct eng_vcpu *v, uint32_t index);

#endif
