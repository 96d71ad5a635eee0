/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock and the library's thread. A thread that has called the driver submits, reaps and makes
 * visible before it lets go of the lock, so that a read that the page cache answers is finished by
 * the vCPU thread that asked, without waking anybody. The library's thread is there for what comes
 * later: timers, reads that took time, touches that the kernel reports.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"
#include "lib/internal.h"

#define TIMER_BY_THREAD 0 /* timer_set_ns: sooner than anything */

static uint64_t now_ns(void *ctx)
{
	(void)ctx;
	return monotonic_ns();
}

struct clock lib_clock(void)
{
	static const struct clock_ops ops = {.now_ns = now_ns};

	return (struct clock){.ops = &ops};
}

/*
 * The lock is held for microseconds, at most for one system call that raises an interrupt: waiting
 * for it awake, for about as long, often spares a vCPU a sleep and a wake-up, which it pays with
 * guest time. With one CPU whoever has the lock waits for the CPU, too (4 % of a lab's only CPU).
 */
void lib_lock_init(struct apf *a)
{
	cpu_set_t cpus;
	bool one = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) == 1;
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, one ? PTHREAD_MUTEX_NORMAL : PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&a->lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

/* VM locks that this thread has or waits for; what a signal handler meets when it calls us. */
static _Thread_local volatile sig_atomic_t locks;

void lib_lock_begins(void)
{
	locks = locks + 1;
}

void lib_lock_ended(void)
{
	locks = locks - 1;
}

bool lib_is_locked_here(void)
{
	return locks > 0;
}

void lib_lock(struct apf *a)
{
	lib_lock_begins();
	if (pthread_mutex_trylock(&a->lock) == 0)
		return;
	__atomic_fetch_add(&a->lock_wanted, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&a->lock);
	__atomic_fetch_sub(&a->lock_wanted, 1, __ATOMIC_RELAXED);
	if (a->giving_way > 0)
		pthread_cond_broadcast(&a->given_way);
}

void lib_release(struct apf *a)
{
	pthread_mutex_unlock(&a->lock);
	lib_lock_ended();
}

/*
 * A mutex goes to whoever comes first, and that is the thread that has just let go of it: one that
 * sleeps takes long to wake up. So wait until somebody who wants it has had it.
 */
void lib_give_way(struct apf *a)
{
	lib_unlock(a);
	lib_lock(a);
	if (__atomic_load_n(&a->lock_wanted, __ATOMIC_RELAXED) == 0)
		return;
	a->giving_way++;
	pthread_cond_wait(&a->given_way, &a->lock);
	a->giving_way--;
}

static void pump_all(struct apf *a)
{
	struct hst_pump pump = {.fetch = NULL};
	bool more;

	do {
		while (hst_pump(&a->hst, &pump)) {
			lib_release(a);
			hst_pump_show(&pump);
			lib_lock(a);
		}
		more = lib_custom_take(a);
		more = thread_pool_reap(a->pool) || more;
		more = net_lazy_pump(a->net) || more;
	} while (more);
}

void lib_pump(struct apf *a)
{
	do
		pump_all(a);
	while (lib_custom_call(a));
}

/*
 * Sets the timer when something is due sooner than the thread looks by itself. A deadline that
 * went away leaves it set: one needless wake-up costs less than a system call per fault. While
 * the thread is up (TIMER_BY_THREAD) nobody sets it: the thread looks before it sleeps, and
 * programming a timer is dear for a vCPU thread, doubly so where the host is a guest.
 */
