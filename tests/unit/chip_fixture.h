/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of chips: an interrupt line that remembers its changes, and small names for
 * accesses on a bus.
 */
#ifndef CHIP_FIXTURE_H
#define CHIP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "vmm/chip/bus.h"
#include "vmm/chip/irq.h"

struct fake_irq {
	uint32_t gsi;
	bool level;
	unsigned rises;
};

struct irq_line fake_irq_line(struct fake_irq *f, uint32_t gsi);

static inline uint8_t inb(const struct bus *b, uint64_t port)
{
	return (uint8_t)bus_read(b, BUS_PORTS, port, 1);
}

static inline void outb(const struct bus *b, uint64_t port, uint8_t value)
{
	bus_write(b, BUS_PORTS, port, 1, value);
}

#endif
