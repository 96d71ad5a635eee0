/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the loaders have in common: the layout of the first MiB, the map of memory, and
 * writing. Only for src/vmm/boot and tests.
 */
#ifndef VMM_LOAD_PARTS_H
#define VMM_LOAD_PARTS_H

#include "vmm/boot/load.h"

/*
 * The first MiB. Everything below LOAD_LOW_END is plain RAM to the guest, which may reuse
 * it once it has copied what it wants; above are, as on a PC, the EBDA's place, video
 * memory and ROMs, where ACPI tables lie (acpi.h).
 */
#define LOAD_GDT_GPA 0x1000ull     /* LOAD_GDT_BYTES */
#define LOAD_INFO_GPA 0x2000ull    /* zero page, hvm_start_info, or multiboot info; one page */
#define LOAD_PML4_GPA 0x3000ull
#define LOAD_PDPT_GPA 0x4000ull
#define LOAD_PDS_GPA 0x5000ull     /* four pages: 4 GiB in 2 MiB pages */
#define LOAD_STACK_GPA 0xa000ull   /* top of a page of stack, for kernels that push at once */
#define LOAD_STRINGS_GPA 0x20000ull /* command lines */
#define LOAD_STRINGS_END 0x30000ull
#define LOAD_LOW_END 0x9fc00ull
#define LOAD_KERNEL_MIN 0x100000ull /* kernels lie above the first MiB */

#define LOAD_GDT_ENTRIES 5
#define LOAD_CODE_SELECTOR 0x10 /* the Linux boot protocol's __BOOT_CS and __BOOT_DS */
#define LOAD_DATA_SELECTOR 0x18
#define LOAD_TSS_SELECTOR 0x20

/* Types of the BIOS call E820h, which all three protocols use. */
#define LOAD_RANGE_RAM 1
#define LOAD_RANGE_RESERVED 2

struct load_range {
	uint64_t base;
	uint64_t bytes;
	uint32_t type;
};

#define LOAD_RANGES_MAX 4

/* The guest's memory map, ascending; returns how many ranges. */
unsigned load_map(const struct guest_mem *m, struct load_range ret[LOAD_RANGES_MAX]);

/* Writes guest memory; the caller has seen to it that it is RAM (asserted). */
void load_put(const struct load_cfg *c, uint64_t gpa, const void *bytes, size_t len);

/* Room for strings: the next one goes to `at`. */
struct load_strings {
	uint64_t at, end;
};

#define LOAD_STRINGS (struct load_strings){LOAD_STRINGS_GPA, LOAD_STRINGS_END}

/*
 * Writes a string of two parts, joined by a blank if both are there, and its final 0, and moves
 * s->at behind it. -E2BIG: there is no room.
 */
int load_put_string(const struct load_cfg *c, struct load_strings *s, const char *first,
		    const char *second, struct err *e);

/*
 * Writes the GDT to gpa and fills the entry with it and the selectors: flat 4 GiB segments, code
 * of 64 or 32 bits as entry->mode says.
 */
void load_put_gdt(const struct load_cfg *c, uint64_t gpa, struct kvmp_entry *entry);

/* Identity page tables of the first 4 GiB. */
void load_put_page_tables(const struct load_cfg *c);

/*
 * Writes all modules, each at the start of a page, as high as they fit into [lo, hi), the
 * first one lowest. starts[i]: where module i is. Fills ret->modules_*. -ENOMEM: no room.
 */
int load_put_modules(const struct load_cfg *c, uint64_t lo, uint64_t hi, uint64_t *starts,
		     struct load_result *ret, struct err *e);

#endif
