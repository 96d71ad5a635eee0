/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library's threads as a VMM has them: named, placed and filtered by config.on_thread, and
 * asleep whenever there is nothing to do, also while the VM stands still for want of memory.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"
#include "need_kvm.h"
#include "vm_fixture.h"

#define GPA 0x10000000u
#define MIB (1u << 20)
#define RAM (4u * MIB)
#define NEVER "fault+zero:?size=4M&fault-hang-after=0"
#define FAILS "fault+zero:?size=4M&fault-error-after=0"

/* A part of its own with a view for us, at GPA. */
static unsigned char *adopt(struct vm *v, const char *uri)
{
	struct apf_memory m;

	apf_memory_init(&m);
	m.gpa = GPA;
	m.bytes = RAM;
	if (apf_memory_adopt(v->apf, &m, &v->error) < 0 ||
	    apf_source_add(v->apf, GPA, RAM, uri, 0, NULL, &v->error) < 0)
		fail_msg("%s", v->error.text);
	return m.vmm;
}

/* ---- the hook ---- */

/* Those that docs/embedding.md names for the two. */
static const int calls[] = {
	SYS_clock_nanosleep, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait2, SYS_exit,
	SYS_fallocate, SYS_futex, SYS_io_uring_enter, SYS_io_uring_register, SYS_ioctl,
	SYS_madvise, SYS_mincore, SYS_newfstatat, SYS_pread64, SYS_preadv2, SYS_read,
	SYS_rt_sigprocmask, SYS_sched_yield, SYS_timerfd_settime, SYS_write,
};

static void filter(void)
{
	struct sock_filter f[3 + ARRAY_LEN(calls) + 2];
	struct sock_fprog prog = {.len = 0, .filter = f};

	f[prog.len++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						     offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < ARRAY_LEN(calls); i++)
		f[prog.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i],
							     (uint8_t)(ARRAY_LEN(calls) - i), 0);
	f[prog.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	f[prog.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0), 0);
}

struct begun {
	struct {
		pid_t tid;
		char name[16];
		bool blocked; /* every signal */
	} threads[4];
	unsigned count; /* atomic */
	int cpu;
};

static bool all_blocked(void)
{
	sigset_t now;

	pthread_sigmask(SIG_SETMASK, NULL, &now);
	for (int s = 1; s < NSIG; s++)
		/* Those two cannot be, and the C library keeps two for itself. */
		if (s != SIGKILL && s != SIGSTOP && (s < 32 || s >= SIGRTMIN) &&
		    sigismember(&now, s) == 0)
			return false;
	return true;
}

static void on_thread(void *ctx, const char *name)
{
	struct begun *b = ctx;
	unsigned i = __atomic_load_n(&b->count, __ATOMIC_ACQUIRE);
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(b->cpu, &one);
	b->threads[i].tid = (pid_t)syscall(SYS_gettid);
	b->threads[i].blocked = all_blocked();
	snprintf(b->threads[i].name, sizeof(b->threads[i].name), "%s", name);
	(void)sched_setaffinity(0, sizeof(one), &one);
	(void)pthread_setname_np(pthread_self(), i == 0 ? "vmm pages" : "vmm evict");
	filter();
	__atomic_store_n(&b->count, i + 1, __ATOMIC_RELEASE);
}

