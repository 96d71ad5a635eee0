/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of the host that are below what a VM asks for: it is told before a guest runs. */
#include "swap_fixture.h"
#include "need_kvm.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>

#include "rights/limits.h"
#include "rights/room.h"
#include "root_fixture.h"

static void refused(uint64_t held, const char *words)
{
	struct err e = {0};
	int rc = limits_check(root, 64 * MIB, held, &e);

	if (!words) {
		if (rc != 0)
			fail_msg("%s", e.text);
		return;
	}
	assert_int_equal(rc, -ENOMEM);
	assert_non_null(strstr(e.text, words));
}

static void what_cannot_be_read_is_no_limit(void **state)
{
	(void)state;
	clear();
	refused(64 * MIB, NULL);
	put("/proc/self/cgroup", "nonsense\n0::\n1:name=x\n:::\n");
	put("/proc/sys/vm/overcommit_memory", "two\n");
	refused(64 * MIB, NULL);
}

static void strict_overcommit_is_told(void **state)
{
	(void)state;
	clear();
	put("/proc/meminfo", "MemFree: 5 kB\nCommitLimit:   100000 kB\nCommitted_AS:   50000 kB\n");
	put("/proc/sys/vm/overcommit_memory", "2\n");
	refused(64 * MIB, "overcommit_memory=2");
	refused(32 * MIB, NULL);
	put("/proc/meminfo", "CommitLimit:   100000 kB\nCommitted_AS:   150000 kB\n");
	refused(MIB, "has 0 bytes left");
	put("/proc/sys/vm/overcommit_memory", "1\n");
	refused(64 * MIB, NULL);
}

/* Of the kernel's own, bytes: a cgroup may use it beyond its limit. */
static uint64_t kernel_swap(void)
{
	struct sysinfo si;

	assert_int_equal(sysinfo(&si), 0);
	return (uint64_t)si.totalswap * si.mem_unit;
}

