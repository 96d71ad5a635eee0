/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/chip/cpuid.c: what processors say about themselves, for every number of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/chip/cpuid.h"

#define ENTRIES_MAX 24u

struct fix {
	struct kvm_cpuid2 *c;
};

static void add(struct kvm_cpuid2 *c, uint32_t function, uint32_t index, uint32_t eax,
		uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	c->entries[c->nent++] = (struct kvm_cpuid_entry2){
		.function = function, .index = index, .eax = eax, .ebx = ebx, .ecx = ecx,
		.edx = edx};
}

/* A processor with many cores, guests of its own, and leaves of both makers. */
static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	x->c = calloc(1, sizeof(*x->c) + ENTRIES_MAX * sizeof(x->c->entries[0]));
	assert_non_null(x->c);
	add(x->c, 0, 0, 0x1f, 0x68747541, 0x444d4163, 0x69746e65); /* AuthenticAMD */
	add(x->c, 1, 0, 0x806f8, 0x15400800, 1u << 5 | 1u << 21, 1u << 28 | 1);
	add(x->c, 4, 0, 0xfc004121, 0x2c0003f, 0x3f, 0); /* L1 data */
	add(x->c, 4, 1, 0xfc01c163, 0x2c0003f, 0x7ff, 0); /* L3 */
	add(x->c, 4, 2, 0, 0, 0, 0);
	add(x->c, 0xb, 0, 1, 2, 0x100, 33);
	add(x->c, 0xb, 1, 7, 128, 0x201, 33);
	add(x->c, 0x1f, 0, 1, 2, 0x100, 33);
	add(x->c, 0x40000001, 0, 0x1234, 0, 0, 0);
	add(x->c, 0x80000001, 0, 0, 0, 1u << 1 | 1u << 2 | 1u << 22, 0);
	add(x->c, 0x80000008, 0, 0x3034, 0, 0x707f, 0);
	add(x->c, 0x8000001d, 0, 0x4121, 0, 0, 0);
	add(x->c, 0x8000001d, 1, 0x1c163, 0, 0, 0);
	add(x->c, 0x8000001e, 0, 33, 0x121, 0x301, 0);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fix *x = *state;

	free(x->c);
	free(x);
	return 0;
}

static struct kvm_cpuid_entry2 *leaf(struct fix *x, uint32_t function, uint32_t index)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(x->c, function, index);

	assert_non_null(e);
	return e;
}

static void test_features(void **state)
{
	struct fix *x = *state;
	const struct cpuid_cfg cfg = {.cpus = 4, .tsc_deadline = true};

	cpuid_adapt(x->c, ENTRIES_MAX, &cfg);
	/* Four identifiers in the package, the rest of EBX as it was. */
	assert_int_equal(leaf(x, 1, 0)->ebx, 0x15040800);
	assert_int_equal(leaf(x, 1, 0)->ecx, 1u << 31 | 1u << 24 | 1u << 21);
	assert_int_equal(leaf(x, 1, 0)->edx, 1u << 28 | 1);
	assert_int_equal(leaf(x, 0x80000001, 0)->ecx, 1u << 1 | 1u << 22);
	assert_int_equal(leaf(x, 0x40000001, 0)->eax, 0x1234);
}

static void test_one_processor(void **state)
{
	struct fix *x = *state;
	const struct cpuid_cfg cfg = {.cpus = 1};

	cpuid_adapt(x->c, ENTRIES_MAX, &cfg);
	assert_int_equal(leaf(x, 1, 0)->ebx, 0x15010800);
	assert_int_equal(leaf(x, 1, 0)->ecx, 1u << 31 | 1u << 21);
	assert_int_equal(leaf(x, 1, 0)->edx, 1);
	assert_int_equal(leaf(x, 4, 1)->eax, 0x163);
	assert_int_equal(leaf(x, 0xb, 1)->eax, 0);
	assert_int_equal(leaf(x, 0xb, 1)->ebx, 1);
	assert_int_equal(leaf(x, 0x80000001, 0)->ecx, 1u << 22);
	assert_int_equal(leaf(x, 0x80000008, 0)->ecx, 0);
}

