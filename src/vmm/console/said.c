/* SPDX-License-Identifier: Apache-2.0 */
/* See said.h. */
#include "vmm/console/said.h"

#include <string.h>

/* Linux, also before its console is set up; Xen; the BSDs. */
static const char *const panics[] = {
	"Kernel panic - not syncing", "PANIC: early exception", "Panic on CPU ", "panic: ",
};

static bool is_panic(const char *line)
{
	for (size_t i = 0; i < ARRAY_LEN(panics); i++)
		if (strstr(line, panics[i]))
			return true;
	return false;
}

static void end_line(struct said *s)
{
	s->line[s->len] = '\0';
	if (s->len) {
		memcpy(s->last, s->line, s->len + 1);
		if (!*s->panic && is_panic(s->line))
			memcpy(s->panic, s->line, s->len + 1);
	}
	s->len = 0;
}

void said_put(struct said *s, uint8_t byte)
{
	s->bytes++;
	if (byte == '\n')
		end_line(s);
	else if (byte >= 0x20 && byte < 0x7f && s->len < SAID_LINE_BYTES - 1)
		s->line[s->len++] = (char)byte;
	s->line[s->len] = '\0';
}

const char *said_last(const struct said *s)
{
	return s->len ? s->line : s->last;
}
