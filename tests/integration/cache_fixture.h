/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source by URI on the real queue of reads, workers and network, driven by one thread as the
 * library's is; and an image behind a cache of it. Whatever goes wrong here is the test's end.
 */
#ifndef TESTS_INTEGRATION_CACHE_FIXTURE_H
#define TESTS_INTEGRATION_CACHE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/prng.h"
#include "base/time.h"
#include "io/queue.h"
#include "io_way.h"
#include "net/load.h"
#include "source/cache_format.h"
#include "source/source.h"
#include "work/thread_pool.h"

#define RIG_READS 64u
#define RIG_TIMERS 40u
#define BED_PIECE_MAX (2u << 20)

struct rig {
	struct ioq *q;
	struct thread_pool *pool;
	struct net_lazy *net;
	pthread_mutex_t lock;
	int wake_fd;
	struct timers timers;
	struct timer *heap[RIG_TIMERS];
	struct src_counts counts;
	struct src_env env;
	struct src *src;
};

struct rig_read {
	struct src_read rd;
	bool over;
	struct err why; /* code 0: it went well */
};

static inline uint64_t rig_now_ns(void *ctx)
{
	(void)ctx;
	return monotonic_ns();
}

static inline void rig_wake(void *ctx)
{
	eventfd_write(((struct rig *)ctx)->wake_fd, 1);
}

static inline void rig_begins(void *ctx, const char *name)
{
	(void)ctx;
	(void)pthread_setname_np(pthread_self(), name);
}

static inline void rig_lock(void *ctx)
{
	pthread_mutex_lock(&((struct rig *)ctx)->lock);
}

static inline void rig_unlock(void *ctx)
{
	pthread_mutex_unlock(&((struct rig *)ctx)->lock);
}

static inline void rig_open(struct rig *r)
{
	static const struct clock_ops clock = {.now_ns = rig_now_ns};
	const struct ioq_config io = {.depth = RIG_READS,
				      .way = io_way() == APF_IO_THREADS ? IOQ_THREADS : IOQ_AUTO};
	const struct thread_pool_cfg work = {.threads = 2, .begins = rig_begins, .wake = rig_wake,
					 .ctx = r};
	const struct net_hub_cfg net = {.begins = rig_begins, .wake = rig_wake,
					.unlock = rig_unlock, .lock = rig_lock, .ctx = r};

	memset(r, 0, sizeof(*r));
	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ASSERT(r->wake_fd >= 0);
	ASSERT(ioq_open(&io, &r->q, NULL) == 0);
	ASSERT(ioq_start(r->q, NULL) == 0);
	ASSERT(ioq_own(r->q, NULL) == 0);
	ASSERT(ioq_watch(r->q, r->wake_fd, NULL) == 0);
	ASSERT(thread_pool_open(&work, &r->pool, NULL) == 0);
	ASSERT(net_lazy_open(&net, &r->net, NULL) == 0);
	pthread_mutex_init(&r->lock, NULL);
	rig_lock(r);
	timers_init(&r->timers, r->heap, RIG_TIMERS);
	r->env = (struct src_env){
		.io = ioq_io(r->q),
		.work = thread_pool_work(r->pool),
		.net = net_lazy_net(r->net),
		.clock = {.ops = &clock},
		.timers = &r->timers,
		.reads_max = RIG_READS,
		.counts = &r->counts,
	};
}

/* One turn of a loop as the library's thread has it. */
static inline void rig_turn(struct rig *r)
{
	eventfd_t n;

	r->env.io.ops->flush(r->env.io.ctx);
	if (r->env.io.ops->reap(r->env.io.ctx) > 0 || thread_pool_reap(r->pool) ||
	    net_lazy_pump(r->net) || timers_run(&r->timers, rig_now_ns(NULL)) > 0)
		return;
	if (!r->env.io.ops->due(r->env.io.ctx)) {
		rig_unlock(r);
		(void)ioq_wait(r->q, min_u64(timers_next_ns(&r->timers),
					     rig_now_ns(NULL) + 100 * NS_PER_MS));
		rig_lock(r);
	}
	(void)eventfd_read(r->wake_fd, &n);
}

