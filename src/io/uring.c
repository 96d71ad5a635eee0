/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads, writes and syncs through io_uring; see io/uring.h for threads. Owns the ring, the
 * eventfd and the place of each outstanding request, which is on exactly one list:
 *
 *   waiting   not yet in the submission queue: not flushed, or more than there may be of its
 *             kind; reads do not wait for writes, nor writes for reads
 *   in_ring   in the submission queue or in the kernel
 *   ended     result known without the kernel's help; `done` is due in the next reap
 *
 * Announcing. The ring signals its eventfd for every completion, except while
 * flush() submits: it reaps right after, so a page-cache hit wakes nobody. The
 * kernel's own variant of this, IORING_REGISTER_EVENTFD_ASYNC, loses wake-ups:
 * it announces what its worker threads complete, but a buffered read of a cold page
 * and a direct read complete in the submitter's task work, unannounced (6.18).
 *
 * An uncached file is read and written by O_DIRECT where its file system takes that and the
 * request is aligned. What goes through the page cache nevertheless is dropped from there
 * before the request is over: reads at once, writes with the sync, as they must be on the
 * device first.
 *
 * IORING_SETUP_COOP_TASKRUN is not used: a vCPU thread that computes in the guest
 * would sit on finished reads until its next exit (measured 2.6 ms against 0.3 ms).
 */
#include "io/uring.h"

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
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
/* Signals that may interrupt one submission before it is left to the next reap. */
#define IOQ_EINTR_MAX 16
/* close() has nothing to wait for while the kernel takes no submission. */
#define IOQ_CLOSE_PAUSE_US 1000

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

