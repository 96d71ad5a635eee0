/* SPDX-License-Identifier: Apache-2.0 */
/* See rtc_cmos.h. */
#include "vmm/chip/rtc_cmos.h"

#include <string.h>
#include <time.h>

#include "base/assert.h"

enum {
	REG_SECONDS = 0,
	REG_MINUTES = 2,
	REG_HOURS = 4,
	REG_WEEKDAY = 6,
	REG_DAY = 7,
	REG_MONTH = 8,
	REG_YEAR = 9,
	REG_A = 10,
	REG_B = 11,
	REG_C = 12,
	REG_D = 13,

	A_UIP = 0x80,
	A_DEFAULT = 0x26, /* 32768 Hz, rate 1024 Hz: what firmware leaves */
	B_24H = 0x02,
	B_BINARY = 0x04,
	B_SET = 0x80,
	C_UPDATE = 0x10,
	D_VALID = 0x80,
	HOUR_PM = 0x80,
};

static const uint8_t time_regs[] = {
	REG_SECONDS, REG_MINUTES, REG_HOURS, REG_WEEKDAY, REG_DAY, REG_MONTH, REG_YEAR,
	RTC_CENTURY,
};

static bool is_time_reg(uint8_t index)
{
	for (unsigned i = 0; i < ARRAY_LEN(time_regs); i++)
		if (time_regs[i] == index)
			return true;
	return false;
}

static int64_t wall_now(void *ctx)
{
	struct timespec ts;

	(void)ctx;
	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec;
}

static int64_t guest_now(const struct rtc *r)
{
	return r->now(r->ctx) + r->offset_s;
}

/* ---- formats: BCD or binary (DM), 12 or 24 hours (24/12) ---- */

static uint8_t encode(const struct rtc *r, int value)
{
	unsigned v = (unsigned)value;

	return (uint8_t)(r->memory[REG_B] & B_BINARY ? v : v / 10 * 16 + v % 10);
}

/* Any byte gives some number: what the guest writes need not be a time. */
static int decode(const struct rtc *r, uint8_t byte)
{
	return r->memory[REG_B] & B_BINARY ? byte : (byte >> 4) * 10 + (byte & 15);
}

static uint8_t encode_hour(const struct rtc *r, int hour)
{
	if (r->memory[REG_B] & B_24H)
		return encode(r, hour);
	uint8_t byte = encode(r, hour % 12 == 0 ? 12 : hour % 12);

	return hour >= 12 ? byte | HOUR_PM : byte;
}

static int decode_hour(const struct rtc *r, uint8_t byte)
{
	if (r->memory[REG_B] & B_24H)
		return decode(r, byte);
	int hour = decode(r, byte & 0x7f) % 12;

	return byte & HOUR_PM ? hour + 12 : hour;
}

/* ---- the clock ---- */

static void time_to_regs(const struct rtc *r, int64_t now_s, uint8_t *regs)
{
	time_t t = (time_t)now_s;
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		memset(&tm, 0, sizeof(tm));
	regs[REG_SECONDS] = encode(r, tm.tm_sec % 60);
	regs[REG_MINUTES] = encode(r, tm.tm_min);
	regs[REG_HOURS] = encode_hour(r, tm.tm_hour);
	regs[REG_WEEKDAY] = encode(r, tm.tm_wday + 1);
	regs[REG_DAY] = encode(r, tm.tm_mday);
	regs[REG_MONTH] = encode(r, tm.tm_mon + 1);
	regs[REG_YEAR] = encode(r, (tm.tm_year + 1900) % 100);
	regs[RTC_CENTURY] = encode(r, (tm.tm_year + 1900) / 100 % 100);
}

static int64_t regs_to_time(const struct rtc *r, const uint8_t *regs)
{
	struct tm tm = {
		.tm_sec = decode(r, regs[REG_SECONDS]),
		.tm_min = decode(r, regs[REG_MINUTES]),
		.tm_hour = decode_hour(r, regs[REG_HOURS]),
		.tm_mday = decode(r, regs[REG_DAY]),
		.tm_mon = decode(r, regs[REG_MONTH]) - 1,
		.tm_year = decode(r, regs[RTC_CENTURY]) * 100 + decode(r, regs[REG_YEAR]) - 1900,
	};

	return timegm(&tm);
}

