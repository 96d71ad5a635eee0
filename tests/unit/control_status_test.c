/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/control/control_status.c: what is said comes back, nothing is forgotten, nothing else gets
 * in.
 *
 * usage: control_status_test [--markdown]    prints the tables of docs/control.md instead
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control/control_event.h"
#include "vmm/control/control_proto.h"
#include "vmm/control/control_status.h"

#define NUMBERS_FIRST offsetof(struct control_status, protocol)
#define NUMBERS_END offsetof(struct control_status, vcpu_count)

/* Every member its own value, as wide as it can be. */
static void fill(struct control_status *s)
{
	uint64_t v = UINT64_MAX;

	memset(s, 0, sizeof(*s));
	memset(s->state, 's', sizeof(s->state) - 1);
	memset(s->why, 'w', sizeof(s->why) - 1);
	memset(s->faults, 'f', sizeof(s->faults) - 1);
	memset(s->abi, 'a', sizeof(s->abi) - 1);
	memset(s->io, 'i', sizeof(s->io) - 1);
	memset(s->note, 'n', sizeof(s->note) - 1);
	memset(s->name, 'N', sizeof(s->name) - 1);
	memset(s->version, 'v', sizeof(s->version) - 1);
	s->why[10] = ' ';
	for (size_t at = NUMBERS_FIRST; at < NUMBERS_END; at += sizeof(v), v--)
		memcpy((char *)s + at, &v, sizeof(v));
	s->has_shared = 1;
	s->vcpu_count = CONTROL_VCPUS_MAX;
	for (unsigned i = 0; i < CONTROL_VCPUS_MAX; i++)
		s->vcpus[i] = (struct control_vcpu){v - i,     v - 2 * i, v - 3 * i,
						    v - 4 * i, v - 5 * i, v - 6 * i};
	s->device_count = CONTROL_DEVICES_MAX;
	for (unsigned i = 0; i < CONTROL_DEVICES_MAX; i++)
		s->devices[i] = (struct device_stats){"a-name-of-15-by", v - i, v - 2 * i,
						      v - 3 * i, v - 4 * i, v - 5 * i,
						      v - 6 * i};
	s->served_count = CONTROL_SERVED_MAX;
	for (unsigned i = 0; i < CONTROL_SERVED_MAX; i++)
		s->served[i] = (struct control_served){"a-name-of-thirty-one-characters",
						       v - i,     v - 2 * i, v - 3 * i,
						       v - 4 * i, v - 5 * i, v - 6 * i};
	s->source_count = CONTROL_SOURCES_MAX;
	for (unsigned i = 0; i < CONTROL_SOURCES_MAX; i++)
		s->sources[i] = (struct control_source){"a-name-of-thirty-one-characters",
							v - i,     v - 2 * i, v - 3 * i, v - 4 * i,
							v - 5 * i, v - 6 * i, v - 7 * i, 1,
							v - 8 * i};
}

/* Feeds the text line by line, as a client does. */
static void parse_all(const char *text, size_t len, struct control_status *s)
{
	memset(s, 0, sizeof(*s));
	while (len) {
		const char *end = memchr(text, '\n', len);
		char line[CONTROL_LINE_MAX];

		assert_non_null(end);
		assert_true((size_t)(end - text) < sizeof(line));
		memcpy(line, text, (size_t)(end - text));
		line[end - text] = '\0';
		assert_int_equal(control_status_parse(line, s), 0);
		len -= (size_t)(end - text) + 1;
		text = end + 1;
	}
}

/* Also: the largest status fits, and no member is without a key. */
static void everything_comes_back(void **state)
{
	static char text[CONTROL_ANSWER_MAX];
	struct control_status s, back;

	(void)state;
	fill(&s);
	parse_all(text, control_status_format(&s, text), &back);
	assert_memory_equal(&s, &back, sizeof(s));
}

static void nothing_comes_back(void **state)
{
	static char text[CONTROL_ANSWER_MAX];
	struct control_status s = {0}, back;

	(void)state;
	parse_all(text, control_status_format(&s, text), &back);
	assert_memory_equal(&s, &back, sizeof(s));
}

