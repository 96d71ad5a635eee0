/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the kernel loaders. The first byte chooses the machine: bits 0-2 its
 * memory, bits 3-4 how many modules, bit 5 memory above 4 GiB, bit 6 no command line; the
 * rest is the kernel file. A write outside RAM, or a result that does not fit, ends the
 * program. With libFuzzer: clang -fsanitize=fuzzer,address,undefined; without: replay.c.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/boot/load.h"
#include "vmm/boot/load_parts.h"

#define RAM_MAX (8u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_result(const struct load_result *r, uint64_t ram)
{
	/* A multiboot kernel may lie in base memory, above what a BIOS has there. */
	uint64_t lowest = r->kind == LOAD_MULTIBOOT ? 0x500 : LOAD_KERNEL_MIN;

	if (r->kernel_start < lowest || r->kernel_start >= r->kernel_end ||
	    r->kernel_end > ram || r->entry.rip < r->kernel_start ||
	    r->entry.rip >= r->kernel_end)
		abort();
	if (r->modules_end && (r->modules_start < r->kernel_end ||
			       r->modules_end > ram || r->modules_end <= r->modules_start))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const unsigned char module[5000] = {1};
	/* Guest memory is its end, whatever its size: a sanitizer sees what goes beyond. */
	static unsigned char arena[RAM_MAX];
	struct load_result r;
	uint64_t ram;
	struct err e;

	if (size == 0)
		return 0;
	ram = (uint64_t)(1 + (data[0] & 7)) << 20;
	struct guest_mem mem = {
		.low = arena + RAM_MAX - ram,
		.low_bytes = ram,
		.high_bytes = data[0] & 0x20 ? 1ull << 30 : 0,
	};
	struct load_cfg cfg = {
		.mem = &mem,
		.kernel = {.name = "k", .bytes = data + 1, .len = size - 1},
		.modules_count = data[0] >> 3 & 3,
		.cmdline = data[0] & 0x40 ? NULL : "console=ttyS0",
	};
	for (unsigned i = 0; i < cfg.modules_count; i++)
		cfg.modules[i] = (struct load_bytes){"m", module, sizeof(module) - i * 1000};
	if (load_kernel(&cfg, &r, &e) == 0)
		check_result(&r, ram);
	else if (e.code >= 0 || strlen(e.text) == 0)
		abort();
	return 0;
}
