/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/sandbox: every call of the table goes through in every role that has it, and forbidden calls
 * end the process with a line that names role and call. Each case has a process of its own, since
 * nobody leaves a sandbox.
 *
 * usage: sandbox_test [--markdown]    prints the lists of docs/embedding.md instead
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/assert.h"
#include "mem/gmem.h"
#include "sandbox/calls.h"
#include "sandbox_fixture.h"
#include "vmm/chip/rtc_cmos.h"

/* ---- what is forbidden ---- */

struct forbidden {
	const char *name;
	int nr;
	long args[6];
	unsigned but; /* roles that may make it */
};

#define BUT_NET (1u << SANDBOX_NET)
#define BUT_VSOCK (1u << SANDBOX_VSOCK)
#define BUT_RULES (1u << SANDBOX_RULES)
#define BUT_SOURCES (1u << SANDBOX_SOURCES)

static const char *const no_words[] = {"/bin/true", NULL};

/* What somebody who has taken a thread over would want. */
static const struct forbidden forbidden[] = {
	{"socket", SYS_socket, {AF_INET, SOCK_STREAM}, BUT_NET | BUT_SOURCES},
	{"socket", SYS_socket, {AF_UNIX, SOCK_STREAM}, BUT_VSOCK | BUT_RULES | BUT_SOURCES},
	{"socket", SYS_socket, {AF_NETLINK, SOCK_RAW}, BUT_SOURCES},
	{"socket", SYS_socket, {AF_PACKET, SOCK_RAW}, 0},
	/* To a Unix socket: it can make no other. */
	{"connect", SYS_connect, {0}, BUT_NET | BUT_VSOCK | BUT_RULES | BUT_SOURCES},
	{"bind", SYS_bind, {0}, BUT_RULES},
	{"listen", SYS_listen, {0}, BUT_RULES},
	{"open", SYS_open, {(long)"/etc/passwd", O_RDONLY}, 0},
	{"openat", SYS_openat, {AT_FDCWD, (long)"/etc/passwd", O_RDONLY},
	 BUT_NET | BUT_RULES | BUT_SOURCES},
	{"openat", SYS_openat, {AT_FDCWD, (long)"/etc/passwd", O_RDWR}, BUT_RULES},
	{"openat", SYS_openat, {AT_FDCWD, (long)"/etc/passwd", O_WRONLY}, 0},
	{"openat", SYS_openat, {AT_FDCWD, (long)"/etc/passwd", O_RDWR | O_TRUNC}, 0},
	{"openat2", SYS_openat2, {AT_FDCWD, (long)"/etc/passwd"}, 0},
	{"execve", SYS_execve, {(long)"/bin/true", (long)no_words}, 0},
	{"execveat", SYS_execveat, {AT_FDCWD, (long)"/bin/true", (long)no_words}, 0},
	{"fork", SYS_fork, {0}, 0},
	{"vfork", SYS_vfork, {0}, 0},
	{"clone", SYS_clone, {SIGCHLD}, 0},
	{"ptrace", SYS_ptrace, {0}, 0},
	{"process_vm_writev", SYS_process_vm_writev, {0}, 0},
	{"kill", SYS_kill, {1, 0}, 0},
	{"tgkill", SYS_tgkill, {1, 1, 0}, 0},
	{"mprotect", SYS_mprotect, {0, 0, PROT_READ | PROT_EXEC}, 0},
	{"mmap", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1},
	 BUT_SOURCES},
	{"ioctl", SYS_ioctl, {0, 0x5412 /* TIOCSTI */, (long)"x"}, 0},
	{"ioctl", SYS_ioctl, {0, 0xae01 /* KVM_CREATE_VM */, 0}, 0},
	{"io_uring_setup", SYS_io_uring_setup, {8, 0}, 0},
	{"io_uring_register", SYS_io_uring_register, {0, 0}, 0},
	{"setuid", SYS_setuid, {0}, 0},
	{"prlimit64", SYS_prlimit64, {0}, 0},
	{"prctl", SYS_prctl, {PR_SET_DUMPABLE, 1}, 0},
	{"bpf", SYS_bpf, {0}, 0},
	{"userfaultfd", SYS_userfaultfd, {0}, 0},
	{"memfd_create", SYS_memfd_create, {(long)"x", 0}, 0},
	{"unlink", SYS_unlink, {(long)"/nowhere"}, BUT_RULES},
	{"symlink", SYS_symlink, {(long)"/nowhere", (long)"/nowhere"}, 0},
	{"chmod", SYS_chmod, {(long)"/nowhere", 0777}, 0},
	{"pidfd_getfd", SYS_pidfd_getfd, {0}, 0},
	{"mount", SYS_mount, {0}, 0},
	{"sendmsg", SYS_sendmsg, {0}, BUT_SOURCES}, /* descriptors to somebody else */
	{"unknown", 500, {0}, 0},
};

