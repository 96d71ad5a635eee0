/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The syntax of source URIs, without any meaning: pure, fuzzable, no allocation.
 *
 *   scheme[+scheme...]:path[?key=value[&key=value...]]
 *   [scheme+...]http[s]:url[#key=value[&key=value...]]
 *   path                       no scheme: a file, taken literally
 *
 * What stands before the first ':' is a scheme if it consists of letters, digits, '+'
 * and '-' only; so a file named a:b is written ./a:b. In path and values of a URI with
 * a scheme %XX stands for a byte. A URL is taken as it is written, its own query among
 * it: keys stand where a URL has its fragment, which is for no server. "nbd+unix" and
 * "nbds+unix" are schemes. Test: tests/unit/uri_test.c.
 */
#ifndef SOURCE_URI_H
#define SOURCE_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define URI_LEN_MAX 4096   /* bytes; as long as a path may be */
#define URI_SCHEMES_MAX 8  /* wrappers and source: more is a slip, not a wish */
#define URI_PARAMS_MAX 32

struct uri_param {
	const char *key;
	const char *value;
};

/* All pointers point into text: not to be copied by assignment. */
struct uri {
	unsigned schemes;
	const char *scheme[URI_SCHEMES_MAX]; /* as written: the outermost wrapper first */
	const char *path;                    /* decoded but for URLs; may be empty */
	bool url;                            /* path is a URL's, behind its scheme's ':' */
	unsigned params;
	struct uri_param param[URI_PARAMS_MAX]; /* no key twice, no value empty */
	char text[URI_LEN_MAX + 1];
};

/*
 * Takes text apart. Returns 0, or -EINVAL with text naming the offending part; then
 * *ret is undefined. Never blocks; any thread.
 */
int uri_parse(const char *text, struct uri *ret, struct err *e);

/* The value of key, NULL when it is not given. Valid as long as u. */
const char *uri_value(const struct uri *u, const char *key);

/*
 * What a URL's query says of which object is meant: its parts, without those that only sign it and
 * are others each time. Empty for what is no URL. Returns 0, or -ENAMETOOLONG.
 */
int uri_url_choice(const struct uri *u, char *to, size_t bytes);

/*
 * The value of key as a decimal number in [min, max]. Returns 1 when it is given, 0 when
 * it is not (*ret untouched), -EINVAL when it is no such number.
 */
int uri_number(const struct uri *u, const char *key, uint64_t min, uint64_t max, uint64_t *ret,
	       struct err *e);

/* The same for a size in bytes, > 0, with an optional suffix K, M, G or T (powers of 1024). */
int uri_size(const struct uri *u, const char *key, uint64_t *ret, struct err *e);

#endif
