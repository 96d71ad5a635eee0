/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source/uri.c and the checks in source/source.c: what a good URI means, what each bad
 * one is told (code and the part that matters of the text), and that random bytes
 * never do more harm than an error of one line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/prng.h"
#include "base/types.h"
#include "source/source.h"
#include "source/uri.h"

static void parses_schemes_path_and_keys(void **state)
{
	struct uri u;

	(void)state;
	assert_int_equal(uri_parse("delay+fault+file:a/b%20c%3F?ms=1&x-y=%41", &u, NULL), 0);
	assert_int_equal(u.schemes, 3);
	assert_string_equal(u.scheme[0], "delay");
	assert_string_equal(u.scheme[1], "fault");
	assert_string_equal(u.scheme[2], "file");
	assert_string_equal(u.path, "a/b c?");
	assert_int_equal(u.params, 2);
	assert_string_equal(uri_value(&u, "ms"), "1");
	assert_string_equal(uri_value(&u, "x-y"), "A");
	assert_null(uri_value(&u, "m"));
}

static void plain_path_is_a_file_taken_literally(void **state)
{
	static const char *const paths[] = {
		"image.raw", "/a/b?c=%41&d", "./a:b", "/dev/disk/by-path/pci-0:1", ":x", "a b:c",
		"a.b:c",
	};
	struct uri u;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		assert_int_equal(uri_parse(paths[i], &u, NULL), 0);
		assert_int_equal(u.schemes, 1);
		assert_string_equal(u.scheme[0], "file");
		assert_string_equal(u.path, paths[i]);
		assert_int_equal(u.params, 0);
	}
}

static void a_url_is_taken_as_it_is_written(void **state)
{
	struct uri u;

	(void)state;
	assert_int_equal(uri_parse("delay+https://u:p@h:8/a%20b%3F?x=%41&ms=2&y#ms=1%30", &u,
				   NULL), 0);
	assert_int_equal(u.schemes, 2);
	assert_string_equal(u.scheme[1], "https");
	assert_true(u.url);
	assert_string_equal(u.path, "//u:p@h:8/a%20b%3F?x=%41&ms=2&y");
	assert_int_equal(u.params, 1);
	assert_string_equal(uri_value(&u, "ms"), "10");
	assert_int_equal(uri_parse("delay+nbd+unix:///a%20b?socket=/s&ms=1", &u, NULL), 0);
	assert_int_equal(u.schemes, 2);
	assert_string_equal(u.scheme[1], "nbd+unix");
	assert_false(u.url);
	assert_string_equal(u.path, "///a b");
}

/* Who signs a URL anew means the same object. */
static void which_object_of_a_url(void **state)
{
	static const char *const cases[][2] = {
		{"http://h/a", ""},
		{"http://h/a?", ""},
		{"zst+https://h/a?x=1&y#net-depth=1", "x=1&y&"},
		{"https://h/a?X-Amz-Date=1&versionId=7&x-amz-signature=2", "versionId=7&"},
		{"https://h/a?X-Goog-Date=1&x=&X-Goog-Signature=2", "x=&"},
		{"https://h/a?Signature=a&Expires=7&AWSAccessKeyId=x&x-amz-security-token=3", ""},
		{"https://h/a?GoogleAccessId=x&Signature=a&Expires=7&generation=8",
		 "generation=8&"},
		{"https://h/a?Policy=p&Signature=a&Key-Pair-Id=k", ""},
		{"https://h/a?Expires=1&Signature=a&Key-Pair-Id=k", ""},
		/* A shared access signature of Azure's: of an object, an account, a user's key. */
		{"https://h/a?sv=2024-11-04&st=1&se=2&sr=b&sp=r&spr=https&sip=4&sig=a%3D", ""},
		{"https://h/a?snapshot=1&sv=2024-11-04&ss=b&srt=o&sp=r&se=2&sig=a", "snapshot=1&"},
		{"https://h/a?versionid=1&sv=2024-11-04&sr=bv&sp=r&si=9&sig=a", "versionid=1&"},
		{"https://h/a?skoid=1&sktid=2&skt=3&ske=4&sks=b&skv=2020-02-10&sv=2020-02-10&"
		 "sr=b&sp=r&se=1&sig=a&timeout=9", "timeout=9&"},
		/* What is a signature's beside others may choose where they are not there. */
		{"https://h/a?Policy=1&Signature=a", "Policy=1&Signature=a&"},
		{"https://h/a?Expires=1&X-Amz-Date=2", "Expires=1&X-Amz-Date=2&"},
		{"https://h/a?sv=2&sig=a&sr=3", "sv=2&sig=a&sr=3&"},
		{"https://h/a?sv=2024-11-04&sr=3", "sv=2024-11-04&sr=3&"},
		{"https://h/a?sv=2024-11-04&sig=a&sr=b&sigs=1&s=2&rsct=3",
		 "sigs=1&s=2&rsct=3&"},
		{"https://h/a?Signatures=1&X-Am=2&id", "Signatures=1&X-Am=2&id&"},
		{"https://h/a?b=1?c=2&d", "b=1?c=2&d&"},
		{"file:a?direct=1", ""},
		{"a?b", ""},
	};
	char to[64];
	struct uri u;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(uri_parse(cases[i][0], &u, NULL), 0);
		assert_int_equal(uri_url_choice(&u, to, sizeof(to)), 0);
		assert_string_equal(to, cases[i][1]);
	}
	assert_int_equal(uri_parse("http://h/?abc&d", &u, NULL), 0);
	assert_int_equal(uri_url_choice(&u, to, 6), -ENAMETOOLONG);
	assert_int_equal(uri_url_choice(&u, to, 7), 0);
}

