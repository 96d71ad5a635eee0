/* SPDX-License-Identifier: Apache-2.0 */
/* See snap_base.h. */
#include "cli/snap/snap_base.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/snap/snap_dir.h"

_Static_assert(SNAP_ID_BYTES == LAYERS_ID_BYTES, "the same");

/* ---- reading ---- */

/* The snapshot whose file of memory `layer` is must be there, and be the one. */
static int check_one(const char *path, const struct layer *layer, struct err *e)
{
	char folder[PATH_MAX];
	struct machine_snap_id id;
	struct err why = {0};
	struct snap_in in;
	char *state;
	int fd, rc;

	snap_layer_folder(path, layer, folder);
	if (asprintf(&state, "%s/" SNAP_DIR_STATE, folder) < 0)
		return err_sys(e, -ENOMEM, "snapshot");
	fd = open(state, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		rc = err_sys(e, -errno, "%.80s builds upon another, which cannot be read: %.100s",
			     path, state);
	} else {
		rc = snap_in_read(&in, fd, &why);
		close(fd);
		if (rc == 0) {
			rc = machine_snap_id_get(&in, &id, &why);
			snap_in_free(&in);
		}
		if (rc < 0)
			(void)err_set(e, rc, "%.80s: %.120s", state, why.text);
		else if (memcmp(id.id, layer->id, sizeof(id.id)) != 0)
			rc = err_set(e, -EBADMSG, "%.80s builds upon another snapshot than the one "
				     "that is there now: %.100s", path, state);
	}
	free(state);
	return rc;
}

/* One layer: its own file of memory has all pages. */
static int whole(const struct machine_saved *m, struct snap_chain *ret, struct err *e)
{
	struct layer *all = calloc(LAYERS_MAX, sizeof(*all));

	if (!all)
		return err_sys(e, -ENOMEM, "snapshot");
	(void)snprintf(all[0].path, LAYERS_PATH_MAX, SNAP_DIR_MEMORY);
	ret->layers = (struct layers){.bytes = m->memory_bytes, .count = 1, .all = all};
	return 0;
}

/* What the file `layers` says. After a failure, too, ret is freed by the caller. */
static int listed(const char *path, const struct machine_saved *m, const struct machine_snap_id *id,
		  struct snap_chain *ret, struct err *e)
{
	struct err why = {0};
	char *list;
	int rc;

	if (asprintf(&list, "%s/" SNAP_DIR_LAYERS, path) < 0)
		return err_sys(e, -ENOMEM, "snapshot");
	rc = load_file_read(list, "cannot read", LAYERS_FILE_MAX, &ret->file, e);
	if (rc == 0) {
		rc = layers_parse(ret->file.bytes, ret->file.len, &ret->layers, &why);
		if (rc == 0 && (ret->layers.bytes != m->memory_bytes || ret->layers.count < 2 ||
				memcmp(ret->layers.all[0].id, id->id, sizeof(id->id)) != 0))
			rc = err_set(&why, -EBADMSG, "it belongs to another snapshot");
		if (rc < 0)
			(void)err_set(e, rc, "cannot read %.100s: %.120s", list, why.text);
	}
	ret->file.name = NULL; /* goes now */
	free(list);
	return rc;
}

int snap_chain_read(const char *path, const struct snap_in *in, struct snap_chain *ret,
		    struct err *e)
{
	struct snap_chain c = {.file = {0}};
	struct machine_snap_id id;
	struct machine_saved m;
	int rc = machine_saved_get(in, &m, e);

	if (rc == 0)
		rc = machine_snap_id_get(in, &id, e);
	if (rc < 0)
		return rc;
	rc = snap_id_is_set(id.base) ? listed(path, &m, &id, &c, e) : whole(&m, &c, e);
	for (unsigned i = 1; rc == 0 && i < c.layers.count; i++)
		rc = check_one(path, &c.layers.all[i], e);
	if (rc < 0)
		snap_chain_free(&c);
	else
		*ret = c;
	return rc;
}

void snap_chain_free(struct snap_chain *c)
{
	layers_free(&c->layers);
	load_file_free(&c->file);
}

/* ---- a new one ---- */

/* Absolute, without links: `from` is where a folder will be. NULL: errno. */
static char *absolute_new(const char *from)
{
	char *copy = strdup(from), *again = strdup(from), *parent, *ret = NULL;

	parent = copy && again ? realpath(dirname(copy), NULL) : NULL;
	if (parent && asprintf(&ret, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent,
			       basename(again)) < 0)
		ret = NULL;
	free(parent);
	free(copy);
	free(again);
	return ret;
}