static uint8_t reg_read(struct rtc *r, uint8_t index)
{
	uint8_t regs[RTC_BYTES];
	uint8_t flags;

	if (is_time_reg(index) && !(r->memory[REG_B] & B_SET)) {
		time_to_regs(r, guest_now(r), regs);
		return regs[index];
	}
	switch (index) {
	case REG_C:
		/* Reading clears. IRQF and the other flags belong to interrupts, not there. */
		flags = guest_now(r) != r->flags_s ? C_UPDATE : 0;
		r->flags_s = guest_now(r);
		return flags;
	case REG_D:
		return D_VALID;
	default:
		return r->memory[index];
	}
}

/*
 * SET stops the clock's updates while the guest writes it: the registers hold still, and
 * count from where they are when SET ends. Without SET each write counts at once.
 */
static void reg_write(struct rtc *r, uint8_t index, uint8_t value)
{
	bool was_set = r->memory[REG_B] & B_SET;

	switch (index) {
	case REG_A:
		r->memory[index] = value & (uint8_t)~A_UIP;
		return;
	case REG_B:
		if (!was_set && (value & B_SET))
			time_to_regs(r, guest_now(r), r->memory);
		r->memory[index] = value;
		if (was_set && !(value & B_SET))
			r->offset_s = regs_to_time(r, r->memory) - r->now(r->ctx);
		return;
	case REG_C:
	case REG_D:
		return;
	default:
		break;
	}
	if (is_time_reg(index) && !was_set) {
		time_to_regs(r, guest_now(r), r->memory);
		r->memory[index] = value;
		r->offset_s = regs_to_time(r, r->memory) - r->now(r->ctx);
		return;
	}
	r->memory[index] = value;
}

/* Port 0x70 takes the index (bit 7 masks NMIs, which there are none of); 0x71 has the data. */
static uint64_t rtc_read(void *dev, uint64_t offset, unsigned width)
{
	struct rtc *r = dev;
	uint8_t value = 0xff;

	(void)width;
	pthread_mutex_lock(&r->lock);
	if (offset == 1)
		value = reg_read(r, r->index);
	pthread_mutex_unlock(&r->lock);
	return value;
}

static void rtc_write(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	struct rtc *r = dev;

	(void)width;
	pthread_mutex_lock(&r->lock);
	if (offset == 0)
		r->index = value % RTC_BYTES;
	else
		reg_write(r, r->index, (uint8_t)value);
	pthread_mutex_unlock(&r->lock);
}

const struct bus_ops rtc_bus_ops = {
	.read = rtc_read,
	.write = rtc_write,
	.width_max = 1,
};

void rtc_init(struct rtc *r, rtc_now now, void *ctx)
{
	int rc;

	memset(r, 0, sizeof(*r));
	rc = pthread_mutex_init(&r->lock, NULL);
	ASSERT(rc == 0);
	/* gmtime_r() reads the time zone's file once, which a vCPU's thread may be forbidden. */
	tzset();
	r->now = now ? now : wall_now;
	r->ctx = ctx;
	r->memory[REG_A] = A_DEFAULT;
	r->memory[REG_B] = B_24H;
	r->flags_s = guest_now(r);
}

void rtc_fini(struct rtc *r)
{
	pthread_mutex_destroy(&r->lock);
}

/* ---- snapshots ---- */

void rtc_save(struct rtc *r, struct rtc_saved *ret)
{
	memset(ret, 0, sizeof(*ret));
	pthread_mutex_lock(&r->lock);
	ret->offset_s = r->offset_s;
	ret->flags_s = r->flags_s;
	ret->index = r->index;
	memcpy(ret->memory, r->memory, sizeof(ret->memory));
	pthread_mutex_unlock(&r->lock);
}

void rtc_restore(struct rtc *r, const struct rtc_saved *from)
{
	pthread_mutex_lock(&r->lock);
	r->offset_s = from->offset_s;
	r->flags_s = from->flags_s;
	r->index = from->index % RTC_BYTES;
	memcpy(r->memory, from->memory, sizeof(r->memory));
	pthread_mutex_unlock(&r->lock);
}
