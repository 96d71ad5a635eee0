/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A protocol, as the sources of hub.c use it: nbd.c and http.c. Everything is called on the loop's
 * thread, without a lock.
 *
 * A request is one range of the source, asked for at once. Its bytes go to the reads that it was
 * made of: one, several neighbours, or a part of a large one. The peer owns a request from submit
 * until it calls one of net_req_done, net_req_fail and net_req_again, or its own cancel is called.
 */
#ifndef NET_PEER_H
#define NET_PEER_H

#include "net/loop.h"
#include "port/net.h"
#include "port/turn.h"

struct net_peer;
struct net_src;

/* Of one request; and what two protocols may join neighbours up to. */
#define NET_PARTS_MAX 64u
#define NET_JOIN_BYTES (256u << 10)
/* Of net_loop_timers, that a peer may have armed at a time. */
#define NET_TIMERS_MAX 17u

struct net_read;

struct net_part {
	struct net_read *rd; /* NULL: nobody waits for it any more */
	unsigned char *buf;
	uint32_t len;
};

struct net_req {
	uint64_t offset;
	uint32_t len;
	enum turn turn;
	void *peers; /* the peer's own, this and the next */
	uint32_t got; /* of its beginning, that are there: 0 when it is submitted first */
	/* hub.c's: */
	enum { NET_REQ_FREE, NET_REQ_SENT, NET_REQ_AGAIN, NET_REQ_ENDING } state;
	unsigned tries;  /* that have failed */
	bool again;      /* it was submitted before */
	uint64_t due_ns; /* while NET_REQ_AGAIN */
	unsigned parts;
	struct net_part part[NET_PARTS_MAX];
};

struct net_peer_ops {
	/*
	 * Begins to connect; net_opened or net_open_failed tells how it went, later or within the
	 * call. 0, or -Exxx with text. *ret, where it is set, is closed in any case. The target
	 * lives as long as the peer.
	 */
	int (*open)(struct net_src *s, const struct net_target *t, struct net_peer **ret,
		    struct err *e);
	/*
	 * Whether submit may be called with a request of that turn; connects where it has to. What
	 * nobody waits for leaves half of the connections, where each carries one request.
	 */
	bool (*room)(struct net_peer *p, enum turn turn);
	void (*submit)(struct net_peer *p, struct net_req *req);
	/* Nobody wants it any more. Its buffers may be gone when this returns. */
	void (*cancel)(struct net_peer *p, struct net_req *req);
	/* Whether the range is known to be zeroes. NULL: it never is. */
	bool (*zeroes)(const struct net_peer *p, uint64_t offset, uint32_t len);
	/* Ends everything, without waiting. No request is the peer's. */
	void (*close)(struct net_peer *p);
};

/* Begins a peer's struct. */
struct net_peer {
	struct net_src *src;
};

/* Of nbd.c and http.c; their address is NULL where they are not built in. */
extern const struct net_peer_ops net_nbd_ops __attribute__((weak));
extern const struct net_peer_ops net_http_ops __attribute__((weak));

struct net_loop *net_src_loop(struct net_src *s);
const char *net_src_name(const struct net_src *s);
/*
 * bytes: of one request at most, with all of each block that it begins or ends in; block: a power
 * of two that bytes is a multiple of. version: port/source.h; copied; "": there is none.
 */
void net_opened(struct net_src *s, uint64_t size, uint32_t bytes, uint32_t block, uint32_t depth,
		const char *version);
void net_open_failed(struct net_src *s, const struct err *why);
/* Whether it was ever opened: from then on failures are waited out. */
bool net_is_open(const struct net_src *s);
uint64_t net_size(const struct net_src *s);

/* len bytes that stand `at` bytes behind the request's offset. at + len is within the request. */
void net_req_put(const struct net_req *req, uint64_t at, const void *data, size_t len);
void net_req_done(struct net_src *s, struct net_req *req);
void net_req_fail(struct net_src *s, struct net_req *req, int code, const char *why);
/* It is submitted again, after that time. */
void net_req_again(struct net_src *s, struct net_req *req, uint64_t wait_ns);
/* The same as soon as there is no hold; it does not count as a try. */
void net_req_wait(struct net_src *s, struct net_req *req);
/* Nothing is submitted before; an earlier wish stays where it is later. */
void net_src_hold(struct net_src *s, uint64_t until_ns);

/* Of every read that waits, and of every request that is to be submitted again. */
void net_fail_waiting(struct net_src *s, int code, const char *why);

/* Pauses between tries: from..max, doubled each time, of which a random half. n: from 0. */
uint64_t net_backoff_ns(unsigned n, uint64_t from_ns, uint64_t max_ns);

#endif
