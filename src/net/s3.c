/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See s3.h. Where things come from, the first that is there:
 *
 *   credentials  the profile that the URI names; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the
 *                profile of AWS_PROFILE, or "default", in ~/.aws/credentials, then ~/.aws/config
 *   region       the URI, AWS_REGION, AWS_DEFAULT_REGION, the profile; us-east-1
 *   endpoint     the URI, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile; Amazon's
 */
#include "net/s3.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/types.h"
#include "net/aws_config.h"

#define FILE_BYTES (256u << 10)
#define NAME_MAX_BYTES 256u
#define URL_BYTES 4096u

struct s3 {
	const struct net_target *target;
	struct aws_keys keys;
	unsigned renewed; /* so often */
	char region[AWS_REGION_MAX];
	char host[NAME_MAX_BYTES + 80]; /* as libcurl sends it */
	char url[URL_BYTES];
	size_t path; /* in url */
	/* While settings are read: */
	char profile[NAME_MAX_BYTES];
	char endpoint[NAME_MAX_BYTES];
	bool profile_is_there, bad;
	struct aws_keys fresh;
	char file[FILE_BYTES];
};

/* ---- settings ---- */

static bool from_env(const char *name, char *to, size_t room)
{
	const char *value = secure_getenv(name);

	if (!value || !*value || strlen(value) >= room)
		return false;
	memcpy(to, value, strlen(value) + 1);
	return true;
}

/* A file in the user's folder .aws, or where the environment says. */
static bool aws_file(const char *variable, const char *name, char path[PATH_MAX])
{
	const char *home = secure_getenv("HOME");
	struct passwd entry, *found = NULL;
	char text[1024];

	if (from_env(variable, path, PATH_MAX))
		return true;
	if ((!home || !*home) && getpwuid_r(geteuid(), &entry, text, sizeof(text), &found) == 0 &&
	    found)
		home = found->pw_dir;
	return home && snprintf(path, PATH_MAX, "%s/.aws/%s", home, name) < PATH_MAX;
}

