/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are given as a kernel and are none that can be loaded: what they are by their
 * content, and what to do. Pure. Test: tests/unit/load_format_test.c.
 */
#ifndef VMM_LOAD_FORMAT_H
#define VMM_LOAD_FORMAT_H

#include <stddef.h>

struct load_format {
	const char *name;   /* "a file that gzip has compressed" */
	const char *advice;
};

/* NULL: none that is known. Of Linux's bzImages it says that they are PE files: ask first. */
const struct load_format *load_format(const unsigned char *bytes, size_t len);

#endif
