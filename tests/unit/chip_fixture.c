/* SPDX-License-Identifier: Apache-2.0 */
#include "chip_fixture.h"

static void fake_irq_set(void *ctx, uint32_t gsi, bool level)
{
	struct fake_irq *f = ctx;

	assert_int_equal(gsi, f->gsi);
	assert_int_not_equal(level, f->level);
	f->level = level;
	f->rises += level;
}

static const struct irq_ops fake_irq_ops = {.set = fake_irq_set};

struct irq_line fake_irq_line(struct fake_irq *f, uint32_t gsi)
{
	*f = (struct fake_irq){.gsi = gsi};
	return (struct irq_line){.ops = &fake_irq_ops, .ctx = f, .gsi = gsi};
}
