/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads, writes and syncs through io_uring; see io/uring.h for threads. Owns the ring and the
 * place of each outstanding request, which is on exactly one list:
 *
 *   waiting   not yet in the submission queue: not flushed by the owner, or more than there may
 *             be of its kind; reads do not wait for writes, nor writes for reads
 *   in_ring   in the submission queue or in the kernel
 *   ended     result known without the ring's help; `done` is due in the next reap
 *
 * The ring is one thread's. A read that the kernel cannot answer at once ends in the context of
 * the thread that submitted it, which is interrupted for that (a vCPU's: KVM_RUN returns EINTR);
 * and the owner sleeps, submits and is told of all ends in one system call. Whoever else flushes
 * takes what the page cache has by preadv2(RWF_NOWAIT), and leaves the rest.
 *
 * An uncached file is read and written by O_DIRECT where its file system takes that and the
 * request is aligned. What goes through the page cache nevertheless is dropped from there
 * before the request is over: reads at once, writes with the sync, as they must be on the
 * device first.
 */
#include "io/uring.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/types.h"
#include "io/file.h"

/* As port/io.h promises; the kernel itself stops a little below 2 GiB. */
#define IOQ_LEN_MAX (1u << 30)
/* Nothing that has a length is a multiple of it. */
#define IOQ_NEVER_ALIGNED (1u << 31)
/* How often a request that failed through no fault of its own is submitted anew. */
#define IOQ_TRIES_MAX 3
/* While the kernel takes no submission. */
#define IOQ_PAUSE_US 1000
#define IOQ_PROBE_DEPTH 8

enum ioq_state { IOQ_IDLE = 0, IOQ_WAITING, IOQ_IN_RING, IOQ_ENDED };
/* FORGET: the second half of a read or sync, which drops what it has left in the page cache. */
enum ioq_op { IOQ_READ, IOQ_WRITE, IOQ_SYNC, IOQ_FORGET };
/* Who share a limit. */
enum ioq_kind { IOQ_READS, IOQ_WRITES, IOQ_KINDS };
enum ioq_cancel { IOQ_CANCEL_NO = 0, IOQ_CANCEL_DUE, IOQ_CANCEL_SENT };

struct ioq_list {
	struct io_req *head, *tail;
	uint32_t len;
};

/* A descriptor that ends the owner's sleep. */
struct ioq_watch {
	int fd;
	bool armed;
};

struct ioq {
	struct io_uring ring;
	pthread_t owner;
	bool owned;
	uint32_t depth[IOQ_KINDS];
	uint32_t busy[IOQ_KINDS]; /* in_ring of each kind */
	struct ioq_list waiting[IOQ_KINDS];
	struct ioq_list in_ring;
	struct ioq_list ended;
	uint32_t cancels_due; /* requests in_ring with IOQ_CANCEL_DUE */
	uint32_t seq;         /* submission queue entries ever written, wrapping */
	int dead;             /* -Exxx: the ring takes nothing any more */
	bool closing;
	/* The owner's, without the lock. */
	struct ioq_watch watches[IOQ_WATCHES_MAX];
	unsigned watch_count;
	struct __kernel_timespec timeout;
	uint64_t timeout_ns; /* what the kernel wakes the owner at; NS_NEVER: nothing */
	int refused;         /* -Exxx of the last submission; ioq_die is due if it is for good */
};

static void ioq_list_add(struct ioq_list *l, struct io_req *rq, enum ioq_state state)
{
	rq->priv.state = (uint8_t)state;
	rq->priv.prev = l->tail;
	rq->priv.next = NULL;
	if (l->tail)
		l->tail->priv.next = rq;
	else
		l->head = rq;
	l->tail = rq;
	l->len++;
}

static void ioq_list_del(struct ioq_list *l, struct io_req *rq)
{
	if (rq->priv.prev)
		rq->priv.prev->priv.next = rq->priv.next;
	else
		l->head = rq->priv.next;
	if (rq->priv.next)
		rq->priv.next->priv.prev = rq->priv.prev;
	else
		l->tail = rq->priv.prev;
	l->len--;
	rq->priv.state = IOQ_IDLE;
}

static void ioq_end(struct ioq *q, struct io_req *rq, int res)
{
	rq->priv.res = res;
	ioq_list_add(&q->ended, rq, IOQ_ENDED);
}

/* Every entry goes by this: ioq_die counts them. */
static struct io_uring_sqe *ioq_sqe(struct ioq *q)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);

	q->seq += sqe != NULL;
	return sqe;
}

static bool ioq_is_owner(const struct ioq *q)
{
	return q->owned && pthread_equal(q->owner, pthread_self());
}

