/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PM1a register block and the reset register that the tables of acpi.h name: what the
 * guest stores into them, and what it wants when it does. Pure; the caller holds whatever
 * lock its ports have. Test: tests/unit/acpi_test.c.
 */
#ifndef VMM_ACPI_PM_H
#define VMM_ACPI_PM_H

#include "base/types.h"

#define ACPI_PM1_EVT_PORT 0x600 /* 4 bytes: status, enable */
#define ACPI_PM1_CNT_PORT 0x604 /* 2 bytes */
#define ACPI_PM_PORT ACPI_PM1_EVT_PORT
#define ACPI_PM_PORTS 6
#define ACPI_RESET_PORT 0xcf9 /* one byte, as on PC chipsets */
#define ACPI_RESET_VALUE 6
#define ACPI_S5_TYPE 5 /* what the DSDT's \_S5 says */

/* All zero at the start and at a reset of the machine. */
struct acpi_pm {
	uint16_t enable;
	uint16_t control;
};

enum acpi_action {
	ACPI_NOTHING,
	ACPI_POWER_OFF,
	ACPI_RESET,
};

/* True for the ports that the two functions answer for. */
bool acpi_pm_owns(uint16_t port);
/*
 * Any access size, in the guest's byte order. Bytes outside the block read as ones and are
 * lost when written. What a write asks for, the caller does: it ends or restarts the machine.
 */
void acpi_pm_read(const struct acpi_pm *pm, uint16_t port, uint8_t *ret, size_t len);
enum acpi_action acpi_pm_write(struct acpi_pm *pm, uint16_t port, const uint8_t *bytes,
			       size_t len);

#endif
