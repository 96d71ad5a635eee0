/* SPDX-License-Identifier: Apache-2.0 */
/* See vsock_mux.h. Numbers in comments are sections of virtio 1.2. */
#include "vmm/virtio/vsock_mux.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/time.h"

/* The guest is told of its room when it has grown by so much. */
#define CREDIT_STEP (VSOCK_BUFFER_BYTES / 4)
/* After an accept that found no descriptor or memory; nobody tells when there is some. */
#define ACCEPT_PAUSE_NS (200 * NS_PER_MS)
#define BOTH (VSOCK_NO_RECEIVE | VSOCK_NO_SEND)

_Static_assert(VSOCK_PATH_MAX + sizeof("_4294967295") - 1 <=
		       sizeof(((struct sockaddr_un *)0)->sun_path), "each path fits");

/* As far as the guest's time has come at the last look. */
static uint64_t patience(const struct vsock_mux *m)
{
	return m->ran_ns + VSOCK_PATIENCE_MS * NS_PER_MS;
}

/* A look that comes late tells nothing of what the guest could do meanwhile. */
static void count_time(struct vsock_mux *m)
{
	uint64_t now = monotonic_ns();
	bool stands = m->pause.stands && m->pause.stands(m->pause.ctx);

	if (!stands && !m->stood)
		m->ran_ns += min_u64(now - m->looked_ns, VSOCK_LOOK_MS * NS_PER_MS);
	m->looked_ns = now;
	m->stood = stands;
}

/* ---- the table ---- */

static struct vsock_connection *find(struct vsock_mux *m, uint32_t host_port, uint32_t guest_port)
{
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		struct vsock_connection *c = &m->connections[i];

		if (c->state > VSOCK_GREETS && c->host_port == host_port &&
		    c->guest_port == guest_port)
			return c;
	}
	return NULL;
}

static struct vsock_connection *find_free(struct vsock_mux *m)
{
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		if (m->connections[i].state == VSOCK_FREE)
			return &m->connections[i];
	return NULL;
}

static void begin(struct vsock_mux *m, struct vsock_connection *c, enum vsock_state state, int fd)
{
	*c = (struct vsock_connection){.state = state, .fd = fd, .deadline_ns = NS_NEVER};
	m->count.open++;
}

static void end(struct vsock_mux *m, struct vsock_connection *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->buffer);
	*c = (struct vsock_connection){.state = VSOCK_FREE, .fd = -1};
	m->count.open--;
}

/* 5.10.6.4.2: to be told that there is no such connection. One that is not told finds out. */
static void tell_reset(struct vsock_mux *m, uint32_t host_port, uint32_t guest_port)
{
	if (m->resets_count < VSOCK_RESETS_MAX)
		m->resets[m->resets_count++] = (struct vsock_ports){host_port, guest_port};
}

static void reset(struct vsock_mux *m, struct vsock_connection *c)
{
	tell_reset(m, c->host_port, c->guest_port);
	end(m, c);
}

static void punish(struct vsock_mux *m, struct vsock_connection *c)
{
	m->count.resets++;
	reset(m, c);
}

static bool port_is_used(const struct vsock_mux *m, uint32_t port)
{
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		if (m->connections[i].state > VSOCK_GREETS && m->connections[i].host_port == port)
			return true;
	return false;
}

static uint32_t fresh_port(struct vsock_mux *m)
{
	uint32_t port;

	do {
		port = m->next_port;
		m->next_port = port == VSOCK_LAST_PORT ? VSOCK_FIRST_PORT : port + 1;
	} while (port_is_used(m, port));
	return port;
}

/* ---- from the guest to the socket ---- */

static uint32_t buffered(const struct vsock_connection *c)
{
	return c->received - c->forwarded;
}

/* Its host's end is gone. What waits for that is lost, what the guest was sent is not. */
static void host_gone(struct vsock_mux *m, struct vsock_connection *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->forwarded = c->received;
	c->host_shut = BOTH;
	c->readable = false;
	c->state = VSOCK_LEAVES;
	c->deadline_ns = patience(m);
}

/*
 * Its host's end takes no more, as its program has gone or said so (SHUT_RD): what waits for that
 * is lost, what the program has sent, or sends yet, is not.
 */
