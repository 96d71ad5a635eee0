/* SPDX-License-Identifier: Apache-2.0 */
/* See lab.h. */
#include "cli/lab/lab.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int find_self(char ret[static LAB_PATH_BYTES], struct err *e)
{
	ssize_t len = readlink("/proc/self/exe", ret, LAB_PATH_BYTES - 1);

	if (len < 0)
		return err_sys(e, -errno, "/proc/self/exe");
	ret[len] = '\0';
	return 0;
}

/* FOLDER/build/asyncpf with FOLDER/tools/NAME: a build of that source tree. */
static bool in_source_tree(const char *self, const char *name, char ret[static LAB_PATH_BYTES])
{
	const char *slash = strrchr(self, '/');
	int folder = slash ? (int)(slash - self) : 0;

	return snprintf(ret, LAB_PATH_BYTES, "%.*s/../tools/%s", folder, self, name) <
		       LAB_PATH_BYTES &&
	       access(ret, X_OK) == 0;
}

int lab_find(char ret_tool[static LAB_PATH_BYTES], char ret_self[static LAB_PATH_BYTES],
	     struct err *e)
{
	const char *named = getenv(LAB_TOOL_ENV);
	int rc = find_self(ret_self, e);

	if (rc < 0 || (!named && in_source_tree(ret_self, "lab", ret_tool)))
		return rc;
	snprintf(ret_tool, LAB_PATH_BYTES, "%s", named ? named : APF_LAB_TOOL);
	if (access(ret_tool, X_OK) == 0)
		return 0;
	return err_set(e, -errno, "cannot start the lab: %.100s: %m; install asyncpf with its lab, "
		       "or name the source tree's tools/lab in " LAB_TOOL_ENV, ret_tool);
}

int lab_find_tool(const char *name, char ret_tool[static LAB_PATH_BYTES], struct err *e)
{
	static const char lab[] = APF_LAB_TOOL;
	char self[LAB_PATH_BYTES];
	int folder = (int)(strrchr(lab, '/') - lab);
	int rc = find_self(self, e);

	if (rc < 0 || in_source_tree(self, name, ret_tool))
		return rc;
	snprintf(ret_tool, LAB_PATH_BYTES, "%.*s/%s", folder, lab, name);
	if (access(ret_tool, X_OK) == 0)
		return 0;
	return err_set(e, -errno, "cannot start: %.140s: %m; install asyncpf with its tools",
		       ret_tool);
}

/*
 * Python does not start with a folder for a standard stream, which main.c has where there was
 * none. In its place comes one that fails alike when it is used.
 */
static void mend_standard_streams(void)
{
	struct stat st;

	for (int fd = 0; fd <= 2; fd++) {
		if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode))
			continue;
		(void)close(fd);
		(void)open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
	}
}

int lab_exec(const struct words *w, struct err *e)
{
	fflush(NULL);
	mend_standard_streams();
	execv(w->list[0], w->list);
	return err_set(e, -errno, "cannot start: %.100s: %m; it needs Python 3, as python3 in PATH",
		       w->list[0]);
}
