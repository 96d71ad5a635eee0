/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to hub.c and queue.c: a source of the hub's, and who may touch what of it.
 */
#ifndef NET_SRC_H
#define NET_SRC_H

#include <pthread.h>

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
	struct net_read *next; /* of the pool, of what has arrived, of what waits */
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

struct read_list {
	struct net_read *first, **end;
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
	struct net_read *pool, *free;
	uint32_t pool_count;
	struct read_list arrived;
	bool cancels;
	/* The loop's: */
	const struct net_peer_ops *ops;
	struct net_peer *peer;
	bool begun;
	struct read_list waiting[TURNS];
	struct turn_row row;
	struct net_req *reqs;
	uint32_t depth, req_bytes;
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

static inline void list_init(struct read_list *l)
{
	l->first = NULL;
	l->end = &l->first;
}

static inline void list_add(struct read_list *l, struct net_read *rd)
{
	rd->next = NULL;
	*l->end = rd;
	l->end = &rd->next;
}

/* queue.c, on the loop's thread. The read is over, and the pool's again. */
void net_answer(struct net_src *s, struct net_read *rd, enum src_custom_answer how, int code,
		const char *why);
/* The same for one that may be anywhere; what was asked for only on its account is called off. */
void net_read_failed(struct net_src *s, struct net_read *rd, int code, const char *why);
/* Makes and submits requests, as many as there is room for. */
void net_send_off(struct net_src *s);

#endif
