/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/vmm/snap/snap_kvm.c on the real KVM, without a guest: which processor features keep a guest
 * from being restored here, each named, and the guest's clock, which goes on by what has passed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kvm/kvm_uapi.h"
#include "need_kvm.h"
#include "kvm/vm.h"
#include "vmm/snap/snap_kvm.h"

#define VERSION 1u
#define ECX_OSXSAVE (1u << 27)
#define ECX_PKU (1u << 3)
#define ECX_OSPKE (1u << 4)
#define SLEPT_NS (1000 * NS_PER_S)

struct bed {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	struct kvm_cpuid2 *host;  /* what KVM offers */
	struct kvm_cpuid2 *shown; /* what a guest sees of that: some KVM shows other bits */
};

static struct kvm_cpuid2 *cpuid_new(void)
{
	struct kvm_cpuid2 *c =
		calloc(1, sizeof(*c) + KVMP_CPUID_ENTRIES_MAX * sizeof(c->entries[0]));

	assert_non_null(c);
	c->nent = KVMP_CPUID_ENTRIES_MAX;
	return c;
}

static struct bed bed_open(void)
{
	struct bed b = {.shown = cpuid_new()};
	struct err e = {0};

	if (kvmp_vm_open(&b.kvm, &b.vm, &e) < 0 || kvmp_vm_irqchip(b.vm, &e) < 0 ||
	    kvmp_vm_pit(b.vm, &e) < 0 ||
	    kvmp_vcpu_open(b.kvm, b.vm, 0, &b.vcpu, &b.run, &e) < 0 ||
	    kvmp_cpuid_supported(b.kvm, &b.host, &e) < 0 ||
	    kvmp_vcpu_set_cpuid(b.vcpu, 0, b.host, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(KVMP_IOCTL(b.vcpu, KVM_GET_CPUID2, b.shown), 0);
	return b;
}

static void bed_close(struct bed *b)
{
	free(b->host);
	free(b->shown);
	kvmp_vcpu_close(b->kvm, b->vcpu, b->run);
	kvmp_vm_close(b->kvm, b->vm);
}

/* What was put, as it is read from a file; `o` is empty then. */
static struct snap_in read_back(struct snap_out *o)
{
	int fd = memfd_create("state", MFD_CLOEXEC);
	struct snap_in in = {.len = 0};
	struct err e = {0};

	assert_true(fd >= 0);
	if (snap_out_write(o, fd, &e) < 0 || lseek(fd, 0, SEEK_SET) != 0 ||
	    snap_in_read(&in, fd, &e) < 0)
		fail_msg("%s", e.text);
	close(fd);
	snap_out_free(o);
	return in;
}

/* ---- features ---- */

static uint32_t *reg_of(struct kvm_cpuid_entry2 *c, const char *reg)
{
	switch (reg[1]) {
	case 'A':
		return &c->eax;
	case 'B':
		return &c->ebx;
	case 'C':
		return &c->ecx;
	default:
		return &c->edx;
	}
}

static struct kvm_cpuid_entry2 *leaf_of(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t index)
{
	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf && c->entries[i].index == index)
			return &c->entries[i];
	assert_true(c->nent < KVMP_CPUID_ENTRIES_MAX);
	c->entries[c->nent] = (struct kvm_cpuid_entry2){
		.function = leaf, .index = index,
		.flags = leaf == 7 || leaf == 0xd ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0};
	return &c->entries[c->nent++];
}

/* A guest that has seen what this host shows, changed in one register by `flip`. */
static int restore_with(const struct bed *b, uint32_t leaf, uint32_t index, const char *reg,
			uint32_t flip, struct err *e)
{
	struct kvm_cpuid2 *guest = cpuid_new();
	struct snap_vcpu v = {.kvm_fd = b->kvm, .vm_fd = b->vm, .fd = b->vcpu};
	struct snap_out o = {.len = 0};
	struct snap_in in;
	int rc;

	memcpy(guest, b->shown, sizeof(*guest) + b->shown->nent * sizeof(guest->entries[0]));
	*reg_of(leaf_of(guest, leaf, index), reg) ^= flip;
	snap_put(&o, (struct snap_key){"vcpu.cpuid", 0, VERSION}, guest->entries,
		 guest->nent * sizeof(guest->entries[0]));
	free(guest);
	in = read_back(&o);
	rc = snap_cpuid_restore(&v, &in, b->host, e);
	snap_in_free(&in);
	return rc;
}

/* Bits of ECX that show the guest's CR4. */
static uint32_t registers_in(uint32_t leaf)
{
	return leaf == 1 ? ECX_OSXSAVE : leaf == 7 ? ECX_OSPKE : 0;
}

static void each_feature_that_is_not_here_is_named(void **state)
{
	static const struct {
		uint32_t leaf, index;
		const char *reg, *says;
	} all[] = {
		{0x1, 0, "ECX", "CPUID 0x1, ECX"},
		{0x1, 0, "EDX", "CPUID 0x1, EDX"},
		{0x7, 0, "EBX", "CPUID 0x7, EBX"},
		{0x7, 0, "ECX", "CPUID 0x7, ECX"},
		{0x7, 0, "EDX", "CPUID 0x7, EDX"},
		{0x7, 1, "EAX", "CPUID 0x7, EAX"},
		{0xd, 0, "EAX", "CPUID 0xd, EAX"},
		{0xd, 0, "EDX", "CPUID 0xd, EDX"},
		{0xd, 1, "EAX", "CPUID 0xd, EAX"},
		{0x40000001, 0, "EAX", "CPUID 0x40000001, EAX"},
		{0x80000001, 0, "ECX", "CPUID 0x80000001, ECX"},
		{0x80000001, 0, "EDX", "CPUID 0x80000001, EDX"},
		{0x80000008, 0, "EBX", "CPUID 0x80000008, EBX"},
	};
	struct bed b = bed_open();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		uint32_t have = *reg_of(leaf_of(b.shown, all[i].leaf, all[i].index), all[i].reg);
		uint32_t lacks = ~have;
		struct err e = {0};

		if (strcmp(all[i].reg, "ECX") == 0)
			lacks &= ~registers_in(all[i].leaf);
		if (lacks == 0)
			continue;
		lacks = 1u << (31 - __builtin_clz(lacks));
		if (restore_with(&b, all[i].leaf, all[i].index, all[i].reg, lacks, &e) !=
		    -ENOTSUP)
			fail_msg("%s, bit %#x: not refused", all[i].says, lacks);
		if (!strstr(e.text, all[i].says))
			fail_msg("%s: %s", all[i].says, e.text);
	}
	bed_close(&b);
}

