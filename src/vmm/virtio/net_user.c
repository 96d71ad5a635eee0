/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See net_user.h. What libslirp has for the guest is laid into a ring of frames. While that is
 * half full, or there are as many sockets as there may be, sockets are not read or accepted:
 * their peers wait. Timers go on.
 */
#include "vmm/virtio/net_user.h"

#include <dlfcn.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/rate.h"
#include "base/time.h"
#include "vmm/memory/guest_mem.h"

#define FRAME_BYTES 2048u /* a slot's: Ethernet of the MTU below, with a tag */
#define MTU 1500u
#define GUEST_LAST 15u /* of its address: what its DHCP gives */
#define HDR_DATA_VALID 2u /* virtio 1.2, 5.1.6: its checksums are right */
#define FDS_MAX (NET_USER_SOCKETS_MAX + NET_USER_FORWARDS_MAX + 8)
/* Ethernet and IPv4, as far as they tell whether a frame would begin something. */
#define TYPE_AT 12u
#define IP_AT 14u
#define IP_FRAGMENT_AT (IP_AT + 6)
#define IP_FRAGMENT 0x3fffu /* there is more of it, or it is not the first */
#define IP_PROTOCOL_AT (IP_AT + 9)
#define IP_TCP 6u
#define TCP_FLAGS 13u
#define TCP_SYN 2u
#define TCP_ACK 16u

/*
 * Parts of datagrams, which libslirp keeps for 30 s each until the rest comes, however many: so
 * many at once, and so many per second.
 */
#define FRAGMENTS_BURST 2048u
#define FRAGMENTS_PER_S 64u

/* The library, loaded once and for good. */
#define FUNCTIONS(X) \
	X(slirp_new) X(slirp_cleanup) X(slirp_pollfds_fill) X(slirp_pollfds_poll) X(slirp_input) \
	X(slirp_add_hostfwd)
#define MEMBER(name) __typeof__(&name) name;
#define NAME(name) {#name, offsetof(struct library, name)},

struct library {
	FUNCTIONS(MEMBER)
};

struct frame {
	uint16_t len; /* without header */
	unsigned char bytes[FRAME_BYTES];
};

struct net_user {
	struct library lib;
	Slirp *slirp;
	uint64_t features;
	struct frame *frames; /* NET_USER_FRAMES_MAX of them */
	unsigned first, count;
	unsigned sockets; /* of connections and streams, by slirp's own word */
	int listening[NET_USER_FORWARDS_MAX];
	unsigned listening_count;
	bool has_input; /* the guest has sent something since libslirp's turn */
	struct rate fragments;
	bool is_open; /* ports are forwarded: sockets from now on are the guest's */
	struct pollfd fds[FDS_MAX];
	unsigned fds_count;
	unsigned char out[NET_FRAME_MAX]; /* a frame of the guest's */
};

/* ---- what libslirp calls ---- */

static ssize_t take_packet(const void *buf, size_t len, void *opaque)
{
	struct net_user *u = opaque;
	struct frame *f = &u->frames[(u->first + u->count) % NET_USER_FRAMES_MAX];

	/* Lost, as libslirp expects it of a network; TCP sends it again. */
	if (len > sizeof(f->bytes) || u->count == NET_USER_FRAMES_MAX)
		return (ssize_t)len;
	memcpy(f->bytes, buf, len);
	f->len = (uint16_t)len;
	u->count++;
	return (ssize_t)len;
}

/* The guest's affair, and as often as it likes. */
static void guest_error(const char *msg, void *opaque)
{
	(void)msg;
	(void)opaque;
}

static int64_t clock_get(void *opaque)
{
	(void)opaque;
	return (int64_t)monotonic_ns();
}

/* Timers are for IPv6's router advertisements alone, which are off. */
static void *timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	(void)cb;
	(void)cb_opaque;
	return opaque;
}

static void timer_free(void *timer, void *opaque)
{
	(void)timer;
	(void)opaque;
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	(void)timer;
	(void)expire_ms;
	(void)opaque;
}

static void register_fd(int fd, void *opaque)
{
	struct net_user *u = opaque;

	if (u->is_open)
		u->sockets++;
	else if (u->listening_count < NET_USER_FORWARDS_MAX)
		u->listening[u->listening_count++] = fd;
}