static void is_named(pid_t tid, const char *name)
{
	char path[64], is[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/comm", tid);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(is, sizeof(is), f));
	fclose(f);
	is[strcspn(is, "\n")] = 0;
	assert_string_equal(is, name);
}

static unsigned threads_called(const char *name)
{
	DIR *d = opendir("/proc/self/task");
	unsigned n = 0;

	for (struct dirent *e; (e = readdir(d));) {
		char path[300], is[32] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (!f)
			continue;
		if (fgets(is, sizeof(is), f))
			n += strcspn(is, "\n") == strlen(name) &&
			     strncmp(is, name, strlen(name)) == 0;
		fclose(f);
	}
	closedir(d);
	return n;
}

static void serve_and_evict(struct vm *v)
{
	unsigned char *vmm = adopt(v, "zero:?size=4M");
	uint64_t resident;

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned at = 0; at < RAM; at += PAGE_BYTES)
			vmm[at] = (unsigned char)(at / PAGE_BYTES + 1);
		if (apf_evict(v->apf, 0, &resident, &v->error) < 0)
			fail_msg("%s", v->error.text);
		for (unsigned at = 0; at < RAM; at += PAGE_BYTES)
			assert_int_equal(vmm[at], (unsigned char)(at / PAGE_BYTES + 1));
	}
	assert_int_equal(apf_discard(v->apf, GPA, RAM / 2), 0);
	assert_int_equal(vmm[PAGE_BYTES], 0);
}

static void with_swap(struct vm *v, char *folder, char *swap, size_t len)
{
	assert_non_null(mkdtemp(folder));
	snprintf(swap, len, "%s/swap", folder);
	vm_open(v);
	v->config.swap = swap;
	v->config.pins_are_held = 1;
}

static void each_thread_begins_with_the_hook(void **state)
{
	char folder[] = "/tmp/asyncpf-threads-XXXXXX", swap[64];
	struct begun b = {.count = 0};
	cpu_set_t before, is;
	struct vm v;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	while (!CPU_ISSET(b.cpu, &before))
		b.cpu++;
	with_swap(&v, folder, swap, sizeof(swap));
	v.config.on_thread = on_thread;
	v.config.on_thread_ctx = &b;
	vm_memory(&v, NULL);
	serve_and_evict(&v);
	assert_int_equal(__atomic_load_n(&b.count, __ATOMIC_ACQUIRE), 2);
	assert_string_equal(b.threads[0].name, "asyncpf");
	assert_string_equal(b.threads[1].name, "asyncpf-evict");
	is_named(b.threads[0].tid, "vmm pages");
	is_named(b.threads[1].tid, "vmm evict");
	for (unsigned i = 0; i < 2; i++) {
		assert_true(b.threads[i].blocked);
		assert_int_not_equal(b.threads[i].tid, getpid());
		assert_int_equal(sched_getaffinity(b.threads[i].tid, sizeof(is), &is), 0);
		assert_int_equal(CPU_COUNT(&is), 1);
		assert_true(CPU_ISSET(b.cpu, &is));
	}
	/* Nothing of it is the VMM's own thread's. */
	assert_int_equal(sched_getaffinity(0, sizeof(is), &is), 0);
	assert_true(CPU_EQUAL(&is, &before));
	apf_close(v.apf);
	assert_int_equal(b.count, 2);
	rmdir(folder);
}

static void without_a_hook_they_have_names(void **state)
{
	char folder[] = "/tmp/asyncpf-threads-XXXXXX", swap[64];
	struct vm v;

	(void)state;
	with_swap(&v, folder, swap, sizeof(swap));
	vm_memory(&v, NULL);
	/* A thread names itself, once it runs. */
	serve_and_evict(&v);
	assert_int_equal(threads_called("asyncpf"), 1);
	assert_int_equal(threads_called("asyncpf-evict"), 1);
	apf_close(v.apf);
	assert_int_equal(threads_called("asyncpf"), 0);
	assert_int_equal(threads_called("asyncpf-evict"), 0);
	rmdir(folder);
}

/* ---- nobody spins ---- */

/* What the process's other threads have had of CPUs, nanoseconds; of each: see schedstat. */
static uint64_t others_ran_ns(void)
{
	DIR *d = opendir("/proc/self/task");
	uint64_t sum = 0;

	for (struct dirent *e; (e = readdir(d));) {
		unsigned long long ns = 0;
		char path[300];
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/schedstat", e->d_name);
		f = e->d_name[0] == '.' || atoi(e->d_name) == getpid() ? NULL : fopen(path, "r");
		if (!f)
			continue;
		if (fscanf(f, "%llu", &ns) == 1)
			sum += ns;
		fclose(f);
	}
	closedir(d);
	return sum;
}

