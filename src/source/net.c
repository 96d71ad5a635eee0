/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources behind a network, as far as a URI goes: what is written in it, and what of it may be
 * shown. Pure but for opening, which is env->net's. Test: tests/unit/uri_test.c.
 *
 *   nbd://HOST[:PORT][/EXPORT], nbds://…        NBD by TCP, with TLS
 *   nbd+unix://[USER@]/[EXPORT]?socket=PATH, nbds+unix  by a Unix socket
 *   http://…, https://…                          a URL as it is
 *   s3://BUCKET/KEY                              an object of an S3 store
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/types.h"
#include "port/net.h"
#include "source/scheme.h"

#define NBD_PORT "10809"

/* What the strings of a target point to, beside the URI itself. */
struct net_text {
	char name[640]; /* an error cuts it */
	char url[URI_LEN_MAX + 1];
	char host[256], port[8], user[128];
};

static int cut(char *to, size_t room, const char *from, size_t len, const char *what,
	       struct err *e)
{
	if (len >= room)
		return err_set(e, -EINVAL, "source URI: the %s is longer than %zu bytes", what,
			       room - 1);
	memcpy(to, from, len);
	to[len] = '\0';
	return 0;
}

static bool is_port(const char *s, size_t len)
{
	uint32_t v = 0;

	for (size_t i = 0; i < len && v <= UINT16_MAX; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		v = v * 10 + (uint32_t)(s[i] - '0');
	}
	return len > 0 && v > 0 && v <= UINT16_MAX;
}

/* The parts of //[user@]host[:port]: lengths, and where what follows begins. */
struct authority {
	const char *user, *host, *port, *rest;
	size_t user_len, host_len, port_len;
};

/* Nothing of it is shown: where it is wrong, a password may stand anywhere. */
static int authority_parse(const char *path, const char *example, struct authority *a,
			   struct err *e)
{
	const char *at = path + 2, *end, *close;

	*a = (struct authority){.host_len = 0};
	if (strncmp(path, "//", 2) != 0)
		return err_set(e, -EINVAL, "source URI: a host is missing, as in %s", example);
	end = at + strcspn(at, "/?#");
	a->rest = end;
	a->user = at;
	for (const char *p = end; p > at; p--) {
		if (p[-1] != '@')
			continue;
		a->user_len = (size_t)(p - 1 - at);
		at = p;
		break;
	}
	a->host = at;
	close = at < end && *at == '[' ? memchr(at, ']', (size_t)(end - at)) : at - 1;
	if (!close || (close >= at && close + 1 < end && close[1] != ':'))
		return err_set(e, -EINVAL, "source URI: a ']' is missing at the host's end");
	a->port = memchr(close + 1, ':', (size_t)(end - close - 1));
	a->host_len = (size_t)((a->port ? a->port : end) - at);
	if (a->port)
		a->port_len = (size_t)(end - ++a->port);
	if (a->host_len == 0)
		return err_set(e, -EINVAL, "source URI: the host is missing, as in %s", example);
	if (a->port && !is_port(a->port, a->port_len))
		return err_set(e, -EINVAL, "source URI: the port is not 1 to 65535");
	return 0;
}

static int net_limits(const struct uri *u, struct net_target *t, struct err *e)
{
	const struct {
		const char *key;
		uint64_t max;
		uint32_t *to;
	} limits[] = {
		{"net-connections", NET_CONNECTIONS_MAX, &t->connections},
		{"net-depth", NET_DEPTH_MAX, &t->depth},
		{"net-connect-ms", NET_MS_MAX, &t->connect_ms},
		{"net-stall-ms", NET_MS_MAX, &t->stall_ms},
	};

	for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
		uint64_t v = 0;
		int rc = uri_number(u, limits[i].key, 1, limits[i].max, &v, e);

		if (rc < 0)
			return rc;
		*limits[i].to = (uint32_t)v;
	}
	return 0;
}

static int net_open(const struct net_target *t, const struct src_env *env, struct src **ret,
		    struct err *e)
{
	if (!env->net.ops)
		return err_set(e, -ENOTSUP, "open %s: there is no network here", t->name);
	return env->net.ops->open(env->net.ctx, t, env->reads_max, ret, e);
}

/* ---- NBD ---- */

static const char *last_scheme(const struct uri *u)
{
	return u->scheme[u->schemes - 1];
}

