/* SPDX-License-Identifier: Apache-2.0 */
/* See demo_plot.h. */
#include "cli/demo/demo_plot.h"

#include <string.h>

#define CELLS 52u
#define LEVELS 8u

static void halve(struct demo_plot *p)
{
	for (unsigned i = 0; i < DEMO_PLOT_SAMPLES / 2; i++)
		p->samples[i] = p->samples[2 * i + 1];
	p->count = DEMO_PLOT_SAMPLES / 2;
	p->skip = 2 * p->skip + 1;
}

void demo_plot_add(struct demo_plot *p, uint64_t ns, uint64_t more)
{
	p->done += more;
	if (p->skipped++ < p->skip)
		return;
	p->skipped = 0;
	if (p->count == DEMO_PLOT_SAMPLES)
		halve(p);
	p->samples[p->count].ns = ns;
	p->samples[p->count++].done = p->done;
}

bool demo_plot_is_utf8(const char *lc_all, const char *lc_ctype, const char *lang)
{
	const char *word = lc_all && *lc_all ? lc_all : lc_ctype && *lc_ctype ? lc_ctype : lang;

	return word && (strstr(word, "UTF-8") || strstr(word, "utf8"));
}

/* What was there then. */
static uint64_t done_at(const struct demo_plot *p, uint64_t ns)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < p->count && p->samples[i].ns <= ns; i++)
		done = p->samples[i].done;
	return done;
}

void demo_plot_row(const struct demo_plot *p, const char *name, uint64_t start_ns, double wall_s,
		   double span_s, bool utf8, FILE *out)
{
	static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char *const letters[] = {" ", ".", ".", ":", ":", "+", "+", "#", "#"};

	fprintf(out, "%-15s ", name);
	for (unsigned i = 0; i < CELLS; i++) {
		double from_s = span_s * i / CELLS, until_s = span_s * (i + 1) / CELLS;
		uint64_t at = start_ns + (uint64_t)(until_s * (double)NS_PER_S);
		uint64_t level = 0;

		if (from_s > wall_s)
			break;
		/* Nothing is to be seen of its very end otherwise. */
		if (until_s >= wall_s)
			level = LEVELS;
		else if (p->done > 0)
			level = done_at(p, at) * LEVELS / p->done;
		fputs(utf8 ? blocks[level] : letters[level], out);
	}
	fprintf(out, " %.3f s\n", wall_s);
}
