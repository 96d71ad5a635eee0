/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every Debian kernel file that lies in the cache folder (the lab puts them there): the
 * loader takes it whole, puts it where Linux wants to be, and refuses it cut short.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vmm/boot/load.h"
#include "vmm/boot/load_file.h"
#include "vmm/boot/load_parts.h"
#include "vmm/memory/bytes.h"

#define RAM_BYTES (512ull << 20)
#define INITRD_BYTES (20u << 20)
#define KERNELS_MAX 8

static struct {
	char *paths[KERNELS_MAX];
	unsigned count;
} found;

static void check_kernel(const char *path)
{
	unsigned char *ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned char *initrd = calloc(1, INITRD_BYTES);
	struct guest_mem mem = {.low = ram, .low_bytes = RAM_BYTES};
	struct load_cfg c = {.mem = &mem, .cmdline = "console=ttyS0"};
	struct load_result r;
	struct err e;
	size_t whole, code;

	assert_true(ram != MAP_FAILED && initrd);
	if (load_file_read(path, "kernel", LOAD_KERNEL_BYTES_MAX, &c.kernel, &e) < 0)
		fail_msg("%s", e.text);
	c.modules[0] = (struct load_bytes){"initrd", initrd, INITRD_BYTES};
	c.modules_count = 1;
	if (load_kernel(&c, &r, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(r.kind, LOAD_BZIMAGE);
	assert_int_equal(r.kernel_start, 16 << 20);
	assert_true(r.kernel_end - r.kernel_start > c.kernel.len);
	assert_int_equal(r.entry.rip, r.kernel_start + 0x200);
	assert_int_equal(r.modules_end, RAM_BYTES);
	assert_memory_equal(ram + LOAD_INFO_GPA + 0x202, "HdrS", 4);
	code = (c.kernel.bytes[0x1f1] + 1u) * 512;
	whole = code + get32(c.kernel.bytes, 0x1f4) * (size_t)16;
	assert_memory_equal(ram + r.kernel_start, c.kernel.bytes + code, whole - code);

	/* Its length is told in units of 16 bytes. */
	c.kernel.len = whole - 16;
	assert_int_equal(load_kernel(&c, &r, &e), -ENOEXEC);
	assert_non_null(strstr(e.text, "bzImage cut short"));
	c.kernel.len = whole;
	mem.low_bytes = 32 << 20;
	assert_int_equal(load_kernel(&c, &r, &e), -ENOMEM);
	print_message("%s: %zu bytes: fine\n", path, whole);
	load_file_free(&c.kernel);
	free(initrd);
	munmap(ram, RAM_BYTES);
}

static void test_kernels(void **state)
{
	(void)state;
	for (unsigned i = 0; i < found.count; i++) {
		check_kernel(found.paths[i]);
		free(found.paths[i]);
	}
}

static int visit(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	if (type == FTW_F && strncmp(path + at->base, "vmlinuz", 7) == 0 &&
	    found.count < KERNELS_MAX)
		found.paths[found.count++] = strdup(path);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_kernels)};

	if (argc != 2)
		return 2;
	nftw(argv[1], visit, 8, FTW_PHYS);
	if (found.count == 0) {
		printf("SKIP: no vmlinuz* in %s; tools/lab fetches one\n", argv[1]);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
