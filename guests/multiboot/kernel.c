/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A multiboot kernel that uses each promise made to small test kernels: the console on the
 * first serial port, arguments, modules, the memory map, and the exit port. It prints what
 * it was given and ends. Arguments:
 *   exit=N   writes N to the exit port (the VM's status is then 2N + 1)
 *   crash    takes an exception that nothing handles
 *   echo     sends back what is typed, up to a line's end
 *   flood=N  prints N lines of 64 characters
 *   off      turns the machine off (ACPI S5)
 *   reset    writes the ACPI reset register
 *   spin     never ends
 *   touch=N  waits for a key, then writes to each page from 4 MiB up to N MiB
 *   fwcfg    says how many processors and how much memory fw_cfg tells of
 *   testdev  says what the test device's ports and memory give back, and which lines it raised
 *   disk     says what the first disk is like
 *   fill=A+N writes N sectors of it from sector A on, each with its number, and flushes
 * Multiboot Specification 0.6.96, section 3.3.
 */
#include <stdbool.h>
#include <stdint.h>

#include "multiboot/kernel.h"
#include "shared/multiboot.h"

#define SERIAL_PORT 0x3f8
#define SERIAL_LSR 5
#define SERIAL_LSR_DR 0x01
#define SERIAL_LSR_THRE 0x20
#define SERIAL_WAIT_MAX 1000 /* reads; a port that is never ready must not hang us */
#define EXIT_PORT 0xf4
#define EXIT_NOT_MULTIBOOT 100
/* As the machine's ACPI tables say. */
#define PM1_CNT_PORT 0x604
#define PM1_SLEEP_S5 (1u << 13 | 5u << 10)
#define RESET_PORT 0xcf9
#define RESET_VALUE 6

#define BOOT_MAGIC 0x2badb002
#define HAS_CMDLINE (1u << 2)
#define HAS_MODULES (1u << 3)
#define HAS_MAP (1u << 6)
#define HAS_LOADER (1u << 9)

struct module {
	uint32_t start;
	uint32_t end;
	uint32_t string;
	uint32_t reserved;
};

void kernel_main(uint32_t magic, const struct info *info);
_Noreturn void crash(void);

static void out8(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static void out16(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static void out32(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

void put_char(char c)
{
	for (int i = 0; i < SERIAL_WAIT_MAX; i++)
		if (in8(SERIAL_PORT + SERIAL_LSR) & SERIAL_LSR_THRE)
			break;
	out8(SERIAL_PORT, (uint8_t)c);
}

void put_text(const char *s)
{
	while (*s)
		put_char(*s++);
}

static void put_hex32(uint32_t v)
{
	static const char digits[] = "0123456789abcdef";

	for (int shift = 28; shift >= 0; shift -= 4)
		put_char(digits[v >> shift & 15]);
}

static void put_hex64(uint64_t v)
{
	put_text("0x");
	put_hex32((uint32_t)(v >> 32));
	put_hex32((uint32_t)v);
}

void put_decimal(uint32_t v)
{
	char text[11];
	char *p = text + sizeof(text) - 1;

	*p = '\0';
	do {
		*--p = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	put_text(p);
}

/* The text behind a prefix that a word starts with, or nothing. */
static const char *behind(const char *word, const char *prefix)
{
	while (*prefix)
		if (*word++ != *prefix++)
			return 0;
	return word;
}

static uint32_t decimal(const char *s)
{
	uint32_t v = 0;

	for (; *s >= '0' && *s <= '9'; s++)
		v = v * 10 + (uint32_t)(*s - '0');
	return v;
}

/* ---- what the arguments ask for ---- */

static void echo(void)
{
	char c;

	do {
		while (!(in8(SERIAL_PORT + SERIAL_LSR) & SERIAL_LSR_DR))
			__asm__ volatile("pause");
		c = (char)in8(SERIAL_PORT);
		put_char(c);
	} while (c != '\r' && c != '\n');
	put_char('\n');
}

static void touch(uint32_t mib)
{
	while (!(in8(SERIAL_PORT + SERIAL_LSR) & SERIAL_LSR_DR))
		__asm__ volatile("pause");
	for (uint32_t at = 4u << 20; at < mib << 20; at += 4096)
		*(volatile uint32_t *)(uintptr_t)at = at;
}

static void flood(uint32_t lines)
{
	while (lines--) {
		for (int i = 0; i < 63; i++)
			put_char((char)('0' + i));
		put_char('\n');
	}
}

static _Noreturn void spin(void)
{
	for (;;)
		__asm__ volatile("pause");
}

static bool is_word(const char *word, const char *expected)
{
	const char *end = behind(word, expected);

	return end && (*end == ' ' || *end == '\0');
}

#define FW_CFG_PORT 0x510
#define FW_CFG_RAM_SIZE 3
#define FW_CFG_NB_CPUS 5

static uint64_t fw_cfg(uint16_t item, unsigned bytes)
{
	uint64_t value = 0;

	out16(FW_CFG_PORT, item);
	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)in8(FW_CFG_PORT + 1) << 8 * i;
	return value;
}

static void show_fw_cfg(void)
{
	put_text("fw_cfg: ");
	put_decimal((uint32_t)fw_cfg(FW_CFG_NB_CPUS, 2));
	put_text(" processors, memory ");
	put_hex64(fw_cfg(FW_CFG_RAM_SIZE, 8));
	put_char('\n');
}

#define TEST_DEV_PORT 0xe0
#define TEST_DEV_IRQ_PORT 0x2000
#define TEST_DEV_GPA 0xff000000u
#define PIC_PORT 0x20
#define PIC_READ_IRR 0x0a

/* The interrupt controller's own word for line 5, which nobody else drives. */
static void show_line(void)
{
	out8(PIC_PORT, PIC_READ_IRR);
	put_decimal(in8(PIC_PORT) >> 5 & 1);
}

static void show_test_device(void)
{
	volatile uint32_t *memory = (volatile uint32_t *)(uintptr_t)TEST_DEV_GPA;

	out32(TEST_DEV_PORT, 0x12345678);
	out8(TEST_DEV_PORT + 9, 0xab);
	memory[5] = 0xcafe;
	put_text("test device: 0x");
	put_hex32((uint32_t)in8(TEST_DEV_PORT) << 24 | (uint32_t)in8(TEST_DEV_PORT + 1) << 16 |
		  (uint32_t)in8(TEST_DEV_PORT + 10) << 8 | in8(TEST_DEV_PORT + 3));
	put_text(", memory 0x");
	put_hex32(memory[5]);
	put_text(", line ");
	show_line();
	out8(TEST_DEV_IRQ_PORT + 5, 1);
	show_line();
	out8(TEST_DEV_IRQ_PORT + 5, 0);
	put_char('\n');
}

/* "12+34": the second number. */
static const char *behind_sign(const char *s)
{
	while (*s && *s != '+')
		s++;
	return *s ? s + 1 : s;
}

/* Does what one argument asks for, unless it is exit=. */
static void obey(const char *word)
{
	const char *lines = behind(word, "flood=");
	const char *sectors = behind(word, "fill=");
	const char *mib = behind(word, "touch=");

	if (mib)
		touch(decimal(mib));
	else if (lines)
		flood(decimal(lines));
	else if (sectors)
		disk_fill(decimal(sectors), decimal(behind_sign(sectors)));
	else if (is_word(word, "fwcfg"))
		show_fw_cfg();
	else if (is_word(word, "testdev"))
		show_test_device();
	else if (is_word(word, "disk"))
		disk_show();
	else if (is_word(word, "crash"))
		crash();
	else if (is_word(word, "echo"))
		echo();
	else if (is_word(word, "off"))
		out16(PM1_CNT_PORT, PM1_SLEEP_S5);
	else if (is_word(word, "reset"))
		out8(RESET_PORT, RESET_VALUE);
	else if (is_word(word, "spin"))
		spin();
}

/* Prints the words of the command line and obeys them; returns the value for the exit port. */
static uint32_t take_arguments(const char *s)
{
	uint32_t value = 0;

	for (uint32_t n = 0; *s; n++) {
		const char *word = s;
		const char *exit_value = behind(s, "exit=");

		put_text("argument ");
		put_decimal(n);
		put_text(": ");
		while (*s && *s != ' ')
			put_char(*s++);
		put_char('\n');
		while (*s == ' ')
			s++;
		if (n == 0)
			continue; /* our own name */
		if (exit_value)
			value = decimal(exit_value);
		obey(word);
	}
	return value;
}

/* FNV-1a, 32 bits. */
static uint32_t hash(const uint8_t *p, uint32_t len)
{
	uint32_t h = 0x811c9dc5;

	for (uint32_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x01000193;
	return h;
}

static void show_modules(const struct module *m, uint32_t count)
{
	put_text("modules: ");
	put_decimal(count);
	put_char('\n');
	if (count == 0)
		return;
	put_text("module 0: ");
	put_text((const char *)(uintptr_t)m->string);
	put_text(", ");
	put_decimal(m->end - m->start);
	put_text(" bytes, checksum 0x");
	put_hex32(hash((const uint8_t *)(uintptr_t)m->start, m->end - m->start));
	put_char('\n');
}

static void show_map(uint32_t at, uint32_t end)
{
	while (at < end) {
		const struct range *r = (const struct range *)(uintptr_t)at;

		put_text("memory ");
		put_hex64(r->base);
		put_text(" + ");
		put_hex64(r->length);
		put_text(" type ");
		put_decimal(r->type);
		put_char('\n');
		at += r->size + sizeof(r->size);
	}
}

void kernel_main(uint32_t magic, const struct info *info)
{
	uint32_t value = 0;

	put_text("multiboot guest\n");
	if (magic != BOOT_MAGIC) {
		put_text("not loaded by multiboot\n");
		out32(EXIT_PORT, EXIT_NOT_MULTIBOOT);
		return;
	}
	if (info->flags & HAS_LOADER) {
		put_text("loader: ");
		put_text((const char *)(uintptr_t)info->loader_name);
		put_char('\n');
	}
	if (info->flags & HAS_MAP)
		show_map(info->mmap_addr, info->mmap_addr + info->mmap_length);
	if (info->flags & HAS_MODULES)
		show_modules((const struct module *)(uintptr_t)info->mods_addr, info->mods_count);
	if (info->flags & HAS_CMDLINE)
		value = take_arguments((const char *)(uintptr_t)info->cmdline);
	put_text("exit ");
	put_decimal(value);
	put_char('\n');
	out32(EXIT_PORT, value);
}
