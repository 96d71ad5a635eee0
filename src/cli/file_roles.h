/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether two of a command's files are the same one, before any is opened to be written: by what
 * they are, whatever their names, and by folder and name where nothing is yet. The locks of
 * vmm/disk/file_use.h keep apart what somebody renames meanwhile, and other commands.
 * Tests: tests/error/run_files_test.py, demo_output_test.py.
 */
#ifndef CLI_FILE_ROLES_H
#define CLI_FILE_ROLES_H

#include <limits.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

#define FILE_ROLES_MAX 44u

struct file_identity {
	enum { ID_NONE, ID_FILE, ID_DEVICE, ID_NAME } kind;
	dev_t dev; /* of the file system, or the device itself */
	ino_t ino; /* ID_NAME: of the folder */
	char name[NAME_MAX + 1];
};

struct file_roles {
	struct file_role {
		const char *option, *dashes;
		const char *path;
		bool writes;
		struct file_identity id;
	} list[FILE_ROLES_MAX];
	unsigned count;
};

/*
 * option: as it is shown, its dashes left out; an operand's word is in capitals. path: NULL for
 * none. Both are kept.
 */
void file_roles_add(struct file_roles *f, const char *option, const char *path, bool writes);
/* Of one that is overwritten by words. 0, or -EINVAL: it is a block device. */
int file_roles_add_words(struct file_roles *f, const char *option, const char *path,
			 struct err *e);
/* 0, or -EINVAL: two are the same file, of which one is written. Writes nothing. */
int file_roles_check(const struct file_roles *f, struct err *e);
/* The same of one more that is only read, of which nothing is kept; path: NULL for none. */
int file_roles_check_read(const struct file_roles *f, const char *option, const char *path,
			  struct err *e);
/*
 * The same of each file that a page source's URI names. A URI that is none has none: whoever opens
 * it says why. NULL for none.
 */
int file_roles_check_source(const struct file_roles *f, const char *option, const char *uri,
			    struct err *e);

#endif
