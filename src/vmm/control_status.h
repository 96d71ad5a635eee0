/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a running VM tells about itself over the control socket, and its form there: a line
 * "KEY VALUE" for each key, then one line per vCPU, "vcpu INDEX KEY VALUE KEY VALUE …". The
 * tables of keys are the one place that knows names and types; server, client and the
 * client's --json go by them. Pure. Tests: tests/unit/control_status_test.c and control_fuzz.c.
 */
#ifndef VMM_CONTROL_STATUS_H
#define VMM_CONTROL_STATUS_H

#include "base/err.h"
#include "base/types.h"

#define CONTROL_VCPUS_MAX 64u
#define CONTROL_WORD_MAX 16u
/* Room for the text of any status. */
#define CONTROL_ANSWER_MAX 16384u

struct control_vcpu {
	uint64_t missing_events, ready_events, wake_alls, stalls;
};

/* Counters are since the VM's start. */
struct control_status {
	char state[CONTROL_WORD_MAX]; /* "running" or "paused" */
	char why[ERR_TEXT_MAX];       /* paused for trouble, not on request: what and why */
	char faults[CONTROL_WORD_MAX];
	char abi[CONTROL_WORD_MAX];
	uint64_t uptime_ms;

	uint64_t memory_bytes, resident_bytes, absent_bytes, block_bytes;
	uint64_t resident_max_bytes; /* 0: no limit */
	uint64_t overhead_bytes;     /* of host memory, beside the guest's */

	/*
	 * Overcommit, in blocks: taken out of the guest's mapping, of these found unchanged or
	 * all zeroes, so that nothing was written; touched again while still in memory (rescued),
	 * memory given back (evicted), and of these fetched again (refaulted); rescued or fetched
	 * again for the guest's kernel mode, and read along with those, unasked.
	 */
	uint64_t unmapped, unmapped_clean, unmapped_zero, rescued, evicted, refaulted;
	uint64_t refaults_kernel_mode, read_ahead;
	uint64_t writes_in_flight, swap_write_errors, swapped_bytes;

	/* the source */
	uint64_t reads_in_flight, reads, read_bytes, read_errors, read_retries, read_timeouts;

	/* touches of absent memory, and what became of them */
	uint64_t faults_total, graced, blocked, host_wait_us;
	uint64_t missing_events, ready_events, wake_alls;
	uint64_t stalls, stalls_kernel_mode, stalls_irqs_off, stalls_slot_busy, stalls_other;
	uint64_t stall_us_kernel_mode, stall_us_other; /* how long they took, of host_wait_us */
	/* times that the vCPUs were kept out of KVM_RUN, to unmap blocks; in all, the longest */
	uint64_t holds, hold_us, hold_us_max;
	uint64_t wait_us_p50, wait_us_p99, wait_us_max;

	uint64_t vcpu_count; /* of vcpus; at most CONTROL_VCPUS_MAX */
	struct control_vcpu vcpus[CONTROL_VCPUS_MAX];
};

struct control_key {
	const char *name;
	size_t offset;
	size_t text_max; /* an array of char with its NUL; 0: a uint64_t */
};

/* In the order in which they are said; a name of NULL ends each. */
extern const struct control_key control_status_keys[];
extern const struct control_key control_vcpu_keys[];

const char *control_key_text(const struct control_key *k, const void *base);
uint64_t control_key_number(const struct control_key *k, const void *base);

/* All lines, not terminated by NUL; returns their length. An empty text has no line. */
size_t control_status_format(const struct control_status *s,
			     char ret_text[static CONTROL_ANSWER_MAX]);

/*
 * Stores what one line (without newline) says; an unknown key is passed over. 0, or -EINVAL,
 * *s then unchanged.
 */
int control_status_parse(const char *line, struct control_status *s);

#endif
