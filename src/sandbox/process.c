/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of the process as a whole. See sandbox.h. Not limited: processes (a filter forbids to make
 * them, and the limit would count those of other VMs of that user), memory (the guest's is
 * limited by what it was given, and guest memory is mapped several times).
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/types.h"
#include "sandbox/sandbox.h"

struct open_files {
	rlim_t count; /* the highest descriptor, and one */
	rlim_t bytes; /* of the largest file; RLIM_INFINITY: one that grows is open */
};

static void look_at(int fd, struct open_files *ret)
{
	struct stat st;

	if ((rlim_t)fd >= ret->count)
		ret->count = (rlim_t)fd + 1;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	/* What the guest prints, and errors: as long as it takes. */
	if (fd == STDOUT_FILENO || fd == STDERR_FILENO)
		ret->bytes = RLIM_INFINITY;
	else if (ret->bytes < (rlim_t)st.st_size)
		ret->bytes = (rlim_t)st.st_size;
}

/* False: that cannot be told here. */
static bool look(struct open_files *ret)
{
	DIR *d = opendir("/proc/self/fd");
	const struct dirent *entry;

	*ret = (struct open_files){0};
	if (!d)
		return false;
	while ((entry = readdir(d)))
		if (entry->d_name[0] != '.')
			look_at(atoi(entry->d_name), ret);
	closedir(d);
	return true;
}

/*
 * The soft limit alone: no thread can raise it, as that is a forbidden call, and whoever has to
 * mend something from outside still can (prlimit).
 */
static void lower(__rlimit_resource_t resource, rlim_t to)
{
	struct rlimit r;

	if (getrlimit(resource, &r) < 0 || r.rlim_cur <= to)
		return;
	r.rlim_cur = to;
	(void)setrlimit(resource, &r);
}

void sandbox_process(struct sandbox *s, unsigned spare, bool grows)
{
	struct open_files open;

	if (!s)
		return;
	if (look(&open)) {
		lower(RLIMIT_NOFILE, open.count + spare);
		/* RLIM_INFINITY is the largest number there is. */
		lower(RLIMIT_FSIZE, grows ? RLIM_INFINITY : open.bytes);
	}
	lower(RLIMIT_CORE, 0);
	/* A core dump that goes to a program knows no limit. */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}
