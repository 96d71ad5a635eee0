/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/net_tap.c behind a network device with its worker, in a network namespace of its
 * own: the test is the guest, by rings in memory, and this machine's kernel is the other end.
 * Skipped where we may not make one.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "virtio_net_fixture.h"
#include "vmm/virtio/net_tap.h"

#define SKIPPED 77
#define NAME "apf-tap"
#define HOST_IP 0xc0000201u /* 192.0.2.1 */
#define GUEST_IP 0xc0000202u
#define ETHER 14u

static const unsigned char guest_mac[6] = {2, 0, 0, 0, 0, 7};

struct fixture {
	struct nx n;
	struct net_tap tap;
	int fd; /* a socket of the host's, on its own address */
	unsigned char host_mac[6];
	unsigned char frame[NET_FRAME_MAX];
};

/* ---- the host's side ---- */

static void set_addr(int fd, unsigned long request, struct ifreq *r, uint32_t addr)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(addr)}};

	memcpy(&r->ifr_addr, &a, sizeof(a));
	assert_int_equal(ioctl(fd, request, r), 0);
}

/* Up, with an address, and with the guest's known, so that nobody asks for it. */
static void host_up(struct fixture *f)
{
	struct ifreq r = {.ifr_name = NAME};
	struct arpreq arp = {.arp_flags = ATF_PERM | ATF_COM, .arp_dev = NAME};
	struct sockaddr_in guest = {.sin_family = AF_INET, .sin_addr = {htonl(GUEST_IP)}};
	struct sockaddr_in host = {.sin_family = AF_INET, .sin_port = htons(7),
				   .sin_addr = {htonl(HOST_IP)}};

	f->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(f->fd >= 0);
	set_addr(f->fd, SIOCSIFADDR, &r, HOST_IP);
	set_addr(f->fd, SIOCSIFNETMASK, &r, 0xffffff00);
	r.ifr_flags = IFF_UP | IFF_RUNNING;
	assert_int_equal(ioctl(f->fd, SIOCSIFFLAGS, &r), 0);
	assert_int_equal(ioctl(f->fd, SIOCGIFHWADDR, &r), 0);
	memcpy(f->host_mac, r.ifr_hwaddr.sa_data, 6);
	memcpy(&arp.arp_pa, &guest, sizeof(guest));
	arp.arp_ha.sa_family = ARPHRD_ETHER;
	memcpy(arp.arp_ha.sa_data, guest_mac, 6);
	assert_int_equal(ioctl(f->fd, SIOCSARP, &arp), 0);
	assert_int_equal(bind(f->fd, (struct sockaddr *)&host, sizeof(host)), 0);
}

/* ---- the guest's side ---- */

static unsigned get16(const unsigned char *from)
{
	return (unsigned)from[0] << 8 | from[1];
}

static void put16(unsigned char *to, unsigned v)
{
	to[0] = (unsigned char)(v >> 8);
	to[1] = (unsigned char)v;
}

