/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why the system said no to something that asyncpf needs, and the command that gives the right
 * that is missing. The one place that explains: the library's errors and `asyncpf doctor` both
 * say what it says.
 *
 * An error number is not enough: a seccomp filter answers ENOSYS or EPERM as it likes, and root
 * of a user namespace is not root. What decides is whether the kernel would have refused.
 *
 * Any thread; blocks. Tests: tests/unit/refusal_test.c, tests/error/refusal_test.py.
 */
#ifndef RIGHTS_REFUSAL_H
#define RIGHTS_REFUSAL_H

#include "base/err.h"

enum refusal_kind {
	REFUSAL_NOT_BUILT_IN,
	REFUSAL_SWITCHED_OFF,  /* by a sysctl */
	REFUSAL_OFF_AT_BOOT,   /* by the kernel's command line */
	REFUSAL_FILTERED,      /* by a seccomp filter */
	REFUSAL_NOT_PERMITTED, /* to this user */
	REFUSAL_IN_NAMESPACE,  /* nor to anybody in this user namespace */
	REFUSAL_MODULE,        /* a security module */
	REFUSAL_LIMIT,         /* descriptors or memory */
	REFUSAL_OTHER,
};

struct refusal {
	enum refusal_kind kind;
	char why[160]; /* what was refused, the error, and what it means */
	char fix[160]; /* what to do about it; never empty */
};

/* "switched off by sysctl": the kind in words, for machines, too. */
const char *refusal_kind_name(enum refusal_kind kind);

/* What each attempt said: 0 or -Exxx. */
struct refusal_userfaultfd {
	int call;      /* userfaultfd(2), for faults of the kernel's as well */
	int device;    /* /dev/userfaultfd */
	int user_only; /* userfaultfd(2) for faults of user code alone, which needs no right */
};

/* root: what stands before /proc and /sys; "" but for tests. */
void refusal_userfaultfd(const char *root, const struct refusal_userfaultfd *tried,
			 struct refusal *ret);
/* call: "io_uring_setup", "io_uring_enter" or "io_uring_register"; code: what it said. */
void refusal_io_uring(const char *root, const char *call, int code, struct refusal *ret);
void refusal_memfd(const char *root, int code, struct refusal *ret);
/* What a sandbox is made of: seccomp filters, Landlock, giving up capabilities. */
void refusal_seccomp(const char *root, int code, struct refusal *ret);
void refusal_landlock(const char *root, int code, struct refusal *ret);
void refusal_capabilities(const char *root, int code, struct refusal *ret);
/* Opening /dev/kvm. */
void refusal_kvm(const char *root, int code, struct refusal *ret);

/* "why; fix" as an error; returns code. */
int refusal_err(const struct refusal *r, int code, struct err *e);

#endif