/* The innermost, one around it, and each version. */
static void a_cgroup_is_told(void **state)
{
	static const struct {
		const char *lines, *file;
	} cases[] = {
		{"0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max"},
		{"0::/a/b\n", "/sys/fs/cgroup/a/memory.max"},
		{"1:cpu:/\n0::/a/b\n", "/sys/fs/cgroup/memory.max"},
		{"0::/a\n", "/sys/fs/cgroup/unified/a/memory.max"},
		{"5:cpu:/x\n4:memory:/c/d\n0::/\n",
		 "/sys/fs/cgroup/memory/c/d/memory.limit_in_bytes"},
		{"4:cpu,memory:/c\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		clear();
		put("/proc/self/cgroup", cases[i].lines);
		put(cases[i].file, "33554432\n");
		refused(64 * MIB + kernel_swap(), cases[i].file);
		refused(32 * MIB + kernel_swap(), NULL);
		put(cases[i].file, "max\n");
		refused(64 * MIB, NULL);
	}
}

static uint64_t room(uint64_t enough, const char *file)
{
	struct room_left left;
	struct room r;

	room_open(&r, root);
	room_look(&r, enough, &left);
	if (file)
		assert_non_null(strstr(left.file, file));
	room_close(&r);
	return left.bytes == LIMITS_NONE ? LIMITS_NONE : left.bytes - kernel_swap();
}

/* By the group that has the least left; page cache is free, where that matters. */
static void what_is_left_is_told(void **state)
{
	(void)state;
	clear();
	assert_int_equal(room(0, NULL), LIMITS_NONE);
	put("/proc/self/cgroup", "0::/a/b\n");
	put("/sys/fs/cgroup/a/b/memory.max", "max\n");
	put("/sys/fs/cgroup/a/b/memory.current", "5000\n");
	assert_int_equal(room(0, NULL), LIMITS_NONE);
	put("/sys/fs/cgroup/a/memory.max", "90000\n");
	put("/sys/fs/cgroup/a/memory.current", "80000\n");
	put("/sys/fs/cgroup/a/memory.stat",
	    "anon 1\nshmem 2\ninactive_anon 4\nactive_anon 8\ninactive_file 16\nactive_file 32\n"
	    "unevictable 64\nslab_reclaimable 128\nslab_unreclaimable 256\n");
	assert_int_equal(room(0, "/a/memory.max"), 10000);
	assert_int_equal(room(UINT64_MAX, "/a/memory.max"), 10000 + 16 + 32 + 128);
	put("/sys/fs/cgroup/a/b/memory.max", "6000\n");
	assert_int_equal(room(0, "/a/b/memory.max"), 1000);
	put("/sys/fs/cgroup/a/b/memory.current", "7000\n");
	assert_int_equal(room(0, "/a/b/memory.max"), 0);
	clear();
	put("/proc/self/cgroup", "4:memory:/c\n0::/\n");
	put("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/c/memory.usage_in_bytes", "100\n");
	assert_int_equal(room(0, NULL), LIMITS_NONE);
	put("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "4096\n");
	put("/sys/fs/cgroup/memory/c/memory.stat", "active_file 1\ntotal_active_file 10\n");
	assert_int_equal(room(UINT64_MAX, "memory.limit_in_bytes"), 4096 - 90);
}

/* Starts a VM, in a process of its own, whose limits are set. */
static void start_limited(int resource, rlim_t limit, int code, const char *words)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct rlimit lim;
		struct vm v;
		int rc;

		vm_prepare(&v);
		assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
		assert_int_equal(apf_memory_add(v.a, 0, 1024 * MIB, &v.e), 0);
		(void)getrlimit((unsigned)resource, &lim);
		lim.rlim_cur = limit;
		(void)setrlimit((unsigned)resource, &lim);
		rc = apf_start(v.a, &v.e);
		apf_close(v.a);
		(void)rmdir(v.folder);
		_exit(rc == code && strstr(v.e.text, words) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void limits_of_the_process_are_told(void **state)
{
	(void)state;
	start_limited(RLIMIT_AS, 1536 * MIB, -ENOMEM, "ulimit -v");
	start_limited(RLIMIT_FSIZE, 512 * MIB, -EFBIG, "ulimit -f");
}

/* A real one, where this process may make it: of version 1 or 2. */
static void a_real_cgroup_is_told(void **state)
{
	static const char *const mounts[][2] = {
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"},
	};
	char path[300], group[200];
	int status = -1;
	pid_t pid;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(mounts) && status < 0; i++) {
		FILE *f;

		snprintf(group, sizeof(group), "%s/asyncpf-test-%d", mounts[i][0], (int)getpid());
		if (mkdir(group, 0700) < 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", group, mounts[i][1]);
		f = access(path, W_OK) == 0 ? fopen(path, "we") : NULL;
		if (!f) {
			(void)rmdir(group);
			continue;
		}
		fprintf(f, "%llu", 512 * MIB);
		fclose(f);
		snprintf(path, sizeof(path), "%s/cgroup.procs", group);
		pid = fork();
		if (pid == 0) {
			f = fopen(path, "we");
			if (!f || fprintf(f, "%d", (int)getpid()) < 0 || fclose(f) != 0)
				_exit(2);
			start_limited(RLIMIT_CORE, 0, -ENOMEM, "the kernel would kill the VM");
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		for (int ms = 0; ms < 5000 && rmdir(group) < 0; ms++)
			usleep(1000);
	}
	if (status < 0 || kernel_swap() || (WIFEXITED(status) && WEXITSTATUS(status) == 2))
		print_message("SKIP: no cgroup can be made here, or the kernel has swap\n");
	else
		assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_cannot_be_read_is_no_limit),
		cmocka_unit_test(strict_overcommit_is_told),
		cmocka_unit_test(a_cgroup_is_told),
		cmocka_unit_test(what_is_left_is_told),
		cmocka_unit_test(limits_of_the_process_are_told),
		cmocka_unit_test(a_real_cgroup_is_told),
	};
	int failed;

	need_kvm();
	snprintf(root, sizeof(root), "/tmp/asyncpf-limits-XXXXXX");
	if (!mkdtemp(root))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	clear();
	(void)rmdir(root);
	return failed;
}
