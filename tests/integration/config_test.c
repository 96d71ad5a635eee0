/* SPDX-License-Identifier: Apache-2.0 */
/* apf_config of another header's size. A real VM without vCPUs. */
#include "bare_fixture.h"

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
