/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/source: how a kind of source presents itself to source.c. A new
 * kind is one file with one of these tables, and one line in source.c.
 */
#ifndef SOURCE_SCHEME_H
#define SOURCE_SCHEME_H

#include "source/source.h"
#include "source/uri.h"

struct src_scheme {
	const char *name;
	bool wraps;              /* may stand before '+', and gets an inner source then */
	bool alone;              /* may stand before ':', and opens the path itself then */
	bool same;               /* has the bytes of what it wraps, and the version */
	const char *const *keys; /* NULL-terminated: the URI keys it takes */
	bool network;            /* its content comes from a server */
	bool path_is_file;       /* where it stands alone */
	/* Keys whose values name a file, and one of a folder that is written to; NULL: none. */
	const char *const *file_keys;
	const char *folder_key;
	/* Checks path and own keys. Pure. The schemes and key names are checked already. */
	int (*check)(const struct uri *u, struct err *e);
	/* Opens; u has passed check(). inner: NULL where it stands alone; owned on success only. */
	int (*open)(const struct uri *u, struct src *inner, const struct src_env *env,
		    struct src **ret, struct err *e);
};

/* How a checked URI is named in messages: of a network without credentials and query. */
void src_shown(const struct uri *u, char *to, size_t bytes);

/* The scheme of that name; NULL: there is none. */
const struct src_scheme *src_scheme_find(const char *name);

extern const struct src_scheme src_file_scheme;
extern const struct src_scheme src_zero_scheme;
extern const struct src_scheme src_delay_scheme;
extern const struct src_scheme src_fault_scheme;
extern const struct src_scheme src_zst_scheme;
extern const struct src_scheme src_nbd_scheme;
extern const struct src_scheme src_nbds_scheme;
extern const struct src_scheme src_nbd_unix_scheme;
extern const struct src_scheme src_nbds_unix_scheme;
extern const struct src_scheme src_http_scheme;
extern const struct src_scheme src_https_scheme;
extern const struct src_scheme src_s3_scheme;
extern const struct src_scheme src_qemu_scheme;
extern const struct src_scheme src_retry_scheme;
extern const struct src_scheme src_cache_scheme;
extern const struct src_scheme src_rate_scheme;
extern const struct src_scheme src_layers_scheme;

#endif
