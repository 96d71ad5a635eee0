/* SPDX-License-Identifier: Apache-2.0 */
/* See net_tap.h. */
#include "vmm/virtio/net_tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/time.h"

#define TAP_DEVICE "/dev/net/tun"
#define TAP_MTU 1500u
/* Frames that may have waited for a driver before this one; a queue has 500 or 1000. */
#define STALE_MAX 65536u

static int gone(int code)
{
	/* The interface was removed, or the file is none any more. */
	return code == -EBADFD || code == -ENXIO || code == -EBADF ? -ENODEV : code;
}

static ssize_t tap_receive(void *ctx, const struct iovec *v, unsigned count)
{
	struct net_tap *t = ctx;
	ssize_t n;

	do
		n = readv(t->fd, v, (int)count);
	while (n < 0 && errno == EINTR);
	return n < 0 ? gone(-errno) : n;
}

static int tap_send(void *ctx, const struct iovec *v, unsigned count, size_t len)
{
	struct net_tap *t = ctx;
	ssize_t n;

	(void)len;
	do
		n = writev(t->fd, v, (int)count);
	while (n < 0 && errno == EINTR);
	return n < 0 ? gone(-errno) : 0;
}

static void drop_stale(struct net_tap *t)
{
	/* No frame comes into less than its header, and each is gone however its read ends. */
	unsigned char header[NET_HEADER_BYTES];
	struct iovec v = {header, sizeof(header)};

	for (unsigned i = 0; i < STALE_MAX && tap_receive(t, &v, 1) != -EAGAIN; i++)
		;
}

static int tap_features_set(void *ctx, uint64_t features)
{
	static const struct {
		uint64_t feature;
		unsigned offload;
	} table[] = {
		{NET_F_GUEST_CSUM, TUN_F_CSUM},
		{NET_F_GUEST_TSO4, TUN_F_TSO4},
		{NET_F_GUEST_TSO6, TUN_F_TSO6},
		{NET_F_GUEST_ECN, TUN_F_TSO_ECN},
	};
	struct net_tap *t = ctx;
	unsigned long offloads = 0;

	for (unsigned i = 0; i < ARRAY_LEN(table); i++)
		if (features & table[i].feature)
			offloads |= table[i].offload;
	/* 5.1.3.1: no segments without checksums; and what is said of segments alone is wrong. */
	if (!(offloads & TUN_F_CSUM))
		offloads = 0;
	if (!(offloads & (TUN_F_TSO4 | TUN_F_TSO6)))
		offloads &= ~(unsigned long)TUN_F_TSO_ECN;
	if (ioctl(t->fd, TUNSETOFFLOAD, offloads) < 0)
		return gone(-errno);
	drop_stale(t);
	return 0;
}

static uint64_t ns_until(uint64_t until_ns)
{
	uint64_t now = until_ns ? monotonic_ns() : 0;

	return until_ns > now ? until_ns - now : 0;
}

static unsigned tap_wait(void *ctx, int wake_fd, unsigned want, uint64_t until_ns)
{
	struct net_tap *t = ctx;
	short events = (want & NET_CAN_RECEIVE ? POLLIN : 0) | (want & NET_CAN_SEND ? POLLOUT : 0);
	struct pollfd fds[] = {
		{.fd = wake_fd, .events = POLLIN},
		{.fd = events ? t->fd : -1, .events = events},
	};
	uint64_t ns = until_ns == NS_NEVER ? 0 : ns_until(until_ns);
	int ms = until_ns == NS_NEVER ? -1 : (int)min_u64((ns + 999999) / 1000000, INT32_MAX);

	if (poll(fds, ARRAY_LEN(fds), ms) < 0)
		return 0;
	/* The next read or write returns the error. */
	if (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL))
		return want | (fds[0].revents ? NET_WOKEN : 0);
	return (fds[1].revents & POLLIN ? NET_CAN_RECEIVE : 0) |
	       (fds[1].revents & POLLOUT ? NET_CAN_SEND : 0) | (fds[0].revents ? NET_WOKEN : 0);
}

static const struct net_backend_ops tap_ops = {
	.features_set = tap_features_set,
	.send = tap_send,
	.receive = tap_receive,
	.wait = tap_wait,
};

static int set_up(struct net_tap *t, const char *name)
{
	struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int header = NET_HEADER_BYTES;

	strncpy(r.ifr_name, name, sizeof(r.ifr_name) - 1);
	if (ioctl(t->fd, TUNSETIFF, &r) < 0 || ioctl(t->fd, TUNSETVNETHDRSZ, &header) < 0)
		return -errno;
	return tap_features_set(t, 0);
}

static const char *advice(int code)
{
	switch (code) {
	case -EPERM:
		return "make it yours: ip tuntap add NAME mode tap user YOU";
	case -EBUSY:
		return "another program has it; give each VM one of its own";
	case -EINVAL:
		return "it is no tap, or one with several queues; make one: ip tuntap add NAME "
		       "mode tap user YOU";
	default:
		return "load the module tun, and let the user open " TAP_DEVICE;
	}
}

int net_tap_open(struct net_tap *t, const char *name, struct net_backend *ret_backend,
		 struct err *e)
{
	int rc;

	t->fd = open(TAP_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	rc = t->fd < 0 ? -errno : set_up(t, name);
	if (rc < 0) {
		net_tap_close(t);
		return err_set(e, rc, "--net tap=%.15s: cannot be opened: %s; %s", name,
			       strerror(-rc), advice(rc));
	}
	*ret_backend = (struct net_backend){
		.ops = &tap_ops,
		.ctx = t,
		.features = NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 |
			    NET_F_GUEST_ECN | NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_ECN,
		.frame_max = NET_ETHERNET_BYTES + 4 + TAP_MTU,
	};
	return 0;
}

void net_tap_close(struct net_tap *t)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}
