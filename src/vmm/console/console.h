/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the guest's serial port and two descriptors: what the guest prints is gathered and
 * written in pieces, what is typed is given to the port as it takes it. Decides that a reader
 * who is slow, or gone to sleep, holds up a guest that prints, and nobody else: the output
 * descriptor is never waited for. And that a terminal's escape is heard whatever the guest does:
 * what is typed waits for a guest that reads, and is lost for one that has stopped to.
 *
 * Threads: console_put by any vCPU, everything else by the thread that runs the machine. It
 * is woken by `wake_fd` when there is something to do. Test: tests/unit/console_test.c.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include <pthread.h>

#include "base/err.h"
#include "vmm/chip/serial_16550.h"
#include "vmm/console/said.h"
#include "vmm/console/terminal.h"

#define CONSOLE_OUT_BYTES 16384u
#define CONSOLE_IN_BYTES 256u
/* What is printed in this time after a piece is the next. */
#define CONSOLE_GATHER_MS 10
/* A port that is full, and of which nothing is read for so long, gets no more of a terminal. */
#define CONSOLE_STUCK_MS 2000

struct console {
	bool is_open;
	struct terminal *terminal; /* the caller's, or `own` */
	struct terminal own;
	int out_fd;    /* ours: does not block, wherever that is possible */
	int wake_fd;   /* an eventfd, borrowed */
	bool in_open;  /* there may be more to read */
	uint8_t in[CONSOLE_IN_BYTES + 1]; /* typed, and not yet taken by the port */
	size_t in_at, in_len;
	uint64_t stuck_ns; /* if that is not taken until then */

	pthread_mutex_t lock; /* covers the rest */
	pthread_cond_t room;
	struct said said;     /* by the guest, written or not */
	bool closing;         /* nothing is gathered any more, and nobody waits for room */
	struct err lost;      /* why output was given up; code 0: it was not */
	uint8_t out[CONSOLE_OUT_BYTES];
	size_t out_at, out_len;
};

/*
 * in_fd: -1, or what is typed; a terminal is raw until console_close, while we are in its
 * foreground. out_fd: -1, or where it is printed. Both stay the caller's, and open until
 * console_close. terminal: one that the caller has initialised and closes after us, with the
 * modes that it shares; NULL: one of our own.
 */
int console_open(struct console *c, int in_fd, int out_fd, int wake_fd, struct terminal *terminal,
		 struct terminal_modes *modes, struct err *e);
/* What has not been written is lost. Harmless on a console that was not opened but zeroed. */
void console_close(struct console *c);

/* The guest prints a byte. Waits for room, until console_hurry. */
void console_put(struct console *c, uint8_t byte);
/* No vCPU waits for room from now on; the bytes are lost instead. */
void console_hurry(struct console *c);

/* What it has printed so far. Any thread. */
void console_said(struct console *c, struct said *ret);

/* There is something to write. */
bool console_has_output(struct console *c);
/*
 * Writes what is there as it is called, if the descriptor takes it at once: a guest that never
 * pauses does not keep the caller. 0: written; 1: it takes no more now; -Exxx: the reader is gone
 * (-EPIPE, -EIO). Any other failure loses the output, which c->lost tells.
 */
int console_flush(struct console *c);

/* The descriptor to be polled for input now, or -1: for *ret_ms at most, if that is not -1. */
int console_input_fd(struct console *c, int *ret_ms);
/*
 * Reads what is there, for the port; while the port has not taken what was read before, only from
 * a terminal, and only for the escape. False: the escape to end was typed.
 */
bool console_read(struct console *c, struct serial *to);
/* The port has room again. */
void console_push(struct console *c, struct serial *to);

#endif