static void unregister_fd(int fd, void *opaque)
{
	struct net_user *u = opaque;

	for (unsigned i = 0; i < u->listening_count; i++)
		if (u->listening[i] == fd) {
			u->listening[i] = -1;
			return;
		}
	if (u->sockets)
		u->sockets--;
}

/* The worker itself is all that could be woken. */
static void notify(void *opaque)
{
	(void)opaque;
}

static const SlirpCb callbacks = {
	.send_packet = take_packet,
	.guest_error = guest_error,
	.clock_get_ns = clock_get,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = register_fd,
	.unregister_poll_fd = unregister_fd,
	.notify = notify,
};

/* ---- waiting ---- */

static bool listens(const struct net_user *u, int fd)
{
	for (unsigned i = 0; i < u->listening_count; i++)
		if (u->listening[i] == fd)
			return true;
	return false;
}

static bool is_full(const struct net_user *u)
{
	return u->sockets >= NET_USER_SOCKETS_MAX;
}

static int add_poll(int fd, int events, void *opaque)
{
	struct net_user *u = opaque;
	short want = 0;

	if (u->fds_count == FDS_MAX)
		return -1;
	if ((events & SLIRP_POLL_IN) && u->count < NET_USER_FRAMES_MAX / 2 &&
	    !(is_full(u) && listens(u, fd)))
		want |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		want |= POLLOUT;
	if (events & SLIRP_POLL_PRI)
		want |= POLLPRI;
	/* A socket with no event to wait for is left out: poll would report its end always. */
	u->fds[u->fds_count] = (struct pollfd){.fd = want ? fd : -1, .events = want};
	return (int)u->fds_count++;
}

static int get_revents(int index, void *opaque)
{
	static const struct {
		short from;
		int to;
	} bits[] = {
		{POLLIN, SLIRP_POLL_IN},
		{POLLOUT, SLIRP_POLL_OUT},
		{POLLPRI, SLIRP_POLL_PRI},
		{POLLERR, SLIRP_POLL_ERR},
		{POLLHUP, SLIRP_POLL_HUP},
	};
	struct net_user *u = opaque;
	int ret = 0;

	for (unsigned i = 0; index >= 0 && i < ARRAY_LEN(bits); i++)
		if (u->fds[index].revents & bits[i].from)
			ret |= bits[i].to;
	return ret;
}

/* From now to a time, in ms, no sooner than that. */
static uint32_t ms_until(uint64_t until_ns)
{
	uint64_t now = monotonic_ns(), ns = until_ns > now ? until_ns - now : 0;

	return until_ns == NS_NEVER ? UINT32_MAX
				    : (uint32_t)min_u64((ns + 999999) / 1000000, INT32_MAX);
}

static unsigned ready(const struct net_user *u)
{
	return NET_CAN_SEND | (u->count ? NET_CAN_RECEIVE : 0);
}

static unsigned user_wait(void *ctx, int wake_fd, unsigned want, uint64_t until_ns)
{
	struct net_user *u = ctx;
	/* What waits for the guest's hardware address goes at libslirp's next turn. */
	bool at_once = u->has_input || (ready(u) & want);
	uint32_t ms = at_once ? 0 : ms_until(until_ns);
	int rc;

	u->has_input = false;
	u->fds[0] = (struct pollfd){.fd = wake_fd, .events = POLLIN};
	u->fds_count = 1;
	u->lib.slirp_pollfds_fill(u->slirp, &ms, add_poll, u);
	rc = poll(u->fds, u->fds_count, ms > INT32_MAX ? -1 : (int)ms);
	u->lib.slirp_pollfds_poll(u->slirp, rc < 0, get_revents, u);
	return ready(u) | (rc > 0 && u->fds[0].revents ? NET_WOKEN : 0);
}

/* ---- frames ---- */

static int user_features_set(void *ctx, uint64_t features)
{
	struct net_user *u = ctx;

	/* What waits has no header yet. */
	u->features = features;
	return 0;
}

