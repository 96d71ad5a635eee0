/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/virtio_mmio.c with its worker thread: requests are served meanwhile; reset and close
 * drop the one in hand.
 */
#include "virtio_echo_fixture.h"

static int setup(void **state)
{
	return setup_as(state, true);
}

static void wait_used(struct vx *x, uint16_t idx)
{
	while (vx_used_idx(x) != idx)
		sched_yield();
}

static void worker_serves(void **state)
{
	struct fixture *f = *state;

	vx_bring_up(&f->x, ALL_RING, 8);
	for (unsigned n = 0; n < 2000; n++) {
		offer(&f->x, n % 4, n);
		/* Each is told of: the event index follows. */
		vx_kick(&f->x);
		wait_used(&f->x, (uint16_t)(n + 1));
		expect_echo(&f->x, n % 4, n);
	}
}

static void wait_hanging(struct fixture *f, unsigned count)
{
	while (f->d.hanging < count)
		sched_yield();
}

static void reset_drops_the_request(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 1; i <= 20; i++) {
		f->d.hang = true;
		vx_bring_up(&f->x, 0, 8);
		offer(&f->x, 0, i);
		vx_kick(&f->x);
		wait_hanging(f, i);
		if (i % 2) {
			vx_set(&f->x, 0x070, 0);
		} else {
			vx_set(&f->x, 0x030, 0);
			vx_set(&f->x, 0x044, 0);
		}
		assert_int_equal(f->d.dropped, i);
		assert_int_equal(vx_used_idx(&f->x), 0);
		f->d.hang = false;
		vx_bring_up(&f->x, 0, 8);
		offer(&f->x, 1, i);
		vx_kick(&f->x);
		wait_used(&f->x, 1);
		expect_echo(&f->x, 1, i);
	}
}

/* Taking one queue away does not lose the other's request. */
static void other_queue_goes_on(void **state)
{
	struct fixture *f = *state;

	f->d.hang = true;
	vx_bring_up(&f->x, 0, 8);
	vx_queue(&f->x, 1, 8, 0x5000, 0x6000, 0x7000);
	offer(&f->x, 0, 3);
	vx_kick(&f->x);
	wait_hanging(f, 1);
	vx_set(&f->x, 0x030, 1);
	f->d.hang = false;
	vx_set(&f->x, 0x044, 0);
	wait_used(&f->x, 1);
	expect_echo(&f->x, 0, 3);
	assert_int_equal(f->d.dropped, 1);
}

static void close_drops_the_request(void **state)
{
	struct fixture *f = *state;

	f->d.hang = true;
	vx_bring_up(&f->x, 0, 8);
	offer(&f->x, 0, 3);
	offer(&f->x, 1, 4);
	vx_kick(&f->x);
	wait_hanging(f, 1);
	virtio_mmio_close(&f->v);
	assert_int_equal(f->d.dropped, 1);
	assert_int_equal(f->d.hanging, 1); /* the second was not begun */
	assert_int_equal(vx_used_idx(&f->x), 0);
}

static void *resetter(void *arg)
{
	struct vx *x = arg;

	for (unsigned i = 0; i < 300; i++) {
		vx_set(x, 0x070, 0);
		(void)vx_reg(x, 0x070);
		sched_yield();
	}
	return NULL;
}

/* Two vCPUs that contradict each other; what comes of it is their affair. */
static void two_vcpus(void **state)
{
	struct fixture *f = *state;
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, resetter, &f->x), 0);
	f->x.size = 8;
	for (unsigned i = 0; i < 300; i++) {
		vx_set(&f->x, 0x070, 3);
		vx_features(&f->x, VIRTIO_F_VERSION_1);
		vx_set(&f->x, 0x070, 11);
		vx_queue(&f->x, 0, 8, VX_DESC, VX_AVAIL, VX_USED);
		vx_set(&f->x, 0x070, 15);
		offer(&f->x, i % 4, i);
		vx_kick(&f->x);
	}
	pthread_join(t, NULL);
	vx_bring_up(&f->x, 0, 8);
	offer(&f->x, 0, 5);
	vx_kick(&f->x);
	wait_used(&f->x, 1);
	expect_echo(&f->x, 0, 5);
}

