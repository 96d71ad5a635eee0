/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network sources of a VM, as the library has them: hub.h's, by a module that is loaded with
 * the first of them. What speaks the protocols takes longer to load than all the rest, and who
 * has no such source should not wait for it, or need it to be installed.
 *
 * Threads: as hub.h has it.
 */
#ifndef NET_LOAD_H
#define NET_LOAD_H

#include "net/hub.h"

struct net_lazy;

/* Loads nothing yet. 0, or -ENOMEM. */
int net_lazy_open(const struct net_hub_cfg *cfg, struct net_lazy **ret, struct err *e);
/* Opening fails with -ENOTSUP where there is no module that fits. */
struct net net_lazy_net(struct net_lazy *l);
/* Loads it, and starts its thread: net_hub_start. Under the lock. 0 or -Exxx with text. */
int net_lazy_start(struct net_lazy *l, struct err *e);
bool net_lazy_pump(struct net_lazy *l);
bool net_lazy_due(const struct net_lazy *l);
/* All its sources are closed. NULL is harmless. The module stays in the process. */
void net_lazy_close(struct net_lazy *l);

#endif
