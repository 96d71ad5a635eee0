/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file `state` of a snapshot: named sections of bytes, each with a version of its own, behind
 * a header with a sum over all of them (docs/snapshot-format.md). It knows nothing of what is in a
 * section. What is read is hostile input: every length is checked before it is used.
 *
 * Threads: the owner's. Tests: tests/unit/snap_state_test.c, tests/fuzz/snap_fuzz.c.
 */
#ifndef VMM_SNAP_STATE_H
#define VMM_SNAP_STATE_H

#include "base/err.h"
#include "base/types.h"

#define SNAP_NAME_MAX 16u /* with the NUL */
#define SNAP_ID_BYTES 16u /* random: which snapshot this is */
#define SNAP_STATE_MAX (64u << 20) /* of the whole file, bytes */

/* A section: "vcpu.regs" of vCPU 3, in its first version. */
struct snap_key {
	const char *name;
	uint32_t index;
	uint32_t version;
};

/* ---- writing ---- */

struct snap_out {
	unsigned char *bytes;
	size_t len, room;
	uint32_t sections;
	bool failed; /* no memory, or too much: snap_out_write says so */
};

/* All zeroes is empty. What cannot be put is told by snap_out_write. */
void snap_put(struct snap_out *o, struct snap_key key, const void *bytes, size_t len);
/* To fd, from where it is. 0 or -Exxx. */
int snap_out_write(struct snap_out *o, int fd, struct err *e);
void snap_out_free(struct snap_out *o);

/* ---- reading ---- */

struct snap_in {
	unsigned char *bytes; /* whole and checked */
	size_t len;
};

/* Reads fd to its end and checks it. -EBADMSG: no state, cut short, or changed; others: read. */
int snap_in_read(struct snap_in *in, int fd, struct err *e);
/* The same of bytes that are in memory: copied. */
int snap_in_take(struct snap_in *in, const void *bytes, size_t len, struct err *e);
void snap_in_free(struct snap_in *in);

/*
 * The section, until snap_in_free. -ENOENT: there is none; -EPROTO: in another version. len_max:
 * what the caller can take, a longer one is -EMSGSIZE.
 */
int snap_find(const struct snap_in *in, struct snap_key key, size_t len_max,
	      const void **ret_bytes, size_t *ret_len, struct err *e);
/* One of exactly this length, copied. -EMSGSIZE: it has another. */
int snap_take(const struct snap_in *in, struct snap_key key, void *ret, size_t len, struct err *e);

#endif
