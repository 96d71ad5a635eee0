/* SPDX-License-Identifier: Apache-2.0 */
/* src/vmm/snap/first_touch.c: what a vCPU's registers and tables point at, and no more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "vmm/snap/first_touch.h"

#define RAM (1ull << 20)
#define P 1ull
#define PRESENT_GATE 0x8e00ull
#define LMA (1ull << 10)
#define PAE (1ull << 5)
/* Tables of one MiB from 0 on, and where each thing lies, linear and physical alike. */
#define PML4 0x1000ull
#define PDPT 0x2000ull
#define PD 0x3000ull
#define PT 0x4000ull
#define CODE 0x20000ull
#define STACK 0x21000ull
#define GDT 0x22000ull
#define IDT 0x23000ull
#define TSS 0x24000ull
#define FS 0x25000ull
#define GS 0x26000ull
#define KERNEL_GS 0x27000ull
#define SYSCALL 0x28000ull
#define RSP0_TOP 0x2a000ull
#define RSP2_TOP 0x2b000ull
#define IST7_TOP 0x2c000ull
#define HANDLER_A 0x30000ull
#define HANDLER_B 0x31000ull
/* Where 64-bit kernels are, and by which tables. */
#define KERNEL 0xffffffff81000000ull
#define KERNEL_AT 0x32000ull
#define HIGH_PDPT 0x5000ull
#define HIGH_PD 0x6000ull
#define HIGH_PT 0x7000ull

static unsigned char ram[RAM];
static bool absent[RAM / PAGE_BYTES];
static struct first_touch t;

static bool read_ram(void *ctx, gpa_t gpa, void *ret, unsigned len)
{
	assert_ptr_equal(ctx, &t);
	assert_true(gpa.v % PAGE_BYTES + len <= PAGE_BYTES);
	if (gpa.v > RAM - len || absent[gpa.v >> PAGE_SHIFT])
		return false;
	memcpy(ret, ram + gpa.v, len);
	return true;
}

static void put64(uint64_t gpa, uint64_t value)
{
	memcpy(ram + gpa, &value, sizeof(value));
}

static void put_gate(unsigned vector, uint64_t at, uint64_t flags)
{
	put64(IDT + vector * 16, (at & 0xffff) | 0x10ull << 16 | flags << 32 |
			       (at >> 16 & 0xffff) << 48);
	put64(IDT + vector * 16 + 8, at >> 32);
}

static int set_up(void **state)
{
	(void)state;
	memset(ram, 0, sizeof(ram));
	memset(absent, 0, sizeof(absent));
	put64(PML4, PDPT | P);
	put64(PDPT, PD | P);
	put64(PD, PT | P);
	for (uint64_t page = 0; page < RAM / PAGE_BYTES; page++)
		put64(PT + page * 8, page << PAGE_SHIFT | P);
	put64(TSS + 4, RSP0_TOP);
	put64(TSS + 36 + 6 * 8, IST7_TOP);
	put_gate(14, HANDLER_A + 0x123, PRESENT_GATE);
	put_gate(15, HANDLER_A + 0x456, PRESENT_GATE);
	put_gate(32, HANDLER_B, PRESENT_GATE);
	put_gate(33, 0x40000, 0); /* not present */
	t = (struct first_touch){.read = read_ram, .ctx = &t};
	return 0;
}

static struct first_vcpu vcpu(void)
{
	return (struct first_vcpu){
		.cpu = {.paging = true, .ip = CODE + 0xabc, .cr3 = PML4, .cr4 = PAE, .efer = LMA},
		.sp = STACK + 0xff0,
		.gdt = GDT,
		.idt = IDT,
		.idt_limit = 256 * 16 - 1,
		.tss = TSS,
		.fs = FS,
		.gs = GS,
		.kernel_gs = KERNEL_GS,
		.syscall = SYSCALL + 0x40,
	};
}

static void expect(const uint64_t *pages, unsigned count)
{
	for (unsigned i = 0; i < count && i < t.count; i++)
		assert_int_equal(t.pages[i], pages[i]);
	assert_int_equal(t.count, count);
}

#define EXPECT(...)                                                                                \
	do {                                                                                       \
		const uint64_t want[] = {__VA_ARGS__};                                             \
		expect(want, sizeof(want) / sizeof(*want));                                        \
	} while (0)

static void registers_and_tables(void **state)
{
	struct first_vcpu v = vcpu();

	(void)state;
	first_touch_vcpu(&t, &v);
	EXPECT(PML4, PDPT, PD, PT, CODE, STACK, GDT, IDT, TSS, FS, GS, KERNEL_GS, SYSCALL,
	       RSP0_TOP - PAGE_BYTES, IST7_TOP - PAGE_BYTES, HANDLER_A, HANDLER_B);
	/* Another one that shares all of it adds its own. */
	v.sp = 0x50000;
	first_touch_vcpu(&t, &v);
	assert_int_equal(t.count, 18);
	assert_int_equal(t.pages[17], 0x50000);
}

