/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest is stopped with faults in flight, saved, and goes on in another VM whose image
 * memory is absent again: every task that waited runs, every page verifies. Saved are KVM's
 * state, the guest's low memory, and the library's state, either as a whole
 * (apf_vcpu_save) or as the MSRs that a VMM knows of, in both orders.
 *
 * usage: migrate_test [CYCLES]    of the test that moves at random moments; default 1000
 */
#include <pthread.h>
#include <time.h>

#include "small_fixture.h"
#include "need_kvm.h"
#include "vmm/small/small_machine.h"

#define MSRS 8

_Static_assert(offsetof(struct kvm_msrs, entries) == 2 * sizeof(uint32_t), "as in struct saved");

struct saved {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	/* struct kvm_msrs, whose array has no length */
	struct {
		uint32_t nmsrs, pad;
		struct kvm_msr_entry entries[MSRS];
	} msrs;
	uint64_t en, ctl;
	unsigned char *apf;
	size_t apf_len;
	unsigned char *low; /* memory below the image */
	size_t low_len;
};

struct runner {
	struct small_machine *m;
	pthread_t thread;
	bool stop;
	bool ended;
	uint32_t status;
};

static void *run(void *arg)
{
	struct runner *r = arg;
	struct small_vcpu *v = &r->m->vcpus[0];

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		int rc = apf_vcpu_run(v->apf);

		if (rc == -EINTR)
			continue;
		if (rc < 0 || v->run->exit_reason != KVM_EXIT_IO) {
			print_error("rc %d, exit %u\n", rc, v->run->exit_reason);
			r->status = 99;
			break;
		}
		if (v->run->io.port == SMALL_PORT_EXIT) {
			memcpy(&r->status, (char *)v->run + v->run->io.data_offset, 4);
			r->ended = true;
			break;
		}
	}
	return NULL;
}

static void go(struct runner *r, struct small_machine *m)
{
	*r = (struct runner){.m = m};
	assert_int_equal(pthread_create(&r->thread, NULL, run, r), 0);
}

static struct apf_stats stats_of(struct small_machine *m)
{
	struct apf_stats s = {.size = sizeof(s)};

	apf_stats_get(m->apf, &s);
	return s;
}

static void halt(struct runner *r)
{
	__atomic_store_n(&r->stop, true, __ATOMIC_RELEASE);
	apf_vcpu_kick(r->m->vcpus[0].apf);
	pthread_join(r->thread, NULL);
}

#define CALL(request, ptr) assert_true(ioctl(fd, request, ptr) >= 0)

static void save(struct small_machine *m, struct saved *s)
{
	static const uint32_t list[MSRS] = {0x10,	0xc0000081, 0xc0000082, 0xc0000084,
					    0xc0000100, 0xc0000101, 0xc0000102, 0x6e0};
	int fd = m->vcpus[0].fd;

	memset(s, 0, sizeof(*s));
	CALL(KVM_GET_MP_STATE, &s->mp);
	CALL(KVM_GET_REGS, &s->regs);
	CALL(KVM_GET_SREGS, &s->sregs);
	CALL(KVM_GET_LAPIC, &s->lapic);
	CALL(KVM_GET_VCPU_EVENTS, &s->events);
	s->msrs.nmsrs = MSRS;
	for (unsigned i = 0; i < MSRS; i++)
		s->msrs.entries[i].index = list[i];
	s->msrs.nmsrs = (uint32_t)ioctl(fd, KVM_GET_MSRS, &s->msrs);
	assert_true(s->msrs.nmsrs <= MSRS);
	/* Asked for the size it answers the most it can be; then what it was. */
	s->apf_len = apf_vcpu_save(m->vcpus[0].apf, NULL, 0);
	s->apf = malloc(s->apf_len);
	s->apf_len = apf_vcpu_save(m->vcpus[0].apf, s->apf, s->apf_len);
	assert_int_equal(apf_vcpu_get_msr(m->vcpus[0].apf, APF_MSR_EN, &s->en), 0);
	if (apf_vcpu_get_msr(m->vcpus[0].apf, APF_MSR_CTL, &s->ctl) < 0)
		s->ctl = 0;
	s->low_len = SMALL_EXPECT_GPA + (4 << 20);
	if (s->low_len > align_up(SMALL_EXPECT_GPA + m->cfg->boot.pages * 8, CHUNK_BYTES))
		s->low_len = align_up(SMALL_EXPECT_GPA + m->cfg->boot.pages * 8, CHUNK_BYTES);
	s->low = malloc(s->low_len);
	assert_int_equal(apf_read(m->apf, 0, s->low, s->low_len), 0);
}

