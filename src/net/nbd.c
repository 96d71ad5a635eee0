/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD by libnbd's asynchronous calls: a peer of peer.h. Owns up to NBD_CONNS_MAX connections, each
 * a handle of libnbd, and a buffer for each command: what is given up may still be written to by a
 * late answer. libnbd checks what the server says, but not that an answer's pieces are all of it,
 * each byte once, which is done here.
 *
 * Callbacks of libnbd's run inside of its calls, where its handle must not be called: they note
 * what happened, and after each call conn_look() acts on it. Threads: the loop's; nbd_lookup.h has
 * one for names.
 * Tests: tests/integration/net_{servers,nbd,nbd_liar}_test.c.
 *
 * A connection that is lost is made anew when somebody reads; what was asked for on it is asked
 * for again. With several allowed (NBD_FLAG_CAN_MULTI_CONN), one more is made when each has
 * NBD_BUSY commands under way. Once one was lost, as many are made as are allowed: the others may
 * be lost, too, and a new one takes some round trips.
 */
#include <errno.h>
#include <libnbd.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/ranges.h"
#include "base/time.h"
#include "net/nbd_handle.h"
#include "net/nbd_lookup.h"
#include "net/peer.h"

#define NBD_CONNS_MAX 16u
#define NBD_CONNS 4u
#define NBD_DEPTH 64u
#define NBD_BUSY 4u
#define NBD_REQ_BYTES (256u << 10)
#define NBD_BLOCK_MAX (64u << 10) /* the protocol's limit for what it calls the minimum */
#define NBD_CONNECT_MS 10000u
#define NBD_STALL_MS 5000u
#define NBD_PAUSE_NS (50 * NS_PER_MS)
#define NBD_PAUSE_MAX_NS (2 * NS_PER_S)
/* What is known to be zeroes, 16 bytes each; what comes after that many is read. */
#define NBD_ZEROES_MAX 32768u
#define NBD_STATUS_BYTES (1ull << 30)
/* Of an answer, that have come and are no neighbours. Servers send them in order. */
#define NBD_PIECES_MAX 16u

/* Of opening, and of a read, where the server ends connections, or says what is wrong. */
#define NBD_TRIES 6u

_Static_assert(NBD_CONNS_MAX < NET_TIMERS_MAX, "one for each connection, and one for opening");

enum conn_state { CONN_NONE, CONN_LOOKUP, CONN_CONNECTING, CONN_READY };

struct nbd_conn {
	struct nbd_peer *peer;
	enum conn_state state;
	struct nbd_handle *h;
	struct net_fd *fd;
	struct nbd_lookup *lookup; /* while CONN_LOOKUP; it has the handle */
	struct timer timer;       /* the end of patience */
	unsigned commands;        /* under way */
	uint64_t progress_ns;     /* when it last answered, or had nothing to answer */
	uint64_t passed_ns;       /* what was asked for before that has been overtaken */
	struct nbd_command *over; /* answered, and to be looked at by conn_look() */
	bool served;              /* it has had an answer */
	bool broke;               /* the server was there, and is gone without a word */
	bool wrong;               /* it ended by what the server said, which no waiting mends */
	int code;                 /* -Exxx, and what a call of libnbd's said when it failed */
	char why[ERR_TEXT_MAX];
};

struct nbd_command {
	struct nbd_conn *conn; /* NULL: free */
	struct net_req *req;   /* NULL: nobody wants it any more, or it is no read */
	bool status;           /* it asks what is allocated */
	uint32_t head;         /* bytes before the request's, for the server's alignment */
	unsigned char *buf;
	uint64_t since_ns;
	uint64_t offset, len; /* of the command */
	struct ranges have;   /* bytes of the buffer that have come */
	struct range room[NBD_PIECES_MAX];
	int error;
	bool is_over;
	struct nbd_command *next;
};

