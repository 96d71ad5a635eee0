/* SPDX-License-Identifier: Apache-2.0 */
/* See acpi_pm.h. ACPI 6.4, 4.8.3.1 (PM1 event), 4.8.3.2 (PM1 control), 4.8.3.6 (reset). */
#include "vmm/chip/acpi_pm.h"

#define PM1_ENABLE_PORT (ACPI_PM1_EVT_PORT + 2)
#define CNT_SCI_EN 0x0001u
#define CNT_SLP_TYP_SHIFT 10
#define CNT_SLP_TYP_MASK 7u
#define CNT_SLP_EN 0x2000u
#define RESET_CPU 0x04 /* the bit of port 0xcf9 that resets, on its rising edge */

bool acpi_pm_owns(uint16_t port)
{
	return (port >= ACPI_PM_PORT && port < ACPI_PM_PORT + ACPI_PM_PORTS) ||
	       port == ACPI_RESET_PORT;
}

static uint8_t read_byte(const struct acpi_pm *pm, uint32_t port)
{
	/* There is no other mode than ACPI's; SLP_EN is never stored. */
	uint16_t control = pm->control | CNT_SCI_EN;

	switch (port) {
	case ACPI_PM1_EVT_PORT: /* no event ever happens */
	case ACPI_PM1_EVT_PORT + 1:
	case ACPI_RESET_PORT:
		return 0;
	case PM1_ENABLE_PORT:
		return (uint8_t)pm->enable;
	case PM1_ENABLE_PORT + 1:
		return (uint8_t)(pm->enable >> 8);
	case ACPI_PM1_CNT_PORT:
		return (uint8_t)control;
	case ACPI_PM1_CNT_PORT + 1:
		return (uint8_t)(control >> 8);
	default:
		return 0xff;
	}
}

void acpi_pm_read(const struct acpi_pm *pm, uint16_t port, uint8_t *ret, size_t len)
{
	for (size_t i = 0; i < len; i++)
		ret[i] = read_byte(pm, (uint32_t)(port + i));
}

static void put_byte(uint16_t *reg, bool high, uint8_t v)
{
	*reg = (uint16_t)(high ? (*reg & 0x00ffu) | (unsigned)v << 8 : (*reg & 0xff00u) | v);
}

static enum acpi_action sleep_request(struct acpi_pm *pm)
{
	bool go = pm->control & CNT_SLP_EN;

	pm->control &= (uint16_t)~CNT_SLP_EN;
	return go && (pm->control >> CNT_SLP_TYP_SHIFT & CNT_SLP_TYP_MASK) == ACPI_S5_TYPE
		       ? ACPI_POWER_OFF
		       : ACPI_NOTHING;
}

enum acpi_action acpi_pm_write(struct acpi_pm *pm, uint16_t port, const uint8_t *bytes,
			       size_t len)
{
	enum acpi_action action = ACPI_NOTHING;

	/* Alone: a wider access from 0xcf8 or 0xcf9 on is not for the reset register. */
	if (port == ACPI_RESET_PORT)
		return len == 1 && bytes[0] & RESET_CPU ? ACPI_RESET : ACPI_NOTHING;
	for (size_t i = 0; i < len; i++) {
		switch (port + i) {
		case PM1_ENABLE_PORT:
		case PM1_ENABLE_PORT + 1:
			put_byte(&pm->enable, port + i != PM1_ENABLE_PORT, bytes[i]);
			break;
		case ACPI_PM1_CNT_PORT:
			put_byte(&pm->control, false, bytes[i]);
			break;
		case ACPI_PM1_CNT_PORT + 1:
			put_byte(&pm->control, true, bytes[i]);
			action = sleep_request(pm);
			break;
		default:
			break;
		}
	}
	return action;
}