enum how { WHOLE, MSR_CTL_FIRST, MSR_EN_FIRST };

static void restore(struct small_machine *m, struct saved *s, enum how how)
{
	struct apf_vcpu *v = m->vcpus[0].apf;
	int fd = m->vcpus[0].fd;

	assert_int_equal(apf_write(m->apf, 0, s->low, s->low_len), 0);
	CALL(KVM_SET_SREGS, &s->sregs);
	CALL(KVM_SET_REGS, &s->regs);
	CALL(KVM_SET_LAPIC, &s->lapic);
	assert_int_equal(ioctl(fd, KVM_SET_MSRS, &s->msrs), s->msrs.nmsrs);
	CALL(KVM_SET_VCPU_EVENTS, &s->events);
	CALL(KVM_SET_MP_STATE, &s->mp);
	if (how == WHOLE) {
		assert_int_equal(apf_vcpu_restore(v, s->apf, s->apf_len), 0);
		return;
	}
	if (how == MSR_CTL_FIRST && s->ctl)
		assert_int_equal(apf_vcpu_set_msr(v, APF_MSR_CTL, s->ctl), 0);
	assert_int_equal(apf_vcpu_set_msr(v, APF_MSR_EN, s->en), 0);
	if (how == MSR_EN_FIRST && s->ctl)
		assert_int_equal(apf_vcpu_set_msr(v, APF_MSR_CTL, s->ctl), 0);
}

static void sleep_ms(long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&ts, NULL);
}

/* Moves the guest `moves` times, each time when some more faults have been announced. */
static void migrate(enum apf_abi abi, enum how how, unsigned moves)
{
	struct fix *f = fix_open(APF_FAULTS_USER, abi, 256);
	struct small_machine *m = calloc(2, sizeof(*m));
	struct small_results *out = calloc(1, sizeof(*out));
	uint64_t in_flight = 0;
	struct runner r;
	unsigned at = 0;

	f->cfg.boot.tasks = 16;
	fix_source(f, "delay+", "us=8000");
	assert_int_equal(small_build(&m[0], &f->cfg, &f->err), 0);
	go(&r, &m[0]);
	for (unsigned i = 0; i < moves; i++) {
		struct saved s;

		while (stats_of(&m[at]).missing_events < 24 &&
		       !__atomic_load_n(&r.ended, __ATOMIC_ACQUIRE))
			sleep_ms(1);
		/* Paused, nothing is delivered: slot, local APIC and engine belong together. */
		apf_pause(m[at].apf);
		halt(&r);
		if (r.ended)
			break;
		in_flight += stats_of(&m[at]).missing_events - stats_of(&m[at]).ready_events;
		save(&m[at], &s);
		small_destroy(&m[at]);
		at ^= 1;
		assert_int_equal(small_build(&m[at], &f->cfg, &f->err), 0);
		restore(&m[at], &s, how);
		free(s.apf);
		free(s.low);
		go(&r, &m[at]);
	}
	pthread_join(r.thread, NULL);
	assert_true(r.ended);
	assert_int_equal(r.status, 0);
	assert_true(in_flight > 0); /* or nothing was tested */
	assert_int_equal(apf_read(m[at].apf, SMALL_RESULTS_GPA, out, sizeof(*out)), 0);
	f->out.results = *out;
	assert_int_equal(fix_pages_done(f), 256);
	small_destroy(&m[at]);
	free(out);
	free(m);
	fix_close(f);
}

static void the_whole_state(void **state)
{
	(void)state;
	migrate(APF_ABI_INT, WHOLE, 4);
	migrate(APF_ABI_PF2, WHOLE, 4);
	migrate(APF_ABI_LEGACY, WHOLE, 4);
}

/* As every VMM does today: the enabling write sends the wake-all, and everybody tries again. */
static void only_the_registers_in_both_orders(void **state)
{
	(void)state;
	migrate(APF_ABI_INT, MSR_CTL_FIRST, 4);
	migrate(APF_ABI_INT, MSR_EN_FIRST, 4);
	migrate(APF_ABI_PF2, MSR_EN_FIRST, 4);
	migrate(APF_ABI_PF2, MSR_CTL_FIRST, 4);
	migrate(APF_ABI_LEGACY, MSR_EN_FIRST, 4);
}