static void host_is_deaf(struct vsock_mux *m, struct vsock_connection *c, int error)
{
	bool failed = error != EPIPE && error != ECONNRESET;

	c->forwarded = c->received;
	if (c->state == VSOCK_DRAINS)
		return;
	if (failed || (c->host_shut & VSOCK_NO_SEND) || (c->guest_shut & VSOCK_NO_RECEIVE)) {
		host_gone(m, c);
		return;
	}
	c->host_shut |= VSOCK_NO_RECEIVE;
	c->readable = true;
}

/* 5.10.6.5: both directions are over and the guest's last byte has gone on: that is the end. */
static void finish(struct vsock_mux *m, struct vsock_connection *c)
{
	if (buffered(c) > 0)
		return;
	if (c->state == VSOCK_DRAINS) {
		end(m, c);
		return;
	}
	if ((c->guest_shut & VSOCK_NO_SEND) && !c->has_shut_write && c->fd >= 0) {
		(void)shutdown(c->fd, SHUT_WR);
		c->has_shut_write = true;
	}
	if (c->guest_shut == BOTH)
		reset(m, c);
}

static void flush(struct vsock_mux *m, struct vsock_connection *c)
{
	while (c->fd >= 0 && buffered(c) > 0) {
		uint32_t at = c->forwarded % VSOCK_BUFFER_BYTES;
		uint32_t n = (uint32_t)min_u64(buffered(c), VSOCK_BUFFER_BYTES - at);
		ssize_t sent = send(c->fd, c->buffer + at, n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN)
			host_is_deaf(m, c, errno);
		if (sent < 0)
			break;
		c->forwarded += (uint32_t)sent;
		m->count.from_guest += (uint64_t)sent;
	}
	if (c->forwarded - c->told >= CREDIT_STEP)
		c->says_credit = true;
	finish(m, c);
}

static void buffer_put(struct vsock_connection *c, const unsigned char *data, uint32_t len)
{
	uint32_t at = c->received % VSOCK_BUFFER_BYTES;
	uint32_t first = (uint32_t)min_u64(len, VSOCK_BUFFER_BYTES - at);

	memcpy(c->buffer + at, data, first);
	memcpy(c->buffer, data + first, len - first);
	c->received += len;
}

/* ---- packets of the guest's ---- */

static int dial(const struct vsock_mux *m, uint32_t port)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	(void)snprintf(a.sun_path, sizeof(a.sun_path), "%s_%u", m->path, port);
	if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void take_credit(struct vsock_connection *c, const struct vsock_header *h)
{
	if (h->buf_alloc != c->peer_buf_alloc || h->fwd_cnt != c->peer_fwd_cnt)
		c->asked_credit = false;
	c->peer_buf_alloc = h->buf_alloc;
	c->peer_fwd_cnt = h->fwd_cnt;
}

static void take_request(struct vsock_mux *m, const struct vsock_header *h)
{
	struct vsock_connection *c = find_free(m);
	int fd = c ? dial(m, h->dst_port) : -1;

	if (fd < 0) {
		m->count.refused++;
		tell_reset(m, h->dst_port, h->src_port);
		return;
	}
	begin(m, c, VSOCK_OPEN, fd);
	c->host_port = h->dst_port;
	c->guest_port = h->src_port;
	c->says_response = true;
	take_credit(c, h);
	m->count.opened++;
}

