/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kicks: apf_vcpu_kick() and each way in which VMMs end ioctl(KVM_RUN) themselves, wherever
 * the vCPU is: in guest mode, waiting for memory, stalled, or in a paused VM.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "vm_fixture.h"
#include "need_kvm.h"

enum where { IN_GUEST, IN_WAIT, IN_STALL, IN_PAUSE };

/* Starts the vCPU's thread, and waits until it is there. */
static void get_there(struct vm *v, enum where where, enum apf_faults faults)
{
	v->config.faults = faults;
	vm_start(v, VM_NEVER);
	if (where == IN_GUEST || where == IN_PAUSE)
		VM_USER(v, VM_SPIN);
	else
		VM_USER(v, VM_LOAD_DATA);
}

static void be_there(struct vm *v, enum where where)
{
	vm_go(v);
	switch (where) {
	case IN_GUEST:
		return vm_until_counting(v);
	case IN_WAIT:
		return vm_until_fault(v);
	case IN_STALL:
		return vm_until_stall(v);
	case IN_PAUSE:
		vm_until_counting(v);
		apf_pause(v->apf);
		usleep(50000);
		assert_false(__atomic_load_n(&v->returned, __ATOMIC_ACQUIRE));
	}
}

static const struct place {
	enum where where;
	enum apf_faults faults;
} places[] = {
	{IN_GUEST, APF_FAULTS_BLOCK},  {IN_GUEST, APF_FAULTS_STALL}, {IN_GUEST, APF_FAULTS_USER},
	{IN_GUEST, APF_FAULTS_KERNEL}, {IN_WAIT, APF_FAULTS_BLOCK},  {IN_STALL, APF_FAULTS_STALL},
	{IN_STALL, APF_FAULTS_USER},   {IN_PAUSE, APF_FAULTS_BLOCK}, {IN_PAUSE, APF_FAULTS_STALL},
	{IN_PAUSE, APF_FAULTS_USER},
};

#define PLACES (sizeof(places) / sizeof(places[0]))

static void a_kick_ends_each(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PLACES; i++) {
		struct vm v;

		vm_open(&v);
		get_there(&v, places[i].where, places[i].faults);
		be_there(&v, places[i].where);
		apf_vcpu_kick(v.vcpu);
		vm_is_interrupted(&v, vm_join(&v));
	}
}

/* As ioctl(KVM_RUN) has it. */
static void the_call_that_is_as_the_ioctl(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	assert_int_equal(apf_open(v.fd, &v.config, &v.apf, &v.error), 0);
	assert_int_equal(apf_memory_add(v.apf, 0, VM_RAM, &v.error), 0);
	vm_vcpu(&v);
	errno = 0;
	assert_int_equal(apf_kvm_run(v.vcpu), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(apf_start(v.apf, &v.error), 0);
	vm_tables(&v);
	vm_slot(&v, 0, 0, VM_RAM, 0);
	VM_USER(&v, VM_LOAD_DATA);
	apf_vcpu_kick(v.vcpu);
	errno = 0;
	assert_int_equal(apf_kvm_run(v.vcpu), -1);
	assert_int_equal(errno, EINTR);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_INTR);
	assert_int_equal(apf_kvm_run(v.vcpu), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_IO);
}

struct copy {
	struct vm *v;
	bool writes;
	unsigned first; /* of the ranges below */
	unsigned page;  /* that never comes */
	pthread_t thread;
	int64_t rc;
};

static void *copy(void *arg)
{
	struct copy *c = arg;
	uint64_t words[2] = {0};
	const struct apf_range ranges[] = {
		{.gpa = VM_WORD, .buf = &words[0], .len = 8},
		{.gpa = VM_DATA + c->page * 4096, .buf = &words[1], .len = 8},
	};
	struct apf_wait wait;

	apf_wait_init(&wait);
	wait.vcpu = c->v->vcpu;
	c->rc = (c->writes ? apf_writev : apf_readv)(c->v->apf, ranges + c->first, 2 - c->first,
						     &wait);
	return NULL;
}

