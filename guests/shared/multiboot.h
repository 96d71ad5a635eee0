/* SPDX-License-Identifier: Apache-2.0 */
/* What a multiboot loader leaves (Multiboot Specification 0.6.96, 3.3), as far as it is read. */
#ifndef SHARED_MULTIBOOT_H
#define SHARED_MULTIBOOT_H

#include <stdint.h>

struct info {
	uint32_t flags;
	uint32_t mem_lower;
	uint32_t mem_upper;
	uint32_t boot_device;
	uint32_t cmdline;
	uint32_t mods_count;
	uint32_t mods_addr;
	uint32_t syms[4];
	uint32_t mmap_length;
	uint32_t mmap_addr;
	uint32_t drives[2];
	uint32_t config_table;
	uint32_t loader_name;
};

struct range {
	uint32_t size; /* of what follows */
	uint64_t base;
	uint64_t length;
	uint32_t type;
} __attribute__((packed));

#endif
