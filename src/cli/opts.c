/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See opts.h. Words that the user typed are cut at 60 characters in errors, so that
 * the reason behind them is never what gets lost.
 */
#include "cli/opts.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "base/assert.h"
#include "base/size.h"
#include "cli/cli.h"

/* getopt_long return values; table rows count from 0 upwards behind ROW_FIRST. */
enum { KEY_HELP = 'h', KEY_VERSION = 256, ROW_FIRST = 512 };

#define NEAREST_WORD_MAX 32 /* longer words get no suggestion */

int opts_number(const char *text, uint64_t *ret_value)
{
	uint64_t v = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (!isdigit((unsigned char)*text))
			return -EINVAL;
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
			return -ERANGE;
	}
	*ret_value = v;
	return 0;
}

int opts_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGT";
	char digits[24];
	size_t len = strlen(text);
	unsigned shift = 0;
	uint64_t v;
	int r;

	for (; len > 1 && text[0] == '0' && isdigit((unsigned char)text[1]); len--)
		text++;
	if (len == 0)
		return -EINVAL;
	const char *unit = strchr(units, toupper((unsigned char)text[len - 1]));
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		len--;
	}
	if (len >= sizeof(digits))
		return -ERANGE;
	memcpy(digits, text, len);
	digits[len] = '\0';
	r = opts_number(digits, &v);
	if (r < 0)
		return r;
	if (shift && v >> (64 - shift))
		return -ERANGE;
	*ret_bytes = v << shift;
	return 0;
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/*
 * Letters that are wrong, missing, too many, or changed with their neighbour, ignoring case; both
 * words are at most NEAREST_WORD_MAX long. Three rows of the table of all beginnings suffice.
 */
static unsigned word_distance(const char *a, const char *b)
{
	unsigned rows[3][NEAREST_WORD_MAX + 1];
	unsigned *older = rows[0], *old = rows[1], *now = rows[2];
	size_t len = strlen(b);

	for (unsigned j = 0; j <= len; j++)
		old[j] = j;
	for (unsigned i = 1; a[i - 1]; i++) {
		int x = tolower((unsigned char)a[i - 1]);

		now[0] = i;
		for (unsigned j = 1; j <= len; j++) {
			int y = tolower((unsigned char)b[j - 1]);

			now[j] = least(old[j - 1] + (x != y), least(old[j], now[j - 1]) + 1);
			if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
			    y == tolower((unsigned char)a[i - 2]))
				now[j] = least(now[j], older[j - 2] + 1);
		}
		unsigned *free_row = older;

		older = old;
		old = now;
		now = free_row;
	}
	return old[len];
}

const char *opts_nearest(const char *word, const char *const *words)
{
	const char *found = NULL;
	size_t len = strlen(word);
	/* At least two thirds of the word must be right. */
	unsigned best = (unsigned)len / 3 + 1;

	if (len == 0 || len > NEAREST_WORD_MAX)
		return NULL;
	for (; *words; words++) {
		if (strlen(*words) > NEAREST_WORD_MAX)
			continue;
		unsigned d = len >= 3 && strncmp(word, *words, len) == 0
				     ? 1
				     : word_distance(word, *words);
		if (d < best) {
			best = d;
			found = *words;
		}
	}
	return found;
}

static int bad_value(const struct opts *o, const struct opt *row, const char *text,
		     const char *why, struct err *e)
{
	return err_set(e, -EINVAL, "bad value: --%s %.60s: %s; see 'asyncpf %s --help'", row->name,
		       *text ? text : "''", why, o->verb);
}

static int bad_range(const struct opts *o, const struct opt *row, const char *text, struct err *e)
{
	char why[96];

	if (row->kind == OPT_KIND_SIZE && row->max > UINT64_MAX / 2)
		snprintf(why, sizeof(why), "too large");
	else if (row->kind == OPT_KIND_SIZE)
		snprintf(why, sizeof(why), "it must lie between %s and %s", SIZE_WORD(row->min),
			 SIZE_WORD(row->max));
	else
		snprintf(why, sizeof(why), "it must lie between %llu and %llu",
			 (unsigned long long)row->min, (unsigned long long)row->max);
	return bad_value(o, row, text, why, e);
}

