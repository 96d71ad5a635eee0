/* SPDX-License-Identifier: Apache-2.0 */
/* See first_touch.h. Facts: SDM vol. 3, 6.14.1 (64-bit gates), 8.7 (64-bit task-state segment). */
#include "vmm/snap/first_touch.h"

#include <string.h>

#define GATE_BYTES 16u
#define GATES_IN_PAGE ((unsigned)PAGE_BYTES / GATE_BYTES)
#define GATE_PRESENT (1u << 15)
/* RSP0 to RSP2 and IST1 to IST7: stacks that an interrupt changes to. */
#define TSS_RSP 4u
#define TSS_RSPS 3u
#define TSS_IST 36u
#define TSS_ISTS 7u

struct gate {
	uint16_t offset_low, selector, flags, offset_middle;
	uint32_t offset_high, zero;
};

_Static_assert(sizeof(struct gate) == GATE_BYTES, "as the processor has it");

static void add_page(struct first_touch *t, uint64_t gpa)
{
	uint64_t page = gpa & ~(PAGE_BYTES - 1);

	for (unsigned i = 0; i < t->count; i++)
		if (t->pages[i] == page)
			return;
	if (t->count < FIRST_TOUCH_MAX)
		t->pages[t->count++] = page;
}

void first_touch_range(struct first_touch *t, gpa_t gpa, uint64_t len)
{
	uint64_t page = gpa.v & ~(PAGE_BYTES - 1);
	uint64_t bytes = gpa.v - page + min_u64(len, FIRST_TOUCH_MAX * PAGE_BYTES);

	for (uint64_t off = 0; len > 0 && off < bytes; off += PAGE_BYTES)
		add_page(t, page + off);
}

/* ---- what lies at linear addresses ---- */

static bool read_entry(void *ctx, gpa_t gpa, unsigned len, uint64_t *ret)
{
	struct first_touch *t = ctx;

	/* Absent ones, too: that is what the guest will wait for. */
	add_page(t, gpa.v);
	*ret = 0;
	return t->read(t->ctx, gpa, ret, len);
}

static bool add_linear(struct first_touch *t, const struct cpu_state *cpu, uint64_t linear,
		       gpa_t *ret)
{
	gpa_t gpas[WALK_LINEAR_MAX];
	bool there;
	unsigned n = walk_linear(cpu, linear, read_entry, t, gpas, &there);

	if (!there)
		return false;
	*ret = gpas[n - 1];
	add_page(t, ret->v);
	return true;
}

static bool read_linear(struct first_touch *t, const struct cpu_state *cpu, uint64_t linear,
			void *ret, unsigned len)
{
	gpa_t gpa;

	/* Nothing that is looked at lies across a page's end in any kernel that is known. */
	return linear % PAGE_BYTES + len <= PAGE_BYTES && add_linear(t, cpu, linear, &gpa) &&
	       t->read(t->ctx, gpa, ret, len);
}

static void add_stack(struct first_touch *t, const struct cpu_state *cpu, uint64_t tss)
{
	uint64_t sp;
	gpa_t gpa;

	if (read_linear(t, cpu, tss, &sp, sizeof(sp)) && sp != 0)
		(void)add_linear(t, cpu, sp - 1, &gpa);
}

static void add_handlers(struct first_touch *t, const struct first_vcpu *v)
{
	struct gate gates[GATES_IN_PAGE];
	unsigned count = (v->idt_limit + 1u) / GATE_BYTES;
	uint64_t last = 0;
	gpa_t gpa;

	if (count > GATES_IN_PAGE)
		count = GATES_IN_PAGE;
	if (!read_linear(t, &v->cpu, v->idt, gates, count * GATE_BYTES))
		return;
	for (unsigned i = 0; i < count; i++) {
		uint64_t at = gates[i].offset_low | (uint64_t)gates[i].offset_middle << 16 |
			      (uint64_t)gates[i].offset_high << 32;

		if (!(gates[i].flags & GATE_PRESENT) || at >> PAGE_SHIFT == last >> PAGE_SHIFT)
			continue;
		last = at;
		(void)add_linear(t, &v->cpu, at, &gpa);
	}
}

void first_touch_vcpu(struct first_touch *t, const struct first_vcpu *v)
{
	const uint64_t registers[] = {v->cpu.ip, v->sp, v->gdt, v->idt, v->tss, v->fs, v->gs,
				      v->kernel_gs, v->syscall};
	gpa_t gpa;

	for (unsigned i = 0; i < sizeof(registers) / sizeof(*registers); i++)
		if (registers[i] != 0)
			(void)add_linear(t, &v->cpu, registers[i], &gpa);
	/* Others have them in other forms. */
	if (!v->cpu.paging || !(v->cpu.efer & EFER_LMA))
		return;
	for (unsigned i = 0; i < TSS_RSPS; i++)
		add_stack(t, &v->cpu, v->tss + TSS_RSP + i * sizeof(uint64_t));
	for (unsigned i = 0; i < TSS_ISTS; i++)
		add_stack(t, &v->cpu, v->tss + TSS_IST + i * sizeof(uint64_t));
	add_handlers(t, v);
}
