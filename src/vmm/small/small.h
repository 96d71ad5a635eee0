/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine for the small guest (guests/small): memory, page tables, vCPUs, a console
 * port and an exit port. It uses libasyncpf through its public header like any other VMM.
 */
#ifndef VMM_SMALL_H
#define VMM_SMALL_H

#include <asyncpf/asyncpf.h>

#include "abi/small.h"
#include "base/err.h"

struct guest_mem;

/* A vCPU that apf_vcpu_run() has returned from. */
struct small_rest {
	unsigned index;
	int fd;
	struct kvm_run *run;
	struct apf_vcpu *vcpu;
	int rc;
};

struct small_cfg {
	struct apf_config apf;   /* vcpus_max is taken from boot.vcpus */
	struct small_boot boot;  /* magic, version, image_gpa and tsc_khz are filled in */
	const char *source_uri;  /* what stands behind the image; NULL: zeroes */
	const uint64_t *expect;  /* small_page_hash of each page, boot.pages of them */
	int stop_fd;             /* readable: end the run; -1: none */
	uint64_t time_limit_ms;  /* end the run after that; 0: none */
	/* Progress, from the thread that called small_run, about every 100 ms; may be NULL. */
	void (*progress)(void *ctx, const struct apf_counters *c);
	/* What the library reports, from any of its threads; may be NULL. */
	void (*event)(void *ctx, const struct apf_event *ev);
	/*
	 * Called by small_run's thread after attach and before the first run, and at every
	 * progress tick, with the live objects; tests act through it. May be NULL.
	 */
	void (*tick)(void *ctx, struct apf *a, struct apf_vcpu *const *vcpus, bool first);
	/* Called when the machine is made, before `first`: KVM's VM and its RAM. May be NULL. */
	void (*made)(void *ctx, struct apf *a, int vm_fd, const struct guest_mem *mem);
	/* Called for each vCPU that small_run has opened, before anything is set. May be NULL. */
	void (*opened)(void *ctx, unsigned index, int fd);
	/*
	 * Called by a vCPU's thread whenever apf_vcpu_run() has returned rc, before the exit is
	 * served: tests look at the vCPU at rest. May be NULL.
	 */
	void (*at_rest)(void *ctx, const struct small_rest *r);
	/* The vCPU threads have ended, and what tick was given is about to go. May be NULL. */
	void (*end)(void *ctx);
	void *ctx;
};

#define SMALL_CONSOLE_MAX 4096

struct small_outcome {
	bool started;        /* the machine was made, and its vCPUs entered */
	bool ended;          /* the guest wrote its exit port */
	uint32_t status;     /* what it wrote; 0: everything verified */
	double wall_s;       /* first vCPU entered to exit port */
	double guest_s;      /* first task started to last one finished, by the guest's TSC */
	double vcpu_cpu_s;   /* CPU time of all vCPU threads in the run */
	double process_cpu_s; /* CPU time of the whole process in the run */
	double machine_cpu_s; /* busy time of all the machine's CPUs, kernel threads included */
	enum apf_io io;      /* what the pages were read by */
	uint64_t tsc_khz;    /* what the guest's time stamps count in */
	struct apf_counters stats;
	struct small_results results;
	char console[SMALL_CONSOLE_MAX]; /* what it printed, 0-terminated */
};

/*
 * Runs the small guest to its end. 0: ret is filled, see `ended`. -EINTR: stop_fd;
 * -ETIME: the time limit; otherwise -Exxx; text always. ret->stats and console are
 * filled whenever the machine had been started.
 */
int small_run(const struct small_cfg *cfg, struct small_outcome *ret, struct err *e);

#endif