/* Each stack, and handlers at addresses of 64 bits up to the last gate. */
static void of_a_kernel(void **state)
{
	struct first_vcpu v = vcpu();

	(void)state;
	put64(PML4 + 511 * 8, HIGH_PDPT | P);
	put64(HIGH_PDPT + 510 * 8, HIGH_PD | P);
	put64(HIGH_PD + 8 * 8, HIGH_PT | P);
	put64(HIGH_PT, KERNEL_AT | P);
	put64(TSS + 4 + 2 * 8, RSP2_TOP);
	put_gate(255, KERNEL + 0x120, PRESENT_GATE);
	first_touch_vcpu(&t, &v);
	EXPECT(PML4, PDPT, PD, PT, CODE, STACK, GDT, IDT, TSS, FS, GS, KERNEL_GS, SYSCALL,
	       RSP0_TOP - PAGE_BYTES, RSP2_TOP - PAGE_BYTES, IST7_TOP - PAGE_BYTES, HANDLER_A,
	       HANDLER_B, HIGH_PDPT, HIGH_PD, HIGH_PT, KERNEL_AT);
}

static void gates_behind_the_limit_are_none(void **state)
{
	struct first_vcpu v = vcpu();

	(void)state;
	v.idt_limit = 32 * 16 - 1;
	first_touch_vcpu(&t, &v);
	assert_int_equal(t.count, 16);
	assert_int_equal(t.pages[15], HANDLER_A);
}

/* They are what a guest waits for; what lies behind nobody knows. */
static void absent_tables_are_named(void **state)
{
	struct first_vcpu v = vcpu();

	(void)state;
	absent[PD >> PAGE_SHIFT] = true;
	first_touch_vcpu(&t, &v);
	EXPECT(PML4, PDPT, PD);
}

static void absent_content_is_named(void **state)
{
	struct first_vcpu v = vcpu();

	(void)state;
	absent[IDT >> PAGE_SHIFT] = absent[TSS >> PAGE_SHIFT] = true;
	first_touch_vcpu(&t, &v);
	EXPECT(PML4, PDPT, PD, PT, CODE, STACK, GDT, IDT, TSS, FS, GS, KERNEL_GS, SYSCALL);
}

static void without_paging(void **state)
{
	const struct first_vcpu v = {.cpu = {.ip = 0x7c00}, .sp = 0x9000, .idt = 0};

	(void)state;
	first_touch_vcpu(&t, &v);
	EXPECT(0x7000, 0x9000);
}

/* 32-bit: the same registers, and tables of other forms that are not read. */
static void in_protected_mode(void **state)
{
	struct first_vcpu v = vcpu();

	(void)state;
	v.cpu.cr4 = 0;
	v.cpu.efer = 0;
	for (uint32_t page = 0; page < RAM / PAGE_BYTES; page++) {
		uint32_t entry = page << PAGE_SHIFT | 1;

		memcpy(ram + PT + page * 4, &entry, sizeof(entry));
	}
	put64(PML4, PT | P);
	v.kernel_gs = v.syscall = 0;
	first_touch_vcpu(&t, &v);
	EXPECT(PML4, PT, CODE, STACK, GDT, IDT, TSS, FS, GS);
}

/* Whatever a guest has there: bounded, and no page twice. */
static void hostile(void **state)
{
	struct first_vcpu v = vcpu();

	(void)state;
	v.idt_limit = 0xffff;
	v.gs = ~0ull;
	v.tss = TSS + PAGE_BYTES - 8; /* its stacks' addresses lie across the end */
	v.fs = 0x8000000000000000ull;
	for (unsigned i = 0; i < 256; i++)
		put_gate(i, (uint64_t)i << 12 | 7, PRESENT_GATE);
	for (uint64_t i = 0; i < 40; i++) {
		for (uint64_t page = 64; page < 256; page++)
			put64(PT + page * 8, (i << 30 | page << PAGE_SHIFT) | P);
		first_touch_vcpu(&t, &v);
	}
	assert_int_equal(t.count, FIRST_TOUCH_MAX);
	for (unsigned i = 0; i < t.count; i++)
		for (unsigned k = 0; k < i; k++)
			assert_int_not_equal(t.pages[i], t.pages[k]);
}

static void ranges(void **state)
{
	(void)state;
	first_touch_range(&t, (gpa_t){0x5ffe}, 1);
	first_touch_range(&t, (gpa_t){0x5ffe}, 4);
	first_touch_range(&t, (gpa_t){0x9000}, 2 * PAGE_BYTES);
	first_touch_range(&t, (gpa_t){0xd000}, 0);
	EXPECT(0x5000, 0x6000, 0x9000, 0xa000);
	first_touch_range(&t, (gpa_t){0}, ~0ull);
	assert_int_equal(t.count, FIRST_TOUCH_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(registers_and_tables, set_up),
		cmocka_unit_test_setup(of_a_kernel, set_up),
		cmocka_unit_test_setup(gates_behind_the_limit_are_none, set_up),
		cmocka_unit_test_setup(absent_tables_are_named, set_up),
		cmocka_unit_test_setup(absent_content_is_named, set_up),
		cmocka_unit_test_setup(without_paging, set_up),
		cmocka_unit_test_setup(in_protected_mode, set_up),
		cmocka_unit_test_setup(hostile, set_up),
		cmocka_unit_test_setup(ranges, set_up),
	};

	return cmocka_run_group_tests_name("first_touch", tests, NULL, NULL);
}