/* The way from the folder `from` to `to`, both absolute without links. */
static char *way(const char *from, const char *to)
{
	size_t same = 0, ups = 0, len, at = 0;
	char *ret;

	for (size_t i = 0; from[i] == to[i] || !from[i] || !to[i]; i++) {
		bool end = (!from[i] || from[i] == '/') && (!to[i] || to[i] == '/');

		if (end)
			same = i;
		if (!from[i] || !to[i])
			break;
	}
	for (const char *p = from + same; *p; p++)
		ups += *p == '/';
	len = ups * 3 + strlen(to + same) + 2;
	ret = malloc(len);
	if (!ret)
		return NULL;
	for (size_t i = 0; i < ups; i++)
		at += (size_t)snprintf(ret + at, len - at, "%s..", i ? "/" : "");
	(void)snprintf(ret + at, len - at, "%s", to + same);
	return ret;
}

static int find_way(struct snap_base *b, const char *path, const char *new_path, struct err *e)
{
	char *to = realpath(path, NULL), *from = absolute_new(new_path);

	if (to && from)
		b->relative = way(from, to);
	free(to);
	free(from);
	return b->relative ? 0 : err_sys(e, -errno, "cannot find the way to %.150s", path);
}

int snap_base_open(struct snap_base *b, const char *path, const char *new_path, struct err *e)
{
	struct snap_in in;
	int rc;

	*b = (struct snap_base){.relative = NULL};
	rc = snap_dir_read(path, &in, &b->chain, e);
	if (rc < 0)
		return rc;
	rc = machine_snap_id_get(&in, &b->id, e);
	if (rc == 0 && !snap_id_is_set(b->id.id))
		rc = err_set(e, -EINVAL, "cannot build upon %.150s: an older asyncpf has made it",
			     path);
	if (rc == 0)
		rc = find_way(b, path, new_path, e);
	if (rc == 0)
		memcpy(b->chain.layers.all[0].id, b->id.id, sizeof(b->id.id));
	if (rc == 0 && b->chain.layers.count == LAYERS_MAX)
		rc = err_set(e, -E2BIG, "cannot build upon %.150s: %u snapshots build upon each "
			     "other already; make a whole one", path, LAYERS_MAX);
	snap_in_free(&in);
	return rc;
}

void snap_base_close(struct snap_base *b)
{
	snap_chain_free(&b->chain);
	free(b->relative);
	*b = (struct snap_base){.relative = NULL};
}

/* Copies a layer of the base; its path begins at the new snapshot's folder then. */
static int take_layer(const struct snap_base *b, const struct layer *from, struct layer *to,
		      struct err *e)
{
	bool absolute = *from->path == '/';
	int n;

	*to = *from;
	n = snprintf(to->path, sizeof(to->path), "%s%s%s", absolute ? "" : b->relative,
		     absolute ? "" : "/", from->path);
	if (n < 0 || (size_t)n >= sizeof(to->path))
		return err_set(e, -ENAMETOOLONG, "the way to the snapshots below is too long; make "
			       "a whole one");
	return 0;
}

int snap_base_write(const struct snap_base *b, const struct snap_in *in, uint64_t memory_bytes,
		    int fd, struct err *e)
{
	struct layers l = {.bytes = memory_bytes, .count = b->chain.layers.count + 1};
	struct machine_snap_id id;
	void *bytes = NULL;
	size_t len;
	int rc = machine_snap_id_get(in, &id, e);

	if (rc == 0 && memory_bytes != b->chain.layers.bytes)
		rc = err_set(e, -EINVAL, "the base is of a VM of another size");
	l.all = calloc(LAYERS_MAX, sizeof(*l.all));
	if (!l.all)
		return err_sys(e, -ENOMEM, "snapshot");
	memcpy(l.all[0].id, id.id, sizeof(id.id));
	(void)snprintf(l.all[0].path, LAYERS_PATH_MAX, SNAP_DIR_CHANGED);
	if (rc == 0)
		rc = machine_snap_pages_get(in, memory_bytes, &l.all[0].pages, e);
	for (unsigned i = 0; rc == 0 && i < b->chain.layers.count; i++)
		rc = take_layer(b, &b->chain.layers.all[i], &l.all[i + 1], e);
	if (rc == 0)
		rc = layers_format(&l, &bytes, &len, e);
	if (rc == 0) {
		rc = fd_write(fd, bytes, len);
		if (rc < 0)
			(void)err_sys(e, rc, "writing the list of its files");
	}
	free(bytes);
	layers_free(&l);
	return rc;
}