static uint64_t reads(struct vm *v)
{
	uint64_t all[APF_COUNTER_IDS];

	apf_counters_get(v->apf, all, sizeof(all));
	return all[APF_COUNTER_ID_reads];
}

/* What a vCPU's thread copies for a device: it ends in the middle, and the kick is not used up. */
static void a_kick_ends_an_access(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, VM_NEVER);
	VM_USER(&v, VM_SPIN);
	for (unsigned i = 0; i < 4; i++) {
		struct copy c = {.v = &v, .writes = i & 1, .first = i >> 1, .page = i};

		assert_int_equal(pthread_create(&c.thread, NULL, copy, &c), 0);
		while (reads(&v) <= i)
			usleep(1000);
		apf_vcpu_kick(v.vcpu);
		pthread_join(c.thread, NULL);
		assert_int_equal(c.rc, c.first == 0 ? 8 : -EINTR);
		vm_go(&v);
		vm_is_interrupted(&v, vm_join(&v));
		/* The next one runs. */
		vm_go(&v);
		vm_until_counting(&v);
		apf_vcpu_kick(v.vcpu);
		vm_is_interrupted(&v, vm_join(&v));
	}
}

/* Other processes of the user may hold as many queued signals as are allowed. */
static void a_kick_needs_no_room_in_the_signal_queue(void **state)
{
	const struct rlimit none = {0, 0};

	assert_int_equal(setrlimit(RLIMIT_SIGPENDING, &none), 0);
	a_kick_ends_each(state);
}

static void a_page_comes_without_room_in_the_signal_queue(void **state)
{
	const struct rlimit none = {0, 0};
	static const enum apf_faults ways[] = {APF_FAULTS_BLOCK, APF_FAULTS_STALL, APF_FAULTS_USER};

	(void)state;
	assert_int_equal(setrlimit(RLIMIT_SIGPENDING, &none), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct vm v;

		vm_open(&v);
		v.config.faults = ways[i];
		vm_start(&v, "delay+zero:?size=64K&ms=100");
		VM_USER(&v, VM_LOAD_DATA);
		vm_until_exit(&v, KVM_EXIT_IO);
	}
}

static void a_kick_before_the_first_run_ends_it(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, NULL);
	VM_USER(&v, VM_SPIN);
	apf_vcpu_kick(v.vcpu);
	vm_go(&v);
	vm_is_interrupted(&v, vm_join(&v));
}

/* ---- a thread that left ---- */

/* Its stack is beyond what glibc keeps: a signal to it ends the process. */
static void leave(struct vm *v, enum apf_faults faults, bool stop)
{
	v->config.faults = faults;
	v->config.grace_us = 200000;
	vm_start(v, "delay+zero:?size=64K&ms=500");
	VM_USER(v, VM_LOAD_DATA);
	vm_go(v);
	vm_until_fault(v);
	if (stop)
		apf_stop(v->apf);
	apf_vcpu_kick(v->vcpu);
	vm_is_interrupted(v, vm_join(v));
	usleep(800000); /* grace and page are over */
	apf_vcpu_kick(v->vcpu);
	usleep(10000);
}

static void nobody_signals_a_thread_that_left(void **state)
{
	static const enum apf_faults ways[] = {APF_FAULTS_BLOCK, APF_FAULTS_STALL, APF_FAULTS_USER};
	pthread_attr_t large;

	(void)state;
	pthread_attr_init(&large);
	pthread_attr_setstacksize(&large, 64 << 20);
	pthread_setattr_default_np(&large);
	for (unsigned i = 0; i < 3; i++) {
		struct vm v;

		vm_open(&v);
		leave(&v, ways[i], false);
		vm_until_exit(&v, KVM_EXIT_IO); /* from the last kick on, by this thread */
		vm_open(&v);
		leave(&v, ways[i], true);
	}
}

