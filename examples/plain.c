/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small VMM as many are: a memfd and its mapping for guest memory, a vCPU thread that a signal
 * kicks, and a device with a thread of its own, which reaches guest memory by pointers, by preadv
 * and by io_uring. It prints what its guest has added up in the first 256 KiB of a file, its only
 * argument.
 *
 * It reads the file at once. adopted.c is the same VMM with libasyncpf: diff shows what changed.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#ifdef __cplusplus /* Older Linux headers give structs that end in an array another size there. */
#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(type, name) type name[]
#endif
#include <linux/kvm.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096u
#define RAM_BYTES (8u << 20)
#define TABLES_GPA 0x1000u /* three pages */
#define CODE_GPA 0x10000u
#define REQUESTS_GPA 0x20000u
#define IMAGE_GPA 0x400000u
#define IMAGE_BYTES (64 * PAGE)
#define TOTAL_GPA (IMAGE_GPA + IMAGE_BYTES)
#define DOORBELL 0x510
#define KICK SIGUSR1
#define CPUID_MAX 256

/* What the guest asks of the device: a table of these, one after the other. */
enum op { OP_STAMP, OP_WRITE, OP_READ, OP_NOTHING, OP_PRINT, OP_POWER_OFF };
struct request {
	uint32_t done; /* set by the device */
	uint32_t op;
	uint64_t gpa, bytes, at; /* at: where on the disk */
};

static const struct request requests[] = {
	/* Words 0, 2, 4, … of 16 pages get their number added. */
	{0, OP_STAMP, IMAGE_GPA, 16 * PAGE, 0},
	/* Half of those, and what nobody has touched, go to the disk and come back elsewhere. */
	{0, OP_WRITE, IMAGE_GPA + 8 * PAGE, 24 * PAGE, PAGE},
	{0, OP_READ, IMAGE_GPA + 32 * PAGE + 512, 20 * PAGE, 2 * PAGE + 1024},
	{0, OP_NOTHING, IMAGE_GPA, IMAGE_BYTES, 0},
	{0, OP_PRINT, TOTAL_GPA, 8, 0},
	{0, OP_POWER_OFF, TOTAL_GPA, 8, 0},
};

/* At CPL 3: asks, waits, and adds up what the request was about; for ever. */
static const unsigned char guest[] = {
	0xbb, 0x00, 0x00, 0x02, 0x00, /*       mov ebx, REQUESTS_GPA  */
	0xbd, 0x00, 0x00, 0x44, 0x00, /*       mov ebp, TOTAL_GPA     */
	0xba, 0x10, 0x05, 0x00, 0x00, /*       mov edx, DOORBELL      */
	0x31, 0xff,                   /*       xor edi, edi           */
	0x89, 0xd8,                   /* next: mov eax, ebx           */
	0xef,                         /*       out dx, eax            */
	0xf3, 0x90,                   /* wait: pause                  */
	0x83, 0x3b, 0x01,             /*       cmp [rbx].done, 1      */
	0x75, 0xf9,                   /*       jne wait               */
	0x48, 0x8b, 0x73, 0x08,       /*       mov rsi, [rbx].gpa     */
	0x48, 0x8b, 0x4b, 0x10,       /*       mov rcx, [rbx].bytes   */
	0x48, 0x03, 0x3e,             /* sum:  add rdi, [rsi]         */
	0x48, 0x83, 0xc6, 0x08,       /*       add rsi, 8             */
	0x48, 0x83, 0xe9, 0x08,       /*       sub rcx, 8             */
	0x75, 0xf3,                   /*       jnz sum                */
	0x48, 0x89, 0x7d, 0x00,       /*       mov [rbp], rdi         */
	0x83, 0xc3, 0x20,             /*       add ebx, 32            */
	0xeb, 0xd8,                   /*       jmp next               */
};

