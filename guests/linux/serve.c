/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that is asked: its network card comes up and a web server begins, by a script of the
 * initramfs's, as modules and a server are no part of this program. And its card's end.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define SCRIPT "/serve"
#define CARRIER "/sys/class/net/eth0/carrier"
#define PATIENCE_NS 60000000000ull
#define LOOK_NS 10000000ull

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
