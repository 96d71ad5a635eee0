/* SPDX-License-Identifier: Apache-2.0 */
/* Multiboot 1 kernels: 32-bit protected mode, EAX = magic, EBX = information structure. */
#ifndef VMM_LOAD_MULTIBOOT_H
#define VMM_LOAD_MULTIBOOT_H

#include "vmm/boot/load.h"

/*
 * True when a header with a right checksum is where the specification wants it.
 * *ret_has_addresses: it says where the file goes; else that must be an ELF file. NULL: never mind.
 */
bool multiboot_is(const unsigned char *bytes, size_t len, bool *ret_has_addresses);
int multiboot_load(const struct load_cfg *c, struct load_result *ret, struct err *e);

#endif
