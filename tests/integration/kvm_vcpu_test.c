/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The binding on the real KVM, without the driver: the halt that stands for a stalled vCPU, who may
 * end it, and what it must not undo; what an exit tells of the processor; which registers of the
 * guest's come to us. The guest is a few instructions at address 0.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi/apf.h"
#include "need_kvm.h"
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
		.ram = {nowhere_hva, nowhere_gpa, auto_slot, NULL, NULL},
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

/* ---- what an exit tells ---- */

#define CODE(...) (const unsigned char[]){__VA_ARGS__}, sizeof((const unsigned char[]){__VA_ARGS__})

/* Whoever was not stopped before leaves the guest by this. */
#define OUT 0xe6, 0x80

/* Real mode, at address 0, where all segments begin. */
static void put_code(struct bed *b, const unsigned char *code, size_t len, uint32_t ecx)
{
	struct kvm_regs regs = {.rcx = ecx, .rsp = 0x8000, .rflags = 2};
	struct kvm_sregs s;

	memcpy(b->ram, code, len);
	set_mp_state(b, KVM_MP_STATE_RUNNABLE);
	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_GET_SREGS, &s), 0);
	s.cs.base = s.cs.selector = 0;
	s.ss.base = s.ss.selector = 0;
	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_SET_REGS, &regs), 0);
}

static struct plat_exit run(struct bed *b)
{
	const struct plat_entry entry = {.how = PLAT_ENTER};
	struct plat_exit x;

	do {
		x = (struct plat_exit){.kind = PLAT_EXIT_ERROR};
		b->plat.ops->run(b->plat.ctx, 0, &entry, &x);
	} while (x.kind == PLAT_EXIT_KICK);
	return x;
}

/* Whoever answers a register's exit has KVM finish the instruction. */
static void finish(struct bed *b)
{
	const struct plat_entry entry = {.how = PLAT_COMPLETE};
	struct plat_exit x;

	b->plat.ops->finish_msr(b->plat.ctx, 0, 0, false);
	b->plat.ops->run(b->plat.ctx, 0, &entry, &x);
	assert_int_equal(x.kind, PLAT_EXIT_KICK);
}

/* Of all that has KVM write to guest memory, and of the protocol's own. */
static void every_register_of_ours_comes_to_us(void **state)
{
	static const uint32_t written[] = {
		0x11, 0x12,             /* wall clock and system time, the old numbers */
		0x4b564d00, 0x4b564d01, /* and the new ones */
		0x4b564d02,             /* EN */
		0x4b564d03, 0x4b564d04, /* steal time, end of interrupt */
		0x4b564d06, 0x4b564d07, /* vector, acknowledgement */
	};
	struct bed *b = *state;

	for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++) {
		struct plat_exit x;

		put_code(b, CODE(0x0f, 0x30, OUT), written[i]); /* wrmsr; out */
		x = run(b);
		if (x.kind != PLAT_EXIT_WRMSR)
			print_error("register %#x\n", written[i]);
		assert_int_equal(x.kind, PLAT_EXIT_WRMSR);
		assert_int_equal(x.msr.index, written[i]);
		assert_true(x.cpu.in_instruction && x.cpu.event_pending);
		finish(b);
	}
}

static bool shadow_at(struct bed *b, const unsigned char *code, size_t len)
{
	struct plat_exit x;

	put_code(b, code, len, APF_MSR_EN);
	x = run(b);
	assert_int_equal(x.kind, PLAT_EXIT_WRMSR);
	finish(b);
	return x.cpu.shadow;
}

static void an_interrupt_shadow_is_told(void **state)
{
	struct bed *b = *state;

	assert_false(shadow_at(b, CODE(0x90, 0x0f, 0x30, OUT)));
	assert_true(shadow_at(b, CODE(0xfb, 0x0f, 0x30, OUT)));       /* sti */
	assert_true(shadow_at(b, CODE(0x8e, 0xd0, 0x0f, 0x30, OUT))); /* mov ss, ax */
	assert_false(shadow_at(b, CODE(0xfb, 0x90, 0x0f, 0x30, OUT)));
}

static struct kvm_vcpu_events events(const struct bed *b)
{
	struct kvm_vcpu_events ev;

	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_GET_VCPU_EVENTS, &ev), 0);
	return ev;
}

static void set_events(const struct bed *b, const struct kvm_vcpu_events *ev)
{
	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_SET_VCPU_EVENTS, ev), 0);
}

/* How the next exit finds the processor, when a kick ends KVM_RUN before the guest runs. */
static struct cpu_state looked_at(struct bed *b)
{
	struct plat_exit x = {.kind = PLAT_EXIT_ERROR};
	const struct plat_entry entry = {.how = PLAT_ENTER};

	b->plat.ops->kick(b->plat.ctx, 0);
	b->plat.ops->run(b->plat.ctx, 0, &entry, &x);
	assert_int_equal(x.kind, PLAT_EXIT_KICK);
	return x.cpu;
}

