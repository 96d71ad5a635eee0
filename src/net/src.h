/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to hub.c and queue.c: a source of the hub's, and who may touch what of it.
 */
#ifndef NET_SRC_H
#define NET_SRC_H

#include <pthread.h>

#include "base/list.h"
#include "net/hub.h"
#include "net/peer.h"
#include "source/custom.h"

enum read_state { READ_FREE, READ_ARRIVED, READ_ACTIVE };

/* A thread that waits for a read in net_load. hub->lock covers it. */
struct loader {
	bool over;
	int code;
	char why[ERR_TEXT_MAX];
};

struct net_read {
	/* hub->lock: */
	enum read_state state;
	bool cancelled;
	bool is_told;          /* that it is cancelled, or goes by `raised` from now on */
	struct list_link told; /* then */
	enum turn raised;
	struct list_link link; /* of what has arrived, of what waits */
	/* Set before it arrives: */
	uint64_t id; /* of custom.c */
	struct loader *loader; /* NULL: it is custom.c's */
	uint64_t offset;
	unsigned char *buf;
	uint32_t len;
	enum turn turn;
	/* The loop's: */
	uint32_t sent, left; /* bytes that are in requests; that are not there yet */
	uint64_t arrived_ns;
	bool again;          /* some were asked for more than once, or had to wait for s->hold_ns */
};

enum src_state { SRC_OPENING, SRC_OPEN, SRC_FAILED, SRC_CLOSING, SRC_CLOSED };

struct net_src {
	struct net_hub *hub;
	struct net_target target;
	char *text; /* what target points to */
	char *version; /* "": not known. The loop's while it opens, constant then */
	/* The VM lock: */
	struct src_custom *custom;
	struct net_src *next_open;
	/* hub->lock: */
	enum src_state state;
	struct err why; /* SRC_FAILED */
	uint64_t size;
	struct net_src *next;
	struct net_read *pool; /* one for each of custom.c's slots, and one for a loader */
	uint32_t pool_count;
	struct list arrived, told;
	/* The loop's: */
	const struct net_peer_ops *ops;
	struct net_peer *peer;
	bool begun;
	struct turn_queue waiting;
	struct net_req *reqs;
	uint32_t depth, req_bytes;
	uint32_t block_mask; /* of an offset, what lies in the server's block */
	uint32_t flying, flying_bytes;
	uint64_t hold_ns;
	struct timer timer;
};

struct net_hub {
	struct net_hub_cfg cfg;
	struct net_loop *loop;
	struct net_src *opened; /* the VM lock, this and the next */
	unsigned sources;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a source's state, the end of a load */
	struct net_src *srcs;   /* hub->lock; unlinked by the loop's thread alone */
	bool woken;             /* the loop's: answers wait for the VM */
};

static inline struct net_read *net_read_of(struct list_link *link)
{
	return LIST_ENTRY(link, struct net_read, link);
}

/* queue.c, on the loop's thread. The read is over, and the pool's again. */
void net_answer(struct net_src *s, struct net_read *rd, enum src_custom_answer how, int code,
		const char *why);
/* The same for one that may be anywhere; what was asked for only on its account is called off. */
void net_read_failed(struct net_src *s, struct net_read *rd, int code, const char *why);
/* It waits for its first request, or for others. */
void net_read_waits(struct net_src *s, struct net_read *rd);
/* It goes by an earlier turn, and so does what of it is to be asked for once more. */
void net_read_raise(struct net_src *s, struct net_read *rd, enum turn turn);
/* Makes and submits requests, as many as there is room for. */
void net_send_off(struct net_src *s);

#endif
