/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A system call that is newer than the headers of the oldest distribution we build on (Debian 12
 * ships those of Linux 6.1). Values: Linux 6.5, cachestat(2).
 */
#ifndef IO_CACHESTAT_H
#define IO_CACHESTAT_H

#include <stdint.h>
#include <sys/syscall.h>

#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct io_cachestat_range {
	uint64_t off, len; /* len 0: to the end */
};

/* Pages. */
struct io_cachestat {
	uint64_t cache, dirty, writeback, evicted, recently_evicted;
};

#endif