static int nbd_by_tcp(const struct uri *u, struct net_target *t, struct net_text *x,
		      struct err *e)
{
	struct authority a;
	int rc = authority_parse(u->path, "nbd://host/export", &a, e);

	if (rc < 0)
		return rc;
	/* An address in brackets is known without them. */
	if (*a.host == '[') {
		a.host++;
		a.host_len -= 2;
	}
	rc = cut(x->host, sizeof(x->host), a.host, a.host_len, "host", e);
	if (rc == 0)
		rc = cut(x->user, sizeof(x->user), a.user, a.user_len, "user", e);
	if (rc == 0)
		rc = a.port ? cut(x->port, sizeof(x->port), a.port, a.port_len, "port", e)
			    : cut(x->port, sizeof(x->port), NBD_PORT, strlen(NBD_PORT), "port", e);
	if (rc < 0)
		return rc;
	if (uri_value(u, "socket"))
		return err_set(e, -EINVAL, "source URI: socket= belongs to nbd+unix:///export");
	t->host = x->host;
	t->port = x->port;
	t->user = a.user_len ? x->user : NULL;
	t->export = *a.rest == '/' ? a.rest + 1 : "";
	snprintf(x->name, sizeof(x->name), "%s://%s%s%s:%s/%s", last_scheme(u),
		 strchr(x->host, ':') ? "[" : "", x->host, strchr(x->host, ':') ? "]" : "",
		 x->port, t->export);
	return 0;
}

static int nbd_by_unix(const struct uri *u, struct net_target *t, struct net_text *x,
		       struct err *e)
{
	const char *user = u->path + 2;
	const char *slash = strncmp(u->path, "//", 2) == 0 ? strchr(user, '/') : NULL;
	size_t user_len = slash ? (size_t)(slash - user) : 0;
	int rc;

	t->socket = uri_value(u, "socket");
	/* Behind a user's name, whose '@' it ends with, there is no host. */
	if (!t->socket || !slash || user_len == 1 || (user_len > 0 && slash[-1] != '@'))
		return err_set(e, -EINVAL, "source URI: %s is written "
			       "%s:///export?socket=/path/of/socket", last_scheme(u),
			       last_scheme(u));
	if (strlen(t->socket) > 107)
		return err_set(e, -EINVAL, "source URI: socket= is longer than 107 bytes");
	rc = cut(x->user, sizeof(x->user), user, user_len ? user_len - 1 : 0, "user", e);
	if (rc < 0)
		return rc;
	t->user = user_len ? x->user : NULL;
	t->export = slash + 1;
	snprintf(x->name, sizeof(x->name), "%s:///%s?socket=%s", last_scheme(u), t->export,
		 t->socket);
	return 0;
}

static int nbd_parse(const struct uri *u, struct net_target *t, struct net_text *x,
		     struct err *e)
{
	bool tls = strncmp(last_scheme(u), "nbds", 4) == 0;
	bool tcp = !strchr(last_scheme(u), '+');
	int rc;

	*t = (struct net_target){
		.protocol = NET_NBD,
		.tls = tls,
		.name = x->name,
		.certificates = uri_value(u, "tls-certificates"),
		.keys = uri_value(u, "tls-psk-file"),
	};
	if (!tls && (t->certificates || t->keys))
		return err_set(e, -EINVAL, "source URI: tls-certificates= and tls-psk-file= belong "
			       "to nbds");
	/* libnbd would trust anybody where it knows no certificates, or no host's name. */
	if (tls && !t->keys && (!t->certificates || !tcp))
		return err_set(e, -EINVAL, tcp ?
			       "source URI: nbds needs tls-certificates=FOLDER (with ca-cert.pem "
			       "in it) or tls-psk-file=FILE, to know the server by" :
			       "source URI: nbds+unix needs tls-psk-file=FILE: there is no host "
			       "whose certificate it could be");
	rc = tcp ? nbd_by_tcp(u, t, x, e) : nbd_by_unix(u, t, x, e);
	return rc < 0 ? rc : net_limits(u, t, e);
}

static int nbd_check(const struct uri *u, struct err *e)
{
	struct net_target t;
	struct net_text x;

	return nbd_parse(u, &t, &x, e);
}

static int nbd_open(const struct uri *u, struct src *inner, const struct src_env *env,
		    struct src **ret, struct err *e)
{
	struct net_target t;
	struct net_text x;
	int rc = nbd_parse(u, &t, &x, e);

