/* SPDX-License-Identifier: Apache-2.0 */
/* See test_dev.h. */
#include "vmm/chip/test_dev.h"

#include <string.h>

#include "base/assert.h"

void test_dev_init(struct test_dev *t, const struct irq_line *irq)
{
	int rc;

	memset(t, 0, sizeof(*t));
	for (uint32_t i = 0; i < TEST_DEV_IRQS; i++) {
		t->irqs[i] = *irq;
		t->irqs[i].gsi = irq->gsi + i;
	}
	rc = pthread_mutex_init(&t->lock, NULL);
	ASSERT(rc == 0);
	t->value_bytes = (struct test_dev_bytes){&t->lock, t->value};
	t->memory_bytes = (struct test_dev_bytes){&t->lock, t->memory};
}

void test_dev_fini(struct test_dev *t)
{
	pthread_mutex_destroy(&t->lock);
}

/* The bus keeps an access within its region. */
static uint64_t bytes_read(void *dev, uint64_t offset, unsigned width)
{
	const struct test_dev_bytes *b = dev;
	uint64_t value = 0;

	pthread_mutex_lock(b->lock);
	memcpy(&value, b->at + offset, width);
	pthread_mutex_unlock(b->lock);
	return value;
}

static void bytes_write(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	const struct test_dev_bytes *b = dev;

	pthread_mutex_lock(b->lock);
	memcpy(b->at + offset, &value, width);
	pthread_mutex_unlock(b->lock);
}

static const struct bus_ops bytes_bus_ops = {
	.read = bytes_read,
	.write = bytes_write,
	.width_max = 8,
};

static uint64_t nothing_read(void *dev, uint64_t offset, unsigned width)
{
	(void)dev;
	(void)offset;
	(void)width;
	return UINT64_MAX;
}

static void irq_write(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	struct test_dev *t = dev;

	(void)width;
	pthread_mutex_lock(&t->lock);
	irq_set(&t->irqs[offset], value != 0);
	pthread_mutex_unlock(&t->lock);
}

static const struct bus_ops irq_bus_ops = {
	.read = nothing_read,
	.write = irq_write,
	.width_max = 1,
};

static void flush_write(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	(void)dev;
	(void)offset;
	(void)width;
	(void)value;
}

static const struct bus_ops flush_bus_ops = {
	.read = nothing_read,
	.write = flush_write,
	.width_max = 4,
};

int test_dev_add(struct test_dev *t, struct bus *b, struct err *e)
{
	const struct {
		enum bus_space space;
		uint64_t base, len;
		const struct bus_ops *ops;
		void *dev;
		const char *name;
	} parts[] = {
		{BUS_PORTS, TEST_DEV_VALUE_PORT, 4, &bytes_bus_ops, &t->value_bytes,
		 "test device, value"},
		{BUS_PORTS, TEST_DEV_FLUSH_PORT, 4, &flush_bus_ops, t, "test device, flush"},
		{BUS_PORTS, TEST_DEV_BYTES_PORT, 4, &bytes_bus_ops, &t->value_bytes,
		 "test device, bytes"},
		{BUS_PORTS, TEST_DEV_IRQ_PORT, TEST_DEV_IRQS, &irq_bus_ops, t,
		 "test device, lines"},
		{BUS_MMIO, TEST_DEV_GPA, TEST_DEV_BYTES, &bytes_bus_ops, &t->memory_bytes,
		 "test device, memory"},
	};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(parts); i++)
		rc = bus_add(b, parts[i].space, parts[i].base, parts[i].len, parts[i].ops,
			     parts[i].dev, parts[i].name, e);
	return rc;
}
