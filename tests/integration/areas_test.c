/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers that a VMM sets by KVM_SET_MSRS, as it restores a guest: areas in absent memory
 * that the kernel writes, and the page fault registers themselves.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm_fixture.h"
#include "need_kvm.h"

#define MSR_CLOCK_OLD 0x12u
#define MSR_CLOCK 0x4b564d01u
#define MSR_EN 0x4b564d02u
#define MSR_STEAL 0x4b564d03u
#define MSR_PV_EOI 0x4b564d04u
#define MSR_CTL 0x4b564d06u

#define AREA VM_DATA /* absent, behind the source */

/* out; again */
#define OUT_FOR_EVER 0xe6, VM_PORT, 0xeb, 0xfc

static void open_vm(struct vm *v)
{
	vm_open(v);
	vm_start(v, VM_ZERO);
	VM_REAL(v, OUT_FOR_EVER);
}

static void run_some(struct vm *v)
{
	for (unsigned i = 0; i < 20; i++)
		vm_until_exit(v, KVM_EXIT_IO);
}

static uint32_t word_at(struct vm *v, uint64_t gpa)
{
	uint32_t w;

	assert_int_equal(apf_read(v->apf, gpa, &w, 4), 0);
	return w;
}

/* The area's version counts KVM's updates. */
static const struct area {
	uint32_t msr, version_at;
	uint64_t gpa;
} areas[] = {
	{MSR_CLOCK, 0, AREA},	  {MSR_CLOCK, 0, AREA + 0x1000 - 32}, {MSR_CLOCK, 0, VM_RAM - 32},
	{MSR_CLOCK_OLD, 0, AREA}, {MSR_STEAL, 8, AREA + 0x40},	      {MSR_STEAL, 8, VM_RAM - 64},
};

#define AREAS (sizeof(areas) / sizeof(areas[0]))

static void an_area_set_before_the_first_run_is_written(void **state)
{
	(void)state;
	for (unsigned i = 0; i < AREAS; i++) {
		struct vm v;

		open_vm(&v);
		vm_set_msr(&v, areas[i].msr, areas[i].gpa | 1);
		run_some(&v);
		assert_int_not_equal(word_at(&v, areas[i].gpa + areas[i].version_at), 0);
		apf_close(v.apf);
	}
}

static void an_area_set_after_a_kick_is_written(void **state)
{
	(void)state;
	for (unsigned i = 0; i < AREAS; i++) {
		struct vm v;

		open_vm(&v);
		run_some(&v);
		apf_vcpu_kick(v.vcpu);
		assert_int_equal(apf_vcpu_run(v.vcpu), -EINTR);
		vm_set_msr(&v, areas[i].msr, areas[i].gpa | 1);
		run_some(&v);
		assert_int_not_equal(word_at(&v, areas[i].gpa + areas[i].version_at), 0);
		apf_close(v.apf);
	}
}

/* Both are in memory before they are set, or eviction would have nothing to take. */
static void an_area_is_not_evicted(void **state)
{
	char swap[64];
	struct vm v;

	(void)state;
	snprintf(swap, sizeof(swap), "/tmp/areas_test.%d", (int)getpid());
	vm_open(&v);
	v.config.swap = swap;
	vm_start(&v, VM_ZERO);
	VM_REAL(&v, OUT_FOR_EVER);
	assert_int_equal(apf_populate(v.apf, AREA, 0x2000), 0);
	vm_set_msr(&v, MSR_CLOCK, AREA | 1);
	vm_set_msr(&v, MSR_STEAL, (AREA + 0x1000) | 1);
	run_some(&v);
	uint32_t clock = word_at(&v, AREA), steal = word_at(&v, AREA + 0x1000 + 8);

	assert_int_equal(apf_evict(v.apf, 0, NULL, &v.error), 0);
	run_some(&v);
	assert_true(word_at(&v, AREA) >= clock && clock != 0);
	assert_true(word_at(&v, AREA + 0x1000 + 8) > steal && steal != 0);
	apf_close(v.apf);
}