static void numbers_and_sizes(void **state)
{
	uint64_t v = 99;
	struct uri u;

	(void)state;
	assert_int_equal(uri_parse("x:?n=18446744073709551615&a=4096&b=64M&c=1T&k=3K&g=2G", &u,
				   NULL), 0);
	assert_int_equal(uri_number(&u, "none", 0, 9, &v, NULL), 0);
	assert_int_equal(v, 99);
	assert_int_equal(uri_number(&u, "n", 0, UINT64_MAX, &v, NULL), 1);
	assert_true(v == UINT64_MAX);
	assert_int_equal(uri_number(&u, "a", 4096, 4096, &v, NULL), 1);
	assert_int_equal(v, 4096);
	assert_int_equal(uri_number(&u, "a", 4097, 9999, &v, NULL), -EINVAL);
	assert_int_equal(uri_number(&u, "a", 0, 4095, &v, NULL), -EINVAL);
	assert_int_equal(uri_size(&u, "b", &v, NULL), 1);
	assert_true(v == 64ull << 20);
	assert_int_equal(uri_size(&u, "c", &v, NULL), 1);
	assert_true(v == 1ull << 40);
	assert_int_equal(uri_size(&u, "k", &v, NULL), 1);
	assert_true(v == 3ull << 10);
	assert_int_equal(uri_size(&u, "g", &v, NULL), 1);
	assert_true(v == 2ull << 30);
	assert_int_equal(uri_size(&u, "n", &v, NULL), -EINVAL);
	/* Up to what the kernel takes as a size, with and without a suffix. */
	assert_int_equal(uri_parse("x:?a=9223372036854775807&b=8388607T&c=9223372036854775808&"
				   "d=8388608T&e=16777216T&f=0K", &u, NULL), 0);
	assert_int_equal(uri_size(&u, "a", &v, NULL), 1);
	assert_true(v == INT64_MAX);
	assert_int_equal(uri_size(&u, "b", &v, NULL), 1);
	assert_true(v == 8388607ull << 40);
	for (const char *key = "c\0d\0e\0f\0"; *key; key += 2)
		assert_int_equal(uri_size(&u, key, &v, NULL), -EINVAL);
	assert_true(v == 8388607ull << 40);
}

static void good_uris_pass_the_check(void **state)
{
	static const char *const good[] = {
		"nbd://h", "nbd://h:1/a/b", "nbd://[::1]:10809/x", "nbd+unix:///?socket=/s",
		"nbds://a@h/x?tls-psk-file=/k", "nbds://h/x?tls-certificates=/c&net-depth=256",
		"nbds+unix:///x?socket=/s&tls-psk-file=/k",
		"nbds+unix://a@/x?socket=/s&tls-psk-file=/k", "http://h",
		"https://u:p@[::1]:8/x?y#",
		"delay+http://h/x?%75s=1&usa=2#us=3", "zst+https://h/x?y=z#zst-cache=1M",
		"s3://bucket/key", "zst+s3://b.u-c/a/b%20%3F?profile=x&region=eu-1&net-depth=3",
		"delay+s3://b/k?ms=1&endpoint=http://localhost:7480&style=path&http-version=1.1",
		"file:image.raw", "image.raw", "zero:?size=64M", "delay+file:image.raw?us=5000",
		"delay+fault+file:x?ms=1&fault-error-after=10", "file:x?",
		"delay+zero:?size=1&us=0",
		"delay+file:x?jitter-us=10&seed=18446744073709551615",
		"fault+file:x?fault-error-at=3&fault-error-count=2&errno=ETIMEDOUT",
		"fault+file:x?fault-short-at=1&fault-hang-at=2&fault-hang-ms=7",
		"fault+file:x?fault-hang-after=0",
		"fault+delay+zero:?size=1G&ms=1&fault-short-at=1",
	};
	struct err e = {.text = ""};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		if (src_check(good[i], &e) != 0)
			fail_msg("%s: %s", good[i], e.text);
	}
}