static ssize_t user_receive(void *ctx, const struct iovec *v, unsigned count)
{
	struct net_user *u = ctx;
	const struct frame *f = &u->frames[u->first];
	unsigned char header[NET_HEADER_BYTES] = {
		u->features & NET_F_GUEST_CSUM ? HDR_DATA_VALID : 0};
	size_t done = 0, len;

	if (!u->count)
		return -EAGAIN;
	len = sizeof(header) + f->len;
	for (unsigned i = 0; i < count && done < len; i++) {
		unsigned char *to = v[i].iov_base;
		size_t left = v[i].iov_len;

		while (left && done < len) {
			bool in_header = done < sizeof(header);
			const unsigned char *from =
				in_header ? header + done : f->bytes + (done - sizeof(header));
			size_t n = min_u64(left, (in_header ? sizeof(header) : len) - done);

			memcpy(to, from, n);
			to += n;
			left -= n;
			done += n;
		}
	}
	u->first = (u->first + 1) % NET_USER_FRAMES_MAX;
	u->count--;
	return (ssize_t)len;
}

static bool is_ip(const unsigned char *frame, size_t len)
{
	return len > IP_PROTOCOL_AT && frame[TYPE_AT] == 0x08 && frame[TYPE_AT + 1] == 0;
}

/* Part of a datagram, and one more than may be? */
static bool is_part_too_many(struct net_user *u, const unsigned char *frame, size_t len)
{
	if (!is_ip(frame, len) ||
	    !((frame[IP_FRAGMENT_AT] << 8 | frame[IP_FRAGMENT_AT + 1]) & IP_FRAGMENT))
		return false;
	if (rate_wait_ns(&u->fragments, monotonic_ns()) > 0)
		return true;
	rate_take(&u->fragments, 1, monotonic_ns());
	return false;
}

/* Would it need a socket that is not there yet? Streams of datagrams may have theirs. */
static bool begins(const unsigned char *frame, size_t len)
{
	size_t ip_bytes;
	unsigned flags;

	if (!is_ip(frame, len))
		return false;
	if (frame[IP_PROTOCOL_AT] != IP_TCP)
		return true;
	ip_bytes = (frame[IP_AT] & 15u) * 4u;
	if (len <= IP_AT + ip_bytes + TCP_FLAGS)
		return false;
	flags = frame[IP_AT + ip_bytes + TCP_FLAGS];
	return (flags & TCP_SYN) && !(flags & TCP_ACK);
}

/* Copied first: libslirp reads it more than once. */
static int user_send(void *ctx, const struct iovec *v, unsigned count, size_t len)
{
	struct net_user *u = ctx;
	size_t done = 0;

	for (unsigned i = 0; i < count; i++) {
		guest_mem_once(u->out + done, v[i].iov_base, v[i].iov_len);
		done += v[i].iov_len;
	}
	ASSERT(done == len && len <= sizeof(u->out));
	len -= NET_HEADER_BYTES;
	/* No segments and no checksums were left to us: 5.1.6.2. */
	if (u->out[0] || u->out[1] || len > FRAME_BYTES)
		return -EPROTO;
	if (is_full(u) && begins(u->out + NET_HEADER_BYTES, len))
		return -EMFILE;
	if (is_part_too_many(u, u->out + NET_HEADER_BYTES, len))
		return -ENOBUFS;
	u->has_input = true;
	u->lib.slirp_input(u->slirp, u->out + NET_HEADER_BYTES, (int)len);
	return 0;
}

static const struct net_backend_ops user_ops = {
	.features_set = user_features_set,
	.send = user_send,
	.receive = user_receive,
	.wait = user_wait,
};

/* ---- life ---- */

static int load(struct library *ret, struct err *e)
{
	static const struct {
		const char *name;
		size_t at;
	} functions[] = {FUNCTIONS(NAME)};
	void *handle = dlopen(NET_USER_LIBRARY, RTLD_NOW | RTLD_LOCAL);

	if (!handle)
		return err_set(e, -ENOENT, "--net user: %s cannot be loaded (%.200s); install "
			       "libslirp0, or use --net tap=NAME", NET_USER_LIBRARY, dlerror());
	for (unsigned i = 0; i < ARRAY_LEN(functions); i++) {
		void *f = dlsym(handle, functions[i].name);

		if (!f)
			return err_set(e, -ENOENT, "--net user: " NET_USER_LIBRARY " has no %s; "
				       "install the libslirp0 of Debian 12", functions[i].name);
		memcpy((char *)ret + functions[i].at, &f, sizeof(f));
	}
	return 0;
}

static struct in_addr addr_of(unsigned index, unsigned last)
{
	return (struct in_addr){htonl(10u << 24 | (2u + index) << 8 | last)};
}