static void text_stays_one_line(void **state)
{
	static char text[CONTROL_ANSWER_MAX];
	struct control_status s = {.why = "a\nok\x1b\x7f\xc3\xa4"}, back;

	(void)state;
	parse_all(text, control_status_format(&s, text), &back);
	assert_string_equal(back.why, "a?ok??\xc3\xa4");
	s = (struct control_status){.source_count = 1, .served_count = 1};
	snprintf(s.sources[0].name, sizeof(s.sources[0].name), "a\nok b");
	snprintf(s.served[0].name, sizeof(s.served[0].name), "\x1b[2J.1");
	parse_all(text, control_status_format(&s, text), &back);
	assert_string_equal(back.sources[0].name, "a_ok_b");
	assert_string_equal(back.served[0].name, "_[2J.1");
}

static void form(void **state)
{
	static char text[CONTROL_ANSWER_MAX];
	struct control_status s = {
		.state = "paused", .why = "no room", .uptime_ns = 5, .vcpu_count = 2,
		.vcpus = {{1, 2, 3, 4, 9, 10}, {5, 6, 7, 8, 11, 12}}, .device_count = 2,
		.devices = {{"net0", 1, 2, 3, 4, 5, 6}, {"rng", 6, 7, 0, 8, 9, 0}},
		.served_count = 1, .served = {{"fc.sock.9", 1, 2, 3, 4, 5, 6}},
		.source_count = 2, .sources = {{"fc.sock.3", 1, 2, 3, 4, 5, 6, 7, 1, 8},
					       {"fc.sock.1", 1, 2, 3, 4, 5, 6, 7, 0, 8}}};
	size_t len = control_status_format(&s, text);

	(void)state;
	assert_true(len < sizeof(text));
	text[len] = '\0';
	static const char start[] = "state paused\nwhy no room\nprotocol 0\npid 0\nuptime_ns 5\n";

	assert_memory_equal(text, start, sizeof(start) - 1);
	assert_non_null(strstr(text, "\nsource_read_max_ns 0\n"
			       "vcpu 0 missing_events 1 ready_events 2 wake_alls 3 stalls 4 "
			       "cpu_ns 9 exits 10\n"
			       "vcpu 1 missing_events 5 ready_events 6 wake_alls 7 stalls 8 "
			       "cpu_ns 11 exits 12\n"
			       "device net0 requests 1 read_bytes 2 written_bytes 3 "
			       "throttled_ns 4 cpu_ns 5 dropped 6\n"
			       "device rng requests 6 read_bytes 7 written_bytes 0 "
			       "throttled_ns 8 cpu_ns 9 dropped 0\n"
			       "served fc.sock.9 pid 1 memory_bytes 2 placed_bytes 3 "
			       "removed_bytes 4 faults_total 5 read_errors 6\n"
			       "source fc.sock.3 vms 1 reads 2 read_bytes 3 read_errors 4 "
			       "read_retries 5 read_ns 6 read_max_ns 7 shared_bytes 8\n"
			       "source fc.sock.1 vms 1 reads 2 read_bytes 3 read_errors 4 "
			       "read_retries 5 read_ns 6 read_max_ns 7\n"));
	/* It is not known. */
	assert_null(strstr(text, "\nshared_bytes"));
}

/* A newer server may say more than we know. */
static void unknown_keys_pass(void **state)
{
	static const char *const lines[] = {"colour blue", "x 1 2 3", "vcpu_count 3", "ok 1",
					    "vcpu 1 shape round stalls 4",
					    "device x shape round cpu_ns 5"};
	struct control_status s = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		assert_int_equal(control_status_parse(lines[i], &s), 0);
	assert_int_equal(s.vcpu_count, 2);
	assert_int_equal(s.vcpus[1].stalls, 4);
	assert_int_equal(s.device_count, 1);
	assert_string_equal(s.devices[0].name, "x");
	assert_int_equal(s.devices[0].cpu_ns, 5);
	/* What a line began with that was none is nobody's. */
	assert_int_equal(control_status_parse("device y requests 7 cpu_ns x", &s), -EINVAL);
	assert_int_equal(control_status_parse("device z cpu_ns 6", &s), 0);
	assert_int_equal(s.device_count, 2);
	assert_string_equal(s.devices[1].name, "z");
	assert_int_equal(s.devices[1].cpu_ns, 6);
	assert_int_equal(s.devices[1].requests, 0);
}

