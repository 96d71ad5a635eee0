/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host offers, found out by trying it, never by its version. Each probe
 * leaves a verdict and one line of text; `probe_way` says which ways of serving
 * faults follow. Nothing is left behind: every descriptor, mapping and VM that a
 * probe makes it also destroys. One thread. Test: tests/error/doctor_test.py.
 */
#ifndef CLI_PROBE_H
#define CLI_PROBE_H

#include "base/types.h"
#include "rights/refusal.h"

enum verdict {
	VERDICT_NO,
	VERDICT_LIMITED, /* works, with the restriction that the text names */
	VERDICT_OK,
};

enum probe_id {
	PROBE_KERNEL, /* information only: never decides anything */
	PROBE_CPUS,
	PROBE_MEMORY,
	PROBE_CGROUP,
	PROBE_OVERCOMMIT,
	PROBE_LIMITS,
	PROBE_NAMESPACE,
	PROBE_SECCOMP,
	PROBE_MODULE,
	PROBE_SANDBOX,
	PROBE_MEMFD,
	PROBE_IO_URING,
	PROBE_KVM,
	PROBE_KVM_IRQCHIP,
	PROBE_KVM_SYNC_REGS,
	PROBE_KVM_USER_SPACE_MSR,
	PROBE_KVM_MSR_FILTER,
	PROBE_KVM_EXCEPTION_PAYLOAD,
	PROBE_KVM_SIGNAL_MSI,
	PROBE_KVM_ASYNC_PF,
	PROBE_KVM_ASYNC_PF_INT,
	PROBE_UFFD,
	PROBE_UFFD_MISSING_SHMEM,
	PROBE_UFFD_MINOR_SHMEM,
	PROBE_UFFD_POISON,
	PROBE_UFFD_WP_ASYNC,
	PROBE_PAGEMAP_SCAN,
	PROBE_GUEST_CPL0,
	PROBE_GUEST_TOUCH,
	PROBE_GUEST_SERVED,
	PROBE_COUNT,
};

struct probe {
	enum verdict verdict;
	const char *refusal; /* refusal_kind_name() where something was refused; else NULL */
	char means[256]; /* what was found and what it means */
	char fix[200];   /* what to do about it; empty where the verdict is ok */
};

struct probes {
	struct probe list[PROBE_COUNT];
	uint32_t unserved; /* a bit per enum probe_way whose guest was not served */
	uint64_t cpl0_per_s; /* guest instructions per second at CPL 0; 0: unknown */
	bool linux_guest;    /* fast enough at CPL 0 for a stock Linux kernel */
};

/* --faults of `asyncpf run`, and taking memory away. */
enum probe_way { WAY_BLOCK, WAY_STALL, WAY_KERNEL, WAY_USER, WAY_COUNT };

/*
 * As probe_way_missing, for --resident-max and `asyncpf evict`: what they need themselves, and what
 * at least one way of serving faults does.
 */
uint32_t probe_evict_missing(const struct probes *p);

/* Runs every probe; takes some 0.2 s, and at most 40 s on a KVM that hangs. Cannot fail. */
void probe_all(struct probes *ret_probes);

const char *probe_name(enum probe_id id);     /* "kvm.msr_filter" */
const char *probe_way_name(enum probe_way way);
const char *verdict_name(enum verdict v);     /* "ok", "limited", "no" */

/* Bit n is set when probe n is needed for `way` and its verdict is no; 0: it works. */
uint32_t probe_way_missing(const struct probes *p, enum probe_way way);

/* Stores a verdict; `means` by format, `fix` as it is ("" for none). */
void probe_set(struct probe *pr, enum verdict v, const char *fix, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* What to do about a call that failed: about the limit that it met, or as given. */
const char *probe_fix(int code, const char *otherwise);

/* VERDICT_NO, for a right that is missing. */
void probe_refused(struct probe *pr, const struct refusal *r);

/* probe_host.c: the machine, its limits, who we are in it. */
void probe_host(struct probe *list);

/* probe_uffd.c: the five PROBE_UFFD entries. */
void probe_uffd(struct probe *list);
/* Enables `features` and registers [addr, addr + len) for missing and minor faults. 0 or -Exxx. */
int probe_uffd_register(int uffd, uint64_t features, void *addr, size_t len, uint64_t *ret_ioctls);
/* 0 or -Exxx. */
int probe_uffd_poison(int uffd, void *addr, size_t len);
#define PROBE_UFFD_FEATURES ((1ull << 14) | (1ull << 10) | (1ull << 5)) /* what we use */

/* probe_guest.c: PROBE_GUEST_CPL0 and PROBE_GUEST_TOUCH; kvm is /dev/kvm. */
void probe_guest(struct probes *p, int kvm);
/* PROBE_GUEST_CPL0 alone: may take 30 ms. *ret_per_s: instructions per second, 0: none ran. */
bool probe_runs_linux(int kvm, uint64_t *ret_per_s);

/* probe_served.c: PROBE_GUEST_SERVED, with the ways that lack nothing else. */
void probe_served(struct probes *p);

#endif
