/* SPDX-License-Identifier: Apache-2.0 */
/* Firecracker's message about its memory in each form that it has had, in pieces, and broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/types.h"
#include "pager/handshake.h"
#include "pager/json_in.h"
#include "pager/rule.h"

static int parse(const char *text, struct handshake *h, struct err *e)
{
	return handshake_parse(text, strlen(text), h, e);
}

/* A guest of 4 GiB as 1.13 tells it. */
#define TWO_REGIONS \
	"[{\"base_host_virt_addr\":139637976727552,\"size\":3221225472,\"offset\":0," \
	"\"page_size\":4096,\"page_size_kib\":4096},{\"base_host_virt_addr\":139641197953024," \
	"\"size\":1073741824,\"offset\":3221225472,\"page_size\":4096,\"page_size_kib\":4096}]"

static void all_versions(void **state)
{
	static const struct {
		const char *pages;
		uint32_t bytes;
	} all[] = {
		{"", 4096}, /* 1.5 */
		{",\"page_size_kib\":4096", 4096},
		{",\"page_size_kib\":2097152", 2097152},
		{",\"page_size\":2097152,\"page_size_kib\":2097152", 2097152},
		{",\"page_size_kib\":4096,\"page_size\":2097152", 2097152},
		{",\"page_size\":4096", 4096}, /* 2.0 */
		{",\"gpa_start\":0,\"page_size\":4096,\"is_guest_memfd\":false", 4096},
		{",\"new\":{\"a\":[1,-2.5e3,null,true,\"\\u00e9\\ud83d\\ude00\"]}", 4096},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		struct handshake h;
		struct err e;
		char text[512];

		(void)snprintf(text, sizeof(text), "[{\"base_host_virt_addr\":4194304,\"size\":"
			       "4194304,\"offset\":8192%s}]", all[i].pages);
		assert_int_equal(parse(text, &h, &e), 0);
		assert_int_equal(h.count, 1);
		assert_int_equal(h.regions[0].hva, 4194304);
		assert_int_equal(h.regions[0].bytes, 4194304);
		assert_int_equal(h.regions[0].offset, 8192);
		assert_int_equal(h.regions[0].page_bytes, all[i].bytes);
		assert_int_equal(handshake_fits(&h, 8192 + 4194304, &e), 0);
		assert_int_equal(handshake_fits(&h, 8192 + 4194303, &e), -ERANGE);
	}
}

/* Whatever is there so far is not whole, and no error. */
static void in_pieces(void **state)
{
	static const char text[] = " [ {\"base_host_virt_addr\": 4096, \"size\":8192,"
		" \"x\":[{\"y\":\"\\\"\\u0041\", \"z\":{}}, true, null, -1.5],"
		"\"offset\":0 } ,{\"size\":4096,"
		"\"base_host_virt_addr\":65536,\"offset\":8192}]";
	struct handshake h;
	struct err e;

	(void)state;
	for (size_t len = 0; len + 1 < sizeof(text) - 1; len++) {
		int rc = handshake_parse(text, len, &h, &e);

		if (rc != -EAGAIN)
			print_message("%zu: %d %s\n", len, rc, e.text);
		assert_int_equal(rc, -EAGAIN);
	}
	assert_int_equal(parse(text, &h, &e), 0);
	assert_int_equal(h.count, 2);
	assert_int_equal(h.regions[1].offset, 8192);
	/* What comes behind is somebody else's. */
	assert_int_equal(parse("[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":0}]{", &h,
			       &e), 0);
}

static void refused(const char *text, const char *says)
{
	struct handshake h;
	struct err e = {0};

	assert_int_equal(parse(text, &h, &e), -EINVAL);
	print_message("%s\n", e.text);
	assert_non_null(strstr(e.text, says));
}