static void take_response(struct vsock_mux *m, struct vsock_connection *c)
{
	char text[VSOCK_GREETING_BYTES];
	int n = snprintf(text, sizeof(text), "OK %u\n", c->host_port);

	if (c->state != VSOCK_REQUESTED) {
		punish(m, c);
		return;
	}
	if (send(c->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n) {
		reset(m, c);
		return;
	}
	c->state = VSOCK_OPEN;
	c->deadline_ns = NS_NEVER;
	m->count.opened++;
}

static void take_data(struct vsock_mux *m, struct vsock_connection *c,
		      const struct vsock_header *h, const void *data)
{
	bool may = (c->state == VSOCK_OPEN || c->state == VSOCK_LEAVES) &&
		   !(c->guest_shut & VSOCK_NO_SEND);

	if (!may || h->len > VSOCK_BUFFER_BYTES - buffered(c)) {
		punish(m, c);
		return;
	}
	if (c->host_shut & VSOCK_NO_RECEIVE) { /* it may not know yet */
		c->received += h->len;
		c->forwarded = c->received;
		flush(m, c);
		return;
	}
	if (!c->buffer)
		c->buffer = malloc(VSOCK_BUFFER_BYTES);
	if (!c->buffer) {
		reset(m, c);
		return;
	}
	buffer_put(c, data, h->len);
	flush(m, c);
}

static void take_shutdown(struct vsock_mux *m, struct vsock_connection *c,
			  const struct vsock_header *h)
{
	if (c->state == VSOCK_REQUESTED) {
		punish(m, c);
		return;
	}
	c->guest_shut |= h->flags & BOTH;
	if (c->guest_shut & VSOCK_NO_RECEIVE)
		c->readable = false;
	if (c->guest_shut == BOTH && c->deadline_ns == NS_NEVER)
		c->deadline_ns = patience(m);
	flush(m, c);
}

/*
 * What it sent last may still be on its way to the host's program: Linux forgets a connection that
 * it closed after 8 s without an answer. What that program sends is for nobody.
 */
static void take_rst(struct vsock_mux *m, struct vsock_connection *c)
{
	m->count.refused += c->state == VSOCK_REQUESTED;
	c->state = VSOCK_DRAINS;
	c->deadline_ns = min_u64(c->deadline_ns, patience(m));
	if (buffered(c) > 0)
		(void)shutdown(c->fd, SHUT_RD);
	flush(m, c);
}

static void take_for(struct vsock_mux *m, struct vsock_connection *c,
		     const struct vsock_header *h, const void *data)
{
	take_credit(c, h);
	switch (h->op) {
	case VSOCK_RESPONSE:
		take_response(m, c);
		break;
	case VSOCK_RST:
		take_rst(m, c);
		break;
	case VSOCK_SHUTDOWN:
		take_shutdown(m, c, h);
		break;
	case VSOCK_RW:
		take_data(m, c, h, data);
		break;
	case VSOCK_CREDIT_UPDATE:
		break;
	case VSOCK_CREDIT_REQUEST:
		c->says_credit = true;
		break;
	default: /* a second request among them */
		punish(m, c);
		break;
	}
}

/* From this guest, to this host: others are not ours to answer. */
static bool is_ours(const struct vsock_mux *m, const struct vsock_header *h)
{
	return h->src_cid == m->cid && h->dst_cid == VSOCK_HOST_CID;
}

uint32_t vsock_mux_wants_data(struct vsock_mux *m, const struct vsock_header *h)
{
	if (!is_ours(m, h) || h->op != VSOCK_RW || h->len > VSOCK_BUFFER_BYTES ||
	    !find(m, h->dst_port, h->src_port))
		return 0;
	return h->len;
}

void vsock_mux_take(struct vsock_mux *m, const struct vsock_header *h, const void *data)
{
	struct vsock_connection *c;

	m->driven = true;
	if (!is_ours(m, h))
		return;
	c = h->type == VSOCK_STREAM ? find(m, h->dst_port, h->src_port) : NULL;
	if (c)
		take_for(m, c, h, data);
	else if (h->op == VSOCK_REQUEST && h->type == VSOCK_STREAM)
		take_request(m, h);
	else if (h->op != VSOCK_RST) /* 5.10.6.4.2, and no answer to an answer */
		tell_reset(m, h->dst_port, h->src_port);
}

/* ---- packets for the guest ---- */

/* Wherever the guest's counters stand: it has no less than no room. */
static uint32_t room_of(const struct vsock_connection *c)
{
	uint32_t in_flight = c->sent - c->peer_fwd_cnt;

	return in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight : 0;
}

static bool has_data(const struct vsock_connection *c)
{
	return c->state == VSOCK_OPEN && c->readable && !c->says_response &&
	       !(c->guest_shut & VSOCK_NO_RECEIVE) && room_of(c) > 0;
}

/* The end of what the host sends is known only once its socket has no more for the guest. */
static bool says_shutdown(const struct vsock_connection *c)
{
	return c->host_shut & (uint8_t)~c->shut_told;
}

static bool connection_pending(const struct vsock_connection *c)
{
	if (c->state <= VSOCK_GREETS)
		return false;
	return c->says_request || c->says_response || c->says_credit || c->asks_credit ||
	       has_data(c) || (c->state >= VSOCK_OPEN && says_shutdown(c));
}

bool vsock_mux_pending(const struct vsock_mux *m)
{
	if (m->resets_count > 0)
		return true;
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		if (connection_pending(&m->connections[i]))
			return true;
	return false;
}

static void fill(const struct vsock_mux *m, struct vsock_connection *c, enum vsock_op op,
		 struct vsock_header *ret)
{
	*ret = (struct vsock_header){
		.src_cid = VSOCK_HOST_CID,
		.dst_cid = m->cid,
		.src_port = c->host_port,
		.dst_port = c->guest_port,
		.type = VSOCK_STREAM,
		.op = (uint16_t)op,
		.buf_alloc = VSOCK_BUFFER_BYTES,
		.fwd_cnt = c->forwarded,
	};
	/* Each packet tells of the room. */
	c->told = c->forwarded;
	c->says_credit = false;
}

static bool next_reset(struct vsock_mux *m, struct vsock_header *ret)
{
	struct vsock_ports p = m->resets[--m->resets_count];

	*ret = (struct vsock_header){
		.src_cid = VSOCK_HOST_CID,
		.dst_cid = m->cid,
		.src_port = p.host_port,
		.dst_port = p.guest_port,
		.type = VSOCK_STREAM,
		.op = VSOCK_RST,
	};
	return true;
}

/* The host's program sends no more; or it is gone, which its socket shows by an error. */
static void host_ended(struct vsock_mux *m, struct vsock_connection *c, bool gone)
{
	c->readable = false;
	c->host_shut |= VSOCK_NO_SEND;
	if (gone)
		host_gone(m, c);
}

static bool is_gone(int fd)
{
	struct pollfd p = {.fd = fd};

	return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR);
}

