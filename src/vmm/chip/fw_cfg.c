/* SPDX-License-Identifier: Apache-2.0 */
/* See fw_cfg.h. */
#include "vmm/chip/fw_cfg.h"

#include <string.h>

#include "base/assert.h"
#include "vmm/memory/bytes.h"

enum {
	ITEM_SIGNATURE = 0x00,
	ITEM_ID = 0x01,
	ITEM_RAM_SIZE = 0x03,
	ITEM_NB_CPUS = 0x05,
	ITEM_MAX_CPUS = 0x0f,

	ID_TRADITIONAL = 1,
	ITEM_BYTES_MAX = 8,
};

void fw_cfg_init(struct fw_cfg *f, uint64_t memory_bytes, unsigned cpus)
{
	int rc;

	*f = (struct fw_cfg){.memory_bytes = memory_bytes, .cpus = (uint16_t)cpus};
	rc = pthread_mutex_init(&f->lock, NULL);
	ASSERT(rc == 0);
}

void fw_cfg_fini(struct fw_cfg *f)
{
	pthread_mutex_destroy(&f->lock);
}

static uint8_t item_byte(const struct fw_cfg *f, uint16_t item, uint32_t at)
{
	unsigned char bytes[ITEM_BYTES_MAX] = {0};

	switch (item) {
	case ITEM_SIGNATURE:
		memcpy(bytes, "QEMU", 4);
		break;
	case ITEM_ID:
		bytes[0] = ID_TRADITIONAL;
		break;
	case ITEM_RAM_SIZE:
		put64(bytes, 0, f->memory_bytes);
		break;
	case ITEM_NB_CPUS:
	case ITEM_MAX_CPUS:
		put16(bytes, 0, f->cpus);
		break;
	default:
		break;
	}
	return at < sizeof(bytes) ? bytes[at] : 0;
}

/* The selector cannot be read. */
static uint64_t fw_cfg_read(void *dev, uint64_t offset, unsigned width)
{
	struct fw_cfg *f = dev;
	uint64_t value = 0;

	(void)width;
	pthread_mutex_lock(&f->lock);
	if (offset == 1) {
		value = item_byte(f, f->selected, f->at);
		/* It does not come round to the start again. */
		f->at += f->at < ITEM_BYTES_MAX;
	}
	pthread_mutex_unlock(&f->lock);
	return value;
}

/* An item cannot be written. */
static void fw_cfg_write(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	struct fw_cfg *f = dev;

	if (offset != 0 || width != 2)
		return;
	pthread_mutex_lock(&f->lock);
	f->selected = (uint16_t)value;
	f->at = 0;
	pthread_mutex_unlock(&f->lock);
}

const struct bus_ops fw_cfg_bus_ops = {
	.read = fw_cfg_read,
	.write = fw_cfg_write,
	.width_max = 2,
};