/* IPv4's own sum of a header, or what is added to a pseudo header. */
static unsigned sum_of(const unsigned char *p, size_t len, uint32_t sum)
{
	for (size_t i = 0; i < len; i += 2)
		sum += get16(p + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A datagram to port 7 of the host's; with `partial`, its checksum is left to be made. */
static void send_udp(struct fixture *f, const void *data, unsigned len, bool partial)
{
	unsigned char header[NET_HEADER_BYTES] = {0}, frame[ETHER + 28 + 1472] = {0};
	unsigned char *ip = frame + ETHER, *udp = ip + 20;
	uint32_t from = htonl(GUEST_IP), to = htonl(HOST_IP);

	memcpy(frame, f->host_mac, 6);
	memcpy(frame + 6, guest_mac, 6);
	put16(frame + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, 28 + len);
	ip[8] = 64;
	ip[9] = IPPROTO_UDP;
	memcpy(ip + 12, &from, 4);
	memcpy(ip + 16, &to, 4);
	put16(ip + 10, ~sum_of(ip, 20, 0) & 0xffff);
	put16(udp, 4000);
	put16(udp + 2, 7);
	put16(udp + 4, 8 + len);
	memcpy(udp + 8, data, len);
	if (partial) {
		header[0] = 1; /* NEEDS_CSUM, from there, at this place in it; little-endian */
		header[6] = ETHER + 20;
		header[8] = 6;
		put16(udp + 6, sum_of(ip + 12, 8, IPPROTO_UDP + 8 + len));
	}
	nx_send_with(&f->n, header, frame, (uint32_t)(ETHER + 28 + len));
}

/* With a driver that has been heard: frames from before it are gone. */
static void up(struct fixture *f, uint64_t features)
{
	char back[2];

	nx_up(&f->n, features | NX_MRG, 256);
	for (uint16_t i = 0; i < 256; i++)
		nx_post(&f->n, i);
	send_udp(f, "up", 2, false);
	assert_int_equal(recv(f->fd, back, 2, 0), 2);
}

static struct fixture *init(uint64_t features)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct net_backend b;
	struct net_tap tap;
	struct err e = {0};

	assert_non_null(f);
	assert_int_equal(net_tap_open(&f->tap, NAME, &b, &e), 0);
	tap = f->tap;
	nx_open(&f->n, &b, 0);
	f->tap = tap;
	f->n.buffer_bytes = 1536;
	host_up(f);
	assert_int_equal(virtio_mmio_start(&f->n.n.mmio, NULL, NULL, &e), 0);
	up(f, features);
	return f;
}

static void fini(struct fixture *f)
{
	nx_close(&f->n);
	net_tap_close(&f->tap);
	net_tap_close(&f->tap);
	close(f->fd);
	free(f);
}

/* The next datagram for the guest, of a length; waits for it, and passes others over. */
static const unsigned char *next_udp(struct fixture *f, unsigned *ret_len)
{
	for (;;) {
		const unsigned char *frame = f->frame + NET_HEADER_BYTES, *ip = frame + ETHER;
		uint32_t len = nx_receive(&f->n, f->frame, true);

		if (!len)
			sched_yield();
		if (len < NET_HEADER_BYTES + ETHER + 28 || get16(frame + 12) != 0x0800 ||
		    ip[9] != IPPROTO_UDP)
			continue;
		*ret_len = len - NET_HEADER_BYTES - ETHER - 28;
		return ip + 28;
	}
}

static struct sockaddr_in guest_addr(void)
{
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(4000),
				    .sin_addr = {htonl(GUEST_IP)}};
}

static void host_sends(struct fixture *f, const void *data, size_t len)
{
	struct sockaddr_in to = guest_addr();

	assert_int_equal(sendto(f->fd, data, len, 0, (struct sockaddr *)&to, sizeof(to)), len);
}

/* ---- tests ---- */

static void both_ways(void **state)
{
	static const bool partial[] = {false, true};
	unsigned char data[1400], back[1500];
	const unsigned char *said;
	unsigned len;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 13);
	for (unsigned i = 0; i < ARRAY_LEN(partial); i++) {
		struct fixture *f = init(partial[i] ? NET_F_CSUM | NET_F_GUEST_CSUM : 0);

		send_udp(f, data, sizeof(data), partial[i]);
		assert_int_equal(recv(f->fd, back, sizeof(back), 0), sizeof(data));
		assert_memory_equal(back, data, sizeof(data));
		host_sends(f, data, 1000);
		said = next_udp(f, &len);
		assert_int_equal(len, 1000);
		assert_memory_equal(said, data, 1000);
		/* Its checksum was made, or left to a driver that asked for it. */
		if (!partial[i])
			assert_int_equal(f->frame[0] & 1, 0);
		fini(f);
	}
}

/* Frames of an interface with a larger MTU than most, in as many buffers as they need. */
static void large_frames(void **state)
{
	struct fixture *f = init(0);
	struct ifreq r = {.ifr_name = NAME, .ifr_mtu = 9000};
	unsigned char data[8900];
	const unsigned char *said;
	unsigned len;

	(void)state;
	assert_int_equal(ioctl(f->fd, SIOCSIFMTU, &r), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 17);
	host_sends(f, data, sizeof(data));
	said = next_udp(f, &len);
	assert_int_equal(len, sizeof(data));
	assert_memory_equal(said, data, sizeof(data));
	fini(f);
}

