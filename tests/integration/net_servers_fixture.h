/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real servers of one image, for the tests of network sources: nginx and nbdkit, each in the ways
 * that they serve, as rows of a table. What must be true of every source is tested for each row,
 * what is a protocol's own with its own server.
 */
#ifndef TESTS_INTEGRATION_NET_SERVERS_FIXTURE_H
#define TESTS_INTEGRATION_NET_SERVERS_FIXTURE_H

#include "net_hub_fixture.h"

#include "zst_make.h"

#define SITE_HOST "localhost"
#define SITE_ADDR "127.0.0.1"

struct site;

struct server {
	const char *name;
	const char *program;
	const char *scheme; /* of its URIs */
	void (*start)(struct site *w);
	bool is_plain; /* the simplest of its protocol */
	bool is_http, is_tls, by_tcp;
	const char *of_another; /* what is said of a certificate for another name */
};

/* A server's folder, and the small guest whose image it serves. */
struct site {
	struct svc s;
	struct fix *f;
	unsigned char *image;
	const struct server *server;
	const char *addr; /* where it listens by TCP */
	char control[SVC_PATH_MAX], path[SVC_PATH_MAX], socket[SVC_PATH_MAX];
	char file[SVC_PATH_MAX + 8];
	char uri[512];
};

void site_open(struct site *w, enum apf_faults faults);
void site_close(struct site *w);
/* The image, packed, in the image's place. */
void site_pack(struct site *w);

/* ---- nginx ---- */

/* more: in the server block. */
void nginx(struct site *w, const char *listen, const char *more);
/* By the certificates in its folder. */
void nginx_tls(struct site *w, const char *protocol);

/* ---- nbdkit ---- */

/* By a Unix socket. filter: "--filter=…" or NULL; key: of that filter, or NULL. */
void nbdkit(struct site *w, const char *filter, const char *key);
/* tls: its options, or NULL. */
void nbdkit_port(struct site *w, const char *tls);
void nbdkit_tcp(struct site *w);
/* By the certificates in its folder. */
void nbdkit_tls(struct site *w);

/* ---- the table ---- */

extern const struct server servers[];
extern const unsigned servers_count;

/* The row's server with the image; false, said, where it is not installed. */
bool site_start(struct site *w, const struct server *server, enum apf_faults faults);
/* With `keys`, "a=b&c=d" or "", by that name of its; certificates: whose authority is trusted. */
const char *site_uri_at(struct site *w, const char *wrap, const char *host, const char *keys,
			const struct svc *certificates);
const char *site_uri(struct site *w, const char *wrap, const char *keys);

#endif