/* ---- a queue's end ---- */

struct ended {
	struct virtio_mmio v;
	struct vx x;
	atomic_bool begun;
	unsigned count, queue; /* of stopped(): calls, and the last one's */
};

/* While its queue's end is waited for another vCPU selects a queue that there is none of. */
static int select_another(void *dev, unsigned queue, const struct virtio_request *rq,
			  uint32_t *ret_written)
{
	struct ended *d = dev;

	(void)queue;
	(void)ret_written;
	atomic_store(&d->begun, true);
	while (!atomic_load(rq->cancelled))
		sched_yield();
	vx_set(&d->x, 0x030, 7);
	return -ECANCELED;
}

static void note_end(void *dev, unsigned queue)
{
	struct ended *d = dev;

	d->count++;
	d->queue = queue;
}

static void the_queue_that_ends_is_told(void **state)
{
	static const struct virtio_dev_ops ops = {
		.device_id = 42, .queues = 2, .request = select_another, .stopped = note_end};
	struct ended d = {.count = 0};
	struct virtio_mmio_cfg cfg = {.ops = &ops, .dev = &d, .mem = &d.x.mem, .threaded = true};

	(void)state;
	vx_init(&d.x);
	cfg.irq = fake_irq_line(&d.x.irq, VX_GSI);
	assert_int_equal(virtio_mmio_open(&d.v, &cfg, NULL), 0);
	vx_attach(&d.x, &d.v);
	vx_bring_up(&d.x, 0, 8);
	offer(&d.x, 0, 1);
	vx_kick(&d.x);
	while (!atomic_load(&d.begun))
		sched_yield();
	d.count = 0;
	d.queue = 7;
	vx_set(&d.x, 0x030, 0);
	vx_set(&d.x, 0x044, 0);
	assert_int_equal(d.count, 1);
	assert_int_equal(d.queue, 0);
	assert_int_equal(vx_reg(&d.x, 0x070) & VIRTIO_NEEDS_RESET, 0);
	virtio_mmio_close(&d.v);
	vx_fini(&d.x);
}

/* ---- interrupts ---- */

struct pair {
	struct virtio_mmio v;
	struct vx x;
	unsigned told_before; /* interrupts, when the first queue's turn came */
};

/* What the second queue is served brings work for the first. */
static int serve_both(void *dev, unsigned queue, struct virtq *ring,
		      const struct virtio_request *rq, bool *ret_tell)
{
	struct pair *p = dev;

	(void)ring;
	(void)rq;
	*ret_tell = true;
	if (queue == 1)
		virtio_mmio_kick(&p->v, 0);
	else
		p->told_before = p->x.irq.rises;
	return 0;
}

static void one_interrupt_for_both(void **state)
{
	static const struct virtio_dev_ops ops = {
		.device_id = 42, .queues = 2, .serve = serve_both};
	struct pair p = {.told_before = 7};
	struct virtio_mmio_cfg cfg = {.ops = &ops, .dev = &p, .mem = &p.x.mem, .threaded = true};

	(void)state;
	vx_init(&p.x);
	cfg.irq = fake_irq_line(&p.x.irq, VX_GSI);
	assert_int_equal(virtio_mmio_open(&p.v, &cfg, NULL), 0);
	vx_attach(&p.x, &p.v);
	vx_bring_up(&p.x, 0, 4);
	vx_queue(&p.x, 1, 4, VX_DESC, VX_AVAIL, VX_USED);
	virtio_mmio_kick(&p.v, 1);
	while (!vx_reg(&p.x, 0x060))
		sched_yield();
	assert_int_equal(p.told_before, 0);
	virtio_mmio_close(&p.v);
	vx_fini(&p.x);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(worker_serves),
		TEST(reset_drops_the_request),
		TEST(other_queue_goes_on),
		TEST(close_drops_the_request),
		TEST(two_vcpus),
		cmocka_unit_test(the_queue_that_ends_is_told),
		cmocka_unit_test(one_interrupt_for_both),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
