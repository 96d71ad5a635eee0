/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of one verb as a table: one row says how an option is spelt, which values
 * it takes, where the value goes and what --help says. A thin layer over
 * getopt_long, so that help text and errors look the same in every verb.
 *
 * --help, -h and --version are part of every table. One thread: getopt_long keeps
 * its state in globals. Test: tests/unit/opts_test.c.
 */
#ifndef CLI_OPTS_H
#define CLI_OPTS_H

#include <stdio.h>

#include "base/err.h"
#include "base/types.h"
#include "cli/words.h"

enum opt_kind {
	OPT_KIND_FLAG,   /* bool: set to true, takes no value */
	OPT_KIND_TEXT,   /* const char *: points into argv; an empty value is refused */
	OPT_KIND_ANY,    /* const char *: the same, but may be empty */
	OPT_KIND_LIST,   /* struct opts_list: a text each time, at most `max` times */
	OPT_KIND_U32,    /* uint32_t within [min, max] */
	OPT_KIND_U64,    /* uint64_t within [min, max] */
	OPT_KIND_SIZE,   /* uint64_t bytes within [min, max]; suffixes K M G T */
	OPT_KIND_AUTO,   /* int64_t within [min, max], or -1 for the word "auto" */
	OPT_KIND_CHOICE, /* unsigned: the index of the word in `choices` */
};

#define OPTS_ROWS_MAX 48 /* options in one table; asserted */
#define OPTS_LIST_MAX 16 /* values of one option; a row's `max` is not above it, asserted */

/* What an option that may be given several times was given, in that order. */
struct opts_list {
	const char *text[OPTS_LIST_MAX]; /* point into argv */
	unsigned count;
};

struct opt {
	const char *name; /* without dashes; NULL ends the table */
	const char *arg;  /* how the help names the value; NULL for a flag */
	const char *help; /* one sentence, with the default */
	uint64_t min;
	uint64_t max;
	const char *const *choices; /* OPT_KIND_CHOICE: NULL at its end */
	enum opt_kind kind;
	size_t field; /* offset in the verb's struct */
};

/* `.kind` and `.field` of a row in one; a field of another type does not compile. */
#define OPT_TO(opt_kind_, type, s, f) \
	.kind = (opt_kind_), .field = _Generic(((s *)0)->f, type: offsetof(s, f))
#define OPT_FLAG(s, f) OPT_TO(OPT_KIND_FLAG, bool, s, f)
#define OPT_TEXT(s, f) OPT_TO(OPT_KIND_TEXT, const char *, s, f)
#define OPT_ANY(s, f) OPT_TO(OPT_KIND_ANY, const char *, s, f)
#define OPT_LIST(s, f) OPT_TO(OPT_KIND_LIST, struct opts_list, s, f)
#define OPT_U32(s, f) OPT_TO(OPT_KIND_U32, uint32_t, s, f)
#define OPT_U64(s, f) OPT_TO(OPT_KIND_U64, uint64_t, s, f)
#define OPT_SIZE(s, f) OPT_TO(OPT_KIND_SIZE, uint64_t, s, f)
#define OPT_AUTO(s, f) OPT_TO(OPT_KIND_AUTO, int64_t, s, f)
#define OPT_CHOICE(s, f) OPT_TO(OPT_KIND_CHOICE, unsigned, s, f)

struct opts {
	const char *verb;
	const char *about;    /* what the verb does, for --help; may hold newlines */
	const char *operands; /* how the usage line names them; NULL: none are taken */
	unsigned operands_min;
	unsigned operands_max;
	const struct opt *rows;
};

enum opts_outcome {
	OPTS_RUN,     /* all values are stored; operands start at argv[*ret_operand] */
	OPTS_HELP,    /* --help was asked for */
	OPTS_VERSION, /* --version was asked for */
	OPTS_BAD,     /* wrong usage: the text is in e */
};

/*
 * Parses argv (argv[0] is the verb), which may be reordered. The struct `into` holds
 * the defaults beforehand. After OPTS_BAD its content is undefined.
 */
enum opts_outcome opts_parse(const struct opts *o, int argc, char **argv, void *into,
			     int *ret_operand, struct err *e);

/*
 * The inverse: appends "--name=value" for each option whose value in `values` is not that in
 * `defaults`, so that opts_parse() of these words gives `values` again.
 */
void opts_words(const struct opts *o, const void *values, const void *defaults,
		struct words *ret);

/* The text of --help. */
void opts_help(const struct opts *o, FILE *out);

/* A decimal number, digits only. 0, -EINVAL (no number) or -ERANGE (beyond 64 bits). */
int opts_number(const char *text, uint64_t *ret_value);

/* A decimal number with an optional suffix K, M, G or T (powers of 1024). As above. */
int opts_size(const char *text, uint64_t *ret_bytes);

/* The word of a NULL-ended list that `word` was probably meant to be, or NULL. */
const char *opts_nearest(const char *word, const char *const *words);

#endif
