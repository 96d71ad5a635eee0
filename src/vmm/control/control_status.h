/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a running VM tells about itself over the control socket, and its form there: a line
 * "KEY VALUE" for each key, then one line per vCPU, "vcpu INDEX KEY VALUE KEY VALUE …",
 * and one per device, "device NAME KEY VALUE …"; a pager has "served NAME KEY VALUE …" for each
 * VM, and the same with "source". The tables of keys are the one place that knows names and types;
 * server, client and the client's --json go by them; counters come from
 * asyncpf/counters.h. Pure. Tests: tests/unit/control_status_test.c and control_fuzz.c.
 */
#ifndef VMM_CONTROL_STATUS_H
#define VMM_CONTROL_STATUS_H

#include <asyncpf/counters.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/types.h"
#include "vmm/virtio/device_stats.h"

#define CONTROL_VCPUS_MAX 64u
#define CONTROL_DEVICES_MAX 16u
#define CONTROL_SERVED_MAX 64u
#define CONTROL_SOURCES_MAX 64u
#define CONTROL_WORD_MAX 16u
#define CONTROL_NAME_MAX 63u /* bytes of a VM's name */
/* Room for the text of any status. */
#define CONTROL_ANSWER_MAX 57344u

/* Of the counters that each vCPU has, those that fit into its line. */
#define CONTROL_VCPU_COUNTERS(X) X(missing_events) X(ready_events) X(wake_alls) X(stalls)

#define CONTROL_VCPU_MEMBER(name) uint64_t name;

struct control_vcpu {
	CONTROL_VCPU_COUNTERS(CONTROL_VCPU_MEMBER)
	uint64_t cpu_ns; /* CPU time of its thread */
	uint64_t exits;  /* accesses to ports and devices that the machine has carried out */
};

/* A VM of another program's, whose memory a pager serves. */
struct control_served {
	char name[32]; /* of the socket that it came to, '.', and which VM it is, from 1 */
	uint64_t pid;  /* of its VMM */
	uint64_t memory_bytes, placed_bytes, removed_bytes;
	uint64_t faults_total, read_errors;
};

/* A source that a pager has open, for all VMs of a rule. */
struct control_source {
	char name[32]; /* of the rule's socket, '.', and which rule it is, from 1 */
	uint64_t vms;
	uint64_t reads, read_bytes, read_errors, read_retries;
	uint64_t read_ns, read_max_ns;
	uint64_t has_shared; /* 1: it is known */
	uint64_t shared_bytes;
};

struct control_status {
	char state[CONTROL_WORD_MAX]; /* "running" or "paused" */
	char why[ERR_TEXT_MAX];       /* paused for trouble, not on request: what and why */
	char note[ERR_TEXT_MAX];      /* what one may want to know of the guest besides */
	char faults[CONTROL_WORD_MAX];
	char abi[CONTROL_WORD_MAX];
	char io[CONTROL_WORD_MAX]; /* what reads and writes page source and swap file */
	char name[CONTROL_NAME_MAX + 1]; /* of the VM, as its user has named it */
	char version[CONTROL_WORD_MAX];  /* of the asyncpf that runs it */
	uint64_t protocol;               /* CONTROL_VERSION there */
	uint64_t pid;
	uint64_t uptime_ns;
	uint64_t block_bytes;
	uint64_t snapshot_running; /* 1: one is being made; the others are of the last, too */
	uint64_t snapshot_written_bytes, snapshot_left_bytes;
	uint64_t snapshot_paused_ns; /* the longest that the guest stood still for it */
	uint64_t disk_errors; /* requests of the guest's that the host failed */
	uint64_t vcpus_cpu_ns; /* of all vCPUs, as is the next */
	uint64_t exits;
	uint64_t has_shared;   /* 1: it is known */
	uint64_t shared_bytes; /* of the sources' files in the page cache */
	struct balloon_stats balloon;   /* all 0 where there is none: see has_balloon */
	uint64_t has_balloon;
	struct vsock_stats vsock;       /* in the same way */
	uint64_t has_vsock;
	struct apf_counters counters;

	uint64_t vcpu_count; /* of vcpus; at most CONTROL_VCPUS_MAX */
	struct control_vcpu vcpus[CONTROL_VCPUS_MAX];
	uint64_t device_count; /* of devices; at most CONTROL_DEVICES_MAX */
	struct device_stats devices[CONTROL_DEVICES_MAX];
	uint64_t served_count; /* of served; at most CONTROL_SERVED_MAX */
	struct control_served served[CONTROL_SERVED_MAX];
	uint64_t source_count; /* of sources; at most CONTROL_SOURCES_MAX */
	struct control_source sources[CONTROL_SOURCES_MAX];
};

struct control_key {
	const char *name;
	size_t offset;
	size_t text_max; /* an array of char with its NUL; 0: a uint64_t */
	size_t has;      /* where the uint64_t is that says whether there is a value; 0: always */
	enum apf_counter_unit unit; /* of a number, as is kind */
	enum apf_counter_kind kind;
	const char *help; /* one sentence; NULL: as the status has it of that name */
};

/* In the order in which they are said; a name of NULL ends each. */
extern const struct control_key control_status_keys[];
extern const struct control_key control_vcpu_keys[];
extern const struct control_key control_device_keys[]; /* all but the name */
extern const struct control_key control_served_keys[]; /* the same */
extern const struct control_key control_source_keys[]; /* the same */

/* The key that has the help, the unit and the kind of k: itself, or that of the VM's counter. */
const struct control_key *control_key_about(const struct control_key *k);
const char *control_key_text(const struct control_key *k, const void *base);
uint64_t control_key_number(const struct control_key *k, const void *base);
/* It has a value: it is neither an empty text nor a number that is not known. */
bool control_key_is_there(const struct control_key *k, const void *base);

/* All lines, not terminated by NUL; returns their length. What has no value is left out. */
size_t control_status_format(const struct control_status *s,
			     char ret_text[static CONTROL_ANSWER_MAX]);

/*
 * Stores what one line (without newline) says; an unknown key is passed over. 0, or -EINVAL,
 * *s then unchanged.
 */
int control_status_parse(const char *line, struct control_status *s);

#endif