/* A file that is not there, or not ours to read, is an empty one. */
static void read_file(struct s3 *s, const char *path, const char *section)
{
	struct aws_wanted wanted[] = {
		{.key = "aws_access_key_id", .to = s->fresh.access, .room = AWS_ACCESS_MAX},
		{.key = "aws_secret_access_key", .to = s->fresh.secret, .room = AWS_SECRET_MAX},
		{.key = "aws_session_token", .to = s->fresh.token, .room = AWS_TOKEN_MAX},
		{.key = "region", .to = s->region, .room = sizeof(s->region)},
		{.key = "endpoint_url", .to = s->endpoint, .room = sizeof(s->endpoint)},
	};
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t len = 0;
	ssize_t n = 1;

	if (fd < 0)
		return;
	while (len < sizeof(s->file) && n > 0) {
		n = read(fd, s->file + len, sizeof(s->file) - len);
		len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	/* Credentials of one file only: those of two do not belong together. */
	bool complete = s->fresh.access[0] && s->fresh.secret[0];

	if (aws_config_read(s->file, len, section, wanted + (complete ? 3 : 0),
			    complete ? 2 : ARRAY_LEN(wanted)))
		s->profile_is_there = true;
	for (unsigned i = 0; i < ARRAY_LEN(wanted); i++)
		s->bad = s->bad || wanted[i].bad;
	explicit_bzero(s->file, len);
}

static void read_files(struct s3 *s)
{
	char path[PATH_MAX], section[NAME_MAX_BYTES + 16];

	if (aws_file("AWS_SHARED_CREDENTIALS_FILE", "credentials", path))
		read_file(s, path, s->profile);
	if (!s->fresh.access[0] || !s->fresh.secret[0])
		explicit_bzero(&s->fresh, sizeof(s->fresh));
	snprintf(section, sizeof(section), "profile %s", s->profile);
	if (aws_file("AWS_CONFIG_FILE", "config", path))
		read_file(s, path, section);
}

/* Into s->fresh, and what the files have beside. */
static void read_settings(struct s3 *s)
{
	const char *named = s->target->profile;
	struct aws_keys *k = &s->fresh;
	const char *access, *secret;

	explicit_bzero(k, sizeof(*k));
	s->profile_is_there = s->bad = false;
	if (named)
		snprintf(s->profile, sizeof(s->profile), "%s", named);
	else if (!from_env("AWS_PROFILE", s->profile, sizeof(s->profile)))
		snprintf(s->profile, sizeof(s->profile), "default");
	read_files(s);
	if (named)
		return;
	/* What is set to nothing is not set. */
	access = secure_getenv("AWS_ACCESS_KEY_ID");
	secret = secure_getenv("AWS_SECRET_ACCESS_KEY");
	if (!access || !*access || !secret || !*secret)
		return;
	explicit_bzero(k, sizeof(*k));
	(void)from_env("AWS_ACCESS_KEY_ID", k->access, sizeof(k->access));
	(void)from_env("AWS_SECRET_ACCESS_KEY", k->secret, sizeof(k->secret));
	(void)from_env("AWS_SESSION_TOKEN", k->token, sizeof(k->token));
}

static int need_settings(struct s3 *s, struct err *e)
{
	const struct net_target *t = s->target;

	read_settings(s);
	if (t->profile && !s->profile_is_there)
		return err_set(e, -EACCES, "there is no profile '%.60s' in ~/.aws/credentials or "
			       "~/.aws/config", t->profile);
	if (!s->fresh.access[0] || !s->fresh.secret[0])
		return err_set(e, -EACCES, "no credentials: set AWS_ACCESS_KEY_ID and "
			       "AWS_SECRET_ACCESS_KEY, or write them into ~/.aws/credentials, "
			       "profile '%.60s'%s", s->profile,
			       s->bad ? " (what is there is no such thing)" : "");
	s->keys = s->fresh;
	explicit_bzero(&s->fresh, sizeof(s->fresh));
	if (t->region)
		snprintf(s->region, sizeof(s->region), "%s", t->region);
	else if (!from_env("AWS_REGION", s->region, sizeof(s->region)))
		(void)from_env("AWS_DEFAULT_REGION", s->region, sizeof(s->region));
	if (!s->region[0])
		snprintf(s->region, sizeof(s->region), "us-east-1");
	for (const char *c = s->region; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '-')
			return err_set(e, -EINVAL, "the region is not letters, digits and '-'");
	if (t->endpoint)
		snprintf(s->endpoint, sizeof(s->endpoint), "%s", t->endpoint);
	else if (!from_env("AWS_ENDPOINT_URL_S3", s->endpoint, sizeof(s->endpoint)))
		(void)from_env("AWS_ENDPOINT_URL", s->endpoint, sizeof(s->endpoint));
	return 0;
}

/* ---- the URL ---- */

/* A host that a certificate for *.HOST is good for, and a name that DNS knows. */
static bool is_host_name(const char *bucket)
{
	for (const char *c = bucket; *c; c++)
		if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c) && *c != '-')
			return false;
	return bucket[0] != '-';
}

/* http[s]://HOST[:PORT][/], into host without a port that libcurl would leave out. */
static int endpoint_parse(struct s3 *s, bool *tls, char *host, size_t room, struct err *e)
{
	const char *at = s->endpoint, *port;
	size_t len;

	*tls = strncasecmp(at, "https://", 8) == 0;
	if (!*tls && strncasecmp(at, "http://", 7) != 0)
		return err_set(e, -EINVAL, "the endpoint must begin with https:// or http://");
	at += *tls ? 8 : 7;
	len = strcspn(at, "/?#@");
	if (len == 0 || len >= room || (at[len] && strcmp(at + len, "/") != 0))
		return err_set(e, -EINVAL, "the endpoint must be written https://HOST[:PORT]");
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)at[i] <= ' ' || at[i] == 0x7f)
			return err_set(e, -EINVAL, "the endpoint has blanks in it");
		host[i] = (char)tolower((unsigned char)at[i]);
	}
	host[len] = '\0';
	port = *tls ? ":443" : ":80";
	if (len > strlen(port) && strcmp(host + len - strlen(port), port) == 0)
		host[len - strlen(port)] = '\0';
	return 0;
}