static void make(void *ctx)
{
	const struct forbidden *f = ctx;

	syscall(f->nr, f->args[0], f->args[1], f->args[2], f->args[3], f->args[4], f->args[5]);
}

static void forbidden_calls_end_it(void **state)
{
	(void)state;
	for (unsigned role = 0; role < SANDBOX_ROLES; role++) {
		for (unsigned i = 0; i < ARRAY_LEN(forbidden); i++) {
			struct forbidden f = forbidden[i];
			char want[160];
			struct end end;

			if (f.but >> role & 1)
				continue;
			run((enum sandbox_role)role, make, &f, &end);
			expect_exit(&end, EXIT_FORBIDDEN);
			snprintf(want, sizeof(want),
				 "asyncpf: sandbox: a %s thread made system call %d, %s(0x%lx, "
				 "0x%lx, ...), which it may not; ",
				 sandbox_role_name((enum sandbox_role)role), f.nr, f.name,
				 (unsigned long)f.args[0], (unsigned long)f.args[1]);
			if (strncmp(end.said, want, strlen(want)) != 0)
				fail_msg("it said: %s, not: %s", end.said, want);
			assert_ptr_equal(strchr(end.said, '\n'), strrchr(end.said, '\n'));
		}
	}
}

/* By the numbers of 32-bit programs and of x32, which mean other calls. */
static void make_by_other_numbers(void *ctx)
{
	if (ctx) {
		make(&(struct forbidden){"x32", SYS_getpid | 0x40000000, {0}, 0});
	} else {
		long rc = 20; /* getpid, which is allowed by its own number */

		__asm__ volatile("int $0x80" : "+a"(rc) : : "memory", "r8", "r9", "r10", "r11");
	}
}

/* A kernel without them, or a host that cannot pass the interrupt on, ends who tries. */
static bool has_calls_of_32_bit(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL); /* cmocka's goes on here */
		make_by_other_numbers(NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status);
}

static void other_architectures_are_forbidden(void **state)
{
	struct end end;

	(void)state;
	if (has_calls_of_32_bit()) {
		run(SANDBOX_VCPU, make_by_other_numbers, NULL, &end);
		expect_exit(&end, EXIT_FORBIDDEN);
	} else {
		printf("SKIP: no system calls of 32-bit programs on this host\n");
	}
	run(SANDBOX_VCPU, make_by_other_numbers, "x32", &end);
	expect_exit(&end, EXIT_FORBIDDEN);
}

static void nobody_can_keep_it_from_ending(void **state)
{
	struct forbidden f = forbidden[0];
	int ends[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
	while (write(ends[1], "asyncpf", 1) == 1)
		;
	assert_int_equal(errno, EAGAIN);
	/* For whoever writes to it, it blocks. */
	assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
	pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDERR_FILENO);
		child(SANDBOX_DEVICE, make, &f);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EXIT_FORBIDDEN);
	close(ends[0]);
	close(ends[1]);
}

static void who_blocks_the_signal_is_killed(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		struct sandbox *s = open_sandbox(NULL);
		sigset_t all;

		sandbox_thread(s, SANDBOX_VCPU);
		sigfillset(&all);
		(void)sigprocmask(SIG_SETMASK, &all, NULL);
		(void)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
		_exit(EXIT_WENT_THROUGH);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

/* ---- what is allowed ---- */

/* Made by each of these tests otherwise, or without a return. */
static bool cannot_be_tried(const struct sandbox_call *c)
{
	return c->nr == SYS_exit || c->nr == SYS_exit_group || c->nr == SYS_rt_sigreturn ||
	       c->nr == SYS_clone;
}

/*
 * Whatever an argument is, -1 is wrong for it, so that nothing is done. Of a clone's, and of an
 * end, the other cases are the test.
 */
static void make_all(void *ctx)
{
	enum sandbox_role role = *(enum sandbox_role *)ctx;

	for (unsigned i = 0; i < sandbox_calls_count; i++) {
		const struct sandbox_call *c = &sandbox_calls[i];
		long a[6] = {-1, -1, -1, -1, -1, -1};

		if (!(c->roles >> role & 1) || cannot_be_tried(c))
			continue;
		if (c->when == CALL_IF_OWN_PID)
			a[c->arg] = getpid();
		else if (c->when == CALL_IF_EQUAL)
			a[c->arg] = (long)c->value;
		(void)syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	}
}

static void allowed_calls_go_through(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SANDBOX_ROLES; i++) {
		enum sandbox_role role = (enum sandbox_role)i;
		struct end end;

		run(role, make_all, &role, &end);
		expect_exit(&end, EXIT_WENT_THROUGH);
	}
}

static void *nothing(void *arg)
{
	return arg;
}

