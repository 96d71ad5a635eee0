/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/control/control_proto.c: bytes into lines, lines into requests, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "vmm/control/control_proto.h"

static void feed(struct control_lines *l, const char *bytes, size_t len)
{
	assert_true(len <= control_lines_room(l));
	memcpy(l->buf + l->len, bytes, len);
	l->len += len;
}

static void lines_arrive_in_pieces(void **state)
{
	struct control_lines l = {0};
	char line[CONTROL_LINE_MAX];
	struct err e;

	(void)state;
	feed(&l, "sta", 3);
	assert_int_equal(control_lines_take(&l, line, &e), 0);
	feed(&l, "tus\nevict 5\n\npau", 16);
	assert_int_equal(control_lines_take(&l, line, &e), 1);
	assert_string_equal(line, "status");
	assert_int_equal(control_lines_take(&l, line, &e), 1);
	assert_string_equal(line, "evict 5");
	assert_int_equal(control_lines_take(&l, line, &e), 1);
	assert_string_equal(line, "");
	assert_int_equal(control_lines_take(&l, line, &e), 0);
	feed(&l, "se\n", 3);
	assert_int_equal(control_lines_take(&l, line, &e), 1);
	assert_string_equal(line, "pause");
	assert_int_equal(l.len, 0);
}

static void longest_line(void **state)
{
	struct control_lines l = {0};
	char line[CONTROL_LINE_MAX], bytes[CONTROL_LINE_MAX];
	struct err e;

	(void)state;
	memset(bytes, 'x', sizeof(bytes));
	bytes[CONTROL_LINE_MAX - 1] = '\n';
	feed(&l, bytes, sizeof(bytes));
	assert_int_equal(control_lines_take(&l, line, &e), 1);
	assert_int_equal(strlen(line), CONTROL_LINE_MAX - 1);

	bytes[CONTROL_LINE_MAX - 1] = 'x';
	feed(&l, bytes, sizeof(bytes) - 1);
	assert_int_equal(control_lines_take(&l, line, &e), 0);
	feed(&l, bytes, 1);
	assert_int_equal(control_lines_take(&l, line, &e), -E2BIG);
	assert_string_equal(e.text, "bad line: longer than 319 bytes");
}

static void control_bytes(void **state)
{
	static const char bad[] = {'\0', '\r', '\t', '\x1b', '\x7f'};
	char line[CONTROL_LINE_MAX];
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof(bad); i++) {
		for (int whole = 0; whole < 2; whole++) {
			struct control_lines l = {0};

			feed(&l, "stat", 4);
			feed(&l, &bad[i], 1);
			if (whole)
				feed(&l, "us\n", 3);
			assert_int_equal(control_lines_take(&l, line, &e), -EINVAL);
			assert_string_equal(e.text, "bad line: it holds a control byte");
		}
	}
	/* Beyond the line it is the next line's. */
	struct control_lines l = {0};

	feed(&l, "stop\n\0", 6);
	assert_int_equal(control_lines_take(&l, line, &e), 1);
	assert_string_equal(line, "stop");
	assert_int_equal(control_lines_take(&l, line, &e), -EINVAL);
}

static void hello(void **state)
{
	static const char *const bad[] = {
		"", "asyncpf-control", "asyncpf-control ", "asyncpf-control x",
		"asyncpf-control 1 ",
		"asyncpf-control -1", "asyncpf-control  1", "asyncpf-contro", "HTTP/1.1 200 OK",
		"asyncpf-control 18446744073709551616",
	};
	uint64_t v = 7;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(control_hello_parse(bad[i], &v), -EINVAL);
	assert_int_equal(v, 7);
	assert_int_equal(control_hello_parse("asyncpf-control 1", &v), 0);
	assert_int_equal(v, 1);
	assert_int_equal(control_hello_parse("asyncpf-control 18446744073709551615", &v), 0);
	assert_true(v == UINT64_MAX);
}

