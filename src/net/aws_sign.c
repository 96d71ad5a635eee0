/* SPDX-License-Identifier: Apache-2.0 */
/* See aws_sign.h. */
#include "net/aws_sign.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define SHA_BYTES 32u

static void hex(const unsigned char *from, char to[2 * SHA_BYTES + 1])
{
	for (unsigned i = 0; i < SHA_BYTES; i++)
		snprintf(to + 2 * i, 3, "%02x", from[i]);
}

static const char *signed_names(const struct aws_keys *k)
{
	return k->token[0] ? "host;range;x-amz-content-sha256;x-amz-date;x-amz-security-token"
			   : "host;range;x-amz-content-sha256;x-amz-date";
}

/* What the server makes of the request as well, hashed; the token is never copied. */
static bool hash_request(const struct aws_keys *k, const struct aws_get *g, const char *date,
			 char ret[2 * SHA_BYTES + 1])
{
	const char *const parts[] = {
		"GET\n", g->path, "\n\n",
		"host:", g->host, "\n",
		"range:", g->range, "\n",
		"x-amz-content-sha256:" AWS_EMPTY_SHA256 "\n",
		"x-amz-date:", date, "\n",
		k->token[0] ? "x-amz-security-token:" : "", k->token, k->token[0] ? "\n" : "",
		"\n", signed_names(k), "\n" AWS_EMPTY_SHA256,
	};
	unsigned char sum[SHA_BYTES];
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	bool good = c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1;

	for (size_t i = 0; good && i < sizeof(parts) / sizeof(parts[0]); i++)
		good = EVP_DigestUpdate(c, parts[i], strlen(parts[i])) == 1;
	good = good && EVP_DigestFinal_ex(c, sum, NULL) == 1;
	EVP_MD_CTX_free(c);
	if (good)
		hex(sum, ret);
	return good;
}

static bool mac(const void *key, size_t len, const char *text, unsigned char ret[SHA_BYTES])
{
	return HMAC(EVP_sha256(), key, (int)len, (const unsigned char *)text, strlen(text), ret,
		    NULL) != NULL;
}

/* From the secret to the signature, each step the key of the next. */
static bool sign(const struct aws_keys *k, const char *day, const char *region,
		 const char *to_sign, char ret[2 * SHA_BYTES + 1])
{
	char secret[AWS_SECRET_MAX + 4] = "AWS4";
	unsigned char a[SHA_BYTES], b[SHA_BYTES];
	bool good;

	memcpy(secret + 4, k->secret, strlen(k->secret));
	good = mac(secret, 4 + strlen(k->secret), day, a) && mac(a, sizeof(a), region, b) &&
	       mac(b, sizeof(b), "s3", a) && mac(a, sizeof(a), "aws4_request", b) &&
	       mac(b, sizeof(b), to_sign, a);
	if (good)
		hex(a, ret);
	explicit_bzero(secret, sizeof(secret));
	explicit_bzero(a, sizeof(a));
	explicit_bzero(b, sizeof(b));
	return good;
}

int aws_sign(const struct aws_keys *k, const struct aws_get *g, struct aws_signed *ret,
	     struct err *e)
{
	char day[16], scope[AWS_REGION_MAX + 48], to_sign[AWS_REGION_MAX + 192];
	char hash[2 * SHA_BYTES + 1], signature[2 * SHA_BYTES + 1];
	struct tm tm;

	if (!gmtime_r(&g->now, &tm) ||
	    strftime(ret->date, sizeof(ret->date), "%Y%m%dT%H%M%SZ", &tm) == 0)
		return err_set(e, -EINVAL, "this host's clock cannot be right");
	(void)strftime(day, sizeof(day), "%Y%m%d", &tm);
	snprintf(scope, sizeof(scope), "%s/%s/s3/aws4_request", day, g->region);
	if (!hash_request(k, g, ret->date, hash))
		return err_sys(e, -ENOMEM, "SHA-256");
	snprintf(to_sign, sizeof(to_sign), "AWS4-HMAC-SHA256\n%s\n%s\n%s", ret->date, scope, hash);
	if (!sign(k, day, g->region, to_sign, signature))
		return err_sys(e, -ENOMEM, "HMAC");
	snprintf(ret->authorization, sizeof(ret->authorization),
		 "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%s", k->access,
		 scope, signed_names(k), signature);
	return 0;
}
