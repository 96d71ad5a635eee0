/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/chip/serial_16550.c against the PC16550D data sheet: each register, the order of interrupts,
 * both FIFOs, loopback, and the probes that Linux's 8250 driver makes.
 */
#include "chip_fixture.h"
#include "vmm/chip/serial_16550.h"

#define PORT SERIAL_COM1_PORT

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR };

struct fixture {
	struct serial s;
	struct bus b;
	struct fake_irq irq;
	uint8_t out[8192];
	unsigned out_len, rooms;
};

static void fx_output(void *ctx, uint8_t byte)
{
	struct fixture *f = ctx;

	f->out[f->out_len++ % sizeof(f->out)] = byte;
}

static void fx_room(void *ctx)
{
	((struct fixture *)ctx)->rooms++;
}

static int setup(void **state)
{
	static const struct serial_ops ops = {.output = fx_output, .room = fx_room};
	struct fixture *f = test_calloc(1, sizeof(*f));
	struct irq_line line = fake_irq_line(&f->irq, SERIAL_COM1_GSI);

	serial_init(&f->s, &ops, f, &line);
	bus_init(&f->b);
	*state = f;
	return bus_add(&f->b, BUS_PORTS, PORT, SERIAL_PORTS, &serial_bus_ops, &f->s, "com1", NULL);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	serial_fini(&f->s);
	test_free(f);
	return 0;
}

static uint8_t rd(struct fixture *f, unsigned reg)
{
	return inb(&f->b, PORT + reg);
}

static void wr(struct fixture *f, unsigned reg, uint8_t value)
{
	outb(&f->b, PORT + reg, value);
}

static void after_reset(void **state)
{
	static const struct {
		unsigned reg;
		uint8_t value;
	} table[] = {
		{IER, 0}, {IIR, 0x01}, {LCR, 0}, {MCR, 0}, {LSR, 0x60}, {MSR, 0xb0}, {SCR, 0},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++)
		assert_int_equal(rd(f, table[i].reg), table[i].value);
	assert_false(f->irq.level);
}

/* Every bit pattern: which bits stick, for each register that can be written and read. */
static void bits_that_stick(void **state)
{
	static const struct {
		unsigned reg;
		uint8_t mask;
	} table[] = {{IER, 0x0f}, {LCR, 0xff}, {MCR, 0x1f}, {SCR, 0xff}};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++)
		for (unsigned v = 0; v < 256; v++) {
			wr(f, table[i].reg, (uint8_t)v);
			assert_int_equal(rd(f, table[i].reg), v & table[i].mask);
			wr(f, table[i].reg, 0);
		}
	/* LSR and MSR are not written. */
	wr(f, LSR, 0xff);
	assert_int_equal(rd(f, LSR), 0x60);
	(void)rd(f, MSR);
	wr(f, MSR, 0xff);
	assert_int_equal(rd(f, MSR), 0xb0);
}

static void divisor_latch(void **state)
{
	struct fixture *f = *state;

	wr(f, IER, 0x0f);
	wr(f, LCR, 0x83);
	assert_int_equal(rd(f, RBR), 1); /* never 0: drivers divide by it */
	assert_int_equal(rd(f, IER), 0);
	wr(f, RBR, 0x34);
	wr(f, IER, 0x12);
	assert_int_equal(rd(f, RBR), 0x34);
	assert_int_equal(rd(f, IER), 0x12);
	assert_int_equal(f->out_len, 0);
	wr(f, LCR, 0x03);
	assert_int_equal(rd(f, IER), 0x0f); /* untouched */
	wr(f, RBR, 'x');
	assert_int_equal(f->out_len, 1);
	wr(f, LCR, 0x80);
	assert_int_equal(rd(f, RBR), 0x34);
}

