/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of the reads that wait: in the order of their turns (port/turn.h), urgent ones by
 * themselves, others joined with their neighbours of the same turn, large ones cut; and what
 * becomes of them. What nobody waits for leaves half of the requests, and of the bytes on their
 * way, to whoever comes; but for its chance (port/turn.h) it need not find as much on its way. The
 * loop's thread's, but for the pool.
 * Tests: tests/unit/net_queue_test.c, tests/integration/net_{servers,nbd,http}_test.c.
 */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/time.h"
#include "net/src.h"

/* On their way at a time, whatever the number of requests: of what nobody waits for, of all. */
#define AHEAD_FLIGHT_BYTES (4u << 20)
#define FLIGHT_BYTES (8u << 20)

/* Some of it is in no request yet: it is in the queue. */
static bool is_waiting(const struct net_read *rd)
{
	return rd->sent < rd->len;
}

void net_read_waits(struct net_src *s, struct net_read *rd)
{
	turn_queue_add(&s->waiting, &rd->link, rd->turn);
}

static void wait_over(struct net_src *s, struct net_read *rd)
{
	turn_queue_remove(&s->waiting, &rd->link, rd->turn);
}

/* ---- the end of a read, of a request ---- */

void net_answer(struct net_src *s, struct net_read *rd, enum src_custom_answer how, int code,
		const char *why)
{
	struct net_hub *h = s->hub;
	struct loader *loader = rd->loader;
	uint64_t id = rd->id;

	pthread_mutex_lock(&h->lock);
	if (loader) {
		if (how == SRC_CUSTOM_ZEROES)
			memset(rd->buf, 0, rd->len);
		loader->over = true;
		loader->code = how == SRC_CUSTOM_FAILED ? code : 0;
		strncpy(loader->why, why ? why : "", sizeof(loader->why) - 1);
		pthread_cond_broadcast(&h->changed);
	}
	if (rd->is_told)
		list_remove(&s->told, &rd->told);
	rd->is_told = false;
	rd->state = READ_FREE;
	pthread_mutex_unlock(&h->lock);
	if (!loader)
		(void)src_custom_answer(s->custom, id, how, code, why);
}

static void req_free(struct net_src *s, struct net_req *req)
{
	if (req->state == NET_REQ_SENT) {
		s->flying--;
		s->flying_bytes -= req->len;
	}
	req->state = NET_REQ_FREE;
}

static bool req_is_wanted(const struct net_req *req)
{
	for (unsigned i = 0; i < req->parts; i++)
		if (req->part[i].rd)
			return true;
	return false;
}

/* The next request that some of the read is in, from the first on (NULL). NULL: no more. */
static struct net_req *next_with(struct net_src *s, const struct net_read *rd, struct net_req *req)
{
	for (req = req ? req + 1 : s->reqs; req < s->reqs + s->depth; req++) {
		if (req->state != NET_REQ_SENT && req->state != NET_REQ_AGAIN)
			continue;
		for (unsigned i = 0; i < req->parts; i++)
			if (req->part[i].rd == rd)
				return req;
	}
	return NULL;
}

/* By the first turn of those who wait for it. */
static void raise_req(struct net_req *req)
{
	for (unsigned i = 0; i < req->parts; i++)
		if (req->part[i].rd && req->part[i].rd->turn < req->turn)
			req->turn = req->part[i].rd->turn;
}

/* What is on its way stays what it was begun as: what nobody waited for has its half. */
void net_read_raise(struct net_src *s, struct net_read *rd, enum turn turn)
{
	struct net_req *req = NULL;

	if (turn >= rd->turn)
		return;
	if (is_waiting(rd))
		wait_over(s, rd);
	rd->turn = turn;
	if (is_waiting(rd))
		net_read_waits(s, rd);
	while ((req = next_with(s, rd, req)))
		if (req->state == NET_REQ_AGAIN)
			raise_req(req);
}

/* The read leaves whatever it is in; what is left for nobody is called off. */
static void drop(struct net_src *s, struct net_read *rd)
{
	struct net_req *req = NULL;

	if (is_waiting(rd))
		wait_over(s, rd);
	while ((req = next_with(s, rd, req))) {
		for (unsigned i = 0; i < req->parts; i++)
			if (req->part[i].rd == rd)
				req->part[i].rd = NULL;
		if (req_is_wanted(req))
			continue;
		if (req->state == NET_REQ_SENT)
			s->ops->cancel(s->peer, req);
		req_free(s, req);
	}
}