/* Any event that is half delivered keeps ours back. */
static void an_event_half_delivered_is_told(void **state)
{
	struct bed *b = *state;
	const struct kvm_vcpu_events none = events(b);
	struct kvm_vcpu_events ev;

	assert_false(looked_at(b).event_pending);
	ev = none;
	ev.nmi.injected = 1;
	set_events(b, &ev);
	assert_true(looked_at(b).event_pending);
	ev = none;
	ev.interrupt.injected = 1;
	ev.interrupt.nr = 0x40;
	set_events(b, &ev);
	assert_true(looked_at(b).event_pending);
	ev = none;
	ev.exception.injected = 1;
	ev.exception.nr = 6;
	set_events(b, &ev);
	assert_true(looked_at(b).event_pending);
	set_events(b, &none);
	assert_false(looked_at(b).event_pending);
}

/*
 * What came after the exit, an NMI here, is KVM's: neither an event of ours nor its taking back
 * undoes it.
 */
static void events_of_ours_leave_nmis_alone(void **state)
{
	struct bed *b = *state;
	const struct kvm_vcpu_events none = events(b);

	for (unsigned cancel = 0; cancel < 2; cancel++) {
		struct kvm_vcpu_events ev;

		assert_int_equal(looked_at(b).untaken_token, 0);
		if (ioctl(b->vcpu, KVM_NMI) < 0)
			skip();
		assert_int_equal(events(b).nmi.pending, 1);
		if (cancel)
			b->plat.ops->cancel_pf(b->plat.ctx, 0);
		else
			b->plat.ops->inject_pf(b->plat.ctx, 0, 0x1000);
		b->plat.ops->rest(b->plat.ctx, 0, true); /* KVM takes it over */
		ev = events(b);
		assert_int_equal(ev.nmi.pending, 1);
		assert_int_equal(ev.exception.pending, !cancel);
		if (!cancel)
			assert_int_equal(ev.exception.nr, 14);
		b->plat.ops->begin(b->plat.ctx, 0);
		set_events(b, &none);
	}
}

/* To the exact number: one more needs what the VM does not have. */
static void apic_ids_have_a_limit(void **state)
{
	struct bed *b = *state;
	struct err e = {0};

	b->plat.ops->rest(b->plat.ctx, 0, true);
	kvmp_detach(&b->k, 0);
	assert_int_equal(kvmp_attach(&b->k, 0, b->vcpu, b->run, 255, &e), -EINVAL);
	assert_int_equal(kvmp_attach(&b->k, 0, b->vcpu, b->run, 254, &e), 0);
	kvmp_detach(&b->k, 0);
	assert_int_equal(kvmp_attach(&b->k, 0, b->vcpu, b->run, 0, &e), 0);
	b->plat.ops->begin(b->plat.ctx, 0);
}

#define APIC_BASE_ENABLED (3u << 10) /* and in x2APIC mode */
#define LAPIC_SPIV 0xf0

/* A vCPU of that id, in x2APIC mode, its APIC switched on; -Exxx: KVM has no such id. */
static int x2apic_open(const struct bed *b, unsigned id, struct kvm_run **ret_run)
{
	struct kvm_lapic_state lapic;
	struct kvm_cpuid2 *cpuid;
	uint32_t spiv = 0x1ff;
	struct kvm_sregs s;
	struct err e;
	int vcpu, rc = kvmp_vcpu_open(b->kvm, b->vm, id, &vcpu, ret_run, &e);

	if (rc < 0)
		return rc;
	assert_int_equal(kvmp_cpuid_supported(b->kvm, &cpuid, &e), 0);
	assert_int_equal(kvmp_vcpu_set_cpuid(vcpu, id, cpuid, &e), 0);
	free(cpuid);
	assert_int_equal(KVMP_IOCTL(vcpu, KVM_GET_SREGS, &s), 0);
	s.apic_base |= APIC_BASE_ENABLED;
	assert_int_equal(KVMP_IOCTL(vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(KVMP_IOCTL(vcpu, KVM_GET_LAPIC, &lapic), 0);
	memcpy(lapic.regs + LAPIC_SPIV, &spiv, sizeof(spiv));
	assert_int_equal(KVMP_IOCTL(vcpu, KVM_SET_LAPIC, &lapic), 0);
	return vcpu;
}

/* In its IRR. */
static bool is_requested(int vcpu, unsigned vector)
{
	struct kvm_lapic_state lapic;

	assert_int_equal(KVMP_IOCTL(vcpu, KVM_GET_LAPIC, &lapic), 0);
	return lapic.regs[0x200 + 0x10 * (vector / 32) + vector % 32 / 8] & 1 << vector % 8;
}

/* One of that id beside another, of a VMM that has asked KVM for APIC ids of 32 bits by `how`. */
static void check_high_apic_id(unsigned id, uint64_t how)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_X2APIC_API, .args = {how}};
	struct kvm_run *other_run;
	struct bed b = {.ram = NULL};
	struct err e = {0};
	int other;

	if (kvmp_vm_open(&b.kvm, &b.vm, &e) < 0 || kvmp_vm_prepare(b.vm, 0, &e) < 0 ||
	    kvmp_vm_irqchip(b.vm, &e) < 0)
		fail_msg("%s", e.text);
	if (KVMP_IOCTL(b.vm, KVM_ENABLE_CAP, &cap) < 0)
		b.vcpu = -1;
	else
		b.vcpu = x2apic_open(&b, id, &b.run);
	if (b.vcpu < 0) {
		close(b.vm);
		close(b.kvm);
		skip();
	}
	other = x2apic_open(&b, 7, &other_run);
	assert_true(other >= 0);
	const struct kvmp_config c = {
		.vm_fd = b.vm, .kick_signal = SIGRTMIN + 4, .x2apic_ids = true, .vcpus = 1,
		.ram = {nowhere_hva, nowhere_gpa, auto_slot, NULL, NULL},
	};

	if (kvmp_init(&b.k, &c, &e) < 0 || kvmp_attach(&b.k, 0, b.vcpu, b.run, id, &e) < 0)
		fail_msg("%s", e.text);
	b.plat = kvmp_plat(&b.k);
	assert_int_equal(b.plat.ops->raise_irq(b.plat.ctx, 0, 0x41), 1);
	assert_true(is_requested(b.vcpu, 0x41));
	assert_false(is_requested(other, 0x41));
	kvmp_fini(&b.k);
	kvmp_vcpu_close(b.kvm, b.vcpu, b.run);
	kvmp_vcpu_close(b.kvm, other, other_run);
	close(b.vm);
	close(b.kvm);
}