static int store_choice(const struct opts *o, const struct opt *row, const char *text,
			unsigned *into, struct err *e)
{
	char why[128] = "it must be one of";
	size_t used = strlen(why);

	for (unsigned i = 0; row->choices[i]; i++) {
		if (strcmp(row->choices[i], text) == 0) {
			*into = i;
			return 0;
		}
		int n = snprintf(why + used, sizeof(why) - used, "%s %s", i ? "," : "",
				 row->choices[i]);
		ASSERT(n > 0 && (size_t)n < sizeof(why) - used);
		used += (size_t)n;
	}
	return bad_value(o, row, text, why, e);
}

static int store_number(const struct opts *o, const struct opt *row, const char *text, void *into,
			struct err *e)
{
	uint64_t v;
	int r;

	if (row->kind == OPT_KIND_AUTO && strcmp(text, "auto") == 0) {
		*(int64_t *)into = -1;
		return 0;
	}
	r = row->kind == OPT_KIND_SIZE ? opts_size(text, &v) : opts_number(text, &v);
	if (r == -EINVAL && row->kind == OPT_KIND_SIZE)
		return bad_value(o, row, text, "not a size such as 4096, 64K, 512M or 2G", e);
	if (r == -EINVAL && row->kind == OPT_KIND_AUTO)
		return bad_value(o, row, text, "neither a decimal number nor 'auto'", e);
	if (r == -EINVAL)
		return bad_value(o, row, text, "not a decimal number", e);
	if (r < 0 || v < row->min || v > row->max)
		return bad_range(o, row, text, e);
	if (row->kind == OPT_KIND_U32)
		*(uint32_t *)into = (uint32_t)v;
	else if (row->kind == OPT_KIND_AUTO)
		*(int64_t *)into = (int64_t)v;
	else
		*(uint64_t *)into = v;
	return 0;
}

static int store_list(const struct opts *o, const struct opt *row, const char *text,
		      struct opts_list *into, struct err *e)
{
	char why[64];

	ASSERT(row->max <= OPTS_LIST_MAX);
	if (into->count == row->max) {
		snprintf(why, sizeof(why), "given more than %u times", into->count);
		return bad_value(o, row, text, why, e);
	}
	into->text[into->count++] = text;
	return 0;
}

static int store(const struct opts *o, const struct opt *row, const char *text, void *base,
		 struct err *e)
{
	void *into = (char *)base + row->field;

	switch (row->kind) {
	case OPT_KIND_FLAG:
		*(bool *)into = true;
		return 0;
	case OPT_KIND_TEXT:
	case OPT_KIND_LIST:
		if (!*text)
			return bad_value(o, row, text, "it must not be empty", e);
		if (row->kind == OPT_KIND_LIST)
			return store_list(o, row, text, into, e);
		*(const char **)into = text;
		return 0;
	case OPT_KIND_ANY:
		*(const char **)into = text;
		return 0;
	case OPT_KIND_CHOICE:
		return store_choice(o, row, text, into, e);
	case OPT_KIND_U32:
	case OPT_KIND_U64:
	case OPT_KIND_SIZE:
	case OPT_KIND_AUTO:
		break;
	}
	return store_number(o, row, text, into, e);
}

/*
 * getopt_long has refused `word`: says why, as exactly as it lets us know. cluster: the word that
 * a refused letter is in, which may be an option with a dash too few; or NULL.
 */