#define QUIET_LOOKS 20u
#define LOOKS_MAX 1000u
#define LOOK_US 5000u

/* Nobody has run for 20 looks; who spins, or polls more often than that, never lets it come. */
static void all_fall_asleep(void)
{
	uint64_t ran = others_ran_ns();
	unsigned quiet = 0;

	for (unsigned i = 0; i < LOOKS_MAX && quiet < QUIET_LOOKS; i++) {
		uint64_t now;

		usleep(LOOK_US);
		now = others_ran_ns();
		quiet = now == ran ? quiet + 1 : 0;
		ran = now;
	}
	assert_int_equal(quiet, QUIET_LOOKS);
}

/* More than there may be fetches, and than the driver looks at together. */
#define CROWD 300u

struct toucher {
	const unsigned char *at;
	pthread_t thread;
	sigjmp_buf refused;
};

static _Thread_local struct toucher *self;

static void on_sigbus(int sig)
{
	(void)sig;
	siglongjmp(self->refused, 1);
}

static void *touch(void *arg)
{
	self = arg;
	if (sigsetjmp(self->refused, 1) == 0)
		(void)*(const volatile unsigned char *)self->at;
	return NULL;
}

static void *read_one(void *arg)
{
	const struct vm *v = arg;
	char byte;

	assert_int_equal(apf_read(v->apf, GPA + RAM - 1, &byte, 1), -EINTR);
	return NULL;
}

struct trouble {
	const char *uri;
	enum apf_faults faults;
	unsigned touchers;
	bool swap;
};

static void crowd_begin(struct toucher *crowd, unsigned count, const unsigned char *vmm)
{
	struct sigaction sa = {.sa_handler = on_sigbus};
	pthread_attr_t small;

	assert_int_equal(sigaction(SIGBUS, &sa, NULL), 0);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	for (unsigned i = 0; i < count; i++) {
		crowd[i].at = vmm + i * PAGE_BYTES;
		assert_int_equal(pthread_create(&crowd[i].thread, &small, touch, &crowd[i]), 0);
	}
	pthread_attr_destroy(&small);
}

/* A vCPU, threads of the VMM's and a call of its wait for what does not come. */
static void asleep_while_nothing_comes(void **state)
{
	static struct toucher crowd[CROWD];
	char folder[] = "/tmp/asyncpf-threads-XXXXXX", swap[64];
	const struct trouble *t = *state;
	pthread_t reader;
	struct vm v;

	if (t->swap)
		with_swap(&v, folder, swap, sizeof(swap));
	else
		vm_open(&v);
	v.config.faults = t->faults;
	v.config.faults_max = 1;
	v.config.retries_max = 0;
	vm_start(&v, t->uri);
	VM_USER(&v, VM_LOAD_DATA);
	crowd_begin(crowd, t->touchers, adopt(&v, t->uri));
	vm_go(&v);
	assert_int_equal(pthread_create(&reader, NULL, read_one, &v), 0);
	all_fall_asleep();
	apf_stop(v.apf);
	pthread_join(reader, NULL);
	for (unsigned i = 0; i < t->touchers; i++)
		pthread_join(crowd[i].thread, NULL);
	apf_vcpu_kick(v.vcpu);
	vm_is_interrupted(&v, vm_join(&v));
	all_fall_asleep();
	apf_close(v.apf);
	if (t->swap)
		rmdir(folder);
}

struct interrupted {
	unsigned char *at;
	pid_t tid; /* atomic */
	int error;
};

