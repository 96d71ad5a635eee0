/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saves a VM in the middle of its run and goes on with it in a second one: what there is to
 * save, in which order, and in which order it goes back (docs/saving.md has the reasons).
 *
 *     snapshot FILE       adds up the first byte of each of the file's first 16 pages
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <asyncpf/asyncpf.h>
#include <errno.h>
#include <fcntl.h>
#ifdef __cplusplus /* Older Linux headers give structs that end in an array another size there. */
#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(type, name) type name[]
#endif
#include <linux/kvm.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_BYTES (2 << 20)
#define CODE_GPA 0x1000
#define DATA_GPA 0x10000
#define DATA_BYTES 0x10000
#define MSRS_MAX 16

/* Real mode: for (si = 0; ; si += 4096) bx += data[si]; then out 0x10, bx. */
static const unsigned char guest[] = {
	0xb8, 0x00, 0x10,       /* mov ax, 0x1000      */
	0x8e, 0xd8,             /* mov ds, ax          */
	0x31, 0xf6,             /* xor si, si          */
	0x31, 0xdb,             /* xor bx, bx          */
	0x8a, 0x04,             /* loop: mov al, [si]  */
	0x30, 0xe4,             /* xor ah, ah          */
	0x01, 0xc3,             /* add bx, ax          */
	0x81, 0xc6, 0x00, 0x10, /* add si, 0x1000      */
	0x75, 0xf4,             /* jnz loop            */
	0x89, 0xd8,             /* mov ax, bx          */
	0xe7, 0x10,             /* out 0x10, ax        */
};

struct vm {
	int kvm, fd, vcpu_fd;
	struct kvm_run *run;
	struct apf *apf;
	struct apf_vcpu *vcpu;
};

/* struct kvm_msrs ends in a flexible array: its entries lie right behind it. */
union msrs {
	struct kvm_msrs head;
	unsigned char bytes[sizeof(struct kvm_msrs) + MSRS_MAX * sizeof(struct kvm_msr_entry)];
};

/* Everything that a vCPU is. */
struct saved {
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xsave *xsave;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	union msrs *msrs;
	struct kvm_vcpu_events events;
	void *apf;
	size_t apf_bytes;
	unsigned char *ram;
};

static void die(const char *what, const struct apf_error *e)
{
	fprintf(stderr, "snapshot: %s: %s\n", what, e ? e->text : strerror(errno));
	exit(1);
}

static void call(int fd, unsigned long request, void *arg, const char *what)
{
	if (ioctl(fd, request, arg) < 0)
		die(what, NULL);
}

/* uri: what stands behind the data; NULL: nothing, it is restored. */
static void open_vm(struct vm *vm, const char *uri)
{
	struct kvm_userspace_memory_region slot = {};
	struct apf_config config;
	struct apf_error error;

	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	vm->fd = vm->kvm < 0 ? -1 : ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		die("/dev/kvm", NULL);
	apf_config_init(&config);
	if (apf_open(vm->fd, &config, &vm->apf, &error) < 0 ||
	    apf_memory_add(vm->apf, 0, RAM_BYTES, &error) < 0 ||
	    (uri && apf_source_add(vm->apf, DATA_GPA, DATA_BYTES, uri, 0, NULL, &error) < 0) ||
	    apf_start(vm->apf, &error) < 0)
		die("memory", &error);
	slot.memory_size = RAM_BYTES;
	slot.userspace_addr = (unsigned long)apf_memory_hva(vm->apf, 0);
	call(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot, "memory slot");
	call(vm->fd, KVM_CREATE_IRQCHIP, NULL, "interrupt controllers");
	vm->vcpu_fd = ioctl(vm->fd, KVM_CREATE_VCPU, 0);
	vm->run = (struct kvm_run *)mmap(NULL, (size_t)ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
					 PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu_fd, 0);
	if (vm->run == MAP_FAILED)
		die("vCPU", NULL);
	if (apf_vcpu_attach(vm->apf, 0, vm->vcpu_fd, vm->run, 0, &vm->vcpu, &error) < 0)
		die("vCPU", &error);
}

static void close_vm(struct vm *vm)
{
	apf_close(vm->apf);
	close(vm->vcpu_fd);
	close(vm->fd);
	close(vm->kvm);
}

/* Registers that KVM has, of those that the library asks for. */
static void msrs_get(const struct vm *vm, union msrs *ret)
{
	struct kvm_msr_entry entries[MSRS_MAX];
	unsigned count, n = 0;
	const uint32_t *list = apf_vcpu_msr_list(vm->apf, &count);

	for (unsigned i = 0; i < count && n < MSRS_MAX; i++) {
		union msrs one = {};

		one.head.nmsrs = 1;
		memset(&entries[n], 0, sizeof(entries[n]));
		entries[n].index = list[i];
		memcpy(one.bytes + sizeof(one.head), &entries[n], sizeof(entries[n]));
		if (ioctl(vm->vcpu_fd, KVM_GET_MSRS, &one) == 1)
			memcpy(&entries[n++], one.bytes + sizeof(one.head), sizeof(entries[0]));
	}
	ret->head.nmsrs = n;
	memcpy(ret->bytes + sizeof(ret->head), entries, n * sizeof(entries[0]));
}