static bool next_data(struct vsock_mux *m, struct vsock_connection *c, uint32_t room,
		      struct vsock_header *ret)
{
	size_t want = (size_t)min_u64(min_u64(room, room_of(c)), VSOCK_PACKET_BYTES);
	ssize_t n = recv(c->fd, m->packet, want, MSG_DONTWAIT);

	if (n <= 0) {
		if (n == 0)
			host_ended(m, c, is_gone(c->fd));
		else if (errno == EAGAIN)
			c->readable = false;
		else if (errno != EINTR)
			host_ended(m, c, true);
		return false;
	}
	fill(m, c, VSOCK_RW, ret);
	ret->len = (uint32_t)n;
	c->sent += (uint32_t)n;
	m->count.to_guest += (uint64_t)n;
	if (room_of(c) == 0 && !c->asked_credit)
		c->asks_credit = c->asked_credit = true;
	return true;
}

static bool next_shutdown(struct vsock_mux *m, struct vsock_connection *c,
			  struct vsock_header *ret)
{
	fill(m, c, VSOCK_SHUTDOWN, ret);
	ret->flags = c->host_shut;
	c->shut_told = c->host_shut;
	return true;
}

static bool next_of(struct vsock_mux *m, struct vsock_connection *c, uint32_t room,
		    struct vsock_header *ret)
{
	if (c->says_request) {
		fill(m, c, VSOCK_REQUEST, ret);
		c->says_request = false;
	} else if (c->says_response) {
		fill(m, c, VSOCK_RESPONSE, ret);
		c->says_response = false;
	} else if (c->says_credit) {
		fill(m, c, VSOCK_CREDIT_UPDATE, ret);
	} else if (c->asks_credit) {
		fill(m, c, VSOCK_CREDIT_REQUEST, ret);
		c->asks_credit = false;
	} else if (has_data(c)) {
		return room > 0 && next_data(m, c, room, ret);
	} else {
		return next_shutdown(m, c, ret);
	}
	return true;
}

