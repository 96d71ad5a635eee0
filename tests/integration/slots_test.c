/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RAM of the library under slots of the VMM's making: a hole and a read-only slot in it are
 * devices to the guest, as with KVM alone.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm_fixture.h"
#include "need_kvm.h"

#define AT 0xa0000u
#define BYTES 0x20000u
#define PAGE 4096u

enum mode { REAL_MODE, USER_MODE };

/* Slots around [AT, AT + BYTES), and one there if it is to be read-only. */
static void slots(struct vm *v, bool rom)
{
	char uri[64];
	unsigned char page[4096];
	int image = memfd_create("rom", MFD_CLOEXEC);

	memset(page, 0x77, sizeof(page));
	assert_int_equal(write(image, page, sizeof(page)), sizeof(page));
	snprintf(uri, sizeof(uri), "file:/proc/self/fd/%d", image);
	vm_open(v);
	vm_memory_with(v, AT, 4096, uri);
	vm_slot(v, 0, 0, AT, 0);
	if (rom)
		vm_slot(v, 2, AT, BYTES, KVM_MEM_READONLY);
	vm_slot(v, 1, AT + BYTES, VM_RAM - AT - BYTES, 0);
	vm_vcpu(v);
}

/* byte [AT] = 0x5a; out */
static void store(struct vm *v, enum mode mode)
{
	if (mode == USER_MODE)
		VM_USER(v, 0xc6, 0x04, 0x25, 0, 0, 0x0a, 0, 0x5a, 0xe6, VM_PORT);
	else
		VM_REAL(v, 0xb8, 0x00, 0xa0, 0x8e, 0xd8, 0xc6, 0x06, 0, 0, 0x5a, 0xe6, VM_PORT);
}

/* al = byte [AT]; out */
static void load(struct vm *v, enum mode mode)
{
	if (mode == USER_MODE)
		VM_USER(v, 0x8a, 0x04, 0x25, 0, 0, 0x0a, 0, 0xe6, VM_PORT);
	else
		VM_REAL(v, 0xb8, 0x00, 0xa0, 0x8e, 0xd8, 0xa0, 0, 0, 0xe6, VM_PORT);
}

static unsigned char byte_out(const struct vm *v)
{
	return ((const unsigned char *)v->run)[v->run->io.data_offset];
}

static void a_store_is_the_vmms(bool rom, enum mode mode)
{
	unsigned char ram;
	struct vm v;

	slots(&v, rom);
	store(&v, mode);
	vm_until_exit(&v, KVM_EXIT_MMIO);
	assert_int_equal(v.run->mmio.phys_addr, AT);
	assert_int_equal(v.run->mmio.len, 1);
	assert_int_equal(v.run->mmio.is_write, 1);
	assert_int_equal(v.run->mmio.data[0], 0x5a);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_int_equal(apf_read(v.apf, AT, &ram, 1), 0);
	assert_int_equal(ram, 0x77);
}

static void a_store_to_a_hole_is_the_vmms(void **state)
{
	(void)state;
	a_store_is_the_vmms(false, REAL_MODE);
	a_store_is_the_vmms(false, USER_MODE);
}

static void a_store_to_a_read_only_slot_is_the_vmms(void **state)
{
	(void)state;
	a_store_is_the_vmms(true, REAL_MODE);
	a_store_is_the_vmms(true, USER_MODE);
}

static void a_load_from_a_hole_is_the_vmms(void **state)
{
	(void)state;
	for (int mode = REAL_MODE; mode <= USER_MODE; mode++) {
		struct vm v;

		slots(&v, false);
		load(&v, mode);
		vm_until_exit(&v, KVM_EXIT_MMIO);
		assert_int_equal(v.run->mmio.phys_addr, AT);
		assert_int_equal(v.run->mmio.is_write, 0);
		v.run->mmio.data[0] = 0x33;
		vm_until_exit(&v, KVM_EXIT_IO);
		assert_int_equal(byte_out(&v), 0x33);
	}
}

