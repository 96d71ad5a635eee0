/* SPDX-License-Identifier: Apache-2.0 */
/* ELF kernels with a PVH entry point: 32-bit protected mode, EBX = hvm_start_info. */
#ifndef VMM_LOAD_PVH_H
#define VMM_LOAD_PVH_H

#include "vmm/boot/elf.h"
#include "vmm/boot/load.h"

/* True when the file carries the note that names a PVH entry point, well-formed or not. */
bool pvh_is(const struct elf *f);
int pvh_load(const struct load_cfg *c, const struct elf *f, struct load_result *ret,
	     struct err *e);

#endif
