/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See sandbox.h. In a thread the order is: other user, capabilities, Landlock, and the filter last,
 * which forbids the calls that the others took.
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"
#include "sandbox/filter.h"
#include "sandbox/landlock.h"
#include "sandbox/trap.h"

struct sandbox {
	struct sandbox_cfg cfg;
	bool filters; /* seccomp works here */
	bool capabilities; /* they can be given up */
	struct sandbox_filter filter[SANDBOX_ROLES];
	int rules[SANDBOX_ROLES]; /* Landlock's; -1: none */
};

struct capabilities {
	struct __user_cap_header_struct head;
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
};

static int read_capabilities(struct capabilities *ret)
{
	*ret = (struct capabilities){.head.version = _LINUX_CAPABILITY_VERSION_3};
	return syscall(SYS_capget, &ret->head, ret->data) < 0 ? -errno : 0;
}

static int set_capabilities(struct capabilities *c)
{
	return syscall(SYS_capset, &c->head, c->data) < 0 ? -errno : 0;
}

/* To what they are: a filter of somebody's may refuse it. */
static int try_capabilities(void)
{
	struct capabilities c;
	int rc = read_capabilities(&c);

	return rc < 0 ? rc : set_capabilities(&c);
}

void sandbox_host_get(struct sandbox_host *ret)
{
	const unsigned action = SECCOMP_RET_TRAP;

	ret->seccomp = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0 ? -errno : 0;
	ret->landlock = landlock_version();
	ret->capabilities = try_capabilities();
}

/* ---- open ---- */

static int check_user(const struct sandbox_user *u, struct err *e)
{
	if (!u->given || geteuid() == 0)
		return 0;
	return err_set(e, -EPERM, "cannot become user %u: this is user %u, and only root may; "
		       "leave --user out", u->uid, geteuid());
}

static int open_filters(struct sandbox *s, struct err *e)
{
	int rc = sandbox_trap_start(s->cfg.loss, s->cfg.exit_code, e);

	for (unsigned i = 0; rc == 0 && i < SANDBOX_ROLES; i++)
		rc = sandbox_filter_make((enum sandbox_role)i, &s->filter[i], e);
	return rc;
}

/* The folder of a path that is none itself; the file need not be there. */
static int folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	char *folder = !slash ? strdup(".") : strndup(path, len ? len : 1);
	int fd = folder ? open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;

	free(folder);
	return fd;
}

static void close_rules(struct sandbox *s)
{
	for (unsigned i = 0; i < SANDBOX_ROLES; i++) {
		if (s->rules[i] >= 0)
			close(s->rules[i]);
		s->rules[i] = -1;
	}
}

static int allow(const struct sandbox *s, int version, const struct sandbox_path *p)
{
	bool removes = p->access == LANDLOCK_REMOVES;
	int fd = open(p->path, O_PATH | O_CLOEXEC | (removes ? O_DIRECTORY : 0)), rc;

	if (fd < 0 && removes)
		fd = folder_of(p->path);
	if (fd < 0)
		return 0;
	rc = landlock_allow(version, s->rules[p->role], p->access, fd);
	close(fd);
	return rc;
}

/* 0 or -Exxx, whatever stands in its way. */
static int open_rules(struct sandbox *s, int version)
{
	int rc = 0;

	for (unsigned i = 0; i < SANDBOX_ROLES && rc == 0; i++) {
		s->rules[i] = landlock_rules(version, i == SANDBOX_NET || i == SANDBOX_SOURCES);
		rc = s->rules[i] < 0 ? s->rules[i] : 0;
	}
	for (unsigned i = 0; i < s->cfg.paths_count && rc == 0; i++)
		rc = allow(s, version, &s->cfg.paths[i]);
	/* Half of it would be in the way. */
	if (rc < 0)
		close_rules(s);
	return rc;
}

static int missing(const struct sandbox *s, const char *what, int code, struct err *e)
{
	if (!s->cfg.strict)
		return 0;
	return err_set(e, code, "--sandbox strict: the host has no %s: %s; see 'asyncpf doctor', "
		       "or leave the option out", what, strerror(-code));
}