void net_read_failed(struct net_src *s, struct net_read *rd, int code, const char *why)
{
	drop(s, rd);
	net_answer(s, rd, SRC_CUSTOM_FAILED, code, why);
}

void net_req_put(const struct net_req *req, uint64_t at, const void *data, size_t len)
{
	const unsigned char *from = data;

	ASSERT(at <= req->len && len <= req->len - at);
	for (unsigned i = 0; len > 0; i++) {
		const struct net_part *p = &req->part[i];
		size_t n;

		if (at >= p->len) {
			at -= p->len;
			continue;
		}
		n = min_u64(p->len - at, len);
		if (p->rd)
			memcpy(p->buf + at, from, n);
		at = 0;
		from += n;
		len -= n;
	}
}

void net_req_done(struct net_src *s, struct net_req *req)
{
	req_free(s, req);
	for (unsigned i = 0; i < req->parts; i++) {
		struct net_read *rd = req->part[i].rd;

		if (!rd)
			continue;
		rd->left -= req->part[i].len;
		rd->again |= req->again || rd->arrived_ns < s->hold_ns;
		if (rd->left == 0)
			net_answer(s, rd, rd->again ? SRC_CUSTOM_DONE_AGAIN : SRC_CUSTOM_DONE, 0,
				   NULL);
	}
}

void net_req_fail(struct net_src *s, struct net_req *req, int code, const char *why)
{
	req_free(s, req);
	req->state = NET_REQ_ENDING;
	for (unsigned i = 0; i < req->parts; i++)
		if (req->part[i].rd)
			net_read_failed(s, req->part[i].rd, code, why);
	req->state = NET_REQ_FREE;
}

void net_req_again(struct net_src *s, struct net_req *req, uint64_t wait_ns)
{
	req_free(s, req);
	if (!req_is_wanted(req))
		return;
	req->state = NET_REQ_AGAIN;
	req->again = true;
	raise_req(req);
	req->tries++;
	req->due_ns = monotonic_ns() + wait_ns;
}

void net_req_wait(struct net_src *s, struct net_req *req)
{
	net_req_again(s, req, 0);
	req->tries -= req->state == NET_REQ_AGAIN;
}

void net_src_hold(struct net_src *s, uint64_t until_ns)
{
	s->hold_ns = max_u64(s->hold_ns, until_ns);
}

void net_fail_waiting(struct net_src *s, int code, const char *why)
{
	for (struct net_read *rd; (rd = net_read_of(turn_queue_first(&s->waiting)));)
		net_read_failed(s, rd, code, why);
	for (struct net_req *req = s->reqs; req < s->reqs + s->depth; req++)
		if (req->state == NET_REQ_AGAIN)
			net_req_fail(s, req, code, why);
}

uint64_t net_backoff_ns(unsigned n, uint64_t from_ns, uint64_t max_ns)
{
	uint64_t ns = n < 32 ? min_u64(from_ns << n, max_ns) : max_ns;
	uint64_t noise = monotonic_ns() * 0x9e3779b97f4a7c15ull >> 33;

	return ns / 2 + noise % (ns / 2 + 1);
}

/* ---- requests ---- */

static void add_part(struct net_req *req, struct net_read *rd, uint32_t len, bool front)
{
	struct net_part *p = &req->part[front ? 0 : req->parts];

	if (front)
		memmove(p + 1, p, req->parts * sizeof(*p));
	*p = (struct net_part){rd, rd->buf + rd->sent, len};
	req->parts++;
	rd->sent += len;
	req->len += len;
	if (front)
		req->offset -= len;
}

/* How much a request may ask for from there on: the server reads its blocks as a whole. */
static uint32_t room_from(const struct net_src *s, uint64_t offset)
{
	return s->req_bytes - (uint32_t)(offset & s->block_mask);
}

/* One whole neighbour more; false: there is none, or no room. */
static bool grow(struct net_src *s, struct net_req *req)
{
	struct list_link *at = s->waiting.of[req->turn].first;

	for (; at; at = at->next) {
		struct net_read *rd = net_read_of(at);
		bool front = rd->offset + rd->len == req->offset;
		uint64_t from = front ? rd->offset : req->offset;
		uint64_t len = (uint64_t)rd->len + req->len;

		if (rd->sent > 0 || (!front && rd->offset != req->offset + req->len) ||
		    len > min_u64(NET_JOIN_BYTES, room_from(s, from)))
			continue;
		wait_over(s, rd);
		add_part(req, rd, rd->len, front);
		return true;
	}
	return false;
}

