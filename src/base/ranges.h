/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges of bytes that do not meet, in order: holes of a sparse file, what an NBD export has that
 * is zeroes, what of a read has come. Pure. Threads: the owner's. Test: tests/unit/ranges_test.c.
 */
#ifndef BASE_RANGES_H
#define BASE_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range {
	uint64_t from, to;
};

struct ranges {
	struct range *at; /* the owner's, room for max */
	size_t count, max;
};

enum ranges_added {
	RANGES_ADDED,
	RANGES_OVERLAP, /* some of it was there; nothing is changed */
	RANGES_FULL,    /* the same */
};

/* from < to. Ranges that touch become one. */
enum ranges_added ranges_add(struct ranges *r, uint64_t from, uint64_t to);

/* All of it is there. from < to. */
bool ranges_have(const struct ranges *r, uint64_t from, uint64_t to);

#endif