/*
 * A flood for a guest that takes nothing: the kernel keeps what its queue holds and loses the
 * rest. What comes afterwards is taken.
 */
static void flood_to_the_guest(void **state)
{
	struct fixture *f = init(0);
	unsigned char data[1000] = {0};
	unsigned len, last = 0;

	(void)state;
	for (unsigned i = 1; i <= 5000; i++) {
		put16(data, i);
		host_sends(f, data, sizeof(data));
	}
	while (last < 6000) {
		unsigned n = get16(next_udp(f, &len));

		assert_true(n > last || n == 6000);
		last = n;
		put16(data, 6000);
		host_sends(f, data, sizeof(data));
	}
	fini(f);
}

/* Headers that make no sense are the kernel's to refuse; the device goes on. */
static void wrong_headers(void **state)
{
	static const unsigned char headers[][NET_HEADER_BYTES] = {
		{1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, /* a checksum far behind the frame */
		{0, 0xff},                                  /* segments of no known kind */
		{1, 1, 0xff, 0xff, 1, 0, 34, 0, 16, 0},     /* a header longer than the frame */
	};
	struct fixture *f = init(NET_F_CSUM | NET_F_HOST_TSO4);
	unsigned char frame[64] = {0}, back[16];

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(headers); i++)
		nx_send_with(&f->n, headers[i], frame, sizeof(frame));
	send_udp(f, "after", 5, false);
	assert_int_equal(recv(f->fd, back, sizeof(back), 0), 5);
	assert_true(nx_stats(&f->n).dropped > 0);
	assert_int_equal(vx_reg(&f->n.x, 0x070), 15);
	fini(f);
}

/* What waited for the driver before, however much, is not in this one's form. */
static void old_frames_are_dropped(void **state)
{
	struct fixture *f = init(NET_F_GUEST_CSUM);
	unsigned char data[4] = "old";
	unsigned len;

	(void)state;
	vx_set(&f->n.x, 0x070, 0);
	for (unsigned i = 0; i < 3; i++)
		host_sends(f, data, 4);
	up(f, 0);
	host_sends(f, "new", 4);
	assert_string_equal((const char *)next_udp(f, &len), "new");
	fini(f);
}

/* In the middle of a flood both ways, and again and again. */
static void reset_in_flight(void **state)
{
	struct fixture *f = init(0);
	unsigned char back[8];
	unsigned len;

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 30; i++) {
			send_udp(f, "flood", 5, false);
			host_sends(f, "flood", 5);
		}
		nx_up(&f->n, NX_MRG, 256);
		for (uint16_t i = 0; i < 256; i++)
			nx_post(&f->n, i);
		/* The socket's queue is shorter than the flood. */
		while (recv(f->fd, back, sizeof(back), MSG_DONTWAIT) > 0)
			;
	}
	send_udp(f, "last", 4, false);
	while (recv(f->fd, back, sizeof(back), 0) != 4)
		;
	assert_memory_equal(back, "last", 4);
	host_sends(f, "last", 4);
	while (memcmp(next_udp(f, &len), "last", 4) != 0)
		;
	assert_int_equal(len, 4);
	fini(f);
}

static void removed(void **state)
{
	struct fixture *f = init(0);

	(void)state;
	assert_int_equal(system("ip link delete " NAME), 0);
	while (vx_reg(&f->n.x, 0x104) >> 16)
		sched_yield();
	assert_true(vx_reg(&f->n.x, 0x060) & VIRTIO_INT_CONFIG);
	assert_int_equal(vx_reg(&f->n.x, 0x070), 15);
	fini(f);
}

static void is_in_use(void **state)
{
	struct net_tap one, two;
	struct net_backend b;
	struct err e = {0};

	(void)state;
	assert_int_equal(net_tap_open(&one, NAME, &b, &e), 0);
	assert_int_equal(net_tap_open(&two, NAME, &b, &e), -EBUSY);
	assert_non_null(strstr(e.text, NAME));
	assert_int_equal(two.fd, -1);
	/* No tap at all. */
	assert_int_equal(net_tap_open(&two, "lo", &b, &e), -EINVAL);
	net_tap_close(&one);
}

