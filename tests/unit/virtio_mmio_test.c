/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/virtio_mmio.c against virtio 1.2, 4.2 and 2.1: registers, negotiation, status,
 * interrupts, what a wrong ring costs. With a worker thread: virtio_worker_test.c.
 */
#include "base/prng.h"
#include "virtio_echo_fixture.h"

static int setup(void **state)
{
	return setup_as(state, false);
}

static void drain(struct fixture *f)
{
	while (virtio_mmio_work(&f->v))
		;
}

/* ---- registers ---- */

static void register_table(void **state)
{
	static const struct {
		uint32_t reg, value;
	} table[] = {
		{0x000, 0x74726976}, {0x004, 2}, {0x008, 42}, {0x00c, 0x46505941},
		{0x010, 0x30000005}, {0x034, 256}, {0x044, 0}, {0x060, 0}, {0x070, 0},
		{0x0b0, 0xffffffff}, {0x0b4, 0xffffffff}, {0x0b8, 0xffffffff},
		{0x0bc, 0xffffffff}, {0x0fc, 0}, {0x100, 0x04030201}, {0x104, 0x08070605},
		{0x10c, 0}, {0x1fc, 0},
		/* write-only and reserved */
		{0x014, 0}, {0x018, 0}, {0x020, 0}, {0x024, 0}, {0x030, 0}, {0x038, 0}, {0x03c, 0},
		{0x040, 0}, {0x050, 0}, {0x064, 0}, {0x080, 0}, {0x0a4, 0}, {0x0ac, 0}, {0x0c0, 0},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++)
		assert_int_equal(vx_reg(&f->x, table[i].reg), table[i].value);
	/* Reading changes nothing; writing what is read-only does not either. */
	for (uint32_t reg = 0; reg < VIRTIO_MMIO_BYTES; reg += 4)
		if (reg < 0x010 || reg == 0x034 || reg == 0x060 || reg >= 0x0ac)
			vx_set(&f->x, reg, UINT32_MAX);
	for (unsigned i = 0; i < ARRAY_LEN(table); i++)
		assert_int_equal(vx_reg(&f->x, table[i].reg), table[i].value);
}

static void access_widths(void **state)
{
	struct fixture *f = *state;
	const struct bus *b = &f->x.bus;

	/* Registers: 32 bits, aligned. */
	assert_int_equal(bus_read(b, BUS_MMIO, VX_MMIO + 4, 1), 0xff);
	assert_int_equal(bus_read(b, BUS_MMIO, VX_MMIO + 4, 2), 0xffff);
	assert_int_equal(bus_read(b, BUS_MMIO, VX_MMIO + 2, 4), 0xffffffff);
	bus_write(b, BUS_MMIO, VX_MMIO + 0x70, 1, 1);
	assert_int_equal(vx_reg(&f->x, 0x70), 0);
	assert_true(bus_read(b, BUS_MMIO, VX_MMIO, 8) == 0x0000000274726976);
	/* Configuration: any. */
	assert_int_equal(bus_read(b, BUS_MMIO, VX_MMIO + 0x101, 1), 2);
	assert_int_equal(bus_read(b, BUS_MMIO, VX_MMIO + 0x102, 2), 0x0403);
	assert_true(bus_read(b, BUS_MMIO, VX_MMIO + 0x100, 8) == 0x0807060504030201);
	assert_int_equal(bus_read(b, BUS_MMIO, VX_MMIO + 0x1ff, 1), 0);
	assert_int_equal(bus_read(b, BUS_MMIO, VX_MMIO + 0x1fe, 4), 0xffff0000);
}

