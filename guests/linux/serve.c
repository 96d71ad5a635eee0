/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that is asked: its network card comes up and a web server begins, by a script of the
 * initramfs's, as modules and a server are no part of this program.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define SCRIPT "/serve"

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