static int forward(struct net_user *u, const struct net_forward *f, struct err *e)
{
	const struct in_addr host = {htonl(f->host_addr)}, guest = {0};
	char text[INET_ADDRSTRLEN];
	int code;

	errno = 0;
	if (u->lib.slirp_add_hostfwd(u->slirp, f->udp, host, f->host_port, guest,
				     f->guest_port) == 0)
		return 0;
	code = errno ? -errno : -EADDRNOTAVAIL;
	return err_set(e, code, "--net: cannot forward %s port %u of %s to the guest's %u: %s; %s",
		       f->udp ? "UDP" : "TCP", f->host_port,
		       inet_ntop(AF_INET, &host, text, sizeof(text)), f->guest_port,
		       code == -EADDRINUSE ? "it is taken" : strerror(-code),
		       code == -EACCES ? "use one above 1023" : "use another one");
}

/* An ARP announcement (RFC 5227), as the guest made it when it got its address. */
static void announce(struct net_user *u, unsigned index, const uint8_t mac[NET_MAC_BYTES])
{
	const struct in_addr addr = addr_of(index, GUEST_LAST);
	struct {
		uint8_t to[NET_MAC_BYTES], from[NET_MAC_BYTES];
		uint16_t type, hardware, protocol;
		uint8_t hardware_bytes, protocol_bytes;
		uint16_t operation;
		uint8_t sender_mac[NET_MAC_BYTES], sender[4];
		uint8_t target_mac[NET_MAC_BYTES], target[4];
	} __attribute__((packed)) frame = {
		.to = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		.type = htons(ETHERTYPE_ARP),
		.hardware = htons(ARPHRD_ETHER),
		.protocol = htons(ETHERTYPE_IP),
		.hardware_bytes = NET_MAC_BYTES,
		.protocol_bytes = sizeof(frame.sender),
		.operation = htons(ARPOP_REQUEST),
	};

	memcpy(frame.from, mac, NET_MAC_BYTES);
	memcpy(frame.sender_mac, mac, NET_MAC_BYTES);
	memcpy(frame.sender, &addr, sizeof(frame.sender));
	memcpy(frame.target, &addr, sizeof(frame.target));
	u->lib.slirp_input(u->slirp, (const uint8_t *)&frame, sizeof(frame));
}

int net_user_open(const struct net_user_cfg *cfg, struct net_user **ret,
		  struct net_backend *ret_backend, struct err *e)
{
	const SlirpConfig sc = {
		.version = 1,
		.restricted = cfg->restricted,
		.in_enabled = true,
		.vnetwork = addr_of(cfg->index, 0),
		.vnetmask = {htonl(0xffffff00)},
		.vhost = addr_of(cfg->index, 2),
		.vdhcp_start = addr_of(cfg->index, GUEST_LAST),
		.vnameserver = addr_of(cfg->index, 3),
		.if_mtu = MTU,
		.if_mru = MTU,
		.disable_host_loopback = !cfg->host,
	};
	struct net_user *u = calloc(1, sizeof(*u));
	int rc = u ? load(&u->lib, e) : err_sys(e, -ENOMEM, "--net user");

	ASSERT(cfg->forwards_count <= NET_USER_FORWARDS_MAX);
	if (rc < 0) {
		free(u);
		return rc;
	}
	rate_init(&u->fragments, FRAGMENTS_PER_S, FRAGMENTS_BURST);
	u->frames = calloc(NET_USER_FRAMES_MAX, sizeof(*u->frames));
	u->slirp = u->frames ? u->lib.slirp_new(&sc, &callbacks, u) : NULL;
	if (!u->slirp)
		rc = err_sys(e, -ENOMEM, "--net user");
	for (unsigned i = 0; rc == 0 && i < cfg->forwards_count; i++)
		rc = forward(u, &cfg->forwards[i], e);
	if (rc < 0) {
		net_user_close(u);
		return rc;
	}
	if (cfg->guest_mac)
		announce(u, cfg->index, cfg->guest_mac);
	u->is_open = true;
	*ret = u;
	*ret_backend = (struct net_backend){
		.ops = &user_ops,
		.ctx = u,
		.features = NET_F_GUEST_CSUM,
		.frame_max = FRAME_BYTES,
		.answers = true,
	};
	return 0;
}

void net_user_close(struct net_user *u)
{
	if (!u)
		return;
	if (u->slirp)
		u->lib.slirp_cleanup(u->slirp);
	free(u->frames);
	free(u);
}
