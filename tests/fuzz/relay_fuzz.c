/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the frames of the lab's relay: a host that sends whatever it likes, in
 * pieces of any size, reads when it likes, and servers that speak, end and fail meanwhile. A
 * byte chooses the step and the connection, more say what it needs.
 *
 * What must hold: a server is told what the host has sent it while it was there, and nothing
 * else; the host is refused exactly where it breaks the rules of tools/lab_parts/relay.py; and
 * it gets whole frames, for connections that it has opened, with each byte that their servers
 * said and one END. All numbers here are those rules' own.
 */
#include <errno.h>

#include "bytes.h"
#include "cli/lab/relay_proto.h"

#define NUMBERS 32u
#define HEAD 4u
#define DATA_MAX 4096u
#define WIRE_MAX (256u << 10)

enum step {
	STEP_HOST_OPEN,
	STEP_HOST_DATA,  /* 2 bytes: how much */
	STEP_HOST_END,
	STEP_HOST_BYTES, /* 1 byte: how many, and they */
	STEP_SAY,        /* 2 bytes: how much a server says */
	STEP_LEAVE,      /* it ends, or has failed */
	STEP_FAILING,    /* from now on what it is told fails; or no longer */
	STEP_CARRY,      /* 2 bytes: how much, to the host if the connection is odd */
};

struct line {
	bool from_host, from_lab; /* may still come */
	unsigned opened, ended;   /* how often it was; an END that the host has read */
	uint64_t said, heard;     /* bytes of its servers; the host's count of them */
};

struct world {
	struct relay r;
	uint8_t wire[WIRE_MAX]; /* all that the host sends */
	size_t sent, carried, understood;
	uint8_t heard[HEAD + DATA_MAX]; /* of the frame that the host is reading */
	size_t heard_bytes;
	uint64_t out_bytes; /* that the host has not read */
	unsigned failing;   /* a bit each */
	bool refused;
	struct line lines[NUMBERS];
};

/* The at-th byte that the servers of a number say. */
static uint8_t byte_of(unsigned n, unsigned opened, uint64_t at)
{
	return (uint8_t)(n * 37 + opened * 11 + at + (at >> 8) * 3);
}

static bool has_room(const struct world *w)
{
	return sizeof(w->r.out) - w->out_bytes >= HEAD + DATA_MAX;
}

/* ---- from the host ---- */

/* What relay_take() must answer: 1 with a frame in the wire; 0; or -EPROTO. */
UNFOLLOWED static int understand(struct world *w, const uint8_t **ret_frame)
{
	while (has_room(w) && w->carried - w->understood >= HEAD) {
		const uint8_t *f = w->wire + w->understood;
		size_t len = f[2] + 256u * f[3];
		struct line *l = &w->lines[f[1] % NUMBERS];

		if (f[0] < 1 || f[0] > 3 || f[1] >= NUMBERS || len > (f[0] == 2 ? DATA_MAX : 0))
			return -EPROTO;
		if (f[0] == 1 ? l->from_host || l->from_lab : !l->from_host)
			return -EPROTO;
		if (w->carried - w->understood < HEAD + len)
			return 0;
		w->understood += HEAD + len;
		if (f[0] == 1) {
			l->opened++;
			l->from_lab = true;
		}
		l->from_host = f[0] != 3;
		*ret_frame = f;
		if (l->from_lab)
			return 1;
	}
	return 0;
}

static void leave(struct world *w, unsigned n)
{
	if (!w->lines[n].from_lab || !has_room(w))
		return;
	relay_end(&w->r, n);
	w->lines[n].from_lab = false;
	w->out_bytes += HEAD;
}

static void take_frames(struct world *w)
{
	struct relay_frame f;
	const uint8_t *want;
	int rc;

	while ((rc = understand(w, &want)) > 0) {
		must(relay_take(&w->r, &f) == 1);
		must(f.type == want[0] && f.connection == want[1]);
		must(f.len == want[2] + 256u * want[3] && memcmp(f.data, want + HEAD, f.len) == 0);
		if (f.type != RELAY_END && w->failing >> f.connection & 1)
			leave(w, f.connection);
	}
	must(relay_take(&w->r, &f) == rc && relay_take(&w->r, &f) == rc);
	w->refused = rc < 0;
	must(w->r.in_bytes == w->carried - w->understood);
	must(rc < 0 || !has_room(w) || w->r.in_bytes < sizeof(w->r.in));
}

static void carry_to_lab(struct world *w, size_t len)
{
	len = min_u64(len, min_u64(w->sent - w->carried, sizeof(w->r.in) - w->r.in_bytes));
	memcpy(w->r.in + w->r.in_bytes, w->wire + w->carried, len);
	w->r.in_bytes += len;
	w->carried += len;
	take_frames(w);
}