static int open_parts(struct sandbox *s, int *ret_missing, struct err *e)
{
	struct sandbox_host host;
	int rc;

	sandbox_host_get(&host);
	/* To make a heap of a thread's own smaller, glibc reads a file of /proc. */
	(void)mallopt(M_ARENA_MAX, 1);
	s->capabilities = host.capabilities == 0;
	rc = s->capabilities ? 0 : missing(s, "capset", host.capabilities, e);
	if (rc < 0)
		return rc;
	/* Filters and Landlock want it of who is not root. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		host.seccomp = host.landlock = -errno;
	*ret_missing = host.seccomp;
	s->filters = host.seccomp == 0;
	rc = s->filters ? open_filters(s, e) : missing(s, "seccomp", host.seccomp, e);
	if (rc < 0)
		return rc;
	rc = host.landlock > 0 ? open_rules(s, host.landlock) : host.landlock;
	return rc < 0 ? missing(s, "Landlock", rc, e) : 0;
}

static void close_parts(struct sandbox *s)
{
	for (unsigned i = 0; i < SANDBOX_ROLES; i++)
		sandbox_filter_free(&s->filter[i]);
	close_rules(s);
	free(s);
}

int sandbox_open(const struct sandbox_cfg *cfg, struct sandbox **ret, int *ret_missing,
		 struct err *e)
{
	struct sandbox *s;
	int rc = check_user(&cfg->user, e);

	if (rc < 0)
		return rc;
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_sys(e, -ENOMEM, "sandbox");
	s->cfg = *cfg;
	for (unsigned i = 0; i < SANDBOX_ROLES; i++)
		s->rules[i] = -1;
	rc = open_parts(s, ret_missing, e);
	s->cfg.paths = NULL;
	s->cfg.paths_count = 0;
	if (rc < 0)
		close_parts(s);
	else
		*ret = s;
	return rc;
}

/* ---- a thread ---- */

/* The calls themselves: the C library's would do it in every thread. */
static int become(const struct sandbox_user *u)
{
	if (!u->given)
		return 0;
	if (syscall(SYS_setgroups, 0, NULL) < 0 ||
	    syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0 ||
	    syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0)
		return -errno;
	return 0;
}

/* Root without them is a user who owns what is root's. */
static int drop_capabilities(const struct sandbox *s, enum sandbox_role role)
{
	uint32_t keep = s->cfg.overrides >> role & 1 ? 1u << CAP_DAC_OVERRIDE : 0;
	struct capabilities c;
	int rc = s->capabilities ? read_capabilities(&c) : 0;

	if (rc < 0 || !s->capabilities)
		return rc;
	c.data[0].permitted &= keep;
	c.data[0].effective = c.data[0].permitted;
	c.data[0].inheritable = 0;
	c.data[1] = (struct __user_cap_data_struct){0};
	return set_capabilities(&c);
}

static int bind_files(const struct sandbox *s, enum sandbox_role role)
{
	return s->rules[role] >= 0 ? landlock_enter(s->rules[role]) : 0;
}

/* A line is to come of it, also where all signals are blocked. */
static void let_traps_through(void)
{
	sigset_t sys;

	sigemptyset(&sys);
	sigaddset(&sys, SIGSYS);
	(void)pthread_sigmask(SIG_UNBLOCK, &sys, NULL);
}

static __attribute__((noreturn)) void failed(const struct sandbox *s, enum sandbox_role role,
					     const char *what, int code)
{
	const char *const words[] = {"a ", sandbox_role_name(role), " thread cannot ", what, ": ",
				     strerror(-code)};

	sandbox_end(s->cfg.start_code, words, ARRAY_LEN(words));
}

void sandbox_thread(struct sandbox *s, enum sandbox_role role)
{
	int rc;

	if (!s)
		return;
	rc = become(&s->cfg.user);
	if (rc < 0)
		failed(s, role, "become another user", rc);
	rc = drop_capabilities(s, role);
	if (rc < 0)
		failed(s, role, "give up its capabilities", rc);
	rc = bind_files(s, role);
	if (rc < 0)
		failed(s, role, "give up the file system", rc);
	let_traps_through();
	rc = s->filters ? sandbox_filter_load(&s->filter[role]) : 0;
	if (rc < 0)
		failed(s, role, "load its seccomp filter", rc);
}
