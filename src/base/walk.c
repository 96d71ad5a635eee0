/* SPDX-License-Identifier: Apache-2.0 */
/* See walk.h. Facts: SDM vol. 3, 4.3 to 4.5 (32-bit, PAE, 4-level and 5-level paging). */
#include "base/walk.h"

#define ENTRY_PRESENT (1ull << 0)
#define ENTRY_LARGE (1ull << 7)
#define ENTRY_ADDRESS 0x000ffffffffff000ull
/* The longest instruction. */
#define INSTRUCTION_BYTES 15u

struct format {
	unsigned levels;
	unsigned index_bits; /* per level; the top one of PAE has 2 */
	unsigned entry_bytes;
};

static struct format format_of(const struct cpu_state *cpu)
{
	if (cpu->efer & EFER_LMA)
		return (struct format){cpu->cr4 & CR4_LA57 ? 5 : 4, 9, 8};
	if (cpu->cr4 & CR4_PAE)
		return (struct format){3, 9, 8};
	return (struct format){2, 10, 4};
}

static uint64_t top_table(const struct cpu_state *cpu, const struct format *f)
{
	/* PAE's four entries are 32-byte aligned, any other table is a page. */
	return cpu->cr3 & (f->levels == 3 ? 0xffffffe0ull : ENTRY_ADDRESS);
}

/* May an entry at this level be the last one? */
static bool may_be_large(const struct cpu_state *cpu, const struct format *f, unsigned level)
{
	if (f->levels == 2)
		return level == 2 && (cpu->cr4 & CR4_PSE);
	return level == 2 || (level == 3 && f->levels > 3);
}

unsigned walk_linear(const struct cpu_state *cpu, uint64_t linear, walk_read read, void *ctx,
		     gpa_t *ret, bool *ret_there)
{
	struct format f = format_of(cpu);
	uint64_t base = top_table(cpu, &f);
	uint64_t mask = (1ull << f.index_bits) - 1;
	unsigned n = 0;

	*ret_there = true;
	if (!cpu->paging) {
		ret[n++] = (gpa_t){linear};
		return n;
	}
	for (unsigned level = f.levels; level > 0; level--) {
		unsigned shift = PAGE_SHIFT + (level - 1) * f.index_bits;
		uint64_t index = linear >> shift & mask, entry;

		if (f.levels == 3 && level == 3)
			index &= 3;
		ret[n] = (gpa_t){base + index * f.entry_bytes};
		*ret_there = read(ctx, ret[n], f.entry_bytes, &entry);
		if (!*ret_there)
			return n;
		n++;
		*ret_there = entry & ENTRY_PRESENT;
		if (!*ret_there)
			return n;
		base = entry & ENTRY_ADDRESS;
		if ((entry & ENTRY_LARGE) && may_be_large(cpu, &f, level)) {
			uint64_t inside = (1ull << shift) - 1;

			/* PSE-36: what 32 bits have no room for stands below the rest. */
			if (f.levels == 2)
				base |= (entry >> 13 & 0xff) << 32;
			ret[n] = (gpa_t){(base & ~inside) | (linear & inside)};
			return n + 1;
		}
	}
	ret[n] = (gpa_t){base | (linear & (PAGE_BYTES - 1))};
	return n + 1;
}

unsigned walk_instruction(const struct cpu_state *cpu, walk_read read, void *ctx, gpa_t *ret)
{
	uint64_t first = cpu->ip, last = first + INSTRUCTION_BYTES - 1;
	bool there;
	unsigned n = walk_linear(cpu, first, read, ctx, ret, &there);

	if (first >> PAGE_SHIFT != last >> PAGE_SHIFT)
		n += walk_linear(cpu, last, read, ctx, ret + n, &there);
	return n;
}
