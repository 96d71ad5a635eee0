/* SPDX-License-Identifier: Apache-2.0 */
/* See http_handle.h. */
#include "net/http_handle.h"

#include <stdlib.h>
#include <sys/auxv.h>

/* Less is as good as nothing. */
#define HTTP_BYTES_PER_S 1024L
#define HTTP_REDIRECTS 5L

/* NULL: libcurl's own place. As the command curl has it. */
static const char *ca_file(const struct net_target *t)
{
	const char *file = t->ca;

	if (!file)
		file = secure_getenv("CURL_CA_BUNDLE");
	if (!file)
		file = secure_getenv("SSL_CERT_FILE");
	return file && *file ? file : NULL;
}

/* libcurl copies strings. */
CURL *http_handle_make(const struct net_target *t, uint32_t stall_ms)
{
	const char *ca = ca_file(t), *folder = secure_getenv("SSL_CERT_DIR");
	CURL *c = curl_easy_init();
	bool s3 = t->protocol == NET_S3;
	CURLcode rc = CURLE_OK;

	if (!c)
		return NULL;
#define SET(option, value) (rc = rc == CURLE_OK ? curl_easy_setopt(c, option, value) : rc)
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_DNS_CACHE_TIMEOUT, 0L); /* its name may lead elsewhere by the next connection */
	SET(CURLOPT_BUFFERSIZE, 65536L); /* a quarter of a request, while it is under way */
	SET(CURLOPT_USERAGENT, "asyncpf/" ASYNCPF_VERSION);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_REDIR_PROTOCOLS_STR, t->tls ? "https" : "http,https"); /* TLS does not end */
	/* A signature is for one host; where S3 moves a bucket to it wants another one. */
	SET(CURLOPT_FOLLOWLOCATION, (long)!s3);
	SET(CURLOPT_PATH_AS_IS, (long)s3);
	SET(CURLOPT_MAXREDIRS, HTTP_REDIRECTS);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	if (ca)
		SET(CURLOPT_CAINFO, ca);
	if (folder && *folder && !t->ca)
		SET(CURLOPT_CAPATH, folder);
	/* libcurl asks the environment in programs with raised rights, too. */
	if (getauxval(AT_SECURE))
		SET(CURLOPT_PROXY, "");
	SET(CURLOPT_LOW_SPEED_LIMIT, HTTP_BYTES_PER_S);
	SET(CURLOPT_LOW_SPEED_TIME, (long)(stall_ms + 999) / 1000);
	SET(CURLOPT_HTTP_VERSION, (long)(t->only_1_1 ? CURL_HTTP_VERSION_1_1
						      : CURL_HTTP_VERSION_2TLS));
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L); /* a name server that does not answer holds up nobody */
#undef SET
	if (rc == CURLE_OK)
		return c;
	curl_easy_cleanup(c);
	return NULL;
}
