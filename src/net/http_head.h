/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server's header lines mean for a source: pure parsers of what a stranger sent. Test:
 * tests/unit/http_head_test.c, tests/fuzz/head_fuzz.c.
 */
#ifndef NET_HTTP_HEAD_H
#define NET_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_TAG_MAX 256u

/* Of one answer; all zeroes to begin with. */
struct http_head {
	bool ranged;           /* there was a Content-Range, and it was in order: */
	uint64_t first, last;  /* bytes, both inclusive; with `ranged` */
	uint64_t total;        /* of the object; 0: unknown. Also of "bytes * / total" */
	char etag[HTTP_TAG_MAX];     /* as it is written, W/ included; empty: none */
	char modified[HTTP_TAG_MAX]; /* Last-Modified as it is written; empty: none */
	char region[HTTP_TAG_MAX];   /* X-Amz-Bucket-Region: S3 says it where it is another one */
	bool encoded;          /* Content-Encoding says that it is not the object's own bytes */
	bool bad;              /* one of these was there, and not as it must be */
};

/* One line, without a terminator; a status line ("HTTP/…") begins anew. */
void http_head_line(struct http_head *h, const char *line, size_t len);

/* Good for If-Match. */
bool http_etag_is_strong(const char *etag);

#endif
