/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices into a snapshot and out of it: what a restored one saves is what it was restored from,
 * its line is driven, it serves what its rings hold, and a state that cannot be is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/chip/rtc_cmos.h"
#include "vmm/chip/serial_16550.h"
#include "vmm/virtio/virtio_mmio.h"

#define RAM_BYTES 0x10000u
#define DESC 0x1000u
#define AVAIL 0x2000u
#define USED 0x3000u

static bool level;

static void set_line(void *ctx, uint32_t gsi, bool up)
{
	(void)ctx;
	(void)gsi;
	level = up;
}

static const struct irq_ops irq_ops = {.set = set_line};
static const struct irq_line line = {.ops = &irq_ops};

static void drop_byte(void *ctx, uint8_t byte)
{
	(void)ctx;
	(void)byte;
}

static const struct serial_ops serial_ops = {.output = drop_byte};

static void serial_comes_back(void **state)
{
	struct serial a, b;
	struct serial_saved saved, again;

	(void)state;
	serial_init(&a, &serial_ops, NULL, &line);
	serial_init(&b, &serial_ops, NULL, &line);
	serial_bus_ops.write(&a, 2, 1, 0x01); /* FCR: FIFOs on */
	serial_bus_ops.write(&a, 1, 1, 0x01); /* IER: received data */
	serial_bus_ops.write(&a, 7, 1, 0x5a);
	assert_int_equal(serial_push(&a, "twenty bytes of input", 21), 21);
	assert_int_equal(serial_bus_ops.read(&a, 0, 1), 't');
	serial_save(&a, &saved);
	assert_int_equal(saved.rx_len + saved.backlog_len, 20);
	level = false;
	assert_int_equal(serial_restore(&b, &saved), 0);
	assert_true(level);
	serial_save(&b, &again);
	assert_memory_equal(&again, &saved, sizeof(saved));
	for (const char *c = "wenty bytes of input"; *c; c++)
		assert_int_equal(serial_bus_ops.read(&b, 0, 1), *c);
	assert_int_equal(serial_bus_ops.read(&b, 7, 1), 0x5a);
	assert_false(level);
	saved.rx_len = SERIAL_FIFO_BYTES + 1;
	assert_int_equal(serial_restore(&b, &saved), -EINVAL);
	saved.rx_len = 0;
	saved.backlog_len = SERIAL_BACKLOG_BYTES + 1;
	assert_int_equal(serial_restore(&b, &saved), -EINVAL);
	/* Without its FIFO it holds one byte. */
	saved.backlog_len = saved.fcr = 0;
	saved.rx_len = 2;
	assert_int_equal(serial_restore(&b, &saved), -EINVAL);
	saved.rx_len = 1;
	assert_int_equal(serial_restore(&b, &saved), 0);
	serial_fini(&a);
	serial_fini(&b);
}

static int64_t at_noon(void *ctx)
{
	(void)ctx;
	return 12 * 3600;
}

static void clock_comes_back(void **state)
{
	struct rtc a, b;
	struct rtc_saved saved, again;

	(void)state;
	rtc_init(&a, at_noon, NULL);
	rtc_init(&b, at_noon, NULL);
	rtc_bus_ops.write(&a, 0, 1, 4); /* hours, in BCD */
	rtc_bus_ops.write(&a, 1, 1, 0x17);
	rtc_bus_ops.write(&a, 0, 1, 0x40); /* memory */
	rtc_bus_ops.write(&a, 1, 1, 0xa5);
	rtc_bus_ops.write(&a, 0, 1, 4);
	rtc_save(&a, &saved);
	rtc_restore(&b, &saved);
	rtc_save(&b, &again);
	assert_memory_equal(&again, &saved, sizeof(saved));
	assert_int_equal(rtc_bus_ops.read(&b, 1, 1), 0x17);
	saved.index = 0xff;
	rtc_restore(&b, &saved); /* within its memory all the same */
	(void)rtc_bus_ops.read(&b, 1, 1);
	rtc_fini(&a);
	rtc_fini(&b);
}

/* ---- virtio ---- */

static unsigned char ram[RAM_BYTES] __attribute__((aligned(4096)));
static unsigned served;

static int serve(void *dev, unsigned queue, const struct virtio_request *rq, uint32_t *ret_written)
{
	(void)dev;
	(void)queue;
	(void)rq;
	*ret_written = 0;
	served++;
	return 0;
}

static const struct virtio_dev_ops dev_ops = {.device_id = 4, .queues = 1, .request = serve};
static const struct guest_mem mem = {.low = ram, .low_bytes = RAM_BYTES};

