/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a queue is in either way of carrying out its requests; see io/queue.h for threads. Owns the
 * place of each outstanding request, which is on exactly one list:
 *
 *   waiting   not yet begun: not flushed by who may begin, or more than there may be of its kind;
 *             reads do not wait for writes, nor writes for reads; who goes first: port/turn.h
 *   begun     with the ring or the threads
 *   ended     result known without their help; `done` is due in the next reap
 *
 * Whoever flushes takes what the page cache has by preadv2(RWF_NOWAIT).
 *
 * An uncached file is read and written by O_DIRECT where its file system takes that and the
 * request is aligned. What goes through the page cache nevertheless is dropped from there
 * before the request is over: reads at once, writes with the sync, as they must be on the
 * device first.
 */
#include "io/queue.h"

#include <errno.h>
#include <limits.h>
#include <sys/uio.h>

#include "base/assert.h"
#include "base/types.h"
#include "io/file.h"
#include "io/internal.h"

/* As port/io.h promises; the kernel itself stops a little below 2 GiB. */
#define IOQ_LEN_MAX (1u << 30)
/* Nothing that has a length is a multiple of it. */
#define IOQ_NEVER_ALIGNED (1u << 31)
/* How often a request that failed through no fault of its own is begun anew. */
#define IOQ_TRIES_MAX 3
/* Reads that the owner answers with the lock held: some ten microseconds. The rest others do. */
#define IOQ_OWNER_TRIES_MAX 16u

static void ioq_list_add(struct ioq_list *l, struct io_req *rq, enum ioq_state state)
{
	rq->priv.state = (uint8_t)state;
	list_append(&l->reqs, &rq->priv.link);
	l->len++;
}

static void ioq_list_del(struct ioq_list *l, struct io_req *rq)
{
	list_remove(&l->reqs, &rq->priv.link);
	l->len--;
	rq->priv.state = IOQ_IDLE;
}

static void ioq_end(struct ioq *q, struct io_req *rq, int res)
{
	rq->priv.res = res;
	ioq_list_add(&q->ended, rq, IOQ_ENDED);
}

bool ioq_is_owner(const struct ioq *q)
{
	return q->owned && pthread_equal(q->owner, pthread_self());
}

enum ioq_kind ioq_kind(const struct io_req *rq)
{
	return rq->priv.writes ? IOQ_WRITES : IOQ_READS;
}

static void ioq_put_off(struct ioq *q, struct io_req *rq)
{
	rq->priv.state = IOQ_WAITING;
	turn_queue_add(&q->waiting[ioq_kind(rq)], &rq->priv.link, rq->turn);
	q->waiting_count[ioq_kind(rq)]++;
}

static void ioq_wait_over(struct ioq *q, struct io_req *rq)
{
	turn_queue_remove(&q->waiting[ioq_kind(rq)], &rq->priv.link, rq->turn);
	q->waiting_count[ioq_kind(rq)]--;
	rq->priv.state = IOQ_IDLE;
}

static struct io_req *ioq_first_waiting(const struct ioq *q, enum ioq_kind kind)
{
	return ioq_req(turn_queue_first(&q->waiting[kind]));
}

static void ioq_leave(struct ioq *q, struct io_req *rq)
{
	if (rq->priv.cancel == IOQ_CANCEL_DUE)
		q->cancels_due--;
	ioq_list_del(&q->begun, rq);
	q->busy[ioq_kind(rq)]--;
}

void ioq_end_begun(struct ioq *q, struct io_req *rq, int code)
{
	ioq_leave(q, rq);
	ioq_end(q, rq, code);
}

void ioq_end_waiting(struct ioq *q, int code)
{
	struct io_req *rq;

	for (unsigned kind = 0; kind < IOQ_KINDS; kind++)
		while ((rq = ioq_first_waiting(q, kind))) {
			ioq_wait_over(q, rq);
			ioq_end(q, rq, code);
		}
}

/* Beginning. */

struct ioq_call ioq_call(struct io_req *rq)
{
	const struct io_file *file = rq->priv.file;
	uint64_t bits = rq->priv.off | rq->priv.len | (uintptr_t)rq->priv.buf;
	uint64_t first = rq->priv.off & ~(PAGE_BYTES - 1);
	struct ioq_call call = {(enum ioq_op)rq->priv.op, file->fd, rq->priv.buf, rq->priv.off,
				rq->priv.len};

	rq->priv.direct = (call.op == IOQ_READ || call.op == IOQ_WRITE) &&
			  file->direct_align > 0 && bits % file->direct_align == 0;
	if (rq->priv.direct)
		call.fd = file->direct_fd;
	if (call.op == IOQ_FORGET) {
		/* Of a sync: all of the file. Whole pages, or those at the ends would stay. */
		call.off = first;
		call.len = rq->priv.writes ? 0 : (uint32_t)align_up(rq->priv.off - first +
								     rq->priv.len, PAGE_BYTES);
	}
	return call;
}

