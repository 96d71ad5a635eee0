/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio_echo_fixture.h"

static int echo_request(void *dev, unsigned queue, const struct virtio_request *rq,
			uint32_t *ret_written)
{
	unsigned char buf[256];
	struct echo *d = dev;
	uint32_t n = (uint32_t)min_u64(min_u64(rq->chain->out_len, rq->chain->in_len),
				       sizeof(buf));
	int rc = d->fail;

	assert_true(queue < 2);
	if (rc < 0)
		return rc;
	if (d->hang) {
		d->hanging++;
		while (!atomic_load(rq->cancelled))
			sched_yield();
		d->dropped++;
		return -ECANCELED;
	}
	virtq_chain_read(rq->chain, 0, buf, n);
	for (uint32_t i = 0; i < n; i++)
		buf[i] = (unsigned char)~buf[i];
	virtq_chain_write(rq->chain, 0, buf, n);
	*ret_written = n;
	d->served++;
	return rc;
}

static const struct virtio_dev_ops echo_ops = {
	.device_id = 42, .queues = 2, .request = echo_request};

int open_with(struct fixture *f, bool threaded)
{
	static const uint8_t config[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
	struct virtio_mmio_cfg cfg = {
		.ops = &echo_ops, .dev = &f->d, .mem = &f->x.mem, .features = 0x5,
		.config = config, .config_len = sizeof(config), .threaded = threaded,
		.name = "echo",
		.irq = fake_irq_line(&f->x.irq, VX_GSI),
	};
	int rc = virtio_mmio_open(&f->v, &cfg, NULL);

	if (rc == 0)
		vx_attach(&f->x, &f->v);
	return rc;
}

int setup_as(void **state, bool threaded)
{
	struct fixture *f = test_calloc(1, sizeof(*f));

	vx_init(&f->x);
	*state = f;
	return open_with(f, threaded);
}

int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_mmio_close(&f->v);
	assert_false(f->x.irq.level);
	virtio_mmio_close(&f->v);
	vx_fini(&f->x);
	test_free(f);
	return 0;
}

void offer(struct vx *x, unsigned i, uint64_t value)
{
	vx_put(x, VX_DATA + 16 * i, &value, 8);
	vx_desc(x, 2 * i, VX_DATA + 16 * i, 8, DESC_NEXT, 2 * i + 1);
	vx_desc(x, 2 * i + 1, VX_DATA + 16 * i + 8, 8, DESC_WRITE, 0);
	vx_offer(x, 2 * i);
}

void expect_echo(struct vx *x, unsigned i, uint64_t value)
{
	uint32_t head, len;
	uint64_t got;

	assert_true(vx_take(x, &head, &len));
	assert_int_equal(head, 2 * i);
	assert_int_equal(len, 8);
	vx_get(x, VX_DATA + 16 * i + 8, &got, 8);
	assert_true(got == ~value);
}
