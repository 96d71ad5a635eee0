/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For a handler of SIGBUS that was called for something else: what the handler before it, or the
 * kernel's default, would have done. Tests: tests/integration/bus_test.c,
 * tests/unit/guest_touch_test.c.
 */
#ifndef KVM_PASS_ON_H
#define KVM_PASS_ON_H

#include <signal.h>

/* From within the handler, with its arguments. before: what sigaction said was there. */
static inline void kvmp_signal_pass_on(int sig, siginfo_t *si, void *ctx,
				       const struct sigaction *before)
{
	if (before->sa_flags & SA_SIGINFO) {
		before->sa_sigaction(sig, si, ctx);
	} else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN) {
		before->sa_handler(sig);
	} else if (before->sa_handler == SIG_DFL || si->si_code > 0) {
		/* On return, where it is blocked no more; who sent it does not send it again. */
		(void)signal(sig, SIG_DFL);
		(void)raise(sig);
	}
}

#endif
