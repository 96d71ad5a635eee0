/* SPDX-License-Identifier: Apache-2.0 */
/* What is told about a device that has a worker thread. */
#ifndef VMM_DEVICE_STATS_H
#define VMM_DEVICE_STATS_H

#include "base/types.h"

#define DEVICE_NAME_MAX 16u /* with its NUL: also the worker's name */

/* What is not a device's affair is 0. */
struct device_stats {
	char name[DEVICE_NAME_MAX]; /* "blk0", "net0", "rng" */
	uint64_t requests;          /* that ended, whatever of it came of them */
	uint64_t read_bytes;        /* by the guest */
	uint64_t written_bytes;
	uint64_t throttled_ns;      /* for which requests were held back by a limit */
	uint64_t cpu_ns;            /* CPU time of the worker */
	uint64_t dropped;           /* frames of a network device's that were lost, either way */
};

#endif
