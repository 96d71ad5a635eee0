/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network sources of one VM: the shipped implementation of port/net.h. A source is a
 * source/custom.c whose reads go to the loop's thread (loop.h) and are answered from there.
 *
 * Threads: everything is called under the VM lock but net_hub_close, for which nothing may be
 * outstanding. hub->lock, inside, is a leaf: no other is taken with it.
 */
#ifndef NET_HUB_H
#define NET_HUB_H

#include "port/net.h"

struct net_hub;

struct net_hub_cfg {
	/* First thing on the loop's thread, which has all signals blocked. */
	void (*begins)(void *ctx, const char *name);
	/* Reads have been answered, and net_hub_pump is due: from the loop's thread. */
	void (*wake)(void *ctx);
	/* The VM lock, around what waits for a server. */
	void (*unlock)(void *ctx);
	void (*lock)(void *ctx);
	void *ctx;
};

/* No thread is started before a source is opened. 0, or -ENOMEM. */
int net_hub_open(const struct net_hub_cfg *cfg, struct net_hub **ret, struct err *e);
struct net net_hub_net(struct net_hub *h);
/* The thread, now: whoever opens sources later may start none that may do more than he. */
int net_hub_start(struct net_hub *h, struct err *e);
/* Hands over new reads, and ends those that were answered. False: there was nothing. */
bool net_hub_pump(struct net_hub *h);
/* There is something to hand over. */
bool net_hub_due(const struct net_hub *h);
/* All its sources are closed. NULL is harmless. */
void net_hub_close(struct net_hub *h);

#endif
