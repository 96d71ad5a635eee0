/* SPDX-License-Identifier: Apache-2.0 */
/* What `--net` says. See run.h. Test: tests/unit/run_opts_test.c. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/opts.h"
#include "cli/run/run.h"
#include "vmm/virtio/net_tap.h"

#define LOOPBACK 0x7f000001u
#define PORT_MAX 65535u

static int bad(const char *text, const char *word, const char *why, struct err *e)
{
	return err_set(e, -EINVAL, "bad value: --net %.60s: '%.60s': %s", text, word, why);
}

static bool take_port(const char *text, uint16_t *ret)
{
	uint64_t n;

	if (!text || opts_number(text, &n) < 0 || n == 0 || n > PORT_MAX)
		return false;
	*ret = (uint16_t)n;
	return true;
}

/* PROTOCOL:[ADDRESS:]PORT:GUEST_PORT */
static bool take_forward(char *text, struct net_forward *ret)
{
	char *save = NULL, *part[4] = {NULL};
	const char *protocol = strtok_r(text, ":", &save);
	unsigned count = 0;
	struct in_addr addr = {htonl(LOOPBACK)};

	while (count < ARRAY_LEN(part) && (part[count] = strtok_r(NULL, ":", &save)))
		count++;
	if (!protocol || count < 2 || count > 3)
		return false;
	if (count == 3 && inet_pton(AF_INET, part[0], &addr) != 1)
		return false;
	ret->udp = strcmp(protocol, "udp") == 0;
	ret->host_addr = ntohl(addr.s_addr);
	return (ret->udp || strcmp(protocol, "tcp") == 0) &&
	       take_port(part[count - 2], &ret->host_port) &&
	       take_port(part[count - 1], &ret->guest_port);
}

static bool take_mac(const char *text, uint8_t ret[NET_MAC_BYTES])
{
	static const uint8_t none[NET_MAC_BYTES];

	for (unsigned i = 0; i < NET_MAC_BYTES; i++, text += 3) {
		char digits[3] = {text[0], text[0] ? text[1] : '\0'};
		char *end;

		ret[i] = (uint8_t)strtoul(digits, &end, 16);
		if (end != digits + 2 || digits[0] == '-' || digits[0] == '+' || digits[0] == ' ' ||
		    text[2] != (i + 1 < NET_MAC_BYTES ? ':' : '\0'))
			return false;
	}
	/* One of a group's is nobody's, nor is that of no card. */
	return !(ret[0] & 1) && memcmp(ret, none, sizeof(none)) != 0;
}

#define GIVEN_TWICE "it is given twice; leave one out"

static int take_flag(const char *all, const char *word, bool *flag, struct err *e)
{
	if (*flag)
		return bad(all, word, GIVEN_TWICE, e);
	*flag = true;
	return 0;
}

static int take_word(const char *all, char *word, struct machine_net *n, struct err *e)
{
	char *value = strchr(word, '=');
	bool is_user = !n->tap;

	if (strcmp(word, "restrict") == 0 && is_user)
		return take_flag(all, word, &n->restricted, e);
	if (strcmp(word, "host") == 0 && is_user)
		return take_flag(all, word, &n->host, e);
	value = value ? value + 1 : word + strlen(word);
	if ((strncmp(word, "mac=", 4) == 0 && n->has_mac) ||
	    (strncmp(word, "bw=", 3) == 0 && n->bytes_per_s))
		return bad(all, word, GIVEN_TWICE, e);
	if (strncmp(word, "mac=", 4) == 0) {
		n->has_mac = take_mac(value, n->mac);
		return n->has_mac ? 0 : bad(all, word, "no hardware address of a card; write "
					    "six pairs of digits, as in 02:00:00:00:00:01", e);
	}
	if (strncmp(word, "bw=", 3) == 0) {
		if (opts_size(value, &n->bytes_per_s) < 0 || n->bytes_per_s == 0)
			return bad(all, word, "no rate; give bytes per second (64M), above 0, or "
				   "leave it out", e);
		return 0;
	}
	if (strncmp(word, "fwd=", 4) != 0 || !is_user)
		return bad(all, word, is_user ? "there is no such word for user; it takes fwd=, "
						"restrict, host, mac= and bw="
					      : "there is no such word for tap; it takes mac= and "
						"bw=", e);
	if (n->forwards_count == NET_USER_FORWARDS_MAX)
		return bad(all, word, "16 ports at most can be forwarded", e);
	if (take_forward(value, &n->forwards[n->forwards_count])) {
		n->forwards_count++;
		return 0;
	}
	return bad(all, "fwd=", "no forwarded port; write fwd=tcp:8080:80 "
		   "(PROTOCOL:PORT:GUEST_PORT), tcp or udp, with an IPv4 address of this machine "
		   "before PORT if need be", e);
}

static bool same_port(const struct net_forward *a, const struct net_forward *b)
{
	return a->udp == b->udp && a->host_addr == b->host_addr && a->host_port == b->host_port;
}

/* What libslirp would let in and not out again, and one port for two. */
static int check_user(const char *text, const struct machine_net *n, struct err *e)
{
	for (unsigned i = 0; i < n->forwards_count; i++)
		for (unsigned k = 0; k < i; k++)
			if (same_port(&n->forwards[i], &n->forwards[k]))
				return bad(text, "fwd=", "one port is forwarded twice; leave one "
					   "out, or give another", e);
	if (n->restricted && n->host)
		return bad(text, "host", "restrict keeps the guest from it; leave one out", e);
	for (unsigned i = 0; i < n->forwards_count; i++) {
		if (!n->forwards[i].udp)
			continue;
		if (n->restricted)
			return bad(text, "fwd=udp", "restrict lets the guest's answers by UDP not "
				   "out; leave one out, or forward tcp", e);
		if (n->forwards[i].host_addr >> 24 == LOOPBACK >> 24 && !n->host)
			return bad(text, "fwd=udp", "the guest may not answer this machine's own "
				   "127.0.0.1 by UDP; add host, or name another address", e);
	}
	return 0;
}

int run_net_parse(const char *text, char words[static RUN_NET_BYTES], struct machine_net *ret,
		  struct err *e)
{
	char *save = NULL, *word;
	int rc = 0;

	*ret = (struct machine_net){.tap = NULL};
	if (strlen(text) >= RUN_NET_BYTES)
		return bad(text, "", "it is too long; use fewer words", e);
	memcpy(words, text, strlen(text) + 1);
	word = strtok_r(words, ",", &save);
	if (word && strncmp(word, "tap=", 4) == 0) {
		ret->tap = word + 4;
		if (!*ret->tap || strlen(ret->tap) > NET_TAP_NAME_MAX || strchr(ret->tap, '/'))
			return bad(text, word, "no name of an interface; write tap=NAME", e);
	} else if (!word || strcmp(word, "user") != 0) {
		return bad(text, word ? word : "", "there is no such network; write user or "
			   "tap=NAME", e);
	}
	while (rc == 0 && (word = strtok_r(NULL, ",", &save)))
		rc = take_word(text, word, ret, e);
	return rc < 0 ? rc : check_user(text, ret, e);
}
