/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PC's real-time clock: an MC146818 with 128 bytes of memory behind ports 0x70 and 0x71.
 * Decides what its time registers show, from a wall clock given as seconds and an offset that
 * the guest sets when it sets its clock. Time is UTC. The century is in register 0x32, as
 * PCs have it. Source of the register facts: Motorola MC146818A data sheet.
 *
 * No interrupts: flags in register C can be polled, but IRQ 8 is never raised. An update
 * takes no time, so UIP is never seen.
 *
 * Threads: any; each call takes the chip's lock. Test: tests/unit/rtc_cmos_test.c.
 */
#ifndef VMM_RTC_CMOS_H
#define VMM_RTC_CMOS_H

#include <pthread.h>

#include "base/types.h"
#include "vmm/chip/bus.h"

#define RTC_PORT 0x70u
#define RTC_PORTS 2u
#define RTC_BYTES 128u
#define RTC_CENTURY 0x32u /* for the FADT's CENTURY field */

/* Seconds since 1970-01-01 00:00 UTC. Under the chip's lock: must not call the chip. */
typedef int64_t (*rtc_now)(void *ctx);

struct rtc {
	pthread_mutex_t lock; /* covers all below */
	rtc_now now;
	void *ctx;
	int64_t offset_s; /* the guest's clock minus ours */
	int64_t flags_s;  /* guest time when register C was last read */
	uint8_t index;
	uint8_t memory[RTC_BYTES]; /* time registers: only while SET holds them still */
};

/* now NULL: CLOCK_REALTIME. */
void rtc_init(struct rtc *r, rtc_now now, void *ctx);
void rtc_fini(struct rtc *r);

/* What a snapshot has of it. Time goes on meanwhile, as in a chip with a battery. */
struct rtc_saved {
	int64_t offset_s, flags_s;
	uint8_t index;
	uint8_t memory[RTC_BYTES];
	uint8_t zero[7];
};

void rtc_save(struct rtc *r, struct rtc_saved *ret);
void rtc_restore(struct rtc *r, const struct rtc_saved *from);

/* For bus_add() with RTC_PORTS; dev is the struct rtc. */
extern const struct bus_ops rtc_bus_ops;

#endif
