/* SPDX-License-Identifier: Apache-2.0 */
/* See stop_signals.h. */
#include "cli/stop_signals.h"

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cli/cli.h"

/*
 * Sent to the thread alone, to end it. pthread_cancel would need libgcc at run time. A real-time
 * signal would be refused where RLIMIT_SIGPENDING is used up; this one takes no place in a queue.
 */
#define END_SIGNAL SIGURG

/* By the signal that the shell expects, which this thread alone lets through now. */
static void stop(const struct stop_signals_job *job)
{
	sigset_t one;

	job->away(job->ctx);
	sigemptyset(&one);
	sigaddset(&one, SIGTSTP);
	(void)kill(getpid(), SIGTSTP);
	(void)pthread_sigmask(SIG_UNBLOCK, &one, NULL);
	/* The process goes on; or it was never stopped, where no shell could make it go on. */
	(void)pthread_sigmask(SIG_BLOCK, &one, NULL);
	job->back(job->ctx);
}

static bool ends(struct stop_signals *s, int signal)
{
	if (signal == SIGTSTP)
		stop(s->job);
	else if (signal == SIGCONT)
		s->job->back(s->job->ctx);
	else
		return signal != END_SIGNAL;
	return false;
}

static void *wait_for_signal(void *arg)
{
	static const uint64_t one = 1;
	struct stop_signals *s = arg;
	int signal = END_SIGNAL;

	if (s->job && s->job->begins)
		s->job->begins(s->job->ctx);
	do
		if (__atomic_load_n(&s->ending, __ATOMIC_ACQUIRE) || sigwait(&s->set, &signal) != 0)
			return NULL;
	while (!ends(s, signal));
	s->signal = signal;
	(void)!write(s->fd, &one, sizeof(one));
	return NULL;
}

int stop_signals_start(struct stop_signals *s, struct err *e)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGXCPU, SIGTSTP};
	bool stops = s->job && s->job->away;
	size_t count = ARRAY_LEN(signals) - (stops ? 0 : 1);
	sigset_t blocked;
	int rc;

	sigemptyset(&s->set);
	for (size_t i = 0; i < count; i++) {
		struct sigaction old;

		/* Ignored: nohup, or a shell's background job. It stays so. */
		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaddset(&s->set, signals[i]);
	}
	if (stops)
		sigaddset(&s->set, SIGCONT);
	sigaddset(&s->set, END_SIGNAL);
	blocked = s->set;
	/* Errors of the write that caused them, not the end of a VM. */
	sigaddset(&blocked, SIGPIPE);
	sigaddset(&blocked, SIGXFSZ);
	(void)pthread_sigmask(SIG_BLOCK, &blocked, NULL);
	s->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->fd < 0)
		return err_sys(e, -errno, "cannot watch for signals: eventfd");
	rc = pthread_create(&s->thread, NULL, wait_for_signal, s);
	if (rc != 0)
		return err_sys(e, -rc, "cannot watch for signals: thread");
	s->started = true;
	return 0;
}

void stop_signals_end(struct stop_signals *s)
{
	if (s->started) {
		__atomic_store_n(&s->ending, true, __ATOMIC_RELEASE);
		(void)pthread_kill(s->thread, END_SIGNAL);
		(void)pthread_join(s->thread, NULL);
	}
	if (s->fd >= 0)
		close(s->fd);
	s->started = false;
	s->ending = false;
	s->fd = -1;
}

void stop_signals_die(const struct stop_signals *s)
{
	sigset_t one;

	if (s->signal == 0)
		return;
	(void)cli_output_arrived();
	(void)fflush(NULL);
	sigemptyset(&one);
	sigaddset(&one, s->signal);
	(void)raise(s->signal);
	(void)pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}
