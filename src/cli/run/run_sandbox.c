/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `asyncpf run` takes away from itself, and from which thread. See run.h, sandbox/sandbox.h.
 * Test: tests/error/sandbox_test.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/run/run.h"
#include "vmm/control/control.h"
#include "vmm/virtio/vsock_mux.h"

/* Beside control's clients: what a library opens for a moment. */
#define FILES_SPARE 8u
#define NAMED_MAX (LOAD_MODULES_MAX + MACHINE_DISKS_MAX + 6)

/* ---- descriptors that we were started with ---- */

struct named {
	unsigned fds[NAMED_MAX]; /* in order */
	unsigned count;
};

/* In order, once each. */
static void insert(struct named *n, unsigned fd)
{
	unsigned at = n->count;

	for (unsigned i = 0; i < n->count; i++)
		if (n->fds[i] == fd)
			return;
	for (; at > 0 && n->fds[at - 1] > fd; at--)
		n->fds[at] = n->fds[at - 1];
	n->fds[at] = fd;
	n->count++;
}

static void add(struct named *n, const char *path)
{
	static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};

	for (unsigned i = 0; path && i < ARRAY_LEN(folders); i++) {
		size_t len = strlen(folders[i]);
		char *end;
		unsigned long fd;

		if (strncmp(path, folders[i], len) != 0)
			continue;
		errno = 0;
		fd = strtoul(path + len, &end, 10);
		if (errno == 0 && end > path + len && *end == '\0' && fd > STDERR_FILENO &&
		    fd <= INT32_MAX)
			insert(n, (unsigned)fd);
	}
}

static void named_by(const struct run_opts *o, struct named *ret)
{
	const struct machine_cfg *m = &o->machine;

	ret->count = 0;
	add(ret, m->kernel);
	for (unsigned i = 0; i < m->modules_count; i++)
		add(ret, m->modules[i]);
	for (unsigned i = 0; i < m->disks_count; i++)
		add(ret, m->disks[i].path);
	add(ret, m->apf.swap);
	add(ret, o->json);
	add(ret, o->trace);
	add(ret, o->record);
}

/* One that is not open would come to be one of ours. */
static int close_unnamed(const struct run_opts *o, struct err *e)
{
	struct named keep;
	unsigned from = STDERR_FILENO + 1;

	named_by(o, &keep);
	for (unsigned i = 0; i < keep.count; i++) {
		if (fcntl((int)keep.fds[i], F_GETFD) < 0)
			return err_set(e, -EBADF, "descriptor %u: an option names it, and it was "
				       "not open when the command was started; check the option",
				       keep.fds[i]);
		if (keep.fds[i] > from)
			(void)close_range(from, keep.fds[i] - 1, 0);
		from = keep.fds[i] + 1;
	}
	(void)close_range(from, ~0u, 0);
	return 0;
}

/* ---- open ---- */

int run_sandbox_open(const struct run_opts *o, struct sandbox **ret, struct err *e)
{
	const struct sandbox_cfg cfg = {
		.user = o->user,
		.strict = o->sandbox == RUN_SANDBOX_STRICT,
		.removes = {o->control, o->machine.vsock.path},
		.exit_code = CLI_SANDBOX,
		.start_code = CLI_REFUSED,
	};
	int missing = 0;
	int rc;

	*ret = NULL;
	if (o->sandbox == RUN_SANDBOX_OFF)
		return 0;
	rc = close_unnamed(o, e);
	if (rc < 0)
		return rc;
	rc = sandbox_open(&cfg, ret, &missing, e);
	if (rc == 0 && missing < 0 && !o->quiet)
		cli_error("note: the sandbox is weak: system calls cannot be filtered here (%s); "
			  "see 'asyncpf doctor'", strerror(-missing));
	return rc;
}

void run_sandbox_opened(const struct run_opts *o)
{
	struct named opened;

	if (o->sandbox == RUN_SANDBOX_OFF)
		return;
	named_by(o, &opened);
	for (unsigned i = 0; i < opened.count; i++)
		(void)close((int)opened.fds[i]);
}

/* ---- threads ---- */

/* Those that guests' connections may come to. */
static unsigned sockets_of(const struct run_opts *o)
{
	unsigned count = o->machine.vsock.path ? VSOCK_CONNECTIONS_MAX + 1 : 0;

	for (unsigned i = 0; i < o->machine.nets_count; i++)
		if (!o->machine.nets[i].tap)
			count += NET_USER_SOCKETS_MAX;
	return count;
}

void run_sandbox_machine_thread(struct sandbox *s, enum machine_thread which,
				const struct run_opts *o)
{
	switch (which) {
	case MACHINE_THREAD_VCPU:
		sandbox_thread(s, SANDBOX_VCPU);
		break;
	case MACHINE_THREAD_DEVICE:
		sandbox_thread(s, SANDBOX_DEVICE);
		break;
	case MACHINE_THREAD_NET_USER:
		sandbox_thread(s, SANDBOX_NET);
		break;
	case MACHINE_THREAD_VSOCK:
		sandbox_thread(s, SANDBOX_VSOCK);
		break;
	case MACHINE_THREAD_CONTROL:
		sandbox_thread(s, SANDBOX_CONTROL);
		break;
	case MACHINE_THREAD_MAIN:
		sandbox_process(s, CONTROL_CLIENTS_MAX + FILES_SPARE + sockets_of(o),
				o->trace != NULL);
		sandbox_thread(s, SANDBOX_MAIN);
		break;
	}
}

void run_sandbox_library_thread(void *ctx, const char *name)
{
	(void)prctl(PR_SET_NAME, name);
	sandbox_thread(ctx, sandbox_role_of_library(name));
}
