/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/console/said.c: last lines, panics of known kernels, and anything else that may be
 * printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/prng.h"
#include "vmm/console/said.h"

static void put(struct said *s, const char *text)
{
	for (; *text; text++)
		said_put(s, (uint8_t)*text);
}

static void last_line(void **state)
{
	struct said s = {0};

	(void)state;
	assert_string_equal(said_last(&s), "");
	put(&s, "one\r\ntwo");
	assert_string_equal(said_last(&s), "two");
	assert_string_equal(s.last, "one");
	put(&s, "\n\r\n\n");
	assert_string_equal(said_last(&s), "two");
	assert_int_equal(s.bytes, 12);
	put(&s, "\x1b[1mbold\x1b[0m\tend\n");
	assert_string_equal(said_last(&s), "[1mbold[0mend");
}

static void panics(void **state)
{
	static const char *const lines[] = {
		"[    1.2] Kernel panic - not syncing: Attempted to kill init!",
		"(XEN) Panic on CPU 0:",
		"panic: vm_fault",
		"PANIC: early exception 0x0e IP 10:ffffffff81000000",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		struct said s = {0};

		put(&s, "all is well\n");
		put(&s, lines[i]);
		assert_string_equal(s.panic, ""); /* the line may go on */
		put(&s, "\nmore\n");
		assert_string_equal(s.panic, lines[i]);
		put(&s, "Kernel panic - not syncing: another\n");
		assert_string_equal(s.panic, lines[i]);
	}
	struct said s = {0};

	put(&s, "[    0.1] Kernel command line: panic=-1 oops=panic\n");
	assert_string_equal(s.panic, "");
}

/* What does not fit is cut off, and no sooner. */
static void longest_line(void **state)
{
	char long_line[SAID_LINE_BYTES + 1];
	struct said s = {0};

	(void)state;
	memset(long_line, 'x', sizeof(long_line));
	long_line[SAID_LINE_BYTES] = '\0';
	put(&s, long_line);
	assert_int_equal(strlen(said_last(&s)), SAID_LINE_BYTES - 1);
	put(&s, "\n");
	assert_int_equal(strlen(said_last(&s)), SAID_LINE_BYTES - 1);
}

static void anything(void **state)
{
	struct said s = {0};
	struct prng rng;

	(void)state;
	prng_init(&rng, 7);
	for (unsigned i = 0; i < 200000; i++) {
		said_put(&s, (uint8_t)prng_below(&rng, 256));
		if (prng_below(&rng, 300) == 0)
			said_put(&s, '\n');
		assert_true(strlen(s.line) == s.len && s.len < SAID_LINE_BYTES);
		assert_true(strlen(s.last) < SAID_LINE_BYTES);
	}
	for (const char *p = s.last; *p; p++)
		assert_true(*p >= 0x20 && *p < 0x7f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(last_line),
		cmocka_unit_test(panics),
		cmocka_unit_test(longest_line),
		cmocka_unit_test(anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
