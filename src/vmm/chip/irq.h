/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seam: an interrupt line of a device, as a level on a global system interrupt. Devices call
 * it under their own lock, so that two changes of one line arrive in their order; what is
 * behind it must therefore not call the device, and must not block for long. Header only.
 */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include "base/types.h"

struct irq_ops {
	/* The device now drives the line to `level`. Any thread. */
	void (*set)(void *ctx, uint32_t gsi, bool level);
};

struct irq_line {
	const struct irq_ops *ops; /* NULL: the line is not connected */
	void *ctx;
	uint32_t gsi;
	bool level; /* as last driven; written by irq_set alone */
};

/* Drives the line; a level that it has already is not told again. Under the device's lock. */
static inline void irq_set(struct irq_line *line, bool level)
{
	if (line->level == level)
		return;
	line->level = level;
	if (line->ops)
		line->ops->set(line->ctx, line->gsi, level);
}

#endif
