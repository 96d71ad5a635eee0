/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first virtio disk, where the machine has it: asked for its configuration, and written to
 * sector by sector, one request at a time, looking instead of taking interrupts.
 * Virtio 1.2, sections 2.7, 4.2.2 and 5.2.
 */
#include <stdbool.h>
#include <stdint.h>

#include "multiboot/kernel.h"

#define DISK_GPA 0xd0000000u
#define SECTOR_BYTES 512u
#define QUEUE_SIZE 8u

enum {
	REG_DEVICE_ID = 0x008,
	REG_FEATURES_SEL = 0x014,
	REG_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SEL = 0x024,
	REG_QUEUE_NUM = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = 0x050,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC = 0x080,
	REG_QUEUE_DRIVER = 0x090,
	REG_QUEUE_DEVICE = 0x0a0,
	REG_CAPACITY = 0x100,
	REG_BLK_SIZE = 0x114,
	REG_TOPOLOGY = 0x118,

	DEVICE_BLOCK = 2,
	STATUS_UP = 1 | 2 | 8, /* acknowledge, driver, features are fine */
	STATUS_OK = 4,
	FEATURE_FLUSH = 1 << 9,
	FEATURE_VERSION_1 = 1, /* of the second word */
	DESC_NEXT = 1,
	DESC_WRITE = 2,
	TYPE_OUT = 1,
	TYPE_FLUSH = 4,
};

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

static struct {
	_Alignas(16) struct desc desc[QUEUE_SIZE];
	struct {
		uint16_t flags, idx, ring[QUEUE_SIZE], event;
	} driver;
	_Alignas(4) struct {
		uint16_t flags, idx;
		struct {
			uint32_t id, len;
		} ring[QUEUE_SIZE];
		uint16_t event;
	} device;
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header;
	uint32_t data[SECTOR_BYTES / 4];
	uint8_t status;
} disk;

static volatile uint32_t *reg(uint32_t offset)
{
	return (volatile uint32_t *)(uintptr_t)(DISK_GPA + offset);
}

static bool is_there(void)
{
	if (*reg(REG_DEVICE_ID) == DEVICE_BLOCK)
		return true;
	put_text("no disk\n");
	return false;
}

static void bring_up(void)
{
	*reg(REG_STATUS) = 0;
	*reg(REG_STATUS) = 1 | 2;
	*reg(REG_DRIVER_FEATURES_SEL) = 0;
	*reg(REG_FEATURES) = FEATURE_FLUSH;
	*reg(REG_DRIVER_FEATURES_SEL) = 1;
	*reg(REG_FEATURES) = FEATURE_VERSION_1;
	*reg(REG_STATUS) = STATUS_UP;
	*reg(REG_QUEUE_NUM) = QUEUE_SIZE;
	*reg(REG_QUEUE_DESC) = (uint32_t)(uintptr_t)disk.desc;
	*reg(REG_QUEUE_DRIVER) = (uint32_t)(uintptr_t)&disk.driver;
	*reg(REG_QUEUE_DEVICE) = (uint32_t)(uintptr_t)&disk.device;
	*reg(REG_QUEUE_READY) = 1;
	*reg(REG_STATUS) = STATUS_UP | STATUS_OK;
}

static void describe(unsigned i, const volatile void *at, uint32_t len, uint16_t flags)
{
	disk.desc[i] = (struct desc){(uint32_t)(uintptr_t)at, len, flags, (uint16_t)(i + 1)};
}

/* The status byte of a request; data: a sector of it goes out. */
static uint8_t request(uint32_t type, uint64_t sector, bool data)
{
	const volatile uint16_t *done = &disk.device.idx;
	uint16_t before = *done;
	unsigned n = 0;

	disk.header.type = type;
	disk.header.sector = sector;
	describe(n++, &disk.header, sizeof(disk.header), DESC_NEXT);
	if (data)
		describe(n++, disk.data, SECTOR_BYTES, DESC_NEXT);
	describe(n, &disk.status, 1, DESC_WRITE);
	disk.driver.ring[disk.driver.idx % QUEUE_SIZE] = 0;
	__asm__ volatile("" : : : "memory");
	disk.driver.idx++;
	__asm__ volatile("" : : : "memory");
	*reg(REG_QUEUE_NOTIFY) = 0;
	while (*done == before)
		__asm__ volatile("pause" : : : "memory");
	return *(volatile uint8_t *)&disk.status;
}

void disk_show(void)
{
	if (!is_there())
		return;
	put_text("disk: ");
	put_decimal(*reg(REG_CAPACITY));
	put_text(" sectors, blocks of ");
	put_decimal(*reg(REG_BLK_SIZE));
	put_text(", 2^");
	put_decimal(*reg(REG_TOPOLOGY) & 0xff);
	put_text(" of them physical\n");
}

static void fill_sector(uint32_t sector)
{
	for (unsigned i = 0; i < SECTOR_BYTES / 4; i++)
		disk.data[i] = sector;
}

/* Stops at the first request that fails, and flushes in any case. */
void disk_fill(uint32_t first, uint32_t sectors)
{
	uint8_t status = 0;
	uint32_t n;

	if (!is_there())
		return;
	bring_up();
	for (n = 0; n < sectors && status == 0; n++) {
		fill_sector(first + n);
		status = request(TYPE_OUT, first + n, true);
	}
	put_text("filled: ");
	put_decimal(n);
	put_text(" requests, the last with status ");
	put_decimal(status);
	put_text(", flush ");
	put_decimal(request(TYPE_FLUSH, 0, false));
	put_char('\n');
}
