/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command in a real cgroup whose limit is below what the guest's memory may take: told before
 * the guest runs, nothing is left behind. When the limit comes later, the VM is paused before it is
 * reached; where it is set below what is in use, the kernel kills.
 * Version 2, where it has the memory controller or nothing is mounted yet, or version 1.
 *
 * usage: cgroup_test PATH_OF_ASYNCPF MULTIBOOT_KERNEL
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROOT "/sys/fs/cgroup"
#define LIMIT_S 60
#define WORDS_MAX 24
#define REFUSED 3

static char command[PATH_MAX], kernel[PATH_MAX];
/* The limit is the outer group's; the command runs in the inner one. */
static char outer[PATH_MAX / 2], inner[PATH_MAX / 2 + 16];
static const char *limit_name; /* "memory.max" */
static char folder[] = "/tmp/asyncpf-cgroup-XXXXXX";
static bool mounted;

static int put(const char *dir, const char *name, const char *text)
{
	char path[PATH_MAX];
	int fd, rc;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

/* Which version can limit memory here. False: none that we may use. */
static bool find_groups(void)
{
	struct statfs fs;
	const char *root = ROOT;

	if (statfs(ROOT, &fs) == 0 && fs.f_type == SYSFS_MAGIC)
		mounted = mount("none", ROOT, "cgroup2", 0, NULL) == 0;
	if (statfs(ROOT, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC) {
		limit_name = "memory.max";
		if (put(ROOT, "cgroup.subtree_control", "+memory") < 0)
			return false;
	} else {
		limit_name = "memory.limit_in_bytes";
		root = ROOT "/memory";
	}
	snprintf(outer, sizeof(outer), "%s/asyncpf-test-%d", root, (int)getpid());
	snprintf(inner, sizeof(inner), "%s/inner", outer);
	return mkdir(outer, 0755) == 0 && mkdir(inner, 0755) == 0 &&
	       put(outer, limit_name, "33554432") == 0;
}

/* Its last process may be on its way out. */
static void remove_group(const char *path)
{
	for (unsigned i = 0; rmdir(path) < 0 && errno == EBUSY && i < 1000; i++)
		usleep(10000);
}

struct job {
	pid_t pid;
	int keys; /* what is typed goes there */
	int err;  /* what it says */
};

/* words: of the command, up to NULL; %K is the kernel. outside: of the group. */
static struct job start_at(const char *const *words, bool outside)
{
	char *argv[WORDS_MAX] = {command};
	struct job j;
	int ends[2], keys[2];

	for (unsigned i = 0; words[i]; i++) {
		assert_true(i + 2 < WORDS_MAX);
		argv[i + 1] = strcmp(words[i], "%K") ? (char *)(uintptr_t)words[i] : kernel;
	}
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(pipe2(keys, O_CLOEXEC), 0);
	j.pid = fork();
	assert_true(j.pid >= 0);
	if (j.pid == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(keys[0], 0);
		dup2(null, 1);
		dup2(ends[1], 2);
		if ((outside || put(inner, "cgroup.procs", "0") == 0) && chdir(folder) == 0)
			execv(command, argv);
		_exit(99);
	}
	close(ends[1]);
	close(keys[0]);
	j.err = ends[0];
	j.keys = keys[1];
	return j;
}

static struct job start(const char *const *words)
{
	return start_at(words, false);
}

/* Its wait status; said: what it said. */
static int finish(struct job j, char *said, size_t bytes)
{
	size_t used = 0;
	int status;
	ssize_t n;

	while ((n = read(j.err, said + used, bytes - 1 - used)) > 0)
		used += (size_t)n;
	said[used] = '\0';
	close(j.err);
	close(j.keys);
	assert_int_equal(waitpid(j.pid, &status, 0), j.pid);
	return status;
}

/* What is in the folder, beside `but`. */
static unsigned left(const char *but)
{
	DIR *dir = opendir(folder);
	unsigned n = 0;

	assert_non_null(dir);
	for (struct dirent *d; (d = readdir(dir));)
		if (d->d_name[0] != '.' && (!but || strcmp(d->d_name, but) != 0))
			n++;
	closedir(dir);
	return n;
}

static void is_refused(const char *const *words)
{
	char said[4096], why[PATH_MAX];
	int status;

	status = finish(start(words), said, sizeof(said));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != REFUSED)
		fail_msg("status %#x: %s", status, said);
	snprintf(why, sizeof(why), "%s/%s allows 32M, so that the kernel would kill the VM", outer,
		 limit_name);
	if (!strstr(said, why) || strchr(said, '\n') != said + strlen(said) - 1)
		fail_msg("not \"%s\": %s", why, said);
	assert_int_equal(left(NULL), 0);
}

/* ---- the tests ---- */

static void too_much_is_refused(void **state)
{
	static const char *const plain[] = {"run", "--local", "--kernel", "%K", "--memory", "64M",
					    "--control", "s", NULL};
	static const char *const swaps[] = {"run", "--local", "--kernel", "%K", "--memory", "96M",
					    "--swap", "swap", "--resident-max", "48M", NULL};
	static const char *const demo[] = {"demo", "--quiet", "--runs", "user:int", "--pages",
					   "16384", "--image", "/dev/shm/image", NULL};
	int image = open("/dev/shm/image", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	(void)state;
	is_refused(plain);
	is_refused(swaps);
	assert_true(image >= 0);
	assert_int_equal(ftruncate(image, 64 << 20), 0);
	is_refused(demo);
	close(image);
	unlink("/dev/shm/image");
}

static void what_fits_runs(void **state)
{
	static const char *const words[] = {"run", "--local", "--kernel", "%K", "--memory", "64M",
					    "--swap", "swap", "--resident-max", "8M", "--cmdline",
					    "off", NULL};
	char said[4096];
	int status = finish(start(words), said, sizeof(said));

	(void)state;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail_msg("status %#x: %s", status, said);
	assert_string_equal(said, "");
	assert_int_equal(left(NULL), 0);
}

static void wait_for_socket(pid_t pid)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/s", folder);
	for (unsigned i = 0; access(path, F_OK) < 0; i++) {
		assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
		assert_true(i < LIMIT_S * 100);
		usleep(10000);
	}
}

/* Its next line, with the newline. */
static void read_line(struct job j, char *said, size_t bytes)
{
	size_t used = 0;

	do
		assert_true(used + 1 < bytes && read(j.err, said + used, 1) == 1);
	while (said[used++] != '\n');
	said[used] = '\0';
}

/* A verb for the VM; its exit code, if it says what it should. */
static int ask(const char *verb, const char *says)
{
	const char *const words[] = {verb, "--control", "s", NULL};
	char said[4096];
	int status = finish(start_at(words, true), said, sizeof(said));

	if (!WIFEXITED(status) || !strstr(said, says))
		fail_msg("%s: status %#x: %s", verb, status, said);
	return WEXITSTATUS(status);
}

/* 96 MiB fit into 160; then 40 are left, of which the guest would take more. */
static void a_limit_that_comes_later_pauses(void **state)
{
	static const char *const words[] = {"run", "--local", "--kernel", "%K", "--memory", "96M",
					    "--control", "s", "--cmdline", "touch=64 off", NULL};
	char said[4096], why[PATH_MAX];
	struct job j;
	int status;

	(void)state;
	assert_int_equal(put(outer, limit_name, "167772160"), 0);
	j = start(words);
	wait_for_socket(j.pid);
	assert_int_equal(put(outer, limit_name, "41943040"), 0);
	assert_int_equal(write(j.keys, "x", 1), 1);
	read_line(j, said, sizeof(said));
	snprintf(why, sizeof(why), "are left of the 40M that %s/%s allows", outer, limit_name);
	if (!strstr(said, "the VM is paused: ") || !strstr(said, why))
		fail_msg("not \"%s\": %s", why, said);
	assert_int_equal(ask("resume", why), 1);
	/* What little may come back by itself is no reason to go on, either. */
	assert_int_equal(put(outer, limit_name, "42991616"), 0);
	assert_int_equal(ask("resume", "are left of the 41M that "), 1);
	assert_int_equal(put(outer, limit_name, "167772160"), 0);
	assert_int_equal(ask("resume", ""), 0);
	status = finish(j, said, sizeof(said));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail_msg("status %#x: %s", status, said);
	assert_int_equal(left(NULL), 0);
	assert_int_equal(put(outer, limit_name, "33554432"), 0);
}

static bool is_memory(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* Of 96 MiB, 24 at a time; its swap file is at `swap`. */
static struct job start_limited(const char *swap)
{
	const char *const words[] = {"run", "--local", "--kernel", "%K", "--memory", "96M",
				     "--swap", swap, "--resident-max", "24M", "--control",
				     "s", "--cmdline", "touch=64 off", NULL};
	struct job j = start(words);

	wait_for_socket(j.pid);
	assert_int_equal(write(j.keys, "x", 1), 1);
	return j;
}

/* Up to its own limit it may come close to the group's, and runs to its end. */
static void a_vm_at_its_own_limit_runs(void **state)
{
	char said[4096];
	struct job j;
	int status;

	(void)state;
	if (is_memory(folder))
		skip();
	j = start_limited("swap");
	status = finish(j, said, sizeof(said));
	/* Its code was evicted, which such a KVM does not fetch again (docs/caveats.md). */
	if (strstr(said, "an instruction that it cannot emulate"))
		skip();
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail_msg("status %#x: %s", status, said);
	assert_string_equal(said, "");
	assert_int_equal(left(NULL), 0);
}

/* A swap file in a tmpfs is the group's memory, too, and nobody limits it but the group. */
static void a_swap_file_in_memory_pauses(void **state)
{
	char said[4096];
	struct job j;

	(void)state;
	if (!is_memory("/dev/shm"))
		skip();
	j = start_limited("/dev/shm/asyncpf-cgroup-swap");
	read_line(j, said, sizeof(said));
	if (!strstr(said, "the VM is paused: ") || !strstr(said, "would kill the VM"))
		fail_msg("not paused: %s", said);
	assert_int_equal(ask("stop", ""), 0);
	(void)finish(j, said, sizeof(said));
	assert_int_equal(left(NULL), 0);
}

/* The kernel kills, and asks nobody: what is left is a socket, which the next run replaces. */
static void a_kill_leaves_nothing_in_the_way(void **state)
{
	static const char *const words[] = {"run", "--local", "--kernel", "%K", "--memory", "64M",
					    "--swap", "swap", "--resident-max", "8M", "--control",
					    "s", "--cmdline", "spin", NULL};
	char said[4096];
	struct job j;
	int status;

	(void)state;
	if (strcmp(limit_name, "memory.max") != 0)
		skip(); /* version 1 refuses a limit below what is used */
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(put(outer, limit_name, "33554432"), 0);
		j = start(words);
		wait_for_socket(j.pid);
		assert_int_equal(put(outer, limit_name, "4096"), 0);
		status = finish(j, said, sizeof(said));
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			fail_msg("status %#x: %s", status, said);
		assert_int_equal(left("s"), 0);
	}
	assert_int_equal(put(outer, limit_name, "33554432"), 0);
}

static int clean_up(void **state)
{
	char path[PATH_MAX];

	(void)state;
	snprintf(path, sizeof(path), "%s/s", folder);
	unlink(path);
	rmdir(folder);
	remove_group(inner);
	remove_group(outer);
	if (mounted)
		umount(ROOT);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(too_much_is_refused),
		cmocka_unit_test(what_fits_runs),
		cmocka_unit_test(a_limit_that_comes_later_pauses),
		cmocka_unit_test(a_vm_at_its_own_limit_runs),
		cmocka_unit_test(a_swap_file_in_memory_pauses),
		cmocka_unit_test(a_kill_leaves_nothing_in_the_way),
	};
	struct sysinfo si;

	if (argc != 3 || !realpath(argv[1], command) || !realpath(argv[2], kernel))
		return 2;
	if (access("/dev/kvm", R_OK | W_OK) < 0 || !mkdtemp(folder)) {
		printf("SKIP: /dev/kvm: no access\n");
		return 77;
	}
	if (sysinfo(&si) == 0 && si.totalswap > 0) {
		printf("SKIP: the kernel can swap, beyond a cgroup's limit\n");
		rmdir(folder);
		return 77;
	}
	if (!find_groups()) {
		printf("SKIP: no cgroup can be limited here\n");
		clean_up(NULL);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, clean_up);
}
