/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See zst_manifest.h. The JSON that a manifest needs and no more: one object, whose values are
 * texts without escapes, whole numbers, and one array of texts. Own code, since the library would
 * else link a JSON library for it, which builds a tree of a hundred thousand texts.
 */
#include "source/zst_manifest.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct reader {
	const char *at, *end;
	struct err *e;
};

struct text {
	const char *at;
	size_t len;
};

static int wrong(const struct reader *r, const char *what)
{
	return err_set(r->e, -EINVAL, "it is no manifest: %s; 'asyncpf image pack --manifest' "
		       "makes "
		       "one", what);
}

static void skip_space(struct reader *r)
{
	while (r->at < r->end &&
	       (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
		r->at++;
}

static bool take(struct reader *r, char c)
{
	skip_space(r);
	if (r->at == r->end || *r->at != c)
		return false;
	r->at++;
	return true;
}

static int take_text(struct reader *r, struct text *ret)
{
	if (!take(r, '"'))
		return wrong(r, "a text is missing");
	ret->at = r->at;
	while (r->at < r->end && *r->at != '"' && *r->at != '\\' && (unsigned char)*r->at >= ' ')
		r->at++;
	ret->len = (size_t)(r->at - ret->at);
	if (r->at == r->end || *r->at != '"')
		return wrong(r, "a text does not end");
	r->at++;
	return 0;
}

static bool is(struct text t, const char *word)
{
	return t.len == strlen(word) && memcmp(t.at, word, t.len) == 0;
}

static int take_number(struct reader *r, uint64_t *ret)
{
	const char *first;
	uint64_t v = 0;

	skip_space(r);
	first = r->at;
	for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++)
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*r->at - '0'), &v))
			return wrong(r, "a number is too large");
	if (r->at == first)
		return wrong(r, "a number is missing");
	*ret = v;
	return 0;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int take_hash(struct reader *r, unsigned char *ret)
{
	struct text t;
	int rc = take_text(r, &t);

	if (rc < 0)
		return rc;
	if (t.len != ZST_HASH_CHARS)
		return wrong(r, "a hash is not 64 digits long");
	for (unsigned i = 0; i < ZST_HASH_BYTES; i++) {
		int high = digit(t.at[2 * i]), low = digit(t.at[2 * i + 1]);

		if (high < 0 || low < 0)
			return wrong(r, "a hash has other digits than 0 to 9 and a to f");
		ret[i] = (unsigned char)(high << 4 | low);
	}
	return 0;
}

static int take_hashes(struct reader *r, struct zst_manifest *m)
{
	/* A text of more hashes than this is longer. One more has room, to be found cut short. */
	size_t max = (size_t)(r->end - r->at) / ZST_HASH_CHARS;
	int rc = 0;

	if (m->hashes)
		return wrong(r, "it has frames twice");
	if (!take(r, '['))
		return wrong(r, "frames is no array");
	m->hashes = malloc((max + 1) * ZST_HASH_BYTES);
	if (!m->hashes)
		return err_set(r->e, -ENOMEM, "out of memory for its hashes");
	if (take(r, ']'))
		return 0;
	do {
		if (m->frames == ZST_FRAMES_MAX)
			return wrong(r, "it has too many frames");
		rc = take_hash(r, m->hashes + (size_t)m->frames * ZST_HASH_BYTES);
		m->frames += rc == 0;
	} while (rc == 0 && take(r, ','));
	return rc == 0 && !take(r, ']') ? wrong(r, "its array does not end") : rc;
}

/* What comes before frames, or behind; each once. */
struct seen {
	bool kind, version, hash, size, frame_bytes;
};

static int take_known(struct reader *r, const char *want, bool *seen)
{
	struct text t;
	int rc = take_text(r, &t);

	if (rc < 0)
		return rc;
	if (*seen || !is(t, want))
		return wrong(r, "its kind or its hash is an unknown one");
	*seen = true;
	return 0;
}