static enum ioq_kind ioq_kind(const struct io_req *rq)
{
	return rq->priv.writes ? IOQ_WRITES : IOQ_READS;
}

static void ioq_put_off(struct ioq *q, struct io_req *rq)
{
	ioq_list_add(&q->waiting[ioq_kind(rq)], rq, IOQ_WAITING);
}

static void ioq_leave_ring(struct ioq *q, struct io_req *rq)
{
	ioq_list_del(&q->in_ring, rq);
	q->busy[ioq_kind(rq)]--;
}

/* Submitting. */

static void ioq_prep(struct io_uring_sqe *sqe, struct io_req *rq)
{
	const struct io_file *file = rq->priv.file;
	uint64_t bits = rq->priv.off | rq->priv.len | (uintptr_t)rq->priv.buf;
	uint64_t first = rq->priv.off & ~(PAGE_BYTES - 1);

	rq->priv.direct = (rq->priv.op == IOQ_READ || rq->priv.op == IOQ_WRITE) &&
			  file->direct_align > 0 && bits % file->direct_align == 0;
	switch ((enum ioq_op)rq->priv.op) {
	case IOQ_READ:
		io_uring_prep_read(sqe, rq->priv.direct ? file->direct_fd : file->fd,
				   rq->priv.buf, rq->priv.len, rq->priv.off);
		break;
	case IOQ_WRITE:
		io_uring_prep_write(sqe, rq->priv.direct ? file->direct_fd : file->fd,
				    rq->priv.buf, rq->priv.len, rq->priv.off);
		break;
	case IOQ_SYNC:
		io_uring_prep_fsync(sqe, file->fd, IORING_FSYNC_DATASYNC);
		break;
	case IOQ_FORGET:
		/* Of a sync: all of the file. Whole pages, or those at the ends would stay. */
		io_uring_prep_fadvise(sqe, file->fd, first,
				      rq->priv.writes ? 0
						      : (uint32_t)align_up(rq->priv.off - first +
									   rq->priv.len,
									   PAGE_BYTES),
				      POSIX_FADV_DONTNEED);
		break;
	}
	io_uring_sqe_set_data(sqe, rq);
}

/* Owner: writes submission queue entries for what may go now, as far as there is room. */
static void ioq_fill(struct ioq *q)
{
	struct io_uring_sqe *sqe;

	for (unsigned kind = 0; kind < IOQ_KINDS; kind++) {
		struct io_req *rq;

		while ((rq = q->waiting[kind].head) && q->busy[kind] < q->depth[kind]) {
			sqe = ioq_sqe(q);
			if (!sqe)
				return;
			ioq_prep(sqe, rq);
			rq->priv.seq = q->seq - 1;
			ioq_list_del(&q->waiting[kind], rq);
			ioq_list_add(&q->in_ring, rq, IOQ_IN_RING);
			q->busy[kind]++;
		}
	}
	for (struct io_req *rq = q->in_ring.head; rq && q->cancels_due; rq = rq->priv.next) {
		if (rq->priv.cancel != IOQ_CANCEL_DUE)
			continue;
		sqe = ioq_sqe(q);
		if (!sqe)
			return;
		io_uring_prep_cancel(sqe, rq, 0);
		/* NULL: its own completion says nothing, the request's says all. */
		io_uring_sqe_set_data(sqe, NULL);
		rq->priv.cancel = IOQ_CANCEL_SENT;
		q->cancels_due--;
	}
}

static void ioq_end_waiting(struct ioq *q, int code)
{
	struct io_req *rq;

	for (unsigned kind = 0; kind < IOQ_KINDS; kind++)
		while ((rq = q->waiting[kind].head)) {
			ioq_list_del(&q->waiting[kind], rq);
			ioq_end(q, rq, code);
		}
}

static struct ioq_watch *ioq_watch_of(struct ioq *q, const void *data)
{
	for (unsigned i = 0; i < q->watch_count; i++)
		if (data == &q->watches[i])
			return &q->watches[i];
	return NULL;
}

/* The last `left` entries: should the kernel take them after all, it reads and writes nothing. */
static void ioq_void_entries(struct ioq *q, uint32_t left)
{
	for (uint32_t i = 0; i < left; i++) {
		uint32_t at = (q->ring.sq.sqe_tail - 1 - i) & *q->ring.sq.kring_mask;
		struct io_uring_sqe *sqe = &q->ring.sq.sqes[at];
		const void *data = (const void *)(uintptr_t)sqe->user_data;

		if (ioq_watch_of(q, data) || data == &q->timeout)
			continue;
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data(sqe, NULL);
	}
}

