/* SPDX-License-Identifier: Apache-2.0 */
/* See cache.h: opening, which image it is, memory; the URI. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "source/cache.h"
#include "source/scheme.h"

#define MEMORY_MIN (1ull << 20)
#define MEMORY_MAX (1ull << 40)
#define IDENTITY_MAX (2 * URI_LEN_MAX)

void cache_free(struct cache_src *c)
{
	if (c->data != c->file)
		c->io.ops->close(c->io.ctx, c->data);
	if (c->file)
		c->io.ops->close(c->io.ctx, c->file);
	for (unsigned i = 0; i < WORK_THREADS_MAX; i++)
		zst_hasher_close(c->hashers[i]);
	zst_hasher_close(c->hasher);
	zst_manifest_fini(&c->manifest);
	free(c->spare);
	free(c->lookups);
	free(c->fills);
	free(c->room);
	free(c->records);
	free(c->path);
	free(c->name);
	wrap_free(&c->wrap);
}

static int out_of_memory(const struct cache_src *c, struct err *e)
{
	return err_set(e, -ENOMEM, "cache of %s: out of memory", c->name);
}

/* ---- the file ---- */

static int open_file(struct cache_src *c, uint64_t bytes, bool anew, struct err *e)
{
	struct cache_layout l = cache_layout_for(bytes ? bytes : SRC_CACHE_BYTES);
	unsigned char head[CACHE_HEAD_BYTES];
	const struct io_shared want = {.path = c->path, .head = head, .head_len = sizeof(head),
				       .bytes = cache_file_bytes(&l), .anew = anew};

	if (cache_head_write(c->hasher, &l, head) < 0)
		return err_set(e, -EIO, "OpenSSL does not compute SHA-256");
	return c->io.ops->open_shared(c->io.ctx, &want, &c->file, &c->read_only, e);
}

static int read_head(struct cache_src *c, struct err *e)
{
	unsigned char head[CACHE_HEAD_BYTES];
	int rc = c->io.ops->load(c->io.ctx, c->file, c->path, 0, head, sizeof(head), e);

	if (rc == 0 && cache_head_read(c->hasher, head, &c->layout) < 0)
		rc = err_set(e, -EINVAL, "%s is no cache of this version", c->path);
	return rc;
}

/* What is no cache, or was one, is made anew: nothing in it is worth more than that. */
static int get_file(struct cache_src *c, const struct src_cache_opts *o, bool uncached,
		    struct err *e)
{
	int rc = open_file(c, o->bytes, false, e);

	if (rc == 0 && read_head(c, e) < 0) {
		if (c->read_only)
			return e->code;
		c->io.ops->close(c->io.ctx, c->file);
		c->file = c->data = NULL;
		rc = open_file(c, o->bytes, true, e);
		if (rc == 0)
			rc = read_head(c, e);
	}
	if (rc < 0)
		return rc;
	if (o->bytes && cache_layout_for(o->bytes).buckets != c->layout.buckets)
		return err_set(e, -EEXIST, "%s was made for another size, of about %s; give that "
			       "or none as cache-size=, or remove the file", c->path,
			       SIZE_WORD(cache_file_bytes(&c->layout)));
	c->data = c->file;
	if (!uncached)
		return 0;
	c->data = NULL;
	{
		bool read_only;
		const struct io_shared again = {.path = c->path, .head = "", .head_len = 0};

		rc = c->io.ops->open_shared(c->io.ctx, &again, &c->data, &read_only, e);
	}
	if (rc == 0)
		c->io.ops->uncached(c->io.ctx, c->data);
	return rc;
}

/* ---- which image it is ---- */

static int load_text(const char *path, const struct src_env *env, char **ret, size_t *ret_len,
		     struct err *e)
{
	struct src *file;
	int rc = src_file_open(path, env, &file, e);