struct ioq {
	struct io_uring ring;
	int event_fd;
	uint32_t depth[IOQ_KINDS];
	uint32_t busy[IOQ_KINDS]; /* in_ring of each kind */
	struct ioq_list waiting[IOQ_KINDS];
	struct ioq_list in_ring;
	struct ioq_list ended;
	uint32_t cancels_due; /* requests in_ring with IOQ_CANCEL_DUE */
	uint32_t seq;         /* submission queue entries ever written, wrapping */
	int dead;             /* -Exxx: the ring takes nothing any more */
	bool closing;
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

/* Has whoever polls the eventfd come and reap. A full counter is readable as well. */
static void ioq_announce(struct ioq *q)
{
	(void)eventfd_write(q->event_fd, 1);
}

static void ioq_end(struct ioq *q, struct io_req *rq, int res)
{
	rq->priv.res = res;
	ioq_list_add(&q->ended, rq, IOQ_ENDED);
	ioq_announce(q);
}

static enum ioq_kind ioq_kind(const struct io_req *rq)
{
	return rq->priv.writes ? IOQ_WRITES : IOQ_READS;
}

static void ioq_wait(struct ioq *q, struct io_req *rq)
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

/* Writes submission queue entries for what may go now, as far as there is room. */
static void ioq_fill(struct ioq *q)
{
	struct io_uring_sqe *sqe;

	for (unsigned kind = 0; kind < IOQ_KINDS; kind++) {
		struct io_req *rq;

		while ((rq = q->waiting[kind].head) && q->busy[kind] < q->depth[kind]) {
			sqe = io_uring_get_sqe(&q->ring);
			if (!sqe)
				return;
			ioq_prep(sqe, rq);
			rq->priv.seq = q->seq++;
			ioq_list_del(&q->waiting[kind], rq);
			ioq_list_add(&q->in_ring, rq, IOQ_IN_RING);
			q->busy[kind]++;
		}
	}
	for (struct io_req *rq = q->in_ring.head; rq && q->cancels_due; rq = rq->priv.next) {
		if (rq->priv.cancel != IOQ_CANCEL_DUE)
			continue;
		sqe = io_uring_get_sqe(&q->ring);
		if (!sqe)
			return;
		io_uring_prep_cancel(sqe, rq, 0);
		/* NULL: its own completion says nothing, the request's says all. */
		io_uring_sqe_set_data(sqe, NULL);
		q->seq++;
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

/* The ring is broken for good: ends every request that the kernel has not taken. */
static void ioq_die(struct ioq *q, int code)
{
	/* Entries are taken in order, so the ones left are the last that were written. */
	uint32_t taken = q->seq - io_uring_sq_ready(&q->ring);
	struct io_req *rq, *next;

	q->dead = code;
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

static bool ioq_has_work(const struct ioq *q)
{
	bool room = false;

	for (unsigned kind = 0; kind < IOQ_KINDS; kind++)
		room |= q->waiting[kind].len && q->busy[kind] < q->depth[kind];
	return !q->dead && (room || q->cancels_due || io_uring_sq_ready(&q->ring));
}

static void ioq_submit(struct ioq *q)
{
	unsigned interrupted = 0;

	/* Each round either hands entries over, of which there are finitely many, or ends. */
	while (ioq_has_work(q)) {
		ioq_fill(q);
		int rc = io_uring_submit(&q->ring);

		if (rc > 0 || (rc == -EINTR && interrupted++ < IOQ_EINTR_MAX))
			continue;
		if (rc == 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM) {
			/*
			 * Entries stay in the submission queue; the next completion brings
			 * somebody to reap(), which tries again. If none is to come, we call.
			 */
			if (q->in_ring.len <= io_uring_sq_ready(&q->ring))
				ioq_announce(q);
			return;
		}
		ioq_die(q, rc);
	}
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
	if (q->closing || q->dead)
		ioq_end(q, rq, q->dead ? q->dead : -ECANCELED);
	else
		ioq_wait(q, rq);
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

static void ioq_flush(void *ctx)
{
	struct ioq *q = ctx;

	if (!ioq_has_work(q))
		return;
	(void)io_uring_cq_eventfd_toggle(&q->ring, false);
	ioq_submit(q);
	(void)io_uring_cq_eventfd_toggle(&q->ring, true);
	/*
	 * Pairs with the full barrier in the kernel's io_cqring_wake(), between its store of
	 * the completion tail and its look at the flag: a completion that found the
	 * eventfd still off is seen by the caller's reap().
	 */
	__sync_synchronize();
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
	ioq_wait(q, rq);
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
			ioq_wait(q, rq);
			return 0;
		}
		/* A worker that was interrupted for our sake says EINTR. */
		res = -ECANCELED;
	}
	rq->done(rq, res); /* may free rq, or read again with it */
	return 1;
}

static unsigned ioq_run_done(struct ioq *q)
{
	unsigned completions = q->ring.cq.ring_entries;
	unsigned ended = q->ended.len;
	unsigned count = 0;
	struct io_uring_cqe *cqe;
	struct io_req *rq;

	/* Both loops are bounded by what is there now, however much the callbacks queue. */
	for (; completions && io_uring_peek_cqe(&q->ring, &cqe) == 0; completions--) {
		int res = cqe->res;

		rq = io_uring_cqe_get_data(cqe);
		/* Before `done`: the entry is free for the kernel from here on. */
		io_uring_cqe_seen(&q->ring, cqe);
		if (rq)
			count += ioq_complete(q, rq, res);
	}
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

	if (io_uring_cq_ready(&q->ring))
		ioq_announce(q);
	/*
	 * Queued by callbacks, held back by depth, or refused before. With the eventfd on:
	 * nobody need reap after reap(), so even a page-cache hit has to be announced.
	 */
	ioq_submit(q);
	return count;
}

/* Opening and closing. */

static int ioq_setup_error(int rc, unsigned depth, struct err *e)
{
	int disabled = 0;
	FILE *f;

	switch (rc) {
	case -ENOSYS:
		return err_set(e, rc, "io_uring is not in this kernel (ENOSYS): use Linux 6.6 or "
			       "newer, built with CONFIG_IO_URING");
	case -EPERM:
		f = fopen("/proc/sys/kernel/io_uring_disabled", "re");
		if (f) {
			if (fscanf(f, "%d", &disabled) != 1)
				disabled = 0;
			(void)fclose(f);
		}
		if (disabled)
			return err_set(e, rc, "io_uring is forbidden here by the sysctl "
				       "kernel.io_uring_disabled=%d: set it to 0, or to 1 and join "
				       "the group in kernel.io_uring_group", disabled);
		return err_set(e, rc, "io_uring is forbidden here (EPERM): allow io_uring_setup, "
			       "io_uring_enter and io_uring_register in the seccomp profile of the "
			       "container or service");
	case -ENOMEM:
		return err_set(e, rc, "no memory for an io_uring of depth %u (ENOMEM): raise the "
			       "memory limit of the cgroup or RLIMIT_MEMLOCK (ulimit -l), or "
			       "choose a smaller depth", depth);
	default:
		return err_sys(e, rc, "io_uring_setup with depth %u", depth);
	}
}

static int ioq_announce_setup(struct ioq *q, struct err *e)
{
	int rc;

	q->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->event_fd < 0)
		return err_sys(e, -errno, "eventfd for io_uring");
	rc = io_uring_register_eventfd(&q->ring, q->event_fd);
	if (rc < 0) {
		err_sys(e, rc, "register an eventfd with io_uring");
	} else {
		rc = io_uring_cq_eventfd_toggle(&q->ring, false);
		if (rc == 0)
			return io_uring_cq_eventfd_toggle(&q->ring, true);
		err_set(e, rc, "this kernel's io_uring cannot switch its eventfd off (needs "
			"Linux 5.8): use Linux 6.6 or newer");
	}
	(void)close(q->event_fd);
	return rc;
}

int ioq_open(unsigned depth, struct ioq **ret, struct err *e)
{
	/*
	 * The completion queue has two entries per submission entry: one for each request in
	 * the kernel, one for a cancel of each, so it cannot overflow between two reaps.
	 */
	struct io_uring_params params = {0};
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
	rc = io_uring_queue_init_params(depth + IO_WRITES_MAX, &q->ring, &params);
	if (rc < 0) {
		rc = ioq_setup_error(rc, depth, e);
		free(q);
		return rc;
	}
	rc = ioq_announce_setup(q, e);
	if (rc < 0) {
		io_uring_queue_exit(&q->ring);
		free(q);
		return rc;
	}
	*ret = q;
	return 0;
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
	};

	return (struct io){.ops = &ops, .ctx = q};
}

int ioq_event_fd(struct ioq *q)
{
	return q->event_fd;
}

/* Waits for one completion of what the kernel holds. */
static void ioq_close_wait(struct ioq *q)
{
	struct io_uring_cqe *cqe;

	if (q->in_ring.len <= io_uring_sq_ready(&q->ring) && !q->dead) {
		(void)usleep(IOQ_CLOSE_PAUSE_US);
		return;
	}
	int rc = io_uring_wait_cqe(&q->ring, &cqe);

	/* Going on without the answer would let the kernel write into memory long freed. */
	ASSERT(rc == 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY);
}

void ioq_close(struct ioq *q)
{
	struct io_req *rq;

	if (!q)
		return;
	q->closing = true;
	ioq_end_waiting(q, -ECANCELED);
	for (rq = q->in_ring.head; rq; rq = rq->priv.next) {
		if (rq->priv.cancel == IOQ_CANCEL_NO)
			ioq_cancel_req(q, rq);
	}
	for (;;) {
		ioq_submit(q);
		(void)ioq_run_done(q);
		if (q->in_ring.len == 0 && q->ended.len == 0)
			break;
		if (q->ended.len == 0)
			ioq_close_wait(q);
	}
	io_uring_queue_exit(&q->ring);
	(void)close(q->event_fd);
	free(q);
}
