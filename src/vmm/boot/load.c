/* SPDX-License-Identifier: Apache-2.0 */
/* See load.h and load_parts.h. */
#include <errno.h>

#include "vmm/boot/load.h"

#include "base/assert.h"
#include "vmm/boot/elf.h"
#include "vmm/boot/load_bzimage.h"
#include "vmm/boot/load_format.h"
#include "vmm/boot/load_multiboot.h"
#include "vmm/boot/load_parts.h"
#include "vmm/boot/load_pvh.h"
#include "vmm/memory/bytes.h"

#define MEMORY_MIN (2ull << 20)

#define PTE_PRESENT 1ull
#define PTE_WRITE 2ull
#define PTE_LARGE 128ull

unsigned load_map(const struct guest_mem *m, struct load_range ret[LOAD_RANGES_MAX])
{
	unsigned n = 0;

	ret[n++] = (struct load_range){0, LOAD_LOW_END, LOAD_RANGE_RAM};
	ret[n++] = (struct load_range){LOAD_LOW_END, LOAD_KERNEL_MIN - LOAD_LOW_END,
				       LOAD_RANGE_RESERVED};
	ret[n++] = (struct load_range){LOAD_KERNEL_MIN, m->low_bytes - LOAD_KERNEL_MIN,
				       LOAD_RANGE_RAM};
	if (m->high_bytes)
		ret[n++] = (struct load_range){GUEST_HIGH_GPA, m->high_bytes, LOAD_RANGE_RAM};
	return n;
}

void load_put(const struct load_cfg *c, uint64_t gpa, const void *bytes, size_t len)
{
	void *to = guest_mem_at(c->mem, (gpa_t){gpa}, len);

	ASSERT(to);
	memcpy(to, bytes, len);
}

int load_put_string(const struct load_cfg *c, struct load_strings *s, const char *first,
		    const char *second, struct err *e)
{
	size_t a = strlen(first);
	size_t b = strlen(second);
	uint64_t blank = a && b;

	if (s->at > s->end || a >= s->end - s->at || b >= s->end - s->at - a - blank)
		return err_set(e, -E2BIG, "%s: command line of %zu bytes; there is room for %llu",
			       c->kernel.name, a + b, LOAD_STRINGS_END - LOAD_STRINGS_GPA - 1);
	load_put(c, s->at, first, a);
	load_put(c, s->at + a, " ", blank);
	load_put(c, s->at + a + blank, second, b + 1); /* with its final 0 */
	s->at += a + blank + b + 1;
	return 0;
}

void load_put_gdt(const struct load_cfg *c, uint64_t gpa, struct kvmp_entry *entry)
{
	/* SDM vol. 3, 3.4.5: G, P, S, limit 0xfffff; code: D or L, readable; data: B, writable. */
	const uint64_t gdt[LOAD_GDT_ENTRIES] = {
		[LOAD_CODE_SELECTOR / 8] = entry->mode == KVMP_LONG ? 0x00af9b000000ffffull
								    : 0x00cf9b000000ffffull,
		[LOAD_DATA_SELECTOR / 8] = 0x00cf93000000ffffull,
		[LOAD_TSS_SELECTOR / 8] = 0x00008b0000000067ull, /* busy, at 0 */
	};

	entry->gdt = (gpa_t){gpa};
	entry->gdt_bytes = sizeof(gdt);
	entry->code_selector = LOAD_CODE_SELECTOR;
	entry->data_selector = LOAD_DATA_SELECTOR;
	entry->tss_selector = LOAD_TSS_SELECTOR;
	load_put(c, gpa, gdt, sizeof(gdt));
}

void load_put_page_tables(const struct load_cfg *c)
{
	const uint64_t pml4 = LOAD_PDPT_GPA | PTE_PRESENT | PTE_WRITE;
	uint64_t pdpt[4];
	uint64_t pd[512];

	for (unsigned gib = 0; gib < ARRAY_LEN(pdpt); gib++) {
		uint64_t pd_gpa = LOAD_PDS_GPA + gib * PAGE_BYTES;

		for (uint64_t i = 0; i < ARRAY_LEN(pd); i++)
			pd[i] = (gib * ARRAY_LEN(pd) + i) * CHUNK_BYTES | PTE_PRESENT | PTE_WRITE |
				PTE_LARGE;
		pdpt[gib] = pd_gpa | PTE_PRESENT | PTE_WRITE;
		load_put(c, pd_gpa, pd, sizeof(pd));
	}
	load_put(c, LOAD_PDPT_GPA, pdpt, sizeof(pdpt));
	load_put(c, LOAD_PML4_GPA, &pml4, sizeof(pml4));
}

int load_put_modules(const struct load_cfg *c, uint64_t lo, uint64_t hi, uint64_t *starts,
		     struct load_result *ret, struct err *e)
{
	uint64_t at = min_u64(hi, c->mem->low_bytes);

