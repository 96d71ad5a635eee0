/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory image that the demo's guest reads, and what each page of it must hash to.
 * The hashes are taken from the file directly, not through a page source, so that they
 * check the sources too. Test: tests/error/demo_image_test.py.
 */
#ifndef CLI_DEMO_IMAGE_H
#define CLI_DEMO_IMAGE_H

#include "base/err.h"
#include "base/types.h"

struct demo_image {
	int fd;           /* of an image that we made: unlinked, gone when closed; else -1 */
	char path[4096];  /* to open it by */
	uint64_t bytes;   /* of the file */
	uint64_t pages;   /* to be read; the last may be only partly in the file */
	uint64_t *expect; /* small_page_hash of each */
};

/*
 * path NULL: makes an image of `pages` pages of seeded noise in $TMPDIR. Otherwise takes a file
 * as it is; pages 0: all of it. 0 or -Exxx with text; -EINTR: stop_fd became readable. Ends
 * with demo_image_close in any case.
 */
int demo_image_open(struct demo_image *im, const char *path, uint64_t pages, uint64_t seed,
		    int stop_fd, struct err *e);
/* Out of the page cache. 0 or -Exxx with text. */
int demo_image_cool(const struct demo_image *im, struct err *e);
void demo_image_close(struct demo_image *im);

#endif
