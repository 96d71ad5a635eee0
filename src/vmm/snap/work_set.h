/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A working set: which memory a VM touched first after it was restored, in that order
 * (docs/snapshot-format.md). Recorded from what the library tells of each step, for a bounded
 * time; read back as what apf_prefetch takes. A file is hostile input.
 *
 * Threads: a recorder is told by whoever the library has tell, one at a time; the rest is the
 * owner's, when nobody tells it any more. Tests: tests/unit/work_set_test.c,
 * tests/fuzz/work_set_fuzz.c, tests/integration/restore_run_test.py.
 */
#ifndef VMM_SNAP_WORK_SET_H
#define VMM_SNAP_WORK_SET_H

#include <asyncpf/asyncpf.h>
#include <stdio.h>

#include "base/err.h"
#include "base/types.h"

#define WORK_SET_RANGES_MAX (1u << 20) /* what is touched later is not noted */

struct work_set {
	struct apf_range *ranges; /* gpa and len, multiples of a page */
	unsigned count;
};

/* Reads fd to its end. -EBADMSG: no working set, cut or changed; -EPROTO: another format;
 * -EINVAL: of a VM of another size. */
int work_set_read(struct work_set *ret, int fd, uint64_t memory_bytes, struct err *e);
/* The same of bytes that are in memory. */
int work_set_take(struct work_set *ret, const void *bytes, size_t len, uint64_t memory_bytes,
		  struct err *e);
void work_set_free(struct work_set *s);

struct work_recorder;

/* window_ns: from the first touch on. */
int work_recorder_new(uint64_t memory_bytes, uint32_t block_bytes, uint64_t window_ns,
		      struct work_recorder **ret, struct err *e);
/* For apf_config.on_trace; ctx is the recorder. */
void work_recorder_tell(void *ctx, const struct apf_trace *t);
/* 0 or -EIO, with errno. */
int work_recorder_write(const struct work_recorder *r, FILE *out);
void work_recorder_free(struct work_recorder *r); /* NULL is harmless */

#endif