static void output(void **state)
{
	struct fixture *f = *state;

	for (const char *p = "hello\xff"; *p; p++) {
		assert_int_equal(rd(f, LSR) & 0x60, 0x60);
		wr(f, RBR, (uint8_t)*p);
	}
	assert_int_equal(f->out_len, 6);
	assert_memory_equal(f->out, "hello\xff", 6);
	assert_int_equal(f->irq.rises, 0);
}

/* THRE: on enabling, after each byte, cleared by reading IIR or by the next byte. */
static void transmitter_interrupt(void **state)
{
	struct fixture *f = *state;

	wr(f, IER, 0x02);
	assert_true(f->irq.level);
	assert_int_equal(rd(f, IIR), 0x02);
	assert_false(f->irq.level);
	assert_int_equal(rd(f, IIR), 0x01);
	wr(f, IER, 0x02); /* no change, no event */
	assert_false(f->irq.level);
	wr(f, RBR, 'a');
	assert_true(f->irq.level);
	/* A new edge for each byte, though nobody read IIR in between. */
	unsigned rises = f->irq.rises;

	wr(f, RBR, 'b');
	assert_int_equal(f->irq.rises, rises + 1);
	assert_true(f->irq.level);
	wr(f, IER, 0);
	assert_false(f->irq.level);
	/* Linux's test for chips that forget: enabling again tells again. */
	wr(f, IER, 0x02);
	assert_int_equal(rd(f, IIR) & 0x0f, 0x02);
	wr(f, IER, 0);
	wr(f, IER, 0x02);
	assert_int_equal(rd(f, IIR) & 0x0f, 0x02);
}

static void receiver_without_fifo(void **state)
{
	struct fixture *f = *state;

	wr(f, IER, 0x01);
	assert_int_equal(serial_push(&f->s, "ab", 2), 2);
	assert_true(f->irq.level);
	assert_int_equal(rd(f, IIR), 0x04);
	assert_true(f->irq.level); /* reading IIR does not take it back */
	assert_int_equal(rd(f, LSR), 0x61);
	assert_int_equal(rd(f, RBR), 'a');
	assert_int_equal(rd(f, LSR), 0x61); /* the next had waited outside */
	assert_int_equal(rd(f, RBR), 'b');
	assert_int_equal(rd(f, LSR), 0x60);
	assert_false(f->irq.level);
	assert_int_equal(rd(f, IIR), 0x01);
}

/* Trigger levels; below them the time-out interrupt, at them the other. */
static void receiver_fifo(void **state)
{
	static const uint8_t level[4] = {1, 4, 8, 14};
	struct fixture *f = *state;

	wr(f, IER, 0x01);
	for (unsigned t = 0; t < 4; t++) {
		wr(f, IIR, (uint8_t)(t << 6 | 0x07));
		assert_int_equal(rd(f, IIR), 0xc1);
		for (unsigned n = 1; n <= 16; n++) {
			uint8_t byte = (uint8_t)n;

			assert_int_equal(serial_push(&f->s, &byte, 1), 1);
			assert_true(f->irq.level);
			assert_int_equal(rd(f, IIR), n >= level[t] ? 0xc4 : 0xcc);
		}
		for (unsigned n = 1; n <= 16; n++) {
			assert_int_equal(rd(f, LSR), 0x61);
			assert_int_equal(rd(f, RBR), n);
		}
		assert_int_equal(rd(f, LSR), 0x60);
		assert_false(f->irq.level);
	}
}