static inline void rig_done(struct src_read *rd, const struct err *why)
{
	struct rig_read *rr = CONTAINER_OF(rd, struct rig_read, rd);

	rr->over = true;
	rr->why = why ? *why : (struct err){0};
}

static inline void rig_begin(struct rig *r, struct rig_read *rr, uint64_t offset, void *buf,
			     size_t len)
{
	*rr = (struct rig_read){.rd = {.offset = offset, .buf = buf, .len = (uint32_t)len,
				       .done = rig_done}};
	r->src->ops->read(r->src, &rr->rd);
}

static inline void rig_wait(struct rig *r, const struct rig_read *rr)
{
	while (!rr->over)
		rig_turn(r);
}

/* 0, or -Exxx with *e. */
static inline int rig_read(struct rig *r, uint64_t offset, void *buf, size_t len, struct err *e)
{
	struct rig_read rr;

	rig_begin(r, &rr, offset, buf, len);
	rig_wait(r, &rr);
	if (e)
		*e = rr.why;
	return rr.why.code;
}

/* As the library does: the queue first, so that writes under way are over. */
static inline void rig_close(struct rig *r)
{
	ioq_drain(r->q);
	src_close(r->src);
	rig_unlock(r);
	net_lazy_close(r->net);
	thread_pool_close(r->pool);
	ioq_close(r->q);
	close(r->wake_fd);
}

/* Until what was to be written is. */
static inline void rig_settle(struct rig *r, uint64_t filled)
{
	while (r->counts.cache_filled_bytes < filled && !r->counts.cache_write_errors)
		rig_turn(r);
}

/* ---- an image behind a cache, in a folder of their own ---- */

struct bed {
	struct rig rig;
	uint64_t later_ns; /* than the host's clock, for a test that has a clock of its own */
	char folder[64], image[80], file[120], uri[400];
	size_t bytes; /* of the image */
	unsigned char *content, *got;
};

static inline struct bed *bed_init(size_t bytes)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct prng p;
	int fd;

	assert_non_null(b);
	b->bytes = bytes;
	b->content = malloc(bytes);
	b->got = malloc(BED_PIECE_MAX);
	assert_non_null(b->content);
	assert_non_null(b->got);
	prng_init(&p, 3);
	for (size_t i = 0; i < bytes; i++)
		b->content[i] = (unsigned char)prng_next(&p);
	snprintf(b->folder, sizeof(b->folder), "/var/tmp/asyncpf-cache-XXXXXX");
	assert_non_null(mkdtemp(b->folder));
	snprintf(b->image, sizeof(b->image), "%s/image", b->folder);
	snprintf(b->file, sizeof(b->file), "%s/c/%s", b->folder, CACHE_FILE);
	fd = open(b->image, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, b->content, bytes), bytes);
	close(fd);
	return b;
}

static inline void bed_fini(struct bed *b)
{
	char command[100];

	snprintf(command, sizeof(command), "rm -rf %s", b->folder);
	assert_int_equal(system(command), 0);
	free(b->content);
	free(b->got);
	free(b);
}

/* Through the cache that is open. */
static inline void bed_expect(struct bed *b, uint64_t offset, size_t len)
{
	struct err e;

	assert_true(len <= BED_PIECE_MAX);
	memset(b->got, 0xee, len);
	if (rig_read(&b->rig, offset, b->got, len, &e) < 0)
		fail_msg("%s", e.text);
	assert_memory_equal(b->got, b->content + offset, len);
}

/* One chunk after the other: where many are being written, some are not. */
static inline void bed_read_and_settle(struct bed *b)
{
	for (uint64_t at = 0; at < b->bytes; at += CACHE_CHUNK_BYTES) {
		size_t len = min_u64(CACHE_CHUNK_BYTES, b->bytes - at);

		bed_expect(b, at, len);
		rig_settle(&b->rig, at + len);
	}
}

#endif
