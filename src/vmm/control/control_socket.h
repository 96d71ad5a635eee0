/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket, or another one for the VM's user, as a file: made so that nobody but its
 * owner can ever connect, put in the place of one that a dead server left, never in the place of
 * anything else, and taken away at the end if it is still ours. No protocol.
 * Test: tests/unit/control_socket_test.c.
 */
#ifndef VMM_CONTROL_SOCKET_H
#define VMM_CONTROL_SOCKET_H

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

struct control_socket {
	const char *what; /* for texts */
	int fd;     /* listens; non-blocking; the caller polls and accepts */
	int dir_fd; /* the socket's folder, so that a chdir does not matter */
	const char *name; /* in that folder: within path */
	char path[108];   /* sizeof(sun_path) */
	dev_t dev;
	ino_t ino;
};

/*
 * what: "control socket", for texts; stays until close. 0 or -Exxx. On failure there is nothing to
 * close, and no file was changed.
 */
int control_socket_open(struct control_socket *s, const char *what, const char *path,
			struct err *e);

/* Removes the file, closes the descriptors. Only after control_socket_open() succeeded. */
void control_socket_close(struct control_socket *s);

#endif
