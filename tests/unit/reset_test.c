/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/chip/reset.c: what resets and what does not, and the exit port's status. */
#include "chip_fixture.h"
#include "vmm/chip/reset.h"

struct fixture {
	struct reset r;
	struct exit_port x;
	struct bus b;
	unsigned resets, ends;
	uint32_t status;
};

static void fx_reset(void *ctx)
{
	((struct fixture *)ctx)->resets++;
}

static void fx_ended(void *ctx, uint32_t status)
{
	struct fixture *f = ctx;

	f->ends++;
	f->status = status;
}

static void init(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	reset_init(&f->r, fx_reset, f);
	f->x = (struct exit_port){.ended = fx_ended, .ctx = f};
	bus_init(&f->b);
	assert_int_equal(bus_add(&f->b, BUS_PORTS, I8042_DATA_PORT, 1,
				 &reset_i8042_data_bus_ops, &f->r, "data", NULL), 0);
	assert_int_equal(bus_add(&f->b, BUS_PORTS, I8042_COMMAND_PORT, 1,
				 &reset_i8042_command_bus_ops, &f->r, "command", NULL), 0);
	assert_int_equal(bus_add(&f->b, BUS_PORTS, EXIT_PORT, EXIT_PORTS, &exit_port_bus_ops,
				 &f->x, "exit", NULL), 0);
}

static void keyboard_controller(void **state)
{
	struct fixture f;

	(void)state;
	init(&f);
	/* Never busy, never a key: loops that wait for either end. */
	assert_int_equal(inb(&f.b, 0x64) & 0x03, 0);
	assert_int_equal(inb(&f.b, 0x60), 0);
	for (unsigned c = 0; c < 256; c++)
		if (c != 0xfe && c != 0xd1)
			outb(&f.b, 0x64, (uint8_t)c);
	outb(&f.b, 0x60, 0x00);
	assert_int_equal(f.resets, 0);
	outb(&f.b, 0x64, 0xfe);
	assert_int_equal(f.resets, 1);
	outb(&f.b, 0x64, 0xd1);
	outb(&f.b, 0x60, 0x03); /* A20 on, running */
	outb(&f.b, 0x60, 0x00);
	assert_int_equal(f.resets, 1);
	outb(&f.b, 0x64, 0xd1);
	outb(&f.b, 0x60, 0x02);
	assert_int_equal(f.resets, 2);
}

static void exit_port(void **state)
{
	struct fixture f;

	(void)state;
	init(&f);
	f.status = UINT32_MAX;
	outb(&f.b, 0xf4, 0);
	assert_int_equal(f.status, 0);
	outb(&f.b, 0xf4, 0x10);
	assert_int_equal(f.status, 0x10);
	bus_write(&f.b, BUS_PORTS, 0xf4, 4, 0x12345678);
	assert_int_equal(f.status, 0x12345678);
	bus_write(&f.b, BUS_PORTS, 0xf4, 2, 0xffff);
	assert_int_equal(f.status, 0xffff);
	assert_int_equal(f.ends, 4);
	outb(&f.b, 0xf5, 1);
	assert_int_equal(f.ends, 4);
	assert_int_equal(inb(&f.b, 0xf4), 0xff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keyboard_controller),
		cmocka_unit_test(exit_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
