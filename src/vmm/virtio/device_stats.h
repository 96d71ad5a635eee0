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

/*
 * Of a balloon: what the VMM asks for, what the driver says, what was discarded; and the guest's
 * own statistics, as old as they are (0: it has told none).
 */
#define BALLOON_STATS(X) \
	X(balloon_target_bytes)     /* the guest is asked to give this much */ \
	X(balloon_bytes)            /* it says that it has given this much */ \
	X(balloon_inflated_bytes)   /* discarded as pages of the balloon, ever */ \
	X(balloon_reported_bytes)   /* discarded as pages that are free in the guest, ever */ \
	X(balloon_refused)          /* pages that are no RAM, or could not be discarded */ \
	X(guest_memory_bytes)       /* as the guest counts it, for its programs */ \
	X(guest_free_bytes)         /* unused */ \
	X(guest_available_bytes)    /* unused, or cheap to have back */ \
	X(guest_cache_bytes)        /* of files */ \
	X(guest_major_faults) \
	X(guest_minor_faults) \
	X(guest_swap_in_bytes) \
	X(guest_swap_out_bytes) \
	X(guest_stats_age_ns)

#define BALLOON_STATS_MEMBER(name) uint64_t name;

struct balloon_stats {
	BALLOON_STATS(BALLOON_STATS_MEMBER)
};

/* Of a socket device's connections. */
#define VSOCK_STATS(X) \
	X(vsock_connections) /* now */ \
	X(vsock_opened)      /* ever */ \
	X(vsock_refused)     /* nobody took them, or there was no room */ \
	X(vsock_resets)      /* about which the guest broke the rules */

#define VSOCK_STATS_MEMBER(name) uint64_t name;

struct vsock_stats {
	VSOCK_STATS(VSOCK_STATS_MEMBER)
};

#endif
