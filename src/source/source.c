/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a URI to a stack of sources: which schemes exist, which may stand where, who
 * takes which key. Everything is checked before the first thing is opened. Owns
 * nothing. Tests: tests/unit/uri_test.c (messages), source_test.c (stacks).
 */
#include "source/source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "source/scheme.h"

static const struct src_scheme *const schemes[] = {
	&src_file_scheme,
	&src_zero_scheme,
	&src_delay_scheme,
	&src_fault_scheme,
	&src_zst_scheme,
	&src_nbd_scheme,
	&src_nbds_scheme,
	&src_nbd_unix_scheme,
	&src_nbds_unix_scheme,
	&src_http_scheme,
	&src_https_scheme,
	&src_s3_scheme,
	&src_qemu_scheme,
	&src_retry_scheme,
	&src_cache_scheme,
	&src_rate_scheme,
	&src_layers_scheme,
};

/* A checked URI. chain[i] belongs to uri.scheme[i]. */
struct src_plan {
	struct uri uri;
	const struct src_scheme *chain[URI_SCHEMES_MAX];
};

/* Words joined for a message; longer than a message, so that err cuts it, visibly. */
struct words {
	char text[ERR_TEXT_MAX];
	size_t len;
};

static void words_add(struct words *w, const char *word, const char *mark)
{
	size_t room = sizeof(w->text) - w->len;
	int n = snprintf(w->text + w->len, room, "%s%s%s", w->len ? ", " : "", word, mark);

	if (n > 0)
		w->len += min_u64((uint64_t)n, room - 1);
}

const struct src_scheme *src_scheme_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		if (strcmp(schemes[i]->name, name) == 0)
			return schemes[i];
	}
	return NULL;
}

static int src_unknown_scheme(const char *name, struct err *e)
{
	struct words w = {.text = ""};

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
		words_add(&w, schemes[i]->name, schemes[i]->alone ? ":" : "+");
	return err_set(e, -EINVAL, "source URI: no scheme '%.40s'; there are %s (a file with ':' "
		       "in its name is written ./NAME)", name, w.text);
}

/* Looks each scheme up; only the last may, and must, be one that wraps nothing. */
static int src_plan_chain(struct src_plan *p, struct err *e)
{
	const struct uri *u = &p->uri;

	for (unsigned i = 0; i < u->schemes; i++) {
		bool last = i + 1 == u->schemes;

		p->chain[i] = src_scheme_find(u->scheme[i]);
		if (!p->chain[i])
			return src_unknown_scheme(u->scheme[i], e);
		if (last && !p->chain[i]->alone)
			return err_set(e, -EINVAL, "source URI: '%s' needs a source to wrap, as in "
				       "%s+file:PATH", u->scheme[i], u->scheme[i]);
		if (!last && !p->chain[i]->wraps)
			return err_set(e, -EINVAL, "source URI: '%s' wraps nothing, so '+%.40s' "
				       "cannot follow it", u->scheme[i], u->scheme[i + 1]);
		/* They would share their keys. */
		for (unsigned k = 0; k < i; k++) {
			if (p->chain[k] == p->chain[i])
				return err_set(e, -EINVAL, "source URI: scheme '%s' stands twice",
					       u->scheme[i]);
		}
	}
	return 0;
}

static bool src_scheme_takes(const struct src_scheme *scheme, const char *key)
{
	for (const char *const *k = scheme->keys; *k; k++) {
		if (strcmp(*k, key) == 0)
			return true;
	}
	return false;
}

static int src_unknown_key(const struct src_plan *p, const char *key, struct err *e)
{
	struct words w = {.text = ""};

	for (unsigned i = 0; i < p->uri.schemes; i++) {
		for (const char *const *k = p->chain[i]->keys; *k; k++)
			words_add(&w, *k, "");
	}
	return err_set(e, -EINVAL, "source URI: nobody here takes the key '%.40s'; there are %s",
		       key, w.text);
}

static int src_plan_keys(const struct src_plan *p, struct err *e)
{
	for (unsigned i = 0; i < p->uri.params; i++) {
		const char *key = p->uri.param[i].key;
		bool taken = false;

		for (unsigned k = 0; k < p->uri.schemes; k++)
			taken = taken || src_scheme_takes(p->chain[k], key);
		if (!taken)
			return src_unknown_key(p, key, e);
	}
	return 0;
}

/*
 * Behind a URL's '?' stands what is the server's. Where it has the name of a wrapper's key it is
 * taken for a slip; %XX for one of its letters says that it is none.
 */
