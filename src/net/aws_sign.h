/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Amazon's signature, version 4, of a GET without a body. libcurl has it, too, and copies the
 * secret into memory of its own for each request under way, from where a core dump has it; here it
 * stays where the caller put it. Pure but for libcrypto, which cleans what it kept of it. Test:
 * tests/unit/aws_sign_test.c has Amazon's own example.
 */
#ifndef NET_AWS_SIGN_H
#define NET_AWS_SIGN_H

#include <stddef.h>
#include <time.h>

#include "base/err.h"

#define AWS_ACCESS_MAX 128u
#define AWS_SECRET_MAX 256u
#define AWS_TOKEN_MAX 8192u
#define AWS_REGION_MAX 64u

/* Of a body of no bytes. */
#define AWS_EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct aws_keys {
	char access[AWS_ACCESS_MAX];
	char secret[AWS_SECRET_MAX];
	char token[AWS_TOKEN_MAX]; /* empty: none */
};

/* As they are sent, to the byte: the Host header, the path with its %XX, the Range header. */
struct aws_get {
	const char *host, *path, *range;
	const char *region;
	time_t now;
};

struct aws_signed {
	char date[24];             /* X-Amz-Date */
	char authorization[512];   /* Authorization */
};

/*
 * The request must be sent with both headers, with X-Amz-Content-Sha256: AWS_EMPTY_SHA256, and
 * where there is a token with X-Amz-Security-Token. 0, or -ENOMEM.
 */
int aws_sign(const struct aws_keys *k, const struct aws_get *g, struct aws_signed *ret,
	     struct err *e);

#endif