static void queue_select(void **state)
{
	struct fixture *f = *state;

	for (uint32_t q = 0; q < 5; q++) {
		vx_set(&f->x, 0x030, q);
		assert_int_equal(vx_reg(&f->x, 0x034), q < 2 ? 256 : 0);
		assert_int_equal(vx_reg(&f->x, 0x044), 0);
	}
	vx_set(&f->x, 0x030, UINT32_MAX); /* nobody: nothing happens */
	vx_queue(&f->x, UINT32_MAX, 8, VX_DESC, VX_AVAIL, VX_USED);
	assert_int_equal(vx_reg(&f->x, 0x044), 0);
	vx_set(&f->x, 0x050, 17);
	assert_int_equal(vx_reg(&f->x, 0x070), 0);
}

/* ---- negotiation ---- */

static void negotiation(void **state)
{
	static const struct {
		uint64_t features;
		bool ok;
	} table[] = {
		{VIRTIO_F_VERSION_1, true},
		{VIRTIO_F_VERSION_1 | ALL_RING | 5, true},
		{0, false},                          /* a legacy driver */
		{5, false},
		{VIRTIO_F_VERSION_1 | 2, false},     /* not offered */
		{VIRTIO_F_VERSION_1 | 1ull << 33, false},
		{UINT64_MAX, false},
	};
	struct fixture *f = *state;

	assert_true(vx_offered(&f->x) == (VIRTIO_F_VERSION_1 | ALL_RING | 5));
	vx_set(&f->x, 0x014, 2);
	assert_int_equal(vx_reg(&f->x, 0x010), 0);
	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		vx_set(&f->x, 0x070, 0);
		vx_set(&f->x, 0x070, 3);
		vx_features(&f->x, table[i].features);
		vx_set(&f->x, 0x070, 11);
		assert_int_equal(vx_reg(&f->x, 0x070), table[i].ok ? 11 : 3);
		vx_set(&f->x, 0x070, 15); /* not to be had without FEATURES_OK */
		assert_int_equal(vx_reg(&f->x, 0x070), table[i].ok ? 15 : 3);
	}
	/* Once accepted, features stay. */
	vx_bring_up(&f->x, ALL_RING, 8);
	vx_features(&f->x, 0);
	assert_true(f->v.driver_features == (VIRTIO_F_VERSION_1 | ALL_RING));
}

static void status_bits(void **state)
{
	struct fixture *f = *state;

	vx_set(&f->x, 0x070, 1);
	vx_set(&f->x, 0x070, 2); /* bits are not taken back */
	assert_int_equal(vx_reg(&f->x, 0x070), 3);
	vx_set(&f->x, 0x070, 0xffffff00 | 0x70); /* the driver cannot set NEEDS_RESET */
	assert_int_equal(vx_reg(&f->x, 0x070), 3);
	vx_set(&f->x, 0x070, 0x80);
	assert_int_equal(vx_reg(&f->x, 0x070), 0x83);
	vx_set(&f->x, 0x070, 0);
	assert_int_equal(vx_reg(&f->x, 0x070), 0);
}

/* ---- queues ---- */

static void requests(void **state)
{
	struct fixture *f = *state;

	for (unsigned mode = 0; mode < 2; mode++) {
		vx_bring_up(&f->x, mode ? ALL_RING : 0, 8);
		for (unsigned i = 0; i < 4; i++)
			offer(&f->x, i, i * 0x0123456789abcdefull);
		assert_false(virtio_mmio_work(&f->v)); /* nobody has kicked */
		vx_kick(&f->x);
		drain(f);
		for (unsigned i = 0; i < 4; i++)
			expect_echo(&f->x, i, i * 0x0123456789abcdefull);
		assert_true(f->x.irq.level);
		assert_int_equal(vx_reg(&f->x, 0x060), 1);
		vx_set(&f->x, 0x064, 2); /* acknowledges another */
		assert_true(f->x.irq.level);
		vx_set(&f->x, 0x064, 1);
		assert_false(f->x.irq.level);
		assert_int_equal(vx_reg(&f->x, 0x060), 0);
	}
	/* Suppressed: nothing is raised. */
	vx_bring_up(&f->x, 0, 8);
	vx_put16(&f->x, VX_AVAIL, 1);
	offer(&f->x, 0, 1);
	vx_kick(&f->x);
	drain(f);
	expect_echo(&f->x, 0, 1);
	assert_false(f->x.irq.level);
}

