/* SPDX-License-Identifier: Apache-2.0 */
/* base/zero.h: one byte that is not zero, anywhere, at every length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/zero.h"

static void each_byte_counts(void **state)
{
	unsigned char bytes[40] = {0};

	(void)state;
	for (size_t len = 0; len <= sizeof(bytes); len++) {
		assert_true(is_zero(bytes, len));
		for (size_t at = 0; at < sizeof(bytes); at++) {
			bytes[at] = 0x80;
			assert_int_equal(is_zero(bytes, len), at >= len);
			bytes[at] = 0;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(each_byte_counts)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
