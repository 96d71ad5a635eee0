/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot as a folder (docs/snapshot-format.md): `state`, `memory` and `snapshot.json`, which
 * describes both; one that has only what changed has `changed` and `layers` for `memory`. It
 * appears whole or not at all: made beside its place under another name, made durable, then
 * renamed. Nobody but its owner can read it from its first moment on: it is the guest's memory. One
 * thread.
 */
#ifndef CLI_SNAP_DIR_H
#define CLI_SNAP_DIR_H

#include <limits.h>
#include <stdio.h>

#include "base/err.h"
#include "vmm/control/control_proto.h"
#include "vmm/snap/snap_state.h"

struct snap_dir {
	const char *path; /* the place, as the user gave it */
	char *temp;       /* its path until it is whole */
	const struct snap_base *base; /* NULL: it is whole */
	int parent_fd, fd;
	int fds[CONTROL_SNAPSHOT_FDS]; /* state, memory: for the VM */
};

struct snap_base;
struct snap_chain;

/*
 * base: NULL, or what it is to build upon, until the end. 0 or -Exxx, and then nothing is left
 * behind. -EEXIST: something is there already.
 */
int snap_dir_begin(struct snap_dir *d, const char *path, const struct snap_base *base,
		   struct err *e);
/* The VM has written both: describes them and puts the folder in its place. 0 or -Exxx. */
int snap_dir_finish(struct snap_dir *d, struct err *e);
/* After begin, whatever came of it: removes what is not in its place. */
void snap_dir_end(struct snap_dir *d);

#define SNAP_DIR_STATE "state"
#define SNAP_DIR_MEMORY "memory"
#define SNAP_DIR_CHANGED "changed"
#define SNAP_DIR_LAYERS "layers"
#define SNAP_DIR_DESCRIPTION "snapshot.json"
#define SNAP_DIR_FILES 5u

/* The name of file n, 0..SNAP_DIR_FILES - 1, of all that a snapshot can have. */
static inline const char *snap_dir_name(unsigned n)
{
	static const char *const all[SNAP_DIR_FILES] = {
		SNAP_DIR_STATE, SNAP_DIR_MEMORY, SNAP_DIR_CHANGED, SNAP_DIR_LAYERS,
		SNAP_DIR_DESCRIPTION};

	return all[n];
}

/* The path of that file; empty where it does not fit. */
static inline void snap_dir_file(const char *path, unsigned n, char ret[static PATH_MAX])
{
	if (snprintf(ret, PATH_MAX, "%s/%s", path, snap_dir_name(n)) >= PATH_MAX)
		*ret = '\0';
}

/*
 * Reads and checks what is there: its state, the size of its memory, and that what it builds upon
 * is there. 0, and then snap_in_free() and snap_chain_free() follow, or -Exxx.
 */
int snap_dir_read(const char *path, struct snap_in *ret, struct snap_chain *ret_chain,
		  struct err *e);
/* The page source of its memory, freed with free(). NULL: no memory. */
char *snap_dir_source(const char *path, const struct snap_in *in);

#endif