static void nothing_before_driver_ok(void **state)
{
	struct fixture *f = *state;

	vx_set(&f->x, 0x070, 3);
	vx_features(&f->x, VIRTIO_F_VERSION_1);
	vx_set(&f->x, 0x070, 11);
	f->x.size = 8;
	vx_queue(&f->x, 0, 8, VX_DESC, VX_AVAIL, VX_USED);
	offer(&f->x, 0, 7);
	vx_kick(&f->x);
	vx_forbid(&f->x, true);
	assert_false(virtio_mmio_work(&f->v));
	vx_forbid(&f->x, false);
	vx_set(&f->x, 0x070, 15);
	assert_true(virtio_mmio_work(&f->v)); /* but it is not forgotten */
	expect_echo(&f->x, 0, 7);
}

static void a_ready_queue_is_fixed(void **state)
{
	struct fixture *f = *state;

	vx_bring_up(&f->x, 0, 8);
	vx_queue(&f->x, 0, 4, 0x5000, 0x6000, 0x7000);
	for (unsigned i = 0; i < 8; i++) { /* all entries of both rings */
		offer(&f->x, i % 4, i);
		vx_kick(&f->x);
		drain(f);
		expect_echo(&f->x, i % 4, i);
	}
	/* Taken away, moved, and made ready: it starts from 0. */
	vx_set(&f->x, 0x044, 0);
	assert_int_equal(vx_reg(&f->x, 0x044), 0);
	offer(&f->x, 1, 10);
	vx_kick(&f->x);
	assert_false(virtio_mmio_work(&f->v));
	memset(f->x.low + VX_AVAIL, 0, 0x2000);
	f->x.avail_idx = f->x.used_seen = 0;
	vx_set(&f->x, 0x044, 1);
	offer(&f->x, 1, 11);
	vx_kick(&f->x);
	drain(f);
	expect_echo(&f->x, 1, 11);
}

/* Both queues are served, whichever is busier. */
static void second_queue(void **state)
{
	struct fixture *f = *state;

	vx_bring_up(&f->x, 0, 8);
	offer(&f->x, 0, 1);
	vx_queue(&f->x, 1, 8, VX_DESC, VX_AVAIL, 0x6000);
	vx_set(&f->x, 0x050, 1);
	drain(f);
	assert_int_equal(vx_get16(&f->x, 0x6002), 1);
	assert_int_equal(vx_used_idx(&f->x), 0);
	vx_kick(&f->x);
	drain(f);
	assert_int_equal(vx_used_idx(&f->x), 1);
}

/* ---- trouble ---- */

static void expect_needs_reset(struct fixture *f)
{
	assert_int_equal(vx_reg(&f->x, 0x070), 0x4f);
	assert_int_equal(vx_reg(&f->x, 0x060) & 2, 2);
	assert_true(f->x.irq.level);
	/* It stands still until the driver resets it, and then it works. */
	vx_forbid(&f->x, true);
	vx_kick(&f->x);
	drain(f);
	vx_forbid(&f->x, false);
	vx_set(&f->x, 0x070, 0x0f);
	assert_int_equal(vx_reg(&f->x, 0x070), 0x4f);
	vx_bring_up(&f->x, 0, 8);
	assert_false(f->x.irq.level);
	offer(&f->x, 0, 77);
	vx_kick(&f->x);
	drain(f);
	expect_echo(&f->x, 0, 77);
	vx_set(&f->x, 0x064, 3);
}

