/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process takes away from itself before a guest runs in it: each thread keeps the system
 * calls of its role (calls.h), no file but those that are open, no capability, and another user
 * if one was named. The library does nothing of it: it is the VMM's, `asyncpf run`'s.
 *
 *     sandbox_open(&cfg, &s, &missing, &e);      // before any thread is made
 *     sandbox_thread(s, SANDBOX_DEVICE);         // first thing in each thread
 *     sandbox_process(s);                        // once everything is open
 *     sandbox_thread(s, SANDBOX_MAIN);           // last, by the thread that opened it all
 *
 * Everything is a thread's own (credentials, too, which the C library's calls would change in all
 * threads at once), so that a thread may be bound while another still opens what it needs. What a
 * thread makes, it makes with its own bounds.
 *
 * A forbidden call is not made: one line on standard error, and the process ends with
 * cfg.exit_code; where the thread blocks SIGSYS, by that signal.
 * Tests: tests/integration/sandbox_test.c, tests/error/sandbox_test.py.
 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "sandbox/landlock.h"
#include "sandbox/roles.h"

struct sandbox_user {
	bool given;
	uid_t uid;
	gid_t gid;
};

/* What a role may still do with files that are not open. */
struct sandbox_path {
	enum sandbox_role role;
	enum landlock_access access;
	const char *path; /* of LANDLOCK_REMOVES a folder, or a file in it */
};

struct sandbox_cfg {
	struct sandbox_user user; /* not given: nobody else */
	bool strict;              /* the host must have all of it */
	/* What is not there is left out. Borrowed by sandbox_open. */
	const struct sandbox_path *paths;
	unsigned paths_count;
	/*
	 * A bit for each role that, as root, keeps CAP_DAC_OVERRIDE: what it may do with files, it
	 * may do in folders of others. Landlock is what bounds it.
	 */
	unsigned overrides;
	const char *loss;         /* what a forbidden call ends: "the guest is ended" */
	int exit_code;            /* for a forbidden call */
	int start_code;           /* where a thread cannot be bound, which was tried before */
};

struct sandbox;

/* What the host has of it. */
struct sandbox_host {
	int seccomp;  /* 0 or -Exxx */
	int landlock; /* version of its interface, or -Exxx */
	int capabilities; /* 0: they can be given up; or -Exxx */
};
/* Any thread; changes nothing. */
void sandbox_host_get(struct sandbox_host *ret);

/*
 * "NAME" or "UID", either with ":GID"; the group is the user's own otherwise. Reads the user
 * database. 0; -EINVAL: no such user, or not of that form.
 */
int sandbox_user_parse(const char *text, struct sandbox_user *ret, struct err *e);

/*
 * Makes the filters, and forbids this process and its children to gain rights by programs. One in
 * a process, for as long as that lives. 0: *ret_missing is -Exxx where system calls cannot be
 * filtered here, and everything else is as it should be; what else is missing is told by doctor.
 * -Exxx: another user was asked for who we cannot become; strict, and something is missing.
 */
int sandbox_open(const struct sandbox_cfg *cfg, struct sandbox **ret, int *ret_missing,
		 struct err *e);

/* Binds the calling thread for good; ends the process where that fails. s NULL: does nothing. */
void sandbox_thread(struct sandbox *s, enum sandbox_role role);

/*
 * Of the whole process: no core dumps and nobody's ptrace, no more descriptors than `spare` above
 * those that are open, files no larger than the largest that is open (unless one grows: `grows`, or
 * standard output or error is a file). By a thread that is not bound yet. s NULL: does nothing.
 */
void sandbox_process(struct sandbox *s, unsigned spare, bool grows);

#endif
