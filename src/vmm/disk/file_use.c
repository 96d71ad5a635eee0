/* SPDX-License-Identifier: Apache-2.0 */
/* See file_use.h. */
#include "vmm/disk/file_use.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* udev holds its lock while it looks at a device that has just been closed. */
#define DEVICE_LOCK_TRIES 50
#define DEVICE_LOCK_PAUSE_MS 20

static int lock_device(int fd, bool write)
{
	int how = (write ? LOCK_EX : LOCK_SH) | LOCK_NB;

	for (unsigned i = 0; flock(fd, how) < 0; i++) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return 0;
		if (i == DEVICE_LOCK_TRIES)
			return -EBUSY;
		(void)poll(NULL, 0, DEVICE_LOCK_PAUSE_MS);
	}
	return 0;
}

int file_use_lock(int fd, bool write)
{
	struct flock lock = {.l_type = write ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
	struct stat st;

	if (fcntl(fd, F_OFD_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES))
		return -EBUSY;
	if (fstat(fd, &st) == 0 && S_ISBLK(st.st_mode))
		return lock_device(fd, write);
	return 0;
}

bool file_use_is_written(int fd)
{
	bool written;

	/* Who opens it just now breaks the lease: not by SIGIO, which would end us. */
	if (fcntl(fd, F_SETSIG, SIGURG) < 0)
		return false;
	written = fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN;
	(void)fcntl(fd, F_SETLEASE, F_UNLCK);
	return written;
}

/* /sys/block/loopN/loop/backing_file has a path, and " (deleted)" behind one that is gone. */
static bool lies_on(const char *loop, const struct stat *st)
{
	char name[300], path[4096];
	struct stat backing;
	bool same = false;
	FILE *f;

	snprintf(name, sizeof(name), "/sys/block/%s/loop/backing_file", loop);
	f = fopen(name, "re");
	if (!f)
		return false;
	if (fgets(path, sizeof(path), f)) {
		path[strcspn(path, "\n")] = '\0';
		same = stat(path, &backing) == 0 && backing.st_dev == st->st_dev &&
		       backing.st_ino == st->st_ino;
	}
	fclose(f);
	return same;
}

bool file_use_is_loop(const struct stat *st)
{
	DIR *dir = opendir("/sys/block");
	bool found = false;

	if (!dir)
		return false;
	for (struct dirent *d; !found && (d = readdir(dir));)
		found = strncmp(d->d_name, "loop", 4) == 0 && lies_on(d->d_name, st);
	closedir(dir);
	return found;
}

bool file_use_is_taken(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	return file_use_lock(fd, true) < 0 || file_use_is_loop(&st);
}