struct bad_uri {
	const char *uri;
	const char *text; /* a part of the message */
};

static void all_are_bad(const struct bad_uri *bad, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct err e = {.text = ""};

		if (src_check(bad[i].uri, &e) != -EINVAL || e.code != -EINVAL ||
		    !strstr(e.text, bad[i].text))
			fail_msg("%s: %d '%s', expected '%s'", bad[i].uri, e.code, e.text,
				 bad[i].text);
		assert_null(strstr(e.text, "SECRET"));
		assert_int_equal(src_check(bad[i].uri, NULL), -EINVAL);
	}
}

static void bad_uris_are_told_what_is_wrong(void **state)
{
	static const struct bad_uri bad[] = {
		{"", "empty"},
		{"nbx:host", "no scheme 'nbx'; there are file:, zero:, delay+, fault+"},
		{"delay+nbx:host?us=1", "no scheme 'nbx'"},
		{"File:x", "no scheme 'File'"},
		{"delay++file:x", "missing beside '+' in 'delay++file'"},
		{"+file:x", "missing beside '+' in '+file'"},
		{"delay+:x", "missing beside '+' in 'delay+'"},
		{"delay:x?us=1", "'delay' needs a source to wrap"},
		{"file+delay:x?us=1", "'file' wraps nothing, so '+delay'"},
		{"delay+delay+file:x?us=1", "scheme 'delay' stands twice"},
		{"a+a+a+a+a+a+a+a+a:x", "more than 8 schemes"},
		{"file:", "needs a path"},
		{"file:?a=b", "takes the key 'a'; there are direct"},
		{"file:x%4", "'%4' is not %XX"},
		{"file:x%zz", "'%zz' is not %XX"},
		{"file:x%", "'%' is not %XX"},
		{"file:x%00", "%00"},
		{"file:what?.raw", "'.raw' is not of the form key=value (a '?'"},
		{"delay+file:x?us", "'us' is not of the form"},
		{"delay+file:x?us=", "'us=' is not of the form"},
		{"delay+file:x?=1", "'=' is not of the form"},
		{"delay+file:x?us=1&", "'' is not of the form"},
		{"delay+file:x?u_s=1", "'u_s=' is not of the form"},
		{"delay+file:x?us=1&us=2", "key 'us' is given twice"},
		{"delay+file:x?u=1", "takes the key 'u'; there are us, ms, jitter-us, seed"},
		{"delay+file:x?us=1&fault-short-at=1", "takes the key 'fault-short-at'"},
		{"delay+file:x", "delay needs us="},
		{"delay+file:x?us=1&ms=1", "not both"},
		{"delay+file:x?us=abc", "us=abc: not a number from 0 to 3600000000"},
		{"delay+file:x?us=-1", "us=-1: not a number"},
		{"delay+file:x?us=+1", "us=+1: not a number"},
		{"delay+file:x?us=1x", "us=1x: not a number"},
		{"delay+file:x?us=0x10", "us=0x10: not a number"},
		{"delay+file:x?us=%201", "us= 1: not a number"},
		{"delay+file:x?us=3600000001", "us=3600000001: not a number from"},
		{"delay+file:x?us=18446744073709551616", "us=18446744073709551616: not a number"},
		{"delay+file:x?us=1&seed=x", "seed=x: not a number"},
		{"zero:", "zero: needs a size"},
		{"zero:x?size=1", "zero: takes no path ('x')"},
		{"zero:?size=0", "size=0: not a size"},
		{"zero:?size=64MB", "size=64MB: not a size"},
		{"zero:?size=M", "size=M: not a size"},
		{"zero:?size=64X", "size=64X: not a size"},
		{"zero:?size=16777216T", "size=16777216T: not a size"},
		{"zero:?size=8388608T", "size=8388608T: not a size"},
		{"fault+file:x", "injects nothing"},
		{"fault+file:x?errno=EIO", "errno needs"},
		{"fault+file:x?fault-error-at=1&errno=EWHAT", "errno=EWHAT: there are EIO, "},
		{"fault+file:x?fault-error-at=0", "fault-error-at=0: not a number from 1"},
		{"fault+file:x?fault-short-at=1&fault-error-count=2", "needs fault-error-at"},
		{"fault+file:x?fault-short-at=1&fault-hang-ms=2", "needs fault-hang-at"},
	};

	(void)state;
	all_are_bad(bad, ARRAY_LEN(bad));
}

