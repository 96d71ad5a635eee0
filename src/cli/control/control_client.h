/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side of the control socket (docs/control.md): connects, greets, asks, reads
 * answers. Every wait has a limit, so a server that hangs cannot hang us. Errors read
 * "why; what to do": the verb puts before them what failed, on which socket.
 *
 * One thread. Tests: tests/error/control_test.py, control_server_test.py.
 */
#ifndef CLI_CONTROL_CLIENT_H
#define CLI_CONTROL_CLIENT_H

#include "base/err.h"
#include "vmm/control/control_event.h"
#include "vmm/control/control_proto.h"
#include "vmm/control/control_status.h"

struct control_client {
	int fd;
	int pid_fd; /* the server's process; -1: it cannot be had */
	uint32_t timeout_ms;
	uint64_t limit_ms; /* 0: none */
	int stop_fd; /* once readable, waits for a line end with -EINTR; -1, as at first: none */
	const int *fds; /* CONTROL_SNAPSHOT_FDS that go with the next request; NULL: none */
	uint64_t until_ms; /* its end: nothing is waited for beyond it; by CLOCK_MONOTONIC */
	struct control_lines in;
};

/*
 * timeout_ms: how long the server may be silent, here and in each answer; limit_ms: how long
 * all calls may take together, 0: for ever. 0 or -Exxx: -ENOENT, there is no socket;
 * -ECONNREFUSED, nobody answers; -ECONNRESET, it hung up. On failure there is nothing to close.
 */
int control_client_open(struct control_client *c, const char *path, uint32_t timeout_ms,
			uint64_t limit_ms, struct err *e);
void control_client_close(struct control_client *c);

typedef void control_progress(const struct control_status *s);

/*
 * Asks, and reads the answer into *ret, which begins as zeroes. progress, unless NULL, is
 * called with what has come so far each time it has come whole. 0; -EREMOTEIO: the server
 * could not do it, e holds its words; -ECONNRESET: it hung up; other -Exxx: the connection is of
 * no more use.
 */
int control_client_ask(struct control_client *c, const struct control_request *r,
		       control_progress *progress, struct control_status *ret, struct err *e);

/* False: it wants no more. */
typedef bool control_hear(void *ctx, const struct control_event *ev);

/*
 * After CONTROL_FOLLOW has been said by this: calls `hear` with each event, until the VM has ended,
 * or it wants no more; there is no limit to the silence between two events. 0; -EREMOTEIO: the
 * server cannot, e holds its words; -ECONNRESET: it hung up without an end; other -Exxx as above.
 */
int control_client_follow(struct control_client *c, control_hear *hear, void *ctx,
			  struct err *e);

/*
 * After CONTROL_STOP: until the server has hung up and its process has ended. -ETIME when the
 * limit is over.
 */
int control_client_wait_end(struct control_client *c, struct err *e);

#endif
