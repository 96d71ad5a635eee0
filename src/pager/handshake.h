/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Firecracker says when it hands its memory to a page fault handler: a JSON array, an object
 * for each region of guest memory. All versions from 1.5 on, as docs/pager.md lists them, and those
 * of its forks that say the same. Read as hostile. Pure. Tests: tests/unit/handshake_test.c,
 * tests/fuzz/handshake_fuzz.c.
 */
#ifndef PAGER_HANDSHAKE_H
#define PAGER_HANDSHAKE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Firecracker has at most four. */
#define HANDSHAKE_REGIONS_MAX 64u
/* A region takes 150 bytes. */
#define HANDSHAKE_BYTES_MAX 16384u

struct handshake_region {
	uint64_t hva;    /* of its first byte, in the VMM's process */
	uint64_t bytes;  /* a multiple of page_bytes, as hva is */
	uint64_t offset; /* of its first byte in the source */
	uint32_t page_bytes; /* 4 KiB to 2 MiB, a power of two */
};

struct handshake {
	uint32_t count;
	struct handshake_region regions[HANDSHAKE_REGIONS_MAX];
};

/*
 * 0; -EAGAIN: it is not whole yet; -EINVAL with text: it is none, or makes no sense. What follows
 * the array is not looked at.
 */
int handshake_parse(const char *text, size_t len, struct handshake *ret, struct err *e);

/* Does the source have all of it? 0, or -ERANGE with text. */
int handshake_fits(const struct handshake *h, uint64_t source_bytes, struct err *e);

#endif
