/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the loader, the command line and the processor say, and the processor's tables.
 * Arguments, all optional:
 *   abi=int|pf2|pf2-strict|legacy  the revision; else it is found out, but for pf2-strict
 *   only=NAME[,NAME...]            checks whose name starts with one of these
 *   brief=NAME[,NAME...]           those that are expected to fail: do not wait long for it
 *   absent=ADDRESS,BYTES           memory whose pages are absent until they are touched
 *   stride=BYTES                   distance between two of its pages that are touched
 *   stamped                        each of its pages starts with its own address
 *   quiet=MS                       longer than an absent page takes
 *   cpus=N                         how many processors there are
 */
#include "kernel.h"
#include "shared/multiboot.h"

#define BOOT_MAGIC 0x2badb002
#define INFO_HAS_CMDLINE (1u << 2)
#define INFO_HAS_MAP (1u << 6)
#define MAP_USABLE 1
#define CMDLINE_MAX 1024

#define QUIET_MS_DEFAULT 100
#define PATIENCE_MS 10000
#define TSC_KHZ_GUESS 2500000

/* KVM's CPUID leaves and its clock (cpuid.rst, msr.rst). */
#define LEAF_FIRST 0x40000000u
#define LEAF_LAST 0x40010000u
#define LEAF_STEP 0x100u
#define FEATURE_CLOCKSOURCE2 (1u << 3)
#define MSR_KVM_SYSTEM_TIME 0x4b564d01
#define CLOCK_LOOKS 1000

#define CPUID_X2APIC (1u << 21) /* leaf 1, ECX */

/* An emulated instruction takes thousands of ticks. */
#define REAL_TICKS_MAX 300

struct clock {
	uint32_t version;
	uint32_t pad;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags;
	uint8_t pad2[2];
};

struct setup setup = {.stride = PAGE_BYTES};
struct tss tss;

static char cmdline[CMDLINE_MAX];
static struct clock clock __attribute__((aligned(64)));
static uint8_t double_fault_stack[4096] __attribute__((aligned(16)));
static struct {
	uint64_t low, high;
} idt[256] __attribute__((aligned(16)));
static uint64_t more_directories[4][512] __attribute__((aligned(PAGE_BYTES)));

/* ---- arguments ---- */

/* The text behind a prefix that a word starts with, or NULL. */
static const char *behind(const char *word, const char *prefix)
{
	while (*prefix)
		if (*word++ != *prefix++)
			return NULL;
	return word;
}

static bool at_end(const char *s)
{
	return *s == '\0' || *s == ' ';
}

/* Decimal, or hexadecimal with 0x; *ret_end is what follows. */
static uint64_t number(const char *s, const char **ret_end)
{
	const char *hex = behind(s, "0x");
	uint64_t base = hex ? 16 : 10, v = 0;

	for (s = hex ? hex : s;; s++) {
		uint64_t digit = 99;

		if (*s >= '0' && *s <= '9')
			digit = (uint64_t)(*s - '0');
		else if (*s >= 'a' && *s <= 'f')
			digit = (uint64_t)(*s - 'a') + 10;
		if (digit >= base)
			break;
		v = v * base + digit;
	}
	*ret_end = s;
	return v;
}

static bool take_abi(const char *s)
{
	static const struct {
		const char *name;
		enum apf_rev rev;
	} names[] = {
		{"int", APF_REV_INT},
		{"pf2", APF_REV_PF2},
		{"pf2-strict", APF_REV_PF2_STRICT},
		{"legacy", APF_REV_LEGACY},
	};

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		const char *end = behind(s, names[i].name);

		if (end && at_end(end)) {
			setup.rev = names[i].rev;
			return true;
		}
	}
	return false;
}

static bool take_absent(const char *s)
{
	setup.absent_gpa = number(s, &s);
	if (*s != ',')
		return false;
	setup.absent_bytes = number(s + 1, &s);
	return at_end(s) && setup.absent_gpa % PAGE_BYTES == 0;
}

