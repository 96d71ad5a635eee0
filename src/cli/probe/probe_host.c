/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes of the machine, of the limits around this process, and of who it is: nothing is tried
 * here, since a limit is met in the middle of a guest's work (rights/limits.h), and a right is
 * tried where it is needed.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/size.h"
#include "cli/probe/probe.h"
#include "rights/limits.h"
#include "rights/rights.h"

/* `asyncpf run` without --memory. */
#define GUEST_BYTES (512 * MIB)
#define ADDRESSES_WANTED (2 * (GUEST_BYTES + GUEST_BYTES / 4))
/* For a guest of a few processors and disks. */
#define FILES_WANTED 64
#define PROCESSES_WANTED 16

/* kB of a line of /proc/meminfo; -1: not told. */
static long long meminfo_kb(const char *name)
{
	char line[128];
	long long kb = -1;
	FILE *f = fopen("/proc/meminfo", "re");

	if (!f)
		return -1;
	while (kb < 0 && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0 &&
		    sscanf(line + strlen(name), ": %lld", &kb) != 1)
			kb = -1;
	fclose(f);
	return kb;
}

static void probe_machine(struct probe *list)
{
	struct utsname u;
	cpu_set_t cpus;
	long long kb = meminfo_kb("MemAvailable");

	if (uname(&u) == 0)
		probe_set(&list[PROBE_KERNEL], VERDICT_OK, "", "%.32s %.64s", u.sysname,
			  u.release);
	else
		probe_set(&list[PROBE_KERNEL], VERDICT_LIMITED, "", "uname: %s", strerror(errno));

	int n = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
	if (n >= 2)
		probe_set(&list[PROBE_CPUS], VERDICT_OK, "", "%d CPUs", n);
	else
		probe_set(&list[PROBE_CPUS], VERDICT_LIMITED, "allow the process a second CPU",
			  "1 CPU: vCPU and page fetches take turns, measured times mean little");

	if (kb < 0)
		probe_set(&list[PROBE_MEMORY], VERDICT_LIMITED, "mount /proc",
			  "/proc/meminfo does not say how much memory is available");
	else if ((unsigned long long)kb << 10 < GUEST_BYTES)
		probe_set(&list[PROBE_MEMORY], VERDICT_LIMITED, "free some, or run with --memory",
			  "%s available: too little for a guest of 512 MiB",
			  SIZE_TEXT((uint64_t)kb << 10));
	else
		probe_set(&list[PROBE_MEMORY], VERDICT_OK, "", "%s available",
			  SIZE_TEXT((uint64_t)kb << 10));
}

static void probe_memory_limits(struct probe *list, const struct limits *l)
{
	char fix[200];

	if (l->cgroup_bytes == LIMITS_NONE) {
		probe_set(&list[PROBE_CGROUP], VERDICT_OK, "", "no cgroup limits memory");
	} else if (l->cgroup_bytes < GUEST_BYTES) {
		snprintf(fix, sizeof(fix), "run with less --memory, or as root: echo 2G >%.150s",
			 l->cgroup_file);
		probe_set(&list[PROBE_CGROUP], VERDICT_LIMITED, fix,
			  "the cgroup allows %s: too little for a guest of 512 MiB",
			  SIZE_TEXT(l->cgroup_bytes));
	} else {
		probe_set(&list[PROBE_CGROUP], VERDICT_OK, "", "the cgroup allows %s",
			  SIZE_TEXT(l->cgroup_bytes));
	}
	if (l->promise_bytes == LIMITS_NONE)
		probe_set(&list[PROBE_OVERCOMMIT], VERDICT_OK, "",
			  "memory may be promised that is not there yet");
	else if (l->promise_bytes < GUEST_BYTES)
		probe_set(&list[PROBE_OVERCOMMIT], VERDICT_LIMITED,
			  "as root: sysctl -w vm.overcommit_memory=0",
			  "vm.overcommit_memory is 2, and %s are left to promise: too little for "
			  "a guest of 512 MiB", SIZE_TEXT(l->promise_bytes));
	else
		probe_set(&list[PROBE_OVERCOMMIT], VERDICT_OK, "",
			  "vm.overcommit_memory is 2, and %s are left to promise",
			  SIZE_TEXT(l->promise_bytes));
}

