/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of vmm/virtio/virtio_vsock.c: a guest with rings of both directions, and programs
 * of the host on real sockets.
 */
#ifndef VIRTIO_VSOCK_FIXTURE_H
#define VIRTIO_VSOCK_FIXTURE_H

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "virtio_fixture.h"
#include "vmm/virtio/virtio_vsock.h"

#define CID 52u
#define RX 0u
#define TX 1u
#define SIZE 64u           /* of a queue */
#define BUFFERS 32u        /* that the guest offers for what it receives */
#define BUFFER_BYTES 4096u /* each, header and data */
#define GUEST_BUFFER 65536u /* that it says a connection of its has */
#define TX_DATA 0x80000u
#define GUEST_PORT 1024u

struct queue {
	uint64_t desc, avail, used;
	uint16_t offered, seen;
};

struct fixture {
	struct vx x;
	struct virtio_vsock s;
	char folder[32], path[48];
	int listen_fd;
	bool stands; /* the VM does */
	bool threaded; /* the device's own worker has begun: it does the work */
	struct queue q[2];
	struct vsock_header h; /* of the packet received last */
	unsigned char data[BUFFER_BYTES];
	uint32_t fwd_cnt; /* what the guest says */
	uint32_t buf_alloc;
};

int listen_at(const char *path);
int connect_to(const char *path);
/* -1: there is no place in line now. */
int connect_or_not(const char *path);

/* ---- the guest ---- */

/* All that the device has to do; or, where a worker does it, a moment for that. */
void work(struct fixture *f);
void notify(struct fixture *f, unsigned queue);
void offer_at(struct fixture *f, unsigned queue, uint16_t head);
void offer_buffers(struct fixture *f, unsigned count);
/* Buffers at RX: `buffers` of them. */
void bring_up(struct fixture *f, unsigned buffers);
void open_device(struct fixture *f, uint32_t cid);
void init(struct fixture *f, unsigned buffers);
void fini(struct fixture *f);
/* So many packets of the guest's before the device has taken one. */
unsigned room_to_send(struct fixture *f);
/* A packet of the guest's as it stands; what is behind the header is `data`. */
void send_raw(struct fixture *f, const struct vsock_header *h, const void *data, uint32_t len);
struct vsock_header header(const struct fixture *f, enum vsock_op op, uint32_t guest_port,
			   uint32_t host_port);
void say(struct fixture *f, enum vsock_op op, uint32_t guest_port, uint32_t host_port,
	 uint32_t flags);
void send_data(struct fixture *f, uint32_t guest_port, uint32_t host_port, const void *data,
	       uint32_t len);
/* The next packet for the guest, whose buffer is offered again; false: none. */
bool hear(struct fixture *f);
void expect(struct fixture *f, enum vsock_op op, uint32_t guest_port, uint32_t host_port);
void expect_nothing(struct fixture *f);

/* ---- programs of the host ---- */

void expect_text(int fd, const char *text);
void expect_end(int fd);
/* The same, or an error, as there is where something was not read. */
void expect_gone(int fd);
void put_text(int fd, const char *text);
/* A connection that the host's program has made; *ret_port: of the host. */
int open_from_host(struct fixture *f, uint32_t *ret_port);

#endif
