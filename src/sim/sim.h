/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator's interface: settings of a seed, what a run saw, the entry point of
 * `asyncpf sim`. Everything but main.c is free of system calls; a run is a function of its
 * settings alone. Test: tests/sim/.
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "base/types.h"
#include "host/host.h"
#include "sim/log.h"

/* What may break; the table with the reasons is in faults.c. */
enum sim_fault {
	SIM_FAULT_LATE,       /* latencies far beyond the grace window, reordered */
	SIM_FAULT_ERROR,      /* reads that fail */
	SIM_FAULT_SHORT,      /* reads that end early */
	SIM_FAULT_HANG,       /* reads that are never answered */
	SIM_FAULT_PRESENT,    /* making a block visible fails */
	SIM_FAULT_SPURIOUS,   /* interrupts nobody raised */
	SIM_FAULT_NMI,
	SIM_FAULT_APIC,       /* the local APIC is off, at start and now and then */
	SIM_FAULT_REGISTER,   /* the guest switches events off and on */
	SIM_FAULT_CONTROL,    /* and its control register */
	SIM_FAULT_REAL,       /* page faults of the guest's own, at the worst moment */
	SIM_FAULT_FORGET_ACK, /* int: an acknowledgement that does not come */
	SIM_FAULT_RESET,      /* INIT */
	SIM_FAULT_PAUSE,
	SIM_FAULT_MIGRATE,
	SIM_FAULT_SNAPSHOT,   /* the VM is saved while it runs, another is restored from that */
	SIM_FAULT_KICK,       /* kicks for nothing */
	SIM_FAULT_SIGNAL,     /* the VMM wants its threads back, and changes CPU state */
	SIM_FAULT_DEVICE,     /* devices access guest memory */
	SIM_FAULT_FORAY,      /* paging off for a while */
	SIM_FAULT_EVICT,      /* memory is taken away on command */
	SIM_FAULT_UNMAP,      /* taking it away fails */
	SIM_FAULT_HOSTILE,    /* the guest scribbles on its area and registers */
	SIM_FAULTS,
};

struct sim_cfg {
	uint64_t seed;
	enum hst_faults faults;
	enum apf_rev rev;
	uint32_t vcpus;
	uint32_t tasks;    /* per vCPU */
	uint32_t pages;    /* that tasks touch */
	uint32_t accesses; /* per task */
	uint32_t nodes;    /* of the guest's table of sleepers */
	/* of the driver */
	uint32_t block_shift, faults_max, queue_depth, retries_max, ahead_max;
	uint64_t grace_ns, source_timeout_ns;
	bool evict; /* memory may be taken away */
	uint32_t resident_blocks; /* limit; 0: none */
	/* of the source */
	uint32_t source_pages; /* it ends there; what is behind reads as zeroes */
	uint64_t latency_ns, jitter_ns;
	bool delay_wrapper;
	uint64_t rate_bytes_per_s; /* 0: no wrapper that keeps to a rate */
	/* of the guest */
	uint64_t step_ns;      /* a piece of guest code takes up to that */
	uint64_t tick_ns;      /* 0: no timer interrupt */
	uint32_t write_one_in; /* accesses; 0: none */
	uint32_t kernel_one_in;
	uint32_t cli_one_in;    /* of those: with interrupts off */
	uint32_t shadow_one_in; /* accesses right behind MOV SS */
	uint32_t port_one_in;   /* turns of the kernel's loop: a register of a device is read */
	bool clock;             /* the kernel writes a clock into the guest's memory */
	bool sequential;
	bool send_always;
	bool protected_state;
	bool emulated; /* CPL 0 accesses are handed to the host one by one */
	/* of the VMM's other threads */
	uint32_t writers;   /* that access memory through the VMM's own view */
	bool discards;      /* a balloon */
	bool holds;         /* memory is held for as long as a device has it pinned */
	uint64_t vmm_ns;    /* between two doings of one of them: up to that */
	bool parts;         /* memory is adopted and removed while the VM runs */
	bool rude;          /* the guest goes on to touch what leaves */
	bool offers;        /* sources bring along what nobody has asked for */
	/* of the run */
	uint32_t next_id;      /* of each vCPU's tokens: an engine that has seen a lot */
	uint32_t faults_on;    /* bit per enum sim_fault */
	uint64_t director_ns;  /* one fault in about that time */
	uint32_t safety_events;
	uint32_t live_events;  /* least budget of the liveness phase */
};

/*
 * Blocks: every task's page, every stack, area and clock has room, with the driver's slack (45),
 * and so has what a snapshot reads and holds. Less one, which is the least that is added.
 */
static inline uint32_t sim_resident_min(const struct sim_cfg *c)
{
	uint32_t snapshot = c->faults_on >> SIM_FAULT_SNAPSHOT & 1 ? 2 : 0;

	return 6 + snapshot + c->vcpus * (c->tasks + 2);
}

/* What a seed asks for. */
void sim_cfg_from_seed(struct sim_cfg *c, uint64_t seed);
/* Another revision, and nothing that it cannot do. */
void sim_cfg_set_rev(struct sim_cfg *c, enum apf_rev rev);

struct sim_counts {
	uint64_t events;
	uint64_t missing, ready, wake_alls; /* sent */
	uint64_t stalls, accesses, reads, evicted, swapped;
	uint64_t resets, migrations, pauses, troubles, refused, spurious, real_faults;
	uint64_t vmm_accesses, vmm_touches; /* the latter waited */
	uint64_t discarded, overwritten;    /* pages */
	uint64_t holds;
	uint64_t adopted, removed, kept_back; /* parts; the last could not leave: some was held */
	uint64_t left_accesses; /* of memory that has left */
	uint64_t offered;       /* pages */
	uint64_t snapshots, tries_again, given_up, restores;
	uint64_t hazards; /* pf2-strict: tasks that were never woken */
};

struct sim_verdict {
	bool broken;
	unsigned invariant; /* of docs/abi.md; 0: another promise */
	char what[120];
};

struct sim;

/* Memory for one world, to be used for many runs. NULL: out of memory. */
struct sim *sim_new(struct sim_log *log);
void sim_delete(struct sim *w);
/* Runs one seed's settings from start to end. */
void sim_run(struct sim *w, const struct sim_cfg *c, struct sim_verdict *ret,
	     struct sim_counts *ret_counts);

/* Words for output. */
const char *sim_fault_name(enum sim_fault f);
const char *sim_rev_name(enum apf_rev rev);
const char *sim_faults_name(enum hst_faults f);

#endif
