/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests of a queue through io_uring; see io/queue.h for threads.
 *
 * The ring is one thread's. A read that the kernel cannot answer at once ends in the context of
 * the thread that submitted it, which is interrupted for that (a vCPU's: KVM_RUN returns EINTR);
 * and the owner sleeps, submits and is told of all ends in one system call.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/types.h"
#include "io/internal.h"
#include "io/restrict.h"

/* While the kernel takes no submission. */
#define URING_PAUSE_US 1000

/* A descriptor that ends the owner's sleep. */
struct uring_watch {
	int fd;
	bool armed;
};

struct uring {
	struct ioq q;
	struct io_uring ring;
	uint32_t seq; /* submission queue entries ever written, wrapping */
	/* The owner's, without the lock. */
	struct uring_watch watches[IOQ_WATCHES_MAX];
	unsigned watch_count;
	struct __kernel_timespec timeout;
	uint64_t timeout_ns; /* what the kernel wakes the owner at; NS_NEVER: nothing */
	int refused;         /* -Exxx of the last submission; uring_die is due if it is for good */
};

static struct uring *uring_of(struct ioq *q)
{
	return CONTAINER_OF(q, struct uring, q);
}

/* Every entry goes by this: uring_die counts them. */
static struct io_uring_sqe *uring_sqe(struct uring *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	u->seq += sqe != NULL;
	return sqe;
}

/* Submitting: under the lock. */

static bool uring_begin(struct ioq *q, struct io_req *rq)
{
	struct uring *u = uring_of(q);
	struct io_uring_sqe *sqe = uring_sqe(u);
	struct ioq_call call;

	if (!sqe)
		return false;
	call = ioq_call(rq);
	switch (call.op) {
	case IOQ_READ:
		io_uring_prep_read(sqe, call.fd, call.buf, call.len, call.off);
		break;
	case IOQ_WRITE:
		io_uring_prep_write(sqe, call.fd, call.buf, call.len, call.off);
		break;
	case IOQ_SYNC:
		io_uring_prep_fsync(sqe, call.fd, IORING_FSYNC_DATASYNC);
		break;
	case IOQ_FORGET:
		io_uring_prep_fadvise(sqe, call.fd, call.off, call.len, POSIX_FADV_DONTNEED);
		break;
	}
	io_uring_sqe_set_data(sqe, rq);
	rq->priv.seq = u->seq - 1;
	return true;
}

static bool uring_cancel(struct ioq *q, struct io_req *rq)
{
	struct io_uring_sqe *sqe = uring_sqe(uring_of(q));

	if (!sqe)
		return false;
	io_uring_prep_cancel(sqe, rq, 0);
	/* NULL: its own completion says nothing, the request's says all. */
	io_uring_sqe_set_data(sqe, NULL);
	return true;
}

static struct uring_watch *uring_watch_of(struct uring *u, const void *data)
{
	for (unsigned i = 0; i < u->watch_count; i++)
		if (data == &u->watches[i])
			return &u->watches[i];
	return NULL;
}

/* The last `left` entries: should the kernel take them after all, it reads and writes nothing. */
static void uring_void_entries(struct uring *u, uint32_t left)
{
	for (uint32_t i = 0; i < left; i++) {
		uint32_t at = (u->ring.sq.sqe_tail - 1 - i) & *u->ring.sq.kring_mask;
		struct io_uring_sqe *sqe = &u->ring.sq.sqes[at];
		const void *data = (const void *)(uintptr_t)sqe->user_data;

		if (uring_watch_of(u, data) || data == &u->timeout)
			continue;
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data(sqe, NULL);
	}
}

/* The ring is broken for good: ends every request that the kernel has not taken. */
static void uring_die(struct uring *u, int code)
{
	/* Entries are taken in order, so the ones left are the last that were written. */
	uint32_t left = io_uring_sq_ready(&u->ring), taken = u->seq - left;
	struct io_req *rq, *next;

	u->q.dead = code;
	uring_void_entries(u, left);
	for (rq = ioq_first(&u->q.begun); rq; rq = next) {
		next = ioq_next(rq);
		if ((int32_t)(rq->priv.seq - taken) >= 0)
			ioq_end_begun(&u->q, rq, code);
	}
	ioq_end_waiting(&u->q, code);
}

/* A shortage passes: entries stay in the submission queue, and the next wait tries again. */
static bool uring_is_for_good(int rc)
{
	return rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY && rc != -ENOMEM;
}

static void uring_look(struct ioq *q)
{
	struct uring *u = uring_of(q);

	if (uring_is_for_good(u->refused))
		uring_die(u, u->refused);
	u->refused = 0;
}

/* Sleeping: the owner, without the lock. */

static void uring_arm_watches(struct uring *u)
{
	for (unsigned i = 0; i < u->watch_count; i++) {
		struct io_uring_sqe *sqe = u->watches[i].armed ? NULL : uring_sqe(u);

		if (!sqe)
			continue;
		io_uring_prep_poll_multishot(sqe, u->watches[i].fd, POLLIN);
		io_uring_sqe_set_data(sqe, &u->watches[i]);
		u->watches[i].armed = true;
	}
}

/*
 * False: there was no room for it. A deadline that went away stays, and wakes once for nothing;
 * one that does not change costs nothing.
 */
static bool uring_arm_timeout(struct uring *u, uint64_t until_ns)
{
	struct io_uring_sqe *sqe;

	if (until_ns >= u->timeout_ns)
		return true;
	sqe = uring_sqe(u);
	if (!sqe)
		return false;
	u->timeout.tv_sec = (long long)(until_ns / NS_PER_S);
	u->timeout.tv_nsec = (long long)(until_ns % NS_PER_S);
	if (u->timeout_ns == NS_NEVER) {
		io_uring_prep_timeout(sqe, &u->timeout, 0, IORING_TIMEOUT_ABS);
		io_uring_sqe_set_data(sqe, &u->timeout);
	} else {
		io_uring_prep_timeout_update(sqe, &u->timeout, (uintptr_t)&u->timeout,
					     IORING_TIMEOUT_ABS);
		/* It fails where the time is over already, whose completion says all. */
		io_uring_sqe_set_data(sqe, NULL);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	}
	u->timeout_ns = until_ns;
	return true;
}

static unsigned uring_watches_ready(struct uring *u)
{
	struct io_uring_cqe *cqe;
	unsigned head, ready = 0;

	/* They stay in the queue, for reap. */
	io_uring_for_each_cqe(&u->ring, head, cqe) {
		const struct uring_watch *w = uring_watch_of(u, io_uring_cqe_get_data(cqe));

		if (w)
			ready |= 1u << (w - u->watches);
	}
	return ready;
}

static unsigned uring_wait(struct ioq *q, uint64_t until_ns)
{
	struct uring *u = uring_of(q);
	bool sleep = until_ns > 0 && io_uring_cq_ready(&u->ring) == 0;
	int rc;

	uring_arm_watches(u);
	if (sleep)
		sleep = uring_arm_timeout(u, until_ns);
	rc = sleep ? io_uring_submit_and_wait(&u->ring, 1)
		   : io_uring_submit_and_get_events(&u->ring);
	u->refused = rc < 0 && rc != -EINTR ? rc : 0;
	if (u->refused)
		(void)usleep(URING_PAUSE_US);
	return uring_watches_ready(u);
}

static bool uring_has_entries(const struct ioq *q)
{
	return io_uring_sq_ready(&CONTAINER_OF(q, const struct uring, q)->ring) > 0;
}

/* Taking what has ended: the owner, under the lock. */

static void uring_take_one(struct uring *u, struct io_uring_cqe *cqe, unsigned *count)
{
	struct io_req *rq = io_uring_cqe_get_data(cqe);
	struct uring_watch *w = uring_watch_of(u, rq);
	bool more = cqe->flags & IORING_CQE_F_MORE;
	int res = cqe->res;

	/* Before `done`: the entry is free for the kernel from here on. */
	io_uring_cqe_seen(&u->ring, cqe);
	if (w)
		w->armed = more;
	else if ((void *)rq == &u->timeout)
		u->timeout_ns = NS_NEVER;
	else if (rq)
		*count += ioq_complete(&u->q, rq, res);
}

static unsigned uring_take(struct ioq *q)
{
	struct uring *u = uring_of(q);
	unsigned left = u->ring.cq.ring_entries;
	struct io_uring_cqe *cqe;
	unsigned count = 0;

	for (; left && io_uring_peek_cqe(&u->ring, &cqe) == 0; left--)
		uring_take_one(u, cqe, &count);
	return count;
}

/* Opening and closing. */

/* What a call said, explained. Returns code. */
static int uring_refused(const char *call, int code, struct refusal *ret)
{
	refusal_io_uring("", call, code, ret);
	return code;
}

/*
 * The completion queue has two entries per submission entry: one for each request in
 * the kernel, one for a cancel of each, so it cannot overflow between two reaps. Watches
 * and the time-out have entries, too.
 */
static int open_ring(struct uring *u, unsigned depth, struct refusal *ret)
{
	unsigned entries = depth + IO_WRITES_MAX + IOQ_WATCHES_MAX + 1;
	struct io_uring_params params = {
		.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
			 IORING_SETUP_DEFER_TASKRUN,
	};
	int rc = io_uring_queue_init_params(entries, &u->ring, &params);

	if (rc < 0)
		return uring_refused("io_uring_setup", rc, ret);
	rc = ioq_restrict(&u->ring);
	if (rc < 0) {
		io_uring_queue_exit(&u->ring);
		return uring_refused("io_uring_register", rc, ret);
	}
	return 0;
}

/*
 * A filter may let the set-up through and nothing that follows: an entry without work is
 * submitted and waited for.
 */
static int enter_once(struct uring *u)
{
	struct io_uring_cqe *cqe;
	int rc;

	io_uring_prep_nop(uring_sqe(u));
	do
		rc = io_uring_submit_and_wait(&u->ring, 1);
	while (rc == -EINTR);
	if (rc >= 0)
		rc = io_uring_peek_cqe(&u->ring, &cqe);
	if (rc == 0)
		io_uring_cqe_seen(&u->ring, cqe);
	return rc;
}

/* The ring is the calling thread's, and works. */
static int own_ring(struct uring *u, struct refusal *ret)
{
	int rc;

	/* liburing 2.3 declares io_uring_enable_rings, and does not have it. */
	if (syscall(SYS_io_uring_register, u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL,
		    0) < 0)
		return uring_refused("io_uring_register", -errno, ret);
	rc = enter_once(u);
	return rc < 0 ? uring_refused("io_uring_enter", rc, ret) : 0;
}

int ioq_probe(unsigned depth, struct refusal *ret)
{
	struct uring u = {.seq = 0};
	int rc = open_ring(&u, depth, ret);

	if (rc < 0)
		return rc;
	rc = own_ring(&u, ret);
	io_uring_queue_exit(&u.ring);
	return rc;
}

static int uring_own(struct ioq *q, struct err *e)
{
	struct refusal why;
	int rc = own_ring(uring_of(q), &why);

	return rc < 0 ? refusal_err(&why, rc, e) : 0;
}

static int uring_watch(struct ioq *q, int fd, struct err *e)
{
	struct uring *u = uring_of(q);

	(void)e;
	ASSERT(u->watch_count < IOQ_WATCHES_MAX);
	u->watches[u->watch_count++] = (struct uring_watch){.fd = fd};
	return 0;
}

static void uring_drain_wait(struct ioq *q)
{
	int rc = io_uring_submit_and_wait(&uring_of(q)->ring, 1);

	/* Going on without the answer would let the kernel write into memory long freed. */
	ASSERT(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM);
	if (rc < 0 && rc != -EINTR)
		(void)usleep(URING_PAUSE_US);
}

static void uring_close(struct ioq *q)
{
	struct uring *u = uring_of(q);

	io_uring_queue_exit(&u->ring);
	free(u);
}

static const struct ioq_way_ops uring_ops = {
	.way = IOQ_URING,
	.begin = uring_begin,
	.cancel = uring_cancel,
	.look = uring_look,
	.take = uring_take,
	.own = uring_own,
	.watch = uring_watch,
	.wait = uring_wait,
	.has_entries = uring_has_entries,
	.drain_wait = uring_drain_wait,
	.close = uring_close,
};

int ioq_uring_open(const struct ioq_config *c, struct ioq **ret, struct err *e)
{
	struct uring *u = calloc(1, sizeof(*u));
	struct refusal why;
	int rc;

	if (!u)
		return err_set(e, -ENOMEM, "io_uring of depth %u: out of memory", c->depth);
	u->q.ops = &uring_ops;
	u->q.depth[IOQ_READS] = c->depth;
	u->q.depth[IOQ_WRITES] = IO_WRITES_MAX;
	u->timeout_ns = NS_NEVER;
	rc = open_ring(u, c->depth, &why);
	if (rc < 0) {
		free(u);
		return refusal_err(&why, rc, e);
	}
	*ret = &u->q;
	return 0;
}
