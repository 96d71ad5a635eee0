/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux's bzImage by the 64-bit boot protocol: no real-mode code runs; the kernel is entered
 * at its 64-bit entry point with a zero page that holds everything.
 */
#ifndef VMM_LOAD_BZIMAGE_H
#define VMM_LOAD_BZIMAGE_H

#include "vmm/boot/load.h"

/* True when the file carries the setup header's two marks. */
bool bzimage_is(const unsigned char *bytes, size_t len);
int bzimage_load(const struct load_cfg *c, struct load_result *ret, struct err *e);

#endif
