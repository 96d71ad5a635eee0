/* SPDX-License-Identifier: Apache-2.0 */
/* See handshake.h. */
#include "pager/handshake.h"

#include <errno.h>
#include <string.h>

#include "base/types.h"
#include "pager/json_in.h"

/* Longer than the longest that means something. */
#define NAME_MAX_BYTES 64u
/* Above, there is no user memory: five levels of page tables. */
#define HVA_END (1ull << 56)

struct seen {
	bool hva, bytes, offset, page_bytes, page_size_kib, guest_memfd;
	uint64_t old_page_bytes;
};

static int take_number(struct json_in *j, uint64_t *ret, bool *seen)
{
	/* Twice: who reads the first, and who the second? */
	if (*seen)
		return -EINVAL;
	*seen = true;
	return json_in_u64(j, ret);
}

static int take_member(struct json_in *j, struct handshake_region *r, uint64_t *page_bytes,
		       struct seen *seen)
{
	char name[NAME_MAX_BYTES];
	int rc = json_in_name(j, name, sizeof(name));

	if (rc < 0)
		return rc;
	if (strcmp(name, "base_host_virt_addr") == 0)
		return take_number(j, &r->hva, &seen->hva);
	if (strcmp(name, "size") == 0)
		return take_number(j, &r->bytes, &seen->bytes);
	if (strcmp(name, "offset") == 0)
		return take_number(j, &r->offset, &seen->offset);
	if (strcmp(name, "page_size") == 0)
		return take_number(j, page_bytes, &seen->page_bytes);
	/* In bytes, whatever its name says. */
	if (strcmp(name, "page_size_kib") == 0)
		return take_number(j, &seen->old_page_bytes, &seen->page_size_kib);
	if (strcmp(name, "is_guest_memfd") == 0)
		return json_in_bool(j, &seen->guest_memfd);
	return json_in_skip(j);
}

static int check_region(const struct handshake_region *r, uint64_t page_bytes,
			const struct seen *seen, unsigned i, struct err *e)
{
	if (!seen->hva || !seen->bytes || !seen->offset)
		return err_set(e, -EINVAL, "region %u: base_host_virt_addr, size and offset are "
			       "needed", i);
	if (seen->guest_memfd)
		return err_set(e, -EINVAL, "region %u: guest_memfd is not served here", i);
	if (!is_pow2(page_bytes) || page_bytes < PAGE_BYTES || page_bytes > CHUNK_BYTES)
		return err_set(e, -EINVAL, "region %u: page size %llu: must be a power of two from "
			       "4096 to 2097152", i, (unsigned long long)page_bytes);
	if (r->bytes == 0 || r->hva % page_bytes || r->bytes % page_bytes)
		return err_set(e, -EINVAL, "region %u: %llu bytes at %#llx: not whole pages of "
			       "%llu", i, (unsigned long long)r->bytes, (unsigned long long)r->hva,
			       (unsigned long long)page_bytes);
	if (r->hva >= HVA_END || r->bytes > HVA_END - r->hva || r->offset > INT64_MAX ||
	    r->bytes > (uint64_t)INT64_MAX - r->offset)
		return err_set(e, -EINVAL, "region %u: %llu bytes at %#llx, offset %llu: beyond "
			       "what there can be", i, (unsigned long long)r->bytes,
			       (unsigned long long)r->hva, (unsigned long long)r->offset);
	return 0;
}

static int overlaps(const struct handshake *h, const struct handshake_region *r, struct err *e)
{
	for (unsigned i = 0; i < h->count; i++) {
		const struct handshake_region *o = &h->regions[i];

		if (r->hva < o->hva + o->bytes && o->hva < r->hva + r->bytes)
			return err_set(e, -EINVAL, "regions %u and %u overlap", i, h->count);
	}
	return 0;
}

static int take_region(struct json_in *j, struct handshake *h, struct err *e)
{
	struct handshake_region r = {0};
	struct seen seen = {0};
	uint64_t page_bytes = PAGE_BYTES;
	bool first = true;
	int rc = json_in_open(j, '{');

	while (rc == 0) {
		rc = json_in_more(j, '}', &first);
		if (rc <= 0)
			break;
		rc = take_member(j, &r, &page_bytes, &seen);
	}
	if (rc < 0)
		return rc == -EAGAIN ? rc : err_set(e, rc, "region %u: no JSON object of whole "
						    "numbers, each once", h->count);
	if (h->count == HANDSHAKE_REGIONS_MAX)
		return err_set(e, -EINVAL, "more than %u regions", HANDSHAKE_REGIONS_MAX);
	if (!seen.page_bytes && seen.page_size_kib)
		page_bytes = seen.old_page_bytes;
	rc = check_region(&r, page_bytes, &seen, h->count, e);
	if (rc == 0)
		rc = overlaps(h, &r, e);
	if (rc < 0)
		return rc;
	r.page_bytes = (uint32_t)page_bytes;
	h->regions[h->count++] = r;
	return 0;
}

int handshake_parse(const char *text, size_t len, struct handshake *ret, struct err *e)
{
	struct json_in j = {.at = text, .end = text + len};
	bool first = true;
	int rc = json_in_open(&j, '[');

	ret->count = 0;
	if (rc == -EINVAL)
		return err_set(e, rc, "it does not begin with a JSON array");
	while (rc == 0) {
		rc = json_in_more(&j, ']', &first);
		if (rc == -EINVAL)
			return err_set(e, rc, "behind region %u: no JSON", ret->count);
		if (rc <= 0)
			break;
		rc = take_region(&j, ret, e);
	}
	if (rc == 0 && ret->count == 0)
		return err_set(e, -EINVAL, "no region");
	return rc;
}

int handshake_fits(const struct handshake *h, uint64_t source_bytes, struct err *e)
{
	for (unsigned i = 0; i < h->count; i++) {
		const struct handshake_region *r = &h->regions[i];

		if (r->offset + r->bytes > source_bytes)
			return err_set(e, -ERANGE, "region %u: bytes %llu to %llu of a source of "
				       "%llu: it is not this VM's", i,
				       (unsigned long long)r->offset,
				       (unsigned long long)(r->offset + r->bytes - 1),
				       (unsigned long long)source_bytes);
	}
	return 0;
}
