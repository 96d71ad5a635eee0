/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system's clocks in nanoseconds. What decides by time gets it through port/clock.h; this is
 * for what has no seam to go through. Whoever calls it includes <time.h>. Hosted.
 * Test: tests/unit/time_test.c.
 */
#ifndef BASE_TIME_H
#define BASE_TIME_H

#include <stdint.h>

struct timespec;

/* clock: CLOCK_MONOTONIC or another clockid_t. 0: there is no such clock. */
uint64_t clock_ns(int clock);
/* CLOCK_MONOTONIC. */
uint64_t monotonic_ns(void);

uint64_t ns_of_timespec(struct timespec ts);
struct timespec timespec_of_ns(uint64_t ns);

#endif