static void malformed_ring(void **state)
{
	struct fixture *f = *state;

	vx_bring_up(&f->x, 0, 8);
	vx_desc(&f->x, 0, VX_DATA, 8, DESC_NEXT, 0);
	vx_offer(&f->x, 0);
	vx_kick(&f->x);
	drain(f);
	expect_needs_reset(f);
	vx_bring_up(&f->x, 0, 8);
	vx_put16(&f->x, VX_AVAIL + 2, 100);
	vx_kick(&f->x);
	drain(f);
	expect_needs_reset(f);
	/* The device may say so, too; and memory that fails leaves no other way. */
	static const int fails[] = {VIRTQ_MALFORMED, -EIO, -EFAULT};

	for (unsigned i = 0; i < ARRAY_LEN(fails); i++) {
		vx_bring_up(&f->x, 0, 8);
		offer(&f->x, 0, 1);
		f->d.fail = fails[i];
		vx_kick(&f->x);
		drain(f);
		f->d.fail = 0;
		expect_needs_reset(f);
	}
	assert_int_equal(f->v.resets_needed, 5);
}

static void malformed_setup(void **state)
{
	static const struct {
		uint32_t size;
		uint64_t desc, avail, used;
	} table[] = {
		{0, VX_DESC, VX_AVAIL, VX_USED},       {5, VX_DESC, VX_AVAIL, VX_USED},
		{512, VX_DESC, VX_AVAIL, VX_USED},     {0x10008, VX_DESC, VX_AVAIL, VX_USED},
		{8, VX_DESC + 1, VX_AVAIL, VX_USED},   {8, VX_DESC, VX_AVAIL + 1, VX_USED},
		{8, VX_DESC, VX_AVAIL, VX_USED + 1},   {8, VX_LOW_BYTES, VX_AVAIL, VX_USED},
		{8, VX_DESC, 1ull << 60, VX_USED},     {8, VX_DESC, VX_AVAIL, ~15ull},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		vx_set(&f->x, 0x070, 0);
		vx_set(&f->x, 0x070, 3);
		vx_features(&f->x, VIRTIO_F_VERSION_1);
		vx_set(&f->x, 0x070, 11);
		vx_queue(&f->x, 0, table[i].size, table[i].desc, table[i].avail, table[i].used);
		assert_int_equal(vx_reg(&f->x, 0x044), 0);
		assert_int_equal(vx_reg(&f->x, 0x070), 0x4b);
		assert_false(f->x.irq.level); /* not before DRIVER_OK */
		vx_set(&f->x, 0x070, 15);
		expect_needs_reset(f);
	}
}

/*
 * A page is lost to the host's memory, under each part of the ring and under the data in turn: the
 * device stands still, and goes on after a reset once the page is there.
 */
static void memory_is_lost(void **state)
{
	static const uint32_t pages[] = {VX_DESC, VX_AVAIL, VX_USED, VX_DATA};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_LEN(pages); i++) {
		vx_bring_up(&f->x, 0, 8);
		offer(&f->x, 0, 1);
		vx_kick(&f->x);
		vx_lose(&f->x, pages[i]);
		drain(f);
		vx_find(&f->x, pages[i]);
		expect_needs_reset(f);
	}
	assert_int_equal(f->v.resets_needed, ARRAY_LEN(pages));
}

static void config_changes(void **state)
{
	struct fixture *f = *state;
	uint8_t fresh[2] = {0xaa, 0xbb};

	virtio_mmio_config_set(&f->v, 3, fresh, 2);
	assert_int_equal(vx_reg(&f->x, 0x0fc), 1);
	assert_int_equal(vx_reg(&f->x, 0x100), 0xaa030201);
	assert_false(f->x.irq.level);
	vx_bring_up(&f->x, 0, 8);
	virtio_mmio_config_set(&f->v, VIRTIO_CONFIG_BYTES - 2, fresh, 2);
	assert_int_equal(vx_reg(&f->x, 0x0fc), 2);
	assert_int_equal(vx_reg(&f->x, 0x1fc), 0xbbaa0000);
	assert_int_equal(vx_reg(&f->x, 0x060), 2);
	assert_true(f->x.irq.level);
	vx_set(&f->x, 0x064, 2);
	assert_false(f->x.irq.level);
	vx_set(&f->x, 0x070, 0); /* a reset keeps it */
	assert_int_equal(vx_reg(&f->x, 0x1fc), 0xbbaa0000);
}

