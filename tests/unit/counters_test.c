/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of asyncpf/counters.h as the library tells it: one name each, the unit that the name
 * says, and the place that struct apf_counters has for it. Without KVM.
 *
 * usage: counters_test [--markdown]    prints the table of docs/counters.md instead
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <asyncpf/asyncpf.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static const char *const units[] = {"count", "blocks", "bytes", "ns"};
static const char *const kinds[] = {"counter", "gauge", "peak"};
static const char *const scopes[] = {"VM", "VM, vCPU"};

static int ends_with(const char *name, const char *end)
{
	size_t len = strlen(name), n = strlen(end);

	return len > n && strcmp(name + len - n, end) == 0;
}

static void names_are_unique_and_say_their_unit(void **state)
{
	const struct apf_counter_row *row, *other;

	(void)state;
	for (unsigned i = 0; (row = apf_counter_info(i)); i++) {
		assert_int_equal(ends_with(row->name, "_bytes"), row->unit == APF_UNIT_BYTES);
		assert_int_equal(ends_with(row->name, "_ns"), row->unit == APF_UNIT_NS);
		for (unsigned k = 0; k < i; k++) {
			other = apf_counter_info(k);
			assert_string_not_equal(row->name, other->name);
		}
		/* One sentence, in one line. */
		assert_true(ends_with(row->help, "."));
		assert_null(strpbrk(row->help, "\n|"));
	}
}

#define CHECK_PLACE(name_, unit_, kind_, scope_, help_) \
	assert_string_equal(apf_counter_info(APF_COUNTER_ID_##name_)->name, #name_); \
	assert_int_equal(offsetof(struct apf_counters, name_), \
			 APF_COUNTER_ID_##name_ * sizeof(uint64_t));

static void rows_are_in_their_places(void **state)
{
	(void)state;
	APF_COUNTER_TABLE(CHECK_PLACE)
	assert_null(apf_counter_info(APF_COUNTER_IDS));
	assert_null(apf_counter_info(UINT32_MAX));
}

static void print_markdown(void)
{
	const struct apf_counter_row *row;

	puts("| name | unit | kind | of | |\n| --- | --- | --- | --- | --- |");
	for (unsigned i = 0; (row = apf_counter_info(i)); i++)
		printf("| `%s` | %s | %s | %s | %s |\n", row->name, units[row->unit],
		       kinds[row->kind], scopes[row->scope], row->help);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_unique_and_say_their_unit),
		cmocka_unit_test(rows_are_in_their_places),
	};

	if (argc > 1 && strcmp(argv[1], "--markdown") == 0) {
		print_markdown();
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