	if (rc < 0)
		return rc;
	*ret_len = file->size;
	*ret = file->size > ZST_MANIFEST_BYTES_MAX(ZST_FRAMES_MAX) ? NULL : malloc(file->size + 1);
	rc = *ret ? src_load(file, 0, *ret, file->size, e)
		  : err_set(e, -ENOMEM, "open %s: too large, or out of memory", path);
	src_close(file);
	if (rc < 0)
		free(*ret);
	return rc;
}

/* ret: the hash of the manifest, which says all of the content. */
static int load_manifest(struct cache_src *c, const char *path, const struct src_env *env,
			 unsigned char ret[static ZST_HASH_BYTES], struct err *e)
{
	struct err why;
	char *text;
	size_t len;
	int rc = load_text(path, env, &text, &len, e);

	if (rc < 0)
		return rc;
	rc = zst_manifest_parse(text, len, &c->manifest, &why);
	if (rc == 0)
		rc = zst_hash(c->hasher, text, len, ret, &why);
	free(text);
	if (rc < 0)
		return err_set(e, rc, "open %s: %s", path, why.text);
	if (c->manifest.size != c->wrap.src.size)
		return err_set(e, -EINVAL, "open %s: it is of %llu bytes, and %s has %llu", path,
			       (unsigned long long)c->manifest.size, c->name,
			       (unsigned long long)c->wrap.src.size);
	if (CACHE_CHUNK_BYTES % c->manifest.frame_bytes != 0)
		return err_set(e, -ENOTSUP, "open %s: its pieces have %llu bytes, and a cache "
			       "takes those of which 65536 is a multiple ('asyncpf image pack "
			       "--frame-bytes')", path,
			       (unsigned long long)c->manifest.frame_bytes);
	return 0;
}

static int identify(struct cache_src *c, const char *identity, const struct src_cache_opts *o,
		    const struct src_env *env, struct err *e)
{
	unsigned char hash[ZST_HASH_BYTES] = {0};
	const char *version = c->wrap.inner->version ? c->wrap.inner->version : "";
	char text[IDENTITY_MAX + 1000], of_manifest[ZST_HASH_CHARS + 1];
	int rc = 0;

	if (o->manifest) {
		rc = load_manifest(c, o->manifest, env, hash, e);
		zst_hash_text(hash, of_manifest);
		/* Whatever its name. */
		identity = "";
		version = of_manifest;
	} else if (!o->key && !*version) {
		return err_set(e, -EINVAL, "cache of %s: nothing says which version of it this is; "
			       "give cache-key=WORD, another one when it changes, or "
			       "cache-manifest=FILE", c->name);
	}
	if (rc < 0)
		return rc;
	rc = snprintf(text, sizeof(text), "%llu %s\n%s\n%s\n%s",
		      (unsigned long long)c->wrap.src.size, o->manifest ? "manifest" : "name",
		      version, o->key ? o->key : "", identity);
	if (rc < 0 || (size_t)rc >= sizeof(text))
		return err_set(e, -ENAMETOOLONG, "cache of %s: its name is too long", c->name);
	rc = zst_hash(c->hasher, text, (size_t)rc, hash, e);
	memcpy(c->image, hash, sizeof(c->image));
	return rc;
}

/* ---- memory ---- */

static int get_memory(struct cache_src *c, uint64_t bytes, struct err *e)
{
	uint64_t fills = min_u64(max_u64(bytes / 3 / CACHE_CHUNK_BYTES, CACHE_FILLS_MIN),
				 CACHE_FILLS_MAX);

	c->fill_count = (uint32_t)min_u64(fills, c->wrap.reads_max);
	c->record_count = max_u64((bytes - bytes / 3) / sizeof(*c->records), 1);
	c->spare = calloc(CACHE_PIECES_SPARE, sizeof(*c->spare));
	c->lookups = calloc(CACHE_LOOKUPS, sizeof(*c->lookups));
	c->fills = calloc(c->fill_count, sizeof(*c->fills));
	c->room = malloc((size_t)c->fill_count * CACHE_CHUNK_BYTES);
	c->records = calloc(c->record_count, sizeof(*c->records));
	if (!c->spare || !c->lookups || !c->fills || !c->room || !c->records)
		return out_of_memory(c, e);
	for (uint32_t i = 0; i < CACHE_PIECES_SPARE; i++)
		list_append(&c->free_pieces, &c->spare[i].link);
	for (uint32_t i = 0; i < CACHE_LOOKUPS; i++)
		cache_lookup_init(c, &c->lookups[i]);
	for (uint32_t i = 0; i < CACHE_TOUCHES; i++)
		cache_touch_init(c, &c->touches[i]);
	for (uint32_t i = 0; i < c->fill_count; i++)
		cache_fill_init(c, &c->fills[i], c->room + (size_t)i * CACHE_CHUNK_BYTES);
	return 0;
}

