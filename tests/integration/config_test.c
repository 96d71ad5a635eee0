/* SPDX-License-Identifier: Apache-2.0 */
/* apf_config of another header's size. A real VM without vCPUs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <asyncpf/asyncpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/types.h"

#define MIB (1ull << 20)

static struct apf_error error;

static int open_vm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm;

	assert_true(kvm >= 0);
	do
		vm = ioctl(kvm, KVM_CREATE_VM, 0);
	while (vm < 0 && errno == EINTR);
	close(kvm);
	assert_true(vm >= 0);
	assert_int_equal(ioctl(vm, KVM_CREATE_IRQCHIP, 0), 0);
	return vm;
}

static struct apf *start(int vm, const struct apf_config *c, uint64_t bytes)
{
	struct apf *a;

	if (apf_open(vm, c, &a, &error) < 0 || apf_memory_add(a, 0, bytes, &error) < 0 ||
	    apf_start(a, &error) < 0)
		fail_msg("%s", error.text);
	return a;
}

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_smaller_config_takes_defaults),
		cmocka_unit_test(a_larger_config_must_be_zero_behind),
		cmocka_unit_test(other_sizes_are_refused),
	};

	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		printf("SKIP: /dev/kvm: %m\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
