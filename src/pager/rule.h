/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which VM gets which source: by the socket that it comes to. A rule is a JSON object {"listen":
 * SOCKET, "source": URI}, alone in a request, an array of them in a file. Pure. Tests:
 * tests/unit/handshake_test.c, tests/fuzz/handshake_fuzz.c.
 */
#ifndef PAGER_RULE_H
#define PAGER_RULE_H

#include <stddef.h>

#include "base/err.h"

#define RULES_MAX 256u
#define RULE_SOCKET_MAX 108u /* sizeof(sun_path) */
#define RULE_URI_MAX 4097u

struct rule {
	char socket[RULE_SOCKET_MAX];
	char uri[RULE_URI_MAX];
};

/* One alone, nothing behind it. 0, or -EINVAL with text. */
int rule_parse(const char *text, size_t len, struct rule *ret, struct err *e);

/* 0 or -Exxx with text. */
typedef int rule_taker(void *ctx, const struct rule *r, struct err *e);

/*
 * Each of an array in turn: take's first failure ends it and is returned. 0, or -EINVAL with text.
 */
int rules_parse(const char *text, size_t len, rule_taker *take, void *ctx, struct err *e);

#endif
