/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/sandbox: which files and sockets are within whose reach, by Landlock, and what the process as
 * a whole gives up. Each case has a process of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "sandbox_fixture.h"

/* ---- files ---- */

struct files {
	char folder[64], file[80], other[80];
};

static int setup_files(void **state)
{
	struct files *f = calloc(1, sizeof(*f));

	snprintf(f->folder, sizeof(f->folder), "/tmp/asyncpf-sandbox-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->file, sizeof(f->file), "%s/socket", f->folder);
	snprintf(f->other, sizeof(f->other), "/tmp/asyncpf-sandbox-other-%d", getpid());
	assert_true(close(open(f->file, O_CREAT | O_WRONLY, 0600)) == 0);
	assert_true(close(open(f->other, O_CREAT | O_WRONLY, 0600)) == 0);
	*state = f;
	return 0;
}

static int teardown_files(void **state)
{
	struct files *f = *state;

	(void)unlink(f->file);
	(void)unlink(f->other);
	(void)rmdir(f->folder);
	free(f);
	return 0;
}

/* Exit code 0: all is as it should be; else the line of it. */
#define CHECK(condition) \
	do { \
		if (!(condition)) \
			_exit(__LINE__ % 200 + 1); \
	} while (0)

static __attribute__((noreturn)) void use_files(const struct files *f, int version)
{
	int folder = open(f->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int opened = open(f->other, O_RDWR | O_CLOEXEC);
	int rules = landlock_rules(version, false);

	CHECK(rules >= 0 && opened >= 0);
	CHECK(landlock_allow(version, rules, LANDLOCK_REMOVES, folder) == 0);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(landlock_enter(rules) == 0);
	CHECK(open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
	CHECK(open(f->file, O_RDWR | O_CLOEXEC) < 0 && errno == EACCES);
	CHECK(mkdirat(folder, "new", 0700) < 0 && errno == EACCES);
	CHECK(unlink(f->other) < 0 && errno == EACCES);
	CHECK(unlink(f->file) == 0);
	/* What was open stays open. */
	CHECK(write(opened, "1", 1) == 1 && ftruncate(opened, 0) == 0);
	_exit(0);
}

static int make_socket(const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%.100s", path);
	return fd < 0 ? fd : bind(fd, (const struct sockaddr *)&at, sizeof(at));
}

/* Each kind of access lets through what it is for, and not what the others are for. */
static __attribute__((noreturn)) void use_folder(const struct files *f, int version,
						 enum landlock_access access)
{
	bool reads = access == LANDLOCK_READS || access == LANDLOCK_SHARES;
	bool shares = access == LANDLOCK_SHARES;
	bool sockets = access == LANDLOCK_SOCKETS;
	int rules = landlock_rules(version, false);
	int folder = open(f->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	char made[128], at[128];
	int fd;

	snprintf(made, sizeof(made), "%s/made", f->folder);
	snprintf(at, sizeof(at), "%s/at", f->folder);
	CHECK(rules >= 0 && folder >= 0);
	CHECK(landlock_allow(version, rules, access, folder) == 0);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(landlock_enter(rules) == 0);
	CHECK((open(f->file, O_RDONLY | O_CLOEXEC) >= 0) == reads);
	CHECK(open(f->other, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
	CHECK((open(f->file, O_RDWR | O_CLOEXEC) >= 0) == shares);
	fd = open(made, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	CHECK((fd >= 0) == shares);
	CHECK(!shares || (ftruncate(fd, 4096) == 0 && link(made, at) == 0 && unlink(at) == 0));
	CHECK(!shares || (rename(made, at) == 0 && unlink(at) == 0));
	CHECK((make_socket(at) == 0) == sockets);
	CHECK(!sockets || unlink(at) == 0);
	CHECK(mkdirat(folder, "new", 0700) < 0 && errno == EACCES);
	CHECK((unlink(f->file) == 0) == (access != LANDLOCK_READS));
	_exit(0);
}

static void files_within_reach(void **state)
{
	static const enum landlock_access each[] = {LANDLOCK_READS, LANDLOCK_SOCKETS,
						    LANDLOCK_SHARES};
	const struct files *f = *state;
	int version = landlock_version();

	if (version < 0) {
		print_message("SKIP: no Landlock here: %s\n", strerror(-version));
		skip();
	}
	for (int v = 1; v <= version; v++) {
		for (unsigned i = 0; i < ARRAY_LEN(each); i++) {
			int status;
			pid_t pid = fork();

			if (pid == 0)
				use_folder(f, v, each[i]);
			assert_int_equal(waitpid(pid, &status, 0), pid);
			if (status != 0)
				fail_msg("version %d, access %u: line %d", v, each[i],
					 WEXITSTATUS(status) - 1);
			assert_true(close(open(f->file, O_CREAT | O_WRONLY, 0600)) == 0);
		}
	}
}

/* A network in user space reads who the resolver is, and nothing else. */
static void use_resolver(void *ctx)
{
	const bool *bound = ctx;
	struct stat st;

	if (stat(RESOLVER, &st) == 0 && open(RESOLVER, O_RDONLY | O_CLOEXEC) < 0)
		exit(EXIT_WRONG);
	if (*bound && open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0)
		exit(EXIT_WRONG);
	if (socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0)
		exit(EXIT_WRONG);
}

static void a_network_has_sockets_and_its_resolver(void **state)
{
	bool bound = landlock_version() > 0;
	struct end end;

	(void)state;
	run(SANDBOX_NET, use_resolver, &bound, &end);
	expect_exit(&end, EXIT_WENT_THROUGH);
}

/* All that the socket device does with a program of the host's. */
static void use_unix_socket(void *ctx)
{
	const struct sockaddr_un *at = ctx;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char c;

	if (fd < 0 || connect(fd, (const struct sockaddr *)at, sizeof(*at)) < 0 ||
	    send(fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1 ||
	    recv(fd, &c, 1, MSG_DONTWAIT) != -1 || shutdown(fd, SHUT_WR) < 0 || close(fd) < 0)
		exit(EXIT_WRONG);
	(void)accept4(-1, NULL, NULL, SOCK_CLOEXEC);
}

static void a_socket_device_reaches_programs_of_the_host(void **state)
{
	const struct files *f = *state;
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct end end;

	snprintf(at.sun_path, sizeof(at.sun_path), "%.80s/s", f->folder);
	assert_int_equal(bind(listening, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(listening, 1), 0);
	run(SANDBOX_VSOCK, use_unix_socket, &at, &end);
	expect_exit(&end, EXIT_WENT_THROUGH);
	close(listening);
	unlink(at.sun_path);
}

/* Each version that this kernel's includes is asked for as an older kernel would be. */
static void files_are_out_of_reach(void **state)
{
	int version = landlock_version();

	if (version < 0) {
		print_message("SKIP: no Landlock here: %s\n", strerror(-version));
		skip();
	}
	for (int v = 1; v <= version; v++) {
		const struct files *f = *state;
		int status;
		pid_t pid = fork();

		if (pid == 0)
			use_files(f, v);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (status != 0)
			fail_msg("version %d: line %d", v, WEXITSTATUS(status) - 1);
		assert_true(close(open(f->file, O_CREAT | O_WRONLY, 0600)) == 0);
	}
}

static void remove_it(const struct files *f)
{
	/* Without it, nothing but a file's mode stands before it. */
	bool bound = landlock_version() > 0;

	sandbox_thread(open_sandbox(f->file), SANDBOX_MAIN);
	if (unlinkat(AT_FDCWD, f->file, 0) < 0)
		_exit(EXIT_WRONG);
	if (bound && (unlinkat(AT_FDCWD, f->other, 0) == 0 || errno != EACCES))
		_exit(EXIT_WRONG);
	_exit(0);
}

static void the_main_thread_removes_its_socket(void **state)
{
	const struct files *f = *state;
	int status;
	pid_t pid = fork();

	if (pid == 0)
		remove_it(f);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(access(f->file, F_OK), -1);
}

/* ---- the process ---- */

static __attribute__((noreturn)) void bind_process(const char *path)
{
	/* Whatever the test was started with. */
	int closed = close_range(3, ~0u, 0);
	struct sandbox *s = open_sandbox(NULL);
	struct rlimit r;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	CHECK(closed == 0 && fd >= 0 && ftruncate(fd, 8192) == 0);
	(void)signal(SIGXFSZ, SIG_IGN);
	sandbox_process(s, 3, false);
	CHECK(prctl(PR_GET_DUMPABLE) == 0);
	CHECK(getrlimit(RLIMIT_CORE, &r) == 0 && r.rlim_cur == 0);
	CHECK(getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < 100);
	CHECK(pwrite(fd, "x", 1, 8191) == 1);
	CHECK(pwrite(fd, "x", 1, 8192) < 0 && errno == EFBIG);
	for (unsigned i = 0; i < 3; i++)
		CHECK(dup(fd) >= 0);
	/* The one that looked for the others is free again. */
	CHECK(dup(fd) >= 0);
	CHECK(dup(fd) < 0 && errno == EMFILE);
	_exit(0);
}

static void the_process_is_limited(void **state)
{
	const struct files *f = *state;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		/* Neither is a file that grows. */
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		bind_process(f->other);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0)
		fail_msg("line %d", WEXITSTATUS(status) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_network_has_sockets_and_its_resolver),
		cmocka_unit_test_setup_teardown(a_socket_device_reaches_programs_of_the_host,
						setup_files, teardown_files),
		cmocka_unit_test_setup_teardown(files_are_out_of_reach, setup_files,
						teardown_files),
		cmocka_unit_test_setup_teardown(files_within_reach, setup_files, teardown_files),
		cmocka_unit_test_setup_teardown(the_main_thread_removes_its_socket, setup_files,
						teardown_files),
		cmocka_unit_test_setup_teardown(the_process_is_limited, setup_files,
						teardown_files),
	};
	struct sandbox_host host;

	sandbox_host_get(&host);
	if (host.seccomp < 0) {
		printf("SKIP: no seccomp filters here: %s\n", strerror(-host.seccomp));
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