static void interrupts_reach_high_apic_ids(void **state)
{
	(void)state;
	check_high_apic_id(300, KVM_X2APIC_API_USE_32BIT_IDS |
					KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
}

/* Without its flag KVM takes a message to 255 for one to everybody. */
static void interrupts_of_apic_id_255_reach_nobody_else(void **state)
{
	(void)state;
	check_high_apic_id(255, KVM_X2APIC_API_USE_32BIT_IDS);
}

static void lapic_set(const struct bed *b, struct kvm_lapic_state lapic, unsigned at,
		      uint32_t value)
{
	memcpy(lapic.regs + at, &value, sizeof(value));
	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_SET_LAPIC, &lapic), 0);
}

#define LAPIC_ID 0x20

/* Nothing but a refused interrupt tells; the vCPU's own thread is the one that may ask. */
static void an_apic_that_has_another_id_is_found(void **state)
{
	struct bed *b = *state;
	struct kvm_lapic_state off, on;

	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_GET_LAPIC, &off), 0);
	lapic_set(b, off, LAPIC_SPIV, 0x1ff);
	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_GET_LAPIC, &on), 0);
	assert_int_equal(b->plat.ops->raise_irq(b->plat.ctx, 0, 0x41), 1);
	enter(b, PLAT_ENTER);
	lapic_set(b, on, LAPIC_ID, 5u << 24);
	assert_true(b->plat.ops->raise_irq(b->plat.ctx, 0, 0x41) <= 0);
	assert_true(b->k.vcpus[0].kicked);
	enter(b, PLAT_ENTER);
	assert_int_equal(b->plat.ops->raise_irq(b->plat.ctx, 0, 0x41), 1);
	assert_false(b->k.vcpus[0].kicked);
	/* One that stays off is looked at, and not kicked each time. */
	assert_int_equal(KVMP_IOCTL(b->vcpu, KVM_SET_LAPIC, &off), 0);
	assert_true(b->plat.ops->raise_irq(b->plat.ctx, 0, 0x41) <= 0);
	enter(b, PLAT_ENTER);
	assert_true(b->plat.ops->raise_irq(b->plat.ctx, 0, 0x41) <= 0);
	assert_false(b->k.vcpus[0].kicked);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(at_rest_our_halt_is_over),
		cmocka_unit_test(our_halt_lasts_until_we_end_it),
		cmocka_unit_test(an_event_ends_our_halt),
		cmocka_unit_test(a_processor_that_waits_for_sipi_goes_on_waiting),
		cmocka_unit_test(every_register_of_ours_comes_to_us),
		cmocka_unit_test(an_interrupt_shadow_is_told),
		cmocka_unit_test(an_event_half_delivered_is_told),
		cmocka_unit_test(events_of_ours_leave_nmis_alone),
		cmocka_unit_test(apic_ids_have_a_limit),
		cmocka_unit_test(interrupts_reach_high_apic_ids),
		cmocka_unit_test(interrupts_of_apic_id_255_reach_nobody_else),
		cmocka_unit_test(an_apic_that_has_another_id_is_found),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, bed_open, bed_close);
}
