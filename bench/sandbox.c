/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a role's filter costs a system call that is made for each fault or exit: ns of CPU time of a
 * call that fails at once, without and with the filter, in pairs of processes by turns; the median
 * of the rounds, and of their differences.
 *
 * Promise: no call takes more than 150 ns longer. --check makes a broken promise the exit code.
 */
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/types.h"
#include "kvm/kvm_uapi.h"
#include "mem/uffd_abi.h"
#include "sandbox/sandbox.h"

#define CALLS 1000000u
#define ROUNDS 9
#define PROMISE_NS 150.0

static const struct hot {
	const char *name;
	enum sandbox_role role;
	int nr;
	long args[4];
} hots[] = {
	{"vCPU: ioctl KVM_RUN", SANDBOX_VCPU, SYS_ioctl, {-1, KVM_RUN}},
	{"vCPU: ioctl UFFDIO_CONTINUE", SANDBOX_VCPU, SYS_ioctl, {-1, UFFDIO_CONTINUE}},
	{"vCPU: rt_sigaction of SIGBUS", SANDBOX_VCPU, SYS_rt_sigaction, {SIGBUS, 0, 0, 8}},
	{"vCPU: rt_sigprocmask", SANDBOX_VCPU, SYS_rt_sigprocmask, {0, 0, 0, 8}},
	{"vCPU: futex", SANDBOX_VCPU, SYS_futex, {0, FUTEX_WAKE_PRIVATE, 0}},
	{"library: ioctl UFFDIO_CONTINUE", SANDBOX_LIBRARY, SYS_ioctl, {-1, UFFDIO_CONTINUE}},
	{"library: io_uring_enter", SANDBOX_LIBRARY, SYS_io_uring_enter, {-1, 0, 0, 0}},
	{"device: preadv", SANDBOX_DEVICE, SYS_preadv, {-1, 0, 0, 0}},
};

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void measure(const struct hot *h, double *ret_ns)
{
	double start = now_ns();

	for (unsigned i = 0; i < CALLS; i++)
		(void)syscall(h->nr, h->args[0], h->args[1], h->args[2], h->args[3]);
	*ret_ns = (now_ns() - start) / CALLS;
}

static void in_process(const struct hot *h, bool filtered, double *ret_ns)
{
	const struct sandbox_cfg cfg = {.exit_code = 1, .start_code = 1};
	struct sandbox *s = NULL;
	struct err e = {0};
	int missing = 0, status;
	pid_t pid = fork();

	if (pid == 0) {
		if (filtered && (sandbox_open(&cfg, &s, &missing, &e) < 0 || missing < 0))
			_exit(77);
		sandbox_thread(s, h->role);
		measure(h, ret_ns);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
		fprintf(stderr, "bench-sandbox: no filters here\n");
		exit(77);
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v)
{
	qsort(v, ROUNDS, sizeof(*v), by_value);
	return v[ROUNDS / 2];
}

int main(int argc, char **argv)
{
	bool check = argc > 1 && strcmp(argv[1], "--check") == 0, kept = true;
	double *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (shared == MAP_FAILED)
		return 1;
	printf("%-32s %10s %10s %10s\n", "ns", "without", "with", "more");
	for (size_t i = 0; i < ARRAY_LEN(hots); i++) {
		double without[ROUNDS], with[ROUNDS], more[ROUNDS], cost;

		for (unsigned r = 0; r < ROUNDS; r++) {
			in_process(&hots[i], false, shared);
			without[r] = *shared;
			in_process(&hots[i], true, shared);
			with[r] = *shared;
			more[r] = with[r] - without[r];
		}
		cost = median(more);
		printf("%-32s %10.0f %10.0f %10.0f\n", hots[i].name, median(without), median(with),
		       cost);
		kept &= cost <= PROMISE_NS;
	}
	if (!kept)
		printf("broken: a filter costs a call more than %.0f ns\n", PROMISE_NS);
	return check && !kept;
}
