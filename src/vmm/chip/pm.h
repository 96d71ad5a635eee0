/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ports through which ACPI turns the machine off or resets it: puts the registers of
 * acpi_pm.h on the bus, under a lock, and calls the machine.
 *
 * Threads: any; callbacks run on the vCPU thread that wrote, no lock held, and may come from
 * several at once. Test: tests/unit/pm_test.c.
 */
#ifndef VMM_PM_H
#define VMM_PM_H

#include <pthread.h>

#include "base/err.h"
#include "vmm/chip/acpi_pm.h"
#include "vmm/chip/bus.h"

struct pm_ops {
	void (*power_off)(void *ctx);
	void (*reset)(void *ctx);
};

/* One of its blocks of ports. */
struct pm_block {
	struct pm *pm;
	uint16_t port;
};

struct pm {
	const struct pm_ops *ops;
	void *ctx;
	pthread_mutex_t lock; /* covers regs */
	struct acpi_pm regs;
	struct pm_block pm1, reset;
};

void pm_init(struct pm *p, const struct pm_ops *ops, void *ctx);
void pm_fini(struct pm *p);

/* Puts both blocks on the bus. Errors as bus_add. */
int pm_add(struct pm *p, struct bus *b, struct err *e);

#endif