struct vm {
	int kvm, fd, vcpu_fd;
	int memfd;
	unsigned char *ram;
	struct kvm_run *run;
	pthread_t vcpu_thread;
	int doorbell[2]; /* a pipe from the vCPU's thread to the device's */
	int disk;
	int off, failed;  /* atomic: the guest's machine is off; why */
	int asked, stop;  /* atomic: what kicks are for */
	sem_t sampled;
	struct kvm_regs sample;
};

static __attribute__((noreturn)) void die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static int call(int fd, unsigned long request, void *arg, const char *what)
{
	int rc = ioctl(fd, request, arg);

	if (rc < 0)
		die(what, strerror(errno));
	return rc;
}

/* ---- kicks ---- */

static __thread struct kvm_run *own_run;

/* A kick that comes just before KVM_RUN makes that return at once. */
static void kicked(int sig)
{
	(void)sig;
	if (own_run)
		own_run->immediate_exit = 1;
}

static void kick(struct vm *vm)
{
	pthread_kill(vm->vcpu_thread, KICK);
}

static int taken(int *flag)
{
	return __atomic_exchange_n(flag, 0, __ATOMIC_SEQ_CST);
}

static void set(int *flag)
{
	__atomic_store_n(flag, 1, __ATOMIC_SEQ_CST);
}

static int is_set(int *flag)
{
	return __atomic_load_n(flag, __ATOMIC_SEQ_CST);
}

/* ---- the device ---- */

/* Guest memory as devices see it: an array. NULL: the guest's mistake. */
static void *guest_memory(struct vm *vm, uint64_t gpa, uint64_t bytes)
{
	if (gpa > RAM_BYTES || bytes > RAM_BYTES - gpa || gpa % 8)
		return NULL;
	return vm->ram + gpa;
}

static int stamp(uint64_t *words, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes / 8; i += 2)
		words[i] += i;
	return 0;
}

static int disk_write(struct vm *vm, struct io_uring *ring, const void *from, uint64_t bytes,
		      uint64_t at)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int res;

	io_uring_prep_write(sqe, vm->disk, from, (unsigned)bytes, at);
	if (io_uring_submit_and_wait(ring, 1) < 0 || io_uring_wait_cqe(ring, &cqe) < 0)
		return -1;
	res = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return res == (int)bytes ? 0 : -1;
}

/* Into two buffers, as a guest's requests come in pieces. */
static int disk_read(struct vm *vm, unsigned char *to, uint64_t bytes, uint64_t at)
{
	struct iovec iov[2];

	iov[0].iov_base = to;
	iov[0].iov_len = bytes / 2;
	iov[1].iov_base = to + bytes / 2;
	iov[1].iov_len = bytes - bytes / 2;
	return preadv(vm->disk, iov, 2, (off_t)at) == (ssize_t)bytes ? 0 : -1;
}

static int serve(struct vm *vm, struct io_uring *ring, const struct request *r)
{
	void *memory = guest_memory(vm, r->gpa, r->bytes);

	if (!memory)
		return -1;
	switch (r->op) {
	case OP_STAMP:
		return stamp((uint64_t *)memory, r->bytes);
	case OP_WRITE:
		return disk_write(vm, ring, memory, r->bytes, r->at);
	case OP_READ:
		return disk_read(vm, (unsigned char *)memory, r->bytes, r->at);
	case OP_NOTHING:
		return 0;
	case OP_PRINT:
		printf("%016llx\n", *(unsigned long long *)memory);
		return 0;
	default:
		return -1;
	}
}

/* Until the guest switches its machine off, or asks for what cannot be done. */
static void *device_thread(void *arg)
{
	struct vm *vm = (struct vm *)arg;
	struct request *r = NULL;
	struct io_uring ring;
	uint32_t gpa;

	if (io_uring_queue_init(8, &ring, 0) < 0)
		die("device", "io_uring");
	while (read(vm->doorbell[0], &gpa, sizeof(gpa)) == sizeof(gpa)) {
		r = (struct request *)guest_memory(vm, gpa, sizeof(*r));
		if (!r || serve(vm, &ring, r) < 0)
			break;
		__atomic_store_n(&r->done, 1, __ATOMIC_RELEASE);
	}
	if (!r || r->op != OP_POWER_OFF)
		set(&vm->failed);
	io_uring_queue_exit(&ring);
	set(&vm->off);
	return NULL;
}

