/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One VM by the public header: RAM, a source that answers late or never, a vCPU with a few
 * instructions in long mode at CPL 3 (they run natively everywhere) or in real mode (which
 * some hosts emulate). Each test runs in a process of its own, which an alarm ends: a vCPU
 * that sleeps for ever, or a signal to a thread that left, fails one test and no other.
 */
#ifndef TESTS_INTEGRATION_VM_FIXTURE_H
#define TESTS_INTEGRATION_VM_FIXTURE_H

#include <asyncpf/asyncpf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/kvm.h>
#include <pthread.h>

#define VM_RAM (8u << 20)
#define VM_CODE 0x1000u
#define VM_WORD 0x8000u /* present from the start; the guest's results */
#define VM_TABLES 0x10000u
#define VM_DATA 0x20000u /* absent, behind the source */
#define VM_DATA_BYTES 0x10000u
#define VM_DEVICE 0x1000000u /* no RAM: a device */
#define VM_PORT 0x10

#define VM_NEVER "fault+zero:?size=64K&fault-hang-after=0"
#define VM_ZERO "zero:?size=64K"

struct vm {
	int kvm, fd, vcpu_fd;
	struct kvm_run *run;
	struct apf_config config;
	struct apf *apf;
	struct apf_vcpu *vcpu;
	struct apf_error error;
	/* One call of apf_vcpu_run() on a thread of its own. */
	pthread_t thread;
	int rc;
	int returned;
};

/* ioctl() that is made again after EINTR, and must succeed. */
int vm_ioctl(int fd, unsigned long request, void *arg);
#define VM_CALL(fd, request, arg) vm_ioctl(fd, request, (void *)(arg))

/* KVM's VM and the default configuration, to be changed. */
void vm_open(struct vm *v);
/* Everything up to the vCPU; uri: behind VM_DATA, NULL: nothing. One slot for all RAM. */
void vm_start(struct vm *v, const char *uri);
/* The same in two steps, for a test that makes its own slots. */
void vm_memory(struct vm *v, const char *uri);
void vm_memory_with(struct vm *v, uint64_t gpa, uint64_t bytes, const char *uri);
/* What a guest in user mode needs in RAM, which is there: its page tables among it. */
void vm_tables(struct vm *v);
void vm_slot(struct vm *v, unsigned slot, uint64_t gpa, uint64_t bytes, uint32_t flags);
void vm_vcpu(struct vm *v);
/* An open VM with a vCPU in these instructions. */
void vm_user(struct vm *v, const void *code, size_t len);
void vm_real(struct vm *v, const void *code, size_t len);

#define VM_USER(v, ...)                                                                            \
	vm_user(v, (const unsigned char[]){__VA_ARGS__},                                           \
		sizeof((const unsigned char[]){__VA_ARGS__}))
#define VM_REAL(v, ...)                                                                            \
	vm_real(v, (const unsigned char[]){__VA_ARGS__},                                           \
		sizeof((const unsigned char[]){__VA_ARGS__}))

/* al = byte at VM_DATA; out VM_PORT, al; jmp . */
#define VM_LOAD_DATA 0x8a, 0x04, 0x25, 0, 0, 2, 0, 0xe6, VM_PORT, 0xeb, 0xfe
/* Real mode: EDX:EAX = 0:value to register 0x4b564d00 + msr */
#define VM_BYTE(x, n) (unsigned char)((x) >> 8 * (n) & 0xff)
#define VM_BYTES4(x) VM_BYTE(x, 0), VM_BYTE(x, 1), VM_BYTE(x, 2), VM_BYTE(x, 3)
#define VM_WRMSR(msr, value)                                                                       \
	0x66, 0xb9, VM_BYTE(msr, 0), 0x4d, 0x56, 0x4b, 0x66, 0xb8, VM_BYTES4(value), 0x66, 0x31,   \
		0xd2, 0x0f, 0x30
/* inc dword [VM_WORD]; again */
#define VM_SPIN 0xff, 0x04, 0x25, 0, 0x80, 0, 0, 0xeb, 0xf7

/* Real mode: VM_WRMSR by the guest; whether it raised #GP. */
bool vm_wrmsr_raises(struct vm *v, unsigned msr, uint32_t value);

/* apf_vcpu_run() on a thread; its result when it has returned. */
void vm_go(struct vm *v);
int vm_join(struct vm *v);
/* Runs until there is an exit for the VMM. */
void vm_until_exit(struct vm *v, uint32_t exit_reason);
/* apf_vcpu_run() said -EINTR as ioctl(KVM_RUN) does, and nothing of ours is left behind. */
void vm_is_interrupted(const struct vm *v, int rc);

/* Wait until the vCPU's thread is there. */
void vm_until_counting(struct vm *v); /* VM_SPIN runs */
void vm_until_fault(struct vm *v);    /* it waits for absent memory */
void vm_until_stall(struct vm *v);

/* All of VM_DATA, by a thread of the VMM's. */
struct vm_reading {
	struct vm v;
	unsigned char got[VM_DATA_BYTES];
	int rc; /* of apf_read, once it has ended */
	pthread_t thread;
};
void vm_read_begin(struct vm_reading *r);
void vm_read_end(struct vm_reading *r);

uint32_t vm_word(struct vm *v);
struct kvm_regs vm_regs(const struct vm *v);
uint32_t vm_mp_state(const struct vm *v);
void vm_set_msr(const struct vm *v, uint32_t msr, uint64_t value);
uint64_t vm_get_msr(const struct vm *v, uint32_t msr);

/* `to` is an open VM that was configured as `from`: started with uri, and given its state. */
void vm_move(struct vm *from, struct vm *to, const char *uri);

/*
 * A source of `bytes` in memory, whose pages begin with their number as a word. Its URI, and the
 * descriptor behind it, which the caller closes.
 */
int vm_numbered_image(uint64_t bytes, char *uri, size_t len);

struct vm_case {
	void (*run)(void **state);
	void *arg;
};
void vm_in_child(void **state);
/* A test in a process of its own; arg is its *state. */
#define VM_TEST_ARG(label, function, value)                                                        \
	{                                                                                          \
		label, vm_in_child, NULL, NULL, &(struct vm_case)                                  \
		{                                                                                  \
			function, (void *)(value)                                                  \
		}                                                                                  \
	}
#define VM_TEST(function) VM_TEST_ARG(#function, function, NULL)

/* A test program without /dev/kvm cannot say anything. */

#endif
