/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `asyncpf pager` takes away from itself, and from which thread. See pager_cmd.h,
 * sandbox/sandbox.h. Test: tests/integration/pager_sandbox_test.py.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cli/pager/pager_cmd.h"
#include "port/net.h"
#include "source/source.h"
#include "vmm/control/control.h"

/* What a library opens for a moment. */
#define FILES_SPARE 16u
/* Of a rule: its socket, the folder of that, and a source's file, manifest and cache. */
#define FILES_OF_RULE 6u
#define FILES_OF_NETWORK (NET_SOURCES_MAX * NET_CONNECTIONS_MAX * NET_CONNECTION_FILES)

struct paths {
	struct sandbox_path *list;
	unsigned count;
};

static void add(struct paths *p, enum sandbox_role role, enum landlock_access access,
		const char *path)
{
	p->list[p->count++] = (struct sandbox_path){role, access, path};
}

static void add_file(struct paths *p, const struct pager_opts *o, bool network,
		     const struct pager_file *f)
{
	switch (f->kind) {
	case PAGER_SOCKETS:
		add(p, SANDBOX_PAGER, LANDLOCK_REMOVES, f->path);
		if (o->control)
			add(p, SANDBOX_RULES, LANDLOCK_SOCKETS, f->path);
		break;
	case PAGER_FILES:
		if (o->control)
			add(p, SANDBOX_RULES, LANDLOCK_READS, f->path);
		if (o->control && network)
			add(p, SANDBOX_SOURCES, LANDLOCK_READS, f->path);
		break;
	case PAGER_CACHES:
		if (o->control)
			add(p, SANDBOX_RULES, LANDLOCK_SHARES, f->path);
		break;
	case PAGER_TRUST:
		add(p, SANDBOX_SOURCES, LANDLOCK_READS, f->path);
		break;
	}
}

/* ---- descriptors that we were started with ---- */

static void named_by(const struct pager_opts *o, const struct pager_rules *rules,
		     struct bounds_fds *ret)
{
	ret->count = 0;
	bounds_add(ret, o->json);
	bounds_add_source(ret, o->source);
	for (unsigned i = 0; i < rules->count; i++)
		bounds_add_source(ret, rules->list[i].uri);
}

/* ---- open ---- */

int pager_sandbox_open(const struct pager_opts *o, const struct pager_rules *rules,
		       const struct pager_files *files, struct sandbox **ret, struct err *e)
{
	size_t room = 2 * files->count + BOUNDS_NETWORK_MAX;
	struct paths paths = {calloc(room, sizeof(*paths.list)), 0};
	struct sandbox_cfg cfg = {
		.strict = o->sandbox == CLI_SANDBOX_STRICT,
		.overrides = 1u << SANDBOX_PAGER | 1u << SANDBOX_RULES,
		.loss = "the pager ends, and its VMs wait for memory for ever",
		.exit_code = CLI_SANDBOX,
		.start_code = CLI_REFUSED,
	};
	struct bounds_fds named;
	char aws[PATH_MAX];
	int rc;

	*ret = NULL;
	if (!paths.list)
		return err_set(e, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < files->count; i++)
		add_file(&paths, o, files->network, &files->list[i]);
	if (files->network)
		paths.count += bounds_network(paths.list + paths.count, aws);
	cfg.paths = paths.list;
	cfg.paths_count = paths.count;
	rc = o->user ? sandbox_user_parse(o->user, &cfg.user, e) : 0;
	named_by(o, rules, &named);
	if (rc == 0)
		rc = bounds_open((enum cli_sandbox)o->sandbox, &named, &cfg, o->quiet, ret, e);
	free(paths.list);
	return rc;
}

/* A cache's file is made as large as it will ever be, but it may be made later. */
static bool grows(const struct pager_opts *o, const struct pager_files *files)
{
	bool later = o->json != NULL;

	for (unsigned i = 0; o->control && i < files->count; i++)
		later |= files->list[i].kind == PAGER_CACHES;
	return later;
}

void pager_sandbox_opened(const struct pager_opts *o, const struct pager_rules *rules,
			  const struct pager_files *files, struct sandbox *s)
{
	unsigned spare = PGR_DESCRIPTORS_MAX + CONTROL_CLIENTS_MAX + FILES_SPARE +
			 (o->control ? RULES_MAX * FILES_OF_RULE : 0) +
			 (files->network ? FILES_OF_NETWORK : 0);
	struct bounds_fds named;

	named_by(o, rules, &named);
	bounds_opened((enum cli_sandbox)o->sandbox, &named);
	sandbox_process(s, spare, grows(o, files));
}

void pager_sandbox_thread(struct sandbox *s, enum pgr_thread which, const char *name)
{
	static const enum sandbox_role roles[] = {
		[PGR_THREAD_LOOP] = SANDBOX_PAGER,
		[PGR_THREAD_WORK] = SANDBOX_WORKER,
		[PGR_THREAD_SOURCES] = SANDBOX_SOURCES,
	};

	(void)prctl(PR_SET_NAME, name);
	sandbox_thread(s, roles[which]);
}
