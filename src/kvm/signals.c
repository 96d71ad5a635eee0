/* SPDX-License-Identifier: Apache-2.0 */
/* See signals.h. Test: tests/integration/kick_test.c. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm/bus.h"
#include "kvm/kvm_uapi.h"
#include "kvm/signals.h"

#define KERNEL_SIGSET_BYTES 8
/* Needs no place in a queue, does nothing where nobody has a handler (signal(7)). */
#define PLAIN_SIGNAL SIGURG

int kvmp_signals_init(struct kvmp_vcpu *v, struct err *e)
{
	pthread_mutexattr_t attr;

	v->held_fd = -1;
	v->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->wake_fd < 0)
		return err_sys(e, -errno, "event descriptor of a vCPU");
	/* Who was woken is there before the waker's system call has returned. */
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&v->kick_lock, &attr);
	pthread_mutexattr_destroy(&attr);
	return 0;
}

void kvmp_signals_fini(struct kvmp_vcpu *v)
{
	close(v->wake_fd);
	if (v->held_fd >= 0)
		close(v->held_fd);
	pthread_mutex_destroy(&v->kick_lock);
}

/* ---- masks ---- */

/* Everything but what the processor raises for the thread's own mistakes. */
static void all_blocked(sigset_t *set)
{
	static const int own[] = {SIGSEGV, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS};

	sigfillset(set);
	for (unsigned i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		sigdelset(set, own[i]);
}

static bool same_mask(const sigset_t *a, const sigset_t *b)
{
	return memcmp(a, b, KERNEL_SIGSET_BYTES) == 0;
}

/* Inside KVM_RUN: what the VMM lets through, and ours. */
static int set_run_mask(struct kvmp *k, struct kvmp_vcpu *v)
{
	/* struct kvm_signal_mask ends in a flexible array: the set lies right behind it. */
	_Alignas(struct kvm_signal_mask) unsigned char
		arg[sizeof(struct kvm_signal_mask) + KERNEL_SIGSET_BYTES];
	const struct kvm_signal_mask head = {.len = KERNEL_SIGSET_BYTES};
	sigset_t set = v->run_mask;

	if (v->run_mask_known && same_mask(&v->run_mask, &v->run_mask_set))
		return 0;
	sigdelset(&set, SIGBUS);
	sigdelset(&set, k->kick_signal);
	sigdelset(&set, PLAIN_SIGNAL);
	memcpy(arg, &head, sizeof(head));
	memcpy(arg + sizeof(head), &set, KERNEL_SIGSET_BYTES);
	if (KVMP_IOCTL(v->fd, KVM_SET_SIGNAL_MASK, arg) < 0)
		return -errno;
	v->run_mask_known = true;
	v->run_mask_set = v->run_mask;
	return 0;
}

/* The kernel's number for the calling thread, which it keeps: asked once, not at each exit. */
static pid_t own_tid(void)
{
	static _Thread_local pid_t tid;

	if (tid == 0)
		tid = (pid_t)syscall(SYS_gettid);
	return tid;
}

int kvmp_signals_begin(struct kvmp *k, struct kvmp_vcpu *v)
{
	sigset_t all;
	int rc;

	all_blocked(&all);
	v->catches = k->bus_handler && kvmp_bus_is_ours();
	if (v->catches)
		sigdelset(&all, SIGBUS);
	(void)pthread_sigmask(SIG_SETMASK, &all, &v->vmm_mask);
	if (!v->mask_told)
		v->run_mask = v->vmm_mask;
	rc = set_run_mask(k, v);
	if (rc < 0) {
		(void)pthread_sigmask(SIG_SETMASK, &v->vmm_mask, NULL);
		return rc;
	}
	pthread_mutex_lock(&v->kick_lock);
	v->tid = own_tid();
	pthread_mutex_unlock(&v->kick_lock);
	return 0;
}

static void to_self(int sig)
{
	(void)syscall(SYS_tgkill, getpid(), own_tid(), sig);
}

/* Signals that were sent to the thread and are not needed any more. */
static void take_leftovers(struct kvmp *k, bool plain)
{
	static const struct timespec at_once = {0, 0};
	sigset_t ours;

	sigemptyset(&ours);
	sigaddset(&ours, k->kick_signal);
	if (plain)
		sigaddset(&ours, PLAIN_SIGNAL);
	while (sigtimedwait(&ours, NULL, &at_once) > 0)
		;
}

void kvmp_signals_end(struct kvmp *k, struct kvmp_vcpu *v)
{
	bool signalled, plain;

	pthread_mutex_lock(&v->kick_lock);
	v->tid = 0;
	v->kicked = false;
	signalled = v->signalled;
	plain = v->plain;
	v->signalled = false;
	v->plain = false;
	pthread_mutex_unlock(&v->kick_lock);
	if (signalled)
		take_leftovers(k, plain);
	if (v->plain_held)
		to_self(PLAIN_SIGNAL);
	v->plain_held = false;
	(void)pthread_sigmask(SIG_SETMASK, &v->vmm_mask, NULL);
}

/* ---- kicks ---- */

/* kick_lock is held, and the thread is between begin and end. */
static void send(struct kvmp *k, struct kvmp_vcpu *v)
{
	static const uint64_t one = 1;

	v->kicked = true;
	if (v->waits) {
		/* Can only fail when it is full, and then the thread wakes up all the same. */
		(void)!write(v->wake_fd, &one, sizeof(one));
		return;
	}
	v->signalled = true;
	if (syscall(SYS_tgkill, getpid(), v->tid, k->kick_signal) == 0)
		return;
	v->plain = true;
	(void)syscall(SYS_tgkill, getpid(), v->tid, PLAIN_SIGNAL);
}

void kvmp_signal_kick(struct kvmp *k, struct kvmp_vcpu *v)
{
	pthread_mutex_lock(&v->kick_lock);
	if (v->tid != 0)
		send(k, v);
	pthread_mutex_unlock(&v->kick_lock);
}

static bool vmm_wants(const struct kvmp *k, const struct kvmp_vcpu *v)
{
	sigset_t pending;

	if (__atomic_load_n(&v->run->immediate_exit, __ATOMIC_ACQUIRE))
		return true;
	if (sigpending(&pending) < 0)
		return false;
	for (int sig = 1; sig <= SIGRTMAX; sig++)
		if (sig != SIGBUS && sig != k->kick_signal && sigismember(&pending, sig) == 1 &&
		    sigismember(&v->run_mask, sig) == 0)
			return true;
	return false;
}

/* SIGURG: ours, or the VMM's, which may have it blocked: KVM_RUN would end for it for ever. */
static enum kvmp_signal plain_taken(struct kvmp_vcpu *v)
{
	bool ours;

	pthread_mutex_lock(&v->kick_lock);
	ours = v->plain;
	v->plain = false;
	v->kicked &= !ours;
	pthread_mutex_unlock(&v->kick_lock);
	if (ours)
		return KVMP_SIGNAL_KICK;
	if (sigismember(&v->run_mask, PLAIN_SIGNAL) == 1) {
		v->plain_held = true;
		return KVMP_SIGNAL_NONE;
	}
	to_self(PLAIN_SIGNAL);
	return KVMP_SIGNAL_VMM;
}

enum kvmp_signal kvmp_signal_take(struct kvmp *k, struct kvmp_vcpu *v)
{
	static const struct timespec at_once = {0, 0};
	sigset_t ours;
	siginfo_t si;
	int sig;

	if (v->caught) {
		v->caught = false;
		return KVMP_SIGNAL_FAULT;
	}
	sigemptyset(&ours);
	sigaddset(&ours, SIGBUS);
	sigaddset(&ours, k->kick_signal);
	sigaddset(&ours, PLAIN_SIGNAL);
	sig = sigtimedwait(&ours, &si, &at_once);
	if (sig == SIGBUS) {
		v->fault = si;
		return KVMP_SIGNAL_FAULT;
	}
	if (sig == PLAIN_SIGNAL && sig != k->kick_signal)
		return plain_taken(v);
	if (sig == k->kick_signal) {
		pthread_mutex_lock(&v->kick_lock);
		v->kicked = false;
		pthread_mutex_unlock(&v->kick_lock);
		return KVMP_SIGNAL_KICK;
	}
	/* The kernel also interrupts a thread without any signal, to run deferred work in it. */
	return vmm_wants(k, v) ? KVMP_SIGNAL_VMM : KVMP_SIGNAL_NONE;
}

int kvmp_signal_mask(struct kvmp *k, unsigned vcpu, const sigset_t *mask)
{
	struct kvmp_vcpu *v = &k->vcpus[vcpu];
	sigset_t none;

	sigemptyset(&none);
	if (mask && v->held_fd < 0) {
		v->held_fd = signalfd(-1, &none, SFD_CLOEXEC | SFD_NONBLOCK);
		if (v->held_fd < 0)
			return -errno;
	}
	v->mask_told = mask != NULL;
	if (mask)
		v->run_mask = *mask;
	/* Whatever the VMM has given to KVM by itself is ours again. */
	v->run_mask_known = false;
	return 0;
}

/*
 * Signals that the VMM's thread has blocked, and KVM_RUN lets through: ppoll() would deliver
 * them, where KVM_RUN leaves them pending. They end the wait by a descriptor, and stay.
 */
static void hold(struct kvmp_vcpu *v, sigset_t *mask)
{
	sigset_t held;

	if (!v->mask_told)
		return;
	sigemptyset(&held);
	for (int sig = 1; sig <= SIGRTMAX; sig++)
		if (sigismember(&v->vmm_mask, sig) == 1 && sigismember(mask, sig) == 0) {
			sigaddset(&held, sig);
			sigaddset(mask, sig);
		}
	(void)signalfd(v->held_fd, &held, 0);
}

bool kvmp_signal_wait(struct kvmp *k, struct kvmp_vcpu *v)
{
	enum { WAKE, HELD };
	struct pollfd ends[] = {
		[WAKE] = {.fd = v->wake_fd, .events = POLLIN},
		[HELD] = {.fd = v->mask_told ? v->held_fd : -1, .events = POLLIN},
	};
	sigset_t mask = v->run_mask;
	uint64_t count;
	bool go_on;

	/* In here handlers of the VMM's may run; ours stay blocked. */
	sigaddset(&mask, SIGBUS);
	sigaddset(&mask, k->kick_signal);
	hold(v, &mask);
	pthread_mutex_lock(&v->kick_lock);
	go_on = v->kicked;
	v->kicked = false;
	v->waits = !go_on;
	pthread_mutex_unlock(&v->kick_lock);
	if (go_on)
		return false;
	/* Signals that pend are let through and end it; without one the flag decides. */
	go_on = __atomic_load_n(&v->run->immediate_exit, __ATOMIC_ACQUIRE) ||
		(ppoll(ends, ARRAY_LEN(ends), NULL, &mask) < 0 ? errno == EINTR
								: ends[HELD].revents != 0);
	pthread_mutex_lock(&v->kick_lock);
	v->waits = false;
	v->kicked = false;
	pthread_mutex_unlock(&v->kick_lock);
	(void)!read(v->wake_fd, &count, sizeof(count));
	return go_on;
}

void kvmp_signal_pass_fault(struct kvmp_vcpu *v)
{
	sigset_t bus;

	/* Pending until the VMM's mask is back. */
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	(void)pthread_sigmask(SIG_BLOCK, &bus, NULL);
	/* To oneself the kernel takes any code (rt_sigqueueinfo(2)). */
	(void)syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), SIGBUS,
		      &v->fault);
}