/* ---- what the guest is sent ---- */

#define FEATURES_MAX 128u

static int ask_kernel(int fd, void *question)
{
	struct ifreq r = {.ifr_name = NAME, .ifr_data = question};

	return ioctl(fd, SIOCETHTOOL, &r);
}

/* Whether the interface has a feature, by the kernel's name of it: ethtool -k. */
static bool is_on(int fd, const char *name)
{
	/* Each is a head and what the kernel puts behind it. */
	uint64_t room[3][(FEATURES_MAX * ETH_GSTRING_LEN + 64) / 8] = {0};
	struct ethtool_sset_info *set = (void *)room[0];
	struct ethtool_gstrings *names = (void *)room[1];
	struct ethtool_gfeatures *features = (void *)room[2];

	*set = (struct ethtool_sset_info){.cmd = ETHTOOL_GSSET_INFO,
					  .sset_mask = 1ull << ETH_SS_FEATURES};
	assert_int_equal(ask_kernel(fd, set), 0);
	assert_true(set->data[0] <= FEATURES_MAX);
	/* Newer kernels want the very number. */
	*names = (struct ethtool_gstrings){.cmd = ETHTOOL_GSTRINGS, .string_set = ETH_SS_FEATURES,
					   .len = set->data[0]};
	assert_int_equal(ask_kernel(fd, names), 0);
	*features = (struct ethtool_gfeatures){.cmd = ETHTOOL_GFEATURES, .size = FEATURES_MAX / 32};
	assert_int_equal(ask_kernel(fd, features), 0);
	for (unsigned i = 0; i < names->len; i++)
		if (strncmp((const char *)names->data + i * ETH_GSTRING_LEN, name,
			    ETH_GSTRING_LEN) == 0)
			return features->features[i / 32].active >> i % 32 & 1;
	fail_msg("the kernel has no feature %s", name);
	return false;
}

/* The kernel sends just what the guest's driver takes; and no segments without checksums. */
static void offloads(void **state)
{
	static const struct {
		uint64_t features;
		bool checksums, tso4, tso6, ecn;
	} all[] = {
		{0, false, false, false, false},
		{NET_F_GUEST_CSUM, true, false, false, false},
		{NET_F_GUEST_CSUM | NET_F_GUEST_TSO4, true, true, false, false},
		{NET_F_GUEST_CSUM | NET_F_GUEST_TSO6, true, false, true, false},
		{NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_ECN, true, true, false, true},
		{NET_F_GUEST_CSUM | NET_F_GUEST_ECN, true, false, false, false},
		{NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_ECN, false, false, false,
		 false},
	};
	struct net_backend b;
	struct net_tap tap;
	struct err e = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(net_tap_open(&tap, NAME, &b, &e), 0);
	for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
		assert_int_equal(b.ops->features_set(b.ctx, all[i].features), 0);
		assert_int_equal(is_on(fd, "tx-checksum-ip-generic"), all[i].checksums);
		assert_int_equal(is_on(fd, "tx-tcp-segmentation"), all[i].tso4);
		assert_int_equal(is_on(fd, "tx-tcp6-segmentation"), all[i].tso6);
		assert_int_equal(is_on(fd, "tx-tcp-ecn-segmentation"), all[i].ecn);
	}
	net_tap_close(&tap);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_ways),
		cmocka_unit_test(large_frames),
		cmocka_unit_test(flood_to_the_guest),
		cmocka_unit_test(wrong_headers),
		cmocka_unit_test(old_frames_are_dropped),
		cmocka_unit_test(reset_in_flight),
		cmocka_unit_test(removed),
		cmocka_unit_test(is_in_use),
		cmocka_unit_test(offloads),
	};

	if (unshare(CLONE_NEWNET) < 0 || access("/dev/net/tun", R_OK | W_OK) < 0) {
		print_message("SKIP: no network namespace or no tap here: %s\n", strerror(errno));
		return SKIPPED;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