static void fifo_control(void **state)
{
	struct fixture *f = *state;

	/* Without bit 0 the others do not count, and IIR shows no FIFO. */
	wr(f, IIR, 0xc6);
	assert_int_equal(rd(f, IIR), 0x01);
	wr(f, IIR, 0x01);
	assert_int_equal(rd(f, IIR), 0xc1);
	/* 16750's 64 bytes: bit 5 must not come back. */
	wr(f, LCR, 0x80);
	wr(f, IIR, 0x21);
	assert_int_equal(rd(f, IIR), 0xc1);
	wr(f, LCR, 0);
	/* Clearing. What waits outside comes after. */
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(serial_push(&f->s, &(uint8_t){(uint8_t)i}, 1), 1);
	wr(f, IIR, 0x03);
	assert_int_equal(rd(f, RBR), 16);
	assert_int_equal(rd(f, RBR), 17);
	/* Changing bit 0 empties as well. */
	wr(f, IIR, 0x00);
	assert_int_equal(rd(f, LSR), 0x60);
	assert_int_equal(rd(f, IIR), 0x01);
	wr(f, IIR, 0x04); /* transmitter: always empty */
	assert_int_equal(rd(f, LSR), 0x60);
}

static void bounded_input(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[SERIAL_BACKLOG_BYTES + 100];
	size_t total = 0, taken;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7);
	wr(f, IIR, 0x01);
	do {
		taken = serial_push(&f->s, bytes + total, sizeof(bytes) - total);
		total += taken;
	} while (taken);
	assert_int_equal(total, SERIAL_BACKLOG_BYTES + SERIAL_FIFO_BYTES);
	for (size_t i = 0; i < total; i++) {
		assert_int_equal(rd(f, LSR), 0x61);
		assert_int_equal(rd(f, RBR), bytes[i]);
		/* Told once, when half of it is free: what left the line went into the FIFO. */
		assert_int_equal(f->rooms, i + 1 >= SERIAL_BACKLOG_BYTES / 2);
	}
	assert_int_equal(rd(f, LSR), 0x60);
}

static void line_status(void **state)
{
	struct fixture *f = *state;

	/* Break without FIFO: BI, and a zero byte; cleared by reading. */
	wr(f, IER, 0x05);
	serial_push_break(&f->s);
	assert_int_equal(rd(f, IIR), 0x06);
	assert_int_equal(rd(f, LSR), 0x71);
	assert_int_equal(rd(f, IIR), 0x04);
	assert_int_equal(rd(f, LSR), 0x61);
	assert_int_equal(rd(f, RBR), 0);
	/* With FIFO: bit 7 from the start, BI when its byte is on top. */
	wr(f, IIR, 0x01);
	assert_int_equal(serial_push(&f->s, "a", 1), 1);
	serial_push_break(&f->s);
	assert_int_equal(rd(f, LSR), 0xe1);
	assert_int_equal(rd(f, IIR) & 0x0f, 0x04);
	assert_int_equal(rd(f, RBR), 'a');
	assert_int_equal(rd(f, IIR) & 0x0f, 0x06);
	assert_int_equal(rd(f, LSR), 0xf1);
	assert_int_equal(rd(f, LSR), 0x61);
	assert_int_equal(rd(f, RBR), 0);
	assert_false(f->irq.level);
}

/* Highest first: line status, received data, time-out, transmitter, modem. */
static void interrupt_priorities(void **state)
{
	struct fixture *f = *state;

	wr(f, IIR, 0x01);
	serial_push_break(&f->s);
	serial_set_modem(&f->s, SERIAL_CTS);
	wr(f, IER, 0x0f);
	assert_int_equal(rd(f, IIR), 0xc6);
	assert_int_equal(rd(f, IIR), 0xc6); /* THRE is not lost by looking */
	(void)rd(f, LSR);
	assert_int_equal(rd(f, IIR), 0xc4);
	(void)rd(f, RBR);
	assert_int_equal(rd(f, IIR), 0xc2);
	assert_int_equal(rd(f, IIR), 0xc0);
	assert_int_equal(rd(f, MSR), 0x1a);
	assert_int_equal(rd(f, IIR), 0xc1);
	assert_false(f->irq.level);
	/* Each is silent when it is not enabled. */
	serial_push_break(&f->s);
	serial_set_modem(&f->s, 0);
	for (unsigned ier = 0; ier < 16; ier++) {
		static const uint8_t of_bit[4] = {0xc4, 0xc2, 0xc6, 0xc0};
		static const unsigned order[4] = {2, 0, 1, 3};
		uint8_t want = 0xc1;

		for (unsigned i = 4; i-- > 0;)
			if (ier & 1u << order[i])
				want = of_bit[order[i]];
		wr(f, IER, 0);
		wr(f, IER, (uint8_t)ier);
		assert_int_equal(f->irq.level, want != 0xc1);
		assert_int_equal(rd(f, IIR), want);
	}
}