/* The VM is paused, and apf_vcpu_run() has returned -EINTR: the vCPU is at rest. */
static void save(const struct vm *vm, struct saved *s)
{
	memset(s, 0, sizeof(*s));
	s->xsave = (struct kvm_xsave *)calloc(1, sizeof(*s->xsave));
	s->msrs = (union msrs *)calloc(1, sizeof(*s->msrs));
	if (!s->xsave || !s->msrs)
		die("memory", NULL);
	/* First: it makes KVM take in what other processors have sent. */
	call(vm->vcpu_fd, KVM_GET_MP_STATE, &s->mp_state, "mp_state");
	call(vm->vcpu_fd, KVM_GET_REGS, &s->regs, "registers");
	call(vm->vcpu_fd, KVM_GET_SREGS, &s->sregs, "segments");
	call(vm->vcpu_fd, KVM_GET_XSAVE, s->xsave, "FPU");
	call(vm->vcpu_fd, KVM_GET_XCRS, &s->xcrs, "XCR0");
	call(vm->vcpu_fd, KVM_GET_DEBUGREGS, &s->debugregs, "debug registers");
	call(vm->vcpu_fd, KVM_GET_LAPIC, &s->lapic, "local APIC");
	msrs_get(vm, s->msrs);
	call(vm->vcpu_fd, KVM_GET_VCPU_EVENTS, &s->events, "events");
	s->apf_bytes = apf_vcpu_save(vm->vcpu, NULL, 0);
	s->apf = malloc(s->apf_bytes);
	s->apf_bytes = apf_vcpu_save(vm->vcpu, s->apf, s->apf_bytes);
	/* Last, and while it is paused: a store that waited for its page lands in it. */
	s->ram = (unsigned char *)malloc(RAM_BYTES);
	if (!s->apf || !s->ram || apf_read(vm->apf, 0, s->ram, RAM_BYTES) < 0)
		die("guest memory", NULL);
}

static void restore(const struct vm *vm, struct saved *s)
{
	if (apf_write(vm->apf, 0, s->ram, RAM_BYTES) < 0)
		die("guest memory", NULL);
	/* Segments tell the APIC's mode, the APIC comes before what needs one. */
	call(vm->vcpu_fd, KVM_SET_SREGS, &s->sregs, "segments");
	call(vm->vcpu_fd, KVM_SET_REGS, &s->regs, "registers");
	call(vm->vcpu_fd, KVM_SET_XSAVE, s->xsave, "FPU");
	call(vm->vcpu_fd, KVM_SET_XCRS, &s->xcrs, "XCR0");
	call(vm->vcpu_fd, KVM_SET_DEBUGREGS, &s->debugregs, "debug registers");
	call(vm->vcpu_fd, KVM_SET_LAPIC, &s->lapic, "local APIC");
	/* In the library's order: the vector before what lets events out. */
	call(vm->vcpu_fd, KVM_SET_MSRS, s->msrs, "MSRs");
	call(vm->vcpu_fd, KVM_SET_VCPU_EVENTS, &s->events, "events");
	call(vm->vcpu_fd, KVM_SET_MP_STATE, &s->mp_state, "mp_state");
	if (apf_vcpu_restore(vm->vcpu, s->apf, s->apf_bytes) < 0)
		die("page fault events", NULL);
}

static void *run_until_interrupted(void *arg)
{
	struct vm *vm = (struct vm *)arg;
	int rc;

	do
		rc = apf_vcpu_run(vm->vcpu);
	while (rc == -EINTR && !apf_is_paused(vm->apf));
	return rc == -EINTR ? NULL : arg;
}

int main(int argc, char **argv)
{
	char uri[4096];
	struct vm first, second;
	struct saved saved;
	struct kvm_regs regs = {};
	struct kvm_sregs sregs;
	pthread_t thread;
	void *ended;
	int rc;

	if (argc != 2) {
		fprintf(stderr, "usage: snapshot FILE\n");
		return 2;
	}
	snprintf(uri, sizeof(uri), "delay+file:%s?ms=100", argv[1]);
	open_vm(&first, uri);
	if (apf_write(first.apf, CODE_GPA, guest, sizeof(guest)) < 0)
		die("guest code", NULL);
	call(first.vcpu_fd, KVM_GET_SREGS, &sregs, "segments");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	call(first.vcpu_fd, KVM_SET_SREGS, &sregs, "segments");
	regs.rip = CODE_GPA;
	regs.rflags = 2;
	call(first.vcpu_fd, KVM_SET_REGS, &regs, "registers");

	/* Stopped in the middle of its second or third page. */
	if (pthread_create(&thread, NULL, run_until_interrupted, &first) != 0)
		die("thread", NULL);
	usleep(250 * 1000);
	apf_pause(first.apf);
	apf_vcpu_kick(first.vcpu);
	pthread_join(thread, &ended);
	if (ended)
		die("the guest was too fast", NULL);
	save(&first, &saved);
	close_vm(&first);

	open_vm(&second, NULL);
	restore(&second, &saved);
	do
		rc = apf_vcpu_run(second.vcpu);
	while (rc == -EINTR);
	if (rc < 0 || second.run->exit_reason != KVM_EXIT_IO)
		die("unexpected exit", NULL);
	printf("%u\n", *(unsigned short *)(void *)((char *)second.run +
						    second.run->io.data_offset));
	close_vm(&second);
	free(saved.xsave);
	free(saved.msrs);
	free(saved.apf);
	free(saved.ram);
	return 0;
}
