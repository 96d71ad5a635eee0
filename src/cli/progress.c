/* SPDX-License-Identifier: Apache-2.0 */
/* See progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/size.h"
#include "base/time.h"
#include "cli/cli.h"

#define BAR_COLUMNS 24u
/* How much of the rate is older than a second; what is sparse is fast for a while only. */
#define KEPT_IN_A_SECOND 0.7

bool progress_wanted(void)
{
	const char *term = getenv("TERM");

	/* Such a one cannot clear a line. */
	return isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
}

/* What fits on a line, the cursor behind it; a terminal that does not say has the usual width. */
static size_t room_on_line(void)
{
	struct winsize w = {.ws_col = 0};

	(void)ioctl(STDERR_FILENO, TIOCGWINSZ, &w);
	return w.ws_col && w.ws_col < CLI_COLUMNS ? w.ws_col : CLI_COLUMNS;
}

static void note_rate(struct progress *p, uint64_t done, uint64_t now_ns)
{
	double s = (double)(now_ns - p->last_ns) / NS_PER_S, now;

	if (p->last_ns != 0 && now_ns > p->last_ns) {
		double share = s < 1 ? (1 - KEPT_IN_A_SECOND) * s : 1 - KEPT_IN_A_SECOND;

		now = (double)(done - p->last_done) / s;
		p->rate = p->rate > 0 ? p->rate + share * (now - p->rate) : now;
	}
	p->last_ns = now_ns;
	p->last_done = done;
}

static void time_left(double s, char *ret, size_t room)
{
	if (s < 100)
		(void)snprintf(ret, room, ", %u s left", (unsigned)(s + 0.5));
	else if (s < 100 * 60)
		(void)snprintf(ret, room, ", %u min left", (unsigned)(s / 60 + 0.5));
	else if (s < 100 * 3600)
		(void)snprintf(ret, room, ", %u h left", (unsigned)(s / 3600 + 0.5));
	else
		(void)snprintf(ret, room, ", long to go");
}

void progress_line(struct progress *p, uint64_t done, uint64_t total, uint64_t now_ns, char *ret,
		   size_t room)
{
	char bar[BAR_COLUMNS + 1], left[32] = "", rate[40] = "";
	unsigned full;

	note_rate(p, done, now_ns);
	if (p->rate >= 1)
		(void)snprintf(rate, sizeof(rate), ", %s/s", SIZE_TEXT((uint64_t)p->rate));
	if (total == PROGRESS_UNKNOWN || total == 0) {
		(void)snprintf(ret, room, "%s: %s%s", p->what, SIZE_TEXT(done), rate);
		return;
	}
	full = (unsigned)((double)done / (double)total * BAR_COLUMNS);
	memset(bar, '-', BAR_COLUMNS);
	memset(bar, '#', min_u64(full, BAR_COLUMNS));
	bar[BAR_COLUMNS] = '\0';
	if (p->rate >= 1 && done < total)
		time_left((double)(total - done) / p->rate, left, sizeof(left));
	(void)snprintf(ret, room, "%s [%s] %3u %%%s%s", p->what, bar,
		       (unsigned)((double)done / (double)total * 100), rate, left);
}

void progress_show(void *ctx, uint64_t done, uint64_t total)
{
	struct progress *p = ctx;
	char line[CLI_COLUMNS];

	progress_line(p, done, total, monotonic_ns(), line, room_on_line());
	fprintf(stderr, "\r\033[K%s", line);
	p->shown = true;
}

void progress_end(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
