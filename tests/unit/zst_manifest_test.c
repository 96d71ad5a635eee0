/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests: what is right, in any order and spacing; and what is refused, by its reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "source/zst_manifest.h"

#define A "aa00000000000000000000000000000000000000000000000000000000000001"
#define B "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define KIND "\"manifest\":\"asyncpf-image\","
#define VERSION "\"version\":1,"
#define HASH "\"hash\":\"sha256\","
#define FRAMES "\"frames\":[\"" A "\",\"" B "\"],"
#define SIZES "\"frame_bytes\":4096,\"size\":5000"
#define WHOLE "{" KIND VERSION HASH FRAMES SIZES "}"

static void refused(const char *text, const char *says)
{
	struct zst_manifest m;
	struct err e;

	assert_int_equal(zst_manifest_parse(text, strlen(text), &m, &e), -EINVAL);
	assert_non_null(strstr(e.text, says));
}

static void what_is_right_is_read(void **state)
{
	static const char *const texts[] = {
		WHOLE, " \t\r\n" WHOLE "\n",
		"{" SIZES "," FRAMES HASH VERSION "\"manifest\" : \"asyncpf-image\" }",
		"{" KIND VERSION HASH "\"frames\" : [\n\"" A "\"\n,\n\"" B "\"\n]\n,\n" SIZES "\n}",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct zst_manifest m;
		struct err e;

		assert_int_equal(zst_manifest_parse(texts[i], strlen(texts[i]), &m, &e), 0);
		assert_int_equal(m.size, 5000);
		assert_int_equal(m.frame_bytes, 4096);
		assert_int_equal(m.frames, 2);
		assert_int_equal(m.hashes[0], 0xaa);
		assert_int_equal(m.hashes[31], 1);
		assert_int_equal(m.hashes[32 + 7], 0xef);
		zst_manifest_fini(&m);
	}
}

static void what_is_no_manifest(void **state)
{
	(void)state;
	refused("", "does not begin with {");
	refused("[]", "does not begin with {");
	refused("{}", "a text is missing");
	refused(WHOLE "x", "something follows");
	refused("{" KIND VERSION HASH FRAMES SIZES, "does not end");
	refused("{" KIND VERSION HASH FRAMES SIZES ",}", "a text is missing");
	refused("{" KIND VERSION HASH FRAMES SIZES ",\"more\":1}", "unknown in version 1");
	refused("{\"manifest\":\"asyncpf", "a text does not end");
	refused("{\"manifest\":\"asyncpf\\u002dimage\"}", "a text does not end");
	refused("{\"manifest\":\"asyncpf-image\n\"}", "a text does not end");
	refused("{\"manifest\" 1}", "a colon is missing");
	refused("{\"manifest\":\"other\"}", "an unknown one");
	refused("{\"hash\":\"md5\"}", "an unknown one");
	refused("{" KIND KIND, "an unknown one");
	refused("{\"version\":2", "a newer one");
	refused("{\"size\":}", "a number is missing");
	refused("{\"size\":-1}", "a number is missing");
	refused("{\"size\":18446744073709551616}", "too large");
	refused("{\"size\":1,\"size\":1}", "a key twice");
}

static void each_key_is_needed(void **state)
{
	(void)state;
	refused("{" VERSION HASH FRAMES SIZES "}", "a key is missing");
	refused("{" KIND HASH FRAMES SIZES "}", "a key is missing");
	refused("{" KIND VERSION FRAMES SIZES "}", "a key is missing");
	refused("{" KIND VERSION HASH SIZES "}", "a key is missing");
	refused("{" KIND VERSION HASH FRAMES "\"size\":5000}", "a key is missing");
	refused("{" KIND VERSION HASH FRAMES "\"frame_bytes\":4096}", "a key is missing");
}

static void frames_that_cannot_be(void **state)
{
	(void)state;
	refused("{\"frames\":1}", "is no array");
	refused("{\"frames\":[1]}", "a text is missing");
	refused("{\"frames\":[\"" A, "a text does not end");
	refused("{\"frames\":[\"" A "\"", "its array does not end");
	refused("{\"frames\":[\"" A "\",]}", "a text is missing");
	refused("{\"frames\":[\"abc\"]}", "not 64 digits long");
	refused("{\"frames\":[\"" A "0\"]}", "not 64 digits long");
	refused("{\"frames\":[\"AA000000000000000000000000000000"
		"00000000000000000000000000000001\"]}",
		"other digits");
	refused("{" FRAMES FRAMES SIZES "}", "frames twice");
	refused("{" KIND VERSION HASH FRAMES "\"frame_bytes\":4096,\"size\":4096}", "as many as");
	refused("{" KIND VERSION HASH FRAMES "\"frame_bytes\":4096,\"size\":8193}", "as many as");
	refused("{" KIND VERSION HASH "\"frames\":[]," SIZES "}", "as many as");
	refused("{" KIND VERSION HASH "\"frames\":[],\"frame_bytes\":4096,\"size\":0}", "is 0");
	refused("{" KIND VERSION HASH FRAMES "\"frame_bytes\":0,\"size\":1}", "is 0");
}

/* Each beginning of one is none. */
static void every_cut(void **state)
{
	static const char whole[] = WHOLE;
	char text[sizeof(whole)];

	(void)state;
	for (size_t len = 0; len < sizeof(whole) - 1; len++) {
		struct zst_manifest m;
		struct err e;

		memcpy(text, whole, len);
		assert_int_equal(zst_manifest_parse(text, len, &m, &e), -EINVAL);
	}
}

static void unmatched(uint64_t size, uint64_t frame_bytes, uint32_t frames, const char *says)
{
	uint64_t packed[] = {0, 1, 2, 3}, plain[] = {0, 4096, 8192, 9000};
	const struct zst_table t = {3, packed, plain, NULL};
	const struct zst_manifest m = {size, frame_bytes, frames, NULL};
	struct err e;

	assert_int_equal(zst_manifest_match(&m, &t, &e), says ? -EINVAL : 0);
	if (says)
		assert_non_null(strstr(e.text, says));
}

static void it_must_be_that_image_s(void **state)
{
	(void)state;
	unmatched(9000, 4096, 3, NULL);
	unmatched(9001, 4096, 3, "of an image of 9001 bytes");
	unmatched(9000, 8192, 2, "2 frames, and the image 3");
	unmatched(9000, 4000, 3, "frame 1 begins at byte 4000, and the image's at 4096");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_right_is_read),
		cmocka_unit_test(what_is_no_manifest),
		cmocka_unit_test(each_key_is_needed),
		cmocka_unit_test(frames_that_cannot_be),
		cmocka_unit_test(every_cut),
		cmocka_unit_test(it_must_be_that_image_s),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
