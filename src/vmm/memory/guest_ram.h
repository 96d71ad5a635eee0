/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory of a machine: the library's, with a view for the VMM and one for KVM. */
#ifndef VMM_GUEST_RAM_H
#define VMM_GUEST_RAM_H

#include <asyncpf/asyncpf.h>

#include "base/err.h"
#include "vmm/memory/guest_mem.h"

/*
 * What the library is to know before apf_open about m, whose sizes are set. That pins are held
 * is true as nothing in this folder has the kernel pin guest memory.
 */
void guest_ram_config(const struct guest_mem *m, struct apf_config *c);

/*
 * Makes both ranges of m, whose sizes are set: its pointers, and KVM's memslots 0 and 1. Before
 * apf_start, as touches wait until then. The memory goes with apf_close.
 */
int guest_ram_open(struct guest_mem *m, struct apf *a, int vm_fd, struct err *e);

/*
 * KVM's log of what the guest, and KVM for it, writes. On: it is empty, and misses nothing that is
 * written once this has returned. take: adds its bits to `to`, a bit per page as in dirty_map.h,
 * and empties it; `scratch` is as long. After a failure some may have been taken. Any thread, not
 * twice at a time.
 */
int guest_ram_log(const struct guest_mem *m, int vm_fd, bool on, struct err *e);
int guest_ram_log_take(const struct guest_mem *m, int vm_fd, uint64_t *to, uint64_t *scratch,
		       struct err *e);

/*
 * All of r, whose buf is not guest memory; waits for what is absent. -EINTR: stop_fd (-1: none) was
 * readable meanwhile; otherwise they fail as apf_readv and apf_writev do.
 */
int guest_ram_read(struct apf *a, struct apf_range r, int stop_fd);
int guest_ram_write(struct apf *a, struct apf_range r, int stop_fd);

#endif
