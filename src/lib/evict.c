/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that takes memory away: asks the driver what is next, does it without the lock,
 * tells the driver. It decides nothing. It sleeps until the driver has something for it.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/size.h"
#include "base/time.h"
#include "lib/internal.h"

void lib_evict_poke(struct apf *a)
{
	if (!a->evict.started)
		return;
	if (hst_evict_wanted(&a->hst))
		pthread_cond_signal(&a->evict.work);
	if (!hst_evict_forced(&a->hst))
		pthread_cond_broadcast(&a->evict.forced);
}

/* Locked. Until there is something to do, or perhaps. */
static void wait_for_work(struct apf *a, uint64_t until_ns)
{
	struct timespec until = timespec_of_ns(until_ns);

	/* What the driver has queued must go out first, and its deadlines be set. */
	lib_unlock(a);
	lib_lock(a);
	if (a->evict.stop || a->evict.new_limit || hst_evict_wanted(&a->hst)) {
		a->evict.new_limit = false;
		return;
	}
	if (until_ns == NS_NEVER)
		pthread_cond_wait(&a->evict.work, &a->lock);
	else
		(void)pthread_cond_timedwait(&a->evict.work, &a->lock, &until);
}

static void *evict(void *arg)
{
	struct apf *a = arg;
	struct hst_evicting e = {.working = false};
	uint64_t look_ns;

	lib_thread_begins(a, "asyncpf-evict");
	lib_lock(a);
	while (!a->evict.stop) {
		if (!hst_evict_step(&a->hst, &e, &look_ns)) {
			wait_for_work(a, look_ns);
			continue;
		}
		lib_unlock(a);
		hst_evict_work(&a->hst, &e.job);
		lib_lock(a);
	}
	/* What was taken in hand is put down. */
	if (e.working)
		hst_evict_done(&a->hst, &e.job);
	lib_unlock(a);
	return NULL;
}

int lib_evict_start(struct apf *a, struct err *e)
{
	sigset_t all, old;
	int rc;

	if (!a->cfg.swap)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	/* The other threads look at `started`, and so will this one. */
	lib_lock(a);
	rc = pthread_create(&a->evict.thread, NULL, evict, a);
	a->evict.started = rc == 0;
	lib_release(a);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0)
		return err_sys(e, -rc, "eviction thread");
	return 0;
}

void lib_evict_stop(struct apf *a)
{
	if (!a->evict.started)
		return;
	lib_lock(a);
	a->evict.stop = true;
	pthread_cond_signal(&a->evict.work);
	lib_unlock(a);
	pthread_join(a->evict.thread, NULL);
	lib_lock(a);
	a->evict.started = false;
	lib_release(a);
}

static bool goes_on(const struct apf *a)
{
	return hst_evict_forced(&a->hst) && a->trouble.code == 0 && !hst_is_stopping(&a->hst) &&
	       !a->evict.stop;
}

/* Locked. Until the command is over; the driver's trouble ends it, too. */
static int wait_for_end(struct apf *a, struct err *e)
{
	while (goes_on(a)) {
		lib_unlock(a);
		lib_lock(a);
		if (goes_on(a))
			pthread_cond_wait(&a->evict.forced, &a->lock);
	}
	if (hst_is_stopping(&a->hst) || a->evict.stop)
		return err_set(e, -EINTR, "evict: the VM is ending");
	return a->trouble.code ? err_set(e, -EBUSY, "%s", a->trouble.text) : 0;
}

static int check_evicts(const struct apf *a, const char *what, struct err *e)
{
	if (!a->cfg.swap)
		return err_set(e, -EINVAL, "%s: the VM has no swap file; start it with one", what);
	if (!a->started)
		return err_set(e, -EINVAL, "%s: the VM has not been started: apf_start comes first",
			       what);
	return 0;
}

int apf_resident_max_set(struct apf *a, uint64_t bytes, struct apf_error *error)
{
	struct err e = {0};
	uint64_t min;

	if (check_evicts(a, "resident_max", &e) < 0)
		return lib_error(error, &e);
	lib_lock(a);
	min = max_u64(RESIDENT_MIN, hst_resident_min(&a->hst));
	if (bytes == 0 || bytes >= min) {
		hst_resident_max_set(&a->hst, bytes);
		/* It may sleep until what was due under the old one. */
		a->evict.new_limit = true;
		pthread_cond_signal(&a->evict.work);
	}
	lib_unlock(a);
	if (bytes == 0 || bytes >= min)
		return 0;
	err_set(&e, -ENOSPC, "resident_max: %s: %s is the least beside what is pinned and held",
		SIZE_WORD(bytes), SIZE_WORD(min));
	return lib_error(error, &e);
}

int apf_evict(struct apf *a, uint64_t bytes, uint64_t *ret_resident, struct apf_error *error)
{
	struct err e = {0};
	uint64_t resident;
	int rc;

	if (check_evicts(a, "evict", &e) < 0)
		return lib_error(error, &e);
	lib_lock(a);
	a->users++;
	hst_evict_to(&a->hst, bytes);
	rc = wait_for_end(a, &e);
	resident = hst_resident_bytes(&a->hst);
	lib_leave(a);
	if (rc < 0)
		return lib_error(error, &e);
	if (ret_resident)
		*ret_resident = resident;
	return 0;
}