bool vsock_mux_next(struct vsock_mux *m, uint32_t room, struct vsock_header *ret)
{
	if (m->resets_count > 0)
		return next_reset(m, ret);
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		struct vsock_connection *c =
			&m->connections[(m->turn + i) % VSOCK_CONNECTIONS_MAX];

		while (connection_pending(c)) {
			bool readable = c->readable;

			if (next_of(m, c, room, ret)) {
				m->turn = (m->turn + i + 1) % VSOCK_CONNECTIONS_MAX;
				return true;
			}
			/* The next of its packets, unless nothing has changed. */
			if (c->readable == readable)
				break;
		}
	}
	return false;
}

/* ---- the host's programs ---- */

/* 0: not yet; -1: no greeting; 1: and the port. */
static int parse_greeting(const char *text, size_t len, uint32_t *ret_port)
{
	static const char word[] = "CONNECT ";
	const char *newline = memchr(text, '\n', len);
	char digits[VSOCK_GREETING_BYTES];
	unsigned long long port;
	size_t n;
	char *stop;

	if (!newline)
		return len < VSOCK_GREETING_BYTES ? 0 : -1;
	n = (size_t)(newline - text);
	if (n <= sizeof(word) - 1 || strncasecmp(text, word, sizeof(word) - 1) != 0)
		return -1;
	n -= sizeof(word) - 1;
	memcpy(digits, text + sizeof(word) - 1, n);
	digits[n] = '\0';
	if (digits[0] < '0' || digits[0] > '9')
		return -1;
	errno = 0;
	port = strtoull(digits, &stop, 10);
	if (errno || *stop || port >= UINT32_MAX) /* -1 is no port */
		return -1;
	*ret_port = (uint32_t)port;
	return 1;
}

/* What comes behind the line stays in the socket, for the guest; pieces of it do not. */
static void greet(struct vsock_mux *m, struct vsock_connection *c)
{
	char *at = c->greeting + c->greeting_len;
	ssize_t n = recv(c->fd, at, VSOCK_GREETING_BYTES - c->greeting_len,
			 MSG_PEEK | MSG_DONTWAIT);
	const char *newline = n > 0 ? memchr(at, '\n', (size_t)n) : NULL;
	uint32_t port = 0;
	int got = -1;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (newline)
		n = newline + 1 - at;
	if (n > 0 && recv(c->fd, at, (size_t)n, MSG_DONTWAIT) == n) {
		c->greeting_len += (uint8_t)n;
		got = parse_greeting(c->greeting, c->greeting_len, &port);
	}
	if (got == 0)
		return;
	if (got < 0 || !m->driven) {
		m->count.refused++;
		end(m, c);
		return;
	}
	c->state = VSOCK_REQUESTED;
	c->host_port = fresh_port(m);
	c->guest_port = port;
	c->says_request = true;
	c->deadline_ns = patience(m);
}

