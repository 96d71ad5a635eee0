/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/source: where a sparse file has holes, found when it is opened, so that a read
 * in one needs no file. Bounded: what a file has beyond the first HOLES_MAX, or what is not found
 * within HOLES_NS, is read like content. Pure but for the calls of port/io.h.
 * Test: tests/unit/source_file_test.c.
 */
#ifndef SOURCE_HOLES_H
#define SOURCE_HOLES_H

#include <stdbool.h>

#include "port/clock.h"
#include "port/io.h"

/* 512 KiB at most, as many extents as are asked of an NBD server. */
#define HOLES_MAX 32768u
/* A file in many pieces takes a microsecond for each, a slow file system any time. */
#define HOLES_NS (200 * NS_PER_MS)

struct hole {
	uint64_t from, to;
};

struct holes {
	struct hole *all; /* in order */
	uint32_t count;
};

/* Blocks. What cannot be found out, or stored, is none. The caller ends it with holes_drop(). */
void holes_find(struct holes *hs, const struct io *io, struct io_file *file, uint64_t size,
		const struct clock *clock);

/* All of it lies in one hole. */
bool holes_cover(const struct holes *hs, uint64_t offset, uint32_t len);

void holes_drop(struct holes *hs);

#endif