	(void)inner;
	return rc < 0 ? rc : net_open(&t, env, ret, e);
}

static const char *const nbd_file_keys[] = {"tls-certificates", "tls-psk-file", NULL};
static const char *const nbd_keys[] = {
	"socket", "tls-certificates", "tls-psk-file", "net-connections", "net-depth",
	"net-connect-ms", "net-stall-ms", NULL,
};

#define NBD_SCHEME(variable, word)                                                                 \
	const struct src_scheme variable = {                                                       \
		.name = word,                                                                      \
		.alone = true,                                                                     \
		.network = true,                                                                   \
		.file_keys = nbd_file_keys,                                                        \
		.keys = nbd_keys,                                                                  \
		.check = nbd_check,                                                                \
		.open = nbd_open,                                                                  \
	}

NBD_SCHEME(src_nbd_scheme, "nbd");
NBD_SCHEME(src_nbds_scheme, "nbds");
NBD_SCHEME(src_nbd_unix_scheme, "nbd+unix");
NBD_SCHEME(src_nbds_unix_scheme, "nbds+unix");

/* ---- HTTP ---- */

static int http_words(const struct uri *u, struct net_target *t, struct err *e)
{
	const char *pin = uri_value(u, "http-pin"), *version = uri_value(u, "http-version");

	if (pin && strcmp(pin, "no") != 0 && strcmp(pin, "yes") != 0)
		return err_set(e, -EINVAL, "source URI: http-pin=%.40s: yes or no", pin);
	if (version && strcmp(version, "1.1") != 0 && strcmp(version, "2") != 0)
		return err_set(e, -EINVAL, "source URI: http-version=%.40s: 1.1 or 2", version);
	t->any_version = pin && strcmp(pin, "no") == 0;
	t->only_1_1 = version && strcmp(version, "1.1") == 0;
	return 0;
}

static int http_parse(const struct uri *u, struct net_target *t, struct net_text *x,
		      struct err *e)
{
	struct authority a;
	int rc = authority_parse(u->path, "https://host/path", &a, e);

	*t = (struct net_target){
		.protocol = NET_HTTP,
		.tls = strcmp(last_scheme(u), "https") == 0,
		.name = x->name,
		.url = x->url,
		.ca = uri_value(u, "http-ca"),
	};
	if (rc < 0)
		return rc;
	if (memchr(a.user, '@', a.user_len))
		return err_set(e, -EINVAL, "source URI: in a user's name, or a password, '@' is "
			       "written %%40");
	for (const char *c = u->path; *c; c++)
		if ((unsigned char)*c <= ' ' || *c == 0x7f)
			return err_set(e, -EINVAL, "source URI: a URL holds no blanks and no "
				       "control characters; a blank is written %%20");
	snprintf(x->url, sizeof(x->url), "%s:%s", last_scheme(u), u->path);
	snprintf(x->name, sizeof(x->name), "%s://%.*s", last_scheme(u),
		 (int)(a.rest + strcspn(a.rest, "?") - a.host), a.host);
	rc = http_words(u, t, e);
	return rc < 0 ? rc : net_limits(u, t, e);
}

static int http_check(const struct uri *u, struct err *e)
{
	struct net_target t;
	struct net_text x;

	return http_parse(u, &t, &x, e);
}

static int http_open(const struct uri *u, struct src *inner, const struct src_env *env,
		     struct src **ret, struct err *e)
{
	struct net_target t;
	struct net_text x;
	int rc = http_parse(u, &t, &x, e);

	(void)inner;
	return rc < 0 ? rc : net_open(&t, env, ret, e);
}

static const char *const http_file_keys[] = {"http-ca", NULL};
static const char *const http_keys[] = {
	"http-pin", "http-version", "http-ca", "net-connections", "net-depth", "net-connect-ms",
	"net-stall-ms", NULL,
};

#define HTTP_SCHEME(variable, word)                                                                \
	const struct src_scheme variable = {                                                       \
		.name = word,                                                                      \
		.alone = true,                                                                     \
		.network = true,                                                                   \
		.file_keys = http_file_keys,                                                       \
		.keys = http_keys,                                                                 \
		.check = http_check,                                                               \
		.open = http_open,                                                                 \
	}

