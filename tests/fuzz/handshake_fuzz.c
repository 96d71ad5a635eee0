/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for what comes to the pager's sockets. The first byte's lowest bits choose: 0 what
 * a VMM says of its memory, 1 rules, 2 one rule. What must hold: regions are whole pages within
 * user memory, disjoint; what is whole stays so with more behind it; names end within their room.
 */
#include <errno.h>

#include "bytes.h"
#include "pager/handshake.h"
#include "pager/rule.h"

static void check_regions(const struct handshake *h)
{
	must(h->count > 0 && h->count <= HANDSHAKE_REGIONS_MAX);
	for (uint32_t i = 0; i < h->count; i++) {
		const struct handshake_region *r = &h->regions[i];

		must(is_pow2(r->page_bytes) && r->page_bytes >= 4096 && r->page_bytes <= 2 << 20);
		must(r->bytes > 0 && r->bytes % r->page_bytes == 0 && r->hva % r->page_bytes == 0);
		must(r->hva + r->bytes > r->hva && r->hva + r->bytes <= 1ull << 56);
		must(r->offset + r->bytes > r->offset);
		for (uint32_t k = 0; k < i; k++)
			must(h->regions[k].hva + h->regions[k].bytes <= r->hva ||
			     r->hva + r->bytes <= h->regions[k].hva);
	}
}

static void one_handshake(const char *text, size_t len)
{
	struct handshake h, again;
	struct err e = {0};
	int rc = handshake_parse(text, len, &h, &e);

	must(rc == 0 || rc == -EAGAIN || (rc == -EINVAL && *e.text));
	if (rc != 0)
		return;
	check_regions(&h);
	must(handshake_fits(&h, UINT64_MAX, &e) == 0);
	for (size_t less = 0; less < len; less++)
		if (handshake_parse(text, less, &again, &e) == 0)
			must(again.count == h.count &&
			     memcmp(again.regions, h.regions, h.count * sizeof(h.regions[0])) == 0);
}

static int take_rule(void *ctx, const struct rule *r, struct err *e)
{
	(void)ctx;
	(void)e;
	must(memchr(r->socket, '\0', sizeof(r->socket)) && *r->socket);
	must(memchr(r->uri, '\0', sizeof(r->uri)) && *r->uri);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data + 1;
	struct rule r;
	struct err e = {0};

	if (size < 1)
		return 0;
	switch (data[0] & 3) {
	case 0:
		/* Each prefix is parsed as well. */
		one_handshake(text, size - 1 < 2048 ? size - 1 : 2048);
		break;
	case 1:
		must(rules_parse(text, size - 1, take_rule, NULL, &e) == 0 || *e.text);
		break;
	default:
		if (rule_parse(text, size - 1, &r, &e) == 0)
			(void)take_rule(NULL, &r, &e);
		else
			must(*e.text);
	}
	return 0;
}