static int take_count(struct reader *r, uint64_t *ret, bool *seen)
{
	if (*seen)
		return wrong(r, "it has a key twice");
	*seen = true;
	return take_number(r, ret);
}

static int take_member(struct reader *r, struct zst_manifest *m, struct seen *seen)
{
	uint64_t version = 0;
	struct text key;
	int rc = take_text(r, &key);

	if (rc < 0)
		return rc;
	if (!take(r, ':'))
		return wrong(r, "a colon is missing");
	if (is(key, "manifest"))
		return take_known(r, ZST_MANIFEST_KIND, &seen->kind);
	if (is(key, "hash"))
		return take_known(r, "sha256", &seen->hash);
	if (is(key, "size"))
		return take_count(r, &m->size, &seen->size);
	if (is(key, "frame_bytes"))
		return take_count(r, &m->frame_bytes, &seen->frame_bytes);
	if (is(key, "frames"))
		return take_hashes(r, m);
	if (!is(key, "version"))
		return wrong(r, "it has a key that is unknown in version 1");
	rc = take_count(r, &version, &seen->version);
	if (rc == 0 && version != ZST_MANIFEST_VERSION)
		return err_set(r->e, -EINVAL, "it is a manifest of version %llu, and this asyncpf "
			       "reads version %u; use a newer one", (unsigned long long)version,
			       ZST_MANIFEST_VERSION);
	return rc;
}

static int take_object(struct reader *r, struct zst_manifest *m)
{
	struct seen seen = {.kind = false};
	uint64_t needed;
	int rc;

	if (!take(r, '{'))
		return wrong(r, "it does not begin with {");
	do
		rc = take_member(r, m, &seen);
	while (rc == 0 && take(r, ','));
	if (rc < 0)
		return rc;
	if (!take(r, '}'))
		return wrong(r, "its object does not end");
	skip_space(r);
	if (r->at != r->end)
		return wrong(r, "something follows it");
	if (!seen.kind || !seen.version || !seen.hash || !seen.size || !seen.frame_bytes ||
	    !m->hashes)
		return wrong(r, "a key is missing");
	if (m->size == 0 || m->frame_bytes == 0)
		return wrong(r, "its size, or that of its frames, is 0");
	needed = (m->size - 1) / m->frame_bytes + 1;
	return needed == m->frames ? 0 : wrong(r, "its frames are not as many as its size tells");
}

int zst_manifest_parse(const char *text, size_t len, struct zst_manifest *ret, struct err *e)
{
	struct reader r = {.at = text, .end = text + len, .e = e};
	struct zst_manifest m = {.size = 0};
	int rc = take_object(&r, &m);

	if (rc < 0) {
		free(m.hashes);
		return rc;
	}
	*ret = m;
	return 0;
}

void zst_manifest_fini(struct zst_manifest *m)
{
	free(m->hashes);
	m->hashes = NULL;
}

int zst_manifest_match(const struct zst_manifest *m, const struct zst_table *t, struct err *e)
{
	if (m->size != t->plain[t->frames])
		return err_set(e, -EINVAL, "the manifest is of an image of %llu bytes, and this "
			       "one "
			       "has %llu; give the manifest that was made with it",
			       (unsigned long long)m->size,
			       (unsigned long long)t->plain[t->frames]);
	if (m->frames != t->frames)
		return err_set(e, -EINVAL, "the manifest has %u frames, and the image %u; give the "
			       "manifest that was made with it", m->frames, t->frames);
	for (uint32_t i = 0; i < t->frames; i++)
		if (t->plain[i] != i * m->frame_bytes)
			return err_set(e, -EINVAL, "the manifest's frame %u begins at byte %llu, "
				       "and "
				       "the image's at %llu; give the manifest that was made with "
"it",
				       i, (unsigned long long)(i * m->frame_bytes),
				       (unsigned long long)t->plain[i]);
	return 0;
}