/* Begins what may go now, as far as there is room. */
static void ioq_fill(struct ioq *q)
{
	for (unsigned kind = 0; kind < IOQ_KINDS; kind++) {
		struct io_req *rq;

		while ((rq = ioq_first_waiting(q, kind)) && q->busy[kind] < q->depth[kind]) {
			if (!q->ops->begin(q, rq))
				return;
			ioq_wait_over(q, rq);
			turn_went(&q->waiting[kind].row);
			ioq_list_add(&q->begun, rq, IOQ_BEGUN);
			q->busy[kind]++;
		}
	}
	for (struct io_req *rq = ioq_first(&q->begun); rq && q->cancels_due;
	     rq = ioq_next(rq)) {
		if (rq->priv.cancel != IOQ_CANCEL_DUE)
			continue;
		if (!q->ops->cancel(q, rq))
			return;
		rq->priv.cancel = IOQ_CANCEL_SENT;
		q->cancels_due--;
	}
}

static void ioq_begin(struct ioq *q, struct io_file *file, struct io_req *rq, uint64_t off,
		      void *buf, size_t len, enum ioq_op op)
{
	ASSERT(len <= IOQ_LEN_MAX && rq->turn < TURNS);
	rq->priv.file = file;
	rq->priv.buf = buf;
	rq->priv.off = off;
	rq->priv.len = (uint32_t)len;
	rq->priv.op = (uint8_t)op;
	rq->priv.writes = op != IOQ_READ;
	rq->priv.cancel = IOQ_CANCEL_NO;
	rq->priv.tries = 1;
	rq->priv.tried = op != IOQ_READ || rq->late;
	if (q->closing || q->dead)
		ioq_end(q, rq, q->dead ? q->dead : -ECANCELED);
	else
		ioq_put_off(q, rq);
}

static void ioq_read(void *ctx, struct io_file *file, struct io_req *rq, uint64_t off, void *buf,
		     size_t len)
{
	ioq_begin(ctx, file, rq, off, buf, len, IOQ_READ);
}

static void ioq_write(void *ctx, struct io_file *file, struct io_req *rq, uint64_t off,
		      const void *buf, size_t len)
{
	/* The kernel only reads from it. */
	ioq_begin(ctx, file, rq, off, (void *)(uintptr_t)buf, len, IOQ_WRITE);
}

static void ioq_sync(void *ctx, struct io_file *file, struct io_req *rq)
{
	ioq_begin(ctx, file, rq, 0, NULL, 0, IOQ_SYNC);
}

static void ioq_cancel_req(void *ctx, struct io_req *rq)
{
	struct ioq *q = ctx;

	ASSERT(rq->priv.state != IOQ_IDLE);
	if (rq->priv.state == IOQ_WAITING) {
		ioq_wait_over(q, rq);
		ioq_end(q, rq, -ECANCELED);
	} else if (rq->priv.state == IOQ_BEGUN && rq->priv.cancel == IOQ_CANCEL_NO) {
		rq->priv.cancel = IOQ_CANCEL_DUE;
		q->cancels_due++;
	}
}

static void ioq_raise(void *ctx, struct io_req *rq, enum turn turn)
{
	struct ioq *q = ctx;
	bool waits = rq->priv.state == IOQ_WAITING;

	ASSERT(rq->priv.state != IOQ_IDLE);
	if (waits)
		ioq_wait_over(q, rq);
	rq->turn = (uint8_t)turn;
	if (waits)
		ioq_put_off(q, rq);
	else if (rq->priv.state == IOQ_BEGUN && q->ops->raise)
		q->ops->raise(q, rq);
}

/* One in four at least was there lately; else one in 16 finds out whether that has changed. */
static bool ioq_worth_a_try(struct io_file *file)
{
	return file->hits >= IOQ_HITS_ONE / 4 || ++file->untried % 16 == 0;
}

