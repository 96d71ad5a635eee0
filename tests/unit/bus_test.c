/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/chip/bus.c: who answers, what overlaps, how accesses are cut, what nobody answers. */
#include "chip_fixture.h"

#define LOG_MAX 16

struct fake_dev {
	uint8_t bytes[16];
	unsigned calls;
	struct {
		uint64_t offset, value;
		unsigned width;
	} log[LOG_MAX];
};

static uint64_t fake_read(void *dev, uint64_t offset, unsigned width)
{
	struct fake_dev *d = dev;
	uint64_t value = UINT64_MAX; /* what is above width must not show */

	assert_true(offset + width <= sizeof(d->bytes));
	memcpy(&value, d->bytes + offset, width);
	d->calls++;
	return value;
}

static void fake_write(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	struct fake_dev *d = dev;

	assert_true(offset + width <= sizeof(d->bytes));
	assert_true(d->calls < LOG_MAX);
	d->log[d->calls].offset = offset;
	d->log[d->calls].width = width;
	d->log[d->calls++].value = value;
	memcpy(d->bytes + offset, &value, width);
}

static const struct bus_ops wide_ops = {
	.read = fake_read, .write = fake_write, .width_max = 8};
static const struct bus_ops narrow_ops = {
	.read = fake_read, .write = fake_write, .width_max = 1};

static void nobody_reads_all_ones(void **state)
{
	struct bus b;

	(void)state;
	bus_init(&b);
	assert_true(bus_read(&b, BUS_PORTS, 0x80, 1) == 0xff);
	assert_true(bus_read(&b, BUS_PORTS, 0x80, 2) == 0xffff);
	assert_true(bus_read(&b, BUS_MMIO, 0xd0000000, 4) == 0xffffffff);
	assert_true(bus_read(&b, BUS_MMIO, UINT64_MAX, 8) == UINT64_MAX);
	bus_write(&b, BUS_MMIO, UINT64_MAX, 8, 1);
	bus_write(&b, BUS_PORTS, 0xffff, 4, 1);
}

static void overlap_is_refused(void **state)
{
	static const struct {
		uint64_t base, len;
		int rc;
	} cases[] = {
		{0x100, 0x10, -EEXIST}, {0x10f, 1, -EEXIST},   {0xff, 2, -EEXIST},
		{0x0, 0x1000, -EEXIST}, {0x108, 1, -EEXIST},   {0x110, 0x10, 0},
		{0xf0, 0x10, 0},        {0x200, 0, -EINVAL},   {0xffff, 2, -EINVAL},
		{0x10000, 1, -EINVAL},  {0xffff, 1, 0},        {1, UINT64_MAX, -EINVAL},
	};
	struct fake_dev d = {0};
	struct err e;
	struct bus b;

	(void)state;
	bus_init(&b);
	assert_int_equal(bus_add(&b, BUS_PORTS, 0x100, 0x10, &wide_ops, &d, "first", &e), 0);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(bus_add(&b, BUS_PORTS, cases[i].base, cases[i].len, &wide_ops,
					 &d, "second", &e), cases[i].rc);
	assert_int_equal(b.count[BUS_PORTS], 4);
	/* The other space is another space; its last byte is usable. */
	assert_int_equal(bus_add(&b, BUS_MMIO, 0x100, 0x10, &wide_ops, &d, "mmio", &e), 0);
	assert_int_equal(bus_add(&b, BUS_MMIO, UINT64_MAX, 1, &wide_ops, &d, "end", &e), 0);
	assert_int_equal(bus_add(&b, BUS_PORTS, 0x108, 4, &wide_ops, &d, "late", &e), -EEXIST);
	assert_string_equal(e.text, "late: its addresses 0x108-0x10b overlap first");
}

static void full_bus_says_so(void **state)
{
	struct fake_dev d = {0};
	struct err e;
	struct bus b;

	(void)state;
	bus_init(&b);
	for (unsigned i = BUS_REGIONS_MAX; i > 0; i--) /* backwards: they are sorted */
		assert_int_equal(bus_add(&b, BUS_PORTS, i * 16, 16, &wide_ops, &d, "d", &e), 0);
	assert_int_equal(bus_add(&b, BUS_PORTS, 0x8000, 1, &wide_ops, &d, "more", &e), -ENOSPC);
	for (unsigned i = 1; i < BUS_REGIONS_MAX; i++)
		assert_true(b.regions[BUS_PORTS][i - 1].base < b.regions[BUS_PORTS][i].base);
}

/* From the first byte to the last, and not one more; beside each other, and at the very end. */
static void each_byte_has_its_device(void **state)
{
	static const struct {
		uint64_t base, len;
	} at[] = {{0x100, 16}, {0x110, 1}, {0x111, 8}, {UINT64_MAX, 1}};
	struct fake_dev d[ARRAY_LEN(at)] = {0};
	struct bus b;

	(void)state;
	bus_init(&b);
	for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
		memset(d[i].bytes, (int)i + 1, sizeof(d[i].bytes));
		assert_int_equal(bus_add(&b, BUS_MMIO, at[i].base, at[i].len, &wide_ops, &d[i],
					 "d", NULL), 0);
	}
	for (unsigned i = 0; i < ARRAY_LEN(at); i++)
		for (uint64_t k = 0; k < at[i].len; k++)
			assert_int_equal(bus_read(&b, BUS_MMIO, at[i].base + k, 1), i + 1);
	assert_int_equal(bus_read(&b, BUS_MMIO, 0xff, 1), 0xff);
	assert_int_equal(bus_read(&b, BUS_MMIO, 0x119, 1), 0xff);
	assert_int_equal(bus_read(&b, BUS_MMIO, UINT64_MAX - 1, 1), 0xff);
}

