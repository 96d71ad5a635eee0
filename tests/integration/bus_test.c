/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apf_config.sigbus_handler: faults taken by a handler of the library's, beside one of the VMM's
 * that was there before it, or comes later.
 */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm_fixture.h"
#include "need_kvm.h"

static _Atomic int vmm_count;
static void *_Atomic vmm_address;

static void of_the_vmm(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	vmm_count++;
	vmm_address = si->si_addr;
}

static void install(void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};

	assert_int_equal(sigaction(SIGBUS, &sa, NULL), 0);
}

static bool is_of_the_vmm(void)
{
	struct sigaction now;

	assert_int_equal(sigaction(SIGBUS, NULL, &now), 0);
	return now.sa_sigaction == of_the_vmm;
}

static uint64_t faults(const struct vm *v)
{
	struct apf_stats s = {.size = sizeof(s)};

	apf_stats_get(v->apf, &s);
	return s.faults;
}

/* Waits for memory, is ended by a kick, and then has it. */
static void fault_and_kick(struct vm *v)
{
	v->config.faults = APF_FAULTS_BLOCK;
	vm_start(v, VM_NEVER);
	VM_USER(v, VM_LOAD_DATA);
	vm_go(v);
	vm_until_fault(v);
	apf_vcpu_kick(v->vcpu);
	vm_is_interrupted(v, vm_join(v));
	assert_int_equal(faults(v), 1);
}

static void a_fault_does_not_reach_the_vmm(void **state)
{
	struct vm v;

	(void)state;
	install(of_the_vmm);
	vm_open(&v);
	v.config.sigbus_handler = 1;
	vm_start(&v, VM_ZERO);
	assert_false(is_of_the_vmm());
	VM_USER(&v, VM_LOAD_DATA);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_true(faults(&v) >= 1);
	assert_int_equal(vmm_count, 0);
	apf_close(v.apf);
	assert_true(is_of_the_vmm());
}

static void a_kick_ends_a_wait(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	v.config.sigbus_handler = 1;
	fault_and_kick(&v);
}

/* Raised, or of the VMM's own memory, on any thread. */
static void other_signals_go_where_they_went(void **state)
{
	struct vm v;

	(void)state;
	install(of_the_vmm);
	vm_open(&v);
	v.config.sigbus_handler = 1;
	vm_start(&v, VM_ZERO);
	assert_int_equal(raise(SIGBUS), 0);
	assert_int_equal(vmm_count, 1);
}

/* Of a vCPU's thread that is in the guest, by another thread: the guest runs on. */
static void another_ones_signal_to_a_vcpu_thread(void **state)
{
	struct vm v;

	(void)state;
	install(of_the_vmm);
	vm_open(&v);
	v.config.sigbus_handler = 1;
	vm_start(&v, VM_NEVER);
	VM_USER(&v, VM_SPIN);
	vm_go(&v);
	vm_until_counting(&v);
	assert_int_equal(pthread_kill(v.thread, SIGBUS), 0);
	while (vmm_count == 0)
		usleep(1000);
	vm_until_counting(&v);
	apf_vcpu_kick(v.vcpu);
	vm_is_interrupted(&v, vm_join(&v));
}

/* The VMM takes the handler away, as QEMU's start does: faults are taken without it. */
static void a_later_handler_is_left_alone(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	v.config.sigbus_handler = 1;
	vm_start(&v, VM_ZERO);
	install(of_the_vmm);
	VM_USER(&v, VM_LOAD_DATA);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_true(faults(&v) >= 1);
	assert_int_equal(vmm_count, 0);
	apf_close(v.apf);
	assert_true(is_of_the_vmm());
}

static void two_vms_share_it(void **state)
{
	struct vm v[2];

	(void)state;
	install(of_the_vmm);
	for (unsigned i = 0; i < 2; i++) {
		vm_open(&v[i]);
		v[i].config.sigbus_handler = 1;
		vm_start(&v[i], VM_ZERO);
		VM_USER(&v[i], VM_LOAD_DATA);
	}
	apf_vcpu_detach(v[0].vcpu);
	apf_close(v[0].apf);
	assert_false(is_of_the_vmm());
	vm_until_exit(&v[1], KVM_EXIT_IO);
	assert_int_equal(vmm_count, 0);
	apf_close(v[1].apf);
	assert_true(is_of_the_vmm());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(a_fault_does_not_reach_the_vmm),
		VM_TEST(a_kick_ends_a_wait),
		VM_TEST(other_signals_go_where_they_went),
		VM_TEST(another_ones_signal_to_a_vcpu_thread),
		VM_TEST(a_later_handler_is_left_alone),
		VM_TEST(two_vms_share_it),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