static void arm_timer(struct apf *a)
{
	uint64_t next = hst_next_timer_ns(&a->hst);
	struct itimerspec its = {0};

	if (next >= a->timer_set_ns)
		return;
	a->timer_set_ns = next;
	its.it_value = timespec_of_ns(next);
	if (its.it_value.tv_sec == 0 && its.it_value.tv_nsec == 0)
		its.it_value.tv_nsec = 1; /* all zero would disarm */
	(void)timerfd_settime(a->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

static void wake(struct apf *a)
{
	static const uint64_t one = 1;

	(void)!write(a->wake_fd, &one, sizeof(one));
}

/* While it is up, or about to be, it looks once more before it sleeps. */
static bool sleeps(const struct apf *a)
{
	return a->started && a->timer_set_ns != TIMER_BY_THREAD;
}

void lib_let_go(struct apf *a)
{
	if (a->lingers && hst_stands_still(&a->hst)) {
		a->lingers = false;
		wake(a);
	}
	if (sleeps(a) && (hst_pump_due(&a->hst) || hst_touch_due(&a->hst) || lib_custom_due(a) ||
			  thread_pool_due(a->pool) || net_lazy_due(a->net))) {
		/* On its way: who comes before it has got up need not wake it again. */
		a->timer_set_ns = TIMER_BY_THREAD;
		wake(a);
	}
	arm_timer(a);
	lib_evict_poke(a);
	lib_release(a);
}

void lib_unlock(struct apf *a)
{
	pump_all(a);
	lib_let_go(a);
}

/* ---- the thread ---- */

void lib_thread_begins(struct apf *a, const char *name)
{
	if (a->cfg.on_thread)
		a->cfg.on_thread(a->cfg.on_thread_ctx, name);
	else
		(void)pthread_setname_np(pthread_self(), name);
}

/* What ends the thread's sleep, but for the end of a read and its own deadline. */
enum { TOUCH, TIMER, WAKE, ROOM };

static int open_urgent(struct apf *a, struct err *e)
{
	struct epoll_event touch = {.events = EPOLLIN, .data.u32 = TOUCH};
	struct epoll_event edge = {.events = EPOLLIN | EPOLLET, .data.u32 = WAKE};

	a->urgent_fd = epoll_create1(EPOLL_CLOEXEC);
	if (a->urgent_fd < 0 ||
	    epoll_ctl(a->urgent_fd, EPOLL_CTL_ADD, gmem_event_fd(a->gmem), &touch) < 0 ||
	    epoll_ctl(a->urgent_fd, EPOLL_CTL_ADD, a->wake_fd, &edge) < 0)
		return err_sys(e, -errno, "page fault thread: epoll");
	return 0;
}

static int begin_serving(struct apf *a, struct err *e)
{
	int rc = ioq_own(a->ioq, e);

	if (rc == 0)
		rc = open_urgent(a, e);
	if (rc < 0)
		return rc;
	/* In this order. What the others are there for is found in memory. */
	rc = ioq_watch(a->ioq, gmem_event_fd(a->gmem), e);
	if (rc == 0)
		rc = ioq_watch(a->ioq, a->timer_fd, e);
	if (rc == 0)
		rc = ioq_watch(a->ioq, a->wake_fd, e);
	if (rc == 0 && a->room.watch_fd >= 0 && a->room.count > 0)
		rc = ioq_watch(a->ioq, a->room.watch_fd, e);
	if (rc == 0)
		lib_room_look(a);
	return rc;
}

/* Sleeps over whatever ends meanwhile. True: touches have been reported. */
static bool linger(const struct apf *a, uint64_t ns)
{
	struct epoll_event events[2];
	struct timespec ts = timespec_of_ns(ns);
	int n = epoll_pwait2(a->urgent_fd, events, ARRAY_LEN(events), &ts, NULL);
	bool touched = false;

	for (int i = 0; i < n; i++)
		touched |= events[i].data.u32 == TOUCH;
	return touched;
}

/* Sleeps if it must before it reads touches. Those are kept in the kernel meanwhile. */
static void pace(const struct apf *a)
{
	uint64_t ns = hst_touch_pause_ns(&a->hst);
	struct timespec ts = timespec_of_ns(ns);

	if (ns > 0)
		(void)nanosleep(&ts, NULL);
}

static void serve_once(struct apf *a, bool *touched, uint64_t *until_ns, uint64_t *linger_ns)
{
	struct mem_touch at[HST_TOUCHES_MAX];
	/* Changed by this thread alone. */
	unsigned room = hst_touch_room(&a->hst);
	struct err e = {0};
	int touches = 0;
	bool more;

	if (*touched)
		pace(a);
	if (*touched && room > 0)
		touches = gmem_touches(a->gmem, at, room, touched, &e);
	lib_lock(a);
	a->timer_set_ns = TIMER_BY_THREAD;
	a->lingers = false;
	hst_serve_step(&a->hst, at, touches, &e);
	lib_pump(a);
	lib_let_go_of_sources(a);
	if (hst_is_stopping(&a->hst))
		pthread_cond_broadcast(&a->outside);
	more = *touched && hst_touch_room(&a->hst) > 0;
	/* What is to be read goes out first. */
	*linger_ns = more || ioq_has_entries(a->ioq) ? 0 : hst_linger_ns(&a->hst);
	*until_ns = more || *linger_ns > 0 ? 0 : hst_next_timer_ns(&a->hst);
	a->lingers = *linger_ns > 0;
	if (!a->lingers)
		a->timer_set_ns = *until_ns;
	lib_unlock(a);
}

/* One was written to. */
static void look_at_limits(struct apf *a)
{
	room_seen(&a->room);
	lib_lock(a);
	lib_room_look(a);
	lib_unlock(a);
}

static void *serve(void *arg)
{
	struct apf *a = arg;
	uint64_t until_ns = 0, linger_ns = 0;
	bool touched = false;
	unsigned bits;
	int rc;

	lib_thread_begins(a, "asyncpf");
	lib_lock(a);
	rc = begin_serving(a, &a->serve_error);
	a->serving = true;
	pthread_cond_broadcast(&a->outside);
	lib_release(a);
	if (rc < 0)
		return NULL;
	while (!__atomic_load_n(&a->stop, __ATOMIC_ACQUIRE)) {
		if (linger_ns > 0)
			touched |= linger(a, linger_ns);
		bits = ioq_wait(a->ioq, until_ns);
		touched |= bits >> TOUCH & 1;
		if (bits >> ROOM & 1)
			look_at_limits(a);
		serve_once(a, &touched, &until_ns, &linger_ns);
	}
	lib_lock(a);
	ioq_drain(a->ioq);
	lib_release(a);
	return NULL;
}

static void worker_begins(void *ctx, const char *name)
{
	lib_thread_begins(ctx, name);
}

static void wake_for_work(void *ctx)
{
	wake(ctx);
}

int lib_work_open(struct apf *a, struct err *e)
{
	const struct thread_pool_cfg cfg = {
		.begins = worker_begins, .wake = wake_for_work, .ctx = a};
	int rc = lib_wake_fd(a, e);

	return rc < 0 ? rc : thread_pool_open(&cfg, &a->pool, e);
}

static void unlock_for_net(void *ctx)
{
	lib_unlock(ctx);
}

static void lock_for_net(void *ctx)
{
	lib_lock(ctx);
}

int lib_net_open(struct apf *a, struct err *e)
{
	const struct net_hub_cfg cfg = {
		.begins = worker_begins,
		.wake = wake_for_work,
		.unlock = unlock_for_net,
		.lock = lock_for_net,
		.ctx = a,
	};

	return net_lazy_open(&cfg, &a->net, e);
}

int lib_wake_fd(struct apf *a, struct err *e)
{
	if (a->wake_fd < 0)
		a->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (a->wake_fd < 0)
		return err_sys(e, -errno, "page fault thread: event descriptor");
	return a->wake_fd;
}

int lib_serve_start(struct apf *a, struct err *e)
{
	sigset_t all, old;
	int rc;

	a->timer_set_ns = NS_NEVER;
	a->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (a->timer_fd < 0)
		return err_sys(e, -errno, "page fault thread: timer");
	rc = lib_wake_fd(a, e);
	if (rc < 0)
		return rc;
	/* The VMM's signals are for the VMM's threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = ioq_start(a->ioq, e);
	if (rc == 0) {
		rc = -pthread_create(&a->thread, NULL, serve, a);
		if (rc < 0)
			err_sys(e, rc, "page fault thread");
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc < 0)
		return rc;
	lib_lock(a);
	while (!a->serving)
		pthread_cond_wait(&a->outside, &a->lock);
	a->started = a->serve_error.code == 0;
	lib_release(a);
	if (a->serve_error.code < 0) {
		*e = a->serve_error;
		pthread_join(a->thread, NULL);
		return e->code;
	}
	return lib_evict_start(a, e);
}

/* Cancels what is being read. Once: a read that has ended is not there to be cancelled. */
static void stop_reads(struct apf *a)
{
	if (hst_is_stopping(&a->hst))
		return;
	hst_stop(&a->hst);
	pthread_cond_broadcast(&a->outside);
	pthread_cond_broadcast(&a->evict.forced);
}

void apf_stop(struct apf *a)
{
	if (!a->started)
		return;
	lib_lock(a);
	stop_reads(a);
	lib_unlock(a);
}

/* Cancels what is being read and waits until it has ended. */
static void end_reads(struct apf *a)
{
	lib_lock(a);
	stop_reads(a);
	lib_unlock(a);
	lib_lock(a);
	/* Nothing to pump any more: the last user leaves with the unlock. */
	while (!hst_is_idle(&a->hst) || a->users > 0)
		pthread_cond_wait(&a->outside, &a->lock);
	lib_release(a);
}

void lib_serve_stop(struct apf *a)
{
	lib_evict_stop(a);
	if (a->started) {
		end_reads(a);
		__atomic_store_n(&a->stop, true, __ATOMIC_RELEASE);
		wake(a);
		pthread_join(a->thread, NULL);
		a->started = false;
	}
}

void lib_serve_close(struct apf *a)
{
	if (a->urgent_fd >= 0)
		close(a->urgent_fd);
	if (a->timer_fd >= 0)
		close(a->timer_fd);
	if (a->wake_fd >= 0)
		close(a->wake_fd);
}
