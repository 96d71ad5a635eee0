/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/chip/pm.c: the registers of acpi_pm.h on a bus. Their bits: acpi_test.c. */
#include "chip_fixture.h"
#include "vmm/chip/pm.h"

struct fixture {
	struct pm p;
	struct bus b;
	unsigned offs, resets;
};

static void fx_power_off(void *ctx)
{
	((struct fixture *)ctx)->offs++;
}

static void fx_reset(void *ctx)
{
	((struct fixture *)ctx)->resets++;
}

static const struct pm_ops fx_ops = {.power_off = fx_power_off, .reset = fx_reset};

static void power_off_and_reset(void **state)
{
	const uint16_t s5 = ACPI_S5_TYPE << 10;
	struct fixture f = {0};

	(void)state;
	pm_init(&f.p, &fx_ops, &f);
	bus_init(&f.b);
	assert_int_equal(pm_add(&f.p, &f.b, NULL), 0);
	assert_int_equal(pm_add(&f.p, &f.b, NULL), -EEXIST);

	/* As Linux goes to S5: the type first, then with the enable bit; words. */
	bus_write(&f.b, BUS_PORTS, ACPI_PM1_CNT_PORT, 2, s5);
	assert_int_equal(f.offs, 0);
	bus_write(&f.b, BUS_PORTS, ACPI_PM1_CNT_PORT, 2, s5 | 0x2000);
	assert_int_equal(f.offs, 1);
	bus_write(&f.b, BUS_PORTS, ACPI_PM1_CNT_PORT, 2, 0x2000 | 1 << 10); /* S1: no such */
	assert_int_equal(f.offs, 1);
	assert_true(bus_read(&f.b, BUS_PORTS, ACPI_PM1_CNT_PORT, 2) & 1); /* SCI_EN */
	bus_write(&f.b, BUS_PORTS, ACPI_PM1_EVT_PORT, 4, 0x0120ffff);
	assert_true(bus_read(&f.b, BUS_PORTS, ACPI_PM1_EVT_PORT, 4) == 0x01200000);

	outb(&f.b, ACPI_RESET_PORT, 0x02);
	bus_write(&f.b, BUS_PORTS, ACPI_RESET_PORT - 1, 4, 0x80000600); /* PCI, not reset */
	assert_int_equal(f.resets, 0);
	outb(&f.b, ACPI_RESET_PORT, ACPI_RESET_VALUE);
	assert_int_equal(f.resets, 1);
	assert_int_equal(f.offs, 1);
	pm_fini(&f.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(power_off_and_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
