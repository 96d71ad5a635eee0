/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole VMM around libasyncpf: a guest whose memory is a file, or another source, that is
 * read page by page when the guest touches it. Everything that is not KVM as usual is marked "apf".
 *
 *     minimal SOURCE      adds up the first byte of each of its first 16 pages
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <asyncpf/asyncpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define CODE_GPA 0x1000
#define DATA_GPA 0x10000
#define DATA_BYTES 0x10000

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

static int fail(const char *what, const struct apf_error *e)
{
	fprintf(stderr, "minimal: %s: %s\n", what, e ? e->text : strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	struct apf_config config;
	struct apf_error error;
	struct apf *apf;
	struct apf_vcpu *vcpu;

	if (argc != 2) {
		fprintf(stderr, "usage: minimal SOURCE\n");
		return 2;
	}

	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);

	if (vm < 0)
		return fail("/dev/kvm", NULL);

	/* apf: guest memory, and what stands behind it. */
	apf_config_init(&config);
	if (apf_open(vm, &config, &apf, &error) < 0 ||
	    apf_memory_add(apf, 0, 2 << 20, &error) < 0 ||
	    apf_source_add(apf, DATA_GPA, DATA_BYTES, argv[1], 0, NULL, &error) < 0 ||
	    apf_start(apf, &error) < 0)
		return fail("memory", &error);
	if (apf_write(apf, CODE_GPA, guest, sizeof(guest)) < 0)
		return fail("guest code", NULL);

	struct kvm_userspace_memory_region slot = {};

	slot.memory_size = 2 << 20;
	slot.userspace_addr = (unsigned long)apf_memory_hva(apf, 0); /* apf */
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0 ||
	    ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0)
		return fail("memory slot, interrupt controllers", NULL);

	int fd = ioctl(vm, KVM_CREATE_VCPU, 0);
	size_t run_bytes = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run = (struct kvm_run *)mmap(NULL, run_bytes, PROT_READ | PROT_WRITE,
						     MAP_SHARED, fd, 0);
	struct kvm_regs regs = {};
	struct kvm_sregs sregs;

	if (run == MAP_FAILED || ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
		return fail("vCPU", NULL);
	regs.rip = CODE_GPA;
	regs.rflags = 2;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(fd, KVM_SET_REGS, &regs) < 0)
		return fail("registers", NULL);
	/* A guest with an operating system also needs apf_cpuid_features() in its CPUID. */

	/* apf: the vCPU, and the loop with apf_vcpu_run() where ioctl(KVM_RUN) would be. */
	if (apf_vcpu_attach(apf, 0, fd, run, 0, &vcpu, &error) < 0)
		return fail("vCPU", &error);
	for (;;) {
		int rc = apf_vcpu_run(vcpu);

		if (rc == -EINTR)
			continue;
		if (rc < 0 || run->exit_reason != KVM_EXIT_IO)
			return fail("unexpected exit", NULL);
		break;
	}
	printf("%u\n", *(unsigned short *)(void *)((char *)run + run->io.data_offset));
	apf_close(apf);
	return 0;
}
