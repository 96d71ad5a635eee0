/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kvm-unit-tests expect of a machine beside a PC's devices (QEMU's pc-testdev):
 * - ports 0xe0 and 0xe8, four each: one 32-bit value that is written and read in any width;
 * - port 0xe4: a page that the host should forget its mapping of; here that is nobody's business,
 *   and nothing is done;
 * - ports 0x2000 + n, n below 24: a byte that is the level of interrupt line n;
 * - 64 KiB at 0xff000000 that can be written and read, by accesses that reach the machine.
 * The exit port, which goes with it, is reset.h's.
 *
 * Threads: any vCPU. Test: tests/unit/test_dev_test.c.
 */
#ifndef VMM_TEST_DEV_H
#define VMM_TEST_DEV_H

#include <pthread.h>

#include "base/err.h"
#include "vmm/chip/bus.h"
#include "vmm/chip/irq.h"

#define TEST_DEV_VALUE_PORT 0xe0u
#define TEST_DEV_FLUSH_PORT 0xe4u
#define TEST_DEV_BYTES_PORT 0xe8u
#define TEST_DEV_IRQ_PORT 0x2000u
#define TEST_DEV_IRQS 24u
#define TEST_DEV_GPA 0xff000000ull
#define TEST_DEV_BYTES 65536u

/* What a region of the bus leads to: bytes that are read as they were written. */
struct test_dev_bytes {
	pthread_mutex_t *lock;
	uint8_t *at;
};

struct test_dev {
	pthread_mutex_t lock; /* covers the rest */
	struct irq_line irqs[TEST_DEV_IRQS];
	struct test_dev_bytes value_bytes, memory_bytes;
	uint8_t value[4];
	uint8_t memory[TEST_DEV_BYTES];
};

/* irq: line 0. */
void test_dev_init(struct test_dev *t, const struct irq_line *irq);
void test_dev_fini(struct test_dev *t);

/* Puts it on the bus. Errors as bus_add. */
int test_dev_add(struct test_dev *t, struct bus *b, struct err *e);

#endif