HTTP_SCHEME(src_http_scheme, "http");
HTTP_SCHEME(src_https_scheme, "https");

/* ---- S3 ---- */

static bool is_bucket(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!strchr("-._", s[i]) && !(s[i] >= '0' && s[i] <= '9') &&
		    !(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= 'A' && s[i] <= 'Z'))
			return false;
	return len > 0;
}

static int s3_words(const struct uri *u, struct net_target *t, struct err *e)
{
	const char *style = uri_value(u, "style"), *version = uri_value(u, "http-version");
	const struct {
		const char *key, *value;
		size_t max;
	} texts[] = {
		{"profile", t->profile, 200}, {"region", t->region, 63},
		{"endpoint", t->endpoint, 255},
	};

	if (style && strcmp(style, "path") != 0 && strcmp(style, "host") != 0)
		return err_set(e, -EINVAL, "source URI: style=%.40s: path or host", style);
	if (version && strcmp(version, "1.1") != 0 && strcmp(version, "2") != 0)
		return err_set(e, -EINVAL, "source URI: http-version=%.40s: 1.1 or 2", version);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (texts[i].value && strlen(texts[i].value) > texts[i].max)
			return err_set(e, -EINVAL, "source URI: %s= is longer than %zu bytes",
				       texts[i].key, texts[i].max);
	t->only_1_1 = version && strcmp(version, "1.1") == 0;
	if (style)
		t->style = strcmp(style, "path") == 0 ? NET_S3_PATH : NET_S3_HOST;
	return 0;
}

static int s3_parse(const struct uri *u, struct net_target *t, struct net_text *x, struct err *e)
{
	const char *bucket = u->path + 2, *slash;
	int rc;

	*t = (struct net_target){
		.protocol = NET_S3,
		.name = x->name,
		.bucket = x->host,
		.profile = uri_value(u, "profile"),
		.region = uri_value(u, "region"),
		.endpoint = uri_value(u, "endpoint"),
		.ca = uri_value(u, "http-ca"),
	};
	slash = strncmp(u->path, "//", 2) == 0 ? strchr(bucket, '/') : NULL;
	if (!slash || !slash[1])
		return err_set(e, -EINVAL, "source URI: s3 is written s3://bucket/key");
	/* The text is not shown: it may hold a password (user:password@). */
	if (!is_bucket(bucket, (size_t)(slash - bucket)))
		return err_set(e, -EINVAL, "source URI: a bucket's name has letters, digits, '-', "
			       "'.' and '_'; credentials are not written into the URI");
	rc = cut(x->host, sizeof(x->host), bucket, (size_t)(slash - bucket), "bucket's name", e);
	if (rc < 0)
		return rc;
	t->object = slash + 1;
	snprintf(x->name, sizeof(x->name), "s3://%s/%s", t->bucket, t->object);
	rc = s3_words(u, t, e);
	return rc < 0 ? rc : net_limits(u, t, e);
}

static int s3_check(const struct uri *u, struct err *e)
{
	struct net_target t;
	struct net_text x;

	return s3_parse(u, &t, &x, e);
}

static int s3_open(const struct uri *u, struct src *inner, const struct src_env *env,
		   struct src **ret, struct err *e)
{
	struct net_target t;
	struct net_text x;
	int rc = s3_parse(u, &t, &x, e);

	(void)inner;
	return rc < 0 ? rc : net_open(&t, env, ret, e);
}

static const char *const s3_keys[] = {
	"profile", "region", "endpoint", "style", "http-version", "http-ca", "net-connections",
	"net-depth", "net-connect-ms", "net-stall-ms", NULL,
};

const struct src_scheme src_s3_scheme = {
	.name = "s3",
	.alone = true,
	.network = true,
	.file_keys = http_file_keys,
	.keys = s3_keys,
	.check = s3_check,
	.open = s3_open,
};

/* ---- all ---- */

void src_shown(const struct uri *u, char *to, size_t bytes)
{
	struct net_target t = {.name = u->path};
	struct net_text x;

	if (u->url)
		(void)http_parse(u, &t, &x, NULL);
	else if (strcmp(last_scheme(u), "s3") == 0)
		(void)s3_parse(u, &t, &x, NULL);
	else if (strncmp(last_scheme(u), "nbd", 3) == 0)
		(void)nbd_parse(u, &t, &x, NULL);
	snprintf(to, bytes, "%s", t.name);
}
