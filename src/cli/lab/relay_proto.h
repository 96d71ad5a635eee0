/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames between the lab and the host, pure: bytes of the port into what is to be done
 * for a connection, what its server says into bytes for the port, and the state of every
 * connection. Sockets and port are cmd_lab_relay.c's; the frames are described in
 * tools/lab_parts/relay.py.
 *
 * Test: tests/fuzz/relay_fuzz.c.
 */
#ifndef CLI_RELAY_PROTO_H
#define CLI_RELAY_PROTO_H

#include "base/types.h"

/* More than the server has places: whom it turns away, it tells so itself. */
#define RELAY_CONNECTIONS_MAX 32u
#define RELAY_HEAD_BYTES 4u /* type, connection, length (2) */
#define RELAY_DATA_BYTES_MAX 4096u
#define RELAY_FRAME_BYTES_MAX (RELAY_HEAD_BYTES + RELAY_DATA_BYTES_MAX)

/* READY: only from here, of no connection, and once. */
enum relay_type { RELAY_OPEN = 1, RELAY_DATA = 2, RELAY_END = 3, RELAY_READY = 4 };

struct relay_frame {
	enum relay_type type;
	unsigned connection; /* below RELAY_CONNECTIONS_MAX */
	size_t len;          /* of the data */
	unsigned char data[RELAY_DATA_BYTES_MAX];
};

enum relay_state {
	RELAY_FREE,       /* the host may open it */
	RELAY_BOTH,       /* both sides may send */
	RELAY_HOST_ENDED, /* only we may */
	RELAY_LAB_ENDED,  /* only the host may, and nobody is told */
};

/* All zeroes at first: no connection. */
struct relay {
	enum relay_state state[RELAY_CONNECTIONS_MAX];
	/* From the host: the owner appends at in + in_bytes, and adds to in_bytes. */
	size_t in_bytes;
	unsigned char in[RELAY_FRAME_BYTES_MAX];
	/* For the host: the owner sends from the beginning, and says so by relay_sent(). */
	size_t out_bytes;
	unsigned char out[16 * RELAY_FRAME_BYTES_MAX];
};

/* May one more frame be said to the host? */
static inline bool relay_has_room(const struct relay *r)
{
	return sizeof(r->out) - r->out_bytes >= RELAY_FRAME_BYTES_MAX;
}

/* Is there a server to be read, and to be told what comes? */
static inline bool relay_has_server(const struct relay *r, unsigned n)
{
	return r->state[n] == RELAY_BOTH || r->state[n] == RELAY_HOST_ENDED;
}

/*
 * Takes the oldest frame that is of interest to a server: connect to it, tell it the data, or
 * that no more comes. 1: then there is room for the answer that it failed, relay_end(); 0: no
 * whole frame, and more can be appended, or no room; -EPROTO: the host may not send what came,
 * now or ever. After that, nothing more can be taken.
 */
int relay_take(struct relay *r, struct relay_frame *ret);

/* There is a server from now on. Needs room. */
void relay_ready(struct relay *r);

/* The server has said something: 1 to RELAY_DATA_BYTES_MAX bytes. Needs a server and room. */
void relay_data(struct relay *r, unsigned n, const void *data, size_t len);

/* The server says no more, or there is none, or it failed. Needs a server and room. */
void relay_end(struct relay *r, unsigned n);

/* The first bytes of what is for the host have gone. */
void relay_sent(struct relay *r, size_t bytes);

#endif