/* What the guest lacks, and what is no feature but a register of the guest's, keeps nobody. */
static void less_is_no_hindrance(void **state)
{
	struct bed b = bed_open();
	uint32_t edx = leaf_of(b.shown, 1, 0)->edx, ecx1 = leaf_of(b.shown, 1, 0)->ecx;
	uint32_t ecx7 = leaf_of(b.shown, 7, 0)->ecx;
	struct err e = {0};

	(void)state;
	if (restore_with(&b, 1, 0, "EDX", edx & -edx, &e) < 0 ||
	    restore_with(&b, 1, 0, "ECX", ECX_OSXSAVE & ~ecx1, &e) < 0 ||
	    restore_with(&b, 7, 0, "ECX", ECX_OSPKE & ~ecx7, &e) < 0 ||
	    restore_with(&b, 1, 0, "EBX", 0, &e) < 0)
		fail_msg("%s", e.text);
	/* Whether there are such keys at all is a feature. */
	if (!(ecx7 & ECX_PKU))
		assert_int_equal(restore_with(&b, 7, 0, "ECX", ECX_PKU, &e), -ENOTSUP);
	bed_close(&b);
}

/* ---- time ---- */

static uint64_t clock_of(const struct bed *b)
{
	struct kvm_clock_data c = {0};

	assert_int_equal(KVMP_IOCTL(b->vm, KVM_GET_CLOCK, &c), 0);
	return c.clock;
}

/* The state that was saved, but `ago` earlier by the host's clock. */
static struct snap_in saved(const struct bed *b, int64_t ago)
{
	struct snap_out o = {.len = 0}, changed = {.len = 0};
	uint64_t times[2];
	struct snap_in in;
	struct err e = {0};
	const void *bytes;
	size_t len;

	if (snap_vm_save(b->vm, &o, &e) < 0)
		fail_msg("%s", e.text);
	in = read_back(&o);
	for (unsigned i = 0; i < 3; i++) {
		struct snap_key key = {"vm.irqchip", i, VERSION};

		assert_int_equal(snap_find(&in, key, 4096, &bytes, &len, &e), 0);
		snap_put(&changed, key, bytes, len);
	}
	assert_int_equal(snap_find(&in, (struct snap_key){"vm.pit", 0, VERSION}, 4096, &bytes,
				   &len, &e), 0);
	snap_put(&changed, (struct snap_key){"vm.pit", 0, VERSION}, bytes, len);
	assert_int_equal(snap_take(&in, (struct snap_key){"vm.time", 0, VERSION}, times,
				   sizeof(times), &e), 0);
	times[1] -= (uint64_t)ago;
	snap_put(&changed, (struct snap_key){"vm.time", 0, VERSION}, times, sizeof(times));
	snap_in_free(&in);
	return read_back(&changed);
}

/* Both clocks go on during the test: by less than a VM sleeps here. */
static void the_clock_goes_on_by_what_has_passed(void **state)
{
	struct bed from = bed_open(), to = bed_open();
	struct err e = {0};
	uint64_t before = clock_of(&from);
	struct snap_in in = saved(&from, (int64_t)SLEPT_NS);

	(void)state;
	assert_true(clock_of(&to) < before + SLEPT_NS);
	if (snap_vm_restore(to.vm, &in, &e) < 0)
		fail_msg("%s", e.text);
	assert_true(clock_of(&to) >= before + SLEPT_NS);
	snap_in_free(&in);
	/* A host whose clock is behind: no time has passed, and none is taken back. */
	before = clock_of(&from);
	in = saved(&from, -(int64_t)SLEPT_NS);
	if (snap_vm_restore(to.vm, &in, &e) < 0)
		fail_msg("%s", e.text);
	assert_true(clock_of(&to) >= before && clock_of(&to) < before + SLEPT_NS);
	snap_in_free(&in);
	bed_close(&from);
	bed_close(&to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_feature_that_is_not_here_is_named),
		cmocka_unit_test(less_is_no_hindrance),
		cmocka_unit_test(the_clock_goes_on_by_what_has_passed),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