static void bad_uris_of_networks_are_told_what_is_wrong(void **state)
{
	static const struct bad_uri bad[] = {
		{"nbd:host", "a host is missing, as in nbd://host/export"},
		{"nbd://", "the host is missing"},
		{"nbd://:1/x", "the host is missing"},
		{"nbd://h:0/x", "the port is not 1 to 65535"},
		{"nbd://h:65536/x", "the port is not 1 to 65535"},
		{"nbd://h:1x/x", "the port is not 1 to 65535"},
		{"nbd://[::1/x", "a ']' is missing"},
		{"nbd://[::1]2/x", "a ']' is missing"},
		{"nbd://h/x?socket=/s", "socket= belongs to nbd+unix"},
		{"nbd://h/x?tls-psk-file=/s", "belong to nbds"},
		{"nbds://h/x", "nbds needs tls-certificates=FOLDER"},
		{"nbds+unix:///x?socket=/s&tls-certificates=/c", "needs tls-psk-file=FILE"},
		{"nbd+unix:///x", "is written nbd+unix:///export?socket="},
		{"nbd+unix://h/x?socket=/s", "is written nbd+unix:///export?socket="},
		{"nbd+unix://@/x?socket=/s", "is written nbd+unix:///export?socket="},
		{"nbd+unix://a@h/x?socket=/s", "is written nbd+unix:///export?socket="},
		{"nbd+unix://a@?socket=/s", "is written nbd+unix:///export?socket="},
		{"unix:///x?socket=/s", "no scheme 'unix'"},
		{"nbd+unix+file:x", "'nbd' wraps nothing"},
		{"nbd://h/x?net-depth=257", "net-depth=257: not a number from 1 to 256"},
		{"nbd://h/x?http-pin=no", "takes the key 'http-pin'"},
		{"s3:bucket/key", "is written s3://bucket/key"},
		{"s3://bucket", "is written s3://bucket/key"},
		{"s3://bucket/", "is written s3://bucket/key"},
		{"s3://AKIA:word@bucket/key", "credentials are not written into the URI"},
		{"s3://b/k?style=dns", "style=dns: path or host"},
		{"s3://b/k?http-pin=no", "takes the key 'http-pin'"},
		{"http:x", "a host is missing, as in https://host/path"},
		{"http:///x", "the host is missing"},
		{"https://user:word@h:word/x", "the port is not 1 to 65535"},
		{"http://h/a b", "a blank is written %20"},
		{"http://user:p@SECRET@h/x", "'@' is written %40"},
		{"http://user:p#SECRET@h/x", "behind the '#' is not of the form key=value"},
		{"http://user:p#S:ECRET=@SECRET/x", "behind the '#' is not of the form key=value"},
		{"s3://b/k?secret_key=SECRET", "'secret_key=' is not of the form"},
		{"http://h/x#http-pin=maybe", "http-pin=maybe: yes or no"},
		{"http://h/x#http-version=3", "http-version=3: 1.1 or 2"},
		{"http://h/x#us=1", "takes the key 'us'"},
		{"delay+http://h/x?us=1#us=2", "'us' is a key of 'delay': behind a URL keys stand "
					       "after '#'"},
		{"delay+http://h/x?a=b&us=1#us=2", "'us' is a key of 'delay'"},
	};

	(void)state;
	all_are_bad(bad, ARRAY_LEN(bad));
}

static void length_limit_is_exact(void **state)
{
	char text[URI_LEN_MAX + 2];
	struct uri u;
	struct err e;

	(void)state;
	memset(text, 'x', sizeof(text));
	text[URI_LEN_MAX] = '\0';
	assert_int_equal(uri_parse(text, &u, NULL), 0);
	assert_int_equal(strlen(u.path), URI_LEN_MAX);
	text[URI_LEN_MAX] = 'x';
	text[URI_LEN_MAX + 1] = '\0';
	assert_int_equal(uri_parse(text, &u, &e), -EINVAL);
	assert_non_null(strstr(e.text, "longer than 4096 bytes: 'xxxx"));
}

