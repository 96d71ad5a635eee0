/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/io: a queue, what both ways of carrying out its requests share (queue.c), and the
 * table by which they differ.
 */
#ifndef IO_INTERNAL_H
#define IO_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "io/queue.h"
#include "port/io.h"

enum ioq_state { IOQ_IDLE = 0, IOQ_WAITING, IOQ_BEGUN, IOQ_ENDED };
/* FORGET: the second half of a read or sync, which drops what it has left in the page cache. */
enum ioq_op { IOQ_READ, IOQ_WRITE, IOQ_SYNC, IOQ_FORGET };
/* Who share a limit. */
enum ioq_kind { IOQ_READS, IOQ_WRITES, IOQ_KINDS };
enum ioq_cancel { IOQ_CANCEL_NO = 0, IOQ_CANCEL_DUE, IOQ_CANCEL_SENT };

struct ioq_list {
	struct list reqs;
	uint32_t len;
};

static inline struct io_req *ioq_req(struct list_link *link)
{
	return LIST_ENTRY(link, struct io_req, priv.link);
}

/* NULL: none. */
static inline struct io_req *ioq_first(const struct ioq_list *l)
{
	return ioq_req(l->reqs.first);
}

/* In the same list, also when rq has just left it. */
static inline struct io_req *ioq_next(const struct io_req *rq)
{
	return ioq_req(rq->priv.link.next);
}

/*
 * How requests are carried out. begin, cancel, raise and look are called under the lock, by whoever
 * may begin, raise by anybody; take, too, and drain_wait, by the owner, or who closes; wait and
 * has_entries by the owner without the lock.
 */
struct ioq_way_ops {
	enum ioq_way way;
	bool by_anyone; /* not by the owner alone */
	bool dear;      /* carrying out a read costs more than a look into the page cache */
	/* rq is the way's, until ioq_complete(). False: no room for now. */
	bool (*begin)(struct ioq *q, struct io_req *rq);
	/* Asks for its early end; it still completes. False: no room for now. */
	bool (*cancel)(struct ioq *q, struct io_req *rq);
	/* Where it waits still, it goes by rq->turn now. NULL: what was begun waits for nobody. */
	void (*raise)(struct ioq *q, struct io_req *rq);
	/* Before something is begun; NULL: nothing to look for. */
	void (*look)(struct ioq *q);
	/* ioq_complete() for what has ended, and no more than had when it was called; how many. */
	unsigned (*take)(struct ioq *q);
	/* See queue.h. */
	int (*start)(struct ioq *q, struct err *e);
	int (*own)(struct ioq *q, struct err *e);
	int (*watch)(struct ioq *q, int fd, struct err *e);
	unsigned (*wait)(struct ioq *q, uint64_t until_ns);
	bool (*has_entries)(const struct ioq *q);
	/* Until something that was begun has ended; may return for nothing. */
	void (*drain_wait)(struct ioq *q);
	/* Frees q. Nothing is outstanding. */
	void (*close)(struct ioq *q);
};

/* Each way has a larger struct that begins with it. */
struct ioq {
	const struct ioq_way_ops *ops;
	pthread_t owner;
	bool owned;
	uint32_t depth[IOQ_KINDS];
	uint32_t busy[IOQ_KINDS]; /* begun, of each kind */
	struct turn_queue waiting[IOQ_KINDS];
	uint32_t waiting_count[IOQ_KINDS];
	struct ioq_list begun;
	struct ioq_list ended;
	uint32_t cancels_due; /* requests begun with IOQ_CANCEL_DUE */
	int dead;             /* -Exxx: nothing is begun any more */
	bool closing;
};

/* The ways. 0 or -Exxx; the caller ends *ret with its ops->close. */
int ioq_uring_open(const struct ioq_config *c, struct ioq **ret, struct err *e);
int ioq_threads_open(const struct ioq_config *c, struct ioq **ret, struct err *e);

/* For the ways; under the lock. */

/* What a request asks the kernel for. */
struct ioq_call {
	enum ioq_op op;
	int fd;
	void *buf;
	uint64_t off; /* FORGET: this and len are in whole pages; len 0: to the end */
	uint32_t len;
};

/* Decides, among others, whether it goes past the page cache. */
struct ioq_call ioq_call(struct io_req *rq);

/* The kernel's answer, -Exxx or a count. Returns 1 when rq is over, 0 when it goes round again. */
unsigned ioq_complete(struct ioq *q, struct io_req *rq, int res);

/* Ends what was begun, and is not to be completed, with that code; what only waits. */
void ioq_end_begun(struct ioq *q, struct io_req *rq, int code);
void ioq_end_waiting(struct ioq *q, int code);

bool ioq_is_owner(const struct ioq *q);
enum ioq_kind ioq_kind(const struct io_req *rq);

#endif