static int get_workers(struct cache_src *c, struct err *e)
{
	int count = c->work.ops ? c->work.ops->threads(c->work.ctx, e)
				: err_set(e, -ENOTSUP, "cache of %s: there is nobody to check it",
					  c->name);

	for (int i = 0; i < count; i++) {
		c->hashers[i] = zst_hasher_open();
		if (!c->hashers[i])
			return out_of_memory(c, e);
	}
	return count < 0 ? count : 0;
}

static int get_names(struct cache_src *c, const char *name, const char *dir)
{
	size_t len = strlen(dir) + sizeof("/" CACHE_FILE);

	c->name = strdup(name);
	c->path = malloc(len);
	c->hasher = zst_hasher_open();
	if (!c->name || !c->path || !c->hasher)
		return -ENOMEM;
	(void)snprintf(c->path, len, "%s/%s", dir, CACHE_FILE);
	return 0;
}

int src_cache_open(struct src *inner, const char *name, const char *identity,
		   const struct src_cache_opts *o, const struct src_env *env, struct src **ret,
		   struct err *e)
{
	struct err why = {0};
	struct cache_src *c;
	struct wrap *w;
	int rc;

	if (!env->io.ops || !env->io.ops->open_shared)
		return err_set(e, -ENOTSUP, "cache of %s: files cannot be shared here", name);
	w = wrap_open(&cache_kind, inner, env, &rc, e);
	if (!w)
		return rc;
	c = CONTAINER_OF(w, struct cache_src, wrap);
	c->io = env->io;
	c->work = env->work;
	c->counts = env->counts ? env->counts : &c->own_counts;
	rc = get_names(c, name, o->dir) < 0 ? err_set(&why, -ENOMEM, "out of memory") : 0;
	if (rc == 0)
		rc = identify(c, identity, o, env, &why);
	if (rc == 0)
		rc = get_file(c, o, env->uncached, &why);
	if (rc == 0)
		rc = get_memory(c, o->memory, &why);
	if (rc == 0)
		rc = get_workers(c, &why);
	if (rc < 0) {
		cache_free(c);
		return err_set(e, rc, "%s", why.text);
	}
	*ret = &w->src;
	return 0;
}

/* ---- by URI ---- */

static int cache_parse(const struct uri *u, struct src_cache_opts *o, struct err *e)
{
	int rc;

	*o = (struct src_cache_opts){
		.dir = uri_value(u, "cache-dir"),
		.memory = SRC_CACHE_MEMORY,
		.key = uri_value(u, "cache-key"),
		.manifest = uri_value(u, "cache-manifest"),
	};
	if (!o->dir)
		return err_set(e, -EINVAL, "source URI: cache needs cache-dir=, a folder that VMs "
			       "share");
	if (o->key && strlen(o->key) > 200)
		return err_set(e, -EINVAL, "source URI: cache-key= is longer than 200 bytes");
	if ((rc = uri_size(u, "cache-size", &o->bytes, e)) < 0 ||
	    (rc = uri_size(u, "cache-memory", &o->memory, e)) < 0)
		return rc;
	if (o->bytes && (o->bytes < CACHE_BYTES_MIN || o->bytes > CACHE_BYTES_MAX))
		return err_set(e, -EINVAL, "source URI: cache-size= is not from 16M to 64T");
	if (o->memory < MEMORY_MIN || o->memory > MEMORY_MAX)
		return err_set(e, -EINVAL, "source URI: cache-memory= is not from 1M to 1T");
	return 0;
}

