/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connections between a guest's vsock (virtio 1.2, 5.10) and the host's Unix sockets, by the
 * convention of Firecracker:
 * - a host program connects to PATH, says "CONNECT PORT\n", and hears "OK PORT\n" once the guest's
 *   program has taken it; without one there, the connection is closed;
 * - a guest's program that connects to port N of the host meets who listens at PATH_N.
 * Decides what each packet of the guest's means, which packet the guest is sent next, and what
 * is read from and written to a socket. Credit (5.10.6.3) goes to both sides: of what a guest
 * sends no more than VSOCK_BUFFER_BYTES wait for the host's program, and what the host's program
 * sends stays in its socket until the guest has room.
 *
 * A packet is hostile input; a connection about which it lies is reset. All that a guest or the
 * host's programs can make us keep is bounded by the numbers below.
 *
 * Patience with the guest is counted in time that it had: while the VM stands still none passes,
 * nor while this process does.
 *
 * One thread at a time; no guest memory is touched here. Nothing blocks but vsock_mux_poll().
 * Test: tests/unit/virtio_vsock_test.c.
 */
#ifndef VMM_VSOCK_MUX_H
#define VMM_VSOCK_MUX_H

#include <poll.h>

#include "base/err.h"
#include "base/types.h"

#define VSOCK_CONNECTIONS_MAX 256u
#define VSOCK_BUFFER_BYTES 65536u /* of a connection, from the guest */
#define VSOCK_PACKET_BYTES 65536u /* of data in one packet to the guest */
#define VSOCK_RESETS_MAX 128u     /* for connections that we do not have; more are not told */
#define VSOCK_GREETING_BYTES 32u  /* "CONNECT 4294967295\n" and some blanks */
#define VSOCK_PATH_MAX 96u        /* with its NUL: "_4294967295" fits behind it, too */
/*
 * A greeting, a guest's answer to it, and a guest's farewell take no longer; nor does a program
 * that reads what the guest left.
 */
#define VSOCK_PATIENCE_MS 30000u
/* While somebody waits for the guest, its clock is looked at so often. */
#define VSOCK_LOOK_MS 1000u
/* Ports of the host that we hand out: above those that programs listen at. */
#define VSOCK_FIRST_PORT 0x40000000u
#define VSOCK_LAST_PORT 0x7fffffffu
#define VSOCK_HOST_CID 2u
#define VSOCK_CID_MIN 3u
#define VSOCK_CID_MAX 0xfffffffeu

/* 5.10.6 */
struct __attribute__((packed)) vsock_header {
	uint64_t src_cid;
	uint64_t dst_cid;
	uint32_t src_port;
	uint32_t dst_port;
	uint32_t len;
	uint16_t type;
	uint16_t op;
	uint32_t flags;
	uint32_t buf_alloc;
	uint32_t fwd_cnt;
};
_Static_assert(sizeof(struct vsock_header) == 44, "virtio 1.2, 5.10.6");

enum vsock_op {
	VSOCK_REQUEST = 1,
	VSOCK_RESPONSE = 2,
	VSOCK_RST = 3,
	VSOCK_SHUTDOWN = 4,
	VSOCK_RW = 5,
	VSOCK_CREDIT_UPDATE = 6,
	VSOCK_CREDIT_REQUEST = 7,
};

#define VSOCK_STREAM 1u
/* Of a shutdown: who says it will not receive, or not send, any more. */
#define VSOCK_NO_RECEIVE 1u
#define VSOCK_NO_SEND 2u

enum vsock_state {
	VSOCK_FREE,
	VSOCK_DRAINS,    /* the guest has forgotten it; what it sent waits for the host's program */
	VSOCK_GREETS,    /* the host's program has not said which port */
	/* Of those that follow the guest knows; their ports are taken. */
	VSOCK_REQUESTED, /* the guest has not answered */
	VSOCK_OPEN,
	VSOCK_LEAVES,    /* the host's end is gone, and the guest was or will be told */
};