static void send_bytes(struct world *w, const void *bytes, size_t len)
{
	len = min_u64(len, WIRE_MAX - w->sent);
	if (len)
		memcpy(w->wire + w->sent, bytes, len);
	w->sent += len;
}

static void send_frame(struct world *w, unsigned type, unsigned n, size_t len)
{
	uint8_t f[HEAD + DATA_MAX] = {(uint8_t)type, (uint8_t)n, (uint8_t)len, (uint8_t)(len >> 8)};

	for (size_t i = 0; i < len; i++)
		f[HEAD + i] = (uint8_t)(w->sent + i * 5);
	send_bytes(w, f, HEAD + len);
}

/* ---- to the host ---- */

static void say(struct world *w, unsigned n, size_t len)
{
	struct line *l = &w->lines[n];
	uint8_t data[DATA_MAX];

	if (!l->from_lab || !has_room(w))
		return;
	for (size_t i = 0; i < len; i++)
		data[i] = byte_of(n, l->opened, l->said++);
	relay_data(&w->r, n, data, len);
	w->out_bytes += HEAD + len;
}

/* How long the frame that the host is reading is, as far as it can know. */
UNFOLLOWED static size_t frame_bytes(const struct world *w)
{
	size_t len = w->heard_bytes < HEAD ? 0 : w->heard[2] + 256u * w->heard[3];

	must(len <= DATA_MAX);
	return HEAD + len;
}

UNFOLLOWED static void hear_frame(struct world *w)
{
	const uint8_t *f = w->heard;
	struct line *l = &w->lines[f[1] % NUMBERS];
	size_t len = w->heard_bytes - HEAD;

	must((f[0] == 2 && len > 0) || (f[0] == 3 && len == 0));
	must(f[1] < NUMBERS && l->ended < l->opened);
	for (size_t i = 0; i < len; i++)
		must(f[HEAD + i] == byte_of(f[1], l->ended + 1, l->heard++));
	l->ended += f[0] == 3;
	w->heard_bytes = 0;
}

UNFOLLOWED static void carry_to_host(struct world *w, size_t len)
{
	must(w->r.out_bytes == w->out_bytes);
	len = min_u64(len, w->r.out_bytes);
	for (size_t at = 0; at < len;) {
		size_t n = min_u64(frame_bytes(w) - w->heard_bytes, len - at);

		memcpy(w->heard + w->heard_bytes, w->r.out + at, n);
		w->heard_bytes += n;
		at += n;
		if (w->heard_bytes >= HEAD && w->heard_bytes == frame_bytes(w))
			hear_frame(w);
	}
	relay_sent(&w->r, len);
	w->out_bytes -= len;
}

/* ---- */

static void take_step(struct world *w, struct bytes *b)
{
	uint8_t choice = take8(b);
	unsigned n = choice >> 4;
	size_t len;

	switch ((enum step)(choice & 7)) {
	case STEP_HOST_OPEN:
		send_frame(w, 1, n, 0);
		break;
	case STEP_HOST_DATA:
		send_frame(w, 2, n, take(b, 2) % (DATA_MAX + 1));
		break;
	case STEP_HOST_END:
		send_frame(w, 3, n, 0);
		break;
	case STEP_HOST_BYTES:
		len = take8(b);
		len = min_u64(len, b->left);
		send_bytes(w, b->at, len);
		b->at += len;
		b->left -= len;
		break;
	case STEP_SAY:
		say(w, n, 1 + take(b, 2) % DATA_MAX);
		break;
	case STEP_LEAVE:
		leave(w, n);
		break;
	case STEP_FAILING:
		w->failing ^= 1u << n;
		break;
	case STEP_CARRY:
		(n & 1 ? carry_to_host : carry_to_lab)(w, take(b, 2));
		break;
	}
}

/* All that is under way arrives, and all servers end. */
static void finish(struct world *w)
{
	size_t before;

	do {
		before = w->carried + w->understood;
		carry_to_host(w, SIZE_MAX);
		carry_to_lab(w, SIZE_MAX);
	} while (!w->refused && w->carried + w->understood != before);
	must(w->refused || w->carried == w->sent);
	for (unsigned n = 0; n < NUMBERS; n++) {
		carry_to_host(w, SIZE_MAX);
		leave(w, n);
	}
	carry_to_host(w, SIZE_MAX);
	must(w->heard_bytes == 0 && w->r.out_bytes == 0);
	for (unsigned n = 0; n < NUMBERS; n++) {
		must(w->lines[n].ended == w->lines[n].opened);
		must(w->lines[n].heard == w->lines[n].said);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = {data, size};
	struct world *w = calloc(1, sizeof(*w));

	must(w != NULL);
	while (b.left && !w->refused)
		take_step(w, &b);
	finish(w);
	free(w);
	return 0;
}
