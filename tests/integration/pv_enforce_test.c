/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM_CAP_ENFORCE_PV_FEATURE_CPUID: KVM refuses a guest every paravirtual register whose feature is
 * not in its CPUID. int's acknowledgement is KVM's to accept, and the library's CPUID has its
 * feature: a guest runs as without the capability.
 */
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "small_fixture.h"
#include "need_kvm.h"

#define VCPUS 2
#define LEAVES 256
#define FEATURES_LEAF 0x40000001u

static void enforce(void *ctx, unsigned index, int fd)
{
	struct kvm_enable_cap c = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = {1}};
	int *fds = ctx;

	assert_int_equal(ioctl(fd, KVM_ENABLE_CAP, &c), 0);
	fds[index] = fd;
}

static struct kvm_cpuid2 *cpuid_of(int fd)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + LEAVES * sizeof(c->entries[0]));

	assert_non_null(c);
	c->nent = LEAVES;
	assert_int_equal(ioctl(fd, KVM_GET_CPUID2, c), 0);
	return c;
}

static struct kvm_cpuid_entry2 *features(struct kvm_cpuid2 *c)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == FEATURES_LEAF)
			return &c->entries[i];
	fail_msg("CPUID has no leaf %x", FEATURES_LEAF);
	return NULL;
}

/* Behind the library's back. */
static void hide_the_feature(void *ctx, struct apf *a, struct apf_vcpu *const *vcpus, bool first)
{
	const int *fds = ctx;

	(void)a;
	(void)vcpus;
	for (unsigned i = 0; first && i < VCPUS; i++) {
		struct kvm_cpuid2 *c = cpuid_of(fds[i]);

		features(c)->eax &= ~APF_CPUID_ASYNC_PF_INT;
		assert_int_equal(ioctl(fds[i], KVM_SET_CPUID2, c), 0);
		free(c);
	}
}

static struct fix *open_enforced(int *fds)
{
	struct fix *f = fix_open(APF_FAULTS_USER, APF_ABI_INT, 256);

	f->cfg.boot.vcpus = VCPUS;
	f->cfg.boot.tasks = 8 * VCPUS;
	f->cfg.opened = enforce;
	f->cfg.ctx = fds;
	return f;
}

static void a_guest_runs_as_without_it(void **state)
{
	int fds[VCPUS];
	struct fix *f = open_enforced(fds);

	(void)state;
	fix_run(f);
	assert_int_equal(fix_pages_done(f), 256);
	fix_events_agree(f);
	assert_true(f->out.stats.missing_events > 0);
	assert_int_equal(f->out.stats.ready_events, f->out.stats.missing_events);
	fix_close(f);
}

/* It is KVM that accepts the acknowledgement: the same guest without the feature is refused. */
static void without_the_feature_the_acknowledgement_is_a_gp(void **state)
{
	int fds[VCPUS];
	struct fix *f = open_enforced(fds);

	(void)state;
	f->cfg.tick = hide_the_feature;
	/* It is there for long after the first tick. */
	fix_source(f, "delay+", "us=100000");
	assert_int_equal(small_run(&f->cfg, &f->out, &f->err), 0);
	assert_true(f->out.ended);
	if (!strstr(f->out.console, "exception 13")) /* #GP */
		fail_msg("the guest said: %s", f->out.console);
	fix_close(f);
}

static bool has_cap(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	bool has = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_ENFORCE_PV_FEATURE_CPUID) > 0;

	close(fd);
	return has;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_runs_as_without_it),
		cmocka_unit_test(without_the_feature_the_acknowledgement_is_a_gp),
	};

	need_kvm();
	if (!has_cap()) {
		printf("SKIP: this kernel has no KVM_CAP_ENFORCE_PV_FEATURE_CPUID\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
