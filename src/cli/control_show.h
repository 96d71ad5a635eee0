/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's status as text for people, and as JSON. Test: tests/unit/control_show_test.c. */
#ifndef CLI_CONTROL_SHOW_H
#define CLI_CONTROL_SHOW_H

#include <stdio.h>

#include "vmm/control_status.h"

void control_show_text(const struct control_status *s, FILE *out);

/* One object on one line, all keys there are. 0 or -EIO. */
int control_show_json(const struct control_status *s, FILE *out);

#define CONTROL_SIZE_TEXT 24
/* "512.0 MiB"; returns buf. */
const char *control_size_text(uint64_t bytes, char buf[static CONTROL_SIZE_TEXT]);

#endif
