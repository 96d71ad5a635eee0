/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened, in order: entries of numbers that name objects (vCPU, task, page, token),
 * never pointers, so that two runs of one seed are byte-equal. The last ones are kept in a
 * ring, all of them go into a digest. Plain data: main.c keeps it in memory that outlives
 * the process that simulates. Test: tests/sim/sim_test.py.
 */
#ifndef SIM_LOG_H
#define SIM_LOG_H

#include <stddef.h>
#include <stdint.h>

#define SIM_LOG_ENTRIES 4096u /* power of two */
#define SIM_LOG_NOBODY 255u

enum sim_op {
	SIM_OP_STEP,    /* a: thread state */
	SIM_OP_ENTER,   /* a: how */
	SIM_OP_EXIT,    /* a: kind */
	SIM_OP_FAULT,   /* a: page */
	SIM_OP_ACCESS,  /* a: page, b: value */
	SIM_OP_MISSING, /* a: token, b: page */
	SIM_OP_READY,   /* a: token, b: vector or 0 */
	SIM_OP_CANCEL,
	SIM_OP_REFUSED, /* a: token */
	SIM_OP_SLEEP,   /* a: task, b: token */
	SIM_OP_WAKE,    /* a: task, b: token */
	SIM_OP_PF,      /* a: what it was, b: cr2 */
	SIM_OP_IRQ,     /* a: vector */
	SIM_OP_NMI,
	SIM_OP_HLT,
	SIM_OP_WRMSR,   /* a: register, b: value */
	SIM_OP_GP,      /* a: register */
	SIM_OP_READ,    /* a: first page, b: bytes */
	SIM_OP_READ_END, /* a: first page, b: result */
	SIM_OP_WRITE,   /* a: first page, b: bytes */
	SIM_OP_WRITE_END,
	SIM_OP_SYNC, /* of the swap file */
	SIM_OP_SYNC_END,
	SIM_OP_UNMAP,   /* a: first page, b: bytes */
	SIM_OP_COLLECT,
	SIM_OP_DROP,
	SIM_OP_PRESENT, /* a: first page, b: bytes */
	SIM_OP_SHOWN,   /* a: block */
	SIM_OP_TOUCH,   /* a: page */
	SIM_OP_KICK,
	SIM_OP_SERVE,   /* a: touches */
	SIM_OP_REST,    /* a: result */
	SIM_OP_TROUBLE, /* a: page, b: code */
	SIM_OP_GOES_ON,
	SIM_OP_PAUSE,
	SIM_OP_RESUME,
	SIM_OP_RESET,
	SIM_OP_MIGRATE, /* a: by registers */
	SIM_OP_DEVICE,  /* a: page */
	SIM_OP_DIRECTOR, /* a: fault */
	SIM_OP_DONE,    /* a: task */
	SIM_OP_FAIR,
	SIM_OP_VMM,     /* a: page; a thread of the VMM's touches it */
	SIM_OP_VMM_TOUCH, /* a: page; and waits */
	SIM_OP_DISCARD, /* a: first page, b: bytes */
	SIM_OP_DISCARDED, /* a: first page, b: code */
	SIM_OP_HOLD,    /* a: page, b: whether it is held */
	SIM_OP_RELEASE, /* a: page */
	SIM_OP_ADOPT,   /* a: first page, b: bytes; a part comes */
	SIM_OP_LEAVE,   /* a: first page; its memslot is gone */
	SIM_OP_REMOVED, /* a: first page, b: whether it has left; or is looked at later */
	SIM_OP_LEFT,    /* a: page; the guest touches what has left */
	SIM_OP_OFFER,   /* a: first page, b: bytes */
	SIM_OP_OFFERED, /* a: first page, b: bytes of it that are taken */
	SIM_OP_SNAP,    /* a: enum snap_todo, b: result of the step before */
	SIM_OP_SNAP_PAGE, /* a: page, b: value; it goes to the snapshot */
	SIM_OP_RESTORE,
	SIM_OP_BROKEN,  /* a, b: as the sentence says */
	SIM_OPS,
};

struct sim_log_entry {
	uint64_t ns;
	uint64_t a, b;
	uint8_t op;
	uint8_t who; /* vCPU, or SIM_LOG_NOBODY */
};

struct sim_log {
	struct sim_log_entry ring[SIM_LOG_ENTRIES];
	uint64_t count;
	uint64_t digest;
	/* Called with every entry when set: the whole log. */
	void (*tee)(void *ctx, const struct sim_log_entry *e);
	void *ctx;
	/* For whoever watches from another process. */
	uint64_t seed, events;
};

void sim_log_clear(struct sim_log *l);
void sim_log_add(struct sim_log *l, uint64_t ns, enum sim_op op, unsigned who, uint64_t a,
		 uint64_t b);
/* One line without its end; returns its length. */
size_t sim_log_line(const struct sim_log_entry *e, char *buf, size_t bytes);

#endif
