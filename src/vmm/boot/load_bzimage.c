/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See load_bzimage.h. Facts: Documentation/arch/x86/boot.rst (the setup header, loading the
 * rest of the kernel, 64-bit boot protocol) and Documentation/arch/x86/zero-page.rst.
 */
#include <errno.h>

#include "vmm/boot/load_bzimage.h"
#include "vmm/boot/load_parts.h"
#include "vmm/memory/bytes.h"

/* The setup header, at the same offsets in the file and in the zero page. */
#define HDR_START 0x1f1
#define HDR_SETUP_SECTS 0x1f1
#define HDR_SYSSIZE 0x1f4 /* in paragraphs */
#define PARAGRAPH_BYTES ((size_t)16)
#define HDR_VID_MODE 0x1fa
#define HDR_BOOT_FLAG 0x1fe
#define HDR_JUMP_LEN 0x201 /* the header ends this many bytes behind 0x202 */
#define HDR_MAGIC 0x202
#define HDR_VERSION 0x206
#define HDR_TYPE_OF_LOADER 0x210
#define HDR_LOADFLAGS 0x211
#define HDR_CODE32_START 0x214
#define HDR_RAMDISK_IMAGE 0x218
#define HDR_RAMDISK_SIZE 0x21c
#define HDR_CMD_LINE_PTR 0x228
#define HDR_INITRD_ADDR_MAX 0x22c
#define HDR_KERNEL_ALIGNMENT 0x230
#define HDR_RELOCATABLE 0x234
#define HDR_XLOADFLAGS 0x236
#define HDR_CMDLINE_SIZE 0x238
#define HDR_SETUP_DATA 0x250
#define HDR_PREF_ADDRESS 0x258
#define HDR_INIT_SIZE 0x260
#define HDR_END_MIN 0x264 /* the last field that we need ends here */
#define HDR_END_MAX 0x290 /* other things of the zero page begin here */

#define BOOT_FLAG 0xaa55
#define VERSION_MIN 0x20c /* 2.12: the first with xloadflags */
#define LOADFLAG_HIGH 0x01
#define XLOADFLAG_KERNEL_64 0x01
#define LOADER_UNDEFINED 0xff
#define VID_MODE_NORMAL 0xffff
#define ENTRY_64 0x200 /* of the 64-bit entry point behind the start of the kernel */

/* Other fields of the zero page. */
#define ZP_ACPI_RSDP 0x070
#define ZP_E820_COUNT 0x1e8
#define ZP_E820 0x2d0
#define E820_BYTES 20

#define ALIGNMENT_MAX (1ull << 30)

/* What the header says, checked. */
struct bzimage {
	const unsigned char *h; /* the file */
	size_t header_end;
	size_t code; /* where the part to load begins in the file */
	size_t code_bytes;
	uint64_t load_at;
	uint64_t need_bytes; /* memory that the kernel uses from load_at on */
};

bool bzimage_is(const unsigned char *bytes, size_t len)
{
	return len >= HDR_MAGIC + 4 && get16(bytes, HDR_BOOT_FLAG) == BOOT_FLAG &&
	       memcmp(bytes + HDR_MAGIC, "HdrS", 4) == 0;
}

static int check_header(const struct load_cfg *c, struct bzimage *b, struct err *e)
{
	const char *name = c->kernel.name;
	const unsigned char *h = c->kernel.bytes;
	size_t len = c->kernel.len;

	if (len < HDR_END_MIN)
		return err_set(e, -ENOEXEC, "%s: bzImage cut short within its header: %zu bytes",
			       name, len);
	b->header_end = HDR_MAGIC + h[HDR_JUMP_LEN];
	if (get16(h, HDR_VERSION) < VERSION_MIN)
		return err_set(e, -ENOEXEC, "%s: bzImage of boot protocol %u.%02u; at least 2.12 "
			       "(Linux 3.8) is needed", name, h[HDR_VERSION + 1], h[HDR_VERSION]);
	if (b->header_end < HDR_END_MIN || b->header_end > HDR_END_MAX || b->header_end > len)
		return err_set(e, -ENOEXEC, "%s: bzImage whose header ends at %#zx, not from %#x "
			       "to %#x", name, b->header_end, HDR_END_MIN, HDR_END_MAX);
	if (!(h[HDR_LOADFLAGS] & LOADFLAG_HIGH))
		return err_set(e, -ENOEXEC, "%s: zImage, which loads below 1 MiB; a bzImage is "
			       "needed", name);
	if (!(get16(h, HDR_XLOADFLAGS) & XLOADFLAG_KERNEL_64))
		return err_set(e, -ENOEXEC, "%s: bzImage without a 64-bit entry point; a 64-bit "
			       "kernel is needed", name);
	b->h = h;
	/* 0 means 4 (boot.rst, setup_sects). */
	b->code = ((h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : 4u) + 1u) * 512;
	/* What follows in the file, a signature for example, is not loaded. */
	b->code_bytes = get32(h, HDR_SYSSIZE) * PARAGRAPH_BYTES;
	if (b->code_bytes <= ENTRY_64)
		return err_set(e, -ENOEXEC, "%s: bzImage with only %zu bytes of code", name,
			       b->code_bytes);
	/* Whole paragraphs: a file need not fill its last one (memtest86+). */
	if (b->code > len || align_up(len - b->code, PARAGRAPH_BYTES) < b->code_bytes)
		return err_set(e, -ENOEXEC, "%s: bzImage cut short: %zu bytes of %zu", name, len,
			       b->code + b->code_bytes);
	b->code_bytes = min_u64(b->code_bytes, len - b->code);
	return 0;
}