static void open_device(struct virtio_mmio *v)
{
	static const uint32_t config = 0x12345678;
	const struct virtio_mmio_cfg cfg = {.ops = &dev_ops, .mem = &mem, .irq = line, .name = "x",
					    .config = &config, .config_len = sizeof(config)};
	struct err e;

	assert_int_equal(virtio_mmio_open(v, &cfg, &e), 0);
}

static void set(struct virtio_mmio *v, uint64_t reg, uint32_t value)
{
	virtio_mmio_bus_ops.write(v, reg, 4, value);
}

/* A driver up to DRIVER_OK, with one queue of 8. */
static void drive(struct virtio_mmio *v)
{
	set(v, 0x070, 3);
	set(v, 0x024, 1); /* the upper half: VIRTIO_F_VERSION_1 */
	set(v, 0x020, 1);
	set(v, 0x070, 3 | 8);
	set(v, 0x038, 8);
	set(v, 0x080, DESC);
	set(v, 0x090, AVAIL);
	set(v, 0x0a0, USED);
	set(v, 0x044, 1);
	set(v, 0x070, 3 | 8 | 4);
}

/* One empty descriptor as entry n of the available ring. */
static void make_available(uint16_t n)
{
	uint16_t idx = (uint16_t)(n + 1);

	memcpy(ram + AVAIL + 4 + 2 * (n % 8), &(uint16_t){0}, 2);
	memcpy(ram + AVAIL + 2, &idx, 2);
}

static void device_goes_on_in_its_ring(void **state)
{
	struct virtio_mmio a, b;
	struct virtio_mmio_saved saved, again;

	(void)state;
	memset(ram, 0, sizeof(ram));
	served = 0;
	open_device(&a);
	open_device(&b);
	drive(&a);
	for (uint16_t n = 0; n < 11; n++) {
		make_available(n);
		set(&a, 0x050, 0);
		while (virtio_mmio_work(&a)) {
		}
	}
	assert_int_equal(served, 11);
	make_available(11); /* nobody has told yet */
	virtio_mmio_hold(&a);
	virtio_mmio_save(&a, &saved);
	virtio_mmio_release(&a);
	assert_int_equal(saved.queues[0].avail_next, 11);
	assert_int_equal(saved.queues[0].used_next, 11);
	level = false;
	assert_int_equal(virtio_mmio_restore(&b, &saved), 0);
	assert_true(level); /* the used buffers' interrupt is still to be acknowledged */
	virtio_mmio_hold(&b);
	virtio_mmio_save(&b, &again);
	virtio_mmio_release(&b);
	saved.queues[0].kicked = 1;
	assert_memory_equal(&again, &saved, sizeof(saved));
	while (virtio_mmio_work(&b)) {
	}
	assert_int_equal(served, 12);
	virtio_mmio_close(&a);
	virtio_mmio_close(&b);
}

static void held_device_begins_nothing(void **state)
{
	struct virtio_mmio a;

	(void)state;
	memset(ram, 0, sizeof(ram));
	served = 0;
	open_device(&a);
	drive(&a);
	virtio_mmio_hold(&a);
	make_available(0);
	set(&a, 0x050, 0);
	assert_false(virtio_mmio_work(&a));
	virtio_mmio_release(&a);
	assert_true(virtio_mmio_work(&a));
	assert_int_equal(served, 1);
	virtio_mmio_close(&a);
}

static void states_that_cannot_be_are_refused(void **state)
{
	struct virtio_mmio a;
	struct virtio_mmio_saved good, bad;

	(void)state;
	open_device(&a);
	drive(&a);
	virtio_mmio_hold(&a);
	virtio_mmio_save(&a, &good);
	virtio_mmio_release(&a);
	virtio_mmio_close(&a);
	for (unsigned i = 0; i < 7; i++) {
		int why = -EINVAL;

		bad = good;
		switch (i) {
		case 0:
			bad.status |= 0x100;
			break;
		case 1:
			bad.driver_features |= 1ull << 40; /* that another backend has offered */
			why = -ENOTSUP;
			break;
		case 2:
			bad.queues[0].size = 7;
			break;
		case 3:
			bad.queues[0].size = 2 * VIRTQ_SIZE_MAX;
			break;
		case 4:
			bad.queues[0].desc = RAM_BYTES - 16;
			break;
		case 5:
			bad.queues[0].avail = UINT64_MAX - 1;
			break;
		case 6:
			bad.queues[0].used = USED + 2; /* not aligned */
			break;
		}
		open_device(&a);
		assert_int_equal(virtio_mmio_restore(&a, &bad), why);
		virtio_mmio_close(&a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(serial_comes_back),
		cmocka_unit_test(clock_comes_back),
		cmocka_unit_test(device_goes_on_in_its_ring),
		cmocka_unit_test(held_device_begins_nothing),
		cmocka_unit_test(states_that_cannot_be_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
