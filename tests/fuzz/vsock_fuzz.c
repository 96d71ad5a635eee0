/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest that sends any packets, programs of the host that come, send, read and go,
 * and resets, in any order, on real sockets. Steps of the input are a byte and what it needs.
 * What must hold: no more is kept of a connection than was promised, no more is sent to the guest
 * than it said it has room for, and what a program of the host reads is what the guest sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bytes.h"
#include "vmm/virtio/vsock_mux.h"

#define STEPS_MAX 200u
#define PROGRAMS 4u
#define CID 3u
#define GUEST_DATA 0x6du
#define HOST_DATA 0x68u

enum step { PACKET, KNOWN_PACKET, PROGRAM_COMES, PROGRAM_SENDS, PROGRAM_READS, PROGRAM_SHUTS,
	    PROGRAM_GOES, GUEST_HEARS, LOOK, RESET, STEPS };

struct world {
	struct vsock_mux mux;
	int listen_fd, service_fd, wake_fd;
	char folder[32], path[48], service[56];
	int programs[PROGRAMS];
	bool greeted[PROGRAMS];
};

static int listen_at(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	must(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 16) == 0);
	return fd;
}

static void open_world(struct world *w)
{
	snprintf(w->folder, sizeof(w->folder), "/tmp/asyncpf-fuzz-XXXXXX");
	must(mkdtemp(w->folder) != NULL);
	snprintf(w->path, sizeof(w->path), "%s/v", w->folder);
	snprintf(w->service, sizeof(w->service), "%s_5", w->path);
	w->listen_fd = listen_at(w->path);
	w->service_fd = listen_at(w->service);
	w->wake_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	vsock_mux_init(&w->mux, CID, w->path, w->listen_fd, (struct vsock_pause){NULL, NULL});
	for (unsigned i = 0; i < PROGRAMS; i++)
		w->programs[i] = -1;
}

static void close_world(struct world *w)
{
	vsock_mux_fini(&w->mux);
	must(w->mux.count.open == 0);
	for (unsigned i = 0; i < PROGRAMS; i++)
		if (w->programs[i] >= 0)
			close(w->programs[i]);
	close(w->listen_fd);
	close(w->service_fd);
	close(w->wake_fd);
	unlink(w->path);
	unlink(w->service);
	rmdir(w->folder);
}

static void check(const struct world *w)
{
	uint64_t open = 0;

	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		const struct vsock_connection *c = &w->mux.connections[i];

		open += c->state != VSOCK_FREE;
		must(c->received - c->forwarded <= VSOCK_BUFFER_BYTES);
		must(c->state != VSOCK_FREE || (c->fd < 0 && !c->buffer));
	}
	must(open == w->mux.count.open && w->mux.resets_count <= VSOCK_RESETS_MAX);
}

static void packet(struct world *w, struct bytes *b, bool known)
{
	static unsigned char data[VSOCK_BUFFER_BYTES];
	struct vsock_header h = {
		.src_cid = CID,
		.dst_cid = VSOCK_HOST_CID,
		.type = VSOCK_STREAM,
		.op = take8(b) % 10u,
		.flags = take8(b),
		.len = (uint32_t)take(b, 3),
		.buf_alloc = (uint32_t)take(b, 3),
		.fwd_cnt = (uint32_t)take(b, 4),
	};
	const struct vsock_connection *c = &w->mux.connections[take8(b) % PROGRAMS];

	memset(data, GUEST_DATA, sizeof(data));
	if (known) {
		h.src_port = c->guest_port;
		h.dst_port = c->host_port;
		h.fwd_cnt = c->sent;
	} else {
		h.src_port = take8(b);
		h.dst_port = take8(b);
		h.type = take8(b) % 2u;
		h.src_cid = 3u + (take8(b) == 0xff);
	}
	if (h.op != VSOCK_RW)
		h.len = 0;
	must(vsock_mux_wants_data(&w->mux, &h) <= VSOCK_BUFFER_BYTES);
	vsock_mux_take(&w->mux, &h, data);
}