static void malformed_lines(void **state)
{
	static const char *const lines[] = {
		"", " ", "state", "state ", " 1", "uptime_ns", "uptime_ns x", "uptime_ns -1",
		"uptime_ns 1 ", "uptime_ns 18446744073709551616", "state 0123456789abcdef", "vcpu",
		"vcpu ", "vcpu x stalls 1", "vcpu 64 stalls 1", "vcpu 0 stalls", "vcpu 0 stalls x",
		"vcpu 0 stalls 1 ready_events",
	};
	struct control_status s, before;

	(void)state;
	fill(&s);
	before = s;
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		assert_int_equal(control_status_parse(lines[i], &s), -EINVAL);
		assert_memory_equal(&s, &before, sizeof(s));
	}
	char longest[CONTROL_LINE_MAX + 1];

	memset(longest, 'x', CONTROL_LINE_MAX);
	longest[1] = ' ';
	longest[CONTROL_LINE_MAX] = '\0';
	assert_int_equal(control_status_parse(longest, &s), -EINVAL);
}

/* ---- the tables of docs/control.md ---- */

static void print_key(const struct control_key *k)
{
	static const char *const units[] = {"number", "blocks", "bytes", "ns"};
	static const char *const kinds[] = {"counter", "gauge", "peak"};
	const struct control_key *about = control_key_about(k);

	printf("| `%s` | %s | %s | %s |\n", k->name, k->text_max ? "text" : units[about->unit],
	       k->text_max ? "" : kinds[about->kind], about->help);
}

static void print_keys(const char *of, const struct control_key *k)
{
	printf("| %s | value | kind | |\n| --- | --- | --- | --- |\n", of);
	for (; k->name; k++)
		print_key(k);
	puts("");
}

static void print_events(void)
{
	puts("| event | keys | |\n| --- | --- | --- |");
	for (unsigned i = 0; i < CONTROL_EVENTS; i++) {
		const struct control_event_row *row = &control_event_rows[i];

		printf("| `%s` |", row->name);
		for (unsigned k = 0; control_event_keys[k].name; k++)
			if (row->keys >> k & 1)
				printf(" `%s`", control_event_keys[k].name);
		printf(" | %s |\n", row->help);
	}
}

/* Everything has a sentence, and what Prometheus is told fits the name. */
static void every_key_is_explained(void **state)
{
	static const struct control_key *const tables[] = {
		control_status_keys, control_vcpu_keys, control_device_keys, control_served_keys,
		control_source_keys};

	(void)state;
	for (unsigned t = 0; t < sizeof(tables) / sizeof(*tables); t++) {
		for (const struct control_key *k = tables[t]; k->name; k++) {
			const struct control_key *about = control_key_about(k);
			size_t len = strlen(k->name);

			assert_non_null(about);
			assert_non_null(about->help);
			assert_null(strpbrk(about->help, "\n|"));
			assert_int_equal(about->help[strlen(about->help) - 1], '.');
			assert_int_equal(about->unit == APF_UNIT_NS,
					 len > 3 && strcmp(k->name + len - 3, "_ns") == 0);
		}
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_key_is_explained),
		cmocka_unit_test(everything_comes_back),
		cmocka_unit_test(nothing_comes_back),
		cmocka_unit_test(text_stays_one_line),
		cmocka_unit_test(form),
		cmocka_unit_test(unknown_keys_pass),
		cmocka_unit_test(malformed_lines),
	};

	if (argc > 1 && strcmp(argv[1], "--markdown") == 0) {
		print_keys("status", control_status_keys);
		print_keys("vcpu", control_vcpu_keys);
		print_keys("device", control_device_keys);
		print_keys("served", control_served_keys);
		print_keys("source", control_source_keys);
		print_events();
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