static void wide_device_gets_it_whole(void **state)
{
	struct fake_dev d = {0};
	struct bus b;

	(void)state;
	bus_init(&b);
	assert_int_equal(bus_add(&b, BUS_MMIO, 0x1000, 16, &wide_ops, &d, "d", NULL), 0);
	for (unsigned width = 1; width <= 8; width *= 2) {
		d.calls = 0;
		bus_write(&b, BUS_MMIO, 0x1003, width, 0x8877665544332211);
		assert_int_equal(d.calls, 1);
		assert_int_equal(d.log[0].offset, 3);
		assert_int_equal(d.log[0].width, width);
		assert_true(bus_read(&b, BUS_MMIO, 0x1003, width) == d.log[0].value);
		assert_true(d.log[0].value == 0x8877665544332211 << (64 - 8 * width) >>
			    (64 - 8 * width));
	}
}

static void narrow_device_gets_bytes_in_order(void **state)
{
	struct fake_dev d = {0};
	struct bus b;

	(void)state;
	bus_init(&b);
	assert_int_equal(bus_add(&b, BUS_PORTS, 0x70, 16, &narrow_ops, &d, "d", NULL), 0);
	bus_write(&b, BUS_PORTS, 0x72, 4, 0x44332211);
	assert_int_equal(d.calls, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(d.log[i].offset, 2 + i);
		assert_int_equal(d.log[i].width, 1);
		assert_int_equal(d.log[i].value, 0x11 * (i + 1));
	}
	assert_true(bus_read(&b, BUS_PORTS, 0x72, 4) == 0x44332211);
}

/* What leaves the region is nobody's, even if a neighbour is there. */
static void pieces_stay_in_the_region(void **state)
{
	struct fake_dev d = {0}, next = {0};
	struct bus b;

	(void)state;
	bus_init(&b);
	assert_int_equal(bus_add(&b, BUS_PORTS, 0xcf9, 1, &narrow_ops, &d, "d", NULL), 0);
	assert_int_equal(bus_add(&b, BUS_PORTS, 0xcfa, 4, &narrow_ops, &next, "n", NULL), 0);
	bus_write(&b, BUS_PORTS, 0xcf8, 4, 0x80000600); /* starts at nobody */
	assert_int_equal(d.calls + next.calls, 0);
	bus_write(&b, BUS_PORTS, 0xcf9, 4, 0x04030201);
	assert_int_equal(d.calls, 1);
	assert_int_equal(next.calls, 0);
	assert_true(bus_read(&b, BUS_PORTS, 0xcf9, 2) == 0xff01);
	/* At the end of the address space nothing wraps to its start. */
	assert_int_equal(bus_add(&b, BUS_MMIO, UINT64_MAX, 1, &wide_ops, &d, "end", NULL), 0);
	assert_int_equal(bus_add(&b, BUS_MMIO, 0, 8, &wide_ops, &next, "start", NULL), 0);
	assert_true(bus_read(&b, BUS_MMIO, UINT64_MAX, 4) == 0xffffff01);
	assert_int_equal(next.calls, 0);
}

static void odd_lengths_as_kvm_reports_them(void **state)
{
	static const uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct fake_dev d = {0};
	uint8_t got[8];
	struct bus b;

	(void)state;
	bus_init(&b);
	assert_int_equal(bus_add(&b, BUS_MMIO, 0x1000, 16, &wide_ops, &d, "d", NULL), 0);
	for (unsigned len = 1; len <= 8; len++) {
		memset(d.bytes, 0, sizeof(d.bytes));
		memset(got, 0, sizeof(got));
		d.calls = 0;
		bus_access(&b, BUS_MMIO, 0x1001, (uint8_t *)(uintptr_t)bytes, len, true);
		assert_int_equal(d.calls, __builtin_popcount(len));
		assert_memory_equal(d.bytes + 1, bytes, len);
		assert_int_equal(d.bytes[1 + len], 0);
		bus_access(&b, BUS_MMIO, 0x1001, got, len, false);
		assert_memory_equal(got, bytes, len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_reads_all_ones),
		cmocka_unit_test(overlap_is_refused),
		cmocka_unit_test(full_bus_says_so),
		cmocka_unit_test(each_byte_has_its_device),
		cmocka_unit_test(wide_device_gets_it_whole),
		cmocka_unit_test(narrow_device_gets_bytes_in_order),
		cmocka_unit_test(pieces_stay_in_the_region),
		cmocka_unit_test(odd_lengths_as_kvm_reports_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
