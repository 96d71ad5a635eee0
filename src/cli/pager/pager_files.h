/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files, sockets and servers rules that come later may name: what lies below the folders of
 * those that were named at the start, or below what --allow says. Landlock has the same list
 * (pager_sandbox.c); here is who tells the user, in words, and who keeps to it where there is no
 * Landlock. Test: tests/integration/pager_sandbox_test.py.
 */
#ifndef CLI_PAGER_FILES_H
#define CLI_PAGER_FILES_H

#include "base/err.h"
#include "base/types.h"

enum pager_file_kind {
	PAGER_FILES,   /* sources are read from there */
	PAGER_SOCKETS, /* sockets are made there */
	PAGER_CACHES,  /* caches are kept there */
	PAGER_TRUST,   /* servers are known by that; of the start's sources alone */
};

struct pager_file {
	enum pager_file_kind kind;
	char *path; /* real */
};

struct pager_files {
	struct pager_file *list;
	unsigned count, room;
	bool network; /* sources may lie behind one */
};

/* "DIR", "socket:DIR", "cache:DIR" or "network". 0, or -Exxx with text. */
int pager_files_allow(struct pager_files *f, const char *word, struct err *e);
/*
 * A socket, NULL: none; a source's URI, NULL: none, that are opened now. The folder of a cache is
 * made. What cannot be found is left out: opening it says why. 0, or -Exxx with text.
 */
int pager_files_given(struct pager_files *f, const char *socket, const char *uri, struct err *e);
/* May a rule that comes now have them? 0, or -Exxx with text. Changes nothing; any thread. */
int pager_files_check(const struct pager_files *f, const char *socket, const char *uri,
		      struct err *e);
void pager_files_free(struct pager_files *f);

#endif
