/* SPDX-License-Identifier: Apache-2.0 */
/* Writing evicted blocks to the swap file. */
#include "host/host.h"

/* Writes what has to be written, as many at a time as there may be. */
#ifndef HOST_SWAP_H
#define HOST_SWAP_H

bool swap_writes_due(const struct hst *h);
void swap_start_writes(struct hst *h);
/* Writes again what had failed. */
void swap_resume(struct hst *h);
void swap_stop(struct hst *h);

#endif
