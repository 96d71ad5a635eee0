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
 * own statistics, as old as they are. X(name, unit, kind, help), as APF_COUNTER_TABLE has it.
 */
#define BALLOON_STATS(X) \
	X(balloon_target_bytes, BYTES, GAUGE, "Memory that the guest is asked to give.") \
	X(balloon_bytes, BYTES, GAUGE, "Memory that it says it has given.") \
	X(balloon_inflated_bytes, BYTES, COUNTER, "Discarded as pages of the balloon.") \
	X(balloon_reported_bytes, BYTES, COUNTER, "Discarded as pages free in the guest.") \
	X(balloon_refused, COUNT, COUNTER, "Pages that are no RAM, or could not be discarded.") \
	X(guest_memory_bytes, BYTES, GAUGE, "The guest's memory, as it counts it.") \
	X(guest_free_bytes, BYTES, GAUGE, "Of that: unused.") \
	X(guest_available_bytes, BYTES, GAUGE, "Of that: unused, or cheap to have back.") \
	X(guest_cache_bytes, BYTES, GAUGE, "Of that: of files.") \
	X(guest_major_faults, COUNT, COUNTER, "The guest's own page faults that read.") \
	X(guest_minor_faults, COUNT, COUNTER, "The guest's own page faults that did not.") \
	X(guest_swap_in_bytes, BYTES, COUNTER, "Read from the guest's own swap.") \
	X(guest_swap_out_bytes, BYTES, COUNTER, "Written to the guest's own swap.") \
	X(guest_stats_age_ns, NS, GAUGE, "How old the guest's numbers are; 0: it has told none.")

#define DEVICE_STATS_MEMBER(name, unit, kind, help) uint64_t name;

struct balloon_stats {
	BALLOON_STATS(DEVICE_STATS_MEMBER)
};

/* Of a socket device's connections. */
#define VSOCK_STATS(X) \
	X(vsock_connections, COUNT, GAUGE, "Connections between host and guest now.") \
	X(vsock_opened, COUNT, COUNTER, "Connections that both sides took.") \
	X(vsock_refused, COUNT, COUNTER, "Nobody took them, or there was no room.") \
	X(vsock_resets, COUNT, COUNTER, "Connections about which the guest broke the rules.")

struct vsock_stats {
	VSOCK_STATS(DEVICE_STATS_MEMBER)
};

#endif
