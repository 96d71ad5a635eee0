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
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/snap/snap_dir.h"

_Static_assert(SNAP_ID_BYTES == LAYERS_ID_BYTES, "the same");

/* ---- reading ---- */

static int read_whole(const char *path, void **ret, size_t *ret_len, struct err *e)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st = {.st_size = 0};
	int rc = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;
	size_t got = 0;
	char *bytes;

	if (rc == 0 && (uint64_t)st.st_size > LAYERS_FILE_MAX)
		rc = -EFBIG;
	bytes = rc == 0 ? malloc((size_t)st.st_size + 1) : NULL;
	if (rc == 0 && !bytes)
		rc = -ENOMEM;
	while (rc == 0 && got < (size_t)st.st_size) {
		ssize_t n = read(fd, bytes + got, (size_t)st.st_size - got);

		if (n == 0)
			rc = -EIO;
		else if (n < 0 && errno != EINTR)
			rc = -errno;
		got += n > 0 ? (size_t)n : 0;
	}
	if (fd >= 0)
		close(fd);
	if (rc < 0) {
		free(bytes);
		return err_sys(e, rc, "cannot read %.150s", path);
	}
	*ret = bytes;
	*ret_len = got;
	return 0;
}

/* The snapshot whose file of memory `layer` is must be there, and be the one. */
static int check_one(const char *path, const struct layer *layer, struct err *e)
{
	const char *slash = strrchr(layer->path, '/');
	int len = slash ? (int)(slash - layer->path) : 0;
	struct machine_snap_id id;
	struct err why = {0};
	struct snap_in in;
	char *state;
	int fd, rc;

	if (asprintf(&state, "%s%s%.*s/" SNAP_DIR_STATE, *layer->path == '/' ? "" : path,
		     *layer->path == '/' ? "" : "/", len, layer->path) < 0)
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

int snap_base_check(const char *path, const struct snap_in *in, struct layers *ret,
		    void **ret_bytes, struct err *e)
{
	struct machine_snap_id id;
	struct machine_saved m;
	struct err why = {0};
	char *list;
	size_t len = 0;
	int rc = machine_saved_get(in, &m, e);

	if (rc == 0)
		rc = machine_snap_id_get(in, &id, e);
	if (rc < 0)
		return rc;
	if (asprintf(&list, "%s/" SNAP_DIR_LAYERS, path) < 0)
		return err_sys(e, -ENOMEM, "snapshot");
	*ret_bytes = NULL;
	rc = read_whole(list, ret_bytes, &len, e);
	if (rc == 0) {
		rc = layers_parse(*ret_bytes, len, ret, &why);
		if (rc == 0 && (ret->bytes != m.memory_bytes || ret->count < 2 ||
				memcmp(ret->all[0].id, id.id, sizeof(id.id)) != 0)) {
			layers_free(ret);
			rc = err_set(&why, -EBADMSG, "it belongs to another snapshot");
		}
		if (rc < 0) {
			(void)err_set(e, rc, "cannot read %.100s: %.120s", list, why.text);
			free(*ret_bytes);
		}
	}
	free(list);
	if (rc < 0)
		return rc;
	for (unsigned i = 1; rc == 0 && i < ret->count; i++)
		rc = check_one(path, &ret->all[i], e);
	if (rc < 0) {
		layers_free(ret);
		free(*ret_bytes);
	}
	return rc;
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
	struct machine_saved m;
	struct snap_in in;
	int rc = snap_dir_read(path, &in, e);

	*b = (struct snap_base){.relative = NULL};
	if (rc < 0)
		return rc;
	rc = machine_snap_id_get(&in, &b->id, e);
	if (rc == 0 && !snap_id_is_set(b->id.id))
		rc = err_set(e, -EINVAL, "cannot build upon %.150s: an older asyncpf has made it",
			     path);
	if (rc == 0)
		rc = find_way(b, path, new_path, e);
	if (rc == 0 && snap_id_is_set(b->id.base)) {
		rc = snap_base_check(path, &in, &b->layers, &b->bytes, e);
	} else if (rc == 0) {
		(void)machine_saved_get(&in, &m, e);
		b->layers = (struct layers){.bytes = m.memory_bytes, .count = 1};
		b->layers.all = calloc(LAYERS_MAX, sizeof(*b->layers.all));
		if (!b->layers.all)
			rc = err_sys(e, -ENOMEM, "snapshot");
		else
			(void)snprintf(b->layers.all[0].path, LAYERS_PATH_MAX, SNAP_DIR_MEMORY);
	}
	if (rc == 0)
		memcpy(b->layers.all[0].id, b->id.id, sizeof(b->id.id));
	if (rc == 0 && b->layers.count == LAYERS_MAX)
		rc = err_set(e, -E2BIG, "cannot build upon %.150s: %u snapshots build upon each "
			     "other already; make a whole one", path, LAYERS_MAX);
	snap_in_free(&in);
	return rc;
}

void snap_base_close(struct snap_base *b)
{
	layers_free(&b->layers);
	free(b->bytes);
	free(b->relative);
	*b = (struct snap_base){.relative = NULL};
}

/* A layer of the base's, as it is seen from the new one. */
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
	struct layers l = {.bytes = memory_bytes, .count = b->layers.count + 1};
	struct machine_snap_id id;
	void *bytes = NULL;
	size_t len;
	int rc = machine_snap_id_get(in, &id, e);

	if (rc == 0 && memory_bytes != b->layers.bytes)
		rc = err_set(e, -EINVAL, "the base is of a VM of another size");
	l.all = calloc(LAYERS_MAX, sizeof(*l.all));
	if (!l.all)
		return err_sys(e, -ENOMEM, "snapshot");
	memcpy(l.all[0].id, id.id, sizeof(id.id));
	(void)snprintf(l.all[0].path, LAYERS_PATH_MAX, SNAP_DIR_CHANGED);
	if (rc == 0)
		rc = machine_snap_pages_get(in, memory_bytes, &l.all[0].pages, e);
	for (unsigned i = 0; rc == 0 && i < b->layers.count; i++)
		rc = take_layer(b, &b->layers.all[i], &l.all[i + 1], e);
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