static void open_device(struct vm *vm)
{
	vm->disk = memfd_create("disk", MFD_CLOEXEC);
	if (vm->disk < 0 || pipe(vm->doorbell) < 0)
		die("device", strerror(errno));
}

/* ---- the machine ---- */

static void open_machine(struct vm *vm)
{
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		die("/dev/kvm", strerror(errno));
	vm->fd = call(vm->kvm, KVM_CREATE_VM, NULL, "VM");
}

/* From the file, at once. */
static void load_image(struct vm *vm, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t have = 0;
	ssize_t n = 1;

	while (fd >= 0 && n > 0 && have < IMAGE_BYTES) {
		n = read(fd, vm->ram + IMAGE_GPA + have, IMAGE_BYTES - have);
		have += n > 0 ? (size_t)n : 0;
	}
	if (fd < 0 || n < 0)
		die(path, strerror(errno));
	close(fd);
}

static void open_memory(struct vm *vm, const char *path)
{
	struct kvm_userspace_memory_region slot = {};

	vm->memfd = memfd_create("ram", MFD_CLOEXEC);
	if (vm->memfd < 0 || ftruncate(vm->memfd, RAM_BYTES) < 0)
		die("guest memory", strerror(errno));
	vm->ram = (unsigned char *)mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
					vm->memfd, 0);
	if (vm->ram == MAP_FAILED)
		die("guest memory", strerror(errno));
	slot.memory_size = RAM_BYTES;
	slot.userspace_addr = (uintptr_t)vm->ram;
	load_image(vm, path);
	call(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot, "memory slot");
	call(vm->fd, KVM_CREATE_IRQCHIP, NULL, "interrupt controllers");
}

/* Page tables for user mode, the guest's code and its requests. */
static void load_guest(struct vm *vm)
{
	uint64_t *tables = (uint64_t *)(vm->ram + TABLES_GPA);

	memset(vm->ram, 0, PAGE); /* where the task state segment begins */
	tables[0] = (TABLES_GPA + PAGE) | 0x27;
	tables[512] = (TABLES_GPA + 2 * PAGE) | 0x27;
	for (uint64_t i = 0; i < RAM_BYTES >> 21; i++)
		tables[1024 + i] = i << 21 | 0xe7;
	memcpy(vm->ram + CODE_GPA, guest, sizeof(guest));
	memcpy(vm->ram + REQUESTS_GPA, requests, sizeof(requests));
}

/* ---- the vCPU ---- */

static void set_cpuid(struct vm *vm)
{
	struct kvm_cpuid2 *c = (struct kvm_cpuid2 *)calloc(1, sizeof(*c) +
							   CPUID_MAX * sizeof(c->entries[0]));

	if (!c)
		die("CPUID", strerror(errno));
	c->nent = CPUID_MAX;
	call(vm->kvm, KVM_GET_SUPPORTED_CPUID, c, "CPUID");
	call(vm->vcpu_fd, KVM_SET_CPUID2, c, "CPUID");
	free(c);
}

static struct kvm_segment segment(unsigned char type, unsigned short selector)
{
	struct kvm_segment s = {};

	s.limit = ~0u;
	s.selector = selector;
	s.type = type;
	s.present = s.s = s.g = 1;
	s.dpl = 3;
	return s;
}

/* User mode in 64 bits, which may use ports. */
static void set_registers(struct vm *vm)
{
	struct kvm_sregs s;
	struct kvm_regs r = {};

	call(vm->vcpu_fd, KVM_GET_SREGS, &s, "segments");
	s.cs = segment(11, 0x2b);
	s.cs.l = 1;
	s.ss = segment(3, 0x33);
	s.ss.db = 1;
	s.ds = s.es = s.fs = s.gs = s.ss;
	s.cr3 = TABLES_GPA;
	s.cr4 = 0x6a0;
	s.cr0 = 0x80050033;
	s.efer = 0xd00;
	call(vm->vcpu_fd, KVM_SET_SREGS, &s, "segments");
	r.rip = CODE_GPA;
	r.rflags = 0x3002;
	call(vm->vcpu_fd, KVM_SET_REGS, &r, "registers");
}

