/* SPDX-License-Identifier: Apache-2.0 */
/* See json_file.h. */
#include "cli/json/json_file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Who starts a reader and us side by side need not see to the order: 5 s. */
#define FIFO_TRIES 250u
#define FIFO_PAUSE_MS 20

bool json_file_is_stdout(const char *path)
{
	return path && strcmp(path, "-") == 0;
}

/* Without O_NONBLOCK the open itself would wait, without an end. */
static int open_fifo(const char *path)
{
	int fd = -1;

	for (unsigned i = 0; fd < 0 && i < FIFO_TRIES; i++) {
		if (i > 0)
			(void)poll(NULL, 0, FIFO_PAUSE_MS);
		fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0 && errno != ENXIO)
			return -1;
	}
	if (fd >= 0)
		(void)fcntl(fd, F_SETFL, 0);
	return fd;
}

/* Not "w": a file that cannot be written must be found before the work, and kept. */
static FILE *open_file(const char *path, bool *ret_made)
{
	const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY;
	struct stat st;
	bool fifo = stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
	int fd = fifo ? open_fifo(path) : open(path, flags | O_EXCL, 0666);
	FILE *out = NULL;
	int error;

	*ret_made = fd >= 0 && !fifo;
	if (fd < 0 && errno == EEXIST)
		fd = open(path, flags, 0666);
	/* Some of /proc can be opened for writing, and nothing else. */
	if (fd >= 0 && (lseek(fd, 0, SEEK_END) >= 0 || errno == ESPIPE))
		out = fdopen(fd, "a");
	error = errno;
	if (fd >= 0 && !out)
		(void)close(fd);
	errno = error;
	return out;
}

int json_file_open(struct json_file *f, const char *path, const char *option,
		   json_file_is_taken *is_taken, struct err *e)
{
	struct stat st;
	int error;

	*f = (struct json_file){.path = path, .option = option};
	if (!path)
		return 0;
	f->out = json_file_is_stdout(path) ? stdout : open_file(path, &f->made);
	error = errno;
	/* Its buffer is made now: for a device that takes a call which a sandbox may refuse. */
	if (f->out && (f->out == stdout || !is_taken(fileno(f->out)))) {
		(void)setvbuf(f->out, NULL, _IOFBF, BUFSIZ);
		return 0;
	}
	if (f->out) {
		json_file_close(f);
		return err_set(e, -EBUSY, "cannot write: %.100s: in use as a disk, or by another "
			       "run; give --%s another file", path, option);
	}
	if (error == ENXIO && stat(path, &st) == 0 && S_ISFIFO(st.st_mode))
		return err_set(e, -ENXIO, "cannot write: %.100s: a FIFO that nobody reads; start "
			       "its reader first, or give --%s a file", path, option);
	return err_set(e, -error, "cannot write: %.100s: %s; give --%s a file that may be written",
		       path, strerror(error), option);
}

int json_file_begin(struct json_file *f, struct err *e)
{
	f->made = false;
	/* A pipe or a terminal has nothing to cut, and standard output is not ours to cut. */
	if (f->out == stdout || ftruncate(fileno(f->out), 0) == 0 || errno == EINVAL)
		return 0;
	return err_set(e, -errno, "cannot write: %.100s: %m; give --%s another file", f->path,
		       f->option);
}

int json_file_written(const struct json_file *f, int rc, struct err *e)
{
	if (rc == 0)
		return 0;
	if (f->out == stdout) {
		clearerr(stdout); /* it is told */
		return err_set(e, errno ? -errno : -EIO, "cannot write: standard output: %s; free "
			       "space or redirect it elsewhere", strerror(errno ? errno : EIO));
	}
	return err_set(e, errno ? -errno : -EIO, "cannot write: %.100s: %s; free space or give "
		       "--%s another file", f->path, strerror(errno ? errno : EIO), f->option);
}

void json_file_close(struct json_file *f)
{
	/* Before it is closed: who waits for its lock makes another. */
	if (f->out && f->made)
		(void)unlinkat(AT_FDCWD, f->path, 0); /* as sandboxes know it */
	if (f->out && f->out != stdout)
		fclose(f->out);
	f->out = NULL;
	f->made = false;
}
