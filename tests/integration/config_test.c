/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structs of another header's size, and what is no VM, no vCPU or not started yet. A real VM
 * without vCPUs.
 */
#include "bare_fixture.h"
#include "need_kvm.h"

#include <stdio.h>
#include <string.h>

static void a_smaller_config_takes_defaults(void **state)
{
	struct apf_config c;
	int vm = open_vm();
	struct apf *a;

	(void)state;
	apf_config_init(&c);
	/* Rubbish behind a struct that ends there. */
	memset((char *)&c + offsetof(struct apf_config, retries_max), 0xee,
	       sizeof(c) - offsetof(struct apf_config, retries_max));
	c.size = offsetof(struct apf_config, retries_max);
	a = start(vm, &c, 2 * MIB);
	assert_int_equal(apf_populate(a, 0, MIB), 0);
	apf_close(a);
	close(vm);
}

static void a_larger_config_must_be_zero_behind(void **state)
{
	struct {
		struct apf_config c;
		uint64_t more[2];
	} big;
	int vm = open_vm();
	struct apf *a;

	(void)state;
	apf_config_init_sized(&big.c, sizeof(big));
	assert_int_equal(big.c.size, sizeof(big));
	assert_int_equal(big.more[0] | big.more[1], 0);
	a = start(vm, &big.c, 2 * MIB);
	apf_close(a);
	big.more[1] = 1;
	assert_int_equal(apf_open(vm, &big.c, &a, &error), -EINVAL);
	assert_non_null(strstr(error.text, "needs a newer one"));
	close(vm);
}

static void other_sizes_are_refused(void **state)
{
	static const size_t sizes[] = {0, 8, 15, 33, sizeof(struct apf_config) - 1, 1 << 20,
				       SIZE_MAX};
	struct apf_config c;
	struct apf *a;

	(void)state;
	apf_config_init(&c);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		c.size = sizes[i];
		assert_int_equal(apf_open(-1, &c, &a, &error), -EINVAL);
		assert_non_null(strstr(error.text, "which no version had"));
	}
}

/* A VMM that was built with a newer header, or whose struct was never filled in. */
static void the_other_structs_as_well(void **state)
{
	struct {
		struct apf_memory m;
		uint64_t more[2];
	} big = {.m = {.size = sizeof(big), .bytes = 2 * MIB, .fd = -1}};
	struct {
		struct apf_wait w;
		uint64_t more[2];
	} wait = {.w = {.size = sizeof(wait), .timeout_ns = -1}};
	uint64_t word = 1;
	const struct apf_range range = {.gpa = 0, .buf = &word, .len = sizeof(word)};
	struct apf_config c;
	int vm = open_vm();
	struct apf *a;

	(void)state;
	apf_config_init(&c);
	assert_int_equal(apf_open(vm, &c, &a, &error), 0);
	big.more[1] = 1;
	assert_int_equal(apf_memory_adopt(a, &big.m, &error), -EINVAL);
	assert_non_null(strstr(error.text, "needs a newer one"));
	big.more[1] = 0;
	assert_int_equal(apf_memory_adopt(a, &big.m, &error), 0);
	assert_non_null(big.m.guest);
	assert_int_equal(big.m.size, sizeof(big));
	assert_int_equal(big.more[0] | big.more[1], 0);
	big.m.size = sizeof(big.m) - 8;
	assert_int_equal(apf_memory_adopt(a, &big.m, &error), -EINVAL);
	assert_non_null(strstr(error.text, "apf_memory: size is"));
	assert_non_null(strstr(error.text, "use apf_memory_init"));
	assert_int_equal(apf_start(a, &error), 0);
	assert_int_equal(apf_readv(a, &range, 1, &wait.w), sizeof(word));
	assert_int_equal(word, 0);
	wait.more[0] = 1;
	assert_int_equal(apf_readv(a, &range, 1, &wait.w), -EINVAL);
	wait.w.size = sizeof(wait.w) - 8;
	assert_int_equal(apf_writev(a, &range, 1, &wait.w), -EINVAL);
	apf_close(a);
	close(vm);
}

/* Said at once, and of what was given. */
static void wrong_descriptors_are_named(void **state)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = open_vm();
	const int none[] = {-1, kvm, STDIN_FILENO};
	struct apf_config c;
	struct apf_vcpu *v;
	char text[32];
	struct apf *a;

	(void)state;
	apf_config_init(&c);
	for (unsigned faults = APF_FAULTS_BLOCK; faults <= APF_FAULTS_USER; faults++) {
		c.faults = (enum apf_faults)faults;
		for (size_t i = 0; i < ARRAY_LEN(none); i++) {
			assert_int_equal(apf_open(none[i], &c, &a, &error), -EINVAL);
			snprintf(text, sizeof(text), "descriptor %d is no VM", none[i]);
			assert_non_null(strstr(error.text, text));
		}
	}
	assert_int_equal(apf_open(vm, &c, &a, &error), 0);
	assert_int_equal(apf_vcpu_attach(a, 0, -1, NULL, 0, &v, &error), -EINVAL);
	assert_int_equal(apf_vcpu_attach(a, 0, kvm, NULL, 0, &v, &error), -EINVAL);
	assert_non_null(strstr(error.text, "no kvm_run"));
	c.swap = "/tmp/asyncpf-config-never";
	apf_close(a);
	assert_int_equal(apf_open(vm, &c, &a, &error), 0);
	assert_int_equal(apf_evict(a, 0, NULL, &error), -EINVAL);
	assert_non_null(strstr(error.text, "apf_start comes first"));
	apf_close(a);
	close(vm);
	close(kvm);
}

/* More than there are addresses, or blocks that have a number. */
static void too_much_memory_is_refused(void **state)
{
	static const uint64_t most[] = {32ull << 40, 1ull << 48, UINT64_MAX};
	struct apf_config c;
	int vm = open_vm();
	struct apf *a;

	(void)state;
	apf_config_init(&c);
	for (size_t i = 0; i < ARRAY_LEN(most); i++) {
		c.memory_max = most[i];
		assert_int_equal(apf_open(vm, &c, &a, &error), -EINVAL);
		assert_non_null(strstr(error.text, "memory_max is "));
	}
	close(vm);
}

static void nowhere_is_no_buffer(void **state)
{
	const struct apf_range range = {.gpa = 0, .buf = NULL, .len = 8};
	struct apf_config c;
	int vm = open_vm();
	struct apf *a;

	(void)state;
	apf_config_init(&c);
	a = start(vm, &c, 2 * MIB);
	assert_int_equal(apf_read(a, 0, NULL, 8), -EFAULT);
	assert_int_equal(apf_write(a, 0, NULL, 8), -EFAULT);
	assert_int_equal(apf_readv(a, &range, 1, NULL), -EFAULT);
	assert_int_equal(apf_writev(a, &range, 1, NULL), -EFAULT);
	assert_int_equal(apf_read(a, 0, NULL, 0), 0);
	assert_int_equal(apf_source_add(a, 0, MIB, NULL, 0, NULL, &error), -EINVAL);
	assert_non_null(strstr(error.text, "it is empty"));
	apf_close(a);
	close(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_smaller_config_takes_defaults),
		cmocka_unit_test(a_larger_config_must_be_zero_behind),
		cmocka_unit_test(other_sizes_are_refused),
		cmocka_unit_test(the_other_structs_as_well),
		cmocka_unit_test(wrong_descriptors_are_named),
		cmocka_unit_test(too_much_memory_is_refused),
		cmocka_unit_test(nowhere_is_no_buffer),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
