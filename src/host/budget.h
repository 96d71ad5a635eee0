/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory the blocks may take up, and how much they do: numbers, and no block. */
#ifndef HOST_BUDGET_H
#define HOST_BUDGET_H

#include "host/host.h"

/* How much guest RAM there is, or may be resident, has changed. */
void budget_limit(struct hst *h);
bool budget_is_limited(const struct hst_evict *ev);
/* What is kept free for fetches, so that they need not wait for a drop. */
uint32_t budget_slack(const struct hst_evict *ev);
/* Blocks on standby, and those that are resident beyond what there should be. */
uint32_t budget_standby(const struct hst_evict *ev);
uint32_t budget_over(const struct hst_evict *ev);
/* Another block takes up memory; ahead: one that is to be on standby. */
void budget_charge(struct hst *h, bool ahead);
void budget_uncharge(struct hst *h);
/* No: a fetch has to wait until memory is given back. */
bool budget_room(const struct hst *h);
/* There is room for what nobody waits for. */
bool budget_spare(const struct hst *h);

#endif