/* The ring is broken for good: ends every request that the kernel has not taken. */
static void ioq_die(struct ioq *q, int code)
{
	/* Entries are taken in order, so the ones left are the last that were written. */
	uint32_t left = io_uring_sq_ready(&q->ring), taken = q->seq - left;
	struct io_req *rq, *next;

	q->dead = code;
	ioq_void_entries(q, left);
	for (rq = q->in_ring.head; rq; rq = next) {
		next = rq->priv.next;
		if ((int32_t)(rq->priv.seq - taken) < 0)
			continue;
		if (rq->priv.cancel == IOQ_CANCEL_DUE)
			q->cancels_due--;
		ioq_leave_ring(q, rq);
		ioq_end(q, rq, code);
	}
	ioq_end_waiting(q, code);
}

/* Something for the owner that fits into the ring. */
static bool ioq_has_work(const struct ioq *q)
{
	bool room = false;

	for (unsigned kind = 0; kind < IOQ_KINDS; kind++)
		room |= q->waiting[kind].len && q->busy[kind] < q->depth[kind];
	return !q->dead && (room || q->cancels_due);
}

/* Submitting and sleeping: the owner, without the lock. */

static void ioq_arm_watches(struct ioq *q)
{
	for (unsigned i = 0; i < q->watch_count; i++) {
		struct io_uring_sqe *sqe = q->watches[i].armed ? NULL : ioq_sqe(q);

		if (!sqe)
			continue;
		io_uring_prep_poll_multishot(sqe, q->watches[i].fd, POLLIN);
		io_uring_sqe_set_data(sqe, &q->watches[i]);
		q->watches[i].armed = true;
	}
}

/*
 * False: there was no room for it. A deadline that went away stays, and wakes once for nothing;
 * one that does not change costs nothing.
 */
static bool ioq_arm_timeout(struct ioq *q, uint64_t until_ns)
{
	struct io_uring_sqe *sqe;

	if (until_ns >= q->timeout_ns)
		return true;
	sqe = ioq_sqe(q);
	if (!sqe)
		return false;
	q->timeout.tv_sec = (long long)(until_ns / NS_PER_S);
	q->timeout.tv_nsec = (long long)(until_ns % NS_PER_S);
	if (q->timeout_ns == NS_NEVER) {
		io_uring_prep_timeout(sqe, &q->timeout, 0, IORING_TIMEOUT_ABS);
		io_uring_sqe_set_data(sqe, &q->timeout);
	} else {
		io_uring_prep_timeout_update(sqe, &q->timeout, (uintptr_t)&q->timeout,
					     IORING_TIMEOUT_ABS);
		/* It fails where the time is over already, whose completion says all. */
		io_uring_sqe_set_data(sqe, NULL);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	}
	q->timeout_ns = until_ns;
	return true;
}

static unsigned ioq_watches_ready(struct ioq *q)
{
	struct io_uring_cqe *cqe;
	unsigned head, ready = 0;

	/* They stay in the queue, for reap. */
	io_uring_for_each_cqe(&q->ring, head, cqe) {
		const struct ioq_watch *w = ioq_watch_of(q, io_uring_cqe_get_data(cqe));

		if (w)
			ready |= 1u << (w - q->watches);
	}
	return ready;
}

unsigned ioq_wait(struct ioq *q, uint64_t until_ns)
{
	bool sleep = until_ns > 0 && io_uring_cq_ready(&q->ring) == 0;
	int rc;

	ASSERT(ioq_is_owner(q));
	ioq_arm_watches(q);
	if (sleep)
		sleep = ioq_arm_timeout(q, until_ns);
	rc = sleep ? io_uring_submit_and_wait(&q->ring, 1)
		   : io_uring_submit_and_get_events(&q->ring);
	q->refused = rc < 0 && rc != -EINTR ? rc : 0;
	if (q->refused)
		(void)usleep(IOQ_PAUSE_US);
	return ioq_watches_ready(q);
}

bool ioq_has_entries(const struct ioq *q)
{
	return io_uring_sq_ready(&q->ring) > 0;
}

/* A shortage passes: entries stay in the submission queue, and the next wait tries again. */
static bool ioq_is_for_good(int rc)
{
	return rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY && rc != -ENOMEM;
}

