/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of a guest that is restored from a snapshot: an echo server on a socket, and a
 * connection to the host's, which is made anew whenever it ends. Says so in lines that begin
 * with "@".
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "guest.h"

int main(void)
{
	char byte = 'x';

	if (vsock_server_start() == UNWELL)
		return 1;
	for (unsigned n = 1;; n++) {
		int fd;

		/* After a restore, the server comes when the test is that far. */
		do
			fd = vsock_connect_to_host();
		while (fd < 0);
		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) {
			say_failed("talk: the host's echo server");
			return 1;
		}
		dprintf(1, "\n@talks %u\n", n);
		/* Nothing comes but the end. */
		dprintf(1, "\n@lost %d\n", read(fd, &byte, 1) < 0 ? errno : 0);
		close(fd);
	}
}
