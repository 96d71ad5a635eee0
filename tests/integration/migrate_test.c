/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest is stopped with faults in flight, saved, and goes on in another VM whose image
 * memory is absent again: every task that waited runs, every page verifies. Saved are KVM's
 * state, the guest's low memory, and the library's state, either as a whole
 * (apf_vcpu_save) or as the MSRs that a VMM knows of, in both orders.
 */
#include <pthread.h>
#include <time.h>

#include "small_fixture.h"
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_whole_state),
		cmocka_unit_test(only_the_registers_in_both_orders),
	};

	fix_need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
