/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/chip/rtc_cmos.c: time registers in each format, setting the clock, memory, status. */
#include <time.h>

#include "chip_fixture.h"
#include "vmm/chip/rtc_cmos.h"

struct fixture {
	struct rtc r;
	struct bus b;
	int64_t now;
};

static int64_t fx_now(void *ctx)
{
	return ((struct fixture *)ctx)->now;
}

static int setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));

	f->now = 1709251199; /* 2024-02-29 23:59:59, a Thursday */
	rtc_init(&f->r, fx_now, f);
	bus_init(&f->b);
	*state = f;
	return bus_add(&f->b, BUS_PORTS, RTC_PORT, RTC_PORTS, &rtc_bus_ops, &f->r, "rtc", NULL);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rtc_fini(&f->r);
	test_free(f);
	return 0;
}

static uint8_t rd(struct fixture *f, uint8_t reg)
{
	outb(&f->b, RTC_PORT, reg);
	return inb(&f->b, RTC_PORT + 1);
}

static void wr(struct fixture *f, uint8_t reg, uint8_t value)
{
	outb(&f->b, RTC_PORT, reg);
	outb(&f->b, RTC_PORT + 1, value);
}

/* seconds, minutes, hours, weekday, day, month, year, century */
static void expect(struct fixture *f, const uint8_t *want)
{
	static const uint8_t regs[8] = {0, 2, 4, 6, 7, 8, 9, RTC_CENTURY};

	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(rd(f, regs[i]), want[i]);
}

static void formats(void **state)
{
	static const uint8_t bcd24[8] = {0x59, 0x59, 0x23, 5, 0x29, 0x02, 0x24, 0x20};
	static const uint8_t bin24[8] = {59, 59, 23, 5, 29, 2, 24, 20};
	static const uint8_t bcd12[8] = {0x59, 0x59, 0x91, 5, 0x29, 0x02, 0x24, 0x20};
	static const uint8_t bin12[8] = {59, 59, 0x8b, 5, 29, 2, 24, 20};
	static const uint8_t next[8] = {0, 0, 0x12, 6, 0x01, 0x03, 0x24, 0x20};
	struct fixture *f = *state;

	assert_int_equal(rd(f, 11), 0x02);
	expect(f, bcd24);
	wr(f, 11, 0x06);
	expect(f, bin24);
	wr(f, 11, 0x00);
	expect(f, bcd12);
	wr(f, 11, 0x04);
	expect(f, bin12);
	wr(f, 11, 0x00);
	f->now++; /* midnight is 12 AM */
	expect(f, next);
	f->now += 43200; /* noon is 12 PM */
	assert_int_equal(rd(f, 4), 0x92);
}

/* All hours, both ways: what is read and written back does not move the clock. */
static void hours_round_trip(void **state)
{
	static const uint8_t modes[4] = {0x00, 0x02, 0x04, 0x06};
	struct fixture *f = *state;

	for (unsigned m = 0; m < 4; m++)
		for (unsigned h = 0; h < 24; h++) {
			wr(f, 11, modes[m]);
			f->now += 3600;
			wr(f, 4, rd(f, 4));
			assert_int_equal(f->r.offset_s, 0);
		}
}

static void setting_the_clock(void **state)
{
	static const uint8_t want[8] = {0x30, 0x15, 0x10, 6, 0x31, 0x12, 0x99, 0x19};
	struct fixture *f = *state;

	/* As Linux does it: SET, all fields, SET off. Nothing moves in between. */
	wr(f, 11, 0x82);
	f->now += 5;
	assert_int_equal(rd(f, 0), 0x59);
	wr(f, 0, 0x30);
	wr(f, 2, 0x15);
	wr(f, 4, 0x10);
	wr(f, 7, 0x31);
	wr(f, 8, 0x12);
	wr(f, 9, 0x99);
	wr(f, RTC_CENTURY, 0x19);
	wr(f, 11, 0x02);
	expect(f, want); /* the weekday follows the date: a Friday */
	f->now += 1;
	assert_int_equal(rd(f, 0), 0x31);
	/* Without SET at once. */
	wr(f, 2, 0x20);
	assert_int_equal(rd(f, 2), 0x20);
	assert_int_equal(rd(f, 0), 0x31);
}

static void nonsense_is_survived(void **state)
{
	struct fixture *f = *state;

	for (unsigned mode = 0; mode < 8; mode += 2)
		for (unsigned v = 0; v < 256; v++) {
			wr(f, 11, (uint8_t)(0x80 | mode));
			for (uint8_t reg = 0; reg < 10; reg++)
				wr(f, reg, (uint8_t)v);
			wr(f, RTC_CENTURY, (uint8_t)v);
			wr(f, 11, (uint8_t)mode);
			for (uint8_t reg = 0; reg < 14; reg++)
				(void)rd(f, reg);
		}
}

static void status_registers(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(rd(f, 10), 0x26); /* no update in progress, ever */
	wr(f, 10, 0xff);
	assert_int_equal(rd(f, 10), 0x7f);
	assert_int_equal(rd(f, 13), 0x80); /* valid, and nothing else: Linux looks */
	wr(f, 13, 0);
	assert_int_equal(rd(f, 13), 0x80);
	(void)rd(f, 12);
	assert_int_equal(rd(f, 12), 0);
	f->now++;
	assert_int_equal(rd(f, 12), 0x10);
	assert_int_equal(rd(f, 12), 0);
	assert_int_equal(inb(&f->b, RTC_PORT), 0xff);
}

static void memory(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 14; i < RTC_BYTES; i++)
		if (i != RTC_CENTURY)
			wr(f, (uint8_t)i, (uint8_t)(i ^ 0x5a));
	for (unsigned i = 14; i < RTC_BYTES; i++)
		if (i != RTC_CENTURY)
			assert_int_equal(rd(f, (uint8_t)(i | 0x80)), i ^ 0x5a);
	wr(f, 1, 0x12); /* alarms are kept, too */
	assert_int_equal(rd(f, 1), 0x12);
}

static void real_clock(void **state)
{
	struct rtc r;
	struct fixture *f = *state;

	rtc_init(&r, NULL, NULL);
	int64_t before = (int64_t)time(NULL);

	assert_true(r.now(NULL) >= before);
	rtc_fini(&r);
	(void)f;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(formats), TEST(hours_round_trip), TEST(setting_the_clock),
		TEST(nonsense_is_survived), TEST(status_registers), TEST(memory), TEST(real_clock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
