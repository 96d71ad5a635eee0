/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The halt that stands for a stalled vCPU, on the real KVM: who may end it, and what it must
 * not undo. No guest code runs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm/kvm_uapi.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"

#define RAM_BYTES 65536u /* some KVMs do not run a vCPU without any */

struct bed {
	void *ram;
	int kvm, vm, vcpu;
	struct kvm_run *run;
	struct kvmp k;
	struct plat plat;
};

static bool nowhere_hva(void *ctx, hva_t hva, roff_t *ret)
{
	(void)ctx, (void)hva, (void)ret;
	return false;
}

static bool nowhere_gpa(void *ctx, gpa_t gpa, uint64_t len, roff_t *ret)
{
	(void)ctx, (void)gpa, (void)len, (void)ret;
	return false;
}

static enum kvmp_slot auto_slot(void *ctx, gpa_t gpa)
{
	(void)ctx, (void)gpa;
	return KVMP_SLOT_AUTO;
}

static int bed_open(void **state)
{
	static struct bed b;
	struct err e = {0};

	if (kvmp_vm_open(&b.kvm, &b.vm, &e) < 0 || kvmp_vm_prepare(b.vm, 0, &e) < 0 ||
	    kvmp_vm_irqchip(b.vm, &e) < 0 ||
	    kvmp_vcpu_open(b.kvm, b.vm, 0, &b.vcpu, &b.run, &e) < 0)
		fail_msg("%s", e.text);
	b.ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(b.ram, MAP_FAILED);
	if (kvmp_vm_memory(b.vm, 0, (gpa_t){0}, RAM_BYTES, (hva_t){(uintptr_t)b.ram}, &e) < 0)
		fail_msg("%s", e.text);
	const struct kvmp_config c = {
		.vm_fd = b.vm,
		.kick_signal = SIGRTMIN + 4,
		.msrs = true,
		.vcpus = 1,
		.ram = {nowhere_hva, nowhere_gpa, auto_slot, NULL},
	};

	if (kvmp_init(&b.k, &c, &e) < 0 || kvmp_attach(&b.k, 0, b.vcpu, b.run, 0, &e) < 0)
		fail_msg("%s", e.text);
	b.plat = kvmp_plat(&b.k);
	b.plat.ops->begin(b.plat.ctx, 0);
	*state = &b;
	return 0;
}

static int bed_close(void **state)
{
	struct bed *b = *state;

	b->plat.ops->rest(b->plat.ctx, 0, true);
	kvmp_fini(&b->k);
	kvmp_vcpu_close(b->kvm, b->vcpu, b->run);
	close(b->vm);
	close(b->kvm);
	munmap(b->ram, RAM_BYTES);
	return 0;
}

static uint32_t mp_state(const struct bed *b)
{
	struct kvm_mp_state mp = {0};

	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_GET_MP_STATE, &mp), 0);
	return mp.mp_state;
}

static void set_mp_state(const struct bed *b, uint32_t to)
{
	struct kvm_mp_state mp = {.mp_state = to};

	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_SET_MP_STATE, &mp), 0);
}

/* With a kick on its way before, KVM_RUN comes back at once. */
static void enter(struct bed *b, enum plat_enter how)
{
	struct plat_exit x = {.kind = PLAT_EXIT_ERROR};
	const struct plat_entry entry = {.how = how};

	b->plat.ops->kick(b->plat.ctx, 0);
	b->plat.ops->run(b->plat.ctx, 0, &entry, &x);
	if (x.kind == PLAT_EXIT_ERROR)
		print_error("running the vCPU: %s\n", strerror(-x.code));
	assert_int_equal(x.kind, PLAT_EXIT_KICK);
}

static void our_halt_lasts_until_we_end_it(void **state)
{
	struct bed *b = *state;

	enter(b, PLAT_ENTER_HALTED);
	assert_int_equal(mp_state(b), KVM_MP_STATE_HALTED);
	enter(b, PLAT_ENTER);
	assert_int_equal(mp_state(b), KVM_MP_STATE_HALTED);
	enter(b, PLAT_ENTER_RUNNABLE);
	assert_int_equal(mp_state(b), KVM_MP_STATE_RUNNABLE);
}

static void an_event_ends_our_halt(void **state)
{
	struct bed *b = *state;

	enter(b, PLAT_ENTER_HALTED);
	b->plat.ops->inject_pf(b->plat.ctx, 0, 0x1000);
	assert_int_equal(mp_state(b), KVM_MP_STATE_RUNNABLE);
	b->plat.ops->cancel_pf(b->plat.ctx, 0);
}

/* Another processor's INIT came while we held the vCPU halted. */
static void a_processor_that_waits_for_sipi_goes_on_waiting(void **state)
{
	struct bed *b = *state;

	enter(b, PLAT_ENTER_HALTED);
	set_mp_state(b, KVM_MP_STATE_INIT_RECEIVED);
	enter(b, PLAT_ENTER_RUNNABLE);
	assert_int_equal(mp_state(b), KVM_MP_STATE_INIT_RECEIVED);
	set_mp_state(b, KVM_MP_STATE_RUNNABLE);
}

static void at_rest_our_halt_is_over(void **state)
{
	struct bed *b = *state;

	enter(b, PLAT_ENTER_HALTED);
	b->plat.ops->rest(b->plat.ctx, 0, true);
	assert_int_equal(mp_state(b), KVM_MP_STATE_RUNNABLE);
	assert_int_equal(b->run->exit_reason, KVM_EXIT_INTR);
	b->plat.ops->begin(b->plat.ctx, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(at_rest_our_halt_is_over),
		cmocka_unit_test(our_halt_lasts_until_we_end_it),
		cmocka_unit_test(an_event_ends_our_halt),
		cmocka_unit_test(a_processor_that_waits_for_sipi_goes_on_waiting),
	};

	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		printf("SKIP: /dev/kvm: %s\n", strerror(errno));
		return 77;
	}
	return cmocka_run_group_tests(tests, bed_open, bed_close);
}
