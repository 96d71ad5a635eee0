/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QEMU firmware configuration device, as far as test kernels ask it how many processors and how
 * much memory there are (QEMU, docs/specs/fw_cfg.rst: the traditional interface, without DMA and
 * without files). Ports: 0x510 selects an item (16 bits), each read of 0x511 is its next byte;
 * zeroes behind its end, and of what is not there.
 *
 * Threads: any vCPU. Test: tests/unit/fw_cfg_test.c.
 */
#ifndef VMM_FW_CFG_H
#define VMM_FW_CFG_H

#include <pthread.h>

#include "vmm/chip/bus.h"

#define FW_CFG_PORT 0x510u
#define FW_CFG_PORTS 2u

struct fw_cfg {
	uint64_t memory_bytes;
	uint16_t cpus;
	pthread_mutex_t lock; /* covers the rest */
	uint16_t selected;
	uint32_t at; /* the byte that is read next */
};

void fw_cfg_init(struct fw_cfg *f, uint64_t memory_bytes, unsigned cpus);
void fw_cfg_fini(struct fw_cfg *f);

/* For bus_add() with FW_CFG_PORTS; dev is the struct fw_cfg. */
extern const struct bus_ops fw_cfg_bus_ops;

#endif