/* KVM writes it when it delivers an interrupt; absent, it must not keep the guest from running. */
static void an_end_of_interrupt_area_lets_the_guest_run(void **state)
{
	struct vm v;

	(void)state;
	open_vm(&v);
	vm_set_msr(&v, MSR_PV_EOI, AREA | 1);
	run_some(&v);
	vm_set_msr(&v, MSR_PV_EOI, (VM_RAM - 4) | 1);
	run_some(&v);
}

/* Not RAM, and over a page's end: KVM may refuse it. */
static void an_area_in_a_wrong_place_lets_the_guest_run(void **state)
{
	struct {
		uint32_t count, pad;
		struct kvm_msr_entry entry;
	} m = {.count = 1, .entry = {.index = MSR_CLOCK}};
	static const uint64_t wrong[] = {VM_RAM, VM_RAM - 4, AREA + 0x1000 - 4, 1ull << 40};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct vm v;

		open_vm(&v);
		m.entry.data = wrong[i] | 1;
		(void)VM_CALL(v.vcpu_fd, KVM_SET_MSRS, &m);
		run_some(&v);
		apf_close(v.apf);
	}
}

/* A register of the guest's own, which KVM writes to once, in two pages that are absent. */
static void a_wall_clock_over_a_pages_end_is_written(void **state)
{
	uint32_t clock[3];
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, VM_ZERO);
	VM_REAL(&v, VM_WRMSR(0x00, AREA + 0x1000 - 4), OUT_FOR_EVER);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_int_equal(apf_read(v.apf, AREA + 0x1000 - 4, clock, sizeof(clock)), 0);
	assert_int_not_equal(clock[0], 0);
	assert_int_equal(clock[0] % 2, 0);
	assert_int_not_equal(clock[1], 0);
}

/* It is there, but the kernel has unmapped it, as it may at any time. */
static void an_area_in_an_unmapped_page_is_written(void **state)
{
	static const struct {
		unsigned msr, value;
	} clocks[] = {{0x00, AREA}, {0x01, AREA | 1}, {0x03, AREA | 1}, {0x04, AREA | 1}};

	(void)state;
	for (unsigned i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++) {
		struct vm v;

		vm_open(&v);
		vm_start(&v, VM_ZERO);
		assert_int_equal(apf_populate(v.apf, AREA, 0x1000), 0);
		assert_int_equal(madvise(apf_memory_hva(v.apf, AREA), 0x1000, MADV_DONTNEED), 0);
		VM_REAL(&v, VM_WRMSR(clocks[i].msr, clocks[i].value), OUT_FOR_EVER);
		run_some(&v);
		if (clocks[i].msr < 0x03)
			assert_int_not_equal(word_at(&v, AREA), 0);
		apf_close(v.apf);
	}
}

#define KVM_FEATURES 0x40000001u
#define CLOCK_FEATURES 9u /* the old registers, and the newer ones */

/* The guest has no such register, as its CPUID says. */
static void a_clock_that_kvm_refuses_is_a_gp(void **state)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = {1}};

	(void)state;
	for (unsigned enforced = 0; enforced < 2; enforced++) {
		struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));
		struct vm v;

		vm_open(&v);
		vm_start(&v, VM_ZERO);
		c->nent = 256;
		VM_CALL(v.vcpu_fd, KVM_GET_CPUID2, c);
		for (unsigned i = 0; i < c->nent; i++)
			if (c->entries[i].function == KVM_FEATURES)
				c->entries[i].eax &= ~CLOCK_FEATURES;
		VM_CALL(v.vcpu_fd, KVM_SET_CPUID2, c);
		free(c);
		if (enforced)
			VM_CALL(v.vcpu_fd, KVM_ENABLE_CAP, &cap);
		assert_int_equal(vm_wrmsr_raises(&v, 0x00, AREA), enforced);
		assert_int_equal(vm_wrmsr_raises(&v, 0x01, AREA | 1), enforced);
		assert_int_equal(vm_wrmsr_raises(&v, 0x02, AREA | 9), 0);
		apf_close(v.apf);
	}
}