	ret->modules_start = ret->modules_end = 0;
	for (unsigned i = c->modules_count; i-- > 0;) {
		const struct load_bytes *m = &c->modules[i];

		if (at < lo || m->len > at - lo || ((at - m->len) & ~(PAGE_BYTES - 1)) < lo)
			return err_set(e, -ENOMEM, "%s: %zu bytes do not fit into guest memory "
				       "from %#llx, where the kernel ends, to %#llx; give the "
				       "guest more memory", m->name, m->len, (unsigned long long)lo,
				       (unsigned long long)at);
		at = (at - m->len) & ~(PAGE_BYTES - 1);
		load_put(c, at, m->bytes, m->len);
		starts[i] = at;
		if (ret->modules_end == 0)
			ret->modules_end = at + m->len;
		ret->modules_start = at;
	}
	return 0;
}

static int check_cfg(const struct load_cfg *c, struct err *e)
{
	const struct guest_mem *m = c->mem;

	if (m->low_bytes < MEMORY_MIN)
		return err_set(e, -ENOMEM, "%s: %llu bytes of guest memory are too few; the least "
			       "is 2 MiB", c->kernel.name, (unsigned long long)m->low_bytes);
	if (m->low_bytes > GUEST_HOLE_GPA || m->low_bytes % PAGE_BYTES ||
	    m->high_bytes % PAGE_BYTES || m->high_bytes > UINT64_MAX - GUEST_HIGH_GPA)
		return err_set(e, -EINVAL, "guest memory of %#llx + %#llx bytes: not whole pages "
			       "below %#llx and above 4 GiB", (unsigned long long)m->low_bytes,
			       (unsigned long long)m->high_bytes, GUEST_HOLE_GPA);
	if (c->modules_count > LOAD_MODULES_MAX)
		return err_set(e, -EINVAL, "%s: %u modules; at most %u are possible",
			       c->kernel.name, c->modules_count, LOAD_MODULES_MAX);
	for (unsigned i = 0; i < c->modules_count; i++)
		if (c->modules[i].len == 0)
			return err_set(e, -EINVAL, "%s: an empty initrd or module",
				       c->modules[i].name);
	return 0;
}

static int load_elf(const struct load_cfg *c, struct load_result *ret, struct err *e)
{
	struct elf f;
	int rc = elf_parse(c->kernel.name, c->kernel.bytes, c->kernel.len, &f, e);

	/* A multiboot header may replace the ELF headers, so these may be anything. */
	if (rc == 0 && pvh_is(&f))
		return pvh_load(c, &f, ret, e);
	if (multiboot_is(c->kernel.bytes, c->kernel.len, NULL))
		return multiboot_load(c, ret, e);
	if (rc < 0)
		return rc;
	return err_set(e, -ENOEXEC, "%s: ELF file with neither a PVH entry (Linux: CONFIG_PVH) nor "
		       "a multiboot header", c->kernel.name);
}

/* By its content: what else it may be is told with what to do. */
static int load_other(const struct load_cfg *c, struct load_result *ret, struct err *e)
{
	const struct load_bytes *k = &c->kernel;
	const struct load_format *f = load_format(k->bytes, k->len);
	bool has_addresses, is = multiboot_is(k->bytes, k->len, &has_addresses);

	/* An EFI application may hold a header that is meant for its ELF form (Xen). */
	if (is && (has_addresses || !f))
		return multiboot_load(c, ret, e);
	if (f)
		return err_set(e, -ENOEXEC, "%s: this is %s, which cannot be loaded; %s", k->name,
			       f->name, f->advice);
	return err_set(e, -ENOEXEC, "%s: not a kernel that can be loaded (%zu bytes, neither a "
		       "bzImage, nor an ELF file, nor a multiboot kernel)", k->name, k->len);
}

int load_kernel(const struct load_cfg *cfg, struct load_result *ret, struct err *e)
{
	struct load_result r = {0};
	const struct load_bytes *k = &cfg->kernel;
	int rc = check_cfg(cfg, e);

	if (rc < 0)
		return rc;
	if (bzimage_is(k->bytes, k->len))
		rc = bzimage_load(cfg, &r, e);
	else if (elf_is(k->bytes, k->len))
		rc = load_elf(cfg, &r, e);
	else
		rc = load_other(cfg, &r, e);
	if (rc == 0)
		*ret = r;
	return rc;
}

bool load_is_linux(const struct load_bytes *k)
{
	struct elf f;

	if (bzimage_is(k->bytes, k->len))
		return true;
	return elf_is(k->bytes, k->len) && elf_parse(k->name, k->bytes, k->len, &f, NULL) == 0 &&
	       pvh_is(&f);
}

const char *load_kind_name(enum load_kind kind)
{
	static const char *const names[] = {
		[LOAD_BZIMAGE] = "bzImage", [LOAD_PVH] = "PVH", [LOAD_MULTIBOOT] = "multiboot"};

	return names[kind];
}