static void build(struct net_src *s, struct net_req *req, unsigned turn)
{
	struct net_read *rd = net_read_of(s->waiting.of[turn].first);

	req->offset = rd->offset + rd->sent;
	req->len = 0;
	req->parts = 0;
	req->tries = 0;
	req->again = false;
	req->turn = rd->turn;
	req->peers = NULL;
	req->got = 0;
	add_part(req, rd, (uint32_t)min_u64(rd->len - rd->sent, room_from(s, req->offset)), false);
	if (is_waiting(rd))
		return;
	wait_over(s, rd);
	while (rd->turn != TURN_URGENT && req->parts < NET_PARTS_MAX &&
	       req->len < min_u64(NET_JOIN_BYTES, s->req_bytes) && grow(s, req))
		;
}

/* There is room on the way to the server for one of that turn. */
static bool may_fly(struct net_src *s, unsigned turn)
{
	bool ahead = turn >= TURN_AHEAD;

	if (s->flying > 0 && s->flying_bytes >= (ahead ? AHEAD_FLIGHT_BYTES : FLIGHT_BYTES))
		return false;
	if (ahead && s->flying > 0 && s->flying >= s->depth / 2)
		return false;
	return s->ops->room(s->peer, (enum turn)turn);
}

/*
 * What comes next of that turn: of what failed before, if it is time, what has waited longest; then
 * what was not asked for yet. flies_as: whose room it may take. NULL: nothing for now.
 */
static struct net_req *next_of(struct net_src *s, unsigned turn, unsigned flies_as,
			       uint64_t now_ns)
{
	struct net_req *again = NULL, *free = NULL;
	unsigned ahead = 0;

	for (struct net_req *req = s->reqs; req < s->reqs + s->depth; req++) {
		if (req->state == NET_REQ_FREE && !free)
			free = req;
		if (req->state == NET_REQ_AGAIN && req->turn == turn && req->due_ns <= now_ns &&
		    (!again || req->due_ns < again->due_ns))
			again = req;
		ahead += req->state != NET_REQ_FREE && req->turn >= TURN_AHEAD;
	}
	/* Those that are to be submitted again take places, too. */
	if (turn >= TURN_AHEAD && ahead > 0 && ahead >= s->depth / 2)
		free = NULL;
	if (!again && (!free || !s->waiting.of[turn].first))
		return NULL;
	if (!may_fly(s, flies_as))
		return NULL;
	if (!again)
		build(s, free, turn);
	return again ? again : free;
}

static struct net_req *next_req(struct net_src *s, uint64_t now_ns)
{
	struct net_req *req = NULL;

	for (unsigned i = 0; i < TURNS && !req; i++) {
		unsigned turn = turn_at(&s->waiting.row, i);
		/* A chance would be none where others always have what they may. */
		unsigned flies_as = i == 0 ? (unsigned)min_u64(turn, TURN_DEMAND) : turn;

		req = next_of(s, turn, flies_as, now_ns);
	}
	if (req)
		turn_went(&s->waiting.row);
	return req;
}

static bool anything_waits(const struct net_src *s)
{
	if (turn_queue_first(&s->waiting))
		return true;
	for (const struct net_req *req = s->reqs; req < s->reqs + s->depth; req++)
		if (req->state == NET_REQ_AGAIN)
			return true;
	return false;
}

static void set_timer(struct net_src *s, uint64_t now_ns)
{
	struct timers *ts = net_loop_timers(s->hub->loop);
	uint64_t due = NS_NEVER;

	for (const struct net_req *req = s->reqs; req < s->reqs + s->depth; req++)
		if (req->state == NET_REQ_AGAIN)
			due = min_u64(due, req->due_ns);
	if (s->hold_ns > now_ns && anything_waits(s))
		due = s->hold_ns;
	if (due == NS_NEVER || due <= now_ns)
		timer_cancel(ts, &s->timer);
	else
		timer_arm(ts, &s->timer, due);
}

void net_send_off(struct net_src *s)
{
	uint64_t now_ns;

	if (!s->reqs || !anything_waits(s))
		return;
	now_ns = monotonic_ns();
	while (s->hold_ns <= now_ns && anything_waits(s)) {
		struct net_req *req = next_req(s, now_ns);

		if (!req)
			break;
		req->state = NET_REQ_SENT;
		s->flying++;
		s->flying_bytes += req->len;
		s->ops->submit(s->peer, req);
	}
	set_timer(s, now_ns);
}
