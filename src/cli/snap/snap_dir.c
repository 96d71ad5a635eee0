/* SPDX-License-Identifier: Apache-2.0 */
/* See snap_dir.h. */
#include "cli/snap/snap_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/json/json.h"
#include "cli/snap/snap_base.h"
#include "vmm/machine/machine_saved.h"

#define FORMAT 1u
enum { STATE, MEMORY };
#define DESCRIPTION SNAP_DIR_DESCRIPTION

static const char *name(unsigned i, bool whole)
{
	return i == STATE ? SNAP_DIR_STATE : whole ? SNAP_DIR_MEMORY : SNAP_DIR_CHANGED;
}

/* The folder that `path` is in. */
static int open_parent(struct snap_dir *d, struct err *e)
{
	char *copy = strdup(d->path);

	if (!copy)
		return err_sys(e, -ENOMEM, "snapshot");
	d->parent_fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->parent_fd < 0)
		err_sys(e, -errno, "cannot write %.150s: its folder", d->path);
	free(copy);
	return d->parent_fd < 0 ? e->code : 0;
}

/* name is BASE.DIGITS.part. */
static bool is_temp(const char *name, const char *base)
{
	size_t len = strlen(base);

	if (strncmp(name, base, len) != 0 || name[len] != '.')
		return false;
	name += len + 1;
	len = strspn(name, "0123456789");
	return len > 0 && strcmp(name + len, ".part") == 0;
}

static void remove_files(int fd)
{
	for (unsigned i = 0; i < SNAP_DIR_FILES; i++)
		(void)unlinkat(fd, snap_dir_name(i), 0);
}

/*
 * Who makes a snapshot holds a lock on its folder, which goes with him: one that can be had is of
 * somebody who was killed. The VM may still write to its files, and stops when it is done.
 */