struct nbd_peer {
	struct net_peer peer;
	const struct net_target *target;
	struct nbd_conn conns[NBD_CONNS_MAX];
	unsigned conns_max;
	bool multi;          /* the server allows more than one */
	uint64_t more_at_ns; /* when one more may be tried */
	unsigned most;       /* that are to be ready: were at a time, or all, once one was lost */
	unsigned fails;      /* connections, since a read was answered */
	unsigned refused;    /* the same that were wrong before they were ready, since one was */
	unsigned tries;      /* of opening, that have failed */
	struct timer again;  /* opening is tried again */
	struct nbd_command *commands;
	unsigned commands_max;
	uint64_t block_min;
	uint32_t depth;
	/* What is allocated: */
	bool asking, asked; /* it is under way; it is over */
	uint64_t status_at, status_next;
	struct ranges zeroes;
};

static void conn_look(struct nbd_conn *c);

static struct nbd_peer *peer_of(struct net_peer *p)
{
	return CONTAINER_OF(p, struct nbd_peer, peer);
}

static struct timers *timers_of(const struct nbd_conn *c)
{
	return net_loop_timers(net_src_loop(c->peer->peer.src));
}

static uint64_t stall_ns(const struct nbd_peer *p)
{
	return (p->target->stall_ms ? p->target->stall_ms : NBD_STALL_MS) * NS_PER_MS;
}

/* ---- what is known to be zeroes ---- */

static bool nbd_zeroes(const struct net_peer *peer, uint64_t offset, uint32_t len)
{
	const struct nbd_peer *p = CONTAINER_OF((struct net_peer *)peer, struct nbd_peer, peer);

	return ranges_have(&p->zeroes, offset, offset + len);
}

/* libnbd's callback: pairs of length and flags, from `offset` on. */
static int on_extents(void *ctx, const char *context, uint64_t offset, uint32_t *entries,
		      size_t count, int *error)
{
	struct nbd_peer *p = ctx;
	uint64_t at = offset, size = net_size(p->peer.src);

	(void)error;
	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || offset != p->status_at)
		return 0;
	for (size_t i = 0; i + 1 < count && at < size; i += 2) {
		uint64_t to = min_u64(at + entries[i], size);

		if ((entries[i + 1] & LIBNBD_STATE_ZERO) && to > at)
			(void)ranges_add(&p->zeroes, at, to);
		at = to;
	}
	p->status_next = at;
	return 0;
}

/* ---- commands ---- */

static struct nbd_command *free_command(struct nbd_peer *p)
{
	for (unsigned i = 0; i < p->commands_max; i++)
		if (!p->commands[i].conn)
			return &p->commands[i];
	return NULL;
}

/* libnbd's callback. An error of ours is the command's, if it has none. */
static int on_piece(void *ctx, const void *piece, size_t len, uint64_t offset, unsigned status,
		    int *error)
{
	struct nbd_command *cmd = ctx;
	uint64_t at = offset - cmd->offset;

	(void)piece;
	if (status == LIBNBD_READ_ERROR || len == 0 ||
	    ranges_add(&cmd->have, at, at + len) == RANGES_ADDED)
		return 0;
	*error = EPROTO;
	return -1;
}

/* libnbd's callback; 1: it need not be told that we know. */
static int on_over(void *ctx, int *error)
{
	struct nbd_command *cmd = ctx;

	cmd->error = *error;
	if (cmd->error == 0 && !cmd->status && !ranges_have(&cmd->have, 0, cmd->len))
		cmd->error = EPROTO;
	cmd->is_over = true;
	cmd->next = cmd->conn->over;
	cmd->conn->over = cmd;
	return 1;
}

static void command_free(struct nbd_command *cmd)
{
	free(cmd->buf);
	*cmd = (struct nbd_command){.conn = NULL};
}

static void command_begins(struct nbd_command *cmd, struct nbd_conn *c)
{
	*cmd = (struct nbd_command){.conn = c, .since_ns = monotonic_ns()};
	if (c->commands++ == 0)
		c->progress_ns = cmd->since_ns;
}

