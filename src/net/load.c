/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See load.h. The module lies, in this order: where ASYNCPF_NET_MODULE says (never in programs
 * with raised rights); beside this object, which is the library or, linked statically, the program;
 * in the folder asyncpf there, as it is installed; in the folder it was to be installed into.
 *
 * It is never unloaded: the libraries behind it are not made for that, and start threads.
 * Test: tests/integration/net_module_test.c.
 */
#include "net/load.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "base/types.h"
#include "net/module.h"
#include "net/module_folder.h"

/*
 * A program that is linked with -static has no loader, or a part of one, which works with no other
 * C library than the one it was linked with. We are no reason to bring that.
 */
#pragma weak dlopen
#pragma weak dlsym
#pragma weak dlerror
#pragma weak dladdr1

struct net_lazy {
	struct net_hub_cfg cfg;
	/* The VM lock: */
	const struct net_module *module; /* NULL: no source was opened yet */
	struct net_hub *hub;             /* the module's */
};

/* ---- where it is ---- */

/* The folder of the object that this code is in, with its slash. False: it is not known. */
static bool own_folder(char *to, size_t bytes)
{
	static const char here;
	struct link_map *object = NULL;
	char path[PATH_MAX];
	ssize_t n = -1;
	Dl_info info;

	if (dladdr1(&here, &info, (void **)&object, RTLD_DL_LINKMAP) == 0 || !object)
		return false;
	/* The program itself has no name there. */
	if (object->l_name[0])
		n = snprintf(path, sizeof(path), "%s", object->l_name);
	else
		n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (n < 0 || (size_t)n >= sizeof(path))
		return false;
	path[n] = '\0';
	if (!strrchr(path, '/'))
		return false;
	strrchr(path, '/')[1] = '\0';
	return snprintf(to, bytes, "%s", path) < (int)bytes;
}

/* Candidate n. False: there is none of that number. */
static bool candidate(unsigned n, char *to, size_t bytes)
{
	char folder[PATH_MAX];
	int len;

	if (n < 2 && !own_folder(folder, sizeof(folder)))
		folder[0] = '\0';
	switch (n) {
	case 0:
		len = snprintf(to, bytes, "%s" NET_MODULE_FILE, folder);
		break;
	case 1:
		len = snprintf(to, bytes, "%sasyncpf/" NET_MODULE_FILE, folder);
		break;
	case 2:
		len = snprintf(to, bytes, NET_MODULE_FOLDER "/" NET_MODULE_FILE);
		break;
	default:
		return false;
	}
	if (len >= (int)bytes || to[0] != '/')
		to[0] = '\0';
	return true;
}

/* ---- loading ---- */

static int load_this(const char *path, const char *name, const struct net_module **ret,
		     struct err *e)
{
	static const struct net_stamp ours = NET_STAMP;
	void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	const struct net_module *m;
	const char *why;

	if (!module) {
		why = dlerror();
		return err_set(e, -ENOTSUP, "open %.80s: cannot load %s", name,
			       why ? why : path);
	}
	m = dlsym(module, NET_MODULE_SYMBOL);
	if (!m)
		return err_set(e, -ENOTSUP, "open %.80s: %s is no module of asyncpf's", name,
			       path);
	if (memcmp(&m->stamp, &ours, sizeof(ours)) != 0)
		return err_set(e, -ENOTSUP, "open %.80s: %s is of asyncpf %.*s, this is "
			       ASYNCPF_VERSION "; install the one of the same build", name, path,
			       (int)sizeof(m->stamp.version) - 1, m->stamp.version);
	*ret = m;
	return 0;
}

static int load(const char *name, const struct net_module **ret, struct err *e)
{
	const char *told = secure_getenv("ASYNCPF_NET_MODULE");
	char path[PATH_MAX];

	/* The kernel maps a loader where a program names one. */
	if (getauxval(AT_BASE) == 0 || !dlopen || !dlsym || !dlerror || !dladdr1)
		return err_set(e, -ENOTSUP, "open %s: a program that is linked statically has no "
			       "sources over a network", name);
	if (told && *told)
		return load_this(told, name, ret, e);
	for (unsigned n = 0; candidate(n, path, sizeof(path)); n++)
		if (path[0] && access(path, F_OK) == 0)
			return load_this(path, name, ret, e);
	return err_set(e, -ENOTSUP, "open %.80s: there is no " NET_MODULE_FILE ", which sources "
		       "over a network need; install libasyncpf-net, or set "
		       "ASYNCPF_NET_MODULE to its path", name);
}

/* The VM lock, which it lets go of meanwhile. */
static int need_hub(struct net_lazy *l, const char *name, struct err *e)
{
	const struct net_module *m = NULL;
	int rc;

	if (l->hub)
		return 0;
	l->cfg.unlock(l->cfg.ctx);
	rc = load(name, &m, e);
	l->cfg.lock(l->cfg.ctx);
	/* Somebody else may have been faster, with the same module. */
	if (rc < 0 || l->hub)
		return rc;
	l->module = m;
	return m->open(&l->cfg, &l->hub, e);
}

static int lazy_open(void *ctx, const struct net_target *t, uint32_t reads_max, struct src **ret,
		     struct err *e)
{
	struct net_lazy *l = ctx;
	struct net net;
	int rc = need_hub(l, t->name, e);

	if (rc < 0)
		return rc;
	net = l->module->net(l->hub);
	return net.ops->open(net.ctx, t, reads_max, ret, e);
}

/* ---- the rest of hub.h ---- */

struct net net_lazy_net(struct net_lazy *l)
{
	static const struct net_ops ops = {.open = lazy_open};

	return (struct net){&ops, l};
}

int net_lazy_start(struct net_lazy *l, struct err *e)
{
	int rc = need_hub(l, "sources over a network", e);

	return rc < 0 ? rc : l->module->start(l->hub, e);
}

bool net_lazy_pump(struct net_lazy *l)
{
	return l->hub && l->module->pump(l->hub);
}

bool net_lazy_due(const struct net_lazy *l)
{
	return l->hub && l->module->due(l->hub);
}

int net_lazy_open(const struct net_hub_cfg *cfg, struct net_lazy **ret, struct err *e)
{
	struct net_lazy *l = calloc(1, sizeof(*l));

	if (!l)
		return err_sys(e, -ENOMEM, "network sources");
	l->cfg = *cfg;
	*ret = l;
	return 0;
}

void net_lazy_close(struct net_lazy *l)
{
	if (l && l->hub)
		l->module->close(l->hub);
	free(l);
}
