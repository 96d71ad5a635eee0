/* SPDX-License-Identifier: Apache-2.0 */
/* The table of calls.h as programs for the kernel, by libseccomp. */
#ifndef SANDBOX_FILTER_H
#define SANDBOX_FILTER_H

#include <linux/filter.h>

#include "base/err.h"
#include "sandbox/roles.h"

/* One for a role. insns NULL: none was made. */
struct sandbox_filter {
	struct sock_filter *insns;
	unsigned short count;
};

/*
 * Whatever is not in the table traps: the role is in si_errno of its SIGSYS (trap.h). Of the
 * caller to free. Allocates.
 */
int sandbox_filter_make(enum sandbox_role role, struct sandbox_filter *ret, struct err *e);
void sandbox_filter_free(struct sandbox_filter *f);

/* The calling thread, which has no_new_privs, for good. 0 or -Exxx. Allocates nothing. */
int sandbox_filter_load(const struct sandbox_filter *f);

#endif
