/* SPDX-License-Identifier: Apache-2.0 */
/* Writing evicted blocks to the swap file. */
#ifndef HOST_SWAP_H
#define HOST_SWAP_H

#include "host/host.h"

/* Writes what has to be written, as many at a time as there may be. */
bool swap_writes_due(const struct hst *h);
void swap_start_writes(struct hst *h);
/* Writes again what had failed. */
void swap_resume(struct hst *h);
void swap_stop(struct hst *h);
/*
 * Of a block that is WRITING. swap_changed: its content is about to change, and what of it arrives
 * in the file does not count. swap_go_on: it has changed: a write that nothing else needs and the
 * kernel does not have ends, one that had failed is tried again. swap_is_stuck: the write does not
 * end before the VM goes on.
 */
void swap_changed(struct hst *h, uint32_t block);
void swap_go_on(struct hst *h, uint32_t block);
bool swap_is_stuck(const struct hst *h, uint32_t block);

#endif
