/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_touch.h. */
#include "vmm/memory/guest_touch.h"

#include <pthread.h>
#include <signal.h>

#include "kvm/pass_on.h"

/* A signal handler is the process's: it has no other way to these. */
static struct {
	pthread_mutex_t lock;
	struct sigaction before;
} process = {.lock = PTHREAD_MUTEX_INITIALIZER};
static _Thread_local struct guest_touch *guard;

static bool is_in(const void *at, const unsigned char *ram, uint64_t bytes)
{
	return (uintptr_t)at - (uintptr_t)ram < bytes;
}

/* This thread's own touch, in what it guards; BUS_MCEERR_AO tells of a page nobody has touched. */
static bool is_guarded(const siginfo_t *si)
{
	const struct guest_touch *t = guard;

	return t && si->si_code > 0 && si->si_code != BUS_MCEERR_AO &&
	       (is_in(si->si_addr, t->mem->low, t->mem->low_bytes) ||
		is_in(si->si_addr, t->mem->high, t->mem->high_bytes));
}

static void on_sigbus(int sig, siginfo_t *si, void *ctx)
{
	if (is_guarded(si)) {
		struct guest_touch *t = guard;

		guard = NULL;
		siglongjmp(t->env, 1);
	}
	kvmp_signal_pass_on(sig, si, ctx, &process.before);
}

void guest_touch_init(void)
{
	const struct sigaction ours = {
		.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	struct sigaction now;

	pthread_mutex_lock(&process.lock);
	if (sigaction(SIGBUS, NULL, &now) == 0 && now.sa_sigaction != on_sigbus) {
		process.before = now;
		(void)sigaction(SIGBUS, &ours, NULL);
	}
	pthread_mutex_unlock(&process.lock);
}

void guest_touch_begin(struct guest_touch *t, const struct guest_mem *mem)
{
	t->mem = mem;
	guard = t;
	/* Before the first touch, whatever the compiler can prove of it. */
	atomic_signal_fence(memory_order_release);
}

void guest_touch_end(void)
{
	atomic_signal_fence(memory_order_release);
	guard = NULL;
}
