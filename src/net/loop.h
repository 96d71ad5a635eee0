/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop of one VM's network sources: descriptors, timers, and errands that block, on one
 * thread, which is started with the first of its users. Everything here is called on that thread,
 * unless it says otherwise.
 *
 * net_fd is the loop's: after net_fd_del it is not called any more, also not for an event that was
 * already reported.
 */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <pthread.h>

#include "base/err.h"
#include "base/timer.h"
#include "base/types.h"

struct net_loop;

struct net_fd;
typedef void net_ready_fn(struct net_fd *f, uint32_t events); /* EPOLLIN and so on */

struct net_fd {
	net_ready_fn *ready; /* NULL: it is dead */
	void *ctx;
	int fd;
	int own; /* a duplicate of fd, which nobody else closes */
	uint32_t events;
	struct net_fd *next; /* among the dead */
};

struct net_loop_cfg {
	/* First thing on the thread, which has all signals blocked. May be NULL. */
	void (*begins)(void *ctx, const char *name);
	/* Whenever the loop has been woken, or is awake anyway. */
	void (*turn)(void *ctx);
	/* The last thing before it sleeps. */
	void (*rest)(void *ctx);
	void *ctx;        /* of turn and rest */
	void *begins_ctx;
	uint32_t timers_max;
};

/* Any thread. No thread is started yet. 0, or -Exxx with text. */
int net_loop_open(const struct net_loop_cfg *cfg, struct net_loop **ret, struct err *e);
/* Any thread, but one at a time: starts the thread if it does not run. */
int net_loop_start(struct net_loop *l, struct err *e);
/* Ends the thread. Descriptors and timers must be gone. NULL is harmless. */
void net_loop_close(struct net_loop *l);
/* Any thread, at any time: turn() comes. */
void net_loop_wake(struct net_loop *l);

/* The loop's timers, by CLOCK_MONOTONIC. */
struct timers *net_loop_timers(struct net_loop *l);

/* NULL: out of memory, or the descriptor cannot be waited for. fd may be closed before f is. */
struct net_fd *net_fd_add(struct net_loop *l, int fd, uint32_t events, net_ready_fn *ready,
			  void *ctx);
void net_fd_events(struct net_loop *l, struct net_fd *f, uint32_t events);
/* NULL is harmless. */
void net_fd_del(struct net_loop *l, struct net_fd *f);

/*
 * Work that blocks for as long as it likes, a name lookup for one, on a thread of its own that
 * nobody waits for. The errand is the caller's until net_errand returns 0; then it is the
 * thread's, until `done` on the loop's thread. Once it was given up, or the loop has ended,
 * `drop` comes in place of `done`, on any thread.
 */
struct net_errand {
	void (*run)(struct net_errand *er);  /* on the thread */
	void (*done)(struct net_errand *er); /* on the loop's */
	void (*drop)(struct net_errand *er);
	bool given_up; /* private from here on */
	struct net_errands *box;
	struct net_errand *next;
};

int net_errand_start(struct net_loop *l, struct net_errand *er, struct err *e);
void net_errand_give_up(struct net_errand *er);

#endif
