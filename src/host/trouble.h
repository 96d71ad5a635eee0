/* SPDX-License-Identifier: Apache-2.0 */
/* The VM stands still: by the VMM's wish, or while a block cannot be had. */
#ifndef HOST_TROUBLE_H
#define HOST_TROUBLE_H

#include "host/host.h"

/* The VM is paused for a reason; ended by trouble_end, as often. */
void trouble_begin(struct hst *h, uint32_t block, uint32_t tries, const struct err *why);
void trouble_end(struct hst *h);
/* Takes back what was told when the VM really goes on, not while the VMM holds it. */
void trouble_over(struct hst *h);
/* After each change of what hst_is_paused() is made of. */
void trace_pause(const struct hst *h, bool was_paused);
/*
 * The VM is paused for it: the host has lost the page of off, of which the guest or we need what it
 * held, as `what` says: "the guest loads from it".
 */
void trouble_lost(struct hst *h, roff_t off, const char *what);
/* How long to wait before what has failed `tries` times before is tried again. */
uint64_t backoff_ns(unsigned tries);

#endif
