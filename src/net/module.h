/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the module asyncpf-net.so shows to the library (load.c): the functions of hub.h, and what
 * it was made for. Both sides are of one build: they share structs, and no promise is made of them.
 */
#ifndef NET_MODULE_H
#define NET_MODULE_H

#include "net/hub.h"
#include "port/source.h"

#define NET_MODULE_FILE "asyncpf-net.so"
#define NET_MODULE_SYMBOL "asyncpf_net_module"

struct net_stamp {
	char version[24];
	unsigned target, source, ops, err, cfg; /* bytes */
};

#define NET_STAMP                                                                                  \
	{                                                                                          \
		.version = ASYNCPF_VERSION,                                                        \
		.target = sizeof(struct net_target),                                               \
		.source = sizeof(struct src),                                                      \
		.ops = sizeof(struct src_ops),                                                     \
		.err = sizeof(struct err),                                                         \
		.cfg = sizeof(struct net_hub_cfg),                                                 \
	}

struct net_module {
	struct net_stamp stamp; /* first in every version */
	int (*open)(const struct net_hub_cfg *cfg, struct net_hub **ret, struct err *e);
	struct net (*net)(struct net_hub *h);
	int (*start)(struct net_hub *h, struct err *e);
	bool (*pump)(struct net_hub *h);
	bool (*due)(const struct net_hub *h);
	void (*close)(struct net_hub *h);
};

extern const struct net_module asyncpf_net_module;

#endif
