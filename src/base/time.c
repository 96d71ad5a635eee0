/* SPDX-License-Identifier: Apache-2.0 */
/* See time.h. */
#include "base/time.h"

#include <time.h>

#include "base/types.h"

uint64_t ns_of_timespec(struct timespec ts)
{
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

struct timespec timespec_of_ns(uint64_t ns)
{
	return (struct timespec){(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
}

uint64_t clock_ns(int clock)
{
	struct timespec ts = {0};

	(void)clock_gettime(clock, &ts);
	return ns_of_timespec(ts);
}

uint64_t monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}