static bool take_number(const char *s, uint64_t *to)
{
	const char *start = s;

	*to = number(s, &s);
	return s != start && at_end(s);
}

static bool take_word(const char *word)
{
	uint64_t cpus = 0;
	const char *s;

	if ((s = behind(word, "abi=")))
		return take_abi(s);
	if ((s = behind(word, "absent=")))
		return take_absent(s);
	if ((s = behind(word, "stride=")))
		return take_number(s, &setup.stride) && setup.stride >= PAGE_BYTES;
	if ((s = behind(word, "quiet=")))
		return take_number(s, &setup.quiet_ticks); /* ms, for now */
	if ((s = behind(word, "cpus="))) {
		bool ok = take_number(s, &cpus);

		setup.cpus = (unsigned)cpus;
		return ok;
	}
	if ((s = behind(word, "stamped")) && at_end(s)) {
		setup.stamped = true;
		return true;
	}
	if ((s = behind(word, "only="))) {
		setup.only = s;
		return true;
	}
	setup.brief = behind(word, "brief=");
	return setup.brief != NULL;
}

/* The first word is the kernel's own name. */
static void take_arguments(void)
{
	const char *s = cmdline;

	while (!at_end(s))
		s++;
	for (;;) {
		while (*s == ' ')
			s++;
		if (!*s)
			return;
		if (!take_word(s))
			bail_out("argument not understood: %s", s);
		while (!at_end(s))
			s++;
	}
}

/* ---- the loader's information ---- */

/* Copied, since it may lie where we put something. */
static void take_info(const struct info *info)
{
	const char *s = (const char *)(uint64_t)info->cmdline;
	uint32_t at = 0;

	for (unsigned i = 0; info->flags & INFO_HAS_CMDLINE && i < CMDLINE_MAX - 1 && s[i]; i++)
		cmdline[i] = s[i];
	while (info->flags & INFO_HAS_MAP && at < info->mmap_length) {
		const struct range *r = (const void *)(uint64_t)(info->mmap_addr + at);
		uint64_t end = r->base + r->length;

		if (r->type == MAP_USABLE && r->base <= (uint64_t)take_info && end > (uint64_t)idt)
			setup.ram_end = end & ~(uint64_t)(PAGE_BYTES - 1);
		at += r->size + (uint32_t)sizeof(r->size);
	}
}

/* ---- the processor ---- */

static void find_kvm(void)
{
	for (uint32_t leaf = LEAF_FIRST; leaf < LEAF_LAST; leaf += LEAF_STEP) {
		struct cpuid r = cpuid(leaf);

		/* "KVMKVMKVM\0\0\0" */
		if (r.ebx == 0x4b4d564b && r.ecx == 0x564b4d56 && r.edx == 0x4d) {
			setup.kvm_leaf = leaf;
			return;
		}
	}
}

/* By the hypervisor's clock page, which tells how to turn ticks into time. */
static uint64_t tsc_khz(void)
{
	uint64_t khz;

	if (!setup.kvm_leaf || !(cpuid(setup.kvm_leaf + 1).eax & FEATURE_CLOCKSOURCE2) ||
	    wrmsr_safe(MSR_KVM_SYSTEM_TIME, (uint64_t)&clock | 1))
		return TSC_KHZ_GUESS;
	/* Written when the processor is entered next, which is not always at once. */
	for (unsigned i = 0; i < CLOCK_LOOKS && load(&clock.tsc_to_system_mul) == 0; i++)
		(void)cpuid(0);
	(void)wrmsr_safe(MSR_KVM_SYSTEM_TIME, 0);
	if (load(&clock.tsc_to_system_mul) == 0)
		return TSC_KHZ_GUESS;
	khz = (1000000ull << 32) / clock.tsc_to_system_mul;
	return clock.tsc_shift < 0 ? khz << -clock.tsc_shift : khz >> clock.tsc_shift;
}

