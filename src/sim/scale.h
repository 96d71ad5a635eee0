/* SPDX-License-Identifier: Apache-2.0 */
/* Ten thousand vCPUs on one host: scale.c. docs/scale.md shows what came out. */
#ifndef SIM_SCALE_H
#define SIM_SCALE_H

#include "base/types.h"

struct sim_scale_cfg {
	const char *name;
	uint32_t vms, vcpus_per_vm; /* vCPUs of a VM share its thread and its queue */
	uint32_t tasks;             /* per vCPU */
	uint32_t faults_max, queue_depth;
	uint64_t compute_ns;        /* of a task between two faults, on average */
	uint64_t latency_ns;        /* of the source, which all share */
	uint64_t reads_per_s;       /* that it can do */
	uint64_t missing_ns, ready_ns; /* what the events cost the vCPU */
	uint64_t host_ns;           /* and a fault the VM's thread */
	uint64_t faults;            /* to simulate */
	uint64_t seed;
};

struct sim_scale_row {
	uint64_t faults, stalls;
	uint64_t simulated_ns;
	uint64_t faults_per_s;
	/* From the touch to the task's release: */
	uint64_t wait_us_mean, wait_us_p50, wait_us_p99;
	/* Shares in thousandths: */
	uint32_t source, queue, thread, events, compute;
};

/* False: out of memory. */
bool sim_scale_run(const struct sim_scale_cfg *c, struct sim_scale_row *ret);
/* Row number i of the standard sweep; false: there is none. */
bool sim_scale_sweep(unsigned i, uint64_t faults, struct sim_scale_cfg *ret);

#endif