struct vsock_connection {
	enum vsock_state state;
	int fd; /* -1: the host's end is gone */
	uint32_t host_port, guest_port;
	uint64_t deadline_ns; /* NS_NEVER: none; of the guest's time once the port was said */
	/* To the guest: its room, and what it was sent. */
	uint32_t peer_buf_alloc, peer_fwd_cnt, sent;
	/* From the guest: what it sent, what went on to the socket, what it was told of that. */
	uint32_t received, forwarded, told;
	uint8_t guest_shut; /* VSOCK_NO_… that the guest said */
	uint8_t host_shut;  /* … that are true of the host's end */
	uint8_t shut_told;  /* … of which the guest knows */
	bool says_request, says_response, says_credit, asks_credit;
	bool asked_credit; /* since the guest's room last changed */
	bool readable;     /* the socket may have something */
	bool has_shut_write; /* the socket knows that the guest sends no more */
	char greeting[VSOCK_GREETING_BYTES]; /* what there is of it */
	uint8_t greeting_len;
	unsigned char *buffer; /* VSOCK_BUFFER_BYTES, from the first byte on; a ring */
};

struct vsock_ports {
	uint32_t host_port, guest_port;
};

struct vsock_counts { /* any thread reads them */
	_Atomic uint64_t open;    /* connections now */
	_Atomic uint64_t opened;  /* ever: those that both sides took */
	_Atomic uint64_t refused; /* that were not taken, by whichever side, or there was no room */
	_Atomic uint64_t resets;  /* of a guest that broke the rules */
	_Atomic uint64_t to_guest, from_guest; /* bytes */
};

/* Whether the VM stands still now; NULL: it never does. Any thread. */
struct vsock_pause {
	bool (*stands)(void *ctx);
	void *ctx;
};

struct vsock_mux {
	uint32_t cid;
	int listen_fd; /* borrowed */
	char path[VSOCK_PATH_MAX];
	struct vsock_pause pause;
	uint64_t ran_ns;    /* time that the guest had, in steps of VSOCK_LOOK_MS at most */
	uint64_t looked_ns; /* when that was last counted */
	bool stood;         /* as it was */
	bool driven;    /* the guest has a driver */
	uint64_t accept_ns; /* nobody is taken before, for want of a descriptor */
	bool no_room;   /* it has no buffer for what it is to be sent */
	unsigned turn;  /* whose packet is next */
	_Atomic uint32_t next_port; /* any thread reads it */
	struct vsock_connection connections[VSOCK_CONNECTIONS_MAX];
	struct vsock_ports resets[VSOCK_RESETS_MAX];
	unsigned resets_count;
	struct vsock_counts count;
	struct pollfd polled[VSOCK_CONNECTIONS_MAX + 2];
	unsigned char packet[VSOCK_PACKET_BYTES]; /* for who sends it */
};

/* listen_fd: non-blocking, bound to path; borrowed until close. */
void vsock_mux_init(struct vsock_mux *m, uint32_t cid, const char *path, int listen_fd,
		    struct vsock_pause pause);
/* All connections end. All zeroes are harmless. */
void vsock_mux_fini(struct vsock_mux *m);

/* The guest has reset the device: its connections are gone. */
void vsock_mux_reset(struct vsock_mux *m);

/*
 * A packet of the guest's, of whose data the caller has copied h->len bytes, VSOCK_BUFFER_BYTES at
 * most, to `data`. vsock_mux_wants_data: how many are of use; the others need not be copied.
 */
uint32_t vsock_mux_wants_data(struct vsock_mux *m, const struct vsock_header *h);
void vsock_mux_take(struct vsock_mux *m, const struct vsock_header *h, const void *data);

/* There is something to tell the guest. */
bool vsock_mux_pending(const struct vsock_mux *m);
/*
 * The next packet for the guest, whose data are in m->packet, h->len of at most `room` bytes.
 * False: there is none after all.
 */
bool vsock_mux_next(struct vsock_mux *m, uint32_t room, struct vsock_header *ret);

/*
 * Waits for sockets, and for wake_fd, an eventfd, which is emptied; timeout_ms as poll's; serves
 * what has come.
 */
void vsock_mux_poll(struct vsock_mux *m, int wake_fd, int timeout_ms);

#endif