/* ---- the page fault registers ---- */

static uint64_t ours(struct vm *v, uint32_t msr)
{
	uint64_t value = ~0ull;

	assert_int_equal(apf_vcpu_get_msr(v->vcpu, msr, &value), 0);
	return value;
}

static void interrupted_once(struct vm *v)
{
	apf_vcpu_kick(v->vcpu);
	assert_int_equal(apf_vcpu_run(v->vcpu), -EINTR);
}

static void the_registers_may_be_set_in_kvm(void **state)
{
	struct vm v;

	(void)state;
	open_vm(&v);
	vm_set_msr(&v, MSR_CTL, 0xf3);
	vm_set_msr(&v, MSR_EN, (AREA + 0x1000) | 9);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_int_equal(ours(&v, MSR_CTL), 0xf3);
	assert_int_equal(ours(&v, MSR_EN), (AREA + 0x1000) | 9);
	interrupted_once(&v);
	assert_int_equal(vm_get_msr(&v, MSR_CTL), 0xf3);
	assert_int_equal(vm_get_msr(&v, MSR_EN), (AREA + 0x1000) | 9);
	/* As at a reset of the machine. */
	vm_set_msr(&v, MSR_EN, 0);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_int_equal(ours(&v, MSR_EN), 0);
}

static void the_registers_may_be_read_from_kvm(void **state)
{
	struct vm v;

	(void)state;
	open_vm(&v);
	assert_int_equal(apf_vcpu_set_msr(v.vcpu, MSR_CTL, 0xf3), 0);
	assert_int_equal(apf_vcpu_set_msr(v.vcpu, MSR_EN, (AREA + 0x1000) | 9), 0);
	run_some(&v);
	interrupted_once(&v);
	assert_int_equal(vm_get_msr(&v, MSR_CTL), 0xf3);
	assert_int_equal(vm_get_msr(&v, MSR_EN), (AREA + 0x1000) | 9);
	/* What was read and set again changes nothing. */
	vm_set_msr(&v, MSR_CTL, 0xf3);
	vm_set_msr(&v, MSR_EN, (AREA + 0x1000) | 9);
	run_some(&v);
	assert_int_equal(ours(&v, MSR_EN), (AREA + 0x1000) | 9);
}

/* KVM's own has no room for the enable bit. */
static void of_pf2_the_vector_is_shown(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	v.config.abi = APF_ABI_PF2;
	vm_start(&v, VM_ZERO);
	VM_REAL(&v, OUT_FOR_EVER);
	assert_int_equal(apf_vcpu_set_msr(v.vcpu, MSR_CTL, 0x1f3), 0);
	assert_int_equal(apf_vcpu_set_msr(v.vcpu, MSR_EN, (AREA + 0x1000) | 9), 0);
	run_some(&v);
	interrupted_once(&v);
	assert_int_equal(vm_get_msr(&v, MSR_CTL), 0xf3);
	/* It says nothing of that bit when it is set again. */
	vm_set_msr(&v, MSR_CTL, 0xf3);
	run_some(&v);
	assert_int_equal(ours(&v, MSR_CTL), 0x1f3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(an_area_set_before_the_first_run_is_written),
		VM_TEST(an_area_set_after_a_kick_is_written),
		VM_TEST(an_area_is_not_evicted),
		VM_TEST(an_end_of_interrupt_area_lets_the_guest_run),
		VM_TEST(an_area_in_a_wrong_place_lets_the_guest_run),
		VM_TEST(a_wall_clock_over_a_pages_end_is_written),
		VM_TEST(an_area_in_an_unmapped_page_is_written),
		VM_TEST(a_clock_that_kvm_refuses_is_a_gp),
		VM_TEST(the_registers_may_be_set_in_kvm),
		VM_TEST(the_registers_may_be_read_from_kvm),
		VM_TEST(of_pf2_the_vector_is_shown),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
