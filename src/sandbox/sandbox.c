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

#define RESOLVER "/etc/resolv.conf"

struct sandbox {
	struct sandbox_cfg cfg;
	bool filters; /* seccomp works here */
	bool capabilities; /* they can be given up */
	struct sandbox_filter filter[SANDBOX_ROLES];
	/*
	 * Landlock's, -1: none. The main thread may remove a file where the others may not; a
	 * network in user space uses ports, and reads who the host's resolver is.
	 */
	int rules, main_rules, net_rules;
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
	int rc = sandbox_trap_start(s->cfg.exit_code, e);

	for (unsigned i = 0; rc == 0 && i < SANDBOX_ROLES; i++)
		rc = sandbox_filter_make((enum sandbox_role)i, &s->filter[i], e);
	return rc;
}

/* The folder of a path, of which nothing need be there. */
static int folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	char *folder = !slash ? strdup(".") : strndup(path, len ? len : 1);
	int fd = folder ? open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;

	free(folder);
	return fd;
}

_Static_assert(SANDBOX_REMOVES_MAX == LANDLOCK_FOLDERS_MAX, "a folder for each");

/* 0 or -Exxx, whatever stands in its way. */
static int open_rules(struct sandbox *s, int version)
{
	const struct landlock_allowed none = {.removal = {-1, -1}, .reading = -1};
	struct landlock_allowed main = none, net = none;

	for (unsigned i = 0; i < SANDBOX_REMOVES_MAX; i++)
		if (s->cfg.removes[i])
			main.removal[i] = folder_of(s->cfg.removes[i]);
	net.reading = open(RESOLVER, O_PATH | O_CLOEXEC);
	net.tcp = true;
	s->rules = landlock_rules(version, &none);
	s->main_rules = landlock_rules(version, &main);
	s->net_rules = landlock_rules(version, &net);
	for (unsigned i = 0; i < SANDBOX_REMOVES_MAX; i++)
		if (main.removal[i] >= 0)
			close(main.removal[i]);
	if (net.reading >= 0)
		close(net.reading);
	if (s->rules < 0 || s->main_rules < 0)
		return s->rules < 0 ? s->rules : s->main_rules;
	return s->net_rules < 0 ? s->net_rules : 0;
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
	if (s->rules >= 0)
		close(s->rules);
	if (s->main_rules >= 0)
		close(s->main_rules);
	if (s->net_rules >= 0)
		close(s->net_rules);
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
	s->rules = s->main_rules = s->net_rules = -1;
	rc = open_parts(s, ret_missing, e);
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

/*
 * Root without them is a user who owns what is root's. To remove a socket from somebody's folder,
 * which was made with them, the main thread keeps one.
 */
static int drop_capabilities(const struct sandbox *s, enum sandbox_role role)
{
	bool removes = role == SANDBOX_MAIN && (s->cfg.removes[0] || s->cfg.removes[1]);
	uint32_t keep = removes ? 1u << CAP_DAC_OVERRIDE : 0;
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
	int rules = role == SANDBOX_MAIN ? s->main_rules
		    : role == SANDBOX_NET ? s->net_rules : s->rules;

	return rules >= 0 ? landlock_enter(rules) : 0;
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
