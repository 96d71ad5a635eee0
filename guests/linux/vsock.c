/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets between guest and host: an echo server that stays until the guest ends, and connections
 * of our own to one of the host's, each byte of which is checked.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

#include "guest.h"

#define GUEST_PORT 1024u
#define HOST_PORT 52u
#define PATIENCE_NS 120000000000ull
#define RETRY_NS 200000000ull
#define CONNECTIONS 16u
#define BYTES 100000u
#define DRIVER "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport"
#define CUT_CONNECTIONS 4u
#define CUT_MS 30000

static unsigned char content(unsigned connection, unsigned at)
{
	return (unsigned char)(at * 7 + at / 251 + connection);
}

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

/* Sent by a child, so that neither direction waits for the other. */
static void send_all(int fd, unsigned connection)
{
	static unsigned char out[BYTES];

	for (unsigned i = 0; i < BYTES; i++)
		out[i] = content(connection, i);
	for (size_t done = 0; done < BYTES;) {
		ssize_t n = write(fd, out + done, BYTES - done);

		if (n <= 0)
			_exit(1);
		done += (size_t)n;
	}
	(void)shutdown(fd, SHUT_WR);
	_exit(0);
}

static enum outcome check_one(int fd, unsigned connection)
{
	static unsigned char in[4096];
	unsigned got = 0;
	ssize_t n;

	while ((n = read(fd, in, sizeof(in))) > 0)
		for (ssize_t i = 0; i < n; i++, got++)
			if (in[i] != content(connection, got)) {
				say("mismatch: vsock connection %u, byte %u", connection, got);
				return UNWELL;
			}
	if (n < 0)
		return say_failed("vsock connection %u", connection);
	if (got != BYTES) {
		say("failed: vsock connection %u ended after %u bytes", connection, got);
		return UNWELL;
	}
	return WELL;
}

enum outcome step_vsock(const char *text)
{
	enum outcome outcome = vsock_server_start();
	pid_t senders[CONNECTIONS];
	int fds[CONNECTIONS], status;
	unsigned begun = 0;

	say("{\"step\":\"vsock\",\"port\":%u,\"how\":\"%s\"}", GUEST_PORT, text);
	for (; begun < CONNECTIONS && outcome == WELL; begun++) {
		fds[begun] = vsock_connect_to_host();
		if (fds[begun] < 0)
			return say_failed("vsock: connecting to the host");
		senders[begun] = fork();
		if (senders[begun] == 0)
			send_all(fds[begun], begun);
	}
	for (unsigned i = 0; i < begun; i++) {
		if (check_one(fds[i], i) == UNWELL)
			outcome = UNWELL;
		close(fds[i]);
		/* None is left for a later step, which would take it for one of its own. */
		if (senders[i] > 0)
			(void)waitpid(senders[i], &status, 0);
	}
	say("{\"step\":\"vsock-end\",\"connections\":%u,\"bytes\":%u}", CONNECTIONS, BYTES);
	return outcome;
}

/* ---- a device that goes ---- */

/* "virtioN" in the driver's folder. */
static bool device_name(char *name, unsigned size)
{
	DIR *folder = opendir(DRIVER);
	struct dirent *entry;
	bool found = false;

	while (folder && !found && (entry = readdir(folder)))
		if ((found = strncmp(entry->d_name, "virtio", 6) == 0))
			snprintf(name, size, "%.15s", entry->d_name);
	if (folder)
		closedir(folder);
	return found;
}

/* Whether a connection that was in use is over, whatever is still read from it. */
static bool is_over(int fd)
{
	char buf[4096];
	ssize_t n;

	do {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		if (poll(&p, 1, CUT_MS) <= 0)
			return false;
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	} while (n > 0 || (n < 0 && errno == EAGAIN));
	return true;
}

static enum outcome cut_and_mend(const int *fds, unsigned count)
{
	char name[16];

	if (!device_name(name, sizeof(name)) || poke(DRIVER "/unbind", name) < 0)
		return say_failed(DRIVER "/unbind");
	for (unsigned i = 0; i < count; i++)
		if (!is_over(fds[i])) {
			say("failed: vsock: a connection outlives its device");
			return UNWELL;
		}
	return poke(DRIVER "/bind", name) < 0 ? say_failed(DRIVER "/bind") : WELL;
}

enum outcome step_rebind(const char *text)
{
	static char out[BYTES];
	int fds[CUT_CONNECTIONS];
	enum outcome outcome = WELL;
	unsigned begun = 0;

	(void)text;
	for (; begun < CUT_CONNECTIONS; begun++) {
		fds[begun] = vsock_connect_to_host();
		if (fds[begun] < 0) {
			outcome = say_failed("vsock: connecting to the host");
			break;
		}
		/* As much as goes: some is under way in both directions. */
		(void)!send(fds[begun], out, sizeof(out), MSG_DONTWAIT);
	}
	if (outcome == WELL)
		outcome = cut_and_mend(fds, begun);
	while (begun-- > 0)
		close(fds[begun]);
	say("{\"step\":\"rebind\",\"connections\":%u}", CUT_CONNECTIONS);
	return outcome;
}
