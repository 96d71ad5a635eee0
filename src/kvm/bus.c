/* SPDX-License-Identifier: Apache-2.0 */
/* See bus.h. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/bus.h"
#include "kvm/kvm_uapi.h"
#include "kvm/pass_on.h"

static struct {
	pthread_mutex_t lock;
	unsigned users;
	struct sigaction before; /* read by the handler; set before it can run */
	kvmp_bus_other other;    /* the same */
} process = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Of a thread that is in KVM_RUN. */
static _Thread_local struct {
	jmp_buf env;
	siginfo_t fault;
	volatile sig_atomic_t on;
} catching;

static void on_sigbus(int sig, siginfo_t *si, void *ctx)
{
	if (catching.on && si->si_code == BUS_MCEERR_AR) {
		catching.on = 0;
		catching.fault = *si;
		/* The mask is as it was (SA_NODEFER, no sa_mask). */
		_longjmp(catching.env, 1);
	}
	if (!process.other(si, ctx))
		kvmp_signal_pass_on(sig, si, ctx, &process.before);
}

bool kvmp_bus_is_ours(void)
{
	struct sigaction now;

	return sigaction(SIGBUS, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
	       now.sa_sigaction == on_sigbus;
}

int kvmp_bus_install(kvmp_bus_other other, struct err *e)
{
	const struct sigaction ours = {
		.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	int rc = 0;

	pthread_mutex_lock(&process.lock);
	process.other = other;
	/* One that was taken away stays so: who did it may call ours. */
	if (process.users == 0 && !kvmp_bus_is_ours() &&
	    (sigaction(SIGBUS, NULL, &process.before) < 0 || sigaction(SIGBUS, &ours, NULL) < 0))
		rc = err_sys(e, -errno, "handler of SIGBUS");
	process.users += rc == 0;
	pthread_mutex_unlock(&process.lock);
	return rc;
}

void kvmp_bus_remove(void)
{
	pthread_mutex_lock(&process.lock);
	if (--process.users == 0 && kvmp_bus_is_ours())
		(void)sigaction(SIGBUS, &process.before, NULL);
	pthread_mutex_unlock(&process.lock);
}

int kvmp_bus_run(int vcpu_fd, siginfo_t *ret_fault, bool *ret_caught)
{
	int rc;

	*ret_caught = _setjmp(catching.env) != 0;
	if (*ret_caught) {
		*ret_fault = catching.fault;
		return -EINTR;
	}
	catching.on = 1;
	rc = ioctl(vcpu_fd, KVM_RUN, 0) < 0 ? -errno : 0;
	catching.on = 0;
	return rc;
}