static void remove_left_behind(const struct snap_dir *d)
{
	char *copy = strdup(d->path);
	const char *base = copy ? basename(copy) : NULL;
	int fd = base ? openat(d->parent_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		int at;

		if (!is_temp(entry->d_name, base))
			continue;
		at = openat(d->parent_fd, entry->d_name,
			    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (at >= 0 && flock(at, LOCK_EX | LOCK_NB) == 0) {
			remove_files(at);
			(void)unlinkat(d->parent_fd, entry->d_name, AT_REMOVEDIR);
		}
		if (at >= 0)
			close(at);
	}
	if (dir)
		(void)closedir(dir);
	else if (fd >= 0)
		close(fd);
	free(copy);
}

/* Somebody who removes what is left behind may have been here before the lock. */
static int hold(const struct snap_dir *d, struct err *e)
{
	struct stat st;

	/* Where a file system has no locks nobody removes it either. */
	if ((flock(d->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) ||
	    fstat(d->fd, &st) < 0 || st.st_nlink == 0)
		return err_set(e, -EAGAIN, "cannot make %.150s: another snapshot of that name has "
			       "begun; try again", d->temp);
	return 0;
}

int snap_dir_begin(struct snap_dir *d, const char *path, const struct snap_base *base,
		   struct err *e)
{
	size_t len = strlen(path);
	struct stat st;
	int rc;

	*d = (struct snap_dir){
		.path = path, .base = base, .parent_fd = -1, .fd = -1, .fds = {-1, -1}};
	if (lstat(path, &st) == 0)
		return err_set(e, -EEXIST, "cannot write %.150s: it exists; remove it, or name "
			       "another folder", path);
	rc = open_parent(d, e);
	if (rc < 0)
		return rc;
	remove_left_behind(d);
	while (len > 1 && path[len - 1] == '/')
		len--;
	if (asprintf(&d->temp, "%.*s.%d.part", (int)len, path, (int)getpid()) < 0) {
		d->temp = NULL;
		rc = err_sys(e, -ENOMEM, "snapshot");
	} else if (mkdir(d->temp, 0700) < 0) {
		rc = err_sys(e, -errno, "cannot make %.150s", d->temp);
		free(d->temp);
		d->temp = NULL;
	} else {
		d->fd = open(d->temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		rc = d->fd < 0 ? err_sys(e, -errno, "cannot make %.150s", d->temp) : hold(d, e);
	}
	for (unsigned i = 0; rc == 0 && i < CONTROL_SNAPSHOT_FDS; i++) {
		d->fds[i] = openat(d->fd, name(i, !base),
				   O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (d->fds[i] < 0)
			rc = err_sys(e, -errno, "cannot make %.120s/%s", d->temp, name(i, !base));
	}
	if (rc < 0)
		snap_dir_end(d);
	return rc;
}

static void describe_disks(struct json *j, const struct snap_in *in, unsigned count)
{
	json_array_open(j, "disks");
	for (unsigned i = 0; i < count; i++) {
		struct machine_disk_saved disk;
		const char *path;

		if (machine_disk_saved_get(in, i, &disk, &path, NULL) < 0)
			continue;
		json_object_open(j, NULL);
		json_text(j, "path", path);
		json_u64(j, "bytes", disk.bytes);
		json_bool(j, "read_only", disk.read_only);
		json_close(j);
	}
	json_close(j);
}

static void describe_nets(struct json *j, const struct snap_in *in, unsigned count)
{
	json_array_open(j, "nets");
	for (unsigned i = 0; i < count; i++) {
		struct machine_net net;

		if (machine_net_saved_get(in, i, &net, NULL) < 0)
			continue;
		json_object_open(j, NULL);
		json_text(j, "kind", net.tap ? "tap" : "user");
		json_text(j, "tap", net.tap);
		json_close(j);
	}
	json_close(j);
}

static void describe_id(struct json *j, const struct machine_snap_id *id)
{
	char text[SNAP_ID_BYTES * 2 + 1];

	for (unsigned i = 0; i < SNAP_ID_BYTES; i++)
		(void)snprintf(text + 2 * i, 3, "%02x", id->id[i]);
	json_text(j, "id", text);
}

static int list_layers(const struct snap_dir *d, const struct snap_in *in, uint64_t memory_bytes,
		       struct err *e)
{
	int fd = openat(d->fd, SNAP_DIR_LAYERS, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int rc = fd < 0 ? -errno : snap_base_write(d->base, in, memory_bytes, fd, e);

	if (fd < 0 || (rc == 0 && fsync(fd) < 0))
		rc = err_sys(e, -errno, "cannot write %.120s/" SNAP_DIR_LAYERS, d->temp);
	if (fd >= 0)
		close(fd);
	return rc;
}

static void describe_vsock(struct json *j, const struct snap_in *in)
{
	struct machine_vsock_saved vsock;
	const char *path;

	if (machine_vsock_saved_get(in, &vsock, &path, NULL) < 0 || !path)
		return;
	json_object_open(j, "vsock");
	json_text(j, "path", path);
	json_u64(j, "cid", vsock.device.cid);
	json_close(j);
}

/* For people and programs; what is restored is in `state`. */
static int describe(struct snap_dir *d, struct err *e)
{
	struct snap_in in;
	struct machine_snap_id id;
	struct machine_saved m;
	struct stat memory;
	struct json j;
	FILE *out = NULL;
	int fd = -1, rc = lseek(d->fds[STATE], 0, SEEK_SET) < 0 ? -errno : 0;

	if (rc == 0)
		rc = snap_in_read(&in, d->fds[STATE], e);
	if (rc < 0)
		return rc;
	rc = machine_saved_get(&in, &m, e);
	if (rc == 0)
		rc = machine_snap_id_get(&in, &id, e);
	if (rc == 0 && d->base)
		rc = list_layers(d, &in, m.memory_bytes, e);
	if (rc == 0 && fstat(d->fds[MEMORY], &memory) < 0)
		rc = err_sys(e, -errno, "snapshot: its memory");
	if (rc == 0) {
		fd = openat(d->fd, DESCRIPTION, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		out = fd < 0 ? NULL : fdopen(fd, "w");
		if (!out)
			rc = err_sys(e, -errno, "cannot write %.120s/" DESCRIPTION, d->temp);
	}
	if (rc == 0) {
		json_init(&j, out);
		json_object_open(&j, NULL);
		json_u64(&j, "format", FORMAT);
		json_text(&j, "version", APF_VERSION_TEXT);
		json_u64(&j, "cpus", m.cpus);
		json_u64(&j, "memory_bytes", m.memory_bytes);
		json_text(&j, "memory", name(MEMORY, !d->base));
		json_u64(&j, "memory_file_bytes", (uint64_t)memory.st_blocks * 512);
		json_text(&j, "state", SNAP_DIR_STATE);
		describe_id(&j, &id);
		json_text(&j, "base", d->base ? d->base->relative : NULL);
		describe_disks(&j, &in, m.disks);
		describe_nets(&j, &in, m.nets);
		describe_vsock(&j, &in);
		json_close(&j);
		rc = json_end(&j);
		if (rc < 0 || fsync(fd) < 0)
			rc = err_sys(e, rc < 0 ? rc : -errno, "cannot write %.120s/" DESCRIPTION,
				     d->temp);
	}
	if (out)
		(void)fclose(out);
	else if (fd >= 0)
		close(fd);
	snap_in_free(&in);
	return rc;
}

/*
 * Whoever has made something there meanwhile keeps it; but for an empty folder, where a file system
 * or a filter does not let it be done in one step. 0, or -1 with errno.
 */
static int give_name(const struct snap_dir *d)
{
	if (renameat2(AT_FDCWD, d->temp, AT_FDCWD, d->path, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS && errno != EPERM)
		return -1;
	return rename(d->temp, d->path);
}

int snap_dir_finish(struct snap_dir *d, struct err *e)
{
	int rc = describe(d, e);

	for (unsigned i = 0; rc == 0 && i < CONTROL_SNAPSHOT_FDS; i++)
		if (fsync(d->fds[i]) < 0)
			rc = err_sys(e, -errno, "cannot write %.120s/%s", d->temp,
				     name(i, !d->base));
	if (rc == 0 && fsync(d->fd) < 0)
		rc = err_sys(e, -errno, "cannot write %.150s", d->temp);
	if (rc < 0)
		return rc;
	if (give_name(d) < 0)
		return err_sys(e, -errno, "cannot put it in its place: %.150s", d->path);
	free(d->temp);
	d->temp = NULL;
	if (fsync(d->parent_fd) < 0)
		return err_sys(e, -errno, "cannot make %.150s durable", d->path);
	return 0;
}

void snap_dir_end(struct snap_dir *d)
{
	for (unsigned i = 0; i < CONTROL_SNAPSHOT_FDS; i++) {
		if (d->fds[i] >= 0)
			close(d->fds[i]);
		d->fds[i] = -1;
	}
	if (d->temp) {
		if (d->fd >= 0)
			remove_files(d->fd);
		(void)rmdir(d->temp);
	}
	if (d->fd >= 0)
		close(d->fd);
	if (d->parent_fd >= 0)
		close(d->parent_fd);
	free(d->temp);
	d->temp = NULL;
	d->fd = d->parent_fd = -1;
}

/* Checks its own file of memory, and that the snapshots that it builds upon are there. */
static int check_memory(int dir, const char *path, const struct snap_in *in,
			struct snap_chain *ret_chain, struct err *e)
{
	struct machine_snap_id id;
	struct machine_saved m;
	const char *file;
	struct stat st;
	int rc = machine_saved_get(in, &m, e);

	if (rc == 0)
		rc = machine_snap_id_get(in, &id, e);
	if (rc < 0)
		return rc;
	file = name(MEMORY, !snap_id_is_set(id.base));
	if (fstatat(dir, file, &st, 0) < 0)
		return err_sys(e, -errno, "cannot read %.150s/%s", path, file);
	if ((uint64_t)st.st_size != m.memory_bytes)
		return err_set(e, -EBADMSG, "cannot read %.150s/%s: it is not as long as the "
			       "guest's memory", path, file);
	return snap_chain_read(path, in, ret_chain, e);
}

/* What is said of a snapshot's content does not say whose it is. */
static int say_whose(const char *path, const struct err *why, struct err *e)
{
	static const char subject[] = "snapshot: ";
	size_t len = sizeof(subject) - 1;

	if (strncmp(why->text, subject, len) != 0)
		return err_set(e, why->code, "%s", why->text);
	return err_set(e, why->code, "cannot read the snapshot %.100s: %.150s", path,
		       why->text + len);
}

int snap_dir_read(const char *path, struct snap_in *ret, struct snap_chain *ret_chain,
		  struct err *e)
{
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd, rc;
	struct err why = {0};

	if (dir < 0)
		return err_sys(e, -errno, "cannot read the snapshot %.150s", path);
	/* O_NONBLOCK: a FIFO is cut short, and not waited for. */
	fd = openat(dir, SNAP_DIR_STATE, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	rc = fd < 0 ? err_sys(&why, -errno, "cannot read %.150s/" SNAP_DIR_STATE, path)
		    : snap_in_read(ret, fd, &why);
	if (rc == 0) {
		rc = check_memory(dir, path, ret, ret_chain, &why);
		if (rc < 0)
			snap_in_free(ret);
	}
	if (rc < 0)
		(void)say_whose(path, &why, e);
	if (fd >= 0)
		close(fd);
	close(dir);
	return rc;
}

char *snap_dir_source(const char *path, const struct snap_in *in)
{
	/* What begins with a word and a ':' is no path, as sources are written. */
	const char *here = *path != '/' && strchr(path, ':') ? "./" : "";
	struct machine_snap_id id = {.id = {0}};
	struct err e;
	size_t len, at;
	char *uri;

	if (machine_snap_id_get(in, &id, &e) < 0 || !snap_id_is_set(id.base))
		return asprintf(&uri, "%s%s/" SNAP_DIR_MEMORY, here, path) < 0 ? NULL : uri;
	len = sizeof("layers:/" SNAP_DIR_LAYERS) + 3 * strlen(path);
	uri = malloc(len);
	if (!uri)
		return NULL;
	at = (size_t)snprintf(uri, len, "layers:");
	/* What a URI has a meaning of its own for. */
	for (; *path; path++)
		at += (size_t)snprintf(uri + at, len - at, strchr("%?#", *path) ? "%%%02X" : "%c",
				       (unsigned char)*path);
	(void)snprintf(uri + at, len - at, "/" SNAP_DIR_LAYERS);
	return uri;
}