static void modem_deltas(void **state)
{
	static const struct {
		uint8_t from, to, msr;
	} table[] = {
		{0x00, SERIAL_CTS, 0x11}, {SERIAL_CTS, 0x00, 0x01}, {0x00, SERIAL_DSR, 0x22},
		{SERIAL_DSR, 0x00, 0x02}, {0x00, SERIAL_RI, 0x40},  {SERIAL_RI, 0x00, 0x04},
		{0x00, SERIAL_DCD, 0x88}, {SERIAL_DCD, 0x00, 0x08}, {0xf0, 0xf0, 0xf0},
		{0x0f, 0xff, 0xfb},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		serial_set_modem(&f->s, table[i].from);
		(void)rd(f, MSR);
		serial_set_modem(&f->s, table[i].to);
		assert_int_equal(rd(f, MSR), table[i].msr);
		assert_int_equal(rd(f, MSR), table[i].msr & 0xf0);
	}
}

static void loopback(void **state)
{
	static const struct {
		uint8_t mcr, msr;
	} lines[] = {{0x10, 0}, {0x11, 0x20}, {0x12, 0x10}, {0x14, 0x40}, {0x18, 0x80},
		     {0x1a, 0x90}, /* Linux's probe */
		     {0x1f, 0xf0}};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
		wr(f, MCR, lines[i].mcr);
		assert_int_equal(rd(f, MSR) & 0xf0, lines[i].msr);
		assert_int_equal(rd(f, MSR), lines[i].msr);
	}
	/* Nothing goes out, nothing comes in, and the FIFO overruns at 16. */
	wr(f, IIR, 0x07);
	wr(f, IER, 0x05);
	assert_int_equal(serial_push(&f->s, "outside", 7), 7);
	for (unsigned i = 0; i < 17; i++)
		wr(f, RBR, (uint8_t)(0x40 + i));
	assert_int_equal(f->out_len, 0);
	assert_int_equal(rd(f, IIR), 0xc6);
	assert_int_equal(rd(f, LSR), 0x63);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(rd(f, RBR), 0x40 + i);
	assert_int_equal(rd(f, LSR), 0x60);
	/* Without FIFO the newer byte wins. */
	wr(f, IIR, 0x00);
	wr(f, RBR, 1);
	wr(f, RBR, 2);
	assert_int_equal(rd(f, LSR), 0x63);
	assert_int_equal(rd(f, RBR), 2);
	wr(f, MCR, 0x0b);
	for (const char *p = "outside"; *p; p++)
		assert_int_equal(rd(f, RBR), *p);
	assert_int_equal(rd(f, MSR) & 0xf0, 0xb0);
}

/* A wide access to an 8-bit chip: Linux reads LSR and MSR in one word on some boards. */
static void wide_access(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(bus_read(&f->b, BUS_PORTS, PORT + LSR, 2), 0xb060);
	bus_write(&f->b, BUS_PORTS, PORT + SCR, 2, 0x55aa);
	assert_int_equal(rd(f, SCR), 0xaa);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(after_reset),
		TEST(bits_that_stick),
		TEST(divisor_latch),
		TEST(output),
		TEST(transmitter_interrupt),
		TEST(receiver_without_fifo),
		TEST(receiver_fifo),
		TEST(fifo_control),
		TEST(bounded_input),
		TEST(line_status),
		TEST(interrupt_priorities),
		TEST(modem_deltas),
		TEST(loopback),
		TEST(wide_access),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
