/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is the driver's state sound? What must hold between any two calls, computed anew from the
 * blocks and compared with what the driver keeps: counters, lists, links, flags.
 */
#ifndef HOST_SOUND_H
#define HOST_SOUND_H

#include "host/block.h"
#include "host/budget.h"

/* ---- taking memory away ---- */

/* By the rules at the head of evict.c, not by its code. HST_LISTS: on none. */
enum hst_list_id rig_list_of(const struct hst *h, uint32_t b);
const char *rig_lists_broken(const struct hst *h);
const char *rig_writes_broken(const struct hst *h);
const char *rig_kept_broken(const struct hst *h);

/* Memory will be given back, or the VM is paused with a reason. */
bool rig_evict_goes_on(const struct hst *h);
bool rig_is_in_run(const struct hst_discard *d, uint32_t b);
const char *rig_evict_broken(const struct hst *h, const struct hst_discard *d);

/* ---- all of it ---- */

const char *rig_fetch_broken(const struct hst *h, const struct hst_fetch *f);

/* NULL, or what is broken. Between calls of the driver only. d: a discard under way, or NULL. */
const char *rig_broken(const struct hst *h, const struct hst_discard *d);

#endif
