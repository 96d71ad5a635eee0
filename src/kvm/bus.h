/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGBUS taken by a handler: a fault of the guest's then costs no system call beside KVM_RUN. The
 * handler leaves KVM_RUN's wrapper by a jump, so that there is no return from it either. Whatever
 * else raises SIGBUS goes where it went before. Whoever installs a handler after us takes ours
 * away, which is noticed at the next begin() (signals.c): faults are taken by sigtimedwait then, as
 * in a VMM that wants no handler of ours. Test: tests/integration/bus_test.c.
 */
#ifndef KVM_BUS_H
#define KVM_BUS_H

#include <signal.h>
#include <stdbool.h>

#include "base/err.h"

/*
 * Process-wide, counted; any thread. 0 or -Exxx. The last removal puts back what was there. other:
 * what else is ours, asked with the handler's arguments; the same for everybody.
 */
typedef bool (*kvmp_bus_other)(const void *info, void *context);
int kvmp_bus_install(kvmp_bus_other other, struct err *e);
void kvmp_bus_remove(void);
/* Nobody has taken the handler away. */
bool kvmp_bus_is_ours(void);
/*
 * KVM_RUN; SIGBUS is not blocked. 0 or -Exxx; *ret_caught: -EINTR, by the signal in *ret_fault,
 * which is gone.
 */
int kvmp_bus_run(int vcpu_fd, siginfo_t *ret_fault, bool *ret_caught);

#endif