static void ioq_begin(struct ioq *q, struct io_file *file, struct io_req *rq, uint64_t off,
		      void *buf, size_t len, enum ioq_op op)
{
	ASSERT(len <= IOQ_LEN_MAX);
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
		ioq_list_del(&q->waiting[ioq_kind(rq)], rq);
		ioq_end(q, rq, -ECANCELED);
	} else if (rq->priv.state == IOQ_IN_RING && rq->priv.cancel == IOQ_CANCEL_NO) {
		rq->priv.cancel = IOQ_CANCEL_DUE;
		q->cancels_due++;
	}
}

/* One in four at least was there lately; else one in 16 finds out whether that has changed. */
static bool ioq_worth_a_try(struct io_file *file)
{
	return file->hits >= IOQ_HITS_ONE / 4 || ++file->untried % 16 == 0;
}

/* What the page cache has needs no ring. Each read is tried once. */
static void ioq_try(struct ioq *q)
{
	struct io_req *rq, *next;

	for (rq = q->waiting[IOQ_READS].head; rq; rq = next) {
		struct iovec to = {rq->priv.buf, rq->priv.len};
		ssize_t n;

		next = rq->priv.next;
		if (rq->priv.tried || rq->priv.file->uncached)
			continue;
		rq->priv.tried = true;
		if (!ioq_worth_a_try(rq->priv.file))
			continue;
		n = preadv2(rq->priv.file->fd, &to, 1, (off_t)rq->priv.off, RWF_NOWAIT);
		rq->priv.file->hits = (rq->priv.file->hits * 15 + (n > 0 ? IOQ_HITS_ONE : 0)) / 16;
		/* Of errors, and the end of the file, the ring tells. */
		if (n <= 0)
			continue;
		ioq_list_del(&q->waiting[IOQ_READS], rq);
		ioq_end(q, rq, (int)n);
	}
}

static void ioq_flush(void *ctx)
{
	struct ioq *q = ctx;

	/* Of several, the owner has the ring read them all in one call. */
	if (!q->dead && (!ioq_is_owner(q) || q->waiting[IOQ_READS].len == 1))
		ioq_try(q);
	if (!ioq_is_owner(q))
		return;
	if (ioq_is_for_good(q->refused))
		ioq_die(q, q->refused);
	q->refused = 0;
	if (!q->dead)
		ioq_fill(q);
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

/* Takes the kernel's answer. Returns 1 when the read is over, 0 when it goes round again. */
static unsigned ioq_complete(struct ioq *q, struct io_req *rq, int res)
{
	bool cancelled = rq->priv.cancel != IOQ_CANCEL_NO;
	bool ends = cancelled || q->closing || q->dead;

	ASSERT(rq->priv.state == IOQ_IN_RING);
	if (rq->priv.cancel == IOQ_CANCEL_DUE)
		q->cancels_due--;
	ioq_leave_ring(q, rq);
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
	}
	rq->done(rq, res); /* may free rq, or read again with it */
	return 1;
}

static void ioq_take(struct ioq *q, struct io_uring_cqe *cqe, unsigned *count)
{
	struct io_req *rq = io_uring_cqe_get_data(cqe);
	struct ioq_watch *w = ioq_watch_of(q, rq);
	bool more = cqe->flags & IORING_CQE_F_MORE;
	int res = cqe->res;

	/* Before `done`: the entry is free for the kernel from here on. */
	io_uring_cqe_seen(&q->ring, cqe);
	if (w)
		w->armed = more;
	else if ((void *)rq == &q->timeout)
		q->timeout_ns = NS_NEVER;
	else if (rq)
		*count += ioq_complete(q, rq, res);
}

static unsigned ioq_run_done(struct ioq *q)
{
	unsigned completions = ioq_is_owner(q) ? q->ring.cq.ring_entries : 0;
	unsigned ended = q->ended.len;
	unsigned count = 0;
	struct io_uring_cqe *cqe;
	struct io_req *rq;

	/* Both loops are bounded by what is there now, however much the callbacks queue. */
	for (; completions && io_uring_peek_cqe(&q->ring, &cqe) == 0; completions--)
		ioq_take(q, cqe, &count);
	for (; ended && (rq = q->ended.head); ended--) {
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
	if (ioq_is_owner(q) && !q->dead)
		ioq_fill(q);
	return count;
}

/* Opening and closing. */

/* What a call said, explained. Returns code. */
static int refused_call(const char *call, int code, struct refusal *ret)
{
	refusal_io_uring("", call, code, ret);
	return code;
}

static int open_ring(struct ioq *q, unsigned entries, struct refusal *ret)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
			 IORING_SETUP_DEFER_TASKRUN,
	};
	int rc = io_uring_queue_init_params(entries, &q->ring, &params);

	return rc < 0 ? refused_call("io_uring_setup", rc, ret) : 0;
}

