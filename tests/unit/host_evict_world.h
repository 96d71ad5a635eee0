/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world of host_evict_property_test.c: the guest's vCPUs, devices, threads of the VMM's, the
 * balloon, source and swap file, the evictor. Each step of one is a function; the test draws which
 * comes next, and judges.
 */
#ifndef HOST_EVICT_WORLD_H
#define HOST_EVICT_WORLD_H

#include "base/prng.h"
#include "host_swap_fixture.h"

#define PAGES 128u
#define PARKED 8u
#define DEVICES 3u
#define HELD 3u
#define THREADS 2u

/* What a task of the guest, or a device, wants of a page. */
struct wish {
	uint64_t page;
	uint64_t value; /* 0: to read it */
	bool io;	/* the host carries it out */
};

enum where { IN_GUEST, IN_WAIT };

struct cpu {
	struct wish wish; /* of the running task */
	struct { /* tasks that sleep under a token, or that were woken (token 0) */
		struct wish wish;
		uint32_t token;
	} parked[PARKED];
	unsigned parked_len;
	enum where where;
	uint64_t until;
	bool halted;
	bool io;     /* an access of the host is under way */
	bool sleeps; /* in the kernel, until somebody wakes it */
	unsigned woken;
};

struct device {
	struct hst_waiter w;
	struct wish wish;
	bool busy;
};

/* A thread of the VMM's, that touches memory through its view. */
struct thread {
	struct wish wish; /* page 0: none */
	bool sleeps;
	unsigned woken;
};

struct balloon {
	struct hst_discard d;
	struct hst_waiter w;
	enum { NO_DISCARD, DISCARDING, RUN_BEGUN, RUN_WORKED } at;
};

struct world {
	struct rig *x;
	struct prng rng;
	struct cpu cpus[RIG_VCPUS];
	struct device devices[DEVICES];
	struct thread threads[THREADS];
	struct balloon balloon;
	uint64_t held_page; /* hst_hold_long; 0: none */
	struct hst_fetch *held[HELD]; /* being made visible by other threads */
	struct hst_offer offer; /* a piece of it is being copied while fetch is set: */
	struct hst_piece piece;
	struct hst_job job;
	enum { NO_JOB, JOB_BEGUN, JOB_WORKED } evictor;
	unsigned offers; /* left for the fair time */
	bool native; /* the kernel may fill memory by itself, past the limit */
	bool fair;
	uint64_t checked; /* pages looked at */
	const char *broken;
};

uint64_t evw_rnd(struct world *w, uint64_t n);
void evw_must(struct world *w, bool ok, const char *what);
void evw_schedule(struct world *w, struct cpu *p);
void evw_guest_step(struct world *w, unsigned c);
void evw_source_step(struct world *w);
void evw_write_step(struct world *w);
void evw_evictor_step(struct world *w);
void evw_device_step(struct world *w);
void evw_thread_step(struct world *w);
void evw_balloon_step(struct world *w);
void evw_hold_step(struct world *w);
void evw_visible_step(struct world *w);
void evw_offer_step(struct world *w);
void evw_time_step(struct world *w);
void evw_trouble_step(struct world *w);

#endif
