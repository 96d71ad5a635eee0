/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net/http_head.c: what header lines mean, and that no line of a stranger's does more harm than
 * to be called bad.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/prng.h"
#include "base/types.h"
#include "net/http_head.h"

static void lines(struct http_head *h, const char *const *line)
{
	*h = (struct http_head){.ranged = false};
	for (; *line; line++)
		http_head_line(h, *line, strlen(*line));
}

static void a_good_head(void **state)
{
	static const char *const good[] = {
		"HTTP/1.1 206 Partial Content", "ETag:  \"a b\" \r\n", "content-type: x",
		"LAST-MODIFIED: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
		"Content-Range: bytes 5-9/18446744073709551615", "\r\n", NULL};
	struct http_head h;

	(void)state;
	lines(&h, good);
	assert_false(h.bad);
	assert_true(h.ranged);
	assert_int_equal(h.first, 5);
	assert_int_equal(h.last, 9);
	assert_true(h.total == UINT64_MAX);
	assert_string_equal(h.etag, "\"a b\"");
	assert_string_equal(h.modified, "Sun, 06 Nov 1994 08:49:37 GMT");
	assert_true(http_etag_is_strong(h.etag));
	/* A redirection, a proxy's answer: only the last head counts. */
	http_head_line(&h, "HTTP/2 200", 10);
	assert_false(h.ranged || h.bad || h.etag[0] || h.modified[0]);
	assert_false(http_etag_is_strong("W/\"a\""));
	assert_false(http_etag_is_strong("\""));
	assert_false(http_etag_is_strong("a"));
	assert_false(http_etag_is_strong(""));
}

static void ranges(void **state)
{
	static const struct {
		const char *line;
		bool ranged, bad;
		uint64_t total;
	} cases[] = {
		{"Content-Range: bytes 0-0/1", true, false, 1},
		{"Content-Range:bytes 0-0/1", true, false, 1},
		{"Content-Range: bytes 0-0/*", true, false, 0},
		{"Content-Range: bytes */7", false, false, 7},
		{"Content-Range: bytes 1-0/7", false, true, 0},
		{"Content-Range: bytes 0-7/7", false, true, 0},
		{"Content-Range: bytes 0-0/1x", false, true, 0},
		{"Content-Range: bytes 0-0/", false, true, 0},
		{"Content-Range: bytes 0-/1", false, true, 0},
		{"Content-Range: bytes -1/2", false, true, 0},
		{"Content-Range: bytes +0-0/1", false, true, 0},
		{"Content-Range: bytes 0-18446744073709551616/*", false, true, 0},
		{"Content-Range: items 0-0/1", false, true, 0},
		{"Content-Range: bytes", false, true, 0},
		{"Content-Range:", false, true, 0},
		{"Content-Ranges: bytes 0-0/1", false, false, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_head h = {.ranged = false};

		http_head_line(&h, cases[i].line, strlen(cases[i].line));
		if (h.ranged != cases[i].ranged || h.bad != cases[i].bad)
			fail_msg("%s: %d %d", cases[i].line, h.ranged, h.bad);
		if (!h.bad)
			assert_true(h.total == cases[i].total);
	}
}

static void whose_bytes(void **state)
{
	static const struct {
		const char *line;
		bool encoded;
	} cases[] = {
		{"Content-Encoding: gzip", true},    {"content-encoding: Identity", false},
		{"Content-Encoding: br, gzip", true}, {"Content-Encoding:", false},
		{"Content-Encoding: aws-chunked", false},
		{"Content-Encoding: aws-chunked,gzip", true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_head h = {.ranged = false};

		http_head_line(&h, cases[i].line, strlen(cases[i].line));
		http_head_line(&h, "Content-Encoding: identity", 26);
		assert_int_equal(h.encoded, cases[i].encoded);
		assert_false(h.bad);
	}
}

static void empty_is_none(void **state)
{
	static const char *const empty[] = {"ETag: ", "Last-Modified:", "ETag: \"a\"", NULL};
	struct http_head h;

	(void)state;
	lines(&h, empty);
	assert_false(h.bad || h.modified[0]);
	assert_string_equal(h.etag, "\"a\"");
}

static void what_stands_twice_is_bad(void **state)
{
	static const char *const tags[] = {"ETag: \"a\"", "ETag: \"b\"", NULL};
	static const char *const twice[] = {"Content-Range: bytes 0-0/1",
					    "Content-Range: bytes 0-0/1", NULL};
	char line[HTTP_TAG_MAX + 16] = "ETag: ";
	struct http_head h;

	(void)state;
	lines(&h, tags);
	assert_true(h.bad);
	assert_string_equal(h.etag, "\"a\"");
	lines(&h, twice);
	assert_true(h.bad);
	h = (struct http_head){.ranged = false};
	memset(line + 6, 'x', HTTP_TAG_MAX);
	http_head_line(&h, line, 6 + HTTP_TAG_MAX);
	assert_true(h.bad && !h.etag[0]);
	h = (struct http_head){.ranged = false};
	http_head_line(&h, "ETag: \"a\x01\"", 10);
	assert_true(h.bad && !h.etag[0]);
}

static void random_lines_are_harmless(void **state)
{
	static const char *const pieces[] = {"HTTP/", "content-range", ":", " ", "bytes ", "-", "/",
					     "*", "0", "18446744073709551615", "9", "etag", "\"",
					     "last-modified", "\r\n", "x"};
	struct http_head h = {.ranged = false};
	struct prng rng;

	(void)state;
	prng_init(&rng, 1);
	for (unsigned i = 0; i < 200000; i++) {
		char line[256];
		size_t len = 0;

		for (uint64_t n = prng_below(&rng, 9); n > 0; n--) {
			const char *p = pieces[prng_below(&rng, ARRAY_LEN(pieces))];

			memcpy(line + len, p, strlen(p));
			len += strlen(p);
		}
		http_head_line(&h, line, len);
		assert_true(strlen(h.etag) < HTTP_TAG_MAX && strlen(h.modified) < HTTP_TAG_MAX);
		assert_true(!h.ranged || (h.first <= h.last && (!h.total || h.last < h.total)));
	}
}

/* A version as long as there is room for, and one byte longer, of which nothing is kept. */
static void the_longest_version(void **state)
{
	char line[sizeof("ETag: ") + HTTP_TAG_MAX] = "ETag: ";
	struct http_head h = {.ranged = false};

	(void)state;
	memset(line + 6, 'v', HTTP_TAG_MAX);
	http_head_line(&h, line, 6 + HTTP_TAG_MAX - 1);
	assert_false(h.bad);
	assert_int_equal(strlen(h.etag), HTTP_TAG_MAX - 1);
	h = (struct http_head){.ranged = false};
	http_head_line(&h, line, 6 + HTTP_TAG_MAX);
	assert_true(h.bad);
	assert_string_equal(h.etag, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_head),
		cmocka_unit_test(ranges),
		cmocka_unit_test(whose_bytes),
		cmocka_unit_test(empty_is_none),
		cmocka_unit_test(what_stands_twice_is_bad),
		cmocka_unit_test(the_longest_version),
		cmocka_unit_test(random_lines_are_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
