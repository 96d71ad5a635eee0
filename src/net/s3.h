/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An object of an S3 store, as http.c sees it: a URL, and headers for each request. What the URI
 * does not say is taken from where Amazon's own programs take it. The secret is in memory that no
 * core dump has, and elsewhere no longer than it takes to sign. Threads: the loop's alone; files
 * are read there. Tests: tests/unit/s3_test.c, tests/integration/net_s3_test.c.
 */
#ifndef NET_S3_H
#define NET_S3_H

#include "net/aws_sign.h"
#include "port/net.h"

/* Of the word that a page of an error has for it. */
#define S3_CODE_MAX 40u

struct s3;

/* 0, or -Exxx with text, which says what is missing. t lives as long. */
int s3_open(const struct net_target *t, struct s3 **ret, struct err *e);
/* Overwrites the secret. NULL is harmless. */
void s3_close(struct s3 *s);
const char *s3_url(const struct s3 *s);
/* NULL: there is none. */
const char *s3_token(const struct s3 *s);
/* Of a request for that range ("bytes=0-9") that is sent now. */
int s3_sign(const struct s3 *s, const char *range, struct aws_signed *ret, struct err *e);
/* Which credentials sign now: how often they have become others. */
unsigned s3_keys(const struct s3 *s);
/* Reads the credentials again. Whether they are others: they are renewed by whoever wrote them. */
bool s3_renew(struct s3 *s);
/* That word of a page, " SignatureDoesNotMatch"; empty: it has none. */
const char *s3_code(const char *page, char to[S3_CODE_MAX + 2]);

#endif
