/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/chip/test_dev.c: a value and memory in every width, and the levels of lines. */
#include "chip_fixture.h"

#include "vmm/chip/test_dev.h"

struct fix {
	struct test_dev dev;
	struct bus b;
	uint32_t levels; /* bit n: line n */
	unsigned changes;
};

static struct fix x;

static void set(void *ctx, uint32_t gsi, bool level)
{
	struct fix *f = ctx;

	assert_true(gsi < TEST_DEV_IRQS);
	f->levels = (f->levels & ~(1u << gsi)) | (uint32_t)level << gsi;
	f->changes++;
}

static int setup(void **state)
{
	static const struct irq_ops ops = {.set = set};
	const struct irq_line line0 = {.ops = &ops, .ctx = &x};

	(void)state;
	bus_init(&x.b);
	test_dev_init(&x.dev, &line0);
	assert_int_equal(test_dev_add(&x.dev, &x.b, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_dev_fini(&x.dev);
	return 0;
}

static void value(void **state)
{
	(void)state;
	bus_write(&x.b, BUS_PORTS, 0xe0, 4, 0x12345678);
	assert_int_equal(bus_read(&x.b, BUS_PORTS, 0xe8, 4), 0x12345678);
	assert_int_equal(bus_read(&x.b, BUS_PORTS, 0xe2, 2), 0x1234);
	outb(&x.b, 0xe9, 0xab);
	assert_int_equal(bus_read(&x.b, BUS_PORTS, 0xe0, 4), 0x1234ab78);
	bus_write(&x.b, BUS_PORTS, 0xe4, 4, 0x1000); /* a page to be flushed */
	assert_int_equal(bus_read(&x.b, BUS_PORTS, 0xe0, 4), 0x1234ab78);
}

static void lines(void **state)
{
	(void)state;
	for (unsigned n = 0; n < TEST_DEV_IRQS; n++) {
		outb(&x.b, 0x2000 + n, 1);
		assert_int_equal(x.levels, 1u << n);
		outb(&x.b, 0x2000 + n, 6); /* no change: any value but 0 */
		assert_int_equal(x.levels, 1u << n);
		outb(&x.b, 0x2000 + n, 0);
		assert_int_equal(x.levels, 0);
	}
	assert_int_equal(x.changes, 2 * TEST_DEV_IRQS);
	outb(&x.b, 0x2000 + TEST_DEV_IRQS, 1);
	assert_int_equal(x.changes, 2 * TEST_DEV_IRQS);
}

static void memory(void **state)
{
	uint64_t end = TEST_DEV_GPA + TEST_DEV_BYTES;

	(void)state;
	bus_write(&x.b, BUS_MMIO, TEST_DEV_GPA + 3, 8, 0x1122334455667788);
	assert_int_equal(bus_read(&x.b, BUS_MMIO, TEST_DEV_GPA + 5, 2), 0x5566);
	bus_write(&x.b, BUS_MMIO, end - 8, 8, 0x1122334455667788);
	assert_int_equal(bus_read(&x.b, BUS_MMIO, end - 1, 1), 0x11);
	/* Over its end: the rest is nobody's. */
	bus_write(&x.b, BUS_MMIO, end - 4, 8, 0);
	assert_int_equal(bus_read(&x.b, BUS_MMIO, end - 4, 8), 0xffffffff00000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(value),
		cmocka_unit_test(lines),
		cmocka_unit_test(memory),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
