/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VMM's own MSR filter and user-space MSR exits beside the library's: both see theirs,
 * and what the VMM did not ask for ends in a #GP, as without the library.
 */
#include <errno.h>
#include <string.h>

#include "vm_fixture.h"
#include "need_kvm.h"

#define CTL 0x4b564d06u
#define FILTERED 0x174u /* IA32_SYSENTER_CS: 16 bits that KVM itself stores */
#define NOBODYS 0x12345u
#define VALUE 0x34u
#define GP_PORT 0x11
#define GP_HANDLER 0x1800u

/* ecx = msr; edx:eax = VALUE; wrmsr; out VM_PORT, al. A #GP writes to GP_PORT instead. */
static void write_msr(struct vm *v, uint32_t msr)
{
	const unsigned char handler[] = {0xe6, GP_PORT};
	const uint16_t vector[] = {GP_HANDLER, 0};

	assert_int_equal(apf_write(v->apf, GP_HANDLER, handler, sizeof(handler)), 0);
	assert_int_equal(apf_write(v->apf, 13 * sizeof(vector), vector, sizeof(vector)), 0);
	VM_REAL(v, 0x66, 0xb9, msr & 0xff, msr >> 8 & 0xff, msr >> 16 & 0xff,
		(unsigned char)(msr >> 24), 0x66, 0x31, 0xd2, 0x66, 0xb8, VALUE, 0, 0, 0, 0x0f,
		0x30, 0xe6, VM_PORT);
}

static void is_out(struct vm *v, unsigned port)
{
	vm_until_exit(v, KVM_EXIT_IO);
	assert_int_equal(v->run->io.port, port);
}

/* Writes of FILTERED are refused to the guest. */
static int filter_one(struct vm *v)
{
	unsigned char none_allowed = 0;
	struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_ALLOW};

	filter.ranges[0] = (struct kvm_msr_filter_range){
		.flags = KVM_MSR_FILTER_WRITE, .base = FILTERED, .nmsrs = 1,
		.bitmap = &none_allowed};
	return apf_msr_filter(v->apf, &filter, &v->error);
}

static void open_with(struct vm *v, uint32_t exits)
{
	vm_open(v);
	vm_start(v, NULL);
	assert_int_equal(filter_one(v), 0);
	assert_int_equal(apf_msr_exits(v->apf, exits, &v->error), 0);
}

static void is_the_vmms(uint32_t msr, uint32_t reason)
{
	struct vm v;

	open_with(&v, reason);
	write_msr(&v, msr);
	vm_until_exit(&v, KVM_EXIT_X86_WRMSR);
	assert_int_equal(v.run->msr.index, msr);
	assert_int_equal(v.run->msr.data, VALUE);
	assert_int_equal(v.run->msr.reason, reason);
	v.run->msr.error = 0;
	is_out(&v, VM_PORT);
	/* The answer may be a #GP as well. */
	write_msr(&v, msr);
	vm_until_exit(&v, KVM_EXIT_X86_WRMSR);
	v.run->msr.error = 1;
	is_out(&v, GP_PORT);
}

static void what_the_vmm_asked_for_it_gets(void **state)
{
	(void)state;
	is_the_vmms(FILTERED, KVM_MSR_EXIT_REASON_FILTER);
	is_the_vmms(NOBODYS, KVM_MSR_EXIT_REASON_UNKNOWN);
}

static void what_it_did_not_ask_for_is_a_gp(void **state)
{
	static const struct {
		uint32_t exits, msr;
	} cases[] = {
		{0, FILTERED},
		{KVM_MSR_EXIT_REASON_UNKNOWN, FILTERED},
		{0, NOBODYS},
		{KVM_MSR_EXIT_REASON_FILTER, NOBODYS},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vm v;

		open_with(&v, cases[i].exits);
		write_msr(&v, cases[i].msr);
		is_out(&v, GP_PORT);
	}
}

static void the_librarys_registers_stay_its_own(void **state)
{
	static const uint32_t exits[] = {0, KVM_MSR_EXIT_REASON_FILTER,
					 KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL};

	(void)state;
	for (unsigned i = 0; i < sizeof(exits) / sizeof(exits[0]); i++) {
		uint64_t value = 0;
		struct vm v;

		open_with(&v, exits[i]);
		write_msr(&v, CTL);
		is_out(&v, VM_PORT);
		assert_int_equal(apf_vcpu_get_msr(v.vcpu, CTL, &value), 0);
		assert_int_equal(value, VALUE);
	}
}

static void a_filter_can_be_taken_back(void **state)
{
	struct vm v;

	(void)state;
	open_with(&v, KVM_MSR_EXIT_REASON_FILTER);
	assert_int_equal(apf_msr_filter(v.apf, NULL, &v.error), 0);
	write_msr(&v, FILTERED);
	is_out(&v, VM_PORT);
	assert_int_equal(vm_get_msr(&v, FILTERED), VALUE);
	write_msr(&v, CTL);
	is_out(&v, VM_PORT);
}

static void too_many_ranges_are_refused(void **state)
{
	struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_ALLOW};
	unsigned char none_allowed = 0;
	struct vm v;

	(void)state;
	open_with(&v, 0);
	for (unsigned i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++)
		filter.ranges[i] = (struct kvm_msr_filter_range){
			.flags = KVM_MSR_FILTER_WRITE, .base = FILTERED + i, .nmsrs = 1,
			.bitmap = &none_allowed};
	assert_int_equal(apf_msr_filter(v.apf, &filter, &v.error), -E2BIG);
	assert_non_null(strstr(v.error.text, "11 ranges"));
	filter.ranges[11].nmsrs = filter.ranges[12].nmsrs = filter.ranges[13].nmsrs = 0;
	filter.ranges[14].nmsrs = filter.ranges[15].nmsrs = 0;
	assert_int_equal(apf_msr_filter(v.apf, &filter, &v.error), 0);
}

/* The kernel's own events need none of ours. */
static void with_the_kernels_events_they_are_the_vmms(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	v.config.faults = APF_FAULTS_KERNEL;
	vm_start(&v, NULL);
	assert_int_equal(apf_msr_filter(v.apf, NULL, &v.error), -EINVAL);
	assert_int_equal(apf_msr_exits(v.apf, 0, &v.error), -EINVAL);
	assert_non_null(strstr(v.error.text, "the VMM's alone"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(what_the_vmm_asked_for_it_gets),
		VM_TEST(what_it_did_not_ask_for_is_a_gp),
		VM_TEST(the_librarys_registers_stay_its_own),
		VM_TEST(a_filter_can_be_taken_back),
		VM_TEST(too_many_ranges_are_refused),
		VM_TEST(with_the_kernels_events_they_are_the_vmms),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
