/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf pager` in its parts: cmd_pager.c is the command line and the run, pager_map.c reads
 * --map, pager_files.h what later rules may name, pager_sandbox.c what it takes away from itself.
 */
#ifndef CLI_PAGER_CMD_H
#define CLI_PAGER_CMD_H

#include "cli/bounds.h"
#include "cli/opts.h"
#include "cli/pager/pager_files.h"
#include "pager/pager.h"
#include "pager/rule.h"

struct pager_opts {
	const char *listen, *source, *map, *control, *json;
	struct opts_list allow;
	const char *user;
	uint32_t read_ahead;
	uint32_t handshake_s;
	unsigned io;
	unsigned sandbox; /* enum cli_sandbox */
	bool stats, quiet;
};

/* The map's. */
struct pager_rules {
	struct rule *list;
	unsigned count;
};

/* ---- pager_map.c ---- */

/* 0, or -Exxx with text. The list is the caller's to free, whatever comes of it. */
int pager_map_read(const char *path, struct pager_rules *ret, struct err *e);

/* ---- pager_sandbox.c ---- */

/* Before any thread is made; *ret NULL: --sandbox off. 0 or -Exxx with text. */
int pager_sandbox_open(const struct pager_opts *o, const struct pager_rules *rules,
		       const struct pager_files *files, struct sandbox **ret, struct err *e);
/* When everything is open, by the thread that opened it: the process. s NULL: does nothing. */
void pager_sandbox_opened(const struct pager_opts *o, const struct pager_rules *rules,
			  const struct pager_files *files, struct sandbox *s);
/* A thread of src/pager's. s NULL: it gets its name alone. */
void pager_sandbox_thread(struct sandbox *s, enum pgr_thread which, const char *name);

#endif
