/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets between guest and host: an echo server that stays until the guest ends, and connections
 * of our own to one of the host's.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

#include "guest.h"

#define GUEST_PORT 1024u
#define HOST_PORT 52u
#define PATIENCE_NS 120000000000ull
#define RETRY_NS 200000000ull

/* ---- the server ---- */

/* What is left to be sent is sent when the other side sends no more. */
static _Noreturn void echo(int fd)
{
	char buf[8192];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t done = 0, m; done < n; done += m) {
			m = write(fd, buf + done, (size_t)(n - done));
			if (m <= 0)
				_exit(1);
		}
	(void)shutdown(fd, SHUT_WR);
	_exit(0);
}

static _Noreturn void serve(int listening)
{
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept(listening, NULL, NULL);

		if (fd >= 0 && fork() == 0)
			echo(fd);
		if (fd >= 0)
			close(fd);
	}
}

enum outcome vsock_server_start(void)
{
	const struct sockaddr_vm at = {
		.svm_family = AF_VSOCK, .svm_port = GUEST_PORT, .svm_cid = VMADDR_CID_ANY};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0 ||
	    listen(fd, 128) < 0)
		return say_failed("vsock: port %u", GUEST_PORT);
	if (fork() == 0)
		serve(fd);
	close(fd);
	return WELL;
}

/* ---- our own connections ---- */

/* Its server may not be there yet. */
int vsock_connect_to_host(void)
{
	const struct sockaddr_vm at = {
		.svm_family = AF_VSOCK, .svm_port = HOST_PORT, .svm_cid = VMADDR_CID_HOST};
	uint64_t end = now_ns() + PATIENCE_NS;

	for (;;) {
		int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

		if (fd >= 0 && connect(fd, (const struct sockaddr *)&at, sizeof(at)) == 0)
			return fd;
		if (fd >= 0)
			close(fd);
		if (now_ns() > end)
			return -1;
		sleep_until(now_ns() + RETRY_NS);
	}
}
