/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether memory that a VMM brings can be served: what userfaultfd would refuse without a word, and
 * what the host may refuse later.
 */
#ifndef MEM_OWN_H
#define MEM_OWN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* fd: a memfd, whose [offset, offset + bytes) is guest RAM. 0, or -Exxx with the reason. */
int own_check_fd(int fd, uint64_t offset, uint64_t bytes, struct err *e);
/* [at, at + bytes) of this process is a shared mapping of just that. */
int own_check_mapping(const void *at, int fd, uint64_t offset, uint64_t bytes, struct err *e);
/* A new memfd, empty, or -Exxx with the reason. */
int own_new_memfd(const char *name, struct err *e);
/* fd: of guest memory; its file system may be full before all of it is filled. */
bool own_is_limited(int fd);
/* -Exxx with the text: the host has refused `len` bytes; limited: by its file system. */
int own_no_room(bool limited, uint64_t len, struct err *e);
/* `len` bytes at `at`, a mapping of guest memory, are in memory from now on. */
int own_reserve(bool limited, void *at, uint64_t len, struct err *e);

#endif