static void the_thread_that_runs_it_is_kicked(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	get_there(&v, IN_GUEST, APF_FAULTS_USER);
	for (unsigned i = 0; i < 4; i++) {
		be_there(&v, IN_GUEST);
		apf_vcpu_kick(v.vcpu);
		vm_is_interrupted(&v, vm_join(&v));
	}
}

static void a_threads_signals_are_as_they_were(void **state)
{
	sigset_t before, after, pending;
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, VM_ZERO);
	VM_USER(&v, VM_LOAD_DATA);
	pthread_sigmask(SIG_BLOCK, NULL, &before);
	vm_until_exit(&v, KVM_EXIT_IO);
	for (unsigned i = 0; i < 3; i++) {
		apf_vcpu_kick(v.vcpu);
		assert_int_equal(apf_vcpu_run(v.vcpu), -EINTR);
		pthread_sigmask(SIG_BLOCK, NULL, &after);
		sigpending(&pending);
		for (int s = 1; s < NSIG; s++) {
			assert_int_equal(sigismember(&after, s), sigismember(&before, s));
			assert_int_not_equal(sigismember(&pending, s), 1);
		}
	}
}

struct spinner {
	struct vm *v;
	uint32_t returns;
	int stop;
};

static void *spin(void *arg)
{
	struct spinner *s = arg;

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE))
		if (apf_vcpu_run(s->v->vcpu) == -EINTR)
			__atomic_fetch_add(&s->returns, 1, __ATOMIC_RELEASE);
	return NULL;
}

static uint32_t all_returns(struct spinner s[2])
{
	return __atomic_load_n(&s[0].returns, __ATOMIC_ACQUIRE) +
	       __atomic_load_n(&s[1].returns, __ATOMIC_ACQUIRE);
}

static void of_thousands_of_kicks_none_is_lost(void **state)
{
	struct spinner s = {0};
	time_t start = time(NULL);
	pthread_t thread;
	struct vm v;

	(void)state;
	vm_open(&v);
	get_there(&v, IN_GUEST, APF_FAULTS_USER);
	s.v = &v;
	assert_int_equal(pthread_create(&thread, NULL, spin, &s), 0);
	/* Fewer where everything is slow: a lost one would be waited for until the alarm. */
	for (unsigned i = 0; i < 5000 && time(NULL) < start + 4; i++) {
		uint32_t had = __atomic_load_n(&s.returns, __ATOMIC_ACQUIRE);

		apf_vcpu_kick(v.vcpu);
		while (__atomic_load_n(&s.returns, __ATOMIC_ACQUIRE) == had)
			usleep(i % 3 * 10);
	}
	__atomic_store_n(&s.stop, 1, __ATOMIC_RELEASE);
	apf_vcpu_kick(v.vcpu);
	pthread_join(thread, NULL);
}

/* As KVM_RUN does: the second one waits, and is kicked as the first. */
static void two_threads_take_turns(void **state)
{
	struct spinner s[2] = {{.returns = 0}, {.returns = 0}};
	pthread_t threads[2];
	struct vm v;

	(void)state;
	vm_open(&v);
	get_there(&v, IN_GUEST, APF_FAULTS_USER);
	for (unsigned i = 0; i < 2; i++) {
		s[i].v = &v;
		assert_int_equal(pthread_create(&threads[i], NULL, spin, &s[i]), 0);
	}
	for (unsigned i = 0; i < 300; i++) {
		uint32_t had = all_returns(s);

		apf_vcpu_kick(v.vcpu);
		while (all_returns(s) == had)
			usleep(100);
	}
	for (unsigned i = 0; i < 2; i++)
		__atomic_store_n(&s[i].stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < 2; i++)
		while (pthread_tryjoin_np(threads[i], NULL) != 0) {
			apf_vcpu_kick(v.vcpu);
			usleep(100);
		}
	apf_vcpu_detach(v.vcpu);
	assert_int_equal(apf_vcpu_run(v.vcpu), -EBADF);
}

