/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A handle of libcurl's, with what holds for each request: whom to trust, which redirects are
 * followed, what is too slow. Test: tests/integration/net_{http,s3}_test.c.
 */
#ifndef NET_HTTP_HANDLE_H
#define NET_HTTP_HANDLE_H

#include <curl/curl.h>

#include "port/net.h"

/* For curl_easy_cleanup(). stall_ms: of so long that next to nothing comes. NULL: no memory. */
CURL *http_handle_make(const struct net_target *t, uint32_t stall_ms);

#endif
