/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page fault handler of VMs that are other processes: takes their userfaultfds by Firecracker's
 * handshake and serves their touches of absent memory from page sources. docs/pager.md is for
 * whoever runs it. Test: tests/integration/pager_test.py.
 *
 * Threads: pgr_run() is one thread, which does everything, and sleeps in one place. Any other may
 * call pgr_add_rule, pgr_stop, pgr_status and pgr_sources meanwhile: one lock, held for one round
 * of the loop.
 */
#ifndef PAGER_PAGER_H
#define PAGER_PAGER_H

#include <asyncpf/counters.h>

#include "base/err.h"
#include "base/types.h"
#include "io/queue.h"

/* VMs at a time; each costs a few descriptors and three bits for each page. */
#define PGR_VMS_MAX 1024u
#define PGR_NAME_MAX 24u
/* Descriptors that VMs and connections have at a time. */
#define PGR_DESCRIPTORS_MAX (3u * PGR_VMS_MAX + 256u)
/* A VMM that has connected says what it has to within this time. */
#define PGR_HANDSHAKE_MS 10000u

/* Which thread has begun. */
enum pgr_thread {
	PGR_THREAD_LOOP,    /* pgr_run's, once all is made that it needs */
	PGR_THREAD_WORK,    /* decompresses and compares; reads, where there is no io_uring */
	PGR_THREAD_SOURCES, /* speaks to servers; it starts others, that look up names */
};

struct pgr_cfg {
	enum ioq_way io;
	uint32_t handshake_ms; /* 0: PGR_HANDSHAKE_MS */
	uint32_t read_ahead;   /* pages that are read ahead of an even stream at most; 0: none */
	/*
	 * Makes a socket that listens there, which stays the owner's to close, after pgr_close. The
	 * descriptor, non-blocking, or -Exxx with text. By whoever calls pgr_add_rule.
	 */
	int (*listen)(void *ctx, const char *path, struct err *e);
	/* One line for whoever runs it: a VM came, went, was refused. By pgr_run's thread. */
	void (*say)(void *ctx, const char *text);
	/* The first thing on a thread, with a name for it. NULL: nothing. */
	void (*begins)(void *ctx, enum pgr_thread which, const char *name);
	void *ctx;
};

struct pgr_vm_status {
	char name[PGR_NAME_MAX]; /* of the socket that it came to, the folder left out */
	uint64_t number;         /* which VM it is, from 1 */
	uint64_t pid;            /* of the VMM; 0: not known */
	uint64_t memory_bytes;
	uint64_t placed_bytes;   /* from the source, or zeroes, since it came */
	uint64_t removed_bytes;  /* that it has given back, also what was never placed */
	uint64_t resident_bytes; /* placed, and not given back since */
	uint64_t faults_total;
	uint64_t reads_in_flight;
	uint64_t read_errors;
};

/* A source that is open. */
struct pgr_source_status {
	char name[PGR_NAME_MAX]; /* of its rule's socket, the folder left out */
	uint64_t number;         /* which rule it is, from 1 */
	uint64_t vms;            /* that it serves now */
	uint64_t reads;          /* that it answered well, as are bytes and times */
	uint64_t read_bytes, read_errors, read_retries;
	uint64_t read_ns, read_max_ns;
	int64_t shared_bytes; /* by pgr_shared; -Exxx: not known, as port/source.h has it */
};

struct pgr_status {
	struct apf_counters counters; /* of all VMs, those that have gone included */
	uint64_t vms;                 /* now */
	uint64_t vms_total;
	uint64_t refused;             /* connections that were no VM that could be served */
	uint64_t uptime_ns;
	const char *io;
	char trouble[ERR_TEXT_MAX];   /* the source's newest failure that a VM still waits for */
};

struct pgr;

/* 0 or -Exxx; then there is nothing to close. */
int pgr_open(const struct pgr_cfg *cfg, struct pgr **ret, struct err *e);
/*
 * Starts the threads that sources may need, before pgr_run; otherwise they are started with the
 * first source that does. For who has later rules added by a thread that may do less than they.
 * 0 or -Exxx.
 */
int pgr_start(struct pgr *p, bool network, struct err *e);
/*
 * Listens there, mode 0600, and serves who comes from that source, which is opened here. A socket
 * that is listened on already gets another source for those who come from now on. 0 or -Exxx.
 */
int pgr_add_rule(struct pgr *p, const char *socket, const char *uri, struct err *e);
/* Serves until pgr_stop, or until stop_fd (-1: none) is readable. 0 or -Exxx. Once. */
int pgr_run(struct pgr *p, int stop_fd, struct err *e);
/* pgr_run returns soon. */
void pgr_stop(struct pgr *p);
/* vms: of at most max VMs, in no order; *ret_count of them. */
void pgr_status(struct pgr *p, struct pgr_status *ret, struct pgr_vm_status *vms, uint32_t max,
		uint32_t *ret_count);
/* Of at most max sources, the newest first; how many. */
uint32_t pgr_sources(struct pgr *p, struct pgr_source_status *ret, uint32_t max);
/* What pgr_sources does not tell of them: a system call per 2 MiB of each. */
void pgr_shared(struct pgr *p, struct pgr_source_status *sources, uint32_t count);
/* After pgr_run. Its VMs are left to wait. NULL is harmless. */
void pgr_close(struct pgr *p);

#endif
