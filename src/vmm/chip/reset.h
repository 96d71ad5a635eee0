/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A way in which a guest asks to be reset (pm.h has another), and the exit port of small test
 * kernels.
 * - The keyboard controller's command port 0x64: command 0xfe, or 0xd1 and then an output
 *   port value with bit 0 clear, pull the CPU's reset line (IBM Personal Computer AT Technical
 *   Reference, keyboard controller). There is no keyboard: its buffers are always empty, and
 *   the ACPI tables must say that there is no controller (FADT, IAPC_BOOT_ARCH bit 1).
 * - Port 0xf4: writing v ends the VM with status v.
 *
 * Threads: any; callbacks run on the vCPU thread that wrote, and may come from several at
 * once. Test: tests/unit/reset_test.c.
 */
#ifndef VMM_RESET_H
#define VMM_RESET_H

#include <stdatomic.h>

#include "base/types.h"
#include "vmm/chip/bus.h"

#define I8042_DATA_PORT 0x60u
#define I8042_COMMAND_PORT 0x64u
#define EXIT_PORT 0xf4u
#define EXIT_PORTS 4u /* tests write it as a byte, a word or a double word */

typedef void (*reset_requested)(void *ctx);

struct reset {
	reset_requested requested;
	void *ctx;
	atomic_bool output_port_follows; /* after command 0xd1 */
};

void reset_init(struct reset *r, reset_requested requested, void *ctx);

/* For bus_add(), one port each; dev is the struct reset. */
extern const struct bus_ops reset_i8042_data_bus_ops;
extern const struct bus_ops reset_i8042_command_bus_ops;

struct exit_port {
	void (*ended)(void *ctx, uint32_t status);
	void *ctx;
};

/* For bus_add() with EXIT_PORTS; dev is the struct exit_port. */
extern const struct bus_ops exit_port_bus_ops;

#endif
