/* SPDX-License-Identifier: Apache-2.0 */
/* See relay_proto.h. */
#include "cli/lab/relay_proto.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

/* Looked at as soon as the head is there: a body that may not come is not waited for. */
static bool may_come(const struct relay *r, unsigned type, unsigned n, size_t len)
{
	if (n >= RELAY_CONNECTIONS_MAX)
		return false;

	bool host_sends = r->state[n] == RELAY_BOTH || r->state[n] == RELAY_LAB_ENDED;

	switch (type) {
	case RELAY_OPEN:
		return len == 0 && r->state[n] == RELAY_FREE;
	case RELAY_DATA:
		return len <= RELAY_DATA_BYTES_MAX && host_sends;
	case RELAY_END:
		return len == 0 && host_sends;
	}
	return false;
}

/* Follows a frame that may come. True: a server is to be told. */
static bool follow(struct relay *r, const struct relay_frame *f)
{
	enum relay_state *state = &r->state[f->connection];
	bool lab_ended = *state == RELAY_LAB_ENDED;

	if (f->type == RELAY_OPEN)
		*state = RELAY_BOTH;
	else if (f->type == RELAY_END)
		*state = lab_ended ? RELAY_FREE : RELAY_HOST_ENDED;
	return !lab_ended;
}

int relay_take(struct relay *r, struct relay_frame *ret)
{
	while (r->in_bytes >= RELAY_HEAD_BYTES && relay_has_room(r)) {
		unsigned type = r->in[0], n = r->in[1];
		size_t len = r->in[2] | (size_t)r->in[3] << 8;

		if (!may_come(r, type, n, len))
			return -EPROTO;
		if (r->in_bytes < RELAY_HEAD_BYTES + len)
			break;
		ret->type = type;
		ret->connection = n;
		ret->len = len;
		memcpy(ret->data, r->in + RELAY_HEAD_BYTES, len);
		r->in_bytes -= RELAY_HEAD_BYTES + len;
		memmove(r->in, r->in + RELAY_HEAD_BYTES + len, r->in_bytes);
		if (follow(r, ret))
			return 1;
	}
	return 0;
}

static void put(struct relay *r, enum relay_type type, unsigned n, const void *data, size_t len)
{
	unsigned char *to = r->out + r->out_bytes;

	ASSERT(len <= RELAY_DATA_BYTES_MAX && relay_has_room(r));
	to[0] = (unsigned char)type;
	to[1] = (unsigned char)n;
	to[2] = (unsigned char)len;
	to[3] = (unsigned char)(len >> 8);
	if (len)
		memcpy(to + RELAY_HEAD_BYTES, data, len);
	r->out_bytes += RELAY_HEAD_BYTES + len;
}

static void say(struct relay *r, enum relay_type type, unsigned n, const void *data, size_t len)
{
	ASSERT(n < RELAY_CONNECTIONS_MAX && relay_has_server(r, n));
	put(r, type, n, data, len);
}

void relay_ready(struct relay *r)
{
	put(r, RELAY_READY, 0, NULL, 0);
}

void relay_data(struct relay *r, unsigned n, const void *data, size_t len)
{
	say(r, RELAY_DATA, n, data, len);
}

void relay_end(struct relay *r, unsigned n)
{
	say(r, RELAY_END, n, NULL, 0);
	r->state[n] = r->state[n] == RELAY_BOTH ? RELAY_LAB_ENDED : RELAY_FREE;
}

void relay_sent(struct relay *r, size_t bytes)
{
	ASSERT(bytes <= r->out_bytes);
	r->out_bytes -= bytes;
	memmove(r->out, r->out + bytes, r->out_bytes);
}
