/* SPDX-License-Identifier: Apache-2.0 */
/*
 * At rest at any moment: the small guest is kicked thousands of times while it takes faults, and
 * each time apf_vcpu_run() returns, KVM's state of the vCPU is looked at, and now and then read
 * and written back, as a VMM may. What is in there must be the guest's own: an event of ours that
 * were left behind, or lost, or a halt of ours, would be seen here or by the guest.
 */
#include "base/time.h"
#include "small_fixture.h"
#include "need_kvm.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#define PAGES 256u
#define KICKS 3000u /* for each kind of guest; fewer where everything is slow */
#define KIND_S 3
#define PF_VECTOR 14
#define HLT 0xf4
#define VCPUS_MAX 2u

struct storm_vcpu {
	struct apf_vcpu *vcpu;
	struct kvm_run *run;
	pid_t tid; /* 0 before it has returned once; atomic */
	uint32_t returns; /* atomic */
	struct prng rng;
};

struct storm {
	struct apf *apf;
	struct storm_vcpu vcpus[VCPUS_MAX];
	pthread_t kicker;
	bool end; /* atomic */
	bool keep_regs; /* they are not written back */
	uint64_t kicks, restored;
	pthread_mutex_t lock;
	char breach[200]; /* the first one; "": none */
};

static void breach(struct storm *s, const struct small_rest *r, const char *what, uint64_t a,
		   uint64_t b)
{
	pthread_mutex_lock(&s->lock);
	if (!s->breach[0])
		snprintf(s->breach, sizeof(s->breach), "vCPU %u, rc %d: %s %#llx %#llx", r->index,
			 r->rc, what, (unsigned long long)a, (unsigned long long)b);
	pthread_mutex_unlock(&s->lock);
}

/* ---- at rest ---- */

struct state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
};

/* Made again after EINTR: it comes without a signal, too (kvm/vm.c). */
static bool call(const struct small_rest *r, unsigned long request, void *arg)
{
	int rc;

	do
		rc = ioctl(r->fd, request, arg);
	while (rc < 0 && errno == EINTR);
	return rc >= 0;
}

static bool get(const struct small_rest *r, struct state *st)
{
	/* This one may finish what is pending in KVM, and comes first (QEMU has it so). */
	return call(r, KVM_GET_MP_STATE, &st->mp) && call(r, KVM_GET_REGS, &st->regs) &&
	       call(r, KVM_GET_SREGS, &st->sregs) && call(r, KVM_GET_VCPU_EVENTS, &st->events);
}

/* In this order: setting the registers drops what is pending. */
static bool put(const struct storm *s, const struct small_rest *r, struct state *st)
{
	return call(r, KVM_SET_SREGS, &st->sregs) &&
	       (s->keep_regs || call(r, KVM_SET_REGS, &st->regs)) &&
	       call(r, KVM_SET_VCPU_EVENTS, &st->events) && call(r, KVM_SET_MP_STATE, &st->mp);
}

/* The guest's own page faults are its tasks' calls, all of them in the hole. */
static void no_event_of_ours(struct storm *s, const struct small_rest *r, const struct state *st)
{
	const struct kvm_vcpu_events *ev = &st->events;
	uint64_t at = ev->exception_has_payload ? ev->exception_payload : st->sregs.cr2;

	if (!ev->exception.pending && !ev->exception.injected)
		return;
	if (ev->exception.nr != PF_VECTOR)
		breach(s, r, "an exception, at", ev->exception.nr, st->regs.rip);
	else if (at < SMALL_HOLE_GPA || at >= SMALL_HOLE_GPA + PAGE_BYTES)
		breach(s, r, "a #PF is left, error code and address", ev->exception.error_code, at);
}

/* A halt of the guest's own has a HLT before it. */
static void no_halt_of_ours(struct storm *s, const struct small_rest *r, const struct state *st)
{
	unsigned char insn = 0;

	if (st->mp.mp_state == KVM_MP_STATE_RUNNABLE)
		return;
	if (st->mp.mp_state != KVM_MP_STATE_HALTED)
		breach(s, r, "MP state, at", st->mp.mp_state, st->regs.rip);
	else if (st->sregs.ss.dpl != 0 || apf_read(s->apf, st->regs.rip - 1, &insn, 1) < 0 ||
		 insn != HLT)
		breach(s, r, "halted, but not by the guest, at", st->regs.rip, st->regs.rflags);
}