/* ---- at random moments, under eviction ---- */

/* A guest's lives, one after the other, until it ends or `moves` are used up. */
struct lives {
	struct fix *f;
	struct small_machine m[2];
	struct prng rng;
	char swap[64];
	unsigned at;
	uint64_t told, in_flight; /* events of all lives; how many waited at a move */
};

/* A few events later, or a few microseconds, and sometimes with memory gone that was there. */
static void live(struct lives *l, const struct runner *r)
{
	struct small_machine *m = &l->m[l->at];
	uint64_t events = prng_below(&l->rng, 6), before = stats_of(m).ready_events;
	struct timespec some = {0, (long)prng_below(&l->rng, 100000)};

	for (unsigned i = 0; stats_of(m).ready_events - before < events &&
			     !__atomic_load_n(&r->ended, __ATOMIC_ACQUIRE) && i < 60000; i++)
		sleep_ms(1);
	nanosleep(&some, NULL);
	if (prng_below(&l->rng, 4) == 0)
		assert_int_equal(apf_evict(m->apf, 0, NULL, NULL), 0);
}

static void build(struct lives *l, unsigned i)
{
	struct small_machine *m = &l->m[i];

	l->f->cfg.apf.swap = l->swap;
	assert_int_equal(small_build(m, &l->f->cfg, &l->f->err), 0);
}

/* Returns how often it was moved. */
static unsigned one_guest(struct lives *l, unsigned moves)
{
	struct small_results *out = calloc(1, sizeof(*out));
	struct runner r;
	unsigned i = 0;

	l->told = 0;
	build(l, l->at);
	go(&r, &l->m[l->at]);
	while (i < moves) {
		struct apf_counters all;
		struct saved s;

		live(l, &r);
		apf_pause(l->m[l->at].apf);
		halt(&r);
		if (r.ended)
			break;
		l->told += stats_of(&l->m[l->at]).missing_events;
		apf_counters_get(l->m[l->at].apf, &all, sizeof(all));
		l->in_flight += all.faults_outstanding;
		save(&l->m[l->at], &s);
		small_destroy(&l->m[l->at]);
		l->at ^= 1;
		build(l, l->at);
		restore(&l->m[l->at], &s, WHOLE);
		free(s.apf);
		free(s.low);
		go(&r, &l->m[l->at]);
		i++;
	}
	if (!r.ended)
		pthread_join(r.thread, NULL);
	assert_true(r.ended);
	assert_int_equal(r.status, 0);
	l->told += stats_of(&l->m[l->at]).missing_events;
	assert_int_equal(apf_read(l->m[l->at].apf, SMALL_RESULTS_GPA, out, sizeof(*out)), 0);
	l->f->out.results = *out;
	assert_int_equal(fix_pages_done(l->f), l->f->cfg.boot.pages);
	/* Each event came once, and nobody was woken but by his own. */
	assert_int_equal(out->cpu[0].missing, l->told);
	assert_int_equal(out->cpu[0].ready, l->told);
	/* That of its registering, in its first life. */
	assert_in_range(out->cpu[0].wake_all, 0, 1);
	assert_int_equal(out->cpu[0].early, 0);
	small_destroy(&l->m[l->at]);
	free(out);
	return i;
}

static unsigned cycles = 1000;

static void at_random_moments_under_eviction(void **state)
{
	struct lives *l = calloc(1, sizeof(*l));
	unsigned done = 0;

	(void)state;
	prng_init(&l->rng, 22);
	snprintf(l->swap, sizeof(l->swap), "/tmp/asyncpf-test-%d", (int)getpid());
	l->f = fix_open(APF_FAULTS_USER, APF_ABI_INT, 256);
	l->f->cfg.boot.tasks = 16;
	fix_source(l->f, "delay+", "us=2000&jitter-us=1000");
	while (done < cycles) {
		unsigned n = one_guest(l, cycles - done);

		assert_true(n > 0);
		done += n;
	}
	assert_true(l->in_flight > cycles / 2); /* or nothing was tested */
	print_message("%u moves, %llu faults in flight\n", done,
		      (unsigned long long)l->in_flight);
	fix_close(l->f);
	free(l);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_whole_state),
		cmocka_unit_test(only_the_registers_in_both_orders),
		cmocka_unit_test(at_random_moments_under_eviction),
	};

	if (argc > 1)
		cycles = (unsigned)strtoul(argv[1], NULL, 10);
	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