static void explain_refusal(const struct opts *o, const struct option *longs, int got,
			    const char *word, const char *cluster, struct err *e)
{
	const char *names[OPTS_ROWS_MAX + 3];
	size_t len = strcspn(word, "=");
	char bare[NEAREST_WORD_MAX + 3];
	unsigned n = 0, prefixes = 0;

	if (got == ':') {
		err_set(e, -EINVAL, "missing value: %.60s: the option needs one; "
			"see 'asyncpf %s --help'", word, o->verb);
		return;
	}
	for (; longs[n].name; n++) {
		names[n] = longs[n].name;
		if (len > 2 && strncmp(longs[n].name, word + 2, len - 2) == 0)
			prefixes++;
	}
	names[n] = NULL;
	if (optopt && strchr(word, '=')) {
		err_set(e, -EINVAL, "unexpected value: %.60s: the option takes none; "
			"see 'asyncpf %s --help'", word, o->verb);
		return;
	}
	if (prefixes > 1) {
		err_set(e, -EINVAL, "ambiguous option: %.60s: more than one option starts so; "
			"see 'asyncpf %s --help'", word, o->verb);
		return;
	}
	const char *meant = NULL;
	if (strncmp(word, "--", 2) == 0 && len - 2 <= NEAREST_WORD_MAX) {
		memcpy(bare, word + 2, len - 2);
		bare[len - 2] = '\0';
		meant = opts_nearest(bare, names);
	} else if (cluster && strcspn(cluster, "=") <= NEAREST_WORD_MAX) {
		snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(cluster, "=") - 1, cluster + 1);
		meant = opts_nearest(bare, names);
		word = meant ? cluster : word;
	}
	if (meant)
		err_set(e, -EINVAL, "unknown option: %.60s: 'asyncpf %s' does not have it; "
			"did you mean '--%s'?", word, o->verb, meant);
	else
		err_set(e, -EINVAL, "unknown option: %.60s: 'asyncpf %s' does not have it; "
			"see 'asyncpf %s --help'", word, o->verb, o->verb);
}

static int check_operands(const struct opts *o, int argc, char **argv, struct err *e)
{
	unsigned n = (unsigned)(argc - optind);

	if (n > o->operands_max)
		return err_set(e, -EINVAL, "unexpected operand: %.60s: 'asyncpf %s' takes %s; "
			       "see 'asyncpf %s --help'", argv[optind + (int)o->operands_max],
			       o->verb, o->operands_max ? "fewer" : "none", o->verb);
	if (n < o->operands_min)
		return err_set(e, -EINVAL, "missing operand: %s: 'asyncpf %s' needs it; "
			       "see 'asyncpf %s --help'", o->operands, o->verb, o->verb);
	for (int i = optind; i < argc; i++)
		if (!*argv[i])
			return err_set(e, -EINVAL, "bad operand: '': it must not be empty; see "
				       "'asyncpf %s --help'", o->verb);
	return 0;
}