/* True: a call of libnbd's was made. */
static bool ask_status(struct nbd_conn *c)
{
	struct nbd_peer *p = c->peer;
	uint64_t size = net_size(p->peer.src);
	struct nbd_command *cmd = free_command(p);
	nbd_extent_callback extents = {.callback = on_extents, .user_data = p};
	nbd_completion_callback over = {.callback = on_over, .user_data = cmd};

	if (p->asked || p->asking || !cmd)
		return false;
	command_begins(cmd, c);
	cmd->status = true;
	p->asking = true;
	p->status_next = p->status_at;
	if (nbd_aio_block_status(c->h, min_u64(size - p->status_at, NBD_STATUS_BYTES),
				 p->status_at, extents, over, 0) >= 0)
		return true;
	/* It is good for speed alone. */
	p->asking = false;
	p->asked = true;
	c->commands--;
	command_free(cmd);
	return true;
}

static void status_over(struct nbd_conn *c, const struct nbd_command *cmd)
{
	struct nbd_peer *p = c->peer;

	p->asking = false;
	p->asked = cmd->error != 0 || p->status_next <= p->status_at ||
		   p->status_next >= net_size(p->peer.src) || p->zeroes.count == NBD_ZEROES_MAX;
	p->status_at = p->status_next;
}

/*
 * The connection that it was asked for on is lost. What comes to that each time is an error: with a
 * server that breaks the protocol, or that ends connections and answers nobody.
 */
static void read_lost(struct nbd_conn *c, struct net_req *req)
{
	struct nbd_peer *p = c->peer;
	struct err why = {0};

	if (req->tries + 1 < NBD_TRIES || (!c->wrong && !(c->broke && p->fails + 1 >= NBD_TRIES))) {
		net_req_again(p->peer.src, req, 0);
		return;
	}
	(void)err_set(&why, -EPROTO, "the server %s (%u times)%s%s", c->wrong ?
		      "breaks the protocol" : "closes the connection and does not answer",
		      req->tries + 1, c->wrong ? ": " : "", c->wrong ? c->why : "");
	net_req_fail(p->peer.src, req, why.code, why.text);
}

static void read_over(struct nbd_conn *c, struct nbd_command *cmd, bool dead)
{
	struct net_src *s = c->peer->peer.src;
	struct err why;

	if (!cmd->req)
		return;
	if (cmd->error == 0) {
		c->peer->fails = 0;
		net_req_put(cmd->req, 0, cmd->buf + cmd->head, cmd->req->len);
		net_req_done(s, cmd->req);
	} else if (dead || cmd->error == ENOTCONN) {
		read_lost(c, cmd->req);
	} else if (cmd->error == ESHUTDOWN) {
		/* It is about to go, and is waited for like one that is gone. */
		net_req_again(s, cmd->req, net_backoff_ns(cmd->req->tries, NBD_PAUSE_NS,
							  NBD_PAUSE_MAX_NS));
	} else if (cmd->error == EPROTO) {
		net_req_fail(s, cmd->req, -EPROTO, "the server's answer does not have each byte "
			     "that was asked for once");
	} else {
		(void)err_sys(&why, -cmd->error, "the server says");
		net_req_fail(s, cmd->req, -EIO, why.text);
	}
}

/* ---- connections ---- */

static unsigned conns_in(const struct nbd_peer *p, enum conn_state state)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->conns_max; i++)
		n += p->conns[i].state == state;
	return n;
}

static void conn_close(struct nbd_conn *c)
{
	struct net_loop *l = net_src_loop(c->peer->peer.src);

	timer_cancel(timers_of(c), &c->timer);
	net_fd_del(l, c->fd);
	c->fd = NULL;
	nbd_lookup_give_up(c->lookup);
	c->lookup = NULL;
	nbd_close(c->h);
	c->h = NULL;
	c->state = CONN_NONE;
	c->over = NULL;
	c->commands = 0;
}

