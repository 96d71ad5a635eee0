/* SPDX-License-Identifier: Apache-2.0 */
/* The first serial port, formatted text, and how the machine is ended. */
#include <stdarg.h>

#include "kernel.h"

#define SERIAL_PORT 0x3f8
#define SERIAL_LSR 5
#define SERIAL_LSR_THRE 0x20
#define SERIAL_WAIT_MAX 1000 /* reads; a port that is never ready must not hang us */
#define EXIT_PORT 0xf4
#define EXIT_BAILED_OUT 2

/* Where formatted text goes: the port, or a buffer. */
struct sink {
	char *at;
	char *end; /* NULL: the port */
};

static void put(struct sink *s, char c)
{
	if (s->end) {
		if (s->at < s->end)
			*s->at++ = c;
		return;
	}
	for (int i = 0; i < SERIAL_WAIT_MAX; i++)
		if (in8(SERIAL_PORT + SERIAL_LSR) & SERIAL_LSR_THRE)
			break;
	out8(SERIAL_PORT, (uint8_t)c);
}

static void put_number(struct sink *s, uint64_t v, unsigned base)
{
	char digits[24];
	unsigned i = sizeof(digits);

	do {
		digits[--i] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (i < sizeof(digits))
		put(s, digits[i++]);
}

static void format(struct sink *s, const char *f, va_list ap)
{
	for (; *f; f++) {
		const char *text;

		if (*f != '%') {
			put(s, *f);
			continue;
		}
		switch (*++f) {
		case 's':
			for (text = va_arg(ap, const char *); *text; text++)
				put(s, *text);
			break;
		case 'u':
			put_number(s, va_arg(ap, uint64_t), 10);
			break;
		case 'x':
			put(s, '0');
			put(s, 'x');
			put_number(s, va_arg(ap, uint64_t), 16);
			break;
		default:
			return;
		}
	}
}

void print(const char *f, ...)
{
	struct sink port = {0};
	va_list ap;

	va_start(ap, f);
	format(&port, f, ap);
	va_end(ap);
}

const char *fails(const char *f, ...)
{
	static char text[200];
	struct sink buffer = {text, text + sizeof(text) - 1};
	va_list ap;

	va_start(ap, f);
	format(&buffer, f, ap);
	va_end(ap);
	*buffer.at = '\0';
	return text;
}

/* Who has no such port: the processor halts, and whoever watches reads the plan line. */
_Noreturn void stop(uint32_t value)
{
	for (;;)
		asm volatile("outl %0, %w1\n\tcli\n\thlt" : : "a"(value), "d"(EXIT_PORT));
}

_Noreturn void bail_out(const char *f, ...)
{
	struct sink port = {0};
	va_list ap;

	print("Bail out! ");
	va_start(ap, f);
	format(&port, f, ap);
	va_end(ap);
	print("\n");
	stop(EXIT_BAILED_OUT);
}

/* The compiler may ask for these by name. */
void *memset(void *to, int value, size_t count);
void *memset(void *to, int value, size_t count)
{
	void *p = to;

	asm volatile("rep stosb" : "+D"(p), "+c"(count) : "a"(value) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t count);
void *memcpy(void *to, const void *from, size_t count)
{
	void *p = to;

	asm volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(count) : : "memory");
	return to;
}