/* As the signature wants it: only what is never written otherwise is not encoded. */
static bool put_path(char *to, size_t room, const char *object)
{
	static const char digits[] = "0123456789ABCDEF";

	for (; *object && room > 4; object++) {
		unsigned char c = (unsigned char)*object;

		if (isalnum(c) || strchr("-._~/", c)) {
			*to++ = (char)c;
			room--;
			continue;
		}
		*to++ = '%';
		*to++ = digits[c >> 4];
		*to++ = digits[c & 15];
		room -= 3;
	}
	*to = '\0';
	return *object == '\0';
}

static int make_url(struct s3 *s, struct err *e)
{
	const struct net_target *t = s->target;
	bool amazon = !s->endpoint[0], tls, by_host;
	char host[NAME_MAX_BYTES];
	int rc, n;

	if (amazon)
		snprintf(s->endpoint, sizeof(s->endpoint), "https://s3.%s.amazonaws.com",
			 s->region);
	rc = endpoint_parse(s, &tls, host, sizeof(host), e);
	if (rc < 0)
		return rc;
	by_host = t->style == NET_S3_HOST ||
		  (t->style == NET_S3_ANY && amazon && is_host_name(t->bucket));
	snprintf(s->host, sizeof(s->host), "%s%s%s", by_host ? t->bucket : "",
		 by_host ? "." : "", host);
	n = snprintf(s->url, sizeof(s->url), "http%s://%s", tls ? "s" : "", s->host);
	s->path = (size_t)n;
	n += snprintf(s->url + n, sizeof(s->url) - (size_t)n, "/%s%s", by_host ? "" : t->bucket,
		      by_host ? "" : "/");
	if (!put_path(s->url + n, sizeof(s->url) - (size_t)n, t->object))
		return err_set(e, -EINVAL, "the name of the object is too long");
	return 0;
}

/* ---- for http.c ---- */

int s3_open(const struct net_target *t, struct s3 **ret, struct err *e)
{
	struct s3 *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int rc;

	if (s == MAP_FAILED)
		return err_sys(e, -ENOMEM, "S3");
	/* Neither in a core dump nor on a swap device; the latter where that is allowed. */
	if (madvise(s, sizeof(*s), MADV_DONTDUMP) < 0) {
		rc = err_sys(e, -errno, "memory for credentials");
		(void)munmap(s, sizeof(*s));
		return rc;
	}
	(void)mlock(s, offsetof(struct s3, file));
	s->target = t;
	rc = need_settings(s, e);
	if (rc == 0)
		rc = make_url(s, e);
	if (rc < 0) {
		s3_close(s);
		return rc;
	}
	*ret = s;
	return 0;
}

void s3_close(struct s3 *s)
{
	if (!s)
		return;
	explicit_bzero(s, sizeof(*s));
	(void)munmap(s, sizeof(*s));
}

const char *s3_url(const struct s3 *s)
{
	return s->url;
}

const char *s3_token(const struct s3 *s)
{
	return s->keys.token[0] ? s->keys.token : NULL;
}

int s3_sign(const struct s3 *s, const char *range, struct aws_signed *ret, struct err *e)
{
	const struct aws_get get = {
		.host = s->host,
		.path = s->url + s->path,
		.range = range,
		.region = s->region,
		.now = time(NULL),
	};

	return aws_sign(&s->keys, &get, ret, e);
}

unsigned s3_keys(const struct s3 *s)
{
	return s->renewed;
}

bool s3_renew(struct s3 *s)
{
	char region[AWS_REGION_MAX];
	bool others;

	/* The object stays where it was found. */
	memcpy(region, s->region, sizeof(region));
	read_settings(s);
	memcpy(s->region, region, sizeof(region));
	others = s->fresh.access[0] && s->fresh.secret[0] &&
		 memcmp(&s->fresh, &s->keys, sizeof(s->keys)) != 0;
	if (others)
		s->keys = s->fresh;
	s->renewed += others;
	explicit_bzero(&s->fresh, sizeof(s->fresh));
	return others;
}

const char *s3_code(const char *page, char to[S3_CODE_MAX + 2])
{
	const char *at = strstr(page, "<Code>");
	size_t n = 0;

	to[0] = '\0';
	if (!at)
		return to;
	at += strlen("<Code>");
	while (n < S3_CODE_MAX && isalnum((unsigned char)at[n]))
		n++;
	if (n > 0 && at[n] == '<')
		snprintf(to, S3_CODE_MAX + 2, " %.*s", (int)n, at);
	return to;
}