static int place(const struct load_cfg *c, struct bzimage *b, struct err *e)
{
	const char *name = c->kernel.name;
	uint64_t align = get32(b->h, HDR_KERNEL_ALIGNMENT);
	uint64_t pref = get64(b->h, HDR_PREF_ADDRESS);
	uint64_t ram = c->mem->low_bytes;

	if (b->h[HDR_RELOCATABLE] && (!is_pow2(align) || align > ALIGNMENT_MAX))
		return err_set(e, -ENOEXEC, "%s: bzImage that asks for an alignment of %#llx", name,
			       (unsigned long long)align);
	b->need_bytes = max_u64(get32(b->h, HDR_INIT_SIZE), b->code_bytes);
	b->load_at = pref;
	if (pref < LOAD_KERNEL_MIN && !b->h[HDR_RELOCATABLE])
		return err_set(e, -ENOEXEC, "%s: bzImage for address %#llx, below 1 MiB", name,
			       (unsigned long long)pref);
	/* A relocatable kernel below its preferred address would move itself up to it. */
	if (b->h[HDR_RELOCATABLE] && pref <= GUEST_HOLE_GPA)
		b->load_at = align_up(max_u64(pref, LOAD_KERNEL_MIN), max_u64(align, PAGE_BYTES));
	if (b->load_at > ram || ram - b->load_at < b->need_bytes)
		return err_set(e, -ENOMEM, "%s: bzImage that needs %llu MiB at %#llx; the guest's "
			       "memory below 4 GiB ends at %#llx", name,
			       (unsigned long long)(b->need_bytes + (1 << 20) - 1) >> 20,
			       (unsigned long long)b->load_at, (unsigned long long)ram);
	return 0;
}

static int put_initrd(const struct load_cfg *c, const struct bzimage *b, unsigned char *zp,
		      struct load_result *ret, struct err *e)
{
	/* initrd_addr_max is the last byte that may be used. */
	uint64_t end = (uint64_t)get32(b->h, HDR_INITRD_ADDR_MAX) + 1;
	uint64_t starts[LOAD_MODULES_MAX] = {0};
	int rc;

	if (c->modules_count > 1)
		return err_set(e, -EINVAL, "%s: a bzImage takes one initrd, not %u",
			       c->kernel.name, c->modules_count);
	rc = load_put_modules(c, b->load_at + b->need_bytes, end, starts, ret, e);
	if (rc == 0 && c->modules_count) {
		/* Both fit: guest memory that is used here ends below 4 GiB. */
		put32(zp, HDR_RAMDISK_IMAGE, (uint32_t)starts[0]);
		put32(zp, HDR_RAMDISK_SIZE, (uint32_t)c->modules[0].len);
	}
	return rc;
}

static int put_cmdline(const struct load_cfg *c, const struct bzimage *b, unsigned char *zp,
		       struct err *e)
{
	const char *line = c->cmdline ? c->cmdline : "";
	struct load_strings strings = LOAD_STRINGS;

	if (strlen(line) > get32(b->h, HDR_CMDLINE_SIZE))
		return err_set(e, -E2BIG, "%s: command line of %zu bytes; this bzImage takes %u",
			       c->kernel.name, strlen(line), get32(b->h, HDR_CMDLINE_SIZE));
	put32(zp, HDR_CMD_LINE_PTR, LOAD_STRINGS_GPA);
	return load_put_string(c, &strings, "", line, e);
}

static void put_e820(const struct load_cfg *c, unsigned char *zp)
{
	struct load_range map[LOAD_RANGES_MAX];
	unsigned n = load_map(c->mem, map);

	zp[ZP_E820_COUNT] = (unsigned char)n;
	for (unsigned i = 0; i < n; i++) {
		size_t at = ZP_E820 + i * (size_t)E820_BYTES;

		put64(zp, at, map[i].base);
		put64(zp, at + 8, map[i].bytes);
		put32(zp, at + 16, map[i].type);
	}
}

int bzimage_load(const struct load_cfg *c, struct load_result *ret, struct err *e)
{
	unsigned char zp[PAGE_BYTES] = {0}; /* zeroes but for what is said below (boot.rst) */
	struct bzimage b = {0};
	int rc = check_header(c, &b, e);

	if (rc == 0)
		rc = place(c, &b, e);
	if (rc < 0)
		return rc;
	memcpy(zp + HDR_START, b.h + HDR_START, b.header_end - HDR_START);
	zp[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	put16(zp, HDR_VID_MODE, VID_MODE_NORMAL);
	put32(zp, HDR_CODE32_START, (uint32_t)b.load_at);
	put32(zp, HDR_RAMDISK_IMAGE, 0);
	put32(zp, HDR_RAMDISK_SIZE, 0);
	put64(zp, HDR_SETUP_DATA, 0);
	put64(zp, ZP_ACPI_RSDP, c->acpi_rsdp.v);
	put_e820(c, zp);

	ret->kind = LOAD_BZIMAGE;
	ret->kernel_start = b.load_at;
	ret->kernel_end = b.load_at + b.need_bytes;
	ret->entry = (struct kvmp_entry){
		.mode = KVMP_LONG,
		.rip = b.load_at + ENTRY_64,
		.rsi = LOAD_INFO_GPA,
		.rsp = LOAD_STACK_GPA,
		.cr3 = {LOAD_PML4_GPA},
	};
	rc = put_cmdline(c, &b, zp, e);
	if (rc == 0)
		rc = put_initrd(c, &b, zp, ret, e);
	if (rc < 0)
		return rc;
	load_put(c, LOAD_INFO_GPA, zp, sizeof(zp));
	load_put_page_tables(c);
	load_put_gdt(c, LOAD_GDT_GPA, &ret->entry);
	load_put(c, b.load_at, b.h + b.code, b.code_bytes);
	return 0;
}
