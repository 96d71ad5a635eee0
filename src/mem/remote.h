/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A userfaultfd that another process has made of its own memory and handed to us: its messages, and
 * placing pages there. One system call each; addresses are the other process's. Nothing here
 * decides anything. Test: tests/integration/pager_test.py, by way of the pager.
 *
 * What the calls return besides: -EAGAIN, the owner takes memory away at this moment, to be tried
 * again after its messages have been read; -EEXIST, something is there already, and whoever waits
 * must be woken; -ENOENT, no memory is registered there, or the range lies in several mappings;
 * -ESRCH, the owner is gone; -ENOMEM, -ENOSPC, the host has none.
 */
#ifndef MEM_REMOTE_H
#define MEM_REMOTE_H

#include "base/err.h"
#include "base/types.h"

enum remote_kind {
	REMOTE_FAULT,  /* start: the address, rounded down to a page of some size */
	REMOTE_REMOVE, /* from start to end there is nothing any more */
	REMOTE_OTHER,  /* none of what a VMM asks for */
};

struct remote_event {
	enum remote_kind kind;
	uint64_t start, end;
};

#define REMOTE_EVENTS_MAX 64u

/*
 * Is it a userfaultfd? Makes it non-blocking. 0, or -EINVAL. It asks /proc, since no system call
 * that tells is harmless to every other kind of descriptor.
 */
int remote_check(int fd);

/* Up to REMOTE_EVENTS_MAX messages; how many; 0: there is none now; -Exxx. */
int remote_events(int fd, struct remote_event ret[static REMOTE_EVENTS_MAX]);

/*
 * len bytes from `from` to `to`; whoever waits there is woken. Returns how many bytes were placed,
 * perhaps fewer than len, or -Exxx.
 */
int64_t remote_copy(int fd, uint64_t to, const void *from, uint64_t len);
/* The same for zeroes; not in memory of huge pages. */
int64_t remote_zero(int fd, uint64_t to, uint64_t len);
/* Whoever waits there touches it again. */
void remote_wake(int fd, uint64_t start, uint64_t len);
/* Asks at an address that is, or was, the owner's. False: it is gone. Changes nothing. */
bool remote_owner_lives(int fd, uint64_t at);

#endif
