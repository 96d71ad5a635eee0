/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that stay where they are for a while, counted, or for good. */
#ifndef HOST_KEEP_H
#define HOST_KEEP_H

#include "host/host.h"

/* The block is not taken away until it is let go of as often. False: too often. */
bool block_keep(struct hst *h, uint32_t block);
void block_let_go(struct hst *h, uint32_t block);
/* Entry of v->kept: the block stays, the one before may go. */
void vcpu_keep(struct hst_vcpu *v, unsigned entry, uint32_t block);
/* The engine's registers have changed, and with them where the area is. */
void vcpu_keep_area(struct hst_vcpu *v);

#endif