static void a_load_from_a_read_only_slot_reads_the_source(void **state)
{
	(void)state;
	for (int mode = REAL_MODE; mode <= USER_MODE; mode++) {
		struct vm v;

		slots(&v, true);
		/* KVM does not say which of its pages is missing. */
		assert_int_equal(apf_slot_set(v.apf, AT, BYTES, APF_SLOT_ROM), 0);
		load(&v, mode);
		vm_until_exit(&v, KVM_EXIT_IO);
		assert_int_equal(byte_out(&v), 0x77);
	}
}

static void an_untold_read_only_slot_pauses_the_vm(void **state)
{
	struct apf_error e = {0};
	struct vm v;

	(void)state;
	slots(&v, true);
	load(&v, USER_MODE);
	vm_go(&v);
	while (!apf_is_paused(v.apf))
		usleep(1000);
	assert_int_equal(apf_trouble_get(v.apf, &e), -EFAULT);
	assert_non_null(strstr(e.text, "apf_slot_set"));
	/* Once it is told, the guest goes on where it was. */
	assert_int_equal(apf_slot_set(v.apf, AT, BYTES, APF_SLOT_ROM), 0);
	apf_resume(v.apf);
	assert_int_equal(vm_join(&v), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(byte_out(&v), 0x77);
}

static void told_slots_are_believed(void **state)
{
	unsigned char ram;
	struct vm v;

	(void)state;
	slots(&v, false);
	assert_int_equal(apf_slot_set(v.apf, 0, AT, APF_SLOT_RAM), 0);
	assert_int_equal(apf_slot_set(v.apf, AT, BYTES, APF_SLOT_HOLE), 0);
	store(&v, REAL_MODE);
	vm_until_exit(&v, KVM_EXIT_MMIO);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_int_equal(apf_read(v.apf, AT, &ram, 1), 0);
	assert_int_equal(ram, 0x77);
	assert_int_equal(apf_slot_set(v.apf, AT + 1, BYTES, APF_SLOT_RAM), -EINVAL);
	assert_int_equal(apf_slot_set(v.apf, AT, 0, APF_SLOT_RAM), -EINVAL);
	/* Told anew as often as one likes: what a newer one covers is forgotten. */
	for (unsigned i = 0; i < 10000; i++)
		assert_int_equal(apf_slot_set(v.apf, AT, BYTES, i % 2 ? APF_SLOT_RAM
								      : APF_SLOT_HOLE), 0);
	assert_int_equal(apf_slot_set(v.apf, -4096ull, 8192, APF_SLOT_RAM), -EINVAL);
}

static void a_store_to_an_ordinary_slot_is_rams(void **state)
{
	(void)state;
	for (int mode = REAL_MODE; mode <= USER_MODE; mode++) {
		unsigned char ram[2];
		struct vm v;

		slots(&v, true);
		vm_slot(&v, 2, AT, 0, 0);
		vm_slot(&v, 2, AT, BYTES, 0);
		store(&v, mode);
		vm_until_exit(&v, KVM_EXIT_IO);
		assert_int_equal(apf_read(v.apf, AT, ram, 2), 0);
		assert_int_equal(ram[0], 0x5a);
		assert_int_equal(ram[1], 0x77);
	}
}

/* An access there is the VMM's, and the vCPU comes back for it; the slot may come again. */
static void a_slot_goes_while_its_page_is_awaited(void **state)
{
	struct kvm_userspace_memory_region none = {.slot = 1};
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_memory(&v, "delay+zero:?size=64K&ms=300");
	vm_slot(&v, 0, 0, VM_DATA, 0);
	vm_slot(&v, 1, VM_DATA, VM_DATA_BYTES, 0);
	vm_slot(&v, 2, VM_DATA + VM_DATA_BYTES, VM_RAM - VM_DATA - VM_DATA_BYTES, 0);
	vm_vcpu(&v);
	VM_USER(&v, VM_LOAD_DATA);
	vm_go(&v);
	vm_until_fault(&v);
	VM_CALL(v.fd, KVM_SET_USER_MEMORY_REGION, &none);
	assert_int_equal(vm_join(&v), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_MMIO);
	assert_int_equal(v.run->mmio.phys_addr, VM_DATA);
	assert_false(v.run->mmio.is_write);
	v.run->mmio.data[0] = 0x5a;
	vm_slot(&v, 1, VM_DATA, VM_DATA_BYTES, 0);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_int_equal(byte_out(&v), 0x5a);
}

#define EN 0x02u
#define MSR_EN (0x4b564d00u + EN)

/* Events there would never reach the guest, which could not free the slot either. */
static void an_area_that_the_guest_cannot_write_is_a_gp(void **state)
{
	static const enum apf_slot told[] = {APF_SLOT_HOLE, APF_SLOT_ROM};

	(void)state;
	for (unsigned rom = 0; rom < 2; rom++)
		for (unsigned tell = 0; tell < 2; tell++) {
			unsigned char ram[8];
			uint64_t en = 1;
			struct vm v;

			slots(&v, rom);
			if (tell)
				assert_int_equal(apf_slot_set(v.apf, AT, BYTES, told[rom]), 0);
			assert_true(vm_wrmsr_raises(&v, EN, AT | 9));
			assert_int_equal(apf_vcpu_get_msr(v.vcpu, MSR_EN, &en), 0);
			assert_int_equal(en, 0);
			assert_int_equal(apf_read(v.apf, AT, ram, sizeof(ram)), 0);
			for (unsigned i = 0; i < sizeof(ram); i++)
				assert_int_equal(ram[i], 0x77);
			assert_false(vm_wrmsr_raises(&v, EN, VM_WORD | 9));
			assert_int_equal(apf_vcpu_get_msr(v.vcpu, MSR_EN, &en), 0);
			assert_int_equal(en, VM_WORD | 9);
			apf_close(v.apf);
		}
}

static void *tell_rom(void *arg)
{
	struct vm *v = arg;

	v->rc = apf_slot_set(v->apf, VM_RAM, 2 * PAGE, APF_SLOT_ROM);
	return NULL;
}

/* Of a read-only slot over two parts the first is late, and meanwhile a part before them leaves. */
static void all_of_a_slot_comes_though_another_part_leaves(void **state)
{
	unsigned char there = 0;
	struct vm v;

	(void)state;
	vm_open(&v);
	assert_int_equal(apf_open(v.fd, &v.config, &v.apf, &v.error), 0);
	assert_int_equal(apf_memory_add(v.apf, 0, PAGE, &v.error), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(apf_memory_add(v.apf, VM_RAM + i * PAGE, PAGE, &v.error), 0);
	assert_int_equal(apf_source_add(v.apf, VM_RAM, PAGE, "delay+zero:?size=4K&ms=300", 0, NULL,
					&v.error), 0);
	assert_int_equal(apf_start(v.apf, &v.error), 0);
	assert_int_equal(pthread_create(&v.thread, NULL, tell_rom, &v), 0);
	vm_until_fault(&v);
	assert_int_equal(apf_memory_remove(v.apf, 0, &v.error), 0);
	assert_int_equal(vm_join(&v), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(apf_residency(v.apf, VM_RAM + i * PAGE, PAGE, &there), 0);
		assert_true(there & APF_BLOCK_PRESENT);
	}
	apf_close(v.apf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(a_store_to_a_hole_is_the_vmms),
		VM_TEST(a_store_to_a_read_only_slot_is_the_vmms),
		VM_TEST(a_load_from_a_hole_is_the_vmms),
		VM_TEST(a_load_from_a_read_only_slot_reads_the_source),
		VM_TEST(an_untold_read_only_slot_pauses_the_vm),
		VM_TEST(told_slots_are_believed),
		VM_TEST(a_store_to_an_ordinary_slot_is_rams),
		VM_TEST(an_area_that_the_guest_cannot_write_is_a_gp),
		VM_TEST(a_slot_goes_while_its_page_is_awaited),
		VM_TEST(all_of_a_slot_comes_though_another_part_leaves),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