static void make_thread(void *ctx)
{
	pthread_t thread;

	(void)ctx;
	if (pthread_create(&thread, NULL, nothing, NULL) != 0 || pthread_join(thread, NULL) != 0)
		_exit(EXIT_WRONG);
}

static void control_makes_threads_and_nothing_else(void **state)
{
	static const enum sandbox_role roles[] = {SANDBOX_CONTROL, SANDBOX_RULES, SANDBOX_SOURCES};
	struct end end;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(roles); i++) {
		run(roles[i], make_thread, NULL, &end);
		expect_exit(&end, EXIT_WENT_THROUGH);
	}
}

/* What the C library tries on the way to a name, and does without. */
static void look_a_name_up(void *ctx)
{
	(void)ctx;
	if (socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0) >= 0 || errno != EAFNOSUPPORT)
		exit(EXIT_WRONG);
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
		    MAP_FAILED ||
	    errno != EACCES)
		exit(EXIT_WRONG);
	struct addrinfo *found;

	/* Whatever comes of it: nothing is said of the network that the test has. */
	if (getaddrinfo("localhost", "80", NULL, &found) == 0)
		freeaddrinfo(found);
}

static void sources_look_names_up(void **state)
{
	struct end end;

	(void)state;
	run(SANDBOX_SOURCES, look_a_name_up, NULL, &end);
	expect_exit(&end, EXIT_WENT_THROUGH);
}

static void read_clock(void *ctx)
{
	struct rtc *r = ctx;

	rtc_bus_ops.write(r, 0, 1, 0); /* seconds */
	(void)rtc_bus_ops.read(r, 1, 1);
}

static void a_vcpu_reads_the_clock(void **state)
{
	struct rtc r;
	struct end end;

	(void)state;
	rtc_init(&r, NULL, NULL);
	run(SANDBOX_VCPU, read_clock, &r, &end);
	expect_exit(&end, EXIT_WENT_THROUGH);
	rtc_fini(&r);
}

static void ask_for_room(void *ctx)
{
	struct mem m = gmem_mem(ctx);
	struct err e = {0};

	if (m.ops->room(m.ctx, &e) != 0)
		_exit(EXIT_WRONG);
}

/* When KVM could not have memory. */
static void a_vcpu_asks_for_room(void **state)
{
	struct gmem *g = NULL;
	struct err e = {0};
	struct end end;

	(void)state;
	if (gmem_open(CHUNK_BYTES, true, false, &g, &e) < 0) {
		printf("SKIP: %s\n", e.text);
		return;
	}
	run(SANDBOX_VCPU, ask_for_room, g, &end);
	expect_exit(&end, EXIT_WENT_THROUGH);
	gmem_close(g);
}

/* glibc makes threads' heaps larger and smaller, and looks into /proc for it. */
static void use_heap(void *ctx)
{
	void *blocks[64];

	(void)ctx;
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < ARRAY_LEN(blocks); i++) {
			blocks[i] = malloc(100000);
			if (!blocks[i])
				_exit(EXIT_WRONG);
			memset(blocks[i], 1, 100000);
		}
		for (unsigned i = ARRAY_LEN(blocks); i-- > 0;)
			free(blocks[i]);
	}
}

static void memory_can_be_had(void **state)
{
	struct end end;

	(void)state;
	for (unsigned role = 0; role < SANDBOX_ROLES; role++) {
		run((enum sandbox_role)role, use_heap, NULL, &end);
		expect_exit(&end, EXIT_WENT_THROUGH);
	}
}

/* The words of one that has found a fault of its own. */
static void give_up(void *ctx)
{
	const bool a_fault = ctx != NULL;

	ASSERT(a_fault);
}

static void a_failed_assertion_is_told(void **state)
{
	struct end end;

	(void)state;
	for (unsigned role = 0; role < SANDBOX_ROLES; role++) {
		run((enum sandbox_role)role, give_up, NULL, &end);
		assert_true(WIFSIGNALED(end.status));
		assert_int_equal(WTERMSIG(end.status), SIGABRT);
		assert_non_null(strstr(end.said, "a_fault"));
	}
}

static void the_table_has_each_row_once(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sandbox_calls_count; i++) {
		const struct sandbox_call *a = &sandbox_calls[i];

		assert_true(a->roles != 0);
		assert_int_equal(a->by_library & ~a->roles, 0);
		assert_true(a->when == CALL_ALWAYS || a->what);
		for (unsigned k = 0; k < i; k++) {
			const struct sandbox_call *b = &sandbox_calls[k];

			/* In one role it is either always allowed, or under its conditions. */
			if (a->nr == b->nr && (a->roles & b->roles) &&
			    (a->when == CALL_ALWAYS || b->when == CALL_ALWAYS ||
			     (a->arg == b->arg && a->value == b->value)))
				fail_msg("%s stands there twice for a role", a->name);
		}
	}
}

