/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/control/control_event.c: what is said comes back, in one line, and nothing else gets in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/control/control_event.h"
#include "vmm/control/control_proto.h"

/* Every number as wide as it can be, and the longest text: it fits in a line. */
static void everything_comes_back(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CONTROL_EVENTS; i++) {
		struct control_event ev = {.kind = (enum control_event_kind)i}, back;
		char line[CONTROL_LINE_MAX];

		for (unsigned k = 0; control_event_keys[k].name; k++) {
			uint64_t v = UINT64_MAX - k;

			if (control_event_rows[i].keys >> k & 1)
				memcpy((char *)&ev + control_event_keys[k].offset, &v, sizeof(v));
		}
		memset(ev.text, 't', sizeof(ev.text) - 1);
		ev.text[5] = ' ';
		size_t len = control_event_format(&ev, line);

		assert_int_equal(line[len - 1], '\n');
		assert_int_equal(strlen(line), len);
		line[len - 1] = '\0';
		assert_int_equal(control_event_parse(line, &back), 0);
		/* Of the text, what there is room for: enough to tell something. */
		assert_true(strlen(back.text) >= 100);
		memset(ev.text + strlen(back.text), 0, sizeof(ev.text) - strlen(back.text));
		assert_memory_equal(&ev, &back, sizeof(ev));
	}
}

static void form(void **state)
{
	struct control_event ev = {.kind = CONTROL_EVENT_LIMIT, .uptime_ns = 7,
				   .resident_max_bytes = 4096, .evicted = 1};
	char line[CONTROL_LINE_MAX];

	(void)state;
	(void)control_event_format(&ev, line);
	assert_string_equal(line, "event limit uptime_ns 7 resident_max_bytes 4096\n");
	ev = (struct control_event){.kind = CONTROL_EVENT_TROUBLE, .uptime_ns = 8,
				    .text = "a\nevent ended\x1b[2J\x7f"};
	(void)control_event_format(&ev, line);
	assert_string_equal(line, "event trouble uptime_ns 8 text a?event ended?[2J?\n");
}

static void unknown_things_pass(void **state)
{
	struct control_event ev;

	(void)state;
	assert_int_equal(control_event_parse("event born uptime_ns 1", &ev), -ENOENT);
	assert_int_equal(control_event_parse("event note colour 5 uptime_ns 6 text a b", &ev), 0);
	assert_int_equal(ev.uptime_ns, 6);
	assert_string_equal(ev.text, "a b");
}

static void malformed_lines(void **state)
{
	static const char *const lines[] = {
		"", "event", "event ", "events paused", "state running", "event paused uptime_ns",
		"event paused uptime_ns x", "event paused uptime_ns -1",
		"event paused uptime_ns 18446744073709551616", "event paused text",
		"event paused text "};
	struct control_event ev = {.uptime_ns = 42}, before = ev;
	char wide[CONTROL_LINE_MAX] = "event note text ";

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		assert_int_equal(control_event_parse(lines[i], &ev), -EINVAL);
		assert_memory_equal(&ev, &before, sizeof(ev));
	}
	memset(wide + strlen(wide), 't', CONTROL_EVENT_TEXT_MAX);
	assert_int_equal(control_event_parse(wide, &ev), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_comes_back),
		cmocka_unit_test(form),
		cmocka_unit_test(unknown_things_pass),
		cmocka_unit_test(malformed_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