/*
 * A filter may let the set-up through and nothing that follows: an entry without work is
 * submitted and waited for.
 */
static int enter_once(struct ioq *q)
{
	struct io_uring_cqe *cqe;
	int rc;

	io_uring_prep_nop(ioq_sqe(q));
	do
		rc = io_uring_submit_and_wait(&q->ring, 1);
	while (rc == -EINTR);
	if (rc >= 0)
		rc = io_uring_peek_cqe(&q->ring, &cqe);
	if (rc == 0)
		io_uring_cqe_seen(&q->ring, cqe);
	return rc;
}

/* The ring is the calling thread's, and works. */
static int own_ring(struct ioq *q, struct refusal *ret)
{
	int rc;

	/* liburing 2.3 declares io_uring_enable_rings, and does not have it. */
	if (syscall(SYS_io_uring_register, q->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL,
		    0) < 0)
		return refused_call("io_uring_register", -errno, ret);
	q->owner = pthread_self();
	q->owned = true;
	rc = enter_once(q);
	return rc < 0 ? refused_call("io_uring_enter", rc, ret) : 0;
}

int ioq_probe(struct refusal *ret)
{
	struct ioq q = {.owned = false};
	int rc = open_ring(&q, IOQ_PROBE_DEPTH, ret);

	if (rc < 0)
		return rc;
	rc = own_ring(&q, ret);
	io_uring_queue_exit(&q.ring);
	return rc;
}

int ioq_open(unsigned depth, struct ioq **ret, struct err *e)
{
	struct refusal why;
	struct ioq *q;
	int rc;

	if (depth < 1 || depth > IOQ_DEPTH_MAX)
		return err_set(e, -EINVAL, "io_uring depth %u: must be 1 to %u", depth,
			       IOQ_DEPTH_MAX);
	q = calloc(1, sizeof(*q));
	if (!q)
		return err_set(e, -ENOMEM, "io_uring of depth %u: out of memory", depth);
	q->depth[IOQ_READS] = depth;
	q->depth[IOQ_WRITES] = IO_WRITES_MAX;
	q->timeout_ns = NS_NEVER;
	/*
	 * The completion queue has two entries per submission entry: one for each request in
	 * the kernel, one for a cancel of each, so it cannot overflow between two reaps. Watches
	 * and the time-out have entries, too.
	 */
	rc = open_ring(q, depth + IO_WRITES_MAX + IOQ_WATCHES_MAX + 1, &why);
	if (rc < 0) {
		free(q);
		return refusal_err(&why, rc, e);
	}
	*ret = q;
	return 0;
}

int ioq_own(struct ioq *q, struct err *e)
{
	struct refusal why;
	int rc = own_ring(q, &why);

	return rc < 0 ? refusal_err(&why, rc, e) : 0;
}

void ioq_watch(struct ioq *q, int fd)
{
	ASSERT(q->watch_count < IOQ_WATCHES_MAX);
	q->watches[q->watch_count++] = (struct ioq_watch){.fd = fd};
}

struct io ioq_io(struct ioq *q)
{
	static const struct io_ops ops = {
		.open = ioq_file_open,
		.uncached = ioq_file_uncached,
		.close = ioq_file_close,
		.read = ioq_read,
		.write = ioq_write,
		.sync = ioq_sync,
		.cancel = ioq_cancel_req,
		.flush = ioq_flush,
		.reap = ioq_reap,
		.due = ioq_due,
	};

	return (struct io){.ops = &ops, .ctx = q};
}

/* Until the kernel has answered for one that it holds. */
static void ioq_drain_wait(struct ioq *q)
{
	int rc = io_uring_submit_and_wait(&q->ring, 1);

	/* Going on without the answer would let the kernel write into memory long freed. */
	ASSERT(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM);
	if (rc < 0 && rc != -EINTR)
		(void)usleep(IOQ_PAUSE_US);
}

void ioq_drain(struct ioq *q)
{
	struct io_req *rq;

	q->closing = true;
	ioq_end_waiting(q, -ECANCELED);
	for (rq = q->in_ring.head; rq; rq = rq->priv.next) {
		if (rq->priv.cancel == IOQ_CANCEL_NO)
			ioq_cancel_req(q, rq);
	}
	for (;;) {
		ioq_flush(q);
		(void)ioq_run_done(q);
		if (q->in_ring.len == 0 && q->ended.len == 0)
			return;
		if (q->ended.len == 0)
			ioq_drain_wait(q);
	}
}

void ioq_close(struct ioq *q)
{
	if (!q)
		return;
	ioq_drain(q);
	io_uring_queue_exit(&q->ring);
	free(q);
}
