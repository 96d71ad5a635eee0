/* SPDX-License-Identifier: Apache-2.0 */
/* See limits.h. Of a cgroup, the limits of those around it count as well; version 1 and 2. */
#include "lib/limits.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include "base/types.h"

#define NO_LIMIT UINT64_MAX
#define PATH_BYTES 1024

struct cgroup_limit {
	char file[PATH_BYTES];
	uint64_t bytes; /* NO_LIMIT: none */
};

/* A file's only number; "max", and a file that is not there, are no limit. */
static uint64_t read_limit(const char *path)
{
	unsigned long long value = NO_LIMIT;
	FILE *f = fopen(path, "re");

	if (!f)
		return NO_LIMIT;
	if (fscanf(f, "%llu", &value) != 1)
		value = NO_LIMIT;
	fclose(f);
	return value;
}

/* From the group itself to the outermost one: path is cut to nothing on the way. */
static void look_up(const char *mount, char *path, const char *name, struct cgroup_limit *least)
{
	for (;;) {
		char file[PATH_BYTES];
		char *slash = strrchr(path, '/');
		int n = snprintf(file, sizeof(file), "%s%s/%s", mount, path, name);
		uint64_t bytes = n > 0 && (size_t)n < sizeof(file) ? read_limit(file) : NO_LIMIT;

		if (bytes < least->bytes) {
			least->bytes = bytes;
			memcpy(least->file, file, sizeof(file));
		}
		if (!slash)
			return;
		*slash = 0;
	}
}

/* A line of /proc/self/cgroup: "4:memory:/path", in version 2 "0::/path". */
static void look_at_line(const char *root, char *line, struct cgroup_limit *least)
{
	static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	char mount[PATH_BYTES], *names = strchr(line, ':');
	char *path = names ? strchr(names + 1, ':') : NULL;

	if (!path)
		return;
	path++;
	path[strcspn(path, "\n")] = 0;
	if (strncmp(names, "::", 2) != 0) {
		if (!strstr(names, ":memory:") && !strstr(names, ",memory:") &&
		    !strstr(names, ":memory,") && !strstr(names, ",memory,"))
			return;
		snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup/memory", root);
		look_up(mount, path, "memory.limit_in_bytes", least);
		return;
	}
	for (unsigned i = 0; i < ARRAY_LEN(mounts); i++) {
		char copy[PATH_BYTES];

		snprintf(mount, sizeof(mount), "%s%s", root, mounts[i]);
		snprintf(copy, sizeof(copy), "%s", path);
		look_up(mount, copy, "memory.max", least);
	}
}

static int check_cgroup(const char *root, uint64_t held, struct err *e)
{
	struct cgroup_limit least = {.bytes = NO_LIMIT};
	char line[PATH_BYTES];
	struct sysinfo si;
	uint64_t swap = sysinfo(&si) == 0 ? (uint64_t)si.totalswap * si.mem_unit : 0;
	FILE *f;

	snprintf(line, sizeof(line), "%s/proc/self/cgroup", root);
	f = fopen(line, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		look_at_line(root, line, &least);
	fclose(f);
	/* What the kernel can put into its own swap does not count. */
	if (least.bytes == NO_LIMIT || least.bytes + swap >= held)
		return 0;
	return err_set(e, -ENOMEM, "guest memory takes up to %llu bytes of host memory, and "
		       "%.150s allows %llu: the kernel would kill the VM; raise it, or set "
		       "resident_max below it", (unsigned long long)held, least.file,
		       (unsigned long long)least.bytes);
}

/* kB of a line of /proc/meminfo. */
static uint64_t meminfo(const char *root, const char *name)
{
	unsigned long long kb = 0;
	char line[PATH_BYTES];
	FILE *f;

	snprintf(line, sizeof(line), "%s/proc/meminfo", root);
	f = fopen(line, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0 &&
		    sscanf(line + strlen(name), ": %llu", &kb) == 1)
			break;
	fclose(f);
	return kb;
}

static int check_overcommit(const char *root, uint64_t held, struct err *e)
{
	char path[PATH_BYTES];
	uint64_t limit, used;

	snprintf(path, sizeof(path), "%s/proc/sys/vm/overcommit_memory", root);
	if (read_limit(path) != 2)
		return 0;
	limit = meminfo(root, "CommitLimit");
	used = meminfo(root, "Committed_AS");
	if (limit > used && (limit - used) * 1024 >= held)
		return 0;
	return err_set(e, -ENOMEM, "guest memory takes up to %llu bytes of host memory; with "
		       "vm.overcommit_memory=2 the kernel has %llu left to promise: set it to 0 "
		       "or 1, raise vm.overcommit_ratio, or set resident_max",
		       (unsigned long long)held,
		       (unsigned long long)(limit > used ? (limit - used) * 1024 : 0));
}

static int check_process(uint64_t ram, struct err *e)
{
	struct rlimit as, file;

	if (getrlimit(RLIMIT_AS, &as) == 0 && as.rlim_cur / 2 < ram)
		return err_set(e, -ENOMEM, "guest memory of %llu bytes is mapped twice, and "
			       "RLIMIT_AS allows the process %llu; raise it (ulimit -v)",
			       (unsigned long long)ram, (unsigned long long)as.rlim_cur);
	/* Beyond it the kernel does not only refuse: it kills. */
	if (getrlimit(RLIMIT_FSIZE, &file) == 0 && file.rlim_cur < ram)
		return err_set(e, -EFBIG, "guest memory of %llu bytes is a file to the kernel, and "
			       "RLIMIT_FSIZE allows one of %llu; raise it (ulimit -f)",
			       (unsigned long long)ram, (unsigned long long)file.rlim_cur);
	return 0;
}

int limits_check(const char *root, uint64_t ram, uint64_t held, struct err *e)
{
	int rc = check_process(ram, e);

	if (rc == 0)
		rc = check_overcommit(root, held, e);
	if (rc == 0)
		rc = check_cgroup(root, held, e);
	return rc;
}
