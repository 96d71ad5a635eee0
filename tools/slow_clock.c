// SPDX-License-Identifier: Apache-2.0
//
// Makes the monotonic clock of a program run slower: preloaded by tools/lab --slow into QEMU,
// where it is the clock of all emulated timers (docs/decisions/0010). $ASYNCPF_SLOW_CLOCK says
// how many times, from 1 to 64. What else a program reads or waits by is left as it is.
// Test: tests/unit/slow_clock_test.py.
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define NS_PER_S INT64_C(1000000000)

typedef int clock_gettime_fn(clockid_t, struct timespec *);
typedef int ppoll_fn(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);

// Libraries that start before this one ask for the time, too: nothing is set up beforehand.
// Threads that come here at once find the same.
static int64_t times_slower(void)
{
	static int64_t known;
	if (!known) {
		const char *word = getenv("ASYNCPF_SLOW_CLOCK");
		const long times = word ? strtol(word, NULL, 10) : 0;
		__atomic_store_n(&known, times >= 1 && times <= 64 ? times : 1, __ATOMIC_RELAXED);
	}
	return __atomic_load_n(&known, __ATOMIC_RELAXED);
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
	static clock_gettime_fn *libc;
	if (!__atomic_load_n(&libc, __ATOMIC_RELAXED))
		__atomic_store_n(&libc, (clock_gettime_fn *)dlsym(RTLD_NEXT, "clock_gettime"),
		    __ATOMIC_RELAXED);
	const int err = libc(clock, now);
	if (!err && clock == CLOCK_MONOTONIC)
		*now = timespec_of(ns_of(now) / times_slower());
	return err;
}

// A wait that was reckoned by the slow clock takes as many times longer by the real one.
int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *limit, const sigset_t *mask)
{
	static ppoll_fn *libc;
	if (!__atomic_load_n(&libc, __ATOMIC_RELAXED))
		__atomic_store_n(&libc, (ppoll_fn *)dlsym(RTLD_NEXT, "ppoll"), __ATOMIC_RELAXED);
	if (!limit || limit->tv_sec > INT64_MAX / NS_PER_S / 64 - 1)
		return libc(fds, n, limit, mask);
	const struct timespec real = timespec_of(ns_of(limit) * times_slower());
	return libc(fds, n, &real, mask);
}
