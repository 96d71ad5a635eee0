/* SPDX-License-Identifier: Apache-2.0 */
/* A module of a version that never was. Nothing but its stamp may be looked at. */
#include "net/module.h"

const struct net_module asyncpf_net_module = {
	.stamp = {.version = "0.0.7-other"},
};