static void nonsense(void **state)
{
	char deep[64];

	(void)state;
	refused("{}", "does not begin with a JSON array");
	refused("[]", "no region");
	refused("[{}]", "are needed");
	refused("[{\"size\":4096 \"offset\":0}]", "no JSON object");
	refused("[{\"size\":4096,}]", "no JSON object");
	refused("[{\"size\":}]", "no JSON object");
	refused("[{\"size\":0x10}]", "no JSON object");
	refused("[{\"size\":18446744073709551616}]", "no JSON object");
	refused("[{\"base_host_virt_addr\":4096,\"size\":0,\"offset\":0}]", "not whole pages");
	refused("[{\"a\\u0000\":1}]", "no JSON object");
	refused("[{\"\\ud800x\":1}]", "no JSON object");
	refused("[{\"x\":tru}]", "no JSON object");
	refused("[{\"x\":{1:2}}]", "no JSON object");
	refused("[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":0};", "behind region 1");
	memset(deep, '[', sizeof(deep));
	memcpy(deep, "[{\"x\":", 6);
	deep[sizeof(deep) - 1] = '\0';
	refused(deep, "no JSON object");
	refused("[{\"base_host_virt_addr\":4096,\"size\":8192,\"offset\":0},"
		"{\"base_host_virt_addr\":8192,\"size\":4096,\"offset\":0}]", "overlap");
}

