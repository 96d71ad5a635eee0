/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's terminal as a guest's console: raw while the VM runs in its foreground, as it was
 * whenever it does not. Decides when there is a terminal at all (a pipe or file is left alone and
 * has no escape), when it is ours, and what of the typed bytes is the guest's: Ctrl-A x ends,
 * Ctrl-A Ctrl-A is one Ctrl-A.
 *
 * Whether we are in the foreground is asked each time: a shell that puts us there or takes the
 * terminal away tells nobody (`fg` of a job that runs sends no signal). Nothing here is ever
 * stopped by SIGTTOU or SIGTTIN, nor changes modes that somebody else has set meanwhile.
 *
 * There is no exit handler and no signal handler here. The owner calls terminal_close() on every
 * ordinary way out, terminal_restore() from its handlers of fatal signals, and may give
 * `struct terminal_modes` in memory that another process shares, which outlives this one.
 *
 * Threads: open, read, filter and close belong to one at a time; the others may be called by any.
 * Tests: tests/unit/terminal_test.c, tests/error/run_job_test.py.
 */
#ifndef VMM_TERMINAL_H
#define VMM_TERMINAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <termios.h>

#include "base/err.h"
#include "base/types.h"

#define TERMINAL_ESCAPE 0x01u /* Ctrl-A */
/* How often one looks who is in the background, where nobody tells of the foreground. */
#define TERMINAL_LOOK_MS 200

/* What is to be put back; all zero: nothing. */
struct terminal_modes {
	atomic_bool raw;      /* the terminal has `ours`, unless somebody has changed it since */
	struct termios saved; /* what it had */
	struct termios ours;
};

struct terminal {
	int in_fd, out_fd;
	bool is_tty;  /* in_fd is; there is an escape */
	bool escaped; /* the last byte was the escape */
	struct terminal_modes *modes;
	struct terminal_modes own;
	pthread_mutex_t lock; /* covers the rest, and changes of modes */
	bool in_use; /* between open and close */
	bool away;   /* between terminal_away and terminal_back */
};

/* Before all else; for one that others call terminal_away and _back of. Never fails. */
void terminal_init(struct terminal *t);
void terminal_fini(struct terminal *t);

/*
 * Makes in_fd raw if it is a terminal and we are in its foreground. Output processing stays
 * on, so that our own messages look right. The descriptors stay the caller's, until close.
 * modes: where others find what is to be put back; NULL: nowhere. On failure nothing has changed.
 */
int terminal_open(struct terminal *t, int in_fd, int out_fd, struct terminal_modes *modes,
		  struct err *e);
/* Puts the terminal back; harmless on one that was not opened, and twice. */
void terminal_close(struct terminal *t);

/* Decides anew. True: what is typed is ours to read. */
bool terminal_look(struct terminal *t);
/* The process is about to stop: the terminal is put back, and stays so until terminal_back(). */
void terminal_away(struct terminal *t);
/* It goes on, in the foreground or not. */
void terminal_back(struct terminal *t);

/* The same as close for fatal paths: async-signal-safe, keeps errno, any number of times. */
void terminal_restore(struct terminal *t);
/*
 * The same by whoever shares the modes. Where we are not in the foreground, modes that are not ours
 * any more are left as they are.
 */
void terminal_modes_restore(int fd, struct terminal_modes *m);

/*
 * As read(2). -EAGAIN also for a terminal that is not ours now, where read(2) would stop the
 * process; -EIO only when the terminal is gone.
 */
ssize_t terminal_read(struct terminal *t, void *buf, size_t len);

/*
 * Sorts typed bytes: what is the guest's goes to ret_out, at most len + 1 bytes, *ret_len of
 * them. False: the escape to end was typed; what came before it is in ret_out.
 */
bool terminal_filter(struct terminal *t, const uint8_t *in, size_t len, uint8_t *ret_out,
		     size_t *ret_len);

/* All of it, waiting if out_fd is slow. 0 or -Exxx. */
int terminal_write(const struct terminal *t, const void *bytes, size_t len);

#endif
