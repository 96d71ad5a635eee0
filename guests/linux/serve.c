/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that is asked: its network card comes up and a web server begins, by a script of the
 * initramfs's, as modules and a server are no part of this program. The end of who asks, and of
 * the card.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define SCRIPT "/serve"
#define CARRIER "/sys/class/net/eth0/carrier"
#define PATIENCE_NS 60000000000ull
#define LOOK_NS 10000000ull
#define CONNECTIONS "/proc/net/tcp"
#define CONNECTIONS_BYTES 65536u
#define PORT 80u
/* A file at the rate of the test's slow ones takes half a minute, on a machine of its own. */
#define SERVED_PATIENCE_NS 150000000000ull
/* States of /proc/net/tcp in which nothing is under way any more, or nothing yet. */
#define TIME_WAIT 6u
#define CLOSED 7u
#define LISTENING 10u

/* text: the card's address; "dhcp": whichever it is given. Said once it is served. */
enum outcome step_serve(const char *text)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		execl(SCRIPT, SCRIPT, text, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return say_failed(SCRIPT);
	if (status != 0) {
		say("failed: " SCRIPT ": status %#x", (unsigned)status);
		return UNWELL;
	}
	say("{\"step\":\"serve\",\"how\":\"%s\"}", text);
	return WELL;
}

/* How many connections of the server's the other side has not closed; -1: that cannot be read. */
static int connections(void)
{
	static char text[CONNECTIONS_BYTES];
	char *save = NULL;
	int count = 0;

	if (slurp(CONNECTIONS, text, sizeof(text)) < 0)
		return -1;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		unsigned port, state;

		if (sscanf(line, "%*s %*x:%x %*x:%*x %x", &port, &state) == 2 && port == PORT &&
		    state != TIME_WAIT && state != CLOSED && state != LISTENING)
			count++;
	}
	return count;
}

/* Waits until who has begun to ask has the answer, as the end of the machine would cut it off. */
enum outcome step_served(const char *text)
{
	uint64_t end = now_ns() + SERVED_PATIENCE_NS;
	int left;

	(void)text;
	while ((left = connections()) > 0 && now_ns() < end)
		sleep_until(now_ns() + LOOK_NS);
	if (left < 0)
		return say_failed(CONNECTIONS);
	if (left > 0) {
		say("failed: %d connections to the server are still open", left);
		return UNWELL;
	}
	say("{\"step\":\"served\"}");
	return WELL;
}

/* Says when whoever it is may take the card's other end away, and waits until it has no link. */
enum outcome step_cut(const char *text)
{
	uint64_t end = now_ns() + PATIENCE_NS;
	char carrier[4] = "";

	(void)text;
	say("{\"step\":\"cut\"}");
	while (now_ns() < end) {
		if (slurp(CARRIER, carrier, sizeof(carrier)) > 0 && carrier[0] == '0') {
			say("{\"step\":\"no-link\"}");
			return WELL;
		}
		sleep_until(now_ns() + LOOK_NS);
	}
	say("failed: " CARRIER " is %c after the card's other end went", carrier[0]);
	return UNWELL;
}
