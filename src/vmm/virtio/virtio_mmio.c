/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_mmio.h. Numbers in comments are sections of virtio 1.2. */
#include "vmm/virtio/virtio_mmio.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/time.h"
#include "vmm/memory/guest_touch.h"

/* 4.2.2, table 4.1 */
enum {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR_ID = 0x00c,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SEL = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SEL = 0x024,
	REG_QUEUE_SEL = 0x030,
	REG_QUEUE_NUM_MAX = 0x034,
	REG_QUEUE_NUM = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = 0x050,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC = 0x080,
	REG_QUEUE_DRIVER = 0x090,
	REG_QUEUE_DEVICE = 0x0a0,
	REG_SHM_FIRST = 0x0b0, /* length, then base */
	REG_SHM_LAST = 0x0bc,
	REG_CONFIG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,

	MMIO_MAGIC = 0x74726976, /* "virt" */
	MMIO_VERSION = 2,
	MMIO_VENDOR = 0x46505941, /* "AYPF": any value will do */
};

/* What goes at once is no less: one piece of a disk's. */
#define VIRTIO_BYTES_BURST 65536u

/* After this many buffers the driver gets its interrupt, even if others are waiting. */
#define TELL_AFTER 16u

#define STATUS_ALL \
	(VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_FAILED)

static uint64_t offered(const struct virtio_mmio *v)
{
	return v->cfg.features | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
}

/* ---- interrupts ---- */

static void raise_locked(struct virtio_mmio *v, uint32_t why)
{
	v->interrupts |= why;
	irq_set(&v->cfg.irq, v->interrupts != 0);
}

/* 2.1.2: say that nothing goes on, and by a configuration interrupt if the driver runs. */
static void needs_reset_locked(struct virtio_mmio *v)
{
	if (v->status & VIRTIO_NEEDS_RESET)
		return;
	v->status |= VIRTIO_NEEDS_RESET;
	v->resets_needed++;
	if (v->status & VIRTIO_DRIVER_OK)
		raise_locked(v, VIRTIO_INT_CONFIG);
}

/* ---- serving queues ---- */

/* For whoever waits for `changed`, and a worker that waits for its device. */
static void tell_locked(struct virtio_mmio *v)
{
	pthread_cond_broadcast(&v->changed);
	if (v->waits) {
		v->waits = false;
		v->cfg.ops->wake(v->cfg.dev);
	}
}

/* The next queue to serve, or NULL. Nothing before DRIVER_OK (3.1.1). */
static struct virtio_mmio_queue *next_locked(struct virtio_mmio *v)
{
	if (v->waiting_idle || v->closing || !(v->status & VIRTIO_DRIVER_OK) ||
	    (v->status & VIRTIO_NEEDS_RESET))
		return NULL;
	for (unsigned i = 0; i < v->cfg.ops->queues; i++) {
		unsigned at = (v->turn + i) % v->cfg.ops->queues;

		if (v->queues[at].ready && v->queues[at].kicked)
			return &v->queues[at];
	}
	return NULL;
}

static void raise_used(struct virtio_mmio *v)
{
	pthread_mutex_lock(&v->lock);
	raise_locked(v, VIRTIO_INT_USED);
	pthread_mutex_unlock(&v->lock);
}

/* As serve_one, by a device that takes its buffers itself. */
static int serve_own(struct virtio_mmio *v, struct virtio_mmio_queue *vq, uint64_t features)
{
	const struct virtio_request rq = {.cancelled = &v->cancelled, .features = features};
	bool tell = false;
	int rc = v->cfg.ops->serve(v->cfg.dev, (unsigned)(vq - v->queues), &vq->ring, &rq, &tell);

	if (tell && ++v->untold == TELL_AFTER) {
		v->untold = 0;
		raise_used(v);
	}
	return rc;
}

