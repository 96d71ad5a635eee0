/* SPDX-License-Identifier: Apache-2.0 */
/* What a run's files must not be: one of the others. See run.h, file_roles.h. */
#include "cli/file_roles.h"
#include "cli/json/json_file.h"
#include "cli/run/run.h"
#include "cli/snap/snap_base.h"
#include "cli/snap/snap_dir.h"

_Static_assert(LOAD_MODULES_MAX + MACHINE_DISKS_MAX + 8 + SNAP_DIR_FILES <= FILE_ROLES_MAX,
	       "room for each");

/* Nothing that is written lies in what the snapshot builds upon. */
static int check_below(const struct file_roles *f, const char *snapshot,
		       const struct layers *below, struct err *e)
{
	char folder[PATH_MAX], file[PATH_MAX];
	int rc = 0;

	for (unsigned i = 1; rc == 0 && below && i < below->count; i++) {
		snap_layer_folder(snapshot, &below->all[i], folder);
		for (unsigned n = 0; rc == 0 && n < SNAP_DIR_FILES; n++) {
			snap_dir_file(folder, n, file);
			rc = file_roles_check_read(f, "DIR", file, e);
		}
	}
	return rc;
}

int run_files_check(const struct run_opts *o, const struct layers *below, struct err *e)
{
	const struct machine_cfg *m = &o->machine;
	const char *json = json_file_is_stdout(o->json) ? NULL : o->json;
	char snapshot[SNAP_DIR_FILES][PATH_MAX];
	struct file_roles f = {.count = 0};

	for (unsigned i = 0; o->snapshot && i < SNAP_DIR_FILES; i++) {
		snap_dir_file(o->snapshot, i, snapshot[i]);
		file_roles_add(&f, "DIR", snapshot[i], false);
	}
	file_roles_add(&f, "kernel", m->kernel, false);
	for (unsigned i = 0; i < m->modules_count; i++)
		file_roles_add(&f, "initrd", m->modules[i], false);
	for (unsigned i = 0; i < m->disks_count; i++)
		file_roles_add(&f, "disk", m->disks[i].path, !m->disks[i].read_only);
	file_roles_add(&f, "swap", m->apf.swap, true);
	file_roles_add(&f, "control", o->control, true);
	file_roles_add(&f, "vsock", m->vsock.path, true);
	if (file_roles_add_words(&f, "json", json, e) < 0 ||
	    file_roles_add_words(&f, "trace", o->trace, e) < 0 ||
	    /* --record may write anew what --prefetch has read. */
	    file_roles_check_read(&f, "prefetch", o->prefetch, e) < 0 ||
	    file_roles_add_words(&f, "record", o->record, e) < 0 ||
	    file_roles_check_source(&f, "source", m->restore_uri, e) < 0 ||
	    check_below(&f, o->snapshot, below, e) < 0)
		return e->code;
	return file_roles_check(&f, e);
}