/* Zeroes are read into absent memory. */
static void *read_into(void *arg)
{
	struct interrupted *i = arg;
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	__atomic_store_n(&i->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	i->error = read(zero, i->at, PAGE_BYTES) < 0 ? errno : 0;
	close(zero);
	return NULL;
}

static uint64_t ran_ns(pid_t tid)
{
	unsigned long long ns = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", tid);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu", &ns), 1);
	fclose(f);
	return ns;
}

static void take_note(void *ctx, const char *name)
{
	(void)name;
	__atomic_store_n((pid_t *)ctx, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
}

static void nothing(int sig)
{
	(void)sig;
}

#define STORM_NS (50 * 1000000ull)

/*
 * A system call that waits for absent memory, and a signal for its thread: the kernel has the touch
 * made again without end. That costs the thread a CPU, and must not cost the library's another.
 */
static void a_pending_signal_costs_one_cpu(void **state)
{
	struct sigaction sa = {.sa_handler = nothing};
	struct interrupted i = {.tid = 0};
	uint64_t ours, theirs;
	pthread_t thread;
	pid_t serving;
	struct vm v;

	(void)state;
	vm_open(&v);
	v.config.on_thread = take_note;
	v.config.on_thread_ctx = &serving;
	vm_memory(&v, NULL);
	i.at = adopt(&v, NEVER);
	assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, read_into, &i), 0);
	while (!__atomic_load_n(&i.tid, __ATOMIC_ACQUIRE))
		usleep(1000);
	all_fall_asleep();
	ours = ran_ns(serving);
	theirs = ran_ns(i.tid);
	pthread_kill(thread, SIGUSR1);
	while (ran_ns(i.tid) - theirs < STORM_NS)
		usleep(1000);
	assert_true(ran_ns(serving) - ours < (ran_ns(i.tid) - theirs) / 2);
	apf_stop(v.apf);
	pthread_join(thread, NULL);
	assert_int_equal(i.error, EFAULT);
	all_fall_asleep();
	apf_close(v.apf);
}

static void asleep_when_idle(void **state)
{
	char folder[] = "/tmp/asyncpf-threads-XXXXXX", swap[64];
	struct vm v;

	(void)state;
	with_swap(&v, folder, swap, sizeof(swap));
	v.config.resident_max = 16 * MIB;
	vm_start(&v, NULL);
	serve_and_evict(&v);
	all_fall_asleep();
	apf_pause(v.apf);
	all_fall_asleep();
	apf_resume(v.apf);
	all_fall_asleep();
	apf_close(v.apf);
	rmdir(folder);
}

int main(void)
{
	const struct trouble fails = {FAILS, APF_FAULTS_USER, 3, false};
	const struct trouble hangs = {NEVER, APF_FAULTS_USER, 3, false};
	const struct trouble block = {NEVER, APF_FAULTS_BLOCK, 3, true};
	const struct trouble stall = {FAILS, APF_FAULTS_STALL, 3, true};
	const struct trouble kernel = {FAILS, APF_FAULTS_KERNEL, 3, false};
	const struct trouble crowd = {NEVER, APF_FAULTS_USER, CROWD, false};
	const struct CMUnitTest tests[] = {
		VM_TEST(each_thread_begins_with_the_hook),
		VM_TEST(without_a_hook_they_have_names),
		VM_TEST(asleep_when_idle),
		VM_TEST(a_pending_signal_costs_one_cpu),
		VM_TEST_ARG("asleep_while_a_source_fails", asleep_while_nothing_comes, &fails),
		VM_TEST_ARG("asleep_while_a_source_hangs", asleep_while_nothing_comes, &hangs),
		VM_TEST_ARG("asleep_while_a_vcpu_waits", asleep_while_nothing_comes, &block),
		VM_TEST_ARG("asleep_while_a_vcpu_stalls", asleep_while_nothing_comes, &stall),
		VM_TEST_ARG("asleep_while_the_kernel_waits", asleep_while_nothing_comes, &kernel),
		VM_TEST_ARG("asleep_beside_a_crowd", asleep_while_nothing_comes, &crowd),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