/* One buffer. 1: go on; 0: none is left; otherwise the queue's end. */
static int serve_one(struct virtio_mmio *v, struct virtio_mmio_queue *vq, uint64_t features)
{
	const struct virtio_request rq = {
		.chain = &v->chain, .cancelled = &v->cancelled, .features = features};
	uint32_t written = 0;
	int rc;

	if (v->cfg.ops->serve)
		return serve_own(v, vq, features);
	rc = virtq_pop(&vq->ring, &v->chain);
	if (rc == 0)
		return virtq_rearm(&vq->ring);
	if (rc < 0)
		return rc;
	rc = v->cfg.ops->request(v->cfg.dev, (unsigned)(vq - v->queues), &rq, &written);
	if (rc == -ECANCELED)
		virtq_unpop(&vq->ring);
	if (rc < 0)
		return rc;
	v->count.requests++;
	if (virtq_push(&vq->ring, v->chain.head, written))
		raise_used(v);
	return 1;
}

/*
 * As serve_one, for no more than the queue's size: then the others' turn comes. -EFAULT: guest
 * memory could not be had. No lock is held where it is touched.
 */
static int serve_some(struct virtio_mmio *v, struct virtio_mmio_queue *vq, uint64_t features)
{
	uint32_t budget = vq->ring.size;
	struct guest_touch touch;
	int rc = 1;

	guest_touch_begin(&touch, v->cfg.mem);
	if (sigsetjmp(touch.env, 1) != 0)
		return -EFAULT;
	while (rc == 1 && budget-- && !atomic_load(&v->cancelled))
		rc = serve_one(v, vq, features);
	guest_touch_end();
	return rc;
}

/*
 * Called and returns with the lock held. While `busy`, ring and chain are the server's and
 * the lock is free. A queue that was cut off keeps its kick: should it still exist, it is
 * served again, a dropped request first.
 */
static void serve_locked(struct virtio_mmio *v, struct virtio_mmio_queue *vq)
{
	uint64_t features = v->driver_features;
	int rc;

	v->turn = (unsigned)(vq - v->queues) + 1;
	vq->kicked = false;
	v->busy = true;
	pthread_mutex_unlock(&v->lock);
	rc = serve_some(v, vq, features);
	pthread_mutex_lock(&v->lock);
	v->busy = false;
	if (rc == 1 || rc == -ECANCELED)
		vq->kicked = true;
	else if (rc < 0)
		needs_reset_locked(v);
	/*
	 * One for all that was done before the worker waits: an interrupt costs a driver three
	 * exits, and what is sent and the answer to it are often done together.
	 */
	if (v->untold && !(v->cfg.threaded && next_locked(v))) {
		v->untold = 0;
		raise_locked(v, VIRTIO_INT_USED);
	}
	pthread_cond_broadcast(&v->changed);
}

bool virtio_mmio_work(struct virtio_mmio *v)
{
	struct virtio_mmio_queue *vq;

	pthread_mutex_lock(&v->lock);
	ASSERT(!v->busy);
	vq = next_locked(v);
	if (vq)
		serve_locked(v, vq);
	pthread_mutex_unlock(&v->lock);
	return vq != NULL;
}

bool virtio_mmio_is_driven(struct virtio_mmio *v)
{
	const uint32_t mask = VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET | VIRTIO_FAILED;
	bool driven;

	pthread_mutex_lock(&v->lock);
	driven = (v->status & mask) == VIRTIO_DRIVER_OK;
	pthread_mutex_unlock(&v->lock);
	return driven;
}