static int src_plan_query(const struct src_plan *p, struct err *e)
{
	const char *at = p->uri.url ? strchr(p->uri.path, '?') : NULL;

	while (at) {
		const char *word = at + 1;
		size_t len = strcspn(word, "=&;");

		for (unsigned i = 0; i + 1 < p->uri.schemes; i++) {
			for (const char *const *k = p->chain[i]->keys; *k; k++) {
				if (strlen(*k) == len && strncmp(*k, word, len) == 0)
					return err_set(e, -EINVAL, "source URI: '%s' is a key of "
						       "'%s': behind a URL keys stand after '#', "
						       "not '?'", *k, p->chain[i]->name);
			}
		}
		at = strpbrk(word, "&;");
	}
	return 0;
}

static int src_plan_make(const char *uri, struct src_plan *p, struct err *e)
{
	int rc = uri_parse(uri, &p->uri, e);

	if (rc == 0)
		rc = src_plan_chain(p, e);
	if (rc == 0)
		rc = src_plan_keys(p, e);
	if (rc == 0)
		rc = src_plan_query(p, e);
	for (unsigned i = 0; rc == 0 && i < p->uri.schemes; i++)
		rc = p->chain[i]->check(&p->uri, e);
	return rc;
}

int src_check(const char *uri, struct err *e)
{
	struct src_plan plan;

	return src_plan_make(uri, &plan, e);
}

/* Those of one scheme; last: what stands behind it is a path, if it is that kind. */
static int src_uses_of(const struct src_scheme *s, const struct uri *u, bool last,
		       src_uses_fn *uses, void *ctx, struct err *e)
{
	enum src_use of_keys = s->network ? SRC_USES_TRUST : SRC_USES_FILE;
	const char *folder = s->folder_key ? uri_value(u, s->folder_key) : NULL;
	int rc = s->network ? uses(ctx, SRC_USES_NETWORK, NULL, e) : 0;

	if (rc == 0 && last && s->path_is_file)
		rc = uses(ctx, SRC_USES_FILE, u->path, e);
	for (const char *const *k = s->file_keys; k && *k && rc == 0; k++)
		if (uri_value(u, *k))
			rc = uses(ctx, of_keys, uri_value(u, *k), e);
	if (rc == 0 && folder)
		rc = uses(ctx, SRC_USES_FOLDER, folder, e);
	return rc;
}

int src_uses(const char *uri, src_uses_fn *uses, void *ctx, struct err *e)
{
	struct src_plan plan;
	int rc = src_plan_make(uri, &plan, e);

	for (unsigned i = 0; rc == 0 && i < plan.uri.schemes; i++)
		rc = src_uses_of(plan.chain[i], &plan.uri, i + 1 == plan.uri.schemes, uses, ctx,
				 e);
	return rc;
}

/*
 * Opens the outer `count` schemes around *s, from the inside out; each wrapper owns what it was
 * given once it is open. *s is the outermost that is open, whatever comes of it.
 */
static int src_plan_open(const struct src_plan *p, unsigned count, const struct src_env *env,
			 struct src **s, struct err *e)
{
	int rc = 0;

	while (rc == 0 && count-- > 0)
		rc = p->chain[count]->open(&p->uri, *s, env, s, e);
	return rc;
}

int src_open(const char *uri, const struct src_env *env, struct src **ret, struct err *e)
{
	struct src_plan plan;
	struct src *s = NULL;
	int rc = src_plan_make(uri, &plan, e);

	if (rc == 0)
		rc = src_plan_open(&plan, plan.uri.schemes, env, &s, e);
	if (rc == 0)
		*ret = s;
	else
		src_close(s);
	return rc;
}

int src_wrap(const char *wrappers, struct src *inner, const struct src_env *env, struct src **ret,
	     struct err *e)
{
	size_t names = strcspn(wrappers, "?");
	char uri[URI_LEN_MAX + 1];
	struct src_plan plan;
	struct src *s = inner;
	int rc = 0, n;

	/* The innermost scheme is for the grammar: not opened, nor its file looked for. */
	n = snprintf(uri, sizeof(uri), "%.*s+file:/-%s", (int)names, wrappers, wrappers + names);
	if (strcspn(wrappers, ":") < names)
		/* Behind the colon may stand a password. */
		rc = err_set(e, -EINVAL, "wrappers '%.*s': only such as delay?ms=20, without "
			     "what they wrap", (int)min_u64(strcspn(wrappers, ":"), 80), wrappers);
	else if (n < 0 || (size_t)n >= sizeof(uri))
		rc = err_set(e, -ENAMETOOLONG, "wrappers '%.80s...': too long", wrappers);
	if (rc == 0)
		rc = src_plan_make(uri, &plan, e);
	if (rc == 0)
		rc = src_plan_open(&plan, plan.uri.schemes - 1, env, &s, e);
	if (rc == 0)
		*ret = s;
	else
		src_close(s);
	return rc;
}
