/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net/aws_sign.c against the example of Amazon's documentation ("Signature Calculations for the
 * Authorization Header", GET Object), to the byte; that each part of a request counts; limits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/types.h"
#include "net/aws_sign.h"

/* 2013-05-24, midnight. */
#define THEN 1369353600

static const struct aws_keys example = {
	.access = "AKIAIOSFODNN7EXAMPLE",
	.secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
};

static const struct aws_get get = {
	.host = "examplebucket.s3.amazonaws.com",
	.path = "/test.txt",
	.range = "bytes=0-9",
	.region = "us-east-1",
	.now = THEN,
};

static void amazons_example(void **state)
{
	struct aws_signed sig;

	(void)state;
	assert_int_equal(aws_sign(&example, &get, &sig, NULL), 0);
	assert_string_equal(sig.date, "20130524T000000Z");
	assert_string_equal(sig.authorization,
			    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1"
			    "/s3/aws4_request,SignedHeaders=host;range;x-amz-content-sha256;"
			    "x-amz-date,Signature="
			    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void each_part_counts(void **state)
{
	struct aws_signed sigs[8];
	struct aws_keys keys[8];
	struct aws_get gets[8];

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(sigs); i++) {
		keys[i] = example;
		gets[i] = get;
	}
	gets[1].host = "examplebucket.s3.amazonaws.con";
	gets[2].path = "/test.txu";
	gets[3].range = "bytes=0-8";
	gets[4].region = "us-east-2";
	gets[5].now++;
	keys[6].secret[0] = 'x';
	snprintf(keys[7].token, sizeof(keys[7].token), "a");
	for (unsigned i = 0; i < ARRAY_LEN(sigs); i++) {
		assert_int_equal(aws_sign(&keys[i], &gets[i], &sigs[i], NULL), 0);
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(strstr(sigs[i].authorization, "Signature="),
						strstr(sigs[k].authorization, "Signature="));
	}
	assert_non_null(strstr(sigs[7].authorization, ";x-amz-security-token,"));
}

static void the_longest_of_all(void **state)
{
	struct aws_keys keys = {.access = ""};
	struct aws_get longest = get;
	char region[AWS_REGION_MAX];
	struct aws_signed sig;

	(void)state;
	memset(keys.access, 'a', sizeof(keys.access) - 1);
	memset(keys.secret, 's', sizeof(keys.secret) - 1);
	memset(keys.token, 't', sizeof(keys.token) - 1);
	memset(region, 'r', sizeof(region) - 1);
	region[sizeof(region) - 1] = '\0';
	longest.region = region;
	assert_int_equal(aws_sign(&keys, &longest, &sig, NULL), 0);
	/* It is whole. */
	assert_int_equal(strlen(strstr(sig.authorization, "Signature=")), 10 + 64);
	assert_null(strstr(sig.authorization, "ss"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(amazons_example),
		cmocka_unit_test(each_part_counts),
		cmocka_unit_test(the_longest_of_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
