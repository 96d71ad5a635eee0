/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `asyncpf pager` takes away from itself, and from which thread. See pager_cmd.h,
 * sandbox/sandbox.h. Test: tests/integration/pager_sandbox_test.py.
 */
#include <errno.h>
#include <limits.h>
#include <pwd.h>
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
/* Sources over a network, and the connections of each. */
#define FILES_OF_NETWORK (64u * NET_CONNECTIONS_MAX)

/*
 * Who servers are: names and certificates. S3's credentials besides. What is not there is left
 * out; those that are links lead to others.
 */
static const char *const of_network[] = {
	"/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/nsswitch.conf",
	"/etc/services", "/etc/passwd", "/etc/localtime", "/etc/ssl", "/etc/pki", "/etc/gnutls",
	"/etc/crypto-policies", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
	"/usr/lib/ssl", "/usr/share/zoneinfo", "/dev/urandom",
};
static const char *const of_environment[] = {
	"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR",
};

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

/* The folder of S3's files; "" where it is not known. */
static void home_aws(char path[static PATH_MAX])
{
	const char *home = secure_getenv("HOME");
	struct passwd entry, *found = NULL;
	char text[1024];

	if ((!home || !*home) && getpwuid_r(geteuid(), &entry, text, sizeof(text), &found) == 0 &&
	    found)
		home = found->pw_dir;
	if (!home || snprintf(path, PATH_MAX, "%s/.aws", home) >= PATH_MAX)
		*path = '\0';
}

static void add_network(struct paths *p, const char *aws)
{
	for (unsigned i = 0; i < ARRAY_LEN(of_network); i++)
		add(p, SANDBOX_SOURCES, LANDLOCK_READS, of_network[i]);
	for (unsigned i = 0; i < ARRAY_LEN(of_environment); i++)
		if (secure_getenv(of_environment[i]))
			add(p, SANDBOX_SOURCES, LANDLOCK_READS, secure_getenv(of_environment[i]));
	add(p, SANDBOX_SOURCES, LANDLOCK_READS, aws);
}

/* ---- descriptors that we were started with ---- */

static int name_it(void *ctx, enum src_use use, const char *path, struct err *e)
{
	(void)use;
	(void)e;
	bounds_add(ctx, path);
	return 0;
}

static void named_by(const struct pager_opts *o, const struct pager_rules *rules,
		     struct bounds_fds *ret)
{
	ret->count = 0;
	bounds_add(ret, o->json);
	/* What is wrong with one is said when it is opened. */
	if (o->source)
		(void)src_uses(o->source, name_it, ret, NULL);
	for (unsigned i = 0; i < rules->count; i++)
		(void)src_uses(rules->list[i].uri, name_it, ret, NULL);
}

/* ---- open ---- */

int pager_sandbox_open(const struct pager_opts *o, const struct pager_rules *rules,
		       const struct pager_files *files, struct sandbox **ret, struct err *e)
{
	size_t room = 2 * files->count + ARRAY_LEN(of_network) + ARRAY_LEN(of_environment) + 1;
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
	home_aws(aws);
	if (files->network)
		add_network(&paths, aws);
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