/* The connection is given up; what was asked for on it is asked for again. c->why says why. */
static void conn_lost(struct nbd_conn *c)
{
	struct nbd_peer *p = c->peer;
	struct net_src *s = p->peer.src;
	bool ready = c->state == CONN_READY, served = ready && c->served;
	struct err why = {0};

	conn_close(c);
	for (unsigned i = 0; i < p->commands_max; i++) {
		struct nbd_command *cmd = &p->commands[i];

		if (cmd->conn != c)
			continue;
		/* It is not tried again: maybe it was that which the server could not take. */
		p->asking = p->asking && !cmd->status;
		p->asked = p->asked || cmd->status;
		if (cmd->req)
			read_lost(c, cmd->req);
		command_free(cmd);
	}
	if (!net_is_open(s) && c->broke && ++p->tries < NBD_TRIES) {
		timer_arm(timers_of(c), &p->again, monotonic_ns() +
			  net_backoff_ns(p->tries - 1, NBD_PAUSE_NS / 8, NBD_PAUSE_MAX_NS));
		return;
	}
	if (!net_is_open(s)) {
		(void)err_set(&why, c->code < 0 ? c->code : -EIO, "%s", c->why);
		net_open_failed(s, &why);
		return;
	}
	if (!ready && c->wrong && ++p->refused >= NBD_TRIES && conns_in(p, CONN_READY) == 0) {
		p->refused = 0;
		net_fail_waiting(s, c->code < 0 ? c->code : -EPROTO, c->why);
	}
	if (served)
		p->most = p->conns_max;
	if (conns_in(p, CONN_READY) > 0)
		p->more_at_ns = served ? 0 : monotonic_ns() + NBD_PAUSE_MAX_NS;
	else if (!served || p->fails > 0)
		net_src_hold(s, monotonic_ns() +
				net_backoff_ns(p->fails, NBD_PAUSE_NS, NBD_PAUSE_MAX_NS));
	p->fails++;
}

/* The last call of libnbd's on this thread has failed. */
static void note_error(struct nbd_conn *c)
{
	c->code = -nbd_get_errno();
	snprintf(c->why, sizeof(c->why), "%s", nbd_last_words());
}