enum opts_outcome opts_parse(const struct opts *o, int argc, char **argv, void *into,
			     int *ret_operand, struct err *e)
{
	struct option longs[OPTS_ROWS_MAX + 3];
	unsigned n = 0;

	memset(longs, 0, sizeof(longs));
	for (; o->rows[n].name; n++) {
		ASSERT(n < OPTS_ROWS_MAX);
		longs[n].name = o->rows[n].name;
		longs[n].has_arg =
			o->rows[n].kind == OPT_KIND_FLAG ? no_argument : required_argument;
		longs[n].val = ROW_FIRST + (int)n;
	}
	longs[n] = (struct option){"help", no_argument, NULL, KEY_HELP};
	longs[n + 1] = (struct option){"version", no_argument, NULL, KEY_VERSION};

	optind = 0; /* glibc: start afresh */
	opterr = 0;
	for (;;) {
		optopt = 0;
		int got = getopt_long(argc, argv, ":h", longs, NULL);

		if (got == -1)
			break;
		if (got == KEY_HELP)
			return OPTS_HELP;
		if (got == KEY_VERSION)
			return OPTS_VERSION;
		if (got == '?' || got == ':') {
			char letter[3] = {'-', (char)optopt, '\0'};
			bool is_letter = got == '?' && optopt > 0 && optopt < KEY_VERSION &&
					 optopt != KEY_HELP;
			const char *word = is_letter ? letter : argv[optind - 1];
			/* While letters of it are still to come, optind is the word's. */
			bool within = is_letter && optind < argc && argv[optind][0] == '-' &&
				      argv[optind][1] == letter[1] && argv[optind][2];

			explain_refusal(o, longs, got, word, within ? argv[optind] : NULL, e);
			return OPTS_BAD;
		}
		if (store(o, &o->rows[got - ROW_FIRST], optarg, into, e) < 0)
			return OPTS_BAD;
	}
	if (check_operands(o, argc, argv, e) < 0)
		return OPTS_BAD;
	*ret_operand = optind;
	return OPTS_RUN;
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static void text_word(const struct opt *row, const char *value, const char *by_default,
		      struct words *ret)
{
	if (value && !same_text(value, by_default))
		words_add(ret, "--%s=%s", row->name, value);
}

static void number_word(const struct opt *row, uint64_t value, uint64_t by_default,
			struct words *ret)
{
	if (value != by_default)
		words_add(ret, "--%s=%llu", row->name, (unsigned long long)value);
}

static void row_words(const struct opt *row, const void *value, const void *by_default,
		      struct words *ret)
{
	const struct opts_list *list = value;

	switch (row->kind) {
	case OPT_KIND_FLAG:
		if (*(const bool *)value && !*(const bool *)by_default)
			words_add(ret, "--%s", row->name);
		return;
	case OPT_KIND_TEXT:
	case OPT_KIND_ANY:
		text_word(row, *(const char *const *)value, *(const char *const *)by_default, ret);
		return;
	case OPT_KIND_LIST:
		for (unsigned i = 0; i < list->count; i++)
			text_word(row, list->text[i], NULL, ret);
		return;
	case OPT_KIND_CHOICE:
		if (*(const unsigned *)value != *(const unsigned *)by_default)
			text_word(row, row->choices[*(const unsigned *)value], NULL, ret);
		return;
	case OPT_KIND_U32:
		number_word(row, *(const uint32_t *)value, *(const uint32_t *)by_default, ret);
		return;
	case OPT_KIND_AUTO:
		if (*(const int64_t *)value < 0 && *(const int64_t *)by_default >= 0) {
			text_word(row, "auto", NULL, ret);
			return;
		}
		break;
	case OPT_KIND_SIZE:
		text_word(row, SIZE_WORD(*(const uint64_t *)value),
			  SIZE_WORD(*(const uint64_t *)by_default), ret);
		return;
	case OPT_KIND_U64:
		break;
	}
	number_word(row, *(const uint64_t *)value, *(const uint64_t *)by_default, ret);
}

void opts_words(const struct opts *o, const void *values, const void *defaults, struct words *ret)
{
	for (const struct opt *row = o->rows; row->name; row++)
		row_words(row, (const char *)values + row->field,
			  (const char *)defaults + row->field, ret);
}

#define HELP_COLUMN 26
static void help_row(const char *left, const char *text, FILE *out)
{
	if (strlen(left) + 2 > HELP_COLUMN)
		fprintf(out, "%s\n%*s", left, HELP_COLUMN, "");
	else
		fprintf(out, "%-*s", HELP_COLUMN, left);
	cli_wrapped(out, text, HELP_COLUMN, HELP_COLUMN);
}

void opts_help(const struct opts *o, FILE *out)
{
	fprintf(out, "usage: asyncpf %s [OPTION]...%s%s\n\n%s\n\nOptions:\n", o->verb,
		o->operands ? " " : "", o->operands ? o->operands : "", o->about);
	for (const struct opt *row = o->rows; row->name; row++) {
		char left[64];

		snprintf(left, sizeof(left), "  --%s%s%s", row->name, row->arg ? " " : "",
			 row->arg ? row->arg : "");
		help_row(left, row->help, out);
	}
	help_row("  -h, --help", "Show this text and exit.", out);
	help_row("  --version", "Show the version and exit.", out);
}
