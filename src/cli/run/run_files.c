/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether two of a run's files are the same one, before any is opened to be written: by what they
 * are, whatever their names, and by folder and name where nothing is yet. The locks of
 * vmm/disk/file_use.h keep apart what somebody renames meanwhile, and other runs. See run.h.
 * Test: tests/error/run_files_test.py.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/json/json_file.h"
#include "cli/run/run.h"

#define FILES_MAX (LOAD_MODULES_MAX + MACHINE_DISKS_MAX + 4)

struct identity {
	enum { ID_NONE, ID_FILE, ID_DEVICE, ID_NAME } kind;
	dev_t dev; /* of the file system, or the device itself */
	ino_t ino; /* ID_NAME: of the folder */
	const char *name;
};

struct used {
	const char *option;
	const char *path;
	bool writes;
	struct identity id;
};

struct files {
	struct used list[FILES_MAX];
	unsigned count;
};

/* Nothing is there yet. */
static void identify_name(const char *path, struct identity *ret)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) + 1 : 0;
	char folder[PATH_MAX] = ".";
	struct stat st;

	if (len >= sizeof(folder))
		return;
	if (len)
		snprintf(folder, sizeof(folder), "%.*s", (int)len, path);
	if (stat(folder, &st) < 0)
		return;
	*ret = (struct identity){ID_NAME, st.st_dev, st.st_ino, path + len};
}

static void identify(const char *path, struct identity *ret)
{
	struct stat st;

	*ret = (struct identity){.kind = ID_NONE};
	if (stat(path, &st) == 0)
		*ret = S_ISBLK(st.st_mode) ? (struct identity){ID_DEVICE, st.st_rdev, 0, NULL}
					   : (struct identity){ID_FILE, st.st_dev, st.st_ino, NULL};
	else if (errno == ENOENT)
		identify_name(path, ret);
}

static bool same(const struct identity *a, const struct identity *b)
{
	return a->kind == b->kind && a->kind != ID_NONE && a->dev == b->dev && a->ino == b->ino &&
	       (a->kind != ID_NAME || strcmp(a->name, b->name) == 0);
}

static void add(struct files *f, const char *option, const char *path, bool writes)
{
	struct used *u = &f->list[f->count];

	if (!path)
		return;
	f->count++;
	*u = (struct used){.option = option, .path = path, .writes = writes};
	identify(path, &u->id);
}

static int compare(const struct files *f, struct err *e)
{
	for (unsigned i = 0; i < f->count; i++) {
		for (unsigned k = 0; k < i; k++) {
			const struct used *a = &f->list[k], *b = &f->list[i];

			if ((a->writes || b->writes) && same(&a->id, &b->id))
				return err_set(e, -EINVAL, "same file: --%s %.60s and --%s %.60s: "
					       "one would destroy the other; name two", a->option,
					       a->path, b->option, b->path);
		}
	}
	return 0;
}

int run_files_check(const struct run_opts *o, struct err *e)
{
	const struct machine_cfg *m = &o->machine;
	const char *json = json_file_is_stdout(o->json) ? NULL : o->json;
	struct files f = {.count = 0};

	add(&f, "kernel", m->kernel, false);
	for (unsigned i = 0; i < m->modules_count; i++)
		add(&f, "initrd", m->modules[i], false);
	for (unsigned i = 0; i < m->disks_count; i++)
		add(&f, "disk", m->disks[i].path, !m->disks[i].read_only);
	add(&f, "swap", m->apf.swap, true);
	add(&f, "control", o->control, true);
	add(&f, "json", json, true);
	if (json && f.list[f.count - 1].id.kind == ID_DEVICE)
		return err_set(e, -EINVAL, "cannot write: %.100s: it is a block device; give "
			       "--json a file", json);
	return compare(&f, e);
}
