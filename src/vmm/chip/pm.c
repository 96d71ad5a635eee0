/* SPDX-License-Identifier: Apache-2.0 */
/* See pm.h. */
#include "vmm/chip/pm.h"

#include <string.h>

#include "base/assert.h"

void pm_init(struct pm *p, const struct pm_ops *ops, void *ctx)
{
	int rc;

	memset(p, 0, sizeof(*p));
	rc = pthread_mutex_init(&p->lock, NULL);
	ASSERT(rc == 0);
	p->ops = ops;
	p->ctx = ctx;
	p->pm1 = (struct pm_block){p, ACPI_PM_PORT};
	p->reset = (struct pm_block){p, ACPI_RESET_PORT};
}

void pm_fini(struct pm *p)
{
	pthread_mutex_destroy(&p->lock);
}

static uint64_t block_read(void *dev, uint64_t offset, unsigned width)
{
	const struct pm_block *block = dev;
	struct pm *p = block->pm;
	uint8_t bytes[8] = {0};
	uint64_t value;

	pthread_mutex_lock(&p->lock);
	acpi_pm_read(&p->regs, (uint16_t)(block->port + offset), bytes, width);
	pthread_mutex_unlock(&p->lock);
	memcpy(&value, bytes, sizeof(value));
	return value;
}

static void block_write(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	const struct pm_block *block = dev;
	struct pm *p = block->pm;
	enum acpi_action action;
	uint8_t bytes[8];

	memcpy(bytes, &value, sizeof(bytes));
	pthread_mutex_lock(&p->lock);
	action = acpi_pm_write(&p->regs, (uint16_t)(block->port + offset), bytes, width);
	pthread_mutex_unlock(&p->lock);
	if (action == ACPI_POWER_OFF)
		p->ops->power_off(p->ctx);
	else if (action == ACPI_RESET)
		p->ops->reset(p->ctx);
}

static const struct bus_ops pm1_bus_ops = {
	.read = block_read,
	.write = block_write,
	.width_max = 4,
};

static const struct bus_ops reset_bus_ops = {
	.read = block_read,
	.write = block_write,
	.width_max = 1,
};

int pm_add(struct pm *p, struct bus *b, struct err *e)
{
	int rc = bus_add(b, BUS_PORTS, ACPI_PM_PORT, ACPI_PM_PORTS, &pm1_bus_ops, &p->pm1,
			 "ACPI PM1", e);

	return rc < 0 ? rc : bus_add(b, BUS_PORTS, ACPI_RESET_PORT, 1, &reset_bus_ops, &p->reset,
				     "ACPI reset", e);
}
