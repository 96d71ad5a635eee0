/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's terminal as a guest's console: raw while the VM runs, as it was afterwards.
 * Decides when there is a terminal at all (a pipe or file is left alone and has no escape),
 * and what of the typed bytes is the guest's: Ctrl-A x ends, Ctrl-A Ctrl-A is one Ctrl-A.
 *
 * There is no exit handler and no signal handler here. The owner calls terminal_close() on
 * every ordinary way out, and terminal_restore() from its handlers of fatal signals.
 *
 * Threads: open, filter and close belong to one at a time; terminal_restore() and
 * terminal_write() may be called by any. Test: tests/unit/terminal_test.c.
 */
#ifndef VMM_TERMINAL_H
#define VMM_TERMINAL_H

#include <stdatomic.h>
#include <termios.h>

#include "base/err.h"
#include "base/types.h"

#define TERMINAL_ESCAPE 0x01u /* Ctrl-A */

struct terminal {
	int in_fd, out_fd;
	bool is_tty;        /* in_fd is; there is an escape */
	bool escaped;       /* the last byte was the escape */
	atomic_bool raw;    /* `saved` must be put back */
	struct termios saved;
};

/*
 * Makes in_fd raw if it is a terminal and we are in its foreground. Output processing stays
 * on, so that our own messages look right. The descriptors stay the caller's. On failure
 * nothing has changed.
 */
int terminal_open(struct terminal *t, int in_fd, int out_fd, struct err *e);

/* Puts the terminal back; harmless on a zeroed or closed struct, and twice. */
void terminal_close(struct terminal *t);

/* The same for fatal paths: async-signal-safe, keeps errno, any thread, any number of times. */
void terminal_restore(struct terminal *t);

/*
 * Sorts typed bytes: what is the guest's goes to ret_out, at most len + 1 bytes, *ret_len of
 * them. False: the escape to end was typed; what came before it is in ret_out.
 */
bool terminal_filter(struct terminal *t, const uint8_t *in, size_t len, uint8_t *ret_out,
		     size_t *ret_len);

/* All of it, waiting if out_fd is slow. 0 or -Exxx. */
int terminal_write(const struct terminal *t, const void *bytes, size_t len);

#endif
