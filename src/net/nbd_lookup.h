/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection of libnbd's to a host whose name is looked up first, on a thread of its own, since
 * that blocks. All else is the loop's thread's.
 * Test: tests/integration/net_nbd_test.c.
 */
#ifndef NET_NBD_LOOKUP_H
#define NET_NBD_LOOKUP_H

#include <libnbd.h>
#include <stdbool.h>

#include "net/loop.h"
#include "port/net.h"

struct nbd_lookup;

/* The name is known, or is not (code < 0, why): the handle is given back, and may be dead. */
typedef void nbd_looked_up(void *ctx, struct nbd_handle *h, int code, const char *why);

/* Takes the handle. NULL: e says why not, and the handle is closed. */
struct nbd_lookup *nbd_lookup_start(struct net_loop *loop, const struct net_target *t,
				    struct nbd_handle *h, nbd_looked_up *done, void *ctx,
				    struct err *e);

/* Nobody is told any more; the handle is closed. NULL: nothing. */
void nbd_lookup_give_up(struct nbd_lookup *l);

/* No name, which connects without waiting. */
bool nbd_is_address(const char *host);

#endif
