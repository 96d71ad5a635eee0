/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the model consists of: the bound, the guest's memory, the engine's and the driver's
 * state, the guest's registers, and the properties that are asserted. Everything is global
 * and in arrays by vCPU, so that a trail can be read and an LTL formula can name it.
 */

/* ---- the bound ---- */
#ifndef NCPU
#define NCPU 1
#endif
#define NTASK 2
#ifndef NPAGE
#define NPAGE 2
#endif
#define FMAX 2 /* faults_max: entries of the pool, per vCPU */
#define IDS 3  /* token ids, for the 2^20 - 1 real ones: they come round quickly */

/* ---- revisions: REV is one of these ---- */
#define LEGACY 1
#define PF2 2
#define STRICT 3
#define INT 4
#define PF2_WIRE (REV == PF2 || REV == STRICT)

/* ---- values on the wire ---- */
#define MISSING 1
#define READY 2
#define TOKEN(id, c) ((id) * 2 + (c))
#define WAKE_ALL 15
#define REAL_ADDRESS 1 /* CR2 of a real page fault; no token has this value */
#define NONE 255
/* Vector 0 of the register; what a good guest writes; what a later kernel writes. */
#define VEC_NONE 0
#define VEC_FIRST 1
#define VEC_LATER 2

/* ---- pages ---- */
#define ABSENT 0
#define FETCHING 1
#define VISIBLE 2 /* in the guest's mapping, the driver has yet to be told */
#define PRESENT 3

/* ---- a fault of the engine ---- */
#define F_FREE 0
#define F_WAITING 1
#define F_READY 2
#define F_RETIRED 3
#define F_HALTED 4 /* pf2-strict: the vCPU was halted for it, nobody was told */
#define F(c, ix) ((c) * FMAX + (ix))

/*
 * ---- what the vCPU thread is doing outside the guest: an exit that is not handled yet, or
 * the wait for the grace window. X_GUEST: nothing, it is in the guest ----
 */
#define X_GUEST 0
mtype = { KICK, FAULT, GRACE, OTHER_EXIT, INIT_RESET, REST,
	  EN_ON, EN_OFF, CTL_ON, CTL_OFF, CTL_VECTOR_0, ACK };

/* ---- what the vCPU thread is in the middle of ---- */
#define PH_RUN 0
#define PH_GRACE 1
#define PH_STALL 2

/* ---- where the guest is ---- */
#define G_BOOT 0
#define G_BOOT_2 1
#define G_LAPIC 2
#define G_SCHED 3
#define G_IDLE 4
#define G_RUN 5
#define G_PF_WINDOW 6
#define G_PF_READ 7
#define G_PF_CLEAR 8
#define G_PF_SLEEP 9
#define G_IRQ_READ 10
#define G_IRQ_TOKEN 11
#define G_IRQ_CLEAR 12
#define G_IRQ_WAKE 13
#define G_IRQ_ACK 14
#define G_IRQ_END 15
#define G_OFF 16
#define G_IRQ_LEAVE 17
#define G_RESET 18

/* ---- guest memory: word 0 and word 1 of each area ---- */
byte reason[NCPU];
byte token[NCPU];

/* ---- engine (src/engine) ---- */
bool en[NCPU];
bool ctl_on[NCPU]; /* CTL.8; int: always read as set */
byte vec[NCPU];
byte next_id[NCPU];
byte sent_token[NCPU]; /* of the last page ready */
bool wake_due[NCPU];
byte wake_after[NCPU];
bool wake_in_slot[NCPU];
byte f_state[NCPU * FMAX];
byte f_token[NCPU * FMAX];
byte f_page[NCPU * FMAX];
chan issue[NCPU] = [FMAX] of { byte };
chan ready[NCPU] = [FMAX] of { byte };

/* ---- driver (src/host) ---- */
byte page[NPAGE];
byte phase[NCPU];
byte sync_page[NCPU]; /* what the phase waits for, or NONE */
bool sync_done[NCPU];
bool kicked[NCPU];
bool timer[NCPU]; /* the re-check is armed */
bool timer_by_vcpu[NCPU];
byte queued[NCPU]; /* the token of a page missing, until the guest has emptied word 0 */
/* pf2-strict: the stall ends with whatever becomes ready; something has since the last entry. */
bool by_text[NCPU];
bool unhalt[NCPU];

/* ---- the virtual CPU and what the platform holds for it ---- */
byte x[NCPU];       /* X_GUEST or one of the mtype */
byte x_page[NCPU];  /* of FAULT */
byte untaken[NCPU]; /* token of a #PF that is queued and not taken; 0: none */
bool untaken_missing[NCPU]; /* it is a page missing (ghost: nobody decides by it) */
bool halted[NCPU];  /* our halt */
bool lapic[NCPU];
bool irr[NCPU];
bool tpr[NCPU];     /* task priority above the vector, or a higher vector in service */
bool irqs_on[NCPU];
bool user[NCPU];
byte cr2[NCPU];

/* ---- guest kernel (src/guest) ---- */
byte pc[NCPU];
byte cur[NCPU]; /* task, or NONE */
byte h_token[NCPU];
byte h_reason[NCPU];
/* What a handler returns to: the first level is a task or idle, the second the open window. */
byte level[NCPU];
bool back_irqs_on[NCPU];
bool back_user[NCPU];
byte back_pc[NCPU];
/* Ghost: what the #PF being handled is: REAL_ADDRESS, a missing token, or 16 + a ready one. */
byte kind[NCPU];
byte kind_below[NCPU];
bool late[NCPU];  /* an MSR write of the bring-up that this guest makes later */
byte kernel[NCPU]; /* which kernel runs: 0, and 1 after a reset */
#ifdef RESTORE
bool restored; /* the VM runs on another host by now */
#endif

byte want[NTASK];   /* the page that the task's access needs, NONE between accesses */
byte parked[NTASK]; /* the token it sleeps under, 0: it does not */
byte parked_on[NTASK];
bool on_cpu[NTASK];
bool early[16];     /* a wake-up that came before its sleeper */

/* Ghost: whom the host told "page missing" under this token; NONE: nobody, or ended. */
byte told[16];

/* ---- properties ---- */
#define P_SLOT 1    /* no event is stored over one that the guest has not read */
#define P_ALLOWED 2 /* no page missing where the guest forbids it */
#define P_ONCE 3    /* each page missing ends once: no page ready without one, or twice */
#define P_REAL 4    /* a real page fault is taken for one, with its own address */
#define P_EVENT 5  /* an event by #PF is taken for what it is, with its own token */
#define P_TOKEN 6   /* a token that is still held by host or guest is not issued */
#define P_VECTOR 7  /* only the vector that the running kernel chose is raised */
#define P_NOWHERE 8 /* nothing due is dropped, no slot is filled without a notification */
#define P_HELD 9    /* an exit that finds the slot free leaves no event behind */
#define P_ANNOUNCED 10 /* an unread page ready keeps no fault from being announced */
#define P_READABLE 11  /* a page ready tells of a page that can be read */
#define P_UNHALTED 12  /* pf2-strict: nothing becomes ready and leaves a halt as it is */
#define P_QUIET 13     /* the host looks again only while something is due */

/*
 * WATCH names the one that is asserted; without it all are, but for the two that are about
 * promptness (hazards S3 and S4).
 */
#ifdef WATCH
#define CHECK(property, holds) assert((holds) || WATCH != property)
#else
#define CHECK(property, holds) \
	assert((holds) || property == P_HELD || property == P_ANNOUNCED)
#endif