/* Each read is tried once, at most so many now. Returns how many more may be. */
static unsigned ioq_try_turn(struct ioq *q, enum turn turn, unsigned most)
{
	struct io_req *rq, *next;

	for (rq = ioq_req(q->waiting[IOQ_READS].of[turn].first); rq && most > 0; rq = next) {
		struct iovec to = {rq->priv.buf, rq->priv.len};
		ssize_t n;

		next = ioq_next(rq);
		if (rq->priv.tried || rq->priv.file->uncached)
			continue;
		rq->priv.tried = true;
		if (!ioq_worth_a_try(rq->priv.file))
			continue;
		most--;
		n = preadv2(rq->priv.file->fd, &to, 1, (off_t)rq->priv.off, RWF_NOWAIT);
		rq->priv.file->hits = (rq->priv.file->hits * 15 + (n > 0 ? IOQ_HITS_ONE : 0)) / 16;
		/* Of errors, and the end of the file, the ring tells. */
		if (n <= 0)
			continue;
		ioq_wait_over(q, rq);
		ioq_end(q, rq, (int)n);
	}
	return most;
}

/* What the page cache has needs nobody else. */
static void ioq_try(struct ioq *q, unsigned most)
{
	for (unsigned turn = 0; turn < TURNS; turn++)
		most = ioq_try_turn(q, turn, most);
}

/* By who does not own the ring nothing is begun. */
static bool ioq_may_begin(const struct ioq *q)
{
	return q->ops->by_anyone ? q->owned : ioq_is_owner(q);
}

/* How many the caller looks for in the page cache itself, with the lock. */
static unsigned ioq_tries(const struct ioq *q)
{
	if (q->dead)
		return 0;
	if (!ioq_is_owner(q))
		return UINT_MAX;
	if (q->ops->dear)
		return IOQ_OWNER_TRIES_MAX;
	/* Of several, the owner has the ring read them all in one call. */
	return q->waiting_count[IOQ_READS] == 1;
}

static void ioq_flush(void *ctx)
{
	struct ioq *q = ctx;

	ioq_try(q, ioq_tries(q));
	if (!ioq_may_begin(q))
		return;
	if (q->ops->look)
		q->ops->look(q);
	if (!q->dead)
		ioq_fill(q);
}

/* Something for the owner that there is room for. */
static bool ioq_has_work(const struct ioq *q)
{
	bool room = false;

	for (unsigned kind = 0; kind < IOQ_KINDS; kind++)
		room |= q->waiting_count[kind] && q->busy[kind] < q->depth[kind];
	return !q->dead && (room || q->cancels_due);
}

static bool ioq_due(void *ctx)
{
	const struct ioq *q = ctx;

	return ioq_has_work(q) || q->ended.len > 0;
}

/* Reaping. */

/*
 * Failures that say nothing about the file: the thread that submitted has ended meanwhile
 * (EFAULT from its task work, ECANCELED for what a worker had not begun), a signal,
 * or a shortage of requests.
 */
static bool ioq_worth_retry(const struct io_req *rq, int res)
{
	if (rq->priv.tries >= IOQ_TRIES_MAX || rq->priv.op == IOQ_FORGET)
		return false;
	/* An error of a sync is told once: a second one might succeed, and hide it. */
	if (rq->priv.op == IOQ_SYNC)
		return res == -ECANCELED;
	return res == -EFAULT || res == -ECANCELED || res == -EINTR || res == -EAGAIN;
}

/*
 * It may have left something in the page cache. A sync that failed, too: ext4 (6.18) would take a
 * page that it could not write for one that has its place on the device, and what is written over
 * it then for durable, when it is not.
 */
static bool ioq_to_forget(const struct io_req *rq, int res)
{
	const struct io_file *file = rq->priv.file;

	if (!file->uncached || rq->priv.direct || res == -ECANCELED)
		return false;
	return rq->priv.op == IOQ_READ ? res >= 0
				       : rq->priv.op == IOQ_SYNC && file->wrote_cached;
}

/* There is more to do for it: false if not. */
static bool ioq_goes_on(struct ioq *q, struct io_req *rq, int res)
{
	struct io_file *file = rq->priv.file;

	if (rq->priv.direct && (res == -EINVAL || res == -EOPNOTSUPP)) {
		/* It took O_DIRECT at opening only, or wants more than it said. */
		file->direct_align = IOQ_NEVER_ALIGNED;
	} else if (ioq_to_forget(rq, res)) {
		rq->priv.op = IOQ_FORGET;
		rq->priv.res = res;
		file->wrote_cached &= !rq->priv.writes;
	} else {
		return false;
	}
	ioq_put_off(q, rq);
	return true;
}