static int open_first(struct nbd_conn *c, uint64_t size)
{
	struct nbd_peer *p = c->peer;
	int64_t min = nbd_get_block_size(c->h, LIBNBD_SIZE_MINIMUM);
	int64_t max = nbd_get_block_size(c->h, LIBNBD_SIZE_MAXIMUM);
	uint64_t bytes = max > 0 ? min_u64((uint64_t)max, NBD_REQ_BYTES) : NBD_REQ_BYTES;

	p->block_min = min > 0 && is_pow2((uint64_t)min) ? (uint64_t)min : 1;
	bytes &= ~(p->block_min - 1);
	if (bytes > PAGE_BYTES)
		bytes &= ~(PAGE_BYTES - 1);
	if (bytes == 0 || p->block_min > NBD_BLOCK_MAX || size == 0) {
		snprintf(c->why, sizeof(c->why), size ? "the server's limits on requests are of no "
			 "use: blocks of %lld bytes, %lld at most" : "the export is empty",
			 (long long)min, (long long)max);
		return -1;
	}
	p->multi = nbd_can_multi_conn(c->h) == 1;
	p->asked = nbd_can_meta_context(c->h, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1;
	net_opened(p->peer.src, size, (uint32_t)bytes, (uint32_t)p->block_min, p->depth, "");
	return 0;
}

/* The handshake is over. -1: it is of no use, c->why says why. */
static int conn_ready(struct nbd_conn *c)
{
	struct net_src *s = c->peer->peer.src;
	int64_t size = nbd_get_size(c->h);

	if (size < 0) {
		note_error(c);
		return -1;
	}
	if (!net_is_open(s)) {
		if (open_first(c, (uint64_t)size) < 0)
			return -1;
	} else if ((uint64_t)size != net_size(s)) {
		snprintf(c->why, sizeof(c->why), "the server announces %lld bytes, and had %llu: "
			 "it is not the same export any more", (long long)size,
			 (unsigned long long)net_size(s));
		net_fail_waiting(s, -ESTALE, c->why);
		return -1;
	}
	c->state = CONN_READY;
	c->peer->refused = 0;
	c->peer->most = (unsigned)max_u64(c->peer->most, conns_in(c->peer, CONN_READY));
	timer_cancel(timers_of(c), &c->timer);
	return 0;
}

static bool is_of_network(int code)
{
	static const int codes[] = {
		-ECONNRESET, -EPIPE, -ECONNREFUSED, -ECONNABORTED, -ETIMEDOUT, -EHOSTUNREACH,
		-EHOSTDOWN, -ENETUNREACH, -ENETDOWN, -ENETRESET,
	};

	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if (code == codes[i])
			return true;
	return false;
}

static void fd_ready(struct net_fd *f, uint32_t events)
{
	struct nbd_conn *c = f->ctx;
	unsigned direction = nbd_aio_get_direction(c->h);
	bool in = events & (EPOLLIN | EPOLLHUP | EPOLLERR);
	bool out = events & (EPOLLOUT | EPOLLHUP | EPOLLERR);
	int rc = 0;

	if (in && (direction & LIBNBD_AIO_DIRECTION_READ))
		rc = nbd_aio_notify_read(c->h);
	else if (out && (direction & LIBNBD_AIO_DIRECTION_WRITE))
		rc = nbd_aio_notify_write(c->h);
	if (rc < 0) {
		note_error(c);
		/* An end has no code of libnbd's; nor have some failures, which come once more. */
		c->broke = c->code == 0 || c->code == -ECONNRESET || c->code == -EPIPE;
		c->wrong = nbd_aio_is_dead(c->h) && !is_of_network(c->code);
	}
	c->broke = c->broke || nbd_aio_is_closed(c->h);
	conn_look(c);
}

/* False: it cannot be waited for. */
static bool watch(struct nbd_conn *c)
{
	struct net_loop *l = net_src_loop(c->peer->peer.src);
	unsigned direction = nbd_aio_get_direction(c->h);
	uint32_t events = 0;

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		events |= EPOLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		events |= EPOLLOUT;
	/* While it connects, each address has a socket of its own, maybe of the same number. */
	if (c->fd && c->state != CONN_READY) {
		net_fd_del(l, c->fd);
		c->fd = NULL;
	}
	if (c->fd)
		net_fd_events(l, c->fd, events);
	else
		c->fd = net_fd_add(l, nbd_aio_get_fd(c->h), events, fd_ready, c);
	return c->fd != NULL;
}

static void set_patience(struct nbd_conn *c)
{
	if (c->state != CONN_READY)
		return;
	if (c->commands == 0)
		timer_cancel(timers_of(c), &c->timer);
	else if (!timer_armed(&c->timer))
		timer_arm(timers_of(c), &c->timer, c->progress_ns + stall_ns(c->peer));
}

/*
 * Asks again for what has waited for so long that later ones were answered meanwhile: a server that
 * has lost it may be well otherwise. A late answer is for nobody. Returns when to look again; that
 * is over where nothing was answered for so long.
 */
static uint64_t ask_again(struct nbd_conn *c, uint64_t now_ns)
{
	struct nbd_peer *p = c->peer;
	uint64_t due = c->progress_ns + stall_ns(p);

	for (unsigned i = 0; i < p->commands_max; i++) {
		struct nbd_command *cmd = &p->commands[i];
		struct net_req *req = cmd->req;

		if (cmd->conn != c || !req)
			continue;
		if (cmd->since_ns + stall_ns(p) > now_ns) {
			due = min_u64(due, cmd->since_ns + stall_ns(p));
		} else if (cmd->since_ns < c->passed_ns) {
			cmd->req = NULL;
			net_req_again(p->peer.src, req, 0);
		}
	}
	return due;
}

static void out_of_patience(struct timer *tm, uint64_t now_ns)
{
	struct nbd_conn *c = CONTAINER_OF(tm, struct nbd_conn, timer);
	uint64_t due = c->state == CONN_READY ? ask_again(c, now_ns) : 0;

	if (due > now_ns) {
		timer_arm(timers_of(c), tm, due);
		return;
	}
	snprintf(c->why, sizeof(c->why), c->state == CONN_READY ? "the server does not answer" :
		 c->state == CONN_LOOKUP ? "the name of the host is being looked up for too long" :
		 "no connection in the time there is");
	conn_lost(c);
}

/* After any call of libnbd's on it: what has come of it? */
static void conn_look(struct nbd_conn *c)
{
	bool dead = nbd_aio_is_dead(c->h) || nbd_aio_is_closed(c->h);
	struct nbd_command *cmd;

	while ((cmd = c->over)) {
		c->over = cmd->next;
		c->commands--;
		/* libnbd ends what has no answer, too. */
		if (!dead) {
			c->served = true;
			c->progress_ns = monotonic_ns();
			c->passed_ns = max_u64(c->passed_ns, cmd->since_ns);
		}
		if (cmd->status)
			status_over(c, cmd);
		else
			read_over(c, cmd, dead);
		command_free(cmd);
	}
	if (!dead && c->state == CONN_CONNECTING && nbd_aio_is_ready(c->h) && conn_ready(c) < 0)
		dead = true;
	if (dead && !*c->why)
		snprintf(c->why, sizeof(c->why), "the server has closed the connection");
	if (!dead && c->state == CONN_READY && ask_status(c)) {
		conn_look(c);
		return;
	}
	if (dead || !watch(c))
		conn_lost(c);
	else
		set_patience(c);
}

/* ---- connecting ---- */

static void looked_up(void *ctx, struct nbd_handle *h, int code, const char *why)
{
	struct nbd_conn *c = ctx;

	c->lookup = NULL;
	c->h = h;
	c->state = CONN_CONNECTING;
	c->code = code;
	snprintf(c->why, sizeof(c->why), "%s", why);
	conn_look(c);
}

/* Takes the handle. */
static void look_up(struct nbd_conn *c, struct nbd_handle *h)
{
	struct err e;

	c->state = CONN_LOOKUP;
	c->lookup = nbd_lookup_start(net_src_loop(c->peer->peer.src), c->peer->target, h,
				     looked_up, c, &e);
	if (c->lookup)
		return;
	snprintf(c->why, sizeof(c->why), "%s", e.text);
	conn_lost(c);
}

static void conn_start(struct nbd_conn *c)
{
	const struct net_target *t = c->peer->target;
	uint32_t ms = t->connect_ms ? t->connect_ms : NBD_CONNECT_MS;
	struct nbd_handle *h;
	struct err e;
	int rc;

	c->why[0] = '\0';
	c->code = 0;
	c->broke = c->wrong = c->served = false;
	c->state = CONN_CONNECTING;
	h = nbd_handle_make(t, !c->peer->asked, &e);
	if (!h) {
		c->code = e.code;
		snprintf(c->why, sizeof(c->why), "%s", e.text);
		c->wrong = true;
		conn_lost(c);
		return;
	}
	/* While the source is being opened, the hub's own limit of time counts. */
	if (net_is_open(c->peer->peer.src))
		timer_arm(timers_of(c), &c->timer, monotonic_ns() + ms * NS_PER_MS);
	if (!t->socket && !nbd_is_address(t->host)) {
		look_up(c, h);
		return;
	}
	c->h = h;
	rc = t->socket ? nbd_aio_connect_unix(h, t->socket)
		       : nbd_aio_connect_tcp(h, t->host, t->port);
	if (rc < 0)
		note_error(c);
	conn_look(c);
}

static void open_again(struct timer *tm, uint64_t now_ns)
{
	(void)now_ns;
	conn_start(CONTAINER_OF(tm, struct nbd_peer, again)->conns);
}

/* ---- the peer ---- */

static struct nbd_conn *least_busy(struct nbd_peer *p)
{
	struct nbd_conn *best = NULL;

	for (struct nbd_conn *c = p->conns; c < p->conns + p->conns_max; c++)
		if (c->state == CONN_READY && (!best || c->commands < best->commands))
			best = c;
	return best;
}

static void start_one(struct nbd_peer *p)
{
	if (conns_in(p, CONN_LOOKUP) + conns_in(p, CONN_CONNECTING) > 0)
		return;
	for (struct nbd_conn *c = p->conns; c < p->conns + p->conns_max; c++) {
		if (c->state != CONN_NONE)
			continue;
		conn_start(c);
		return;
	}
}

static bool nbd_room(struct net_peer *peer, enum turn turn)
{
	struct nbd_peer *p = peer_of(peer);
	const struct nbd_conn *best = least_busy(p);
	bool fewer = conns_in(p, CONN_READY) < p->most;

	(void)turn;
	if (!best || ((best->commands >= NBD_BUSY || fewer) && p->multi &&
		      monotonic_ns() >= p->more_at_ns))
		start_one(p);
	return least_busy(p) && free_command(p);
}

static void nbd_submit(struct net_peer *peer, struct net_req *req)
{
	struct nbd_peer *p = peer_of(peer);
	struct nbd_conn *c = least_busy(p);
	struct nbd_command *cmd = free_command(p);
	uint64_t from = req->offset & ~(p->block_min - 1);
	uint64_t to = min_u64(align_up(req->offset + req->len, p->block_min), net_size(peer->src));
	nbd_chunk_callback piece = {.callback = on_piece, .user_data = cmd};
	nbd_completion_callback over = {.callback = on_over, .user_data = cmd};

	command_begins(cmd, c);
	cmd->buf = malloc(to - from);
	cmd->head = (uint32_t)(req->offset - from);
	cmd->offset = from;
	cmd->len = to - from;
	cmd->have = (struct ranges){.at = cmd->room, .max = NBD_PIECES_MAX};
	cmd->req = req;
	req->peers = cmd;
	if (cmd->buf && nbd_aio_pread_structured(c->h, cmd->buf, to - from, from, piece, over,
						 0) >= 0) {
		conn_look(c);
		return;
	}
	if (!cmd->buf)
		snprintf(c->why, sizeof(c->why), "out of memory");
	else
		note_error(c);
	c->commands--;
	command_free(cmd);
	if (nbd_aio_is_dead(c->h) || nbd_aio_is_closed(c->h))
		net_req_again(peer->src, req, 0);
	else
		net_req_fail(peer->src, req, -EIO, c->why);
	conn_look(c);
}

/* The answer comes, and is for nobody. */
static void nbd_cancel(struct net_peer *peer, struct net_req *req)
{
	struct nbd_command *cmd = req->peers;

	(void)peer;
	cmd->req = NULL;
}

static void nbd_peer_close(struct net_peer *peer)
{
	struct nbd_peer *p = peer_of(peer);

	for (unsigned i = 0; i < p->conns_max; i++) {
		struct nbd_conn *c = &p->conns[i];

		/* Polite, and not waited for. */
		if (c->state == CONN_READY)
			(void)nbd_aio_disconnect(c->h, 0);
		conn_close(c);
	}
	timer_cancel(net_loop_timers(net_src_loop(peer->src)), &p->again);
	/* No handle is left that could write to these. */
	for (unsigned i = 0; i < p->commands_max; i++)
		free(p->commands[i].buf);
	free(p->commands);
	free(p->zeroes.at);
	free(p);
}

static int nbd_peer_open(struct net_src *s, const struct net_target *t, struct net_peer **ret,
			 struct err *e)
{
	struct nbd_peer *p = calloc(1, sizeof(*p));

	if (!p)
		return err_sys(e, -ENOMEM, "NBD");
	p->peer = (struct net_peer){s};
	p->target = t;
	p->depth = t->depth ? t->depth : NBD_DEPTH;
	/* One that asks what is allocated, and late answers for nobody. */
	p->commands_max = 2 * p->depth + 1;
	p->commands = calloc(p->commands_max, sizeof(*p->commands));
	p->zeroes.max = NBD_ZEROES_MAX;
	p->zeroes.at = malloc(NBD_ZEROES_MAX * sizeof(*p->zeroes.at));
	p->conns_max = (unsigned)min_u64(t->connections ? t->connections : NBD_CONNS,
					 NBD_CONNS_MAX);
	p->again.fire = open_again;
	for (unsigned i = 0; i < NBD_CONNS_MAX; i++) {
		p->conns[i].peer = p;
		p->conns[i].timer.fire = out_of_patience;
	}
	if (!p->commands || !p->zeroes.at) {
		free(p->commands);
		free(p->zeroes.at);
		free(p);
		return err_sys(e, -ENOMEM, "NBD");
	}
	*ret = &p->peer;
	conn_start(&p->conns[0]);
	return 0;
}

const struct net_peer_ops net_nbd_ops = {
	.open = nbd_peer_open,
	.room = nbd_room,
	.submit = nbd_submit,
	.cancel = nbd_cancel,
	.zeroes = nbd_zeroes,
	.close = nbd_peer_close,
};
