/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that Amazon's programs have their settings in: sections, and lines "key = value". Pure.
 * Test: tests/unit/aws_config_test.c, tests/fuzz/aws_config_fuzz.c.
 */
#ifndef NET_AWS_CONFIG_H
#define NET_AWS_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

struct aws_wanted {
	const char *key;
	char *to;
	size_t room;
	bool bad; /* it is there, and does not fit or has control characters: to is untouched */
};

/*
 * Fills in what the section has of it; the last line of a key counts, in capitals or not. A line
 * that is indented further than the key above belongs to that, and is not looked at. Returns
 * whether the section is there; "profile default" is "default" as well.
 */
bool aws_config_read(const char *text, size_t len, const char *section, struct aws_wanted *wanted,
		     unsigned count);

#endif
