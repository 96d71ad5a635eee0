/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What verbs with a sandbox have in common: the words of --sandbox, descriptors that the command
 * was started with, and the beginning. What a verb's threads give up is the verb's to say
 * (run/run_sandbox.c, pager/pager_sandbox.c). Tests: tests/error/sandbox_test.py,
 * tests/integration/pager_sandbox_test.py.
 */
#ifndef CLI_BOUNDS_H
#define CLI_BOUNDS_H

#include <limits.h>

#include "cli/cli.h"
#include "sandbox/sandbox.h"

/* Descriptors that options name as /dev/fd/N or /proc/self/fd/N. */
#define BOUNDS_FDS_MAX 1024u

struct bounds_fds {
	unsigned fds[BOUNDS_FDS_MAX]; /* in order, once each */
	unsigned count;
};

/*
 * path: NULL for none; what is in a folder that is named so names it, too. At most BOUNDS_FDS_MAX
 * of them; asserted.
 */
void bounds_add(struct bounds_fds *f, const char *path);
/* What a page source's URI names; NULL: none. What is wrong with it is said when it is opened. */
void bounds_add_source(struct bounds_fds *f, const char *uri);

/*
 * Before anything is opened: closes the descriptors that we were started with and that are not
 * among `keep`, and makes *ret, which is NULL with --sandbox off. A line where the sandbox is weak,
 * unless `quiet`. 0 or -Exxx.
 */
int bounds_open(enum cli_sandbox word, const struct bounds_fds *keep,
		const struct sandbox_cfg *cfg, bool quiet, struct sandbox **ret, struct err *e);

/*
 * Paths that the thread of network sources reads. The last is in aws, the others live for ever; how
 * many there are.
 */
#define BOUNDS_NETWORK_MAX 24u
unsigned bounds_network(struct sandbox_path to[static BOUNDS_NETWORK_MAX],
			char aws[static PATH_MAX]);

/* When everything is open: those that were named. */
void bounds_opened(enum cli_sandbox word, const struct bounds_fds *named);

#endif