/* What a text says, as UTF-8; NULL: it is none. */
static void texts(void **state)
{
	static const struct {
		const char *json, *says;
	} all[] = {
		{"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
		{"\"\\u007f\\u0080\\u07FF\"", "\x7f\xc2\x80\xdf\xbf"},
		{"\"\\u0800\\u20ac\\uffff\"", "\xe0\xa0\x80\xe2\x82\xac\xef\xbf\xbf"},
		{"\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80"},
		{"\"\\ude00\\ude00\"", NULL},
		{"\"\\ud83d\\ud83d\"", NULL},
		{"\"\\ud83d\\u0041\"", NULL},
		{"\"\\ud83d\\n\"", NULL},
		{"\"\\x\"", NULL},
		{"\"\n\"", NULL},
		{"\"as long as there is room\"", "as long as there is room"},
		{"\"a byte more than there is\"", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		struct json_in j = {.at = all[i].json, .end = all[i].json + strlen(all[i].json)};
		char got[26] = "";

		got[25] = '!';
		assert_int_equal(json_in_text(&j, got, 25), all[i].says ? 0 : -EINVAL);
		assert_int_equal(got[25], '!');
		if (all[i].says)
			assert_string_equal(got, all[i].says);
	}
}

/* What is passed over may be so deep, and no deeper. */
static void as_deep_as_there_may_be(void **state)
{
	static const char text[] = "[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]";
	struct json_in j = {.at = text + 1, .end = text + sizeof(text) - 2};

	(void)state;
	_Static_assert(sizeof(text) - 1 == 2 * (JSON_IN_DEPTH_MAX + 1), "one more");
	assert_int_equal(json_in_skip(&j), 0);
	assert_int_equal(json_in_end(&j), 0);
	j = (struct json_in){.at = text, .end = text + sizeof(text) - 1};
	assert_int_equal(json_in_skip(&j), -EINVAL);
}

static void vector(void **state)
{
	struct handshake h;
	struct err e;

	(void)state;
	assert_int_equal(parse(TWO_REGIONS, &h, &e), 0);
	assert_int_equal(h.count, 2);
	assert_int_equal(h.regions[1].offset, h.regions[0].bytes);
	assert_int_equal(handshake_fits(&h, 4ull << 30, &e), 0);
}

/* The last page of user memory, and the last bytes that an offset can name. */
static void the_highest_there_are(void **state)
{
	struct handshake h;
	struct err e;

	(void)state;
	assert_int_equal(parse("[{\"base_host_virt_addr\":72057594037923840,\"size\":4096,"
			       "\"offset\":9223372036854771711}]", &h, &e), 0);
	assert_true(h.regions[0].hva + h.regions[0].bytes == 1ull << 56);
	assert_true(h.regions[0].offset + h.regions[0].bytes == INT64_MAX);
	refused("[{\"base_host_virt_addr\":72057594037923840,\"size\":8192,\"offset\":0}]",
		"beyond");
	refused("[{\"base_host_virt_addr\":72057594037927936,\"size\":4096,\"offset\":0}]",
		"beyond");
	refused("[{\"base_host_virt_addr\":4096,\"size\":4096,"
		"\"offset\":9223372036854771712}]", "beyond");
}

/* So many regions, one behind the other. */
static int parse_many(unsigned count, struct handshake *h, struct err *e)
{
	static char text[(HANDSHAKE_REGIONS_MAX + 1) * 80];
	size_t len = 0;

	for (unsigned i = 0; i < count; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
					"%s{\"base_host_virt_addr\":%u,\"size\":4096,"
					"\"offset\":%u}", i ? "," : "[",
					(i + 1) * 4096, i * 4096);
	assert_true(len + 2 < sizeof(text));
	memcpy(text + len, "]", 2);
	return parse(text, h, e);
}

static void as_many_regions_as_there_may_be(void **state)
{
	struct handshake h;
	struct err e;

	(void)state;
	assert_int_equal(parse_many(HANDSHAKE_REGIONS_MAX, &h, &e), 0);
	assert_int_equal(h.count, 64);
	assert_int_equal(h.regions[63].offset, 63 * 4096);
	assert_int_equal(parse_many(HANDSHAKE_REGIONS_MAX + 1, &h, &e), -EINVAL);
	assert_non_null(strstr(e.text, "more than 64 regions"));
}

static int count_rules(void *ctx, const struct rule *r, struct err *e)
{
	unsigned *n = ctx;

	(void)e;
	assert_string_equal(r->socket, *n == 0 ? "a.sock" : "b\"\n.sock");
	return ++*n == 3 ? -EBUSY : 0;
}

#define RULE_A "{\"listen\": \"a.sock\", \"source\": \"file:a\"}"
#define RULE_B "{\"source\": \"zero:?size=1M\", \"listen\": \"b\\\"\\n.sock\"}"

static void rules(void **state)
{
	static const char two[] = "[" RULE_A "," RULE_B "]\n";
	static const char three[] = "[" RULE_A "," RULE_B "," RULE_B "]";
	struct rule r;
	struct err e;
	unsigned n = 0;

	(void)state;
	assert_int_equal(rules_parse(two, strlen(two), count_rules, &n, &e), 0);
	assert_int_equal(n, 2);
	n = 0;
	assert_int_equal(rules_parse(three, strlen(three), count_rules, &n, &e), -EBUSY);
	assert_int_equal(rule_parse(RULE_A, strlen(RULE_A), &r, &e), 0);
	assert_string_equal(r.uri, "file:a");
	for (size_t len = 0; len < strlen(RULE_A); len++)
		assert_int_equal(rule_parse(RULE_A, len, &r, &e), -EINVAL);
	assert_int_equal(rule_parse(RULE_A "x", strlen(RULE_A) + 1, &r, &e), -EINVAL);
	assert_non_null(strstr(e.text, "something follows"));
}

static void rule_refused(const char *text, const char *says)
{
	struct rule r;
	struct err e = {0};

	assert_int_equal(rule_parse(text, strlen(text), &r, &e), -EINVAL);
	if (!strstr(e.text, says))
		fail_msg("%s: %s", text, e.text);
}

static void no_rules(void **state)
{
	(void)state;
	rule_refused("{\"listen\": \"a\", \"source\": \"b\", \"listen\": \"a\"}",
		     "'listen' stands twice");
	rule_refused("{\"source\": \"b\", \"source\": \"b\", \"listen\": \"a\"}",
		     "'source' stands twice");
	rule_refused("{\"listen\": \"a\"}", "needs listen and source");
	rule_refused("{\"source\": \"a\"}", "needs listen and source");
	rule_refused("{\"listen\": \"a\", \"sauce\": \"b\"}", "no member 'sauce'");
	rule_refused("[]", "a rule is an object");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_versions), cmocka_unit_test(in_pieces),
		cmocka_unit_test(nonsense),     cmocka_unit_test(vector),
		cmocka_unit_test(rules),        cmocka_unit_test(the_highest_there_are),
		cmocka_unit_test(no_rules),     cmocka_unit_test(texts),
		cmocka_unit_test(as_deep_as_there_may_be),
		cmocka_unit_test(as_many_regions_as_there_may_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
