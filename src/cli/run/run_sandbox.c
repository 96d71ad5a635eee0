/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `asyncpf run` takes away from itself, and from which thread. See run.h, sandbox/sandbox.h.
 * Test: tests/error/sandbox_test.py.
 */
#include <stdio.h>
#include <sys/prctl.h>

#include "cli/bounds.h"
#include "cli/run/run.h"
#include "port/net.h"
#include "source/source.h"
#include "source/uri.h"
#include "vmm/control/control.h"
#include "vmm/virtio/vsock_mux.h"

/* Beside control's clients: what a library opens for a moment. */
#define FILES_SPARE 8u
#define RESOLVER "/etc/resolv.conf"

_Static_assert(LOAD_MODULES_MAX + MACHINE_DISKS_MAX + URI_PARAMS_MAX + 7 <= BOUNDS_FDS_MAX,
	       "room for all");

/* ---- open ---- */

static void named_by(const struct run_opts *o, struct bounds_fds *ret)
{
	const struct machine_cfg *m = &o->machine;

	ret->count = 0;
	bounds_add(ret, m->kernel);
	for (unsigned i = 0; i < m->modules_count; i++)
		bounds_add(ret, m->modules[i]);
	for (unsigned i = 0; i < m->disks_count; i++)
		bounds_add(ret, m->disks[i].path);
	bounds_add(ret, m->apf.swap);
	bounds_add(ret, o->json);
	bounds_add(ret, o->trace);
	bounds_add(ret, o->record);
	bounds_add_source(ret, m->restore_uri);
}

/* Of a saved guest's memory: whether servers have it, and what they are known by. */
#define TRUST_MAX 4u

struct source_uses {
	bool network;
	unsigned count;
	char trust[TRUST_MAX][PATH_MAX];
};

static int note_use(void *ctx, enum src_use use, const char *path, struct err *e)
{
	struct source_uses *u = ctx;

	(void)e;
	u->network |= use == SRC_USES_NETWORK;
	if (use == SRC_USES_TRUST && u->count < TRUST_MAX)
		(void)snprintf(u->trust[u->count++], PATH_MAX, "%s", path);
	return 0;
}

static struct source_uses uses_of(const struct run_opts *o)
{
	struct source_uses u = {.network = false};

	/* What is wrong with it is said when it is opened. */
	if (o->machine.restore_uri)
		(void)src_uses(o->machine.restore_uri, note_use, &u, NULL);
	return u;
}

int run_sandbox_open(const struct run_opts *o, struct sandbox **ret, struct err *e)
{
	const char *const sockets[] = {o->control, o->machine.vsock.path};
	struct sandbox_path paths[ARRAY_LEN(sockets) + 1 + BOUNDS_NETWORK_MAX + TRUST_MAX];
	const struct source_uses uses = uses_of(o);
	char aws[PATH_MAX];
	struct sandbox_cfg cfg = {
		.user = o->user,
		.strict = o->sandbox == CLI_SANDBOX_STRICT,
		.paths = paths,
		.loss = "the guest is ended",
		.exit_code = CLI_SANDBOX,
		.start_code = CLI_REFUSED,
	};
	struct bounds_fds named;

	for (unsigned i = 0; i < ARRAY_LEN(sockets); i++) {
		if (!sockets[i])
			continue;
		paths[cfg.paths_count++] =
			(struct sandbox_path){SANDBOX_MAIN, LANDLOCK_REMOVES, sockets[i]};
		/* It may be somebody's folder, where it was made as root. */
		cfg.overrides = 1u << SANDBOX_MAIN;
	}
	paths[cfg.paths_count++] = (struct sandbox_path){SANDBOX_NET, LANDLOCK_READS, RESOLVER};
	if (uses.network)
		cfg.paths_count += bounds_network(paths + cfg.paths_count, aws);
	for (unsigned i = 0; i < uses.count; i++)
		paths[cfg.paths_count++] = (struct sandbox_path){SANDBOX_SOURCES, LANDLOCK_READS,
								 uses.trust[i]};
	named_by(o, &named);
	return bounds_open(o->sandbox, &named, &cfg, o->quiet, ret, e);
}

void run_sandbox_opened(const struct run_opts *o)
{
	struct bounds_fds opened;

	named_by(o, &opened);
	bounds_opened(o->sandbox, &opened);
}

/* ---- threads ---- */

/* Those that guests' connections may come to, and a source's. */
static unsigned sockets_of(const struct run_opts *o)
{
	unsigned count = o->machine.vsock.path ? VSOCK_CONNECTIONS_MAX + 1 : 0;

	for (unsigned i = 0; i < o->machine.nets_count; i++)
		if (!o->machine.nets[i].tap)
			count += NET_USER_SOCKETS_MAX;
	if (uses_of(o).network)
		count += NET_CONNECTIONS_MAX * NET_CONNECTION_FILES;
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
