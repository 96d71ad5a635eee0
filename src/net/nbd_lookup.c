/* SPDX-License-Identifier: Apache-2.0 */
/* See nbd_lookup.h. */
#include "net/nbd_lookup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/types.h"
#include "net/nbd_handle.h"

struct nbd_lookup {
	struct net_errand errand;
	struct nbd_handle *h;
	/* The loop's: not for the errand's thread. */
	nbd_looked_up *done;
	void *ctx;
	char *host, *port;
	int code;
	char why[ERR_TEXT_MAX];
};

static void run(struct net_errand *er)
{
	struct nbd_lookup *l = CONTAINER_OF(er, struct nbd_lookup, errand);
	int rc = nbd_aio_connect_tcp(l->h, l->host, l->port);

	l->code = rc < 0 ? -nbd_get_errno() : 0;
	snprintf(l->why, sizeof(l->why), "%s", rc < 0 ? nbd_last_words() : "");
}

static void lookup_free(struct nbd_lookup *l)
{
	free(l->host);
	free(l->port);
	free(l);
}

static void drop(struct net_errand *er)
{
	struct nbd_lookup *l = CONTAINER_OF(er, struct nbd_lookup, errand);

	nbd_close(l->h);
	lookup_free(l);
}

static void done(struct net_errand *er)
{
	struct nbd_lookup *l = CONTAINER_OF(er, struct nbd_lookup, errand);

	l->done(l->ctx, l->h, l->code, l->why);
	lookup_free(l);
}

struct nbd_lookup *nbd_lookup_start(struct net_loop *loop, const struct net_target *t,
				    struct nbd_handle *h, nbd_looked_up *looked_up, void *ctx,
				    struct err *e)
{
	struct nbd_lookup *l = calloc(1, sizeof(*l));

	(void)err_set(e, -ENOMEM, "out of memory");
	if (l) {
		l->errand = (struct net_errand){.run = run, .done = done, .drop = drop};
		l->h = h;
		l->done = looked_up;
		l->ctx = ctx;
		l->host = strdup(t->host);
		l->port = strdup(t->port);
	}
	if (l && l->host && l->port && net_errand_start(loop, &l->errand, e) >= 0)
		return l;
	if (l)
		lookup_free(l);
	nbd_close(h);
	return NULL;
}

void nbd_lookup_give_up(struct nbd_lookup *l)
{
	if (l)
		net_errand_give_up(&l->errand);
}

bool nbd_is_address(const char *host)
{
	unsigned char room[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, room) == 1 || inet_pton(AF_INET6, host, room) == 1;
}
