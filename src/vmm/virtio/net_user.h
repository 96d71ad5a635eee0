/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network in user space behind a network device, by libslirp, which needs no rights: the guest
 * gets its address by DHCP and its names from the host's resolver, its connections are sockets of
 * this process, and ports of the host can be forwarded to it. IPv4 alone.
 *
 * Bounded: NET_USER_SOCKETS_MAX connections and streams of datagrams, NET_USER_FRAMES_MAX frames
 * that the guest has not taken, some MiB of datagrams of the guest's that came in part. What is
 * above that is not begun, or waits in the host's kernel, or is lost as on any network.
 *
 * The library is loaded when the first of these is opened. Test: tests/unit/net_user_test.c.
 */
#ifndef VMM_VIRTIO_NET_USER_H
#define VMM_VIRTIO_NET_USER_H

#include "base/err.h"
#include "vmm/virtio/net_backend.h"

#define NET_USER_LIBRARY "libslirp.so.0"
#define NET_USER_SOCKETS_MAX 256u
#define NET_USER_FRAMES_MAX 512u
#define NET_USER_FORWARDS_MAX 16u

/*
 * A port of the host's that leads to one of the guest's. libslirp lets no answer of UDP's out with
 * `restricted`, and none to the host's own 127.0.0.1 without `host`.
 */
struct net_forward {
	bool udp;
	uint32_t host_addr; /* IPv4, in the machine's order */
	uint16_t host_port;
	uint16_t guest_port;
};

struct net_user_cfg {
	unsigned index;     /* of the device: its network is 10.0.(2 + index).0/24 */
	bool restricted;    /* the guest gets nowhere but by forwarded ports */
	bool host;          /* it may reach the host's own 127.0.0.1, as 10.0.(2 + index).2 */
	const struct net_forward *forwards;
	unsigned forwards_count;
	/*
	 * Of a guest that has its address already, as one that is restored, or NULL. libslirp asks
	 * for whom it does not know, and gives up what is for him after a second; TCP tries again
	 * after six.
	 */
	const uint8_t *guest_mac;
};

struct net_user;

/*
 * Binds the forwarded ports. -ENOENT: libslirp is not there; -EADDRINUSE and others: a port
 * cannot be had, with the reason. *ret_backend refers to *ret until that is closed.
 */
int net_user_open(const struct net_user_cfg *cfg, struct net_user **ret,
		  struct net_backend *ret_backend, struct err *e);
/* NULL is harmless. Every connection ends. */
void net_user_close(struct net_user *u);

#endif
