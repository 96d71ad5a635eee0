/* SPDX-License-Identifier: Apache-2.0 */
/* See pager_files.h. */
#include "cli/pager/pager_files.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "source/source.h"

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

/* Is path that folder, or below it? Both real. */
static bool is_below(const char *folder, const char *path)
{
	size_t len = strlen(folder);

	if (len > 0 && folder[len - 1] == '/') /* all of it */
		return true;
	return strncmp(folder, path, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static bool has(const struct pager_files *f, enum pager_file_kind kind, const char *path)
{
	for (unsigned i = 0; i < f->count; i++)
		if (f->list[i].kind == kind && is_below(f->list[i].path, path))
			return true;
	return false;
}

/* path becomes the list's. */
static int keep(struct pager_files *f, enum pager_file_kind kind, char *path, struct err *e)
{
	struct pager_file *list = f->list;

	if (has(f, kind, path)) {
		free(path);
		return 0;
	}
	if (f->count == f->room) {
		list = realloc(list, (f->room + 16) * sizeof(*list));
		if (!list) {
			free(path);
			return out_of_memory(e);
		}
		f->list = list;
		f->room += 16;
	}
	f->list[f->count++] = (struct pager_file){kind, path};
	return 0;
}

/* The folder that a file's name stands in, real; NULL: there is none. To be freed. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash > path ? (size_t)(slash - path) : 1;
	char *folder = slash ? strndup(path, len) : strdup(".");
	char *real = folder ? realpath(folder, NULL) : NULL;

	free(folder);
	return real;
}

/* ---- at the start ---- */

int pager_files_allow(struct pager_files *f, const char *word, struct err *e)
{
	static const struct {
		const char *word;
		enum pager_file_kind kind;
	} kinds[] = {{"socket:", PAGER_SOCKETS}, {"cache:", PAGER_CACHES}};
	enum pager_file_kind kind = PAGER_FILES;
	const char *path = word;
	struct stat st;
	char *real;

	if (strcmp(word, "network") == 0) {
		f->network = true;
		return 0;
	}
	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
		size_t len = strlen(kinds[i].word);

		if (strncmp(word, kinds[i].word, len) == 0) {
			kind = kinds[i].kind;
			path = word + len;
		}
	}
	real = realpath(path, NULL);
	if (!real || stat(real, &st) < 0) {
		free(real);
		return err_sys(e, -errno, "--allow %.100s", word);
	}
	if (!S_ISDIR(st.st_mode)) {
		free(real);
		return err_set(e, -ENOTDIR, "--allow %.100s: it is no folder; name the one that "
			       "it lies in", word);
	}
	return keep(f, kind, real, e);
}

/* A file's neighbours are sources, too; not those of a device, nor all that there is. */
static int given_file(struct pager_files *f, const char *path, struct err *e)
{
	char *real = realpath(path, NULL);
	struct stat st;

	if (!real)
		return 0;
	if (stat(real, &st) == 0 && S_ISREG(st.st_mode) && strrchr(real, '/') != real)
		*strrchr(real, '/') = '\0';
	return keep(f, PAGER_FILES, real, e);
}

static int given(void *ctx, enum src_use use, const char *path, struct err *e)
{
	struct pager_files *f = ctx;
	char *real;

	switch (use) {
	case SRC_USES_FILE:
		return given_file(f, path, e);
	case SRC_USES_NETWORK:
		f->network = true;
		return 0;
	case SRC_USES_FOLDER:
		(void)mkdir(path, 0700); /* as whoever opens it does */
		break;
	case SRC_USES_TRUST:
		break;
	}
	real = realpath(path, NULL);
	return real ? keep(f, use == SRC_USES_FOLDER ? PAGER_CACHES : PAGER_TRUST, real, e) : 0;
}

int pager_files_given(struct pager_files *f, const char *socket, const char *uri, struct err *e)
{
	char *folder = socket ? folder_of(socket) : NULL;
	int rc = folder ? keep(f, PAGER_SOCKETS, folder, e) : 0;

	return rc < 0 || !uri ? rc : src_uses(uri, given, f, e);
}

/* ---- later ---- */

static int refuse(const char *what, const char *path, const char *word, struct err *e)
{
	return err_set(e, -EACCES, "not allowed: %s %.60s: it is in no folder that the pager was "
		       "started with; start it with --allow %s", what, path, word);
}

struct checked {
	const struct pager_files *by;
};

static int check(void *ctx, enum src_use use, const char *path, struct err *e)
{
	const struct pager_files *f = ((const struct checked *)ctx)->by;
	char real[PATH_MAX];

	if (use == SRC_USES_NETWORK)
		return f->network ? 0 : err_set(e, -EACCES, "not allowed: a source over a network; "
						"start the pager with --allow network");
	/* Whoever opens it says why it cannot be found. */
	if (!realpath(path, real))
		return 0;
	switch (use) {
	case SRC_USES_FOLDER:
		return has(f, PAGER_CACHES, real) ? 0
						  : refuse("the cache in", path, "cache:DIR", e);
	case SRC_USES_TRUST:
		if (has(f, PAGER_TRUST, real))
			return 0;
		break;
	default:
		break;
	}
	return has(f, PAGER_FILES, real) ? 0 : refuse("the file", path, "DIR", e);
}

int pager_files_check(const struct pager_files *f, const char *socket, const char *uri,
		      struct err *e)
{
	struct checked c = {f};
	int rc = src_uses(uri, check, &c, e);
	char *folder = rc < 0 ? NULL : folder_of(socket);

	if (folder && !has(f, PAGER_SOCKETS, folder))
		rc = refuse("the socket", socket, "socket:DIR", e);
	free(folder);
	return rc;
}

void pager_files_free(struct pager_files *f)
{
	for (unsigned i = 0; i < f->count; i++)
		free(f->list[i].path);
	free(f->list);
	*f = (struct pager_files){.list = NULL};
}
