/* SPDX-License-Identifier: Apache-2.0 */
/* See module.h. */
#include "net/module.h"

const struct net_module asyncpf_net_module = {
	.stamp = NET_STAMP,
	.open = net_hub_open,
	.net = net_hub_net,
	.start = net_hub_start,
	.pump = net_hub_pump,
	.due = net_hub_due,
	.close = net_hub_close,
};