static void *worker(void *arg)
{
	struct virtio_mmio *v = arg;

	if (v->cfg.begins)
		v->cfg.begins(v->cfg.begins_ctx);
	pthread_mutex_lock(&v->lock);
	while (!v->closing) {
		struct virtio_mmio_queue *vq = next_locked(v);

		if (vq) {
			serve_locked(v, vq);
		} else if (v->cfg.ops->wait) {
			v->waits = true;
			pthread_mutex_unlock(&v->lock);
			v->cfg.ops->wait(v->cfg.dev);
			pthread_mutex_lock(&v->lock);
			v->waits = false;
		} else {
			pthread_cond_wait(&v->changed, &v->lock);
		}
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

/* Until nobody serves a queue; the server does not begin anew before resume_locked. */
static void cancel_locked(struct virtio_mmio *v)
{
	v->waiting_idle++;
	atomic_store(&v->cancelled, true);
	tell_locked(v); /* a request that is held back */
}

static void quiesce_locked(struct virtio_mmio *v)
{
	cancel_locked(v);
	while (v->busy)
		pthread_cond_wait(&v->changed, &v->lock);
}

static void resume_locked(struct virtio_mmio *v)
{
	if (--v->waiting_idle == 0)
		atomic_store(&v->cancelled, false);
	tell_locked(v);
}

static void stopped_locked(struct virtio_mmio *v, const struct virtio_mmio_queue *vq)
{
	if (v->cfg.ops->stopped)
		v->cfg.ops->stopped(v->cfg.dev, (unsigned)(vq - v->queues));
}

/* ---- limits ---- */

/* False: cancelled. */
static bool sleep_until(struct virtio_mmio *v, uint64_t until_ns)
{
	struct timespec until = timespec_of_ns(until_ns);
	bool cancelled;

	pthread_mutex_lock(&v->lock);
	while (!(cancelled = atomic_load(&v->cancelled)) && monotonic_ns() < until_ns)
		pthread_cond_timedwait(&v->changed, &v->lock, &until);
	pthread_mutex_unlock(&v->lock);
	return !cancelled;
}

static uint64_t wait_ns(const struct virtio_mmio *v, uint64_t requests, uint64_t bytes,
			uint64_t now)
{
	return max_u64(requests ? rate_wait_ns(&v->requests, now) : 0,
		       bytes ? rate_wait_ns(&v->bytes, now) : 0);
}

int virtio_mmio_throttle(struct virtio_mmio *v, uint64_t requests, uint64_t bytes)
{
	uint64_t start = monotonic_ns(), now = start, wait;
	bool goes = true;

	while (goes && (wait = wait_ns(v, requests, bytes, now)) > 0) {
		v->count.throttled_since_ns = start;
		goes = sleep_until(v, wait < NS_NEVER - now ? now + wait : NS_NEVER);
		now = monotonic_ns();
	}
	if (v->count.throttled_since_ns) {
		/* Read the other way round: it may be counted too late, and never twice. */
		v->count.throttled_since_ns = 0;
		v->count.throttled_ns += now - start;
	}
	if (!goes)
		return -ECANCELED;
	rate_take(&v->requests, requests, now);
	rate_take(&v->bytes, bytes, now);
	return 0;
}

void virtio_mmio_charge(struct virtio_mmio *v, uint64_t requests)
{
	uint64_t now = monotonic_ns();

	/* No debt without end. */
	if (rate_wait_ns(&v->requests, now) == 0)
		rate_take(&v->requests, requests, now);
}

void virtio_mmio_stats_get(struct virtio_mmio *v, struct device_stats *ret)
{
	uint64_t throttled = v->count.throttled_ns, since = v->count.throttled_since_ns;
	clockid_t id;

	*ret = (struct device_stats){.requests = v->count.requests, .throttled_ns = throttled};
	if (v->cfg.name)
		strncpy(ret->name, v->cfg.name, sizeof(ret->name) - 1);
	if (since)
		ret->throttled_ns += monotonic_ns() - since;
	if (v->cfg.threaded && pthread_getcpuclockid(v->thread, &id) == 0)
		ret->cpu_ns = clock_ns(id);
}

/* ---- status and features ---- */

/* 2.4.1: all is as after power-on; the configuration space stays. */
static void reset_locked(struct virtio_mmio *v)
{
	quiesce_locked(v);
	v->status = 0;
	v->interrupts = 0;
	irq_set(&v->cfg.irq, false);
	v->driver_features = 0;
	v->device_features_sel = v->driver_features_sel = v->queue_sel = 0;
	memset(v->queues, 0, sizeof(v->queues));
	for (unsigned i = 0; i < v->cfg.ops->queues; i++)
		stopped_locked(v, &v->queues[i]);
	resume_locked(v);
}

static bool features_ok(const struct virtio_mmio *v)
{
	return !(v->driver_features & ~offered(v)) && (v->driver_features & VIRTIO_F_VERSION_1);
}

/*
 * Bits are only added, except by a reset (2.1.1). FEATURES_OK stays off when we cannot live
 * with what the driver took (3.1.1, step 6), and without it there is no DRIVER_OK.
 */
static void status_write_locked(struct virtio_mmio *v, uint32_t value)
{
	uint32_t fresh = value & STATUS_ALL & ~v->status;

	if (value == 0) {
		reset_locked(v);
		return;
	}
	if ((fresh & VIRTIO_FEATURES_OK) && !features_ok(v))
		fresh &= ~(uint32_t)VIRTIO_FEATURES_OK;
	if (!((v->status | fresh) & VIRTIO_FEATURES_OK))
		fresh &= ~(uint32_t)VIRTIO_DRIVER_OK;
	v->status |= fresh;
	/* A ring that was wrong before the driver could be told. */
	if ((fresh & VIRTIO_DRIVER_OK) && (v->status & VIRTIO_NEEDS_RESET))
		raise_locked(v, VIRTIO_INT_CONFIG);
	tell_locked(v);
}

static void driver_features_write_locked(struct virtio_mmio *v, uint32_t value)
{
	uint32_t sel = v->driver_features_sel;

	if ((v->status & VIRTIO_FEATURES_OK) || sel > 1) /* 2.2.1: too late */
		return;
	v->driver_features &= ~(0xffffffffull << (32 * sel));
	v->driver_features |= (uint64_t)value << (32 * sel);
}

/* ---- queues ---- */

static struct virtio_mmio_queue *selected(struct virtio_mmio *v)
{
	return v->queue_sel < v->cfg.ops->queues ? &v->queues[v->queue_sel] : NULL;
}

static void queue_ready_write_locked(struct virtio_mmio *v, uint32_t value)
{
	struct virtio_mmio_queue *vq = selected(v);

	if (!vq || vq->ready == (value & 1))
		return;
	if (!(value & 1)) {
		/* Another vCPU may select another queue while this one is waited for. */
		quiesce_locked(v);
		vq->ready = false;
		stopped_locked(v, vq);
		resume_locked(v);
		return;
	}
	/* The ring's options are fixed by the features that were taken before (3.1.1). */
	if (virtq_start(&vq->ring, v->cfg.mem, v->driver_features) < 0) {
		needs_reset_locked(v);
		return;
	}
	vq->ready = true;
	tell_locked(v);
}

/* Where the two halves of an address register go, or NULL: 4.2.2.2, not while it is in use. */
static gpa_t *queue_address(struct virtio_mmio *v, uint64_t reg)
{
	struct virtio_mmio_queue *vq = selected(v);

	if (!vq || vq->ready)
		return NULL;
	switch (reg & ~7ull) {
	case REG_QUEUE_DESC:
		return &vq->ring.desc;
	case REG_QUEUE_DRIVER:
		return &vq->ring.avail;
	case REG_QUEUE_DEVICE:
		return &vq->ring.used;
	default:
		return NULL;
	}
}

static void queue_address_write_locked(struct virtio_mmio *v, uint64_t reg, uint32_t value)
{
	gpa_t *gpa = queue_address(v, reg);
	unsigned shift = reg & 4 ? 32 : 0;

	if (gpa)
		gpa->v = (gpa->v & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

static void queue_num_write_locked(struct virtio_mmio *v, uint32_t value)
{
	struct virtio_mmio_queue *vq = selected(v);

	if (vq && !vq->ready)
		vq->ring.size = value; /* checked when the queue is made ready */
}

static void notify_locked(struct virtio_mmio *v, uint32_t queue)
{
	if (queue >= v->cfg.ops->queues)
		return;
	v->queues[queue].kicked = true;
	tell_locked(v);
}

void virtio_mmio_kick(struct virtio_mmio *v, unsigned queue)
{
	pthread_mutex_lock(&v->lock);
	notify_locked(v, queue);
	pthread_mutex_unlock(&v->lock);
}

/* ---- registers ---- */

static uint32_t reg_read_locked(struct virtio_mmio *v, uint64_t reg)
{
	struct virtio_mmio_queue *vq = selected(v);

	switch (reg) {
	case REG_MAGIC:
		return MMIO_MAGIC;
	case REG_VERSION:
		return MMIO_VERSION;
	case REG_DEVICE_ID:
		return v->cfg.ops->device_id;
	case REG_VENDOR_ID:
		return MMIO_VENDOR;
	case REG_DEVICE_FEATURES:
		return v->device_features_sel > 1
			       ? 0
			       : (uint32_t)(offered(v) >> (32 * v->device_features_sel));
	case REG_QUEUE_NUM_MAX:
		return vq ? VIRTQ_SIZE_MAX : 0;
	case REG_QUEUE_READY:
		return vq && vq->ready;
	case REG_INTERRUPT_STATUS:
		return v->interrupts;
	case REG_STATUS:
		return v->status;
	case REG_CONFIG_GENERATION:
		return v->generation;
	default:
		/* There are no shared memory regions: all ones (4.2.2, SHMLen and SHMBase). */
		return reg >= REG_SHM_FIRST && reg <= REG_SHM_LAST ? UINT32_MAX : 0;
	}
}

static void reg_write_locked(struct virtio_mmio *v, uint64_t reg, uint32_t value)
{
	switch (reg) {
	case REG_DEVICE_FEATURES_SEL:
		v->device_features_sel = value;
		break;
	case REG_DRIVER_FEATURES:
		driver_features_write_locked(v, value);
		break;
	case REG_DRIVER_FEATURES_SEL:
		v->driver_features_sel = value;
		break;
	case REG_QUEUE_SEL:
		v->queue_sel = value;
		break;
	case REG_QUEUE_NUM:
		queue_num_write_locked(v, value);
		break;
	case REG_QUEUE_READY:
		queue_ready_write_locked(v, value);
		break;
	case REG_QUEUE_NOTIFY:
		notify_locked(v, value);
		break;
	case REG_INTERRUPT_ACK:
		v->interrupts &= ~value;
		irq_set(&v->cfg.irq, v->interrupts != 0);
		break;
	case REG_STATUS:
		status_write_locked(v, value);
		break;
	default:
		queue_address_write_locked(v, reg, value);
		break;
	}
}

static void config_write_locked(struct virtio_mmio *v, uint64_t off, unsigned width,
				uint32_t value)
{
	if (v->cfg.ops->config_write && v->cfg.ops->config_write(v->cfg.dev, off, width, value))
		memcpy(v->config + off, &value, width);
}

/* 4.2.2.2: registers are 32 bits wide and aligned; the configuration space may be cut up. */
static uint64_t mmio_read(void *dev, uint64_t offset, unsigned width)
{
	struct virtio_mmio *v = dev;
	uint32_t value = UINT32_MAX;

	pthread_mutex_lock(&v->lock);
	if (offset >= REG_CONFIG) {
		value = 0;
		memcpy(&value, v->config + (offset - REG_CONFIG), width);
	} else if (width == 4 && offset % 4 == 0) {
		value = reg_read_locked(v, offset);
	}
	pthread_mutex_unlock(&v->lock);
	return value;
}

static void mmio_write(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	struct virtio_mmio *v = dev;

	if (offset < REG_CONFIG && (width != 4 || offset % 4))
		return;
	pthread_mutex_lock(&v->lock);
	if (offset >= REG_CONFIG)
		config_write_locked(v, offset - REG_CONFIG, width, (uint32_t)value);
	else
		reg_write_locked(v, offset, (uint32_t)value);
	pthread_mutex_unlock(&v->lock);
}

const struct bus_ops virtio_mmio_bus_ops = {
	.read = mmio_read,
	.write = mmio_write,
	.width_max = 4,
};

/* ---- life ---- */

void virtio_mmio_config_set(struct virtio_mmio *v, size_t off, const void *bytes, size_t len)
{
	ASSERT(off <= VIRTIO_CONFIG_BYTES && len <= VIRTIO_CONFIG_BYTES - off);
	pthread_mutex_lock(&v->lock);
	memcpy(v->config + off, bytes, len);
	v->generation++;
	if (v->status & VIRTIO_DRIVER_OK)
		raise_locked(v, VIRTIO_INT_CONFIG);
	pthread_mutex_unlock(&v->lock);
}

/* Its time-outs are by the clock of the limits. */
static int init_changed(struct virtio_mmio *v)
{
	pthread_condattr_t attr;
	int rc = -pthread_condattr_init(&attr);

	if (rc < 0)
		return rc;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	rc = -pthread_cond_init(&v->changed, &attr);
	pthread_condattr_destroy(&attr);
	return rc;
}

static int start_worker(struct virtio_mmio *v)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* its own, for a touch that fails */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&v->thread, NULL, worker, v);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc == 0 && v->cfg.name)
		(void)pthread_setname_np(v->thread, v->cfg.name);
	return -rc;
}

int virtio_mmio_start(struct virtio_mmio *v, virtio_begins begins, void *ctx, struct err *e)
{
	int rc;

	ASSERT(!v->cfg.threaded);
	v->cfg.begins = begins;
	v->cfg.begins_ctx = ctx;
	rc = start_worker(v);
	v->cfg.threaded = rc == 0;
	return rc < 0 ? err_sys(e, rc, "virtio device %s: thread", v->cfg.name) : 0;
}

int virtio_mmio_open(struct virtio_mmio *v, const struct virtio_mmio_cfg *cfg, struct err *e)
{
	int rc;

	ASSERT(cfg->config_len <= VIRTIO_CONFIG_BYTES);
	ASSERT(cfg->ops->queues <= VIRTIO_QUEUES_MAX);
	guest_touch_init();
	memset(v, 0, sizeof(*v));
	if (cfg->config_len)
		memcpy(v->config, cfg->config, cfg->config_len);
	rc = -pthread_mutex_init(&v->lock, NULL);
	if (rc == 0)
		rc = init_changed(v);
	if (rc == 0) {
		v->cfg = *cfg;
		rate_init(&v->bytes, cfg->limits.bytes_per_s, VIRTIO_BYTES_BURST);
		rate_init(&v->requests, cfg->limits.requests_per_s, 1);
		if (cfg->threaded)
			rc = start_worker(v);
	}
	if (rc < 0) {
		memset(v, 0, sizeof(*v));
		return err_sys(e, rc, "virtio device %s: thread", cfg->name ? cfg->name : "");
	}
	return 0;
}

void virtio_mmio_close(struct virtio_mmio *v)
{
	if (!v || !v->cfg.ops)
		return;
	pthread_mutex_lock(&v->lock);
	v->closing = true;
	atomic_store(&v->cancelled, true);
	tell_locked(v);
	pthread_mutex_unlock(&v->lock);
	if (v->cfg.threaded)
		pthread_join(v->thread, NULL);
	irq_set(&v->cfg.irq, false);
	pthread_cond_destroy(&v->changed);
	pthread_mutex_destroy(&v->lock);
	memset(v, 0, sizeof(*v));
}

/* ---- snapshots ---- */

_Static_assert(VIRTIO_QUEUES_MAX <= VIRTIO_SAVED_QUEUES, "each is saved");

void virtio_mmio_hold_begin(struct virtio_mmio *v)
{
	pthread_mutex_lock(&v->lock);
	cancel_locked(v);
	pthread_mutex_unlock(&v->lock);
}

void virtio_mmio_hold_wait(struct virtio_mmio *v)
{
	pthread_mutex_lock(&v->lock);
	while (v->busy)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
}

void virtio_mmio_release(struct virtio_mmio *v)
{
	pthread_mutex_lock(&v->lock);
	resume_locked(v);
	pthread_mutex_unlock(&v->lock);
}

void virtio_mmio_save(struct virtio_mmio *v, struct virtio_mmio_saved *ret)
{
	memset(ret, 0, sizeof(*ret));
	pthread_mutex_lock(&v->lock);
	ASSERT(v->waiting_idle && !v->busy);
	ret->status = v->status;
	ret->interrupts = v->interrupts;
	ret->generation = v->generation;
	ret->device_features_sel = v->device_features_sel;
	ret->driver_features_sel = v->driver_features_sel;
	ret->queue_sel = v->queue_sel;
	ret->driver_features = v->driver_features;
	memcpy(ret->config, v->config, sizeof(ret->config));
	for (unsigned i = 0; i < v->cfg.ops->queues; i++) {
		const struct virtio_mmio_queue *q = &v->queues[i];

		ret->queues[i].size = q->ring.size;
		ret->queues[i].ready = q->ready;
		ret->queues[i].kicked = q->kicked;
		ret->queues[i].avail_next = q->ring.avail_next;
		ret->queues[i].used_next = q->ring.used_next;
		ret->queues[i].desc = q->ring.desc.v;
		ret->queues[i].avail = q->ring.avail.v;
		ret->queues[i].used = q->ring.used.v;
	}
	pthread_mutex_unlock(&v->lock);
}

static int restore_queue(struct virtio_mmio *v, unsigned i, const struct virtio_mmio_saved *from)
{
	struct virtio_mmio_queue *q = &v->queues[i];

	q->ring.size = from->queues[i].size;
	q->ring.desc.v = from->queues[i].desc;
	q->ring.avail.v = from->queues[i].avail;
	q->ring.used.v = from->queues[i].used;
	if (!from->queues[i].ready)
		return 0;
	if (virtq_start(&q->ring, v->cfg.mem, from->driver_features) < 0)
		return -EINVAL;
	q->ring.avail_next = from->queues[i].avail_next;
	q->ring.used_next = from->queues[i].used_next;
	q->ready = true;
	/* A look at an empty ring does no harm, and asks to be notified. */
	q->kicked = true;
	return 0;
}

int virtio_mmio_restore(struct virtio_mmio *v, const struct virtio_mmio_saved *from)
{
	int rc = 0;

	if (from->status & ~(STATUS_ALL | VIRTIO_NEEDS_RESET))
		return -EINVAL;
	if (from->driver_features & ~offered(v))
		return -ENOTSUP;
	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; rc == 0 && i < v->cfg.ops->queues; i++)
		rc = restore_queue(v, i, from);
	if (rc == 0) {
		v->status = from->status;
		v->interrupts = from->interrupts & (VIRTIO_INT_USED | VIRTIO_INT_CONFIG);
		v->generation = from->generation;
		v->device_features_sel = from->device_features_sel;
		v->driver_features_sel = from->driver_features_sel;
		v->queue_sel = from->queue_sel;
		v->driver_features = from->driver_features;
		memcpy(v->config, from->config, sizeof(v->config));
		irq_set(&v->cfg.irq, v->interrupts != 0);
		tell_locked(v);
	}
	pthread_mutex_unlock(&v->lock);
	return rc;
}
