/* SPDX-License-Identifier: Apache-2.0 */
/* See reset.h. */
#include "vmm/chip/reset.h"

#include <string.h>

enum {
	I8042_SYSTEM_FLAG = 0x04, /* self test passed; both buffers empty */
	I8042_WRITE_OUTPUT_PORT = 0xd1,
	I8042_PULSE_RESET = 0xfe,
	OUTPUT_PORT_RUN = 0x01, /* 0: the CPU is held in reset */
};

void reset_init(struct reset *r, reset_requested requested, void *ctx)
{
	memset(r, 0, sizeof(*r));
	r->requested = requested;
	r->ctx = ctx;
}

/* ---- 0x60, 0x64 ---- */

static uint64_t i8042_read_data(void *dev, uint64_t offset, unsigned width)
{
	(void)dev;
	(void)offset;
	(void)width;
	return 0;
}

static void i8042_write_data(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	struct reset *r = dev;

	(void)offset;
	(void)width;
	if (atomic_exchange(&r->output_port_follows, false) && !(value & OUTPUT_PORT_RUN))
		r->requested(r->ctx);
}

static uint64_t i8042_read_status(void *dev, uint64_t offset, unsigned width)
{
	(void)dev;
	(void)offset;
	(void)width;
	return I8042_SYSTEM_FLAG;
}

static void i8042_write_command(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	struct reset *r = dev;

	(void)offset;
	(void)width;
	atomic_store(&r->output_port_follows, value == I8042_WRITE_OUTPUT_PORT);
	if (value == I8042_PULSE_RESET)
		r->requested(r->ctx);
}

const struct bus_ops reset_i8042_data_bus_ops = {
	.read = i8042_read_data,
	.write = i8042_write_data,
	.width_max = 1,
};

const struct bus_ops reset_i8042_command_bus_ops = {
	.read = i8042_read_status,
	.write = i8042_write_command,
	.width_max = 1,
};

/* ---- 0xf4 ---- */

static uint64_t exit_read(void *dev, uint64_t offset, unsigned width)
{
	(void)dev;
	(void)offset;
	(void)width;
	return UINT64_MAX;
}

static void exit_write(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	struct exit_port *x = dev;

	(void)width;
	if (offset == 0)
		x->ended(x->ctx, (uint32_t)value);
}

const struct bus_ops exit_port_bus_ops = {
	.read = exit_read,
	.write = exit_write,
	.width_max = 4,
};
