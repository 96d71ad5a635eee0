/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/err.c: the code comes back, the text stays one line, the reason survives a name
 * of any length. base/assert.c: a false ASSERT ends the program.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "base/err.h"

static void set_returns_code_and_text(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(err_set(&e, -EINVAL, "bad %s %d", "thing", 7), -EINVAL);
	assert_int_equal(e.code, -EINVAL);
	assert_string_equal(e.text, "bad thing 7");
}

static void sys_appends_reason(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(err_sys(&e, -ENOENT, "open %s", "x"), -ENOENT);
	assert_int_equal(e.code, -ENOENT);
	assert_string_equal(e.text, "open x: No such file or directory");
}

static void null_is_allowed(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, -EIO, "x"), -EIO);
	assert_int_equal(err_sys(NULL, -EIO, "x"), -EIO);
}

static void long_text_is_cut_visibly(void **state)
{
	char name[2 * ERR_TEXT_MAX];
	struct err e;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	err_set(&e, -EIO, "%s", name);
	assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
	assert_string_equal(e.text + ERR_TEXT_MAX - 1 - 4, "n...");
}

static void cut_begins_at_the_right_length(void **state)
{
	char name[ERR_TEXT_MAX + 1];
	struct err e;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[ERR_TEXT_MAX] = '\0';
	err_set(&e, -EIO, "%s", name); /* one byte too long */
	assert_string_equal(e.text + ERR_TEXT_MAX - 1 - 4, "n...");
	name[ERR_TEXT_MAX - 1] = '\0';
	err_set(&e, -EIO, "%s", name);
	assert_string_equal(e.text, name);
}

static void reason_survives_a_long_name(void **state)
{
	static const char tail[] = "n...: Input/output error";
	char name[2 * ERR_TEXT_MAX];
	struct err e;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	err_sys(&e, -EIO, "read %s", name);
	assert_true(strlen(e.text) < ERR_TEXT_MAX);
	assert_string_equal(e.text + strlen(e.text) - strlen(tail), tail);
}

static void control_bytes_do_not_break_the_line(void **state)
{
	struct err e;

	(void)state;
	err_set(&e, -EIO, "open %s", "a\nb\033[1m\x7f\xc3\xa9");
	assert_string_equal(e.text, "open a?b?[1m?\xc3\xa9");
}

static void argument_may_be_the_old_text(void **state)
{
	struct err e;

	(void)state;
	err_set(&e, -EIO, "inner");
	assert_int_equal(err_set(&e, e.code, "outer: %s", e.text), -EIO);
	assert_string_equal(e.text, "outer: inner");
}

static sigjmp_buf aborted;

static void on_abort(int sig)
{
	(void)sig;
	siglongjmp(aborted, 1);
}

static void assert_aborts(void **state)
{
	volatile bool went_on = false;

	(void)state;
	ASSERT(1 + 1 == 2);
	signal(SIGABRT, on_abort);
	if (sigsetjmp(aborted, 1) == 0) {
		ASSERT(1 + 1 == 3);
		went_on = true;
	}
	signal(SIGABRT, SIG_DFL);
	assert_false(went_on);
}

static void positive_code_is_our_bug(void **state)
{
	volatile bool went_on = false;
	struct err e;

	(void)state;
	signal(SIGABRT, on_abort);
	if (sigsetjmp(aborted, 1) == 0) {
		err_set(&e, EIO, "x");
		went_on = true;
	}
	signal(SIGABRT, SIG_DFL);
	assert_false(went_on);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_returns_code_and_text),
		cmocka_unit_test(sys_appends_reason),
		cmocka_unit_test(null_is_allowed),
		cmocka_unit_test(long_text_is_cut_visibly),
		cmocka_unit_test(cut_begins_at_the_right_length),
		cmocka_unit_test(reason_survives_a_long_name),
		cmocka_unit_test(control_bytes_do_not_break_the_line),
		cmocka_unit_test(argument_may_be_the_old_text),
		cmocka_unit_test(assert_aborts),
		cmocka_unit_test(positive_code_is_our_bug),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
