/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client's side of the control server: what it is answered. Room for its longest answer is its
 * own, so that a client that does not read can hold up itself alone.
 */
#include "vmm/control/control_parts.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"

void control_peer_put(struct control_peer *p, const char *text, size_t len)
{
	ASSERT(len <= sizeof(p->out) - p->out_len);
	memcpy(p->out + p->out_len, text, len);
	p->out_len += len;
}

static void put_line(struct control_peer *p, const char *word, const char *text)
{
	control_peer_put(p, word, strlen(word));
	control_peer_put(p, text, strlen(text));
	control_peer_put(p, "\n", 1);
}

void control_peer_failed(struct control_peer *p, const struct err *e)
{
	put_line(p, "error ", e->text);
}

void control_peer_refuse(struct control_peer *p, const char *text)
{
	put_line(p, "error ", text);
	p->state = PEER_CLOSING;
}

void control_peer_put_status(struct control *c, struct control_peer *p)
{
	char text[CONTROL_ANSWER_MAX];

	memset(&c->status, 0, sizeof(c->status));
	c->ops->status(c->ctx, &c->status);
	if (c->ops->shared)
		c->ops->shared(c->ctx, &c->status);
	control_peer_put(p, text, control_status_format(&c->status, text));
}

void control_peer_done(struct control *c, struct control_peer *p)
{
	control_peer_put_status(c, p);
	control_peer_put(p, "ok\n", 3);
}

void control_fds_close(int fds[static CONTROL_SNAPSHOT_FDS])
{
	for (unsigned i = 0; i < CONTROL_SNAPSHOT_FDS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

void control_peer_drop(struct control *c, struct control_peer *p)
{
	/* Nobody waits for the job any more: Ctrl-C of its client ends it. */
	if (p->state == PEER_WAITING)
		atomic_store(&c->job.cancel, true);
	close(p->fd);
	control_fds_close(p->fds);
	p->state = PEER_FREE;
}

bool control_peer_flush(struct control *c, struct control_peer *p)
{
	while (p->out_sent < p->out_len) {
		ssize_t n = send(p->fd, p->out + p->out_sent, p->out_len - p->out_sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			control_peer_drop(c, p);
		if (n < 0)
			return false;
		p->out_sent += (size_t)n;
	}
	p->out_sent = p->out_len = 0;
	return true;
}
