/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels that a loader has loaded run on KVM: guests/multiboot, which uses each promise
 * made to small test kernels, and a few instructions in a bzImage, which use its registers,
 * descriptors and stack. Memory is plain here; no page is ever missing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm/kvm_uapi.h"
#include "need_kvm.h"
#include "kvm/vm.h"
#include "vmm/boot/load.h"
#include "vmm/chip/cpuid.h"
#include "vmm/memory/bytes.h"

#define RAM_BYTES (16ull << 20)
#define EXITS_MAX 200000u
#define CONSOLE_MAX 4096

/* Made by tools/embed from guests/multiboot. */
extern const unsigned char multiboot_elf[];
extern const size_t multiboot_elf_bytes;

enum ending { ENDED, SHUT_DOWN, LOST };

struct fix {
	unsigned char *ram;
	int kvm_fd, vm_fd, fd;
	struct kvm_run *run;
	struct guest_mem mem;
	struct load_cfg cfg;
	struct load_result loaded;
	char console[CONSOLE_MAX];
	size_t console_len;
	uint32_t value; /* written to the exit port */
	struct err err;
};

static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));
	struct kvm_cpuid2 *c = NULL;

	assert_non_null(x);
	x->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(x->ram != MAP_FAILED);
	x->mem = (struct guest_mem){.low = x->ram, .low_bytes = RAM_BYTES};
	x->cfg.mem = &x->mem;
	x->cfg.kernel = (struct load_bytes){"guests/multiboot.elf", multiboot_elf,
					    multiboot_elf_bytes};
	if (kvmp_vm_open(&x->kvm_fd, &x->vm_fd, &x->err) < 0 ||
	    kvmp_vm_memory(x->vm_fd, 0, (gpa_t){0}, RAM_BYTES, (hva_t){(uintptr_t)x->ram},
			   &x->err) < 0 ||
	    kvmp_vm_irqchip(x->vm_fd, &x->err) < 0 ||
	    kvmp_vcpu_open(x->kvm_fd, x->vm_fd, 0, &x->fd, &x->run, &x->err) < 0 ||
	    kvmp_cpuid_supported(x->kvm_fd, &c, &x->err) < 0)
		fail_msg("%s", x->err.text);
	cpuid_set_id(c, 0);
	if (kvmp_vcpu_set_cpuid(x->fd, 0, c, &x->err) < 0)
		fail_msg("%s", x->err.text);
	free(c);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fix *x = *state;

	kvmp_vcpu_close(x->kvm_fd, x->fd, x->run);
	close(x->vm_fd);
	close(x->kvm_fd);
	munmap(x->ram, RAM_BYTES);
	free(x);
	return 0;
}

/* True: the guest wrote its exit port. */
static bool port_access(struct fix *x)
{
	struct kvm_run *r = x->run;
	unsigned char *data = (unsigned char *)r + r->io.data_offset;

	if (r->io.direction == KVM_EXIT_IO_IN) {
		memset(data, r->io.port == 0x3fd ? 0x60 : 0xff, r->io.size * r->io.count);
		return false;
	}
	if (r->io.port == 0x3f8 && x->console_len < CONSOLE_MAX - 1)
		x->console[x->console_len++] = (char)data[0];
	if (r->io.port == 0xf4)
		memcpy(&x->value, data, r->io.size);
	return r->io.port == 0xf4;
}

static enum ending run(struct fix *x)
{
	if (load_kernel(&x->cfg, &x->loaded, &x->err) < 0 ||
	    kvmp_vcpu_enter(x->fd, &x->loaded.entry, &x->err) < 0)
		fail_msg("%s", x->err.text);
	for (unsigned i = 0; i < EXITS_MAX; i++) {
		int rc = ioctl(x->fd, KVM_RUN, 0);

		if (rc < 0 && errno == EINTR)
			continue;
		assert_int_equal(rc, 0);
		if (x->run->exit_reason == KVM_EXIT_SHUTDOWN)
			return SHUT_DOWN;
		if (x->run->exit_reason != KVM_EXIT_IO) {
			print_error("KVM exit %u; guest says: %s\n", x->run->exit_reason,
				    x->console);
			return LOST;
		}
		if (port_access(x))
			return ENDED;
	}
	return LOST;
}

