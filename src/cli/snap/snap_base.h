/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots that have only what changed, and those that they build upon: the file `layers` of such
 * a one (docs/snapshot-format.md), which names every file of memory that it needs and the snapshot
 * that each belongs to. One thread. Tests: tests/unit/snap_dir_test.c,
 * tests/integration/snapshot_run_test.py.
 */
#ifndef CLI_SNAP_BASE_H
#define CLI_SNAP_BASE_H

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "source/layers_format.h"
#include "vmm/boot/load_file.h"
#include "vmm/machine/machine_saved.h"

/* The files of memory that a snapshot consists of. All zeroes is freed. */
struct snap_chain {
	struct layers layers;   /* its own first; paths from its folder on */
	struct load_bytes file; /* `layers`, which is pointed into; a whole snapshot has none */
};

/* A snapshot that another is to build upon. */
struct snap_base {
	char *relative; /* its folder, from the new one on */
	struct machine_snap_id id;
	struct snap_chain chain;
};

/*
 * path: its folder; it and what it builds upon are checked. new_path: where the other will be, in
 * a folder that exists. After a failure, too, close is to follow. All zeroes is closed.
 */
int snap_base_open(struct snap_base *b, const char *path, const char *new_path, struct err *e);
void snap_base_close(struct snap_base *b);

/* The list of a new one, `in`, which builds upon b: to fd. */
int snap_base_write(const struct snap_base *b, const struct snap_in *in, uint64_t memory_bytes,
		    int fd, struct err *e);

/*
 * What the snapshot at `path` consists of, whose state is `in`: every snapshot that it builds upon
 * must be there, and be the one. 0, and then snap_chain_free() follows, or -Exxx.
 */
int snap_chain_read(const char *path, const struct snap_in *in, struct snap_chain *ret,
		    struct err *e);
void snap_chain_free(struct snap_chain *c);

/* The folder that `layer` of the snapshot at `path` is in; cut where it does not fit. */
static inline void snap_layer_folder(const char *path, const struct layer *layer,
				     char ret[static PATH_MAX])
{
	const char *slash = strrchr(layer->path, '/');
	int len = slash ? (int)(slash - layer->path) : 0;
	bool absolute = *layer->path == '/';

	(void)snprintf(ret, PATH_MAX, "%s%s%.*s", absolute ? "" : path, absolute ? "" : "/", len,
		       layer->path);
}

static inline bool snap_id_is_set(const unsigned char id[static SNAP_ID_BYTES])
{
	unsigned char any = 0;

	for (unsigned i = 0; i < SNAP_ID_BYTES; i++)
		any |= id[i];
	return any != 0;
}

#endif
