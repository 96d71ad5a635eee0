/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See load_pvh.h. Facts: Xen's docs/misc/pvh.pandoc (state at entry),
 * xen/include/public/arch-x86/hvm/start_info.h (the structures) and public/elfnote.h.
 */
#include <errno.h>

#include "vmm/boot/load_parts.h"
#include "vmm/boot/load_pvh.h"
#include "vmm/memory/bytes.h"

#define NOTE_OWNER "Xen"
#define NOTE_PHYS32_ENTRY 18

#define INFO_MAGIC 0x336ec578
#define INFO_VERSION 1 /* the first with a memory map */
#define INFO_BYTES 56
#define INFO_MODULE_BYTES 32
#define INFO_RANGE_BYTES 24

/* Within the page at LOAD_INFO_GPA. */
#define RANGES_AT 64
#define MODULES_AT (RANGES_AT + LOAD_RANGES_MAX * INFO_RANGE_BYTES)

_Static_assert(MODULES_AT + LOAD_MODULES_MAX * INFO_MODULE_BYTES <= PAGE_BYTES, "one page");

bool pvh_is(const struct elf *f)
{
	const unsigned char *desc;
	size_t len;

	return elf_note(f, NOTE_OWNER, NOTE_PHYS32_ENTRY, &desc, &len);
}

static int entry_of(const struct elf *f, uint64_t *ret, struct err *e)
{
	const unsigned char *desc;
	size_t len;

	if (!elf_note(f, NOTE_OWNER, NOTE_PHYS32_ENTRY, &desc, &len))
		return err_set(e, -ENOEXEC, "%s: PVH kernel without an entry point", f->name);
	/* Linux writes the address as wide as its pointers. */
	if (len != 4 && len != 8)
		return err_set(e, -ENOEXEC, "%s: PVH kernel whose entry point has %zu bytes, not 4 "
			       "or 8", f->name, len);
	*ret = len == 4 ? get32(desc, 0) : get64(desc, 0);
	if (*ret < f->lo || *ret >= f->hi)
		return err_set(e, -ENOEXEC, "%s: PVH kernel whose entry point %#llx is not in it "
			       "(%#llx to %#llx)", f->name, (unsigned long long)*ret,
			       (unsigned long long)f->lo, (unsigned long long)f->hi);
	return 0;
}

static int put_modules(const struct load_cfg *c, const struct elf *f, unsigned char *info,
		       struct load_strings *strings, struct load_result *ret, struct err *e)
{
	uint64_t starts[LOAD_MODULES_MAX] = {0};
	int rc = load_put_modules(c, f->hi, c->mem->low_bytes, starts, ret, e);

	for (unsigned i = 0; rc == 0 && i < c->modules_count; i++) {
		size_t at = MODULES_AT + i * (size_t)INFO_MODULE_BYTES;

		put64(info, at, starts[i]);
		put64(info, at + 8, c->modules[i].len);
		put64(info, at + 16, strings->at);
		rc = load_put_string(c, strings, c->modules[i].name, "", e);
	}
	return rc;
}

static void put_info(const struct load_cfg *c, unsigned char *info)
{
	struct load_range map[LOAD_RANGES_MAX];
	unsigned n = load_map(c->mem, map);

	put32(info, 0, INFO_MAGIC);
	put32(info, 4, INFO_VERSION);
	put32(info, 12, c->modules_count);
	put64(info, 16, c->modules_count ? LOAD_INFO_GPA + MODULES_AT : 0);
	put64(info, 24, LOAD_STRINGS_GPA);
	put64(info, 32, c->acpi_rsdp.v);
	put64(info, 40, LOAD_INFO_GPA + RANGES_AT);
	put32(info, 48, n);
	for (unsigned i = 0; i < n; i++) {
		size_t at = RANGES_AT + i * (size_t)INFO_RANGE_BYTES;

		put64(info, at, map[i].base);
		put64(info, at + 8, map[i].bytes);
		put32(info, at + 16, map[i].type);
	}
}

int pvh_load(const struct load_cfg *c, const struct elf *f, struct load_result *ret,
	     struct err *e)
{
	unsigned char info[PAGE_BYTES] = {0};
	struct load_strings strings = LOAD_STRINGS;
	uint64_t entry = 0;
	int rc = entry_of(f, &entry, e);

	if (rc == 0)
		rc = elf_load_within(f, c->mem, LOAD_KERNEL_MIN, c->mem->low_bytes, e);
	if (rc == 0)
		rc = load_put_string(c, &strings, "", c->cmdline ? c->cmdline : "", e);
	put_info(c, info);
	if (rc == 0)
		rc = put_modules(c, f, info, &strings, ret, e);
	if (rc < 0)
		return rc;
	load_put(c, LOAD_INFO_GPA, info, sizeof(info));
	ret->kind = LOAD_PVH;
	ret->kernel_start = f->lo;
	ret->kernel_end = f->hi;
	ret->entry = (struct kvmp_entry){
		.mode = KVMP_PROTECTED,
		.rip = entry,
		.rbx = LOAD_INFO_GPA,
		.rsp = LOAD_STACK_GPA,
	};
	load_put_gdt(c, LOAD_GDT_GPA, &ret->entry);
	return 0;
}