/* After a reset all is as after power-on: nothing that the driver said before counts. */
static void a_reset_forgets(void **state)
{
	struct fixture *f = *state;

	vx_bring_up(&f->x, ALL_RING | 5, 8);
	vx_queue(&f->x, 1, 8, VX_DESC, VX_AVAIL, 0x6000);
	offer(&f->x, 0, 1);
	vx_kick(&f->x);
	drain(f);
	assert_int_equal(vx_reg(&f->x, 0x060), 1);
	vx_set(&f->x, 0x014, 1);
	vx_set(&f->x, 0x024, 1);
	vx_set(&f->x, 0x030, 1);
	vx_set(&f->x, 0x070, 0);
	assert_int_equal(vx_reg(&f->x, 0x060), 0);
	assert_false(f->x.irq.level);
	/* Selectors: the lower features, those that the driver takes, and queue 0. */
	assert_int_equal(vx_reg(&f->x, 0x010), 0x30000005);
	for (uint32_t q = 0; q < 2; q++) {
		vx_set(&f->x, 0x030, q);
		assert_int_equal(vx_reg(&f->x, 0x044), 0);
	}
	/* Features: a driver that takes none has not taken VERSION_1 either. */
	vx_set(&f->x, 0x070, 3);
	vx_set(&f->x, 0x070, 11);
	assert_int_equal(vx_reg(&f->x, 0x070), 3);
	vx_set(&f->x, 0x020, 1);
	vx_set(&f->x, 0x024, 1);
	vx_set(&f->x, 0x020, 1);
	vx_set(&f->x, 0x070, 11);
	assert_int_equal(vx_reg(&f->x, 0x070), 11);
	assert_true(f->v.driver_features == (VIRTIO_F_VERSION_1 | 1));
	/* Queues: where they were nobody remembers. */
	vx_set(&f->x, 0x030, 0);
	vx_set(&f->x, 0x044, 1);
	assert_int_equal(vx_reg(&f->x, 0x044), 0);
	/* The driver's half of each feature word, and nothing of the other. */
	vx_set(&f->x, 0x070, 0);
	vx_set(&f->x, 0x070, 3);
	vx_features(&f->x, VIRTIO_F_VERSION_1 | ALL_RING | 5);
	vx_set(&f->x, 0x024, 0);
	vx_set(&f->x, 0x020, 4);
	vx_set(&f->x, 0x024, 2); /* there is no third */
	vx_set(&f->x, 0x020, UINT32_MAX);
	vx_set(&f->x, 0x070, 11);
	assert_true(f->v.driver_features == (VIRTIO_F_VERSION_1 | 4));
}

