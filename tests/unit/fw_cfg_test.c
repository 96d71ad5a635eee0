/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/chip/fw_cfg.c: the items that are there, byte by byte, and everything else. */
#include "chip_fixture.h"

#include "vmm/chip/fw_cfg.h"

static uint64_t item(const struct bus *b, uint16_t n, unsigned bytes)
{
	uint64_t value = 0;

	bus_write(b, BUS_PORTS, FW_CFG_PORT, 2, n);
	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)inb(b, FW_CFG_PORT + 1) << 8 * i;
	return value;
}

static void items(void **state)
{
	struct fw_cfg f;
	struct bus b;

	(void)state;
	bus_init(&b);
	fw_cfg_init(&f, 0x1234567890ab, 7);
	assert_int_equal(bus_add(&b, BUS_PORTS, FW_CFG_PORT, FW_CFG_PORTS, &fw_cfg_bus_ops, &f,
				 "fw_cfg", NULL), 0);
	assert_int_equal(item(&b, 0, 4), 'Q' | 'E' << 8 | 'M' << 16 | (uint32_t)'U' << 24);
	assert_int_equal(item(&b, 1, 4), 1);
	assert_int_equal(item(&b, 3, 8), 0x1234567890ab);
	assert_int_equal(item(&b, 5, 2), 7);
	assert_int_equal(item(&b, 0x0f, 2), 7);
	/* Zeroes behind an item's end, however often, and for what is not there. */
	assert_int_equal(item(&b, 5, 8), 7);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(inb(&b, FW_CFG_PORT + 1), 0);
	for (unsigned n = 0; n < 0x10000; n++)
		if (n > 1 && n != 3 && n != 5 && n != 0x0f)
			assert_int_equal(item(&b, (uint16_t)n, 8), 0);
	/* An item is selected by a word, and is not written. */
	assert_int_equal(item(&b, 5, 1), 7);
	outb(&b, FW_CFG_PORT, 3);
	outb(&b, FW_CFG_PORT + 1, 3);
	assert_int_equal(inb(&b, FW_CFG_PORT + 1), 0);
	assert_int_equal(item(&b, 5, 2), 7);
	fw_cfg_fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(items)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