/* Identifiers are told apart by as few bits as there must be, in every leaf alike. */
static void test_every_number(void **state)
{
	struct fix *x = *state;

	for (unsigned cpus = 1; cpus <= 16; cpus++) {
		const struct cpuid_cfg cfg = {.cpus = cpus};
		unsigned bits = 0;

		while (1u << bits < cpus)
			bits++;
		cpuid_adapt(x->c, ENTRIES_MAX, &cfg);
		assert_int_equal(leaf(x, 1, 0)->ebx >> 16 & 0xff, 1u << bits);
		assert_int_equal(leaf(x, 4, 0)->eax >> 26, (1u << bits) - 1);
		assert_int_equal(leaf(x, 4, 0)->eax >> 14 & 0xfff, 0);
		assert_int_equal(leaf(x, 4, 1)->eax >> 14 & 0xfff, (1u << bits) - 1);
		assert_int_equal(leaf(x, 4, 0)->eax & 0x3fff, 0x121);
		assert_int_equal(leaf(x, 4, 2)->eax, 0);
		assert_int_equal(leaf(x, 0xb, 0)->eax, 0);
		assert_int_equal(leaf(x, 0xb, 0)->ebx, 1);
		assert_int_equal(leaf(x, 0xb, 0)->ecx, 0x100);
		assert_int_equal(leaf(x, 0xb, 1)->eax, bits);
		assert_int_equal(leaf(x, 0xb, 1)->ebx, cpus);
		assert_int_equal(leaf(x, 0xb, 1)->ecx, 0x201);
		assert_int_equal(leaf(x, 0xb, 2)->ecx, 2);
		assert_int_equal(leaf(x, 0x80000008, 0)->eax, 0x3034);
		assert_int_equal(leaf(x, 0x80000008, 0)->ecx, bits << 12 | (cpus - 1));
		assert_int_equal(leaf(x, 0x8000001d, 0)->eax, 0x121);
		assert_int_equal(leaf(x, 0x8000001d, 1)->eax, 0x163 | ((1u << bits) - 1) << 14);
		assert_null(cpuid_find(x->c, 0x1f, 0));
	}
}

static void test_identifiers(void **state)
{
	struct fix *x = *state;
	const struct cpuid_cfg cfg = {.cpus = 16};

	cpuid_adapt(x->c, ENTRIES_MAX, &cfg);
	for (uint32_t id = 16; id-- > 0;) {
		cpuid_set_id(x->c, id);
		assert_int_equal(leaf(x, 1, 0)->ebx, id << 24 | 0x100800);
		for (uint32_t i = 0; i < 3; i++)
			assert_int_equal(leaf(x, 0xb, i)->edx, id);
		assert_int_equal(leaf(x, 0x8000001e, 0)->eax, id);
		assert_int_equal(leaf(x, 0x8000001e, 0)->ebx, id);
		assert_int_equal(leaf(x, 0x8000001e, 0)->ecx, 0);
	}
}

/* Fields that only one maker has stay as they are for others. */
static void test_another_maker(void **state)
{
	struct fix *x = *state;
	const struct cpuid_cfg cfg = {.cpus = 8};

	x->c->entries[0].ebx = 0x756e6547; /* GenuineIntel */
	leaf(x, 0x80000001, 0)->ecx = 1;
	leaf(x, 0x80000008, 0)->ecx = 0;
	cpuid_adapt(x->c, ENTRIES_MAX, &cfg);
	assert_int_equal(leaf(x, 0x80000001, 0)->ecx, 1);
	assert_int_equal(leaf(x, 0x80000008, 0)->ecx, 0);
	assert_int_equal(leaf(x, 1, 0)->ebx, 0x15080800);
	assert_int_equal(leaf(x, 0xb, 1)->ebx, 8);
}

/* An old processor has no leaf 0xb, and a full table takes no more. */
static void test_limits(void **state)
{
	struct fix *x = *state;
	const struct cpuid_cfg cfg = {.cpus = 2};

	cpuid_adapt(x->c, x->c->nent - 2, &cfg);
	assert_int_equal(x->c->nent, 12);
	assert_non_null(cpuid_find(x->c, 0xb, 0));
	assert_null(cpuid_find(x->c, 0xb, 1));
	x->c->entries[0].eax = 0xa;
	x->c->nent = 1;
	cpuid_adapt(x->c, ENTRIES_MAX, &cfg);
	assert_int_equal(x->c->nent, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_features),
		T(test_one_processor),
		T(test_every_number),
		T(test_identifiers),
		T(test_another_maker),
		T(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
