/* SPDX-License-Identifier: Apache-2.0 */
/* Whether memory that a VMM brings can be served: what userfaultfd would refuse without a word. */
#ifndef MEM_OWN_H
#define MEM_OWN_H

#include <stdint.h>

#include "base/err.h"

/* fd: a memfd, whose [offset, offset + bytes) is guest RAM. 0, or -Exxx with the reason. */
int own_check_fd(int fd, uint64_t offset, uint64_t bytes, struct err *e);
/* [at, at + bytes) of this process is a shared mapping of just that. */
int own_check_mapping(const void *at, int fd, uint64_t offset, uint64_t bytes, struct err *e);

#endif
