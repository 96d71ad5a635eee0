/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the monotonic clock of a program run slower: preloaded by tools/lab --slow into QEMU,
 * where it is the clock of all emulated timers (docs/decisions/0010). $ASYNCPF_SLOW_CLOCK says
 * how many times, from 1 to 64. What else a program reads or waits by is left as it is.
 * Libraries that start before this one ask for the time, too: nothing is set up beforehand.
 * Test: tests/unit/slow_clock_test.py.
 */
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define NS_PER_S INT64_C(1000000000)

typedef int clock_gettime_fn(clockid_t, struct timespec *);
typedef int ppoll_fn(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);

/* What this library stands in front of. Threads that look for it at once find the same. */
static void *behind(void **known, const char *name)
{
	void *found = __atomic_load_n(known, __ATOMIC_RELAXED);

	if (!found) {
		found = dlsym(RTLD_NEXT, name);
		__atomic_store_n(known, found, __ATOMIC_RELAXED);
	}
	return found;
}

static int64_t times_slower(void)
{
	static int64_t known;
	int64_t times = __atomic_load_n(&known, __ATOMIC_RELAXED);

	if (!times) {
		const char *word = getenv("ASYNCPF_SLOW_CLOCK");

		times = word ? strtol(word, NULL, 10) : 0;
		if (times < 1 || times > 64)
			times = 1;
		__atomic_store_n(&known, times, __ATOMIC_RELAXED);
	}
	return times;
}

static int64_t ns_of(const struct timespec *t)
{
	return t->tv_sec * NS_PER_S + t->tv_nsec;
}

static struct timespec timespec_of(int64_t ns)
{
	return (struct timespec) { .tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S };
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	static void *known;
	int rc = ((clock_gettime_fn *)behind(&known, "clock_gettime"))(clock, now);

	if (rc == 0 && clock == CLOCK_MONOTONIC)
		*now = timespec_of(ns_of(now) / times_slower());
	return rc;
}

/* A wait that was reckoned by the slow clock takes as many times longer by the real one. */
int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *limit, const sigset_t *mask)
{
	static void *known;
	ppoll_fn *wait = (ppoll_fn *)behind(&known, "ppoll");
	struct timespec real;

	if (!limit || limit->tv_sec > INT64_MAX / NS_PER_S / 64 - 1)
		return wait(fds, n, limit, mask);
	real = timespec_of(ns_of(limit) * times_slower());
	return wait(fds, n, &real, mask);
}