/* ---- the VMM's own ways ---- */

static struct kvm_run *handlers_run;

static void no_op(int sig)
{
	(void)sig;
}

static void sets_immediate_exit(int sig)
{
	(void)sig;
	__atomic_store_n(&handlers_run->immediate_exit, 1, __ATOMIC_RELEASE);
}

static void handle(void (*handler)(int))
{
	struct sigaction sa = {.sa_handler = handler};

	assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
}

static void flag_and_signal_end_each(void **state)
{
	(void)state;
	handle(no_op);
	for (unsigned i = 0; i < PLACES; i++) {
		struct vm v;

		vm_open(&v);
		get_there(&v, places[i].where, places[i].faults);
		be_there(&v, places[i].where);
		__atomic_store_n(&v.run->immediate_exit, 1, __ATOMIC_RELEASE);
		pthread_kill(v.thread, SIGUSR1);
		vm_is_interrupted(&v, vm_join(&v));
		assert_int_equal(v.run->immediate_exit, 1);
	}
}

static void a_handler_that_sets_the_flag_ends_each(void **state)
{
	(void)state;
	handle(sets_immediate_exit);
	for (unsigned i = 0; i < PLACES; i++) {
		struct vm v;

		vm_open(&v);
		get_there(&v, places[i].where, places[i].faults);
		handlers_run = v.run;
		be_there(&v, places[i].where);
		pthread_kill(v.thread, SIGUSR1);
		vm_is_interrupted(&v, vm_join(&v));
		assert_int_equal(v.run->immediate_exit, 1);
	}
}

/*
 * As who takes it by sigtimedwait() does: blocked, let through by the mask of KVM_RUN, and
 * without a handler, so that its delivery would end the process.
 */
static void a_blocked_signal_that_the_mask_lets_through_ends_each(void **state)
{
	const uint64_t nothing_blocked = 0;
	sigset_t one, pending;

	(void)state;
	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &one, NULL), 0);
	for (unsigned i = 0; i < PLACES; i++) {
		struct vm v;

		vm_open(&v);
		get_there(&v, places[i].where, places[i].faults);
		assert_int_equal(apf_vcpu_signal_mask(v.vcpu, &nothing_blocked, 4), -EINVAL);
		assert_int_equal(apf_vcpu_signal_mask(v.vcpu, &nothing_blocked, 8), 0);
		be_there(&v, places[i].where);
		pthread_kill(v.thread, SIGUSR1);
		vm_is_interrupted(&v, vm_join(&v));
		/* It is still there for whoever waits for it. */
		raise(SIGUSR1);
		assert_int_equal(apf_vcpu_run(v.vcpu), -EINTR);
		assert_int_equal(sigpending(&pending), 0);
		assert_int_equal(sigismember(&pending, SIGUSR1), 1);
		assert_int_equal(sigwaitinfo(&one, NULL), SIGUSR1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(a_kick_ends_each),
		VM_TEST(a_kick_ends_an_access),
		VM_TEST(the_call_that_is_as_the_ioctl),
		VM_TEST(a_kick_needs_no_room_in_the_signal_queue),
		VM_TEST(a_page_comes_without_room_in_the_signal_queue),
		VM_TEST(a_kick_before_the_first_run_ends_it),
		VM_TEST(nobody_signals_a_thread_that_left),
		VM_TEST(the_thread_that_runs_it_is_kicked),
		VM_TEST(a_threads_signals_are_as_they_were),
		VM_TEST(of_thousands_of_kicks_none_is_lost),
		VM_TEST(two_threads_take_turns),
		VM_TEST(flag_and_signal_end_each),
		VM_TEST(a_handler_that_sets_the_flag_ends_each),
		VM_TEST(a_blocked_signal_that_the_mask_lets_through_ends_each),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
