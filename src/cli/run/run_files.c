/* SPDX-License-Identifier: Apache-2.0 */
/* What a run's files must not be: one of the others. See run.h, file_roles.h. */
#include "cli/file_roles.h"
#include "cli/json/json_file.h"
#include "cli/run/run.h"

_Static_assert(LOAD_MODULES_MAX + MACHINE_DISKS_MAX + 5 <= FILE_ROLES_MAX, "room for each");

int run_files_check(const struct run_opts *o, struct err *e)
{
	const struct machine_cfg *m = &o->machine;
	const char *json = json_file_is_stdout(o->json) ? NULL : o->json;
	struct file_roles f = {.count = 0};

	file_roles_add(&f, "kernel", m->kernel, false);
	for (unsigned i = 0; i < m->modules_count; i++)
		file_roles_add(&f, "initrd", m->modules[i], false);
	for (unsigned i = 0; i < m->disks_count; i++)
		file_roles_add(&f, "disk", m->disks[i].path, !m->disks[i].read_only);
	file_roles_add(&f, "swap", m->apf.swap, true);
	file_roles_add(&f, "control", o->control, true);
	if (file_roles_add_words(&f, "json", json, e) < 0 ||
	    file_roles_add_words(&f, "trace", o->trace, e) < 0)
		return e->code;
	return file_roles_check(&f, e);
}
