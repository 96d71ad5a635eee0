/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seam: page sources that lie behind a network. Who knows the syntax of a URI (source/net.c) says
 * here what it means; who speaks the protocols opens it. The shipped implementation is net/hub.c.
 *
 * Threads: open is called under the caller's lock (the VM lock), which it lets go of while it waits
 * for the server. What it opens is a source as port/source.h has it.
 */
#ifndef PORT_NET_H
#define PORT_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct src;

/* Of whoever opens them, at a time. */
#define NET_SOURCES_MAX 256u
/* Of each; and descriptors of one, which the loop that waits for it has a second of. */
#define NET_CONNECTIONS_MAX 64u
#define NET_CONNECTION_FILES 2u
#define NET_DEPTH_MAX 256u
#define NET_MS_MAX 600000u

enum net_protocol {
	NET_NBD,
	NET_HTTP,
	NET_S3,
	NET_PROTOCOLS,
};

/* Whether S3 has the bucket in the path or in the host's name. ANY: as the endpoint has it. */
enum net_s3_style {
	NET_S3_ANY,
	NET_S3_PATH,
	NET_S3_HOST,
};

/* Borrowed strings, valid during the call. NULL or 0: not given, the protocol's own choice. */
struct net_target {
	enum net_protocol protocol;
	bool tls;
	const char *name;       /* for messages: no credentials, nothing of a query */
	const char *url;        /* HTTP, whole */
	const char *host, *port; /* NBD by TCP; host NULL: socket is given */
	const char *socket;     /* path of a Unix socket */
	const char *export;     /* never NULL with NBD */
	const char *user;       /* of TLS with keys that both know */
	const char *certificates, *keys; /* a folder; a file */
	const char *bucket, *object; /* S3; the object's name not encoded, without a first '/' */
	const char *profile, *region, *endpoint; /* S3 */
	enum net_s3_style style;
	const char *ca;         /* HTTP, S3: a file of certificates that are trusted */
	bool any_version;       /* HTTP: taken without an ETag or a time of the last change */
	bool only_1_1;          /* HTTP, S3: never version 2 */
	uint32_t connections;   /* at most */
	uint32_t depth;         /* requests in flight at most */
	uint32_t connect_ms;    /* a connection, and opening as a whole */
	uint32_t stall_ms;      /* what has not been answered for that long is asked for again */
};

struct net_ops {
	/* 0, or -Exxx with text, *ret untouched; -ENOTSUP: the protocol was not built in. */
	int (*open)(void *ctx, const struct net_target *t, uint32_t reads_max, struct src **ret,
		    struct err *e);
};

struct net {
	const struct net_ops *ops; /* NULL: there is no network */
	void *ctx;
};

#endif
