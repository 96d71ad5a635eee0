/* SPDX-License-Identifier: Apache-2.0 */
/* See file_roles.h. */
#include "cli/file_roles.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "source/source.h"

#define LINKS_MAX 40u /* as the kernel */

/* The folder of path, with the slash at its end; "./" if it names none. False: too long. */
static bool folder_of(const char *path, char ret[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	int len = slash ? (int)(slash - path) + 1 : 0;

	return snprintf(ret, PATH_MAX, "%.*s", len ? len : 2, len ? path : "./") < PATH_MAX;
}

/* What path leads to, where that is a link to nothing yet: in place. False: to no name. */
static bool follow_links(char path[PATH_MAX])
{
	char folder[PATH_MAX], target[PATH_MAX];

	for (unsigned i = 0; i < LINKS_MAX; i++) {
		ssize_t n = readlink(path, target, sizeof(target) - 1);
		bool whole;

		if (n < 0)
			return errno == EINVAL || errno == ENOENT;
		target[n] = '\0';
		whole = target[0] == '/';
		if (!folder_of(path, folder) ||
		    snprintf(path, PATH_MAX, "%s%s", whole ? "" : folder, target) >= PATH_MAX)
			return false;
	}
	return false;
}

/* Nothing is there yet. */
static void identify_name(const char *given, struct file_identity *ret)
{
	char path[PATH_MAX], folder[PATH_MAX];
	const char *slash;
	struct stat st;

	if (snprintf(path, sizeof(path), "%s", given) >= PATH_MAX || !follow_links(path) ||
	    !folder_of(path, folder) || stat(folder, &st) < 0)
		return;
	slash = strrchr(path, '/');
	*ret = (struct file_identity){.kind = ID_NAME, .dev = st.st_dev, .ino = st.st_ino};
	snprintf(ret->name, sizeof(ret->name), "%.*s", NAME_MAX,
		 slash ? slash + 1 : path);
}

static void identify(const char *path, struct file_identity *ret)
{
	struct stat st;

	*ret = (struct file_identity){.kind = ID_NONE};
	if (stat(path, &st) < 0) {
		if (errno == ENOENT)
			identify_name(path, ret);
	} else if (S_ISBLK(st.st_mode)) {
		*ret = (struct file_identity){.kind = ID_DEVICE, .dev = st.st_rdev};
	} else if (!S_ISCHR(st.st_mode)) { /* /dev/null, a terminal: nothing to destroy */
		*ret = (struct file_identity){.kind = ID_FILE, .dev = st.st_dev, .ino = st.st_ino};
	}
}

static bool same(const struct file_identity *a, const struct file_identity *b)
{
	return a->kind == b->kind && a->kind != ID_NONE && a->dev == b->dev && a->ino == b->ino &&
	       (a->kind != ID_NAME || strcmp(a->name, b->name) == 0);
}

static void role_init(struct file_role *u, const char *option, const char *path, bool writes)
{
	*u = (struct file_role){
		.option = option,
		.dashes = isupper((unsigned char)*option) ? "" : "--",
		.path = path,
		.writes = writes,
	};
	identify(path, &u->id);
}

void file_roles_add(struct file_roles *f, const char *option, const char *path, bool writes)
{
	if (!path)
		return;
	ASSERT(f->count < FILE_ROLES_MAX);
	role_init(&f->list[f->count++], option, path, writes);
}

static int check_pair(const struct file_role *a, const struct file_role *b, struct err *e)
{
	if ((!a->writes && !b->writes) || !same(&a->id, &b->id))
		return 0;
	return err_set(e, -EINVAL, "same file: %s%s %.60s and %s%s %.60s: one would destroy the "
		       "other; name two", a->dashes, a->option, a->path, b->dashes, b->option,
		       b->path);
}

int file_roles_check(const struct file_roles *f, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < f->count && rc == 0; i++)
		for (unsigned k = 0; k < i && rc == 0; k++)
			rc = check_pair(&f->list[k], &f->list[i], e);
	return rc;
}

int file_roles_check_read(const struct file_roles *f, const char *option, const char *path,
			  struct err *e)
{
	struct file_role read;
	int rc = 0;

	if (!path)
		return 0;
	role_init(&read, option, path, false);
	for (unsigned i = 0; i < f->count && rc == 0; i++)
		rc = check_pair(&read, &f->list[i], e);
	return rc;
}

struct source_files {
	const struct file_roles *roles;
	const char *option;
	struct err *err;
	int rc;
};

static int check_use(void *ctx, enum src_use use, const char *path, struct err *e)
{
	struct source_files *s = ctx;

	(void)e;
	if (s->rc == 0 && use != SRC_USES_FOLDER)
		s->rc = file_roles_check_read(s->roles, s->option, path, s->err);
	return 0;
}

int file_roles_check_source(const struct file_roles *f, const char *option, const char *uri,
			    struct err *e)
{
	struct source_files s = {.roles = f, .option = option, .err = e};

	if (uri)
		(void)src_uses(uri, check_use, &s, NULL);
	return s.rc;
}

int file_roles_add_words(struct file_roles *f, const char *option, const char *path,
			 struct err *e)
{
	file_roles_add(f, option, path, true);
	if (path && f->list[f->count - 1].id.kind == ID_DEVICE)
		return err_set(e, -EINVAL, "cannot write: %.100s: it is a block device; give "
			       "--%s a file", path, option);
	return 0;
}
