/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apf_vcpu_reset() by another thread while the vCPU waits for absent memory: its thread must
 * not sleep on.
 */
#include <errno.h>

#include "vm_fixture.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(reset_in_a_wait),
		VM_TEST(reset_in_a_stall),
		VM_TEST(registers_read_0_after_a_reset),
	};

	vm_need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