static void accept_one(struct vsock_mux *m)
{
	struct vsock_connection *c = find_free(m);
	int fd = accept4(m->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		/* The next poll would say again at once that somebody waits. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			m->accept_ns = monotonic_ns() + ACCEPT_PAUSE_NS;
		return;
	}
	ASSERT(c);
	begin(m, c, VSOCK_GREETS, fd);
	c->deadline_ns = monotonic_ns() + VSOCK_PATIENCE_MS * NS_PER_MS;
	greet(m, c);
}

static short wanted(const struct vsock_mux *m, const struct vsock_connection *c)
{
	short events = buffered(c) > 0 ? POLLOUT : 0;

	if (c->state == VSOCK_GREETS)
		return POLLIN;
	if (c->state == VSOCK_OPEN && !c->readable && !m->no_room && room_of(c) > 0 &&
	    !(c->host_shut & VSOCK_NO_SEND) && !(c->guest_shut & VSOCK_NO_RECEIVE))
		events |= POLLIN;
	return events;
}

static void serve(struct vsock_mux *m, struct vsock_connection *c, short events)
{
	if (c->state == VSOCK_GREETS) {
		greet(m, c);
		return;
	}
	if (events & (POLLIN | POLLHUP | POLLERR) && (wanted(m, c) & POLLIN))
		c->readable = true;
	if (events & (POLLOUT | POLLHUP | POLLERR) && buffered(c) > 0)
		flush(m, c);
}

static void expire(struct vsock_mux *m)
{
	uint64_t now = monotonic_ns();

	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		struct vsock_connection *c = &m->connections[i];

		if (c->state == VSOCK_GREETS && c->deadline_ns <= now) {
			m->count.refused++;
			end(m, c);
		} else if (c->state == VSOCK_DRAINS && c->deadline_ns <= m->ran_ns) {
			end(m, c);
		} else if (c->state > VSOCK_GREETS && c->deadline_ns <= m->ran_ns) {
			m->count.refused += c->state == VSOCK_REQUESTED;
			reset(m, c);
		}
	}
}

static uint64_t left(uint64_t until, uint64_t now)
{
	return until > now ? until - now : 0;
}

static int timeout_of(const struct vsock_mux *m, int timeout_ms)
{
	const uint64_t step = VSOCK_LOOK_MS * NS_PER_MS;
	bool paused = m->accept_ns > m->looked_ns;
	uint64_t next = paused ? m->accept_ns - m->looked_ns : NS_NEVER, ms;

	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		const struct vsock_connection *c = &m->connections[i];

		if (c->state == VSOCK_FREE || c->deadline_ns == NS_NEVER)
			continue;
		if (c->state == VSOCK_GREETS)
			next = min_u64(next, left(c->deadline_ns, m->looked_ns));
		else
			next = min_u64(next, m->stood ? step
					     : min_u64(step, left(c->deadline_ns, m->ran_ns)));
	}
	if (next == NS_NEVER)
		return timeout_ms;
	ms = next ? next / NS_PER_MS + 1 : 0;
	return timeout_ms < 0 || ms < (uint64_t)timeout_ms ? (int)ms : timeout_ms;
}

void vsock_mux_poll(struct vsock_mux *m, int wake_fd, int timeout_ms)
{
	struct pollfd *p = m->polled;
	unsigned char ticks[8];
	bool accepts;

	count_time(m);
	accepts = m->accept_ns <= m->looked_ns && find_free(m);
	p[0] = (struct pollfd){.fd = wake_fd, .events = POLLIN};
	/* Who cannot be taken waits in the socket's queue, which is bounded. */
	p[1] = (struct pollfd){.fd = accepts ? m->listen_fd : -1, .events = POLLIN};
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		struct vsock_connection *c = &m->connections[i];
		short events = c->state == VSOCK_FREE || c->fd < 0 ? 0 : wanted(m, c);

		/* What hangs up is told whether asked for or not: of what can wait it is not. */
		p[2 + i] = (struct pollfd){.fd = events ? c->fd : -1, .events = events};
	}
	if (poll(p, ARRAY_LEN(m->polled), timeout_of(m, timeout_ms)) > 0) {
		if (p[0].revents)
			(void)!read(wake_fd, ticks, sizeof(ticks));
		for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
			if (p[2 + i].revents)
				serve(m, &m->connections[i], p[2 + i].revents);
		if (p[1].revents & POLLIN)
			accept_one(m);
	}
	count_time(m);
	expire(m);
}

/* ---- up and down ---- */

void vsock_mux_init(struct vsock_mux *m, uint32_t cid, const char *path, int listen_fd,
		    struct vsock_pause pause)
{
	memset(m, 0, sizeof(*m));
	ASSERT(strlen(path) < sizeof(m->path));
	memcpy(m->path, path, strlen(path));
	m->cid = cid;
	m->listen_fd = listen_fd;
	m->next_port = VSOCK_FIRST_PORT;
	m->no_room = true;
	m->pause = pause;
	m->looked_ns = monotonic_ns();
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		m->connections[i].fd = -1;
}

void vsock_mux_fini(struct vsock_mux *m)
{
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		if (m->connections[i].state != VSOCK_FREE)
			end(m, &m->connections[i]);
}

void vsock_mux_reset(struct vsock_mux *m)
{
	vsock_mux_fini(m);
	m->resets_count = 0;
	m->driven = false;
	m->no_room = true;
}
