/* SPDX-License-Identifier: Apache-2.0 */
/* See cli.h. */
#include "cli/cli.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

#include "cli/opts.h"

int cli_error(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *c = text; *c; c++)
		if (iscntrl((unsigned char)*c))
			*c = '?';
	fprintf(stderr, "asyncpf: %s\n", text);
	return CLI_FAILED;
}

int cli_version(void)
{
	printf("asyncpf %s\n", APF_VERSION_TEXT);
	return CLI_OK;
}

int cli_begin(const struct opts *o, int argc, char **argv, void *into, int *ret_operand)
{
	struct err e = {0};

	switch (opts_parse(o, argc, argv, into, ret_operand, &e)) {
	case OPTS_HELP:
		opts_help(o, stdout);
		return CLI_OK;
	case OPTS_VERSION:
		return cli_version();
	case OPTS_BAD:
		cli_error("%s", e.text);
		return CLI_USAGE;
	case OPTS_RUN:
		break;
	}
	return -1;
}
