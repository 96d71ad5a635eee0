/* SPDX-License-Identifier: Apache-2.0 */
/* Switching CPUs off and on. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define SETTLE_MS 100

static bool exists(unsigned cpu, char *path, unsigned size)
{
	snprintf(path, size, "/sys/devices/system/cpu/cpu%u/online", cpu);
	return access(path, W_OK) == 0;
}

static void settle(void)
{
	struct timespec pause = {.tv_nsec = SETTLE_MS * 1000000L};

	nanosleep(&pause, NULL);
}

/* Each CPU but the first off, a while, and on again. */
static enum outcome plug_round(uint64_t *switches)
{
	char path[64];

	for (unsigned cpu = 1; exists(cpu, path, sizeof(path)); cpu++) {
		if (poke(path, "0") < 0)
			return say_failed("%s: 0", path);
		settle();
		if (poke(path, "1") < 0)
			return say_failed("%s: 1", path);
		settle();
		(*switches)++;
	}
	return WELL;
}

static enum outcome finish(enum outcome outcome, uint64_t switches)
{
	char text[ROW_TEXT_BYTES];

	say("{\"step\":\"plug\",\"switches\":%llu,\"hyp\":%s}", (unsigned long long)switches,
	    hyp_text(text, sizeof(text)));
	if (outcome == WELL && switches == 0) {
		say("failed: no CPU can be switched off");
		return UNWELL;
	}
	return outcome;
}

enum outcome plug_until(uint64_t until_ns)
{
	enum outcome outcome = WELL;
	uint64_t switches = 0;

	do {
		uint64_t before = switches;

		outcome = plug_round(&switches);
		if (switches == before)
			break;
	} while (outcome == WELL && now_ns() < until_ns);
	return finish(outcome, switches);
}

enum outcome step_plug(const char *text)
{
	unsigned rounds = (unsigned)strtoul(text, NULL, 10);
	enum outcome outcome = WELL;
	uint64_t switches = 0;

	while (rounds-- > 0 && outcome == WELL)
		outcome = plug_round(&switches);
	return finish(outcome, switches);
}
