/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A handle of libnbd's, with what it must know before it connects: the export, whom to trust. And
 * what libnbd says of failures. Test: tests/integration/net_nbd_test.c.
 */
#ifndef NET_NBD_HANDLE_H
#define NET_NBD_HANDLE_H

#include <libnbd.h>
#include <stdbool.h>

#include "base/err.h"
#include "port/net.h"

/* For nbd_close(). asks: what is allocated; without it, that is a round trip less. NULL: e. */
struct nbd_handle *nbd_handle_make(const struct net_target *t, bool asks, struct err *e);

/* What the last call of libnbd's on this thread says of its failure. */
const char *nbd_last_words(void);

#endif