static bool kernel_is_real(void)
{
	uint32_t turns = 1000;
	uint64_t start = rdtsc();

	asm volatile("1: dec %0\n\tjnz 1b" : "+r"(turns));
	return (rdtsc() - start) / 1000 < REAL_TICKS_MAX;
}

static uint64_t outside_gpa(void)
{
	uint32_t bits = cpuid(0x80000000).eax >= 0x80000008 ? cpuid(0x80000008).eax & 0xff : 36;

	return (1ull << (bits - 1)) + (1ull << 30);
}

static void tables_build(void)
{
	uint64_t base = (uint64_t)&tss;

	for (uint64_t i = 0; i < 256; i++) {
		uint64_t at = (uint64_t)vector_stubs + i * VECTOR_STUB_BYTES;

		/* Interrupt gates of DPL 0; double faults on a stack of their own. */
		idt[i].low = (at & 0xffff) | SEL_KCODE << 16 | (i == 8 ? 1ull << 32 : 0) |
			     0x8eull << 40 | (at >> 16 & 0xffff) << 48;
		idt[i].high = at >> 32;
	}
	tss.ist[0] = (uint64_t)double_fault_stack + sizeof(double_fault_stack);
	tss.iomap = sizeof(tss);
	gdt[SEL_TSS / 8] = (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
			   (base >> 24 & 0xff) << 56;
	gdt[SEL_TSS / 8 + 1] = base >> 32;
}

void tables_load(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr = {sizeof(idt) - 1, (uint64_t)idt};

	asm volatile("lidt %0" : : "m"(idtr));
}

/* Large pages, one to one, where the absent memory is; below 4 GiB they are there. */
static void map_absent(void)
{
	uint64_t first = setup.absent_gpa >> 30;
	uint64_t last = (setup.absent_gpa + setup.absent_bytes - 1) >> 30;

	if (setup.absent_bytes == 0 || last < 4)
		return;
	if (last >= 512 || last - first >= ARRAY_LEN(more_directories))
		bail_out("absent=%x,%x: beyond 512 GiB, or more than 3 GiB", setup.absent_gpa,
			 setup.absent_bytes);
	for (uint64_t gib = first < 4 ? 4 : first; gib <= last; gib++) {
		uint64_t *directory = more_directories[gib - first];

		for (uint64_t i = 0; i < 512; i++)
			directory[i] = (gib << 30 | i << 21) + 0x87;
		page_pointers[gib] = (uint64_t)directory + 7;
	}
}

void apic_on(void)
{
	if (!(cpuid(1).ecx & CPUID_X2APIC))
		bail_out("this processor has no x2APIC");
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
	wrmsr(MSR_X2APIC_SVR, SVR_ON);
	wrmsr(MSR_X2APIC_LVT_LINT0, 0x10000); /* no interrupts from an 8259 */
	wrmsr(MSR_X2APIC_TDCR, 0xa);          /* by 128 */
	wrmsr(MSR_X2APIC_LVT_TIMER, TIMER_VECTOR);
}

void kernel_main(uint32_t magic, const void *info)
{
	if (magic != BOOT_MAGIC)
		bail_out("not started by a multiboot loader");
	take_info(info);
	tables_build();
	tables_load();
	asm volatile("ltr %w0" : : "r"(SEL_TSS));
	take_arguments();
	find_kvm();
	setup.tsc_khz = tsc_khz();
	setup.quiet_ticks = (setup.quiet_ticks ? setup.quiet_ticks : QUIET_MS_DEFAULT) *
			    setup.tsc_khz;
	setup.patience_ticks = PATIENCE_MS * setup.tsc_khz;
	setup.kernel_is_real = kernel_is_real();
	setup.outside_gpa = outside_gpa();
	map_absent();
	out8(0x21, 0xff); /* and none of an 8259's own */
	out8(0xa1, 0xff);
	apic_on();
	checks_run();
}
