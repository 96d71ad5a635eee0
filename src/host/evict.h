/* SPDX-License-Identifier: Apache-2.0 */
/* Which blocks are taken away, and when; its steps are in host.h. */
#ifndef HOST_EVICT_H
#define HOST_EVICT_H

#include "host/host.h"

/* cfg, mem and block_count are there. */
void evict_init(struct hst *h);
/* When memory that the kernel fills unseen is to be looked at; NS_NEVER: no need. */
uint64_t evict_next_look_ns(const struct hst *h);

#endif
