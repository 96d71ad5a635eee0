/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page of guest memory that the host has lost to a memory error, as the kernel is told by
 * MADV_HWPOISON: to the VMM it is what it would be with ioctl(KVM_RUN), whichever way faults are
 * served, and never an absent page. Everything else goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "lose_page.h"
#include "need_kvm.h"
#include "vm_fixture.h"

#define PAGE 4096u

static const enum apf_faults ways[] = {APF_FAULTS_BLOCK, APF_FAULTS_STALL, APF_FAULTS_KERNEL,
				       APF_FAULTS_USER};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

/* al = [VM_DATA]; out; al = [VM_DATA + 0x1000]; out */
#define LOAD_TWO_PAGES                                                                             \
	0x8a, 0x04, 0x25, 0, 0, 2, 0, 0xe6, VM_PORT, 0x8a, 0x04, 0x25, 0, 0x10, 2, 0, 0xe6, VM_PORT
#define SECOND_LOAD (VM_CODE + 9)

/* Whoever takes the signal from where it pends has it blocked. */
static void block_sigbus(void)
{
	sigset_t bus;

	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &bus, NULL), 0);
}

static void lose_data(struct vm *v)
{
	assert_int_equal(lose_page(apf_memory_hva(v->apf, VM_DATA)), 0);
}

/* A vCPU before a load of VM_DATA, which is there. */
static void before_a_load(struct vm *v, enum apf_faults faults)
{
	block_sigbus();
	vm_open(v);
	v->config.faults = faults;
	vm_start(v, VM_ZERO);
	assert_int_equal(apf_populate(v->apf, VM_DATA, 2 * PAGE), 0);
	VM_USER(v, LOAD_TWO_PAGES);
}

/* The call is back, with the error and nothing else. */
static void is_told(struct vm *v, uint64_t gpa, int code)
{
	static const struct timespec at_once = {0, 0};
	siginfo_t si;
	sigset_t bus;

	vm_is_interrupted(v, apf_vcpu_run(v->vcpu));
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	assert_int_equal(sigtimedwait(&bus, &si, &at_once), SIGBUS);
	assert_int_equal(si.si_code, code);
	assert_ptr_equal((void *)((uintptr_t)si.si_addr & ~(uintptr_t)(PAGE - 1)),
			 apf_memory_hva(v->apf, gpa));
	assert_int_equal(sigtimedwait(&bus, &si, &at_once), -1);
	assert_int_equal(apf_is_paused(v->apf), 0);
	assert_int_equal(vm_mp_state(v), KVM_MP_STATE_RUNNABLE);
}

static void set_rip(struct vm *v, uint64_t rip)
{
	struct kvm_regs r = vm_regs(v);

	r.rip = rip;
	VM_CALL(v->vcpu_fd, KVM_SET_REGS, &r);
}

static void a_touch_is_told_each_time(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WAYS; i++) {
		struct vm v;

		before_a_load(&v, ways[i]);
		lose_data(&v);
		for (unsigned n = 0; n < 3; n++) {
			is_told(&v, VM_DATA, BUS_MCEERR_AR);
			assert_int_equal(vm_regs(&v).rip, VM_CODE);
		}
		set_rip(&v, SECOND_LOAD);
		vm_until_exit(&v, KVM_EXIT_IO);
	}
}

/* The guest has used the page: KVM has it mapped until the kernel takes it away. */
static void a_page_in_use_is_told(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WAYS; i++) {
		struct vm v;

		before_a_load(&v, ways[i]);
		vm_until_exit(&v, KVM_EXIT_IO);
		lose_data(&v);
		vm_until_exit(&v, KVM_EXIT_IO); /* the other page */
		set_rip(&v, VM_CODE);
		is_told(&v, VM_DATA, BUS_MCEERR_AR);
		set_rip(&v, SECOND_LOAD);
		vm_until_exit(&v, KVM_EXIT_IO);
	}
}

/* ---- one that nobody has touched: the kernel tells who asks for it, early ---- */

/* As the kernel does when the memory itself reports an error. False: it cannot be asked to. */
static bool report(struct vm *v, uint64_t gpa)
{
	uintptr_t at = (uintptr_t)apf_memory_hva(v->apf, gpa);
	int map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int fd = open("/sys/devices/system/memory/hard_offline_page", O_WRONLY | O_CLOEXEC);
	uint64_t entry;
	char text[32];
	bool done;

	assert_int_equal(pread(map, &entry, 8, (off_t)(at / PAGE * 8)), 8);
	assert_true(entry >> 63); /* the guest has used it: it is in this mapping */
	snprintf(text, sizeof(text), "%#llx", (unsigned long long)(entry << 9 >> 9) * PAGE);
	done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(map);
	close(fd);
	return done;
}

static void *told_early(void *arg)
{
	struct vm *v = arg;

	block_sigbus();
	assert_int_equal(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0), 0);
	is_told(v, VM_DATA, BUS_MCEERR_AO);
	return NULL;
}

static void an_error_that_nobody_met_is_told_early(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WAYS; i++) {
		pthread_t thread;
		struct vm v;

		before_a_load(&v, ways[i]);
		/* al = [VM_DATA]; out; and on for ever */
		VM_USER(&v, 0x8a, 0x04, 0x25, 0, 0, 2, 0, 0xe6, VM_PORT, VM_SPIN);
		vm_until_exit(&v, KVM_EXIT_IO);
		assert_int_equal(pthread_create(&thread, NULL, told_early, &v), 0);
		vm_until_counting(&v);
		if (!report(&v, VM_DATA)) {
			print_message("SKIP: hard_offline_page: %s\n", strerror(errno));
			return;
		}
		pthread_join(thread, NULL);
		vm_go(&v);
		vm_until_counting(&v);
		apf_vcpu_kick(v.vcpu);
		vm_is_interrupted(&v, vm_join(&v));
		set_rip(&v, VM_CODE);
		is_told(&v, VM_DATA, BUS_MCEERR_AR);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(a_touch_is_told_each_time),
		VM_TEST(a_page_in_use_is_told),
		VM_TEST(an_error_that_nobody_met_is_told_early),
	};

	need_kvm();
	lose_page_needed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