unsigned ioq_complete(struct ioq *q, struct io_req *rq, int res)
{
	bool cancelled = rq->priv.cancel != IOQ_CANCEL_NO;
	bool ends = cancelled || q->closing || q->dead;

	ASSERT(rq->priv.state == IOQ_BEGUN);
	ioq_leave(q, rq);
	if (rq->priv.op == IOQ_WRITE && res > 0)
		rq->priv.file->wrote_cached |= !rq->priv.direct;
	if (!ends && ioq_goes_on(q, rq, res))
		return 0;
	/* How well it was forgotten changes nothing. */
	if (rq->priv.op == IOQ_FORGET)
		res = rq->priv.res;
	if (ioq_worth_retry(rq, res)) {
		if (!ends) {
			rq->priv.tries++;
			ioq_put_off(q, rq);
			return 0;
		}
		/* A worker that was interrupted for our sake says EINTR. */
		res = -ECANCELED;
	} else if (!ends && res == -ECANCELED) {
		/* Nobody gave it up but the kernel: it has no worker, nor can it make one. */
		res = -EAGAIN;
	}
	rq->done(rq, res); /* may free rq, or read again with it */
	return 1;
}

/* What others have begun may outlive an owner that has ended. */
static bool ioq_may_take(const struct ioq *q)
{
	return ioq_is_owner(q) || (q->ops->by_anyone && q->closing);
}

static unsigned ioq_run_done(struct ioq *q)
{
	unsigned ended = q->ended.len;
	unsigned count = ioq_may_take(q) ? q->ops->take(q) : 0;
	struct io_req *rq;

	/* Bounded by what was there, as take is, however much the callbacks queue. */
	for (; ended && (rq = ioq_first(&q->ended)); ended--) {
		ioq_list_del(&q->ended, rq);
		rq->done(rq, rq->priv.res);
		count++;
	}
	return count;
}

static unsigned ioq_reap(void *ctx)
{
	struct ioq *q = ctx;
	unsigned count = ioq_run_done(q);

	/* What goes round again, or was held back by depth. */
	if (ioq_may_begin(q) && !q->dead)
		ioq_fill(q);
	return count;
}

/* Opening and closing. */

int ioq_open(const struct ioq_config *c, struct ioq **ret, struct err *e)
{
	enum ioq_way way = c->way;
	struct refusal why;

	if (c->depth < 1 || c->depth > IOQ_DEPTH_MAX)
		return err_set(e, -EINVAL, "queue depth %u: must be 1 to %u", c->depth,
			       IOQ_DEPTH_MAX);
	if (way == IOQ_AUTO)
		way = ioq_probe(c->depth, &why) < 0 ? IOQ_THREADS : IOQ_URING;
	return way == IOQ_URING ? ioq_uring_open(c, ret, e) : ioq_threads_open(c, ret, e);
}

enum ioq_way ioq_way(const struct ioq *q)
{
	return q->ops->way;
}

int ioq_start(struct ioq *q, struct err *e)
{
	return q->ops->start ? q->ops->start(q, e) : 0;
}

int ioq_own(struct ioq *q, struct err *e)
{
	int rc = q->ops->own ? q->ops->own(q, e) : 0;

	if (rc < 0)
		return rc;
	q->owner = pthread_self();
	q->owned = true;
	return 0;
}

int ioq_watch(struct ioq *q, int fd, struct err *e)
{
	return q->ops->watch(q, fd, e);
}

unsigned ioq_wait(struct ioq *q, uint64_t until_ns)
{
	ASSERT(ioq_is_owner(q));
	return q->ops->wait(q, until_ns);
}

bool ioq_has_entries(const struct ioq *q)
{
	return q->ops->has_entries && q->ops->has_entries(q);
}

struct io ioq_io(struct ioq *q)
{
	static const struct io_ops ops = {
		.open = ioq_file_open,
		.load = ioq_file_load,
		.hole = ioq_file_hole,
		.unchanged = ioq_file_unchanged,
		.uncached = ioq_file_uncached,
		.cached = ioq_file_cached,
		.close = ioq_file_close,
		.read = ioq_read,
		.write = ioq_write,
		.sync = ioq_sync,
		.cancel = ioq_cancel_req,
		.raise = ioq_raise,
		.flush = ioq_flush,
		.reap = ioq_reap,
		.due = ioq_due,
		.open_shared = ioq_file_share,
	};

	return (struct io){.ops = &ops, .ctx = q};
}

void ioq_drain(struct ioq *q)
{
	struct io_req *rq;

	q->closing = true;
	ioq_end_waiting(q, -ECANCELED);
	for (rq = ioq_first(&q->begun); rq; rq = ioq_next(rq)) {
		if (rq->priv.cancel == IOQ_CANCEL_NO)
			ioq_cancel_req(q, rq);
	}
	for (;;) {
		ioq_flush(q);
		(void)ioq_run_done(q);
		if (q->begun.len == 0 && q->ended.len == 0)
			return;
		if (q->ended.len == 0)
			q->ops->drain_wait(q);
	}
}

void ioq_close(struct ioq *q)
{
	if (!q)
		return;
	ioq_drain(q);
	q->ops->close(q);
}
