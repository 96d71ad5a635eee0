/* SPDX-License-Identifier: Apache-2.0 */
/* See limits.h. Of a cgroup, the limits of those around it count as well; version 1 and 2. */
#include "rights/limits.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include "base/size.h"
#include "base/types.h"

#define PATH_BYTES LIMITS_PATH_BYTES

struct cgroup_limit {
	char file[PATH_BYTES];
	uint64_t bytes; /* LIMITS_NONE: none */
};

/* A file's only number; "max", and a file that is not there, are no limit. */
static uint64_t read_limit(const char *path)
{
	unsigned long long value = LIMITS_NONE;
	FILE *f = fopen(path, "re");

	if (!f)
		return LIMITS_NONE;
	if (fscanf(f, "%llu", &value) != 1 || value >= LIMITS_NEVER_REACHED)
		value = LIMITS_NONE;
	fclose(f);
	return value;
}

struct groups {
	limits_group *call;
	void *ctx;
};

/* From the group itself to the outermost one: path is cut to nothing on the way. */
static void look_up(const struct groups *to, const char *mount, char *path, bool first_version)
{
	for (;;) {
		char folder[PATH_BYTES];
		char *slash = strrchr(path, '/');
		int n = snprintf(folder, sizeof(folder), "%s%s", mount, path);

		if (n > 0 && (size_t)n < sizeof(folder))
			to->call(to->ctx, folder, first_version);
		if (!slash)
			return;
		*slash = 0;
	}
}

/* A line of /proc/self/cgroup: "4:memory:/path", in version 2 "0::/path". */
static void look_at_line(const struct groups *to, const char *root, char *line)
{
	static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	char mount[PATH_BYTES], *names = strchr(line, ':');
	char *path = names ? strchr(names + 1, ':') : NULL;

	if (!path)
		return;
	path++;
	path[strcspn(path, "\n")] = 0;
	/* The outermost group's folder is the mount itself. */
	if (strcmp(path, "/") == 0)
		*path = 0;
	if (strncmp(names, "::", 2) != 0) {
		if (!strstr(names, ":memory:") && !strstr(names, ",memory:") &&
		    !strstr(names, ":memory,") && !strstr(names, ",memory,"))
			return;
		snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup/memory", root);
		look_up(to, mount, path, true);
		return;
	}
	for (unsigned i = 0; i < ARRAY_LEN(mounts); i++) {
		char copy[PATH_BYTES];

		snprintf(mount, sizeof(mount), "%s%s", root, mounts[i]);
		snprintf(copy, sizeof(copy), "%s", path);
		look_up(to, mount, copy, false);
	}
}

void limits_groups(const char *root, limits_group *call, void *ctx)
{
	const struct groups to = {call, ctx};
	char line[PATH_BYTES];
	FILE *f;

	snprintf(line, sizeof(line), "%s/proc/self/cgroup", root);
	f = fopen(line, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		look_at_line(&to, root, line);
	fclose(f);
}

static void find_least(void *ctx, const char *folder, bool first_version)
{
	struct cgroup_limit *least = ctx;
	char file[PATH_BYTES];
	int n = snprintf(file, sizeof(file), "%s/%s", folder,
			 first_version ? "memory.limit_in_bytes" : "memory.max");
	uint64_t bytes = n > 0 && (size_t)n < sizeof(file) ? read_limit(file) : LIMITS_NONE;

	if (bytes < least->bytes) {
		least->bytes = bytes;
		memcpy(least->file, file, sizeof(file));
	}
}

static void read_cgroup(const char *root, struct limits *ret)
{
	struct cgroup_limit least = {.bytes = LIMITS_NONE};
	struct sysinfo si;
	uint64_t swap = sysinfo(&si) == 0 ? (uint64_t)si.totalswap * si.mem_unit : 0;

	limits_groups(root, find_least, &least);
	if (least.bytes == LIMITS_NONE)
		return;
	/* What the kernel can put into its own swap does not count. */
	if (__builtin_add_overflow(least.bytes, swap, &ret->cgroup_bytes))
		ret->cgroup_bytes = LIMITS_NONE;
	else
		memcpy(ret->cgroup_file, least.file, sizeof(least.file));
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

bool limits_promises(const char *root)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/proc/sys/vm/overcommit_memory", root);
	return read_limit(path) == 2;
}

static void read_overcommit(const char *root, struct limits *ret)
{
	uint64_t limit, used;

	if (!limits_promises(root))
		return;
	limit = meminfo(root, "CommitLimit");
	used = meminfo(root, "Committed_AS");
	ret->promise_bytes = limit > used ? (limit - used) * 1024 : 0;
}

_Static_assert(RLIM_INFINITY == LIMITS_NONE, "one word for none");

/* The limit in force; ret_max: up to where the process may raise it. */
static uint64_t rlimit_of(__rlimit_resource_t resource, uint64_t *ret_max)
{
	struct rlimit r;

	if (getrlimit(resource, &r) < 0)
		r = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
	*ret_max = r.rlim_max;
	return r.rlim_cur;
}

void limits_read(const char *root, struct limits *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->cgroup_bytes = LIMITS_NONE;
	ret->promise_bytes = LIMITS_NONE;
	ret->address_bytes = rlimit_of(RLIMIT_AS, &ret->address_bytes_max);
	ret->file_bytes = rlimit_of(RLIMIT_FSIZE, &ret->file_bytes_max);
	ret->files = rlimit_of(RLIMIT_NOFILE, &ret->files_max);
	ret->processes = rlimit_of(RLIMIT_NPROC, &ret->processes_max);
	read_cgroup(root, ret);
	read_overcommit(root, ret);
}

int limits_check(const char *root, uint64_t ram, uint64_t held, struct err *e)
{
	struct limits l;

	limits_read(root, &l);
	if (l.address_bytes / 2 < ram)
		return err_set(e, -ENOMEM, "guest memory of %s is mapped twice, and RLIMIT_AS "
			       "allows the process %s; raise it (ulimit -v)", SIZE_WORD(ram),
			       SIZE_TEXT(l.address_bytes));
	/* Beyond it the kernel does not only refuse: it kills. */
	if (l.file_bytes < ram)
		return err_set(e, -EFBIG, "guest memory of %s is a file to the kernel, and "
			       "RLIMIT_FSIZE allows one of %s; raise it (ulimit -f)",
			       SIZE_WORD(ram), SIZE_WORD(l.file_bytes));
	if (l.promise_bytes < held)
		return err_set(e, -ENOMEM, "guest memory takes up to %s of host memory; with "
			       "vm.overcommit_memory=2 the kernel has %s left to promise; set it "
			       "to 0 or 1, raise vm.overcommit_ratio, or set resident_max",
			       SIZE_WORD(held), SIZE_TEXT(l.promise_bytes));
	if (l.cgroup_bytes < held)
		return err_set(e, -ENOMEM, "guest memory takes up to %s of host memory, and "
			       "%.150s allows %s, so that the kernel would kill the VM; raise it, "
			       "or set resident_max below it", SIZE_WORD(held), l.cgroup_file,
			       SIZE_WORD(l.cgroup_bytes));
	return 0;
}
