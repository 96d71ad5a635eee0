/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a file into memory, a kernel or an initrd for example. It is read, not mapped: a file that
 * somebody cuts short meanwhile must not end the process. Test: tests/unit/load_file_test.c.
 */
#ifndef VMM_LOAD_FILE_H
#define VMM_LOAD_FILE_H

#include "vmm/boot/load.h"

/* Far above any real one; what is larger is a mistake, a disk image for example. */
#define LOAD_KERNEL_BYTES_MAX (512ull << 20)
#define LOAD_MODULE_BYTES_MAX (2ull << 30)

/*
 * Reads all of a regular file. `what` ("kernel") goes into errors, `path` must outlive *ret.
 * 0 or -Exxx; *ret is written on success only and freed by load_file_free.
 */
int load_file_read(const char *path, const char *what, uint64_t bytes_max, struct load_bytes *ret,
		   struct err *e);
/* Of one read by load_file_read, or all zero. */
void load_file_free(struct load_bytes *f);

#endif
