/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads an x86-64 ELF executable into guest memory by its program headers. The file is
 * checked as hostile input. Test: tests/unit/elf_test.c.
 */
#ifndef VMM_ELF_H
#define VMM_ELF_H

#include "base/err.h"
#include "base/types.h"

/* Writes bytes at a guest-physical address; 0 or -Exxx. */
typedef int (*elf_write)(void *ctx, gpa_t gpa, const void *bytes, size_t len);

/*
 * Loads every PT_LOAD segment at its physical address; memory beyond its file size is left
 * as it is (guest memory starts as zeroes). limit: segments must end at or below it.
 */
int elf_load(const unsigned char *image, size_t len, uint64_t limit, elf_write write, void *ctx,
	     uint64_t *ret_entry, struct err *e);

#endif