static void open_vcpu(struct vm *vm)
{
	size_t bytes = (size_t)call(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "vCPU");

	vm->vcpu_fd = call(vm->fd, KVM_CREATE_VCPU, NULL, "vCPU");
	vm->run = (struct kvm_run *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
					 vm->vcpu_fd, 0);
	if (vm->run == MAP_FAILED)
		die("vCPU", strerror(errno));
	set_cpuid(vm);
	set_registers(vm);
}

static void port(struct vm *vm)
{
	const struct kvm_run *run = vm->run;
	const void *data = (const char *)run + run->io.data_offset;

	if (run->io.direction == KVM_EXIT_IO_OUT && run->io.port == DOORBELL && run->io.size == 4 &&
	    write(vm->doorbell[1], data, 4) != 4)
		die("doorbell", strerror(errno));
}

/* Where the guest is: what a VMM's other threads want a vCPU to stop for. */
static void take_sample(struct vm *vm)
{
	call(vm->vcpu_fd, KVM_GET_REGS, &vm->sample, "registers");
	sem_post(&vm->sampled);
}

static void *vcpu_thread(void *arg)
{
	struct vm *vm = (struct vm *)arg;

	own_run = vm->run;
	while (!is_set(&vm->stop)) {
		if (taken(&vm->asked))
			take_sample(vm);
		if (ioctl(vm->vcpu_fd, KVM_RUN, NULL) < 0) {
			if (errno != EINTR && errno != EAGAIN)
				die("KVM_RUN", strerror(errno));
			vm->run->immediate_exit = 0;
			continue;
		}
		switch (vm->run->exit_reason) {
		case KVM_EXIT_IO:
			port(vm);
			break;
		case KVM_EXIT_INTR:
			break;
		default:
			fprintf(stderr, "exit %u\n", vm->run->exit_reason);
			die("vCPU", "it cannot go on");
		}
	}
	return NULL;
}

/* ---- all of it ---- */

/* Each kick brings the vCPU back. At least 20 times, also after the guest has nothing to do. */
static void watch(struct vm *vm)
{
	unsigned samples = 0;

	for (unsigned left = 20; left > 0; left -= is_set(&vm->off)) {
		usleep(500);
		set(&vm->asked);
		kick(vm);
		while (sem_wait(&vm->sampled) < 0)
			;
		if (vm->sample.rip < CODE_GPA || vm->sample.rip >= CODE_GPA + sizeof(guest))
			die("guest", "not where it should be");
		samples++;
	}
	fprintf(stderr, "%u samples\n", samples);
	set(&vm->stop);
	kick(vm);
}

int main(int argc, char **argv)
{
	struct sigaction sa = {};
	pthread_t device;
	struct vm vm = {};

	if (argc != 2) {
		fprintf(stderr, "usage: %s IMAGE\n", argv[0]);
		return 2;
	}
	sa.sa_handler = kicked;
	sigaction(KICK, &sa, NULL);
	sem_init(&vm.sampled, 0, 0);
	open_machine(&vm);
	open_memory(&vm, argv[1]);
	load_guest(&vm);
	open_device(&vm);
	open_vcpu(&vm);
	if (pthread_create(&vm.vcpu_thread, NULL, vcpu_thread, &vm) != 0 ||
	    pthread_create(&device, NULL, device_thread, &vm) != 0)
		die("threads", "no more of them");
	watch(&vm);
	pthread_join(device, NULL);
	pthread_join(vm.vcpu_thread, NULL);
	if (vm.failed)
		die("device", "a request that it cannot serve");
	return 0;
}
