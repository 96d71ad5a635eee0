/* SPDX-License-Identifier: Apache-2.0 */
/* See json_file.h. */
#include "cli/json/json_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

bool json_file_is_stdout(const char *path)
{
	return path && strcmp(path, "-") == 0;
}

int json_file_open(struct json_file *f, const char *path, struct err *e)
{
	*f = (struct json_file){.path = path};
	if (!path)
		return 0;
	/* Not "w": a file that cannot be written must be found before the work, and kept. */
	f->out = json_file_is_stdout(path) ? stdout : fopen(path, "ae");
	return f->out ? 0 : err_set(e, -errno, "cannot write: %.100s: %m; give --json a file that "
				    "may be written", path);
}

int json_file_begin(const struct json_file *f, struct err *e)
{
	/* A pipe or a terminal has nothing to cut, and standard output is not ours to cut. */
	if (f->out == stdout || ftruncate(fileno(f->out), 0) == 0 || errno == EINVAL)
		return 0;
	return err_set(e, -errno, "cannot write: %.100s: %m; give --json another file", f->path);
}

int json_file_written(const struct json_file *f, int rc, struct err *e)
{
	/* Of standard output, main() tells. */
	if (rc == 0 || f->out == stdout)
		return 0;
	return err_set(e, errno ? -errno : -EIO, "cannot write: %.100s: %s; free space or give "
		       "--json another file", f->path, strerror(errno ? errno : EIO));
}

void json_file_close(struct json_file *f)
{
	if (f->out && f->out != stdout)
		fclose(f->out);
	f->out = NULL;
}