static void at_rest(void *ctx, const struct small_rest *r)
{
	struct storm *s = ctx;
	struct storm_vcpu *v = &s->vcpus[r->index];
	struct state st;

	__atomic_store_n(&r->run->immediate_exit, 0, __ATOMIC_RELEASE);
	if (r->rc != 0 && r->rc != -EINTR)
		breach(s, r, "the guest does not run", 0, 0);
	if (r->rc == -EINTR && r->run->exit_reason != KVM_EXIT_INTR)
		breach(s, r, "exit reason", r->run->exit_reason, 0);
	if (r->run->kvm_dirty_regs)
		breach(s, r, "registers that are not KVM's yet", r->run->kvm_dirty_regs, 0);
	if (!get(r, &st)) {
		breach(s, r, "KVM does not tell its state", 0, 0);
		return;
	}
	no_event_of_ours(s, r, &st);
	no_halt_of_ours(s, r, &st);
	/* With an exit at hand, the registers are KVM's to finish. */
	if (prng_below(&v->rng, 4) == 0) {
		__atomic_add_fetch(&s->restored, 1, __ATOMIC_RELAXED);
		if (r->rc == 0 ? !call(r, KVM_SET_VCPU_EVENTS, &st.events) : !put(s, r, &st))
			breach(s, r, "KVM does not take its state back", 0, 0);
	}
	/* Not even entered once more, whatever it was in the middle of. */
	if (prng_below(&v->rng, 16) == 0)
		__atomic_store_n(&r->run->immediate_exit, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&v->run, r->run, __ATOMIC_RELEASE);
	__atomic_store_n(&v->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	__atomic_add_fetch(&v->returns, 1, __ATOMIC_RELEASE);
}

/* ---- kicks ---- */

static bool is_over(struct storm *s)
{
	return __atomic_load_n(&s->end, __ATOMIC_ACQUIRE);
}

/* One of the ways that a VMM has; the first return is always by the library's. */
static void kick(struct storm_vcpu *v, uint64_t way)
{
	pid_t tid = __atomic_load_n(&v->tid, __ATOMIC_ACQUIRE);
	struct kvm_run *run = __atomic_load_n(&v->run, __ATOMIC_ACQUIRE);

	if (tid == 0 || way == 0) {
		apf_vcpu_kick(v->vcpu);
		return;
	}
	if (way == 1)
		__atomic_store_n(&run->immediate_exit, 1, __ATOMIC_RELEASE);
	(void)syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
}

static void *kicker(void *arg)
{
	struct storm *s = arg;
	struct prng rng;

	prng_init(&rng, 11);
	while (!is_over(s)) {
		unsigned first = s->vcpus[1].vcpu ? (unsigned)prng_below(&rng, VCPUS_MAX) : 0;
		struct storm_vcpu *v = &s->vcpus[first];
		uint32_t had = __atomic_load_n(&v->returns, __ATOMIC_ACQUIRE);
		uint64_t from = monotonic_ns(), took;

		kick(v, prng_below(&rng, 3));
		while (!is_over(s) && __atomic_load_n(&v->returns, __ATOMIC_ACQUIRE) == had)
			usleep(5);
		s->kicks++;
		took = (monotonic_ns() - from) / NS_PER_US;
		/* In proportion, or a slow machine's guest would not get anywhere. */
		usleep((useconds_t)prng_below(&rng, took * (prng_below(&rng, 16) ? 4 : 40) + 1));
	}
	return NULL;
}

static void begin(void *ctx, struct apf *a, struct apf_vcpu *const *vcpus, bool first)
{
	struct storm *s = ctx;

	if (!first)
		return;
	s->apf = a;
	for (unsigned i = 0; i < VCPUS_MAX; i++) {
		s->vcpus[i] = (struct storm_vcpu){.vcpu = vcpus[i]};
		prng_init(&s->vcpus[i].rng, s->kicks + i);
	}
	s->end = false;
	if (pthread_create(&s->kicker, NULL, kicker, s) != 0)
		abort();
}

static void end(void *ctx)
{
	struct storm *s = ctx;

	__atomic_store_n(&s->end, true, __ATOMIC_RELEASE);
	pthread_join(s->kicker, NULL);
}

static void no_op(int sig)
{
	(void)sig;
}

/* ---- the guests ---- */

struct guest {
	enum apf_faults faults;
	enum apf_abi abi;
	unsigned vcpus;
	enum small_pattern pattern;
	enum small_scenario scenario;
	const char *delay;
	bool keep_regs;
};

static void run_once(struct storm *s, const struct guest *g)
{
	struct fix *f = fix_open(g->faults, g->abi, PAGES);
	uint64_t pages = g->pattern == SMALL_SHARED ? PAGES * 8 : PAGES;

	f->cfg.boot.vcpus = g->vcpus;
	f->cfg.boot.pattern = g->pattern;
	f->cfg.boot.scenario = g->scenario;
	f->cfg.boot.timer_hz = 1000;
	f->cfg.tick = begin;
	f->cfg.at_rest = at_rest;
	f->cfg.end = end;
	f->cfg.ctx = s;
	fix_source(f, "delay+", g->delay);
	fix_run(f);
	if (s->breach[0])
		fail_msg("%s", s->breach);
	assert_int_equal(fix_pages_done(f),
			 g->scenario == SMALL_STACK ? pages - SMALL_STACK_PAGES : pages);
	fix_events_agree(f);
	assert_true(g->faults == APF_FAULTS_STALL ? f->out.stats.stalls > 0
						  : f->out.stats.missing_events > 0);
	fix_close(f);
}

static void storm(const struct guest *g)
{
	struct storm s = {.lock = PTHREAD_MUTEX_INITIALIZER, .keep_regs = g->keep_regs};
	struct sigaction sa = {.sa_handler = no_op};
	uint64_t until = monotonic_ns() + KIND_S * NS_PER_S;

	assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
	do
		run_once(&s, g);
	while (s.kicks < KICKS && monotonic_ns() < until);
	assert_true(s.restored > 0);
}

static const enum apf_abi abis[] = {APF_ABI_LEGACY, APF_ABI_PF2, APF_ABI_INT};

static void every(struct guest g)
{
	g.faults = APF_FAULTS_USER;
	g.delay = "us=700";
	for (unsigned i = 0; i < ARRAY_LEN(abis); i++) {
		g.abi = abis[i];
		storm(&g);
	}
}

static void events_and_kicks(void **state)
{
	(void)state;
	every((struct guest){.vcpus = 1, .pattern = SMALL_RANDOM});
}

static void events_and_kicks_on_two_vcpus(void **state)
{
	(void)state;
	every((struct guest){.vcpus = 2, .pattern = SMALL_SHARED});
}

static void registering_again_and_kicks(void **state)
{
	(void)state;
	every((struct guest){.vcpus = 1, .scenario = SMALL_REENABLE});
}

/* An event that meets an absent page in its delivery is KVM's to repeat, or ours to take back. */
static void deliveries_that_fault_and_kicks(void **state)
{
	(void)state;
	if (fix_cpl0_is_emulated()) {
		printf("SKIP: this KVM emulates CPL 0, and frames in absent memory fail there\n");
		skip();
	}
	every((struct guest){.vcpus = 1, .pattern = SMALL_RANDOM, .scenario = SMALL_STACK});
}

static void stalls_and_kicks(void **state)
{
	(void)state;
	for (unsigned vcpus = 1; vcpus <= 2; vcpus++)
		storm(&(struct guest){.faults = APF_FAULTS_STALL,
				      .abi = APF_ABI_OFF,
				      .vcpus = vcpus,
				      .pattern = SMALL_RANDOM,
				      .delay = "us=2000"});
}

/*
 * Kernel mode is not told anything: it stalls where user mode gets events. Where KVM emulates it, a
 * kick can come in the middle of a load, which KVM_SET_REGS would spoil (docs/caveats.md).
 */
static void stalls_in_kernel_mode_and_kicks(void **state)
{
	(void)state;
	every((struct guest){.vcpus = 1,
			     .pattern = SMALL_RANDOM,
			     .scenario = SMALL_CPL0,
			     .keep_regs = fix_cpl0_is_emulated()});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(events_and_kicks),
		cmocka_unit_test(events_and_kicks_on_two_vcpus),
		cmocka_unit_test(registering_again_and_kicks),
		cmocka_unit_test(deliveries_that_fault_and_kicks),
		cmocka_unit_test(stalls_and_kicks),
		cmocka_unit_test(stalls_in_kernel_mode_and_kicks),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
