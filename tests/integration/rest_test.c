/* SPDX-License-Identifier: Apache-2.0 */
/*
 * At rest: in which state apf_vcpu_run() leaves a vCPU. What KVM and the library say after
 * -EINTR is complete, and another VM can go on from it.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vm_fixture.h"
#include "need_kvm.h"

/* The vCPU is kicked where it is and has returned; the VM is paused for a save. */
static void stop(struct vm *v)
{
	apf_pause(v->apf);
	apf_vcpu_kick(v->vcpu);
	vm_is_interrupted(v, vm_join(v));
}

/* As stop(), between two calls of apf_vcpu_run(). */
static void stop_between(struct vm *v)
{
	apf_pause(v->apf);
	apf_vcpu_kick(v->vcpu);
	v->run->exit_reason = KVM_EXIT_DEBUG;
	vm_is_interrupted(v, apf_vcpu_run(v->vcpu));
}

static void stalled(enum apf_faults faults, uint64_t rflags)
{
	struct kvm_regs r;
	struct vm a, b;

	vm_open(&a);
	a.config.faults = faults;
	vm_start(&a, VM_NEVER);
	VM_USER(&a, VM_LOAD_DATA);
	r = vm_regs(&a);
	r.rflags |= rflags;
	VM_CALL(a.vcpu_fd, KVM_SET_REGS, &r);
	vm_go(&a);
	vm_until_stall(&a);
	stop(&a);
	assert_int_equal(vm_mp_state(&a), KVM_MP_STATE_RUNNABLE);
	assert_int_equal(vm_regs(&a).rip, VM_CODE);
	vm_open(&b);
	b.config.faults = faults;
	vm_move(&a, &b, VM_ZERO);
	vm_until_exit(&b, KVM_EXIT_IO);
}

static void saved_in_a_stall_it_runs_on(void **state)
{
	(void)state;
	stalled(APF_FAULTS_STALL, 0);
	stalled(APF_FAULTS_STALL, 1 << 9);
	stalled(APF_FAULTS_USER, 0);
	stalled(APF_FAULTS_USER, 1 << 9);
}

static void a_stall_goes_on_in_the_same_vm(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	v.config.faults = APF_FAULTS_STALL;
	vm_start(&v, "delay+zero:?size=64K&ms=1000");
	VM_USER(&v, VM_LOAD_DATA);
	vm_go(&v);
	vm_until_stall(&v);
	stop(&v);
	apf_resume(v.apf);
	vm_until_exit(&v, KVM_EXIT_IO);
}

static void a_guest_that_halted_stays_halted(void **state)
{
	struct vm a, b;

	(void)state;
	vm_open(&a);
	vm_start(&a, NULL);
	VM_REAL(&a, 0xe6, VM_PORT, 0xf4, 0xe6, VM_PORT); /* out; hlt; out */
	vm_until_exit(&a, KVM_EXIT_IO);
	vm_go(&a);
	usleep(100000);
	stop(&a);
	assert_int_equal(vm_mp_state(&a), KVM_MP_STATE_HALTED);
	vm_open(&b);
	vm_move(&a, &b, NULL);
	vm_go(&b);
	usleep(100000);
	assert_false(__atomic_load_n(&b.returned, __ATOMIC_ACQUIRE));
	stop(&b);
	assert_int_equal(vm_mp_state(&b), KVM_MP_STATE_HALTED);
}

/* in al, VM_PORT; mov [VM_WORD], al; out 0x11, al */
static void a_port_that_was_read_is_read_once(void **state)
{
	struct vm a, b;

	(void)state;
	vm_open(&a);
	vm_start(&a, NULL);
	VM_USER(&a, 0xe4, VM_PORT, 0x88, 0x04, 0x25, 0, 0x80, 0, 0, 0xe6, 0x11);
	vm_until_exit(&a, KVM_EXIT_IO);
	assert_int_equal(a.run->io.direction, KVM_EXIT_IO_IN);
	((char *)a.run)[a.run->io.data_offset] = 0x5a;
	stop_between(&a);
	assert_int_equal(vm_regs(&a).rax & 0xff, 0x5a);
	assert_int_equal(vm_regs(&a).rip, VM_CODE + 2);
	vm_open(&b);
	vm_move(&a, &b, NULL);
	vm_until_exit(&b, KVM_EXIT_IO);
	assert_int_equal(b.run->io.port, 0x11);
	assert_int_equal(vm_word(&b), 0x5a);
}

/* mov eax, [VM_DEVICE]; out 0x11, eax */
static void a_device_that_was_read_is_read_once(void **state)
{
	struct vm a, b;

	(void)state;
	vm_open(&a);
	vm_start(&a, NULL);
	VM_USER(&a, 0x8b, 0x04, 0x25, 0, 0, 0, 1, 0xe7, 0x11);
	vm_until_exit(&a, KVM_EXIT_MMIO);
	assert_int_equal(a.run->mmio.phys_addr, VM_DEVICE);
	assert_false(a.run->mmio.is_write);
	memcpy(a.run->mmio.data, &(uint32_t){0x12345678}, 4);
	stop_between(&a);
	assert_int_equal(vm_regs(&a).rax, 0x12345678);
	assert_int_equal(vm_regs(&a).rip, VM_CODE + 7);
	vm_open(&b);
	vm_move(&a, &b, NULL);
	vm_until_exit(&b, KVM_EXIT_IO);
	assert_int_equal(b.run->io.port, 0x11);
}

