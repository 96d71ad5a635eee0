/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that comes and goes while a vCPU runs: the guest finds in it what its source has, what the
 * VMM writes there, also after it was evicted, and nothing of the part that was there before.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/types.h"
#include "need_kvm.h"
#include "vm_fixture.h"

#define GPA 0x1800000u
#define BYTES (4u << 20)
#define ROUNDS 20u
#define ASKED (VM_WORD + 4) /* 1: the guest is to read the first word of the part */
#define ANSWER (VM_WORD + 8)

/* Counts in VM_WORD until it is asked. */
#define GUEST                                                                                      \
	0x83, 0x3c, 0x25, 0x04, 0x80, 0, 0, 0,    /* next: cmp dword [ASKED], 0 */                 \
		0x75, 0x09,                       /* jne read */                                   \
		0xff, 0x04, 0x25, 0, 0x80, 0, 0,  /* inc dword [VM_WORD] */                        \
		0xeb, 0xed,                       /* jmp next */                                   \
		0x8b, 0x04, 0x25, 0, 0, 0x80, 1,  /* read: mov eax, [GPA] */                       \
		0x89, 0x04, 0x25, 8, 0x80, 0, 0,  /* mov [ANSWER], eax */                          \
		0xc7, 0x04, 0x25, 4, 0x80, 0, 0, 0, 0, 0, 0, /* mov dword [ASKED], 0 */            \
		0xeb, 0xd2                        /* jmp next */

static uint32_t word_of(unsigned round)
{
	return 0xa5000000u | (round + 1);
}

static void plug(struct vm *v, struct apf_memory *m, unsigned round, int image)
{
	char uri[64];

	apf_memory_init(m);
	m->gpa = GPA;
	m->bytes = BYTES;
	if (round % 2) {
		m->fd = memfd_create("part", MFD_CLOEXEC);
		assert_true(m->fd >= 0 && ftruncate(m->fd, BYTES) == 0);
		m->vmm = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
		assert_ptr_not_equal(m->vmm, MAP_FAILED);
	}
	snprintf(uri, sizeof(uri), "delay+file:/proc/self/fd/%d?us=500", image);
	if (apf_memory_adopt(v->apf, m, &v->error) < 0 ||
	    apf_source_add(v->apf, GPA, BYTES, uri, round * PAGE_BYTES, NULL, &v->error) < 0)
		fail_msg("%s", v->error.text);
	assert_ptr_equal(apf_memory_hva(v->apf, GPA), m->guest);
	vm_slot(v, 1, GPA, BYTES, 0);
}

static void unplug(struct vm *v, const struct apf_memory *m, unsigned round)
{
	struct kvm_userspace_memory_region none = {.slot = 1, .guest_phys_addr = GPA};

	VM_CALL(v->fd, KVM_SET_USER_MEMORY_REGION, &none);
	if (apf_memory_remove(v->apf, GPA, &v->error) < 0)
		fail_msg("%s", v->error.text);
	assert_null(apf_memory_hva(v->apf, GPA));
	if (round % 2) {
		assert_int_equal(*(const uint32_t *)m->vmm, 0);
		munmap(m->vmm, BYTES);
		close(m->fd);
	}
}

static uint32_t word(struct vm *v, uint64_t gpa)
{
	uint32_t w;

	assert_int_equal(apf_read(v->apf, gpa, &w, sizeof(w)), 0);
	return w;
}

static uint32_t ask(struct vm *v)
{
	assert_int_equal(apf_write(v->apf, ASKED, &(uint32_t){1}, 4), 0);
	while (word(v, ASKED) != 0) {
		if (__atomic_load_n(&v->returned, __ATOMIC_ACQUIRE))
			fail_msg("the vCPU is back with %d, exit reason %u", v->rc,
				 v->run->exit_reason);
		usleep(100);
	}
	return word(v, ANSWER);
}

static void parts_come_and_go_under_a_vcpu(void **state)
{
	char folder[] = "/tmp/asyncpf-hotplug-XXXXXX", swap[64];
	int image = memfd_create("image", MFD_CLOEXEC);
	bool evicts = *state != NULL;
	struct apf_memory m;
	struct vm v;

	for (unsigned round = 0; round < ROUNDS; round++) {
		uint32_t w = word_of(round);

		assert_int_equal(pwrite(image, &w, 4, (off_t)round * PAGE_BYTES), 4);
	}
	assert_int_equal(ftruncate(image, (off_t)ROUNDS * PAGE_BYTES), 0);
	assert_non_null(mkdtemp(folder));
	snprintf(swap, sizeof(swap), "%s/swap", folder);
	vm_open(&v);
	if (evicts) {
		v.config.swap = swap;
		v.config.pins_are_held = 1;
	}
	vm_start(&v, NULL);
	VM_USER(&v, GUEST);
	/* Page tables that the host's emulator walks must not be absent (docs/caveats.md). */
	if (evicts)
		assert_int_equal(apf_pin(v.apf, VM_TABLES, 3 * PAGE_BYTES), 0);
	vm_go(&v);
	vm_until_counting(&v);
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint32_t before = vm_word(&v);

		plug(&v, &m, round, image);
		/* Who comes first differs. */
		if (round % 3 == 0)
			assert_int_equal(*(volatile uint32_t *)m.vmm, word_of(round));
		assert_int_equal(ask(&v), word_of(round));
		*(volatile uint32_t *)m.vmm = ~word_of(round);
		if (evicts && apf_evict(v.apf, 0, NULL, &v.error) < 0)
			fail_msg("%s", v.error.text);
		assert_int_equal(ask(&v), ~word_of(round));
		unplug(&v, &m, round);
		/* It runs on. */
		while (vm_word(&v) == before)
			usleep(100);
	}
	apf_vcpu_kick(v.vcpu);
	vm_is_interrupted(&v, vm_join(&v));
	apf_close(v.apf);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(parts_come_and_go_under_a_vcpu),
		VM_TEST_ARG("parts_come_and_go_and_are_evicted", parts_come_and_go_under_a_vcpu, 1),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
