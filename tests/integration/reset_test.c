/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apf_vcpu_reset() by another thread while the vCPU waits for absent memory: its thread must
 * not sleep on. Nor does anything of what the vCPU did before reach what it does then.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "vm_fixture.h"
#include "need_kvm.h"

static void reset_while(enum apf_faults faults, void (*there)(struct vm *v))
{
	uint64_t value = 1;
	struct vm v;
	int rc;

	vm_open(&v);
	v.config.faults = faults;
	vm_start(&v, "delay+zero:?size=64K&ms=400");
	VM_USER(&v, VM_LOAD_DATA);
	vm_go(&v);
	there(&v);
	apf_vcpu_reset(v.vcpu);
	rc = vm_join(&v);
	if (rc == -EINTR)
		vm_until_exit(&v, KVM_EXIT_IO);
	else
		assert_int_equal(v.run->exit_reason, KVM_EXIT_IO);
	/* Elsewhere the guest has no such register. */
	if (faults != APF_FAULTS_USER)
		return;
	assert_int_equal(apf_vcpu_get_msr(v.vcpu, 0x4b564d02, &value), 0);
	assert_int_equal(value, 0);
}

static void reset_in_a_wait(void **state)
{
	(void)state;
	reset_while(APF_FAULTS_BLOCK, vm_until_fault);
}

static void reset_in_a_stall(void **state)
{
	(void)state;
	reset_while(APF_FAULTS_STALL, vm_until_stall);
	reset_while(APF_FAULTS_USER, vm_until_stall);
}

#define NEW_LIFE (VM_CODE + 0x100)

/* KVM waits for a device's answer: the instruction must not end in the life after. */
static void half_an_instruction_is_dropped(void **state)
{
	/* out VM_PORT, al; jmp . */
	static const unsigned char next[] = {0xe6, VM_PORT, 0xeb, 0xfe};
	struct kvm_regs regs;
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, NULL);
	/* mov al, [VM_DEVICE] */
	VM_USER(&v, 0x8a, 0x04, 0x25, 0, 0, 0, 1, 0xeb, 0xfe);
	assert_int_equal(apf_write(v.apf, NEW_LIFE, next, sizeof(next)), 0);
	vm_until_exit(&v, KVM_EXIT_MMIO);
	memset(v.run->mmio.data, 0x11, sizeof(v.run->mmio.data));
	apf_vcpu_reset(v.vcpu);
	regs = vm_regs(&v);
	regs.rip = NEW_LIFE;
	regs.rax = 0x77;
	VM_CALL(v.vcpu_fd, KVM_SET_REGS, &regs);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_int_equal(((const unsigned char *)v.run)[v.run->io.data_offset], 0x77);
	assert_true(vm_regs(&v).rip - NEW_LIFE <= sizeof(next));
}

static void registers_read_0_after_a_reset(void **state)
{
	static const uint32_t msrs[] = {0x4b564d02, 0x4b564d06, 0x4b564d07};
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, NULL);
	assert_int_equal(apf_vcpu_set_msr(v.vcpu, 0x4b564d06, 0xf3), 0);
	assert_int_equal(apf_vcpu_set_msr(v.vcpu, 0x4b564d02, VM_DATA | 9), 0);
	apf_vcpu_reset(v.vcpu);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t value = 1;

		assert_int_equal(apf_vcpu_get_msr(v.vcpu, msrs[i], &value), 0);
		assert_int_equal(value, 0);
	}
}

struct runner {
	struct vm *v;
	int stop;
	unsigned wrong; /* calls after which the thread's signals were not what they had been */
};

static void *run_with_signals(void *arg)
{
	struct runner *r = arg;
	sigset_t mine, now;

	/* Not what the other thread has. */
	sigemptyset(&mine);
	sigaddset(&mine, SIGUSR2);
	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		pthread_sigmask(SIG_SETMASK, &mine, NULL);
		(void)apf_vcpu_run(r->v->vcpu);
		pthread_sigmask(SIG_SETMASK, NULL, &now);
		r->wrong += sigismember(&now, SIGUSR2) != 1 || sigismember(&now, SIGUSR1) == 1;
	}
	return NULL;
}

/* The one thread is about to run it, or has just done so, while the other resets it. */
static void beside_the_thread_that_runs_it(void **state)
{
	struct runner r = {.stop = 0};
	time_t end = time(NULL) + 3;
	unsigned wrong = 0;
	sigset_t mine, now;
	pthread_t thread;
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, NULL);
	VM_USER(&v, VM_SPIN);
	r.v = &v;
	v.run->immediate_exit = 1;
	sigemptyset(&mine);
	sigaddset(&mine, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &mine, NULL);
	assert_int_equal(pthread_create(&thread, NULL, run_with_signals, &r), 0);
	while (time(NULL) < end) {
		apf_vcpu_reset(v.vcpu);
		pthread_sigmask(SIG_SETMASK, NULL, &now);
		wrong += sigismember(&now, SIGUSR1) != 1 || sigismember(&now, SIGUSR2) == 1;
		pthread_sigmask(SIG_SETMASK, &mine, NULL);
	}
	__atomic_store_n(&r.stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_int_equal(wrong, 0);
	assert_int_equal(r.wrong, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(reset_in_a_wait),
		VM_TEST(reset_in_a_stall),
		VM_TEST(half_an_instruction_is_dropped),
		VM_TEST(registers_read_0_after_a_reset),
		VM_TEST(beside_the_thread_that_runs_it),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