/* mov ecx, 0x12345; rdmsr; out 0x10, al: a register that only the VMM knows */
static void a_register_of_the_vmm_is_read_once(void **state)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = {KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER},
	};
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, NULL);
	VM_CALL(v.fd, KVM_ENABLE_CAP, &cap);
	VM_REAL(&v, 0x66, 0xb9, 0x45, 0x23, 1, 0, 0x0f, 0x32, 0xe6, VM_PORT);
	vm_until_exit(&v, KVM_EXIT_X86_RDMSR);
	assert_int_equal(v.run->msr.index, 0x12345);
	v.run->msr.data = 0x600000005a;
	v.run->msr.error = 0;
	stop_between(&v);
	assert_int_equal(vm_regs(&v).rax, 0x5a);
	assert_int_equal(vm_regs(&v).rdx, 0x60);
	assert_int_equal(vm_regs(&v).rip, VM_CODE + 8);
	apf_resume(v.apf);
	vm_until_exit(&v, KVM_EXIT_IO);
}

/* ds = VM_DATA / 16; byte [0] = 0x5a; out. KVM's emulator makes an exit of the store. */
#define STORE_BYTE 0xb8, 0x00, 0x20, 0x8e, 0xd8, 0xc6, 0x06, 0, 0, 0x5a, 0xe6, VM_PORT
/* ds = VM_DATA / 16; dword [0xffe] = 0x44332211, on two absent pages; out */
#define STORE_ACROSS                                                                               \
	0xb8, 0x00, 0x20, 0x8e, 0xd8, 0x66, 0xc7, 0x06, 0xfe, 0x0f, 0x11, 0x22, 0x33, 0x44, 0xe6,  \
		VM_PORT

static void store(const unsigned char *code, size_t len, uint32_t at, const void *want, size_t n)
{
	unsigned char got[8];
	struct vm a, b;

	vm_open(&a);
	vm_start(&a, VM_NEVER);
	vm_real(&a, code, len);
	vm_go(&a);
	vm_until_fault(&a);
	stop(&a);
	/* Before the instruction or after it: the rest is in what the library saves. */
	vm_open(&b);
	vm_move(&a, &b, VM_ZERO);
	vm_until_exit(&b, KVM_EXIT_IO);
	assert_int_equal(apf_read(b.apf, at, got, n), 0);
	assert_memory_equal(got, want, n);
}

static void a_store_to_absent_ram_is_saved_whole(void **state)
{
	static const unsigned char byte[] = {STORE_BYTE}, across[] = {STORE_ACROSS};

	(void)state;
	store(byte, sizeof(byte), VM_DATA, "\x5a", 1);
	store(across, sizeof(across), VM_DATA + 0xffe, "\x11\x22\x33\x44", 4);
}

static void a_store_to_absent_ram_goes_on_in_the_same_vm(void **state)
{
	unsigned char got = 0;
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, "delay+zero:?size=64K&ms=700");
	VM_REAL(&v, STORE_BYTE);
	vm_go(&v);
	vm_until_fault(&v);
	stop(&v);
	apf_resume(v.apf);
	vm_until_exit(&v, KVM_EXIT_IO);
	assert_int_equal(apf_read(v.apf, VM_DATA, &got, 1), 0);
	assert_int_equal(got, 0x5a);
}

/* ds = VM_DATA / 16; mov al, [0]; out: the load is made again, or carried over */
static void a_load_from_absent_ram_is_saved_whole(void **state)
{
	struct vm a, b;

	(void)state;
	vm_open(&a);
	vm_start(&a, VM_NEVER);
	VM_REAL(&a, 0xb8, 0x00, 0x20, 0x8e, 0xd8, 0xa0, 0, 0, 0xe6, VM_PORT);
	vm_go(&a);
	vm_until_fault(&a);
	stop(&a);
	vm_open(&b);
	vm_move(&a, &b, VM_ZERO);
	vm_until_exit(&b, KVM_EXIT_IO);
	assert_int_equal(((char *)b.run)[b.run->io.data_offset], 0);
}

static void immediate_exit_is_the_vmms(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, NULL);
	VM_USER(&v, VM_SPIN);
	for (unsigned i = 0; i < 3; i++) {
		v.run->immediate_exit = 1;
		v.run->exit_reason = KVM_EXIT_DEBUG;
		vm_is_interrupted(&v, apf_vcpu_run(v.vcpu));
		assert_int_equal(v.run->immediate_exit, 1);
	}
	assert_int_equal(vm_regs(&v).rip, VM_CODE);
	v.run->immediate_exit = 0;
	vm_go(&v);
	vm_until_counting(&v);
	stop(&v);
}

static void registers_that_the_vmm_changed_are_taken_over(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, NULL);
	VM_USER(&v, 0xe6, VM_PORT, 0xe6, VM_PORT);
	vm_until_exit(&v, KVM_EXIT_IO);
	apf_vcpu_kick(v.vcpu);
	vm_is_interrupted(&v, apf_vcpu_run(v.vcpu));
	v.run->s.regs.regs.rbx = 0x77;
	v.run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	apf_vcpu_kick(v.vcpu);
	vm_is_interrupted(&v, apf_vcpu_run(v.vcpu));
	assert_int_equal(vm_regs(&v).rbx, 0x77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(saved_in_a_stall_it_runs_on),
		VM_TEST(a_stall_goes_on_in_the_same_vm),
		VM_TEST(a_guest_that_halted_stays_halted),
		VM_TEST(a_port_that_was_read_is_read_once),
		VM_TEST(a_device_that_was_read_is_read_once),
		VM_TEST(a_register_of_the_vmm_is_read_once),
		VM_TEST(a_store_to_absent_ram_is_saved_whole),
		VM_TEST(a_store_to_absent_ram_goes_on_in_the_same_vm),
		VM_TEST(a_load_from_absent_ram_is_saved_whole),
		VM_TEST(immediate_exit_is_the_vmms),
		VM_TEST(registers_that_the_vmm_changed_are_taken_over),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