static void said(const struct fix *x, const char *line)
{
	if (!strstr(x->console, line))
		print_error("expected \"%s\", guest says:\n%s", line, x->console);
	assert_non_null(strstr(x->console, line));
}

static void test_promises(void **state)
{
	struct fix *x = *state;
	unsigned char module[3000];
	uint32_t hash = 0x811c9dc5;
	char line[128];

	for (size_t i = 0; i < sizeof(module); i++) {
		module[i] = (unsigned char)(i * 31 + 5);
		hash = (hash ^ module[i]) * 0x01000193;
	}
	x->cfg.modules[0] = (struct load_bytes){"dir/mod", module, sizeof(module)};
	x->cfg.modules_count = 1;
	x->cfg.cmdline = "first  exit=42 last";
	assert_int_equal(run(x), ENDED);
	assert_int_equal(x->value, 42);
	said(x, "multiboot guest\nloader: asyncpf\n");
	said(x, "memory 0x0000000000000000 + 0x000000000009fc00 type 1\n");
	said(x, "memory 0x0000000000100000 + 0x0000000000f00000 type 1\n");
	snprintf(line, sizeof(line), "module 0: mod, 3000 bytes, checksum 0x%08x\n", hash);
	said(x, line);
	said(x, "argument 0: multiboot.elf\nargument 1: first\nargument 2: exit=42\n"
		"argument 3: last\nexit 42\n");
}

static void test_nothing_asked_for(void **state)
{
	struct fix *x = *state;

	assert_int_equal(run(x), ENDED);
	assert_int_equal(x->value, 0);
	said(x, "modules: 0\nargument 0: multiboot.elf\nexit 0\n");
}

static void test_triple_fault(void **state)
{
	struct fix *x = *state;

	x->cfg.cmdline = "crash";
	assert_int_equal(run(x), SHUT_DOWN);
	said(x, "argument 1: crash\n");
}

/* The least bzImage, whose code reads the zero page by RSI. */
static void test_64_bit_entry(void **state)
{
	static const unsigned char code[] = {
		0x66, 0xb8, 0x18, 0x00,                   /* mov $0x18, %ax */
		0x8e, 0xd8,                               /* mov %ax, %ds */
		0x6a, 0x10,                               /* push $0x10 */
		0x48, 0x8d, 0x05, 0x03, 0x00, 0x00, 0x00, /* lea 3(%rip), %rax */
		0x50,                                     /* push %rax */
		0x48, 0xcb,                               /* lretq */
		0x0f, 0xb7, 0x86, 0x06, 0x02, 0x00, 0x00, /* movzwl 0x206(%rsi), %eax */
		0x66, 0xba, 0xf4, 0x00,                   /* mov $0xf4, %dx */
		0xef,                                     /* out %eax, %dx */
	};
	static unsigned char image[1024 + 2048];
	struct fix *x = *state;

	image[0x1f1] = 1;
	put32(image, 0x1f4, 2048 / 16);
	put16(image, 0x1fe, 0xaa55);
	put16(image, 0x200, 0x6aeb);
	memcpy(image + 0x202, "HdrS", 4);
	put16(image, 0x206, 0x20f);
	image[0x211] = 1;
	put32(image, 0x22c, 0x7fffffff);
	put32(image, 0x230, 0x200000);
	image[0x234] = 1;
	put16(image, 0x236, 1);
	put32(image, 0x238, 2047);
	put64(image, 0x258, 0x200000);
	memcpy(image + 1024 + 0x200, code, sizeof(code));
	x->cfg.kernel = (struct load_bytes){"k", image, sizeof(image)};
	assert_int_equal(run(x), ENDED);
	assert_int_equal(x->loaded.kind, LOAD_BZIMAGE);
	assert_int_equal(x->value, 0x20f);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_promises),
		T(test_nothing_asked_for),
		T(test_triple_fault),
		T(test_64_bit_entry),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