static int cache_scheme_check(const struct uri *u, struct err *e)
{
	struct src_cache_opts opts;

	return cache_parse(u, &opts, e);
}

/*
 * Where it is, to be freed: shown, but for what a relative path means, which is another file, or
 * another server's socket, in each folder.
 */
static int place_of(const struct uri *u, const char *shown, char **ret, struct err *e)
{
	bool is_file = src_scheme_find(u->scheme[u->schemes - 1])->path_is_file;
	const char *path = is_file ? u->path : uri_value(u, "socket");
	char *real = NULL;
	size_t bytes;

	if (path && *path != '/') {
		real = realpath(path, NULL);
		if (!real)
			return err_sys(e, -errno, "cache of %s: where that is", shown);
	}
	bytes = strlen(shown) + (real ? strlen(real) : 0) + 1;
	*ret = malloc(bytes);
	if (*ret)
		(void)snprintf(*ret, bytes, "%s%s", real && is_file ? "" : shown, real ? real : "");
	free(real);
	return *ret ? 0 : err_set(e, -ENOMEM, "cache of %s: out of memory", shown);
}

/*
 * What decides the content of what is wrapped, beside its version: kinds that do not leave it as
 * it is, the place, keys that choose, and of a URL its query. Credentials are not part of it.
 */
static int identity_of(const struct uri *u, const char *place, char *to, size_t bytes)
{
	static const char *const choices[] = {"block", "size", "endpoint", "region"};
	char query[URI_LEN_MAX + 1];
	size_t len = 0;
	unsigned i = 0;

	if (uri_url_choice(u, query, sizeof(query)) < 0)
		return -ENAMETOOLONG;
	while (strcmp(u->scheme[i], "cache") != 0)
		i++;
	for (i++; i < u->schemes && len < bytes; i++)
		if (!src_scheme_find(u->scheme[i])->same)
			len += (size_t)snprintf(to + len, bytes - len, "%s+", u->scheme[i]);
	for (i = 0; i < ARRAY_LEN(choices) && len < bytes; i++)
		if (uri_value(u, choices[i]))
			len += (size_t)snprintf(to + len, bytes - len, "%s=%s&", choices[i],
						uri_value(u, choices[i]));
	if (len < bytes)
		len += (size_t)snprintf(to + len, bytes - len, "%s%s%s", place, *query ? "?" : "",
					query);
	return len < bytes ? 0 : -ENAMETOOLONG;
}

static int cache_scheme_open(const struct uri *u, struct src *inner, const struct src_env *env,
			     struct src **ret, struct err *e)
{
	char shown[URI_LEN_MAX + 1], identity[IDENTITY_MAX], *place;
	struct src_cache_opts opts;
	int rc = cache_parse(u, &opts, e);

	if (rc < 0)
		return rc;
	src_shown(u, shown, sizeof(shown));
	rc = place_of(u, shown, &place, e);
	if (rc < 0)
		return rc;
	rc = identity_of(u, place, identity, sizeof(identity));
	free(place);
	if (rc < 0)
		return err_set(e, -ENAMETOOLONG, "cache of %s: its name is too long", shown);
	return src_cache_open(inner, shown, identity, &opts, env, ret, e);
}

static const char *const cache_file_keys[] = {"cache-manifest", NULL};
static const char *const cache_keys[] = {"cache-dir", "cache-size", "cache-key", "cache-manifest",
					 "cache-memory", NULL};

const struct src_scheme src_cache_scheme = {
	.name = "cache",
	.wraps = true,
	.same = true,
	.file_keys = cache_file_keys,
	.folder_key = "cache-dir",
	.keys = cache_keys,
	.check = cache_scheme_check,
	.open = cache_scheme_open,
};