static void too_many_keys(void **state)
{
	char text[512] = "file:x?";
	char *s = text + strlen(text);
	struct uri u;
	struct err e;

	(void)state;
	for (unsigned i = 0; i <= URI_PARAMS_MAX; i++) {
		*s++ = (char)('a' + i / 26);
		*s++ = (char)('a' + i % 26);
		memcpy(s, "=1&", 4);
		s += 3;
	}
	s[-1] = '\0';
	assert_int_equal(uri_parse(text, &u, &e), -EINVAL);
	assert_non_null(strstr(e.text, "more than 32 keys at 'bg'"));
	s[-6] = '\0';
	assert_int_equal(uri_parse(text, &u, NULL), 0);
	assert_int_equal(u.params, URI_PARAMS_MAX);
}

/* Random strings over the syntax's own characters, and good URIs with a few bytes changed. */
static void random_text_is_harmless(void **state)
{
	static const char alphabet[] = "abdefilutyzm+-:?&=%0123456789KMG/.\n\x80";
	static const char seed_uri[] = "delay+fault+file:a%20b?ms=1&fault-error-at=10&errno=EIO";
	struct prng p;
	unsigned good = 0;

	(void)state;
	prng_init(&p, 7);
	for (int i = 0; i < 200000; i++) {
		char text[sizeof(seed_uri)];
		struct err e = {.text = ""};
		unsigned changes = (unsigned)prng_below(&p, i % 2 ? 3 : sizeof(seed_uri));

		memcpy(text, seed_uri, sizeof(seed_uri));
		for (unsigned k = 0; k < changes; k++)
			text[prng_below(&p, sizeof(text) - 1)] =
				alphabet[prng_below(&p, sizeof(alphabet))];
		int rc = src_check(text, &e);

		good += rc == 0;
		assert_true(rc == 0 || rc == -EINVAL);
		assert_true(rc == e.code);
		assert_true((rc == 0) == (e.text[0] == '\0'));
		assert_null(strchr(e.text, '\n'));
	}
	/* Otherwise the loop has only ever seen the first check. */
	assert_in_range(good, 1000, 150000);
}

/* Each use as "kind path", in the order in which they are told. */
struct told {
	char text[256];
};

static int tell(void *ctx, enum src_use use, const char *path, struct err *e)
{
	static const char *const words[] = {"file", "folder", "network", "trust"};
	struct told *t = ctx;
	size_t len = strlen(t->text);

	if (path && strcmp(path, "no") == 0)
		return err_set(e, -EACCES, "not this one");
	(void)snprintf(t->text + len, sizeof(t->text) - len, "%s %s;", words[use],
		       path ? path : "-");
	return 0;
}

static void what_a_uri_uses_is_told(void **state)
{
	static const struct {
		const char *uri, *uses;
	} rows[] = {
		{"image", "file image;"},
		{"zero:?size=1M", ""},
		{"delay+file:a%20b?ms=1", "file a b;"},
		{"zst:a?manifest=m", "file a;file m;"},
		{"zst+file:a?manifest=m", "file m;file a;"},
		{"qemu:vm.mig?block=pc.ram", "file vm.mig;"},
		{"qemu+zst:a", "file a;"},
		{"cache+zst:a?cache-dir=d&cache-manifest=c", "file c;folder d;file a;"},
		{"nbd://host/", "network -;"},
		{"nbds://host/?tls-certificates=d", "network -;trust d;"},
		{"nbd+unix:///?socket=s", "network -;"},
		{"cache+https://h/x?manifest=q#http-ca=c&cache-dir=d",
		 "folder d;network -;trust c;"},
		{"s3://bucket/key?http-ca=c", "network -;trust c;"},
	};
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct told t = {""};

		assert_int_equal(src_uses(rows[i].uri, tell, &t, &e), 0);
		assert_string_equal(t.text, rows[i].uses);
	}
	assert_int_equal(src_uses("zst:a?manifest=no", tell, &(struct told){""}, &e), -EACCES);
	assert_string_equal(e.text, "not this one");
	assert_int_equal(src_uses("nosuch:a", tell, &(struct told){""}, &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_schemes_path_and_keys),
		cmocka_unit_test(plain_path_is_a_file_taken_literally),
		cmocka_unit_test(a_url_is_taken_as_it_is_written),
		cmocka_unit_test(which_object_of_a_url),
		cmocka_unit_test(numbers_and_sizes),
		cmocka_unit_test(good_uris_pass_the_check),
		cmocka_unit_test(bad_uris_are_told_what_is_wrong),
		cmocka_unit_test(bad_uris_of_networks_are_told_what_is_wrong),
		cmocka_unit_test(length_limit_is_exact),
		cmocka_unit_test(too_many_keys),
		cmocka_unit_test(random_text_is_harmless),
		cmocka_unit_test(what_a_uri_uses_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
