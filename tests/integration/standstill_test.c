/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU that stood still says so by the guest's clock (PVCLOCK_GUEST_STOPPED), or the guest's
 * watchdogs would take it for stuck: after a pause, after its VMM has left it alone, and after the
 * whole process was stopped, in guest mode and out of it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "vm_fixture.h"
#include "need_kvm.h"

#define MSR_CLOCK 0x4b564d01u
#define CLOCK VM_DATA
/* struct pvclock_vcpu_time_info of the kernel's asm/pvclock-abi.h. */
#define CLOCK_VERSION_AT 0
#define CLOCK_FLAGS_AT 29
#define GUEST_STOPPED 2u

#define LONG_NS 1200000000 /* what is told begins at a second */

static void stand_for_long(void)
{
	struct timespec left = {LONG_NS / 1000000000, LONG_NS % 1000000000};

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

static void start(struct vm *v, const void *code, size_t len)
{
	vm_open(v);
	vm_start(v, VM_ZERO);
	vm_user(v, code, len);
	vm_set_msr(v, MSR_CLOCK, CLOCK | 1);
}

static const unsigned char spin[] = {VM_SPIN};
/* inc dword [VM_WORD]; out VM_PORT, al; again */
static const unsigned char out[] = {0xff, 0x04, 0x25, 0, 0x80, 0, 0, 0xe6, VM_PORT, 0xeb, 0xf5};

static bool was_told(struct vm *v)
{
	unsigned char clock[32];
	uint32_t version;

	assert_int_equal(apf_read(v->apf, CLOCK, clock, sizeof(clock)), 0);
	memcpy(&version, clock + CLOCK_VERSION_AT, sizeof(version));
	assert_int_not_equal(version, 0); /* the kernel has written it */
	return clock[CLOCK_FLAGS_AT] & GUEST_STOPPED;
}

/* The vCPU executes something. */
static void until_it_goes_on(struct vm *v)
{
	uint32_t was = vm_word(v);

	while (vm_word(v) == was)
		usleep(1000);
}

static void nothing_is_told_of_a_vcpu_that_runs(void **state)
{
	struct vm v;

	(void)state;
	start(&v, spin, sizeof(spin));
	for (unsigned i = 0; i < 20; i++) {
		vm_go(&v);
		until_it_goes_on(&v);
		apf_pause(v.apf);
		apf_resume(v.apf);
		until_it_goes_on(&v);
		apf_vcpu_kick(v.vcpu);
		vm_is_interrupted(&v, vm_join(&v));
	}
	assert_false(was_told(&v));
}

static void a_pause_is_told(void **state)
{
	struct vm v;

	(void)state;
	start(&v, spin, sizeof(spin));
	vm_go(&v);
	until_it_goes_on(&v);
	assert_false(was_told(&v));
	apf_pause(v.apf);
	stand_for_long();
	apf_resume(v.apf);
	until_it_goes_on(&v);
	assert_true(was_told(&v));
}

static void it_is_told_that_the_vmm_was_away(void **state)
{
	struct vm v;

	(void)state;
	start(&v, out, sizeof(out));
	vm_until_exit(&v, KVM_EXIT_IO);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_false(was_told(&v));
	stand_for_long();
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_true(was_told(&v));
}

static bool is_stopped(pid_t pid)
{
	char path[32], stat[256] = "", *end;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		exit(1);
	(void)!fread(stat, 1, sizeof(stat) - 1, f);
	fclose(f);
	end = strrchr(stat, ')');
	return end && end[2] == 'T';
}

/* Its parent's SIGSTOP and SIGCONT; SIGKILL's end of it ends this, too. */
static pid_t stopper(int *ret_go)
{
	int go[2];
	pid_t parent = getpid(), child;
	char byte;

	assert_int_equal(pipe(go), 0);
	child = fork();
	assert_true(child >= 0);
	if (child > 0) {
		close(go[0]);
		*ret_go = go[1];
		return child;
	}
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(go[0], &byte, 1) != 1 || kill(parent, SIGSTOP) < 0)
		_exit(1);
	while (!is_stopped(parent))
		usleep(1000);
	stand_for_long();
	_exit(kill(parent, SIGCONT) < 0);
}

static void a_stopped_process_is_told(void **state)
{
	struct timespec before, now;
	struct vm v;
	int go;

	(void)state;
	stopper(&go);
	start(&v, spin, sizeof(spin));
	vm_go(&v);
	until_it_goes_on(&v);
	assert_false(was_told(&v));
	clock_gettime(CLOCK_MONOTONIC, &before);
	assert_int_equal(write(go, "", 1), 1);
	do {
		usleep(1000);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - before.tv_sec) * 1000000000ll + now.tv_nsec - before.tv_nsec <
		 LONG_NS);
	until_it_goes_on(&v);
	assert_true(was_told(&v));
}

/* Without a clock of KVM's there is nobody to be told; the guest runs on all the same. */
static void a_guest_without_such_a_clock_runs(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, VM_ZERO);
	vm_user(&v, out, sizeof(out));
	vm_until_exit(&v, KVM_EXIT_IO);
	stand_for_long();
	vm_until_exit(&v, KVM_EXIT_IO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(nothing_is_told_of_a_vcpu_that_runs),
		VM_TEST(a_pause_is_told),
		VM_TEST(it_is_told_that_the_vmm_was_away),
		VM_TEST(a_stopped_process_is_told),
		VM_TEST(a_guest_without_such_a_clock_runs),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
