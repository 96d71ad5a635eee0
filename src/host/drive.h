/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver, stepped: what a vCPU's thread, the serving thread and the evicting thread do.
 * Whoever owns the threads (lib, sim) asks for the next step, carries it out, and comes back
 * with what happened; it decides nothing, and no thread does anything else with the driver.
 *
 * Every function is called under the VM lock unless it says otherwise.
 */
#ifndef HOST_DRIVE_H
#define HOST_DRIVE_H

#include "host/host.h"

/* ---- pumping: whoever moved the driver does it before letting go of the lock ---- */

struct hst_pump {
	struct hst_fetch *fetch;
	struct err why; /* code 0: it is visible */
};

/*
 * Submits, reaps, and ends the fetch that hst_pump_show has made visible. True: there is a block
 * to be made visible: hst_pump_show, then hst_pump again. False: nothing is left. *p starts as
 * zeroes.
 */
bool hst_pump(struct hst *h, struct hst_pump *p);
/* There is something to pump, which nobody has been told of. */
bool hst_pump_due(const struct hst *h);
/* Without the lock, if the caller likes: nobody else has this block, and others may go on. */
void hst_pump_show(struct hst_pump *p);

/* ---- a vCPU's thread ---- */

/* What the thread has just done. */
enum hst_did {
	HST_DID_CALL, /* the VMM wants the guest to run: apf_vcpu_run */
	HST_DID_RUN,  /* plat run, which ended with an exit */
	HST_DID_WAIT, /* plat wait; or it was called early */
	HST_DID_PUMP, /* pumped until nothing was left */
};

enum hst_do {
	HST_DO_RUN,    /* let go of the lock; plat prefault for each of `ahead`, plat run */
	HST_DO_WAIT,   /* let go of the lock; plat wait */
	HST_DO_PUMP,   /* pump */
	HST_DO_RETURN, /* let go of the lock; plat rest; back to the VMM */
};

struct hst_step {
	enum hst_do next;
	struct plat_entry entry; /* RUN */
	unsigned ahead_count;
	gpa_t ahead[HST_ARRIVED_MAX]; /* pages that the guest is about to touch */
	/*
	 * Letting go of the lock does not include pumping: what there is to do is the serving
	 * thread's, which is to be woken for it (hst_pump_due). The guest need not stand still.
	 */
	bool leave;
	int result; /* RETURN: 0, an exit for the VMM; -EINTR; or what the run call failed with */
};

/*
 * x: the exit, for HST_DID_RUN. wanted: the VMM wants its thread back, as plat wait says. The
 * caller has called plat begin before HST_DID_CALL. Letting go of the lock includes pumping, unless
 * `leave` is set.
 */
void hst_vcpu_step(struct hst_vcpu *v, enum hst_did did, const struct plat_exit *x, bool wanted,
		   struct hst_step *ret);

/*
 * At rest: the VMM has the thread, and whatever it does with the vCPU counts. KVM may be in the
 * middle of an instruction then, which it goes on with at the next entry; whole: it is not.
 */
bool hst_vcpu_is_at_rest(const struct hst_vcpu *v);
bool hst_vcpu_is_whole(const struct hst_vcpu *v);
/* After a reset, at rest: another part of what KVM was in the middle of is over. */
void hst_vcpu_finished(struct hst_vcpu *v, const struct plat_exit *x);

/* The vCPU leaves, at rest: it is as one that never ran, but for its tokens' numbers. */
void hst_vcpu_detach(struct hst_vcpu *v);

/* The VMM wants the thread back: once, with -EINTR, now or at its next call. */
void hst_vcpu_call_back(struct hst_vcpu *v);
/* It does, and has not got it yet. */
bool hst_vcpu_is_called_back(const struct hst_vcpu *v);

/* ---- the serving thread ---- */

/*
 * It has been woken by a deadline, by the end of a read, or by touches that the kernel has
 * reported (count of them, hst_touch_room at most; negative: *why says why they could not be
 * read), or by hst_touch_due. Then it pumps.
 */
void hst_serve_step(struct hst *h, const struct mem_touch *touches, int count,
		    const struct err *why);

/*
 * How long it may sleep after a step whatever ends meanwhile, so that it sees several pages at
 * once; 0: not at all. Nobody stands still for any of them: their tasks are parked. If somebody
 * comes to (hst_stands_still), or a touch is reported, its sleep is to end.
 */
uint64_t hst_linger_ns(const struct hst *h);
bool hst_stands_still(const struct hst *h);

/* ---- the evicting thread ---- */

struct hst_evicting {
	struct hst_job job;
	bool working; /* `job` is out */
};

/*
 * False: nothing to do. It is to come again when hst_evict_wanted says so, at *ret_look_ns
 * (NS_NEVER: no need) at the latest. True: hst_evict_work(&e->job) without the lock, then again.
 * *e starts as zeroes.
 */
bool hst_evict_step(struct hst *h, struct hst_evicting *e, uint64_t *ret_look_ns);

#endif
