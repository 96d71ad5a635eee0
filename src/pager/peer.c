/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets that VMMs come to, and what they say there until they are VMs: one JSON text with a
 * userfaultfd beside it, in one message as a rule, in pieces if need be. Whatever else comes is
 * refused in a line, and costs its sender the connection.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pager/internal.h"

/* Descriptors of one message that the kernel is given room for; more are closed by it. */
#define RIGHTS_MAX 16u
/* Where accept fails for want of descriptors or memory, it is left alone this long. */
#define ACCEPT_PAUSE_NS (200 * NS_PER_MS)

static void refuse(struct pgr_peer *peer, const char *why)
{
	struct pgr *p = peer->pager;

	p->status.refused++;
	pgr_say(p, "%s: refused: %s", peer->listener->path, why);
	pgr_peer_end(peer);
}

void pgr_peer_end(struct pgr_peer *peer)
{
	struct pgr *p = peer->pager;
	struct pgr_peer **at = &p->peers;

	while (*at != peer)
		at = &(*at)->next;
	*at = peer->next;
	p->peer_count--;
	timer_cancel(&p->timers, &peer->deadline);
	pgr_watch_end(p, &peer->watch);
	for (uint32_t i = 0; i < peer->fd_count; i++)
		if (peer->fds[i] >= 0)
			close(peer->fds[i]);
	free(peer);
}

static void too_late(struct timer *tm, uint64_t now_ns)
{
	struct pgr_peer *peer = CONTAINER_OF(tm, struct pgr_peer, deadline);

	(void)now_ns;
	refuse(peer, peer->len == 0 ? "it said nothing"
	       : peer->fd_count == 0 ? "no userfaultfd came with what it said"
				     : "it did not say all of it");
}

/* ---- listening ---- */

static void pause_listening(struct pgr *p, struct pgr_listener *l)
{
	int fd = l->watch.fd;

	pgr_watch_leave(p, &l->watch);
	l->watch.fd = fd;
	timer_arm(&p->timers, &l->again, p->now_ns + ACCEPT_PAUSE_NS);
}

void pgr_listen_again(struct timer *tm, uint64_t now_ns)
{
	struct pgr_listener *l = CONTAINER_OF(tm, struct pgr_listener, again);

	if (pgr_watch_add(l->pager, &l->watch) < 0)
		timer_arm(&l->pager->timers, tm, now_ns + ACCEPT_PAUSE_NS);
}

void pgr_accept(struct pgr *p, struct pgr_listener *l)
{
	uint32_t ms = p->cfg.handshake_ms ? p->cfg.handshake_ms : PGR_HANDSHAKE_MS;
	int fd = accept4(l->watch.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct pgr_peer *peer, **at = &p->peers;

	if (fd < 0) {
		/* The next wait would say again at once that somebody waits. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			pause_listening(p, l);
		return;
	}
	if (p->peer_count == PGR_PEERS_MAX)
		refuse(p->peers, "too many that say nothing");
	peer = calloc(1, sizeof(*peer));
	if (!peer) {
		close(fd);
		return;
	}
	peer->watch = (struct pgr_watch){PGR_WATCH_PEER, fd};
	peer->pager = p;
	peer->listener = l;
	peer->deadline.fire = too_late;
	while (*at)
		at = &(*at)->next;
	*at = peer;
	p->peer_count++;
	timer_arm(&p->timers, &peer->deadline, p->now_ns + ms * NS_PER_MS);
	if (pgr_watch_add(p, &peer->watch) < 0)
		refuse(peer, "it cannot be watched: out of memory");
}

/* ---- what is said ---- */

/* Keeps a message's descriptors, and closes those beyond PGR_FDS_MAX. False: there were some. */
static bool keep_fds(struct pgr_peer *peer, const struct msghdr *m)
{
	bool fit = !(m->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR((struct msghdr *)m, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (peer->fd_count < PGR_FDS_MAX) {
				peer->fds[peer->fd_count++] = fd;
			} else {
				close(fd);
				fit = false;
			}
		}
	}
	return fit;
}

static void become_vm(struct pgr_peer *peer, const struct handshake *h)
{
	struct pgr *p = peer->pager;
	int connection = peer->watch.fd, uffd = peer->fds[0];
	struct err e;
	int rc = handshake_fits(h, peer->listener->image->src->size, &e);

	if (rc == 0 && p->vm_count == PGR_VMS_MAX)
		rc = err_set(&e, -ENOSPC, "there are %u VMs already", PGR_VMS_MAX);
	if (rc == 0) {
		/* They are the VM's now. What else a fork has handed over is of no use. */
		pgr_watch_leave(p, &peer->watch);
		peer->fds[0] = -1;
		rc = pgr_vm_begin(p, peer->listener, connection, uffd, h, &e);
	}
	if (rc < 0)
		refuse(peer, e.text);
	else
		pgr_peer_end(peer);
}

/* Acts on what the connection has said so far. */
static void understand(struct pgr_peer *peer)
{
	struct handshake h;
	struct err e;
	int rc = handshake_parse(peer->text, peer->len, &h, &e);

	if (rc == 0 && peer->fd_count > 0)
		become_vm(peer, &h);
	else if (rc == 0 && peer->ended)
		refuse(peer, "no userfaultfd came with what it said");
	else if (rc < 0 && rc != -EAGAIN)
		refuse(peer, e.text);
	else if (peer->ended)
		refuse(peer, peer->len ? "it hung up in the middle" : "it hung up");
	else if (peer->len == sizeof(peer->text))
		refuse(peer, "what it says is too long");
}

void pgr_peer_read(struct pgr_peer *peer)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(RIGHTS_MAX * sizeof(int))];
	} control;
	char more;
	bool full = peer->len == sizeof(peer->text);
	struct iovec to = {full ? &more : peer->text + peer->len,
			   full ? 1 : sizeof(peer->text) - peer->len};
	struct msghdr m = {.msg_iov = &to, .msg_iovlen = 1, .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(peer->watch.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		refuse(peer, "the connection broke");
		return;
	}
	peer->ended = n == 0;
	if (!full)
		peer->len += (size_t)n;
	if (!keep_fds(peer, &m))
		refuse(peer, "more than three descriptors");
	else
		understand(peer);
}