static void unknown_threads_are_the_librarys(void **state)
{
	(void)state;
	assert_int_equal(sandbox_role_of_library("asyncpf"), SANDBOX_LIBRARY);
	assert_int_equal(sandbox_role_of_library("asyncpf-evict"), SANDBOX_EVICTOR);
	assert_int_equal(sandbox_role_of_library("asyncpf-later"), SANDBOX_LIBRARY);
}

/* ---- users ---- */

static void users(void **state)
{
	static const char *const wrong[] = {"", ":", ":0", "0:", "0:root", "no-such-user", "-1",
					    "0x0", "4294967295:1", "0:4294967295", "3999999999"};
	struct sandbox_user u;
	struct err e;

	(void)state;
	assert_int_equal(sandbox_user_parse("root", &u, &e), 0);
	assert_true(u.given && u.uid == 0 && u.gid == 0);
	assert_int_equal(sandbox_user_parse("root:7", &u, &e), 0);
	assert_true(u.uid == 0 && u.gid == 7);
	assert_int_equal(sandbox_user_parse("0", &u, &e), 0);
	assert_true(u.uid == 0 && u.gid == 0);
	assert_int_equal(sandbox_user_parse("3999999999:8", &u, &e), 0);
	assert_true(u.uid == 3999999999u && u.gid == 8);
	for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
		assert_int_equal(sandbox_user_parse(wrong[i], &u, &e), -EINVAL);
		assert_non_null(strstr(e.text, "--user"));
		assert_non_null(strchr(e.text, ';') ? strchr(e.text, ';') : strchr(e.text, ':'));
	}
}

/* ---- docs/embedding.md ---- */

/* Names in the table's order of the alphabet, each once, with its conditions. */
static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct sandbox_call *const *)a)->name,
		      (*(const struct sandbox_call *const *)b)->name);
}

static void print_list(enum sandbox_role role, uint16_t without)
{
	const struct sandbox_call *list[256], *before = NULL;
	unsigned count = 0;

	for (unsigned i = 0; i < sandbox_calls_count; i++)
		if ((sandbox_calls[i].by_library >> role & 1) &&
		    !(sandbox_calls[i].by_library & without))
			list[count++] = &sandbox_calls[i];
	qsort(list, count, sizeof(list[0]), by_name);
	for (unsigned i = 0; i < count; i++) {
		const struct sandbox_call *c = list[i];

		if (before && before->nr == c->nr)
			printf(", %s", c->what);
		else if (c->what)
			printf("%s`%s` (%s", before ? (before->what ? "), " : ", ") : "", c->name,
			       c->what);
		else
			printf("%s`%s`", before ? (before->what ? "), " : ", ") : "", c->name);
		before = c;
	}
	printf("%s |\n", before && before->what ? ")" : "");
}

static void print_markdown(void)
{
	/* What a device's thread does is what anybody's may: pause, resume, read guest memory. */
	const uint16_t anybody = 1u << SANDBOX_DEVICE;

	printf("| thread | system calls |\n| --- | --- |\n");
	printf("| any that calls the library | ");
	print_list(SANDBOX_DEVICE, 0);
	printf("| a vCPU's, in `apf_kvm_run`: besides | ");
	print_list(SANDBOX_VCPU, anybody);
	printf("| \"asyncpf\", and any other of the library's: besides | ");
	print_list(SANDBOX_LIBRARY, anybody);
	printf("| \"asyncpf-evict\": besides | ");
	print_list(SANDBOX_EVICTOR, anybody);
	printf("| the one that calls `apf_close`: besides | ");
	print_list(SANDBOX_MAIN, anybody);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_has_each_row_once),
		cmocka_unit_test(unknown_threads_are_the_librarys),
		cmocka_unit_test(users),
		cmocka_unit_test(forbidden_calls_end_it),
		cmocka_unit_test(other_architectures_are_forbidden),
		cmocka_unit_test(nobody_can_keep_it_from_ending),
		cmocka_unit_test(who_blocks_the_signal_is_killed),
		cmocka_unit_test(allowed_calls_go_through),
		cmocka_unit_test(a_vcpu_reads_the_clock),
		cmocka_unit_test(a_vcpu_asks_for_room),
		cmocka_unit_test(memory_can_be_had),
		cmocka_unit_test(a_failed_assertion_is_told),
		cmocka_unit_test(control_makes_threads_and_nothing_else),
		cmocka_unit_test(sources_look_names_up),
	};
	struct sandbox_host host;

	if (argc > 1 && strcmp(argv[1], "--markdown") == 0) {
		print_markdown();
		return 0;
	}
	sandbox_host_get(&host);
	if (host.seccomp < 0) {
		printf("SKIP: no seccomp filters here: %s\n", strerror(-host.seccomp));
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
