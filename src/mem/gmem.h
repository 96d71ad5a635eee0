/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: one memfd mapped twice. The guest mapping is what KVM maps into the
 * guest; it is registered with userfaultfd and holds nothing until a block is made
 * present. The alias is ours: content is written there, it never faults to user space.
 *
 * Any thread may call any function of an open gmem, except open, userfault and close.
 */
#ifndef MEM_GMEM_H
#define MEM_GMEM_H

#include "port/mem.h"

struct gmem;

/* bytes: a multiple of 4096. The memory is empty and costs nothing yet. 0 or -Exxx. */
int gmem_open(uint64_t bytes, struct gmem **ret, struct err *e);
/* Unmaps and frees. NULL is harmless. No vCPU may run on it any more. */
void gmem_close(struct gmem *g);

/*
 * Opens the guest mapping's userfaultfd. poison: UFFDIO_POISON will be used; unmap: memory will
 * be taken away again. The kernel must be able to (6.6, 6.7); the text says so when it is not.
 * To be called once, before gmem_watch.
 */
int gmem_userfault(struct gmem *g, bool poison, bool unmap, struct err *e);
/*
 * From now on touches in [off, off + len) are reported. first: also of memory that was
 * never filled; otherwise the kernel fills that by itself, with zeroes. May be called again
 * for a range.
 */
int gmem_watch(struct gmem *g, roff_t off, uint64_t len, bool first, struct err *e);

/* Becomes readable when touches wait. -1 before gmem_userfault. */
int gmem_event_fd(const struct gmem *g);
/*
 * Takes up to max reported touches; returns how many, 0 when there are none, or -Exxx.
 * Never blocks.
 */
int gmem_touches(struct gmem *g, roff_t *ret_offs, unsigned max, struct err *e);

/* The seam that the driver works on. */
struct mem gmem_mem(struct gmem *g);

/* Address of off in the guest mapping, for KVM_SET_USER_MEMORY_REGION. */
hva_t gmem_hva(const struct gmem *g, roff_t off);
/* The reverse; false when the address is not in the guest mapping. */
bool gmem_roff(const struct gmem *g, hva_t hva, roff_t *ret_off);

#endif