static void requests_come_back(void **state)
{
	static const struct control_request all[] = {
		{.verb = CONTROL_STATUS},
		{.verb = CONTROL_PAUSE},
		{.verb = CONTROL_RESUME},
		{.verb = CONTROL_EVICT},
		{.verb = CONTROL_EVICT, .bytes = UINT64_MAX},
		{.verb = CONTROL_STOP},
		{.verb = CONTROL_SNAPSHOT},
		{.verb = CONTROL_SNAPSHOT, .keep_running = true},
		{.verb = CONTROL_SNAPSHOT, .has_base = true, .base = {0xf0, 0x1e, [15] = 0x9a}},
		{.verb = CONTROL_SNAPSHOT, .keep_running = true, .has_base = true, .base = {1}},
		{.verb = CONTROL_SERVE, .rule = "{\"listen\": \"a b\"}"},
		{.verb = CONTROL_BALLOON, .bytes = 1},
		{.verb = CONTROL_BALLOON_SET, .bytes = UINT64_MAX},
	};
	char line[CONTROL_LINE_MAX];
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		struct control_request r;
		size_t len = control_request_format(&all[i], line);

		assert_int_equal(strlen(line), len);
		assert_int_equal(line[len - 1], '\n');
		line[len - 1] = '\0';
		assert_int_equal(control_request_parse(line, &r, &e), 0);
		assert_int_equal(r.verb, all[i].verb);
		assert_true(r.bytes == all[i].bytes);
		assert_int_equal(r.keep_running, all[i].keep_running);
		assert_int_equal(r.has_base, all[i].has_base);
		assert_memory_equal(r.base, all[i].base, sizeof(r.base));
		assert_true(!r.rule == !all[i].rule);
		if (r.rule)
			assert_string_equal(r.rule, all[i].rule);
	}
}

static void requests_refused(void **state)
{
	static const char snapshot[] = "bad request: snapshot takes running, or base ID, or both "
				       "in this order, or nothing";
	static const char unknown[] = "unknown request: this VM knows status, pause, resume, evict "
				      "BYTES, limit BYTES, balloon BYTES, balloon-set BYTES, "
				      "follow and stop";
	static const struct {
		const char *line, *text;
	} bad[] = {
		{"", unknown},
		{" status", unknown},
		{"stat", unknown},
		{"serve", "bad request: serve takes a rule"},
		{"statuss", unknown},
		{"Stop", unknown},
		{"status ", "bad request: status takes nothing"},
		{"stop now", "bad request: stop takes nothing"},
		{"snapshot now", snapshot},
		{"snapshot running ", snapshot},
		{"snapshot base ", snapshot},
		{"snapshot base 0123456789abcdef0123456789abcde", snapshot},
		{"snapshot base 0123456789abcdef0123456789abcdef0", snapshot},
		{"snapshot base 0123456789abcdef0123456789abcdeF", snapshot},
		{"snapshot base 0123456789abcdef0123456789abcdef running", snapshot},
		{"status running", "bad request: status takes nothing"},
		{"evict", "bad request: evict takes a number of bytes"},
		{"evict ", "bad request: evict takes a number of bytes"},
		{"evict  1", "bad request: evict takes a number of bytes"},
		{"evict 1 ", "bad request: evict takes a number of bytes"},
		{"balloon", "bad request: balloon takes a number of bytes"},
		{"balloon-set x", "bad request: balloon-set takes a number of bytes"},
		{"balloons 1", unknown},
		{"evict 1M", "bad request: evict takes a number of bytes"},
		{"evict -1", "bad request: evict takes a number of bytes"},
		{"evict 18446744073709551616", "bad request: evict takes a number of bytes"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct control_request r = {.verb = CONTROL_STOP, .bytes = 3};
		struct err e;

		assert_int_equal(control_request_parse(bad[i].line, &r, &e), -EINVAL);
		assert_string_equal(e.text, bad[i].text);
		assert_int_equal(r.verb, CONTROL_STOP);
		assert_int_equal(r.bytes, 3);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_arrive_in_pieces),
		cmocka_unit_test(longest_line),
		cmocka_unit_test(control_bytes),
		cmocka_unit_test(hello),
		cmocka_unit_test(requests_come_back),
		cmocka_unit_test(requests_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
