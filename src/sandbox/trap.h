/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a forbidden call: a line, and the end of the process. */
#ifndef SANDBOX_TRAP_H
#define SANDBOX_TRAP_H

#include "base/err.h"

/* For the rest of the process's life, as `loss` is needed; allocates. 0 or -Exxx. */
int sandbox_trap_start(const char *loss, int exit_code, struct err *e);

/* A line on standard error, without stdio, unless it cannot be written at once; then the end. */
__attribute__((noreturn)) void sandbox_end(int exit_code, const char *const words[],
					   unsigned count);

#endif