/* Every register, any value, any order: never a crash, and a reset always helps. */
static void mutated_registers(void **state)
{
	struct fixture *f = *state;
	struct prng rng;

	prng_init(&rng, 7);
	f->x.size = 8;
	for (unsigned round = 0; round < 3000; round++) {
		if (prng_below(&rng, 2))
			vx_bring_up(&f->x, prng_next(&rng) & ALL_RING, 8);
		offer(&f->x, (unsigned)prng_below(&rng, 4), round);
		for (unsigned i = 0; i < 20; i++) {
			uint64_t reg = prng_below(&rng, VIRTIO_MMIO_BYTES);
			unsigned width = 1u << prng_below(&rng, 4);
			uint64_t value = prng_next(&rng) >> prng_below(&rng, 64);

			if (prng_below(&rng, 3)) {
				reg &= ~3ull;
				width = 4;
			}
			if (prng_below(&rng, 4) == 0)
				f->x.low[VX_DESC + prng_below(&rng, 0x2100)] = (uint8_t)value;
			bus_write(&f->x.bus, BUS_MMIO, VX_MMIO + reg, width, value);
			(void)bus_read(&f->x.bus, BUS_MMIO, VX_MMIO + reg, width);
			(void)virtio_mmio_work(&f->v);
		}
	}
	vx_bring_up(&f->x, 0, 8);
	offer(&f->x, 0, 5);
	vx_kick(&f->x);
	drain(f);
	expect_echo(&f->x, 0, 5);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

static int serve_without_end(void *dev, unsigned queue, struct virtq *ring,
			     const struct virtio_request *rq, bool *ret_tell)
{
	unsigned *served = dev;

	(void)ring;
	assert_null(rq->chain);
	served[queue]++;
	*ret_tell = queue == 1;
	return 1;
}

#define MANY 40u

struct counts {
	struct fake_irq *irq;
	unsigned served;
	unsigned told[MANY]; /* interrupts before each was served */
};

static int serve_many(void *dev, unsigned queue, struct virtq *ring,
		      const struct virtio_request *rq, bool *ret_tell)
{
	struct counts *c = dev;

	(void)queue;
	(void)ring;
	(void)rq;
	c->told[c->served++] = c->irq->rises;
	*ret_tell = true;
	return c->served < MANY;
}

/* The driver hears of many buffers before all are done, and not of each. */
static void many_are_told_of_meanwhile(void **state)
{
	static const struct virtio_dev_ops ops = {
		.device_id = 42, .queues = 1, .serve = serve_many};
	struct virtio_mmio v;
	struct vx x;
	struct counts c = {.irq = &x.irq};
	struct virtio_mmio_cfg cfg = {.ops = &ops, .dev = &c, .mem = &x.mem};

	(void)state;
	vx_init(&x);
	cfg.irq = fake_irq_line(&x.irq, VX_GSI);
	assert_int_equal(virtio_mmio_open(&v, &cfg, NULL), 0);
	vx_attach(&x, &v);
	vx_bring_up(&x, 0, 64);
	vx_kick(&x);
	assert_true(virtio_mmio_work(&v));
	assert_int_equal(c.served, MANY);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(c.told[i], i >= 16);
	virtio_mmio_close(&v);
	vx_fini(&x);
}

/* A first queue that always has more does not keep the second one waiting. */
static void queues_take_turns(void **state)
{
	static const struct virtio_dev_ops ops = {
		.device_id = 42, .queues = 2, .serve = serve_without_end};
	unsigned served[2] = {0};
	struct virtio_mmio v;
	struct vx x;
	struct virtio_mmio_cfg cfg = {.ops = &ops, .dev = served, .mem = &x.mem};

	(void)state;
	vx_init(&x);
	cfg.irq = fake_irq_line(&x.irq, VX_GSI);
	assert_int_equal(virtio_mmio_open(&v, &cfg, NULL), 0);
	vx_attach(&x, &v);
	vx_bring_up(&x, 0, 4);
	vx_queue(&x, 1, 4, VX_DESC, VX_AVAIL, VX_USED);
	vx_kick(&x);
	virtio_mmio_kick(&v, 1);
	for (unsigned i = 0; i < 4; i++)
		assert_true(virtio_mmio_work(&v));
	/* Each time as often as it has entries. */
	assert_int_equal(served[0], 8);
	assert_int_equal(served[1], 8);
	assert_int_equal(x.irq.rises, 1);
	virtio_mmio_close(&v);
	vx_fini(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(queues_take_turns),
		cmocka_unit_test(many_are_told_of_meanwhile),
		TEST(register_table),
		TEST(access_widths),
		TEST(queue_select),
		TEST(negotiation),
		TEST(status_bits),
		TEST(requests),
		TEST(nothing_before_driver_ok),
		TEST(a_ready_queue_is_fixed),
		TEST(second_queue),
		TEST(malformed_ring),
		TEST(malformed_setup),
		TEST(memory_is_lost),
		TEST(config_changes),
		TEST(a_reset_forgets),
		TEST(mutated_registers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
