/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PAGEMAP_SCAN (Linux 6.7, Documentation/admin-guide/mm/pagemap.rst): what state the page
 * table entries of a mapping are in. Nothing here decides anything.
 */
#ifndef MEM_PAGEMAP_H
#define MEM_PAGEMAP_H

#include "base/err.h"
#include "port/mem.h"

/* Opens this process's pagemap; -EOPNOTSUPP: it cannot be scanned. The fd, or -Exxx. */
int pagemap_open(struct err *e);

/*
 * Sets in ret the bits of the pages in [start, start + len) that are mapped.
 * len: at most MEM_PAGES_MAX pages.
 */
int pagemap_present(int fd, const void *start, uint64_t len, mem_pages ret, struct err *e);

/*
 * The same for pages that were write-protected (asynchronously, by userfaultfd) when they
 * were taken out of the mapping: nobody has written to them since they were protected.
 */
int pagemap_unwritten(int fd, const void *start, uint64_t len, mem_pages ret, struct err *e);

/* ... that are mapped and not protected: they may have been written to. */
int pagemap_written(int fd, const void *start, uint64_t len, mem_pages ret, struct err *e);

#endif
