/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGINT, SIGTERM, SIGHUP and SIGXCPU (RLIMIT_CPU) as a descriptor, for an orderly end. A thread
 * waits for them: a signalfd would wake whoever polls it for every signal in the process, and each
 * fault of the guest is a SIGBUS (measured in the lab: nearly a whole CPU while a guest booted).
 * The same thread stops the process for SIGTSTP, once the terminal has been seen to.
 * Tests: tests/error/run_test.py, run_job_test.py.
 */
#ifndef CLI_STOP_SIGNALS_H
#define CLI_STOP_SIGNALS_H

#include <pthread.h>
#include <signal.h>

#include "base/err.h"
#include "base/types.h"

/* By the thread that waits for signals. */
struct stop_signals_job {
	void (*begins)(void *ctx); /* the first thing that it does; NULL: nothing */
	/* The process is about to be stopped. NULL: there is nothing to do then, nor for back. */
	void (*away)(void *ctx);
	void (*back)(void *ctx); /* it goes on; also after SIGSTOP, which nobody hears of before */
	void *ctx;
};

struct stop_signals {
	const struct stop_signals_job *job; /* set before start; NULL: stops as any other process */
	pthread_t thread;
	bool started;
	bool ending;  /* atomic: the thread is to return */
	int fd;       /* readable once a signal has come */
	sigset_t set; /* what the thread waits for */
	int signal;   /* which it was; valid once stopped. 0: none */
};

/*
 * Blocks them, SIGPIPE and SIGXFSZ, and with a job's away SIGTSTP and SIGCONT, in this thread and
 * all that it starts from now on: before any other thread is made.
 */
int stop_signals_start(struct stop_signals *s, struct err *e);
/* Harmless if it was not started, with fd -1. The signals stay blocked. */
void stop_signals_end(struct stop_signals *s);
/*
 * Ends the process as the signal would have, output written: whoever started us sees which.
 * Returns if no signal came.
 */
void stop_signals_die(const struct stop_signals *s);

#endif
