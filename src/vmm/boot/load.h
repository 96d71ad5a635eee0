/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads a kernel into guest memory and says how to enter it. Four kinds of file are told
 * apart by their contents: Linux bzImage (64-bit boot protocol), ELF with a PVH entry,
 * multiboot 1, and everything else, which is refused. Files are hostile input: every
 * length and offset is checked, and no byte is written outside RAM.
 *
 * Pure: bytes in, guest memory out. Called by one thread before the guest runs, with
 * guest memory that is all zeroes. Tests: tests/unit/load_*_test.c, tests/fuzz/.
 */
#ifndef VMM_LOAD_H
#define VMM_LOAD_H

#include "base/err.h"
#include "kvm/vm.h"
#include "vmm/memory/guest_mem.h"

#define LOAD_MODULES_MAX 16

enum load_kind {
	LOAD_BZIMAGE,
	LOAD_PVH,
	LOAD_MULTIBOOT,
};

/* A file in memory. The bytes are the caller's. */
struct load_bytes {
	const char *name; /* as the user gave it; in errors, and on multiboot command lines */
	const unsigned char *bytes;
	size_t len;
};

struct load_cfg {
	const struct guest_mem *mem;
	struct load_bytes kernel;
	/* The first is the initrd. A bzImage takes one at most. */
	struct load_bytes modules[LOAD_MODULES_MAX];
	unsigned modules_count;
	const char *cmdline; /* NULL: none */
	gpa_t acpi_rsdp;     /* what acpi_build() returned; 0: no ACPI tables */
};

struct load_result {
	enum load_kind kind;
	struct kvmp_entry entry; /* of the first vCPU; the others wait for INIT and SIPI */
	/* Where things are, for messages and tests: [start, end). */
	uint64_t kernel_start;
	uint64_t kernel_end; /* with its zero-initialised memory */
	uint64_t modules_start; /* of the first; 0: none */
	uint64_t modules_end;   /* of the last */
};

/*
 * 0, or -Exxx with a text that names the file, its kind and what is wrong: -ENOEXEC for a
 * wrong file, -ENOMEM when the guest's memory is too small for it, -E2BIG when the command
 * line is too long, -EINVAL for a configuration that cannot be.
 * *ret is written on success only; guest memory may have been written in either case.
 */
int load_kernel(const struct load_cfg *cfg, struct load_result *ret, struct err *e);

/* It looks like Linux: a bzImage, or an ELF file with a PVH entry. */
bool load_is_linux(const struct load_bytes *kernel);

const char *load_kind_name(enum load_kind kind);

#endif
