/* SPDX-License-Identifier: Apache-2.0 */
/* See zst_frame.h. */
#include "source/zst_frame.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define FRAME_MAGIC 0xfd2fb528u
#define FRAME_FLAGS_AT 4
#define FRAME_FLAG_CHECKSUM 0x04u
#define CHECKSUM_BYTES 4u
/* This much of a hash is in an error's text: enough to tell two of them apart. */
#define SHOWN_CHARS 16

static uint32_t u32_at(const unsigned char *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
	       (uint32_t)at[3] << 24;
}

/*
 * A frame may end with the very checksum that seek tables have. Where all that was decompressed is
 * one such frame, the decoder has compared it with the content.
 */
static bool carries_sum(const unsigned char *packed, size_t len, uint32_t *ret)
{
	if (len <= FRAME_FLAGS_AT + CHECKSUM_BYTES || u32_at(packed) != FRAME_MAGIC ||
	    !(packed[FRAME_FLAGS_AT] & FRAME_FLAG_CHECKSUM) ||
	    ZSTD_findFrameCompressedSize(packed, len) != len)
		return false;
	*ret = u32_at(packed + len - CHECKSUM_BYTES);
	return true;
}

static int check_hash(struct zst_hasher *h, const void *plain, const struct zst_content *want,
		      struct err *e)
{
	unsigned char hash[ZST_HASH_BYTES];
	char have_text[ZST_HASH_CHARS + 1], want_text[ZST_HASH_CHARS + 1];
	int rc = zst_hash(h, plain, want->len, hash, e);

	if (rc < 0 || memcmp(hash, want->hash, sizeof(hash)) == 0)
		return rc;
	zst_hash_text(hash, have_text);
	zst_hash_text(want->hash, want_text);
	return err_set(e, -EIO, "its content has the SHA-256 %.*s..., and the manifest says "
		       "%.*s...",
		       SHOWN_CHARS, have_text, SHOWN_CHARS, want_text);
}

int zst_frame_decode(ZSTD_DCtx *context, struct zst_hasher *hasher, const void *packed,
		     size_t packed_len, void *plain, const struct zst_content *want, struct err *e)
{
	size_t n = ZSTD_decompressDCtx(context, plain, want->len, packed, packed_len);
	uint32_t sum;

	if (ZSTD_isError(n))
		return err_set(e, -EIO, "%s", ZSTD_getErrorName(n));
	if (n != want->len)
		return err_set(e, -EIO, "it holds %zu bytes, and the seek table says "
			       "%u", n, want->len);
	if (want->sum) {
		if (!carries_sum(packed, packed_len, &sum))
			sum = (uint32_t)XXH64(plain, want->len, 0);
		if (sum != *want->sum)
			return err_set(e, -EIO, "its content has the checksum %08x, and the seek "
				       "table says %08x", sum, *want->sum);
	}
	return want->hash ? check_hash(hasher, plain, want, e) : 0;
}

/* There is no struct of ours around it. */
static EVP_MD_CTX *context_of(struct zst_hasher *h)
{
	return (EVP_MD_CTX *)(void *)h;
}

struct zst_hasher *zst_hasher_open(void)
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();

	if (c && EVP_DigestInit_ex(c, EVP_sha256(), NULL))
		return (struct zst_hasher *)(void *)c;
	EVP_MD_CTX_free(c);
	return NULL;
}

void zst_hasher_close(struct zst_hasher *h)
{
	EVP_MD_CTX_free(context_of(h));
}

int zst_hash(struct zst_hasher *h, const void *bytes, size_t len,
	     unsigned char ret[static ZST_HASH_BYTES], struct err *e)
{
	EVP_MD_CTX *c = context_of(h);
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	if (!EVP_DigestInit_ex(c, NULL, NULL) || !EVP_DigestUpdate(c, bytes, len) ||
	    !EVP_DigestFinal_ex(c, hash, &n) || n != ZST_HASH_BYTES)
		return err_set(e, -EIO, "OpenSSL does not compute its SHA-256");
	memcpy(ret, hash, ZST_HASH_BYTES);
	return 0;
}

void zst_hash_text(const unsigned char hash[static ZST_HASH_BYTES],
		   char ret[static ZST_HASH_CHARS + 1])
{
	for (unsigned i = 0; i < ZST_HASH_BYTES; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", hash[i]);
}