static void come(struct world *w, unsigned i, struct bytes *b)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char text[40];
	int n;

	if (w->programs[i] >= 0)
		close(w->programs[i]);
	w->greeted[i] = false;
	if (take8(b) & 1) { /* whom the guest has called */
		w->programs[i] = accept4(w->service_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		w->greeted[i] = true;
		return;
	}
	w->programs[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", w->path);
	if (connect(w->programs[i], (struct sockaddr *)&a, sizeof(a)) < 0)
		return;
	n = snprintf(text, sizeof(text), "CONNECT %u\n", (unsigned)take8(b));
	text[take8(b) % 64u % (unsigned)n] ^= take8(b) & 1;
	(void)!send(w->programs[i], text, (size_t)n, MSG_NOSIGNAL);
}

static void reads(struct world *w, unsigned i)
{
	unsigned char got[8192];
	ssize_t n = recv(w->programs[i], got, sizeof(got), MSG_DONTWAIT);
	ssize_t at = 0;

	if (n > 0 && !w->greeted[i]) {
		must(memcmp(got, "OK ", 3) == 0);
		while (at < n && got[at] != '\n')
			at++;
		must(at < n);
		at++;
		w->greeted[i] = true;
	}
	for (; at < n; at++)
		must(got[at] == GUEST_DATA);
}

static void hear(struct world *w, struct bytes *b)
{
	uint32_t room = (uint32_t)take(b, 2);
	struct vsock_header h;

	w->mux.no_room = take8(b) & 1;
	for (unsigned i = 0; i < 8 && vsock_mux_next(&w->mux, room, &h); i++) {
		must(h.src_cid == VSOCK_HOST_CID && h.dst_cid == CID && h.len <= room);
		must(h.op == VSOCK_RW || h.len == 0);
		for (uint32_t k = 0; k < h.len; k++)
			must(w->mux.packet[k] == HOST_DATA);
		if (h.op != VSOCK_RW)
			continue;
		for (unsigned k = 0; k < VSOCK_CONNECTIONS_MAX; k++) {
			const struct vsock_connection *c = &w->mux.connections[k];

			if (c->state == VSOCK_OPEN && c->host_port == h.src_port &&
			    c->guest_port == h.dst_port)
				must(c->sent - c->peer_fwd_cnt <= c->peer_buf_alloc);
		}
	}
}

static void step(struct world *w, struct bytes *b)
{
	static unsigned char data[4096];
	enum step what = take8(b) % STEPS;
	unsigned whose = what >= PROGRAM_COMES && what <= PROGRAM_GOES ? take8(b) : 0;
	unsigned i = whose % PROGRAMS;

	memset(data, HOST_DATA, sizeof(data));
	switch (what) {
	case PACKET:
	case KNOWN_PACKET:
		packet(w, b, what == KNOWN_PACKET);
		break;
	case PROGRAM_COMES:
		come(w, i, b);
		break;
	case PROGRAM_SENDS:
		(void)!send(w->programs[i], data, take(b, 2) % sizeof(data),
			    MSG_NOSIGNAL | MSG_DONTWAIT);
		break;
	case PROGRAM_READS:
		reads(w, i);
		break;
	case PROGRAM_SHUTS:
		(void)shutdown(w->programs[i], whose & 0x80 ? SHUT_RD : SHUT_WR);
		break;
	case PROGRAM_GOES:
		if (w->programs[i] >= 0)
			close(w->programs[i]);
		w->programs[i] = -1;
		break;
	case GUEST_HEARS:
		hear(w, b);
		break;
	case RESET:
		vsock_mux_reset(&w->mux);
		break;
	default:
		vsock_mux_poll(&w->mux, -1, 0);
		break;
	}
	check(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world *w = calloc(1, sizeof(*w));
	struct bytes b = {data, size};

	must(w != NULL);
	open_world(w);
	for (unsigned i = 0; i < STEPS_MAX && b.left > 0; i++)
		step(w, &b);
	close_world(w);
	free(w);
	return 0;
}
