/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See loop.h. Errands share a box with the loop, which lives as long as the longest of both: a
 * name server that does not answer keeps a thread, and no one else.
 */
#include "net/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/time.h"

#define EVENTS_AT_ONCE 64

struct net_errands {
	pthread_mutex_t lock;
	unsigned users;          /* the loop, and each errand */
	struct net_loop *loop;   /* NULL: it has ended */
	struct net_errand *over; /* to be done */
};

struct net_loop {
	struct net_loop_cfg cfg;
	pthread_t thread;
	bool started;
	bool stop; /* atomic */
	int epoll_fd, event_fd;
	struct timers timers;
	struct timer **heap;
	struct net_fd *dead; /* freed when no event of this round can name them */
	struct net_errands *box;
};

struct timers *net_loop_timers(struct net_loop *l)
{
	return &l->timers;
}

void net_loop_wake(struct net_loop *l)
{
	static const uint64_t one = 1;

	(void)!write(l->event_fd, &one, sizeof(one));
}

/* ---- descriptors ---- */

/*
 * A descriptor of our own is what epoll is told of: it can be taken back whatever became of the
 * other. One that is closed first would stay, out of reach, where a process that was forked at the
 * wrong moment still has it.
 */
struct net_fd *net_fd_add(struct net_loop *l, int fd, uint32_t events, net_ready_fn *ready,
			  void *ctx)
{
	struct net_fd *f = calloc(1, sizeof(*f));
	struct epoll_event ev = {.events = events, .data.ptr = f};

	if (!f)
		return NULL;
	*f = (struct net_fd){.ready = ready, .ctx = ctx, .fd = fd, .events = events};
	f->own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (f->own >= 0 && epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, f->own, &ev) == 0)
		return f;
	if (f->own >= 0)
		close(f->own);
	free(f);
	return NULL;
}

void net_fd_events(struct net_loop *l, struct net_fd *f, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = f};

	if (f->events == events)
		return;
	f->events = events;
	(void)epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, f->own, &ev);
}

void net_fd_del(struct net_loop *l, struct net_fd *f)
{
	if (!f)
		return;
	ASSERT(f->ready);
	(void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, f->own, NULL);
	close(f->own);
	f->ready = NULL;
	f->next = l->dead;
	l->dead = f;
}

static void bury(struct net_loop *l)
{
	while (l->dead) {
		struct net_fd *f = l->dead;

		l->dead = f->next;
		free(f);
	}
}

/* ---- errands ---- */

/* Locked; unlocks. */
static void box_leave(struct net_errands *box)
{
	bool last = --box->users == 0;

	pthread_mutex_unlock(&box->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&box->lock);
	free(box);
}

static void *run_errand(void *arg)
{
	struct net_errand *er = arg;
	struct net_errands *box = er->box;

	er->run(er);
	pthread_mutex_lock(&box->lock);
	if (box->loop && !er->given_up) {
		er->next = box->over;
		box->over = er;
		net_loop_wake(box->loop);
		er = NULL;
	}
	box_leave(box);
	if (er)
		er->drop(er);
	return NULL;
}

int net_errand_start(struct net_loop *l, struct net_errand *er, struct err *e)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	er->given_up = false;
	er->box = l->box;
	pthread_mutex_lock(&l->box->lock);
	l->box->users++;
	pthread_mutex_unlock(&l->box->lock);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* Signals are blocked here, and so they are there. */
	rc = pthread_create(&thread, &attr, run_errand, er);
	pthread_attr_destroy(&attr);
	if (rc == 0)
		return 0;
	pthread_mutex_lock(&l->box->lock);
	box_leave(l->box);
	return err_sys(e, -rc, "thread for a name lookup");
}

void net_errand_give_up(struct net_errand *er)
{
	struct net_errands *box = er->box;

	pthread_mutex_lock(&box->lock);
	er->given_up = true;
	pthread_mutex_unlock(&box->lock);
}

static void end_errands(struct net_loop *l)
{
	struct net_errand *er, *next;

	pthread_mutex_lock(&l->box->lock);
	er = l->box->over;
	l->box->over = NULL;
	pthread_mutex_unlock(&l->box->lock);
	for (; er; er = next) {
		next = er->next;
		if (er->given_up)
			er->drop(er);
		else
			er->done(er);
	}
}

/* ---- the thread ---- */

static int wait_ms(const struct net_loop *l)
{
	uint64_t next = timers_next_ns(&l->timers), now;

	if (next == NS_NEVER)
		return -1;
	now = monotonic_ns();
	/* Rounded up: it is not looked again for nothing. */
	return next <= now ? 0 : (int)min_u64((next - now) / NS_PER_MS + 1, 60000);
}

static void *loop(void *arg)
{
	struct net_loop *l = arg;
	struct epoll_event events[EVENTS_AT_ONCE];

	if (l->cfg.begins)
		l->cfg.begins(l->cfg.begins_ctx, "asyncpf-net");
	while (!__atomic_load_n(&l->stop, __ATOMIC_ACQUIRE)) {
		int n = epoll_wait(l->epoll_fd, events, EVENTS_AT_ONCE, wait_ms(l));

		for (int i = 0; i < n; i++) {
			struct net_fd *f = events[i].data.ptr;
			uint64_t count;

			if (!f)
				(void)!read(l->event_fd, &count, sizeof(count));
			else if (f->ready)
				f->ready(f, events[i].events);
		}
		(void)timers_run(&l->timers, monotonic_ns());
		end_errands(l);
		l->cfg.turn(l->cfg.ctx);
		bury(l);
		l->cfg.rest(l->cfg.ctx);
	}
	return NULL;
}

int net_loop_start(struct net_loop *l, struct err *e)
{
	sigset_t all, old;
	int rc;

	if (l->started)
		return 0;
	/* The VMM's signals are for the VMM's threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&l->thread, NULL, loop, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	l->started = rc == 0;
	return l->started ? 0 : err_sys(e, -rc, "network thread");
}

static void loop_free(struct net_loop *l)
{
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	if (l->event_fd >= 0)
		close(l->event_fd);
	free(l->heap);
	free(l->box);
	free(l);
}

int net_loop_open(const struct net_loop_cfg *cfg, struct net_loop **ret, struct err *e)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct net_loop *l = calloc(1, sizeof(*l));

	if (!l)
		return err_sys(e, -ENOMEM, "network thread");
	l->cfg = *cfg;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->heap = calloc(cfg->timers_max, sizeof(struct timer *));
	l->box = calloc(1, sizeof(*l->box));
	if (!l->heap || !l->box || l->epoll_fd < 0 || l->event_fd < 0 ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->event_fd, &ev) < 0) {
		int rc = err_sys(e, l->heap && l->box ? -errno : -ENOMEM, "network thread");

		loop_free(l);
		return rc;
	}
	timers_init(&l->timers, l->heap, cfg->timers_max);
	pthread_mutex_init(&l->box->lock, NULL);
	l->box->loop = l;
	l->box->users = 1;
	*ret = l;
	return 0;
}

void net_loop_close(struct net_loop *l)
{
	struct net_errand *er, *next;

	if (!l)
		return;
	if (l->started) {
		__atomic_store_n(&l->stop, true, __ATOMIC_RELEASE);
		net_loop_wake(l);
		pthread_join(l->thread, NULL);
	}
	bury(l);
	pthread_mutex_lock(&l->box->lock);
	l->box->loop = NULL;
	er = l->box->over;
	l->box->over = NULL;
	box_leave(l->box);
	l->box = NULL;
	for (; er; er = next) {
		next = er->next;
		er->drop(er);
	}
	loop_free(l);
}