static const char *limit_text(uint64_t bytes, char buf[static 32])
{
	snprintf(buf, 32, "%s", bytes == LIMITS_NONE ? "unlimited" : SIZE_TEXT(bytes));
	return buf;
}

static const char *number_text(uint64_t number, char buf[static 32])
{
	if (number == LIMITS_NONE)
		return "unlimited";
	snprintf(buf, 32, "%llu", (unsigned long long)number);
	return buf;
}

/* By the shell that started us, or by root for it where it may not. */
static void raise_limit(char fix[static 200], bool may, const char *what, const char *by_shell,
			const char *by_root)
{
	if (may)
		snprintf(fix, 200, "raise the limit of %s: ulimit %s", what, by_shell);
	else
		snprintf(fix, 200, "raise the limit of %s: as root: prlimit --pid %d %s", what,
			 (int)getppid(), by_root);
}

static void probe_process_limits(struct probe *pr, const struct limits *l, const struct rights *r)
{
	bool above = rights_has(r, RIGHTS_SYS_RESOURCE);
	/* Root's processes are not counted, nor those of who may have more of everything. */
	bool counted = !above && !rights_has(r, RIGHTS_SYS_ADMIN);
	char address[32], file[32], files[32], processes[32];
	char fix[200] = "";

	if (l->files < FILES_WANTED)
		raise_limit(fix, above || l->files_max >= FILES_WANTED, "open files", "-n 1024",
			    "--nofile=1024");
	else if (l->address_bytes < ADDRESSES_WANTED)
		raise_limit(fix, above || l->address_bytes_max >= ADDRESSES_WANTED,
			    "addresses, a guest takes twice its memory", "-v unlimited",
			    "--as=unlimited");
	else if (l->file_bytes < GUEST_BYTES)
		raise_limit(fix, above || l->file_bytes_max >= GUEST_BYTES,
			    "file sizes, guest memory is a file", "-f unlimited",
			    "--fsize=unlimited");
	else if (counted && l->processes < PROCESSES_WANTED)
		raise_limit(fix, l->processes_max >= PROCESSES_WANTED, "processes", "-u 1024",
			    "--nproc=1024");
	probe_set(pr, *fix ? VERDICT_LIMITED : VERDICT_OK, fix,
		  "open files %s, addresses %s, file sizes %s, processes %s",
		  number_text(l->files, files), limit_text(l->address_bytes, address),
		  limit_text(l->file_bytes, file),
		  number_text(counted ? l->processes : LIMITS_NONE, processes));
}

static void probe_rights(struct probe *list, const struct rights *r)
{
	if (r->namespaced)
		probe_set(&list[PROBE_NAMESPACE], VERDICT_LIMITED, "",
			  "user %u in here is user %s outside: capabilities of in here do not "
			  "count for devices and the whole system", r->uid, r->user);
	else
		probe_set(&list[PROBE_NAMESPACE], VERDICT_OK, "", "none; this is user %s", r->user);
	if (r->filtered)
		probe_set(&list[PROBE_SECCOMP], VERDICT_LIMITED, "",
			  "a filter is in force; what it refuses of what is needed is told below");
	else
		probe_set(&list[PROBE_SECCOMP], VERDICT_OK, "", "no filter");
	probe_set(&list[PROBE_MODULE], VERDICT_OK, "", "%s",
		  *r->module ? r->module : "neither SELinux nor AppArmor");
}

void probe_host(struct probe *list)
{
	struct limits limits;
	struct rights rights;

	limits_read("", &limits);
	rights_read("", &rights);
	probe_machine(list);
	probe_memory_limits(list, &limits);
	probe_process_limits(&list[PROBE_LIMITS], &limits, &rights);
	probe_rights(list, &rights);
}
