/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/source: where a sparse file has holes, found when it is opened, so that a read
 * in one needs no file. Bounded: what a file has beyond the first HOLES_MAX, or what is not found
 * within HOLES_NS, is read like content. Pure but for the calls of port/io.h.
 * Test: tests/unit/source_file_test.c.
 */
#ifndef SOURCE_HOLES_H
#define SOURCE_HOLES_H

#include "base/ranges.h"
#include "port/clock.h"
#include "port/io.h"

/* 512 KiB at most, as many extents as are asked of an NBD server. */
#define HOLES_MAX 32768u
/* A file in many pieces takes a microsecond for each, a slow file system any time. */
#define HOLES_NS (200 * NS_PER_MS)

/* Blocks. What cannot be found out, or stored, is none. The caller ends it with holes_drop(). */
void holes_find(struct ranges *holes, const struct io *io, struct io_file *file, uint64_t size,
		const struct clock *clock);

void holes_drop(struct ranges *holes);

#endif
