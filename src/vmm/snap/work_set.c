/* SPDX-License-Identifier: Apache-2.0 */
/* See work_set.h. The bytes are little-endian, as every host of ours is. */
#include "vmm/snap/work_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC "APFTOUCH"
#define FORMAT 1u
/* The highest address that is noted: RAM of 64 GiB, some of it behind a hole below 4 GiB. */
#define GPA_MAX (68ull << 30)

struct head {
	char magic[8];
	uint32_t format;
	uint32_t ranges;
	uint64_t memory_bytes; /* of the VM */
	uint64_t hash;         /* XXH3, of the ranges */
};

struct range {
	uint64_t gpa, bytes;
};

_Static_assert(sizeof(struct head) == 32 && sizeof(struct range) == 16, "no padding");

#define FILE_BYTES_MAX (sizeof(struct head) + WORK_SET_RANGES_MAX * sizeof(struct range))

/* ---- reading ---- */

static int no_set(struct err *e, const char *why)
{
	return err_set(e, -EBADMSG, "working set: the file %s", why);
}

static int check(const struct head *h, const void *ranges, size_t len, uint64_t memory_bytes,
		 struct err *e)
{
	if (memcmp(h->magic, MAGIC, sizeof(h->magic)) != 0)
		return no_set(e, "is something else");
	if (h->format != FORMAT)
		return err_set(e, -EPROTO, "working set: the file is of format %u, and this "
			       "program knows %u; record it anew", h->format, FORMAT);
	if (h->ranges > WORK_SET_RANGES_MAX || len != h->ranges * sizeof(struct range))
		return no_set(e, "is cut short, or too long");
	if (h->hash != XXH3_64bits(ranges, len))
		return no_set(e, "has changed since it was written");
	if (h->memory_bytes != memory_bytes)
		return err_set(e, -EINVAL, "working set: it was recorded of a VM of %llu bytes of "
			       "memory, and this one has %llu; record one of this VM",
			       (unsigned long long)h->memory_bytes,
			       (unsigned long long)memory_bytes);
	return 0;
}

static bool is_sound(const struct range *r)
{
	return r->bytes > 0 && r->bytes % PAGE_BYTES == 0 && r->gpa % PAGE_BYTES == 0 &&
	       r->gpa < GPA_MAX && r->bytes <= GPA_MAX - r->gpa;
}

int work_set_take(struct work_set *ret, const void *bytes, size_t len, uint64_t memory_bytes,
		  struct err *e)
{
	const unsigned char *at = bytes;
	struct head h;
	int rc;

	*ret = (struct work_set){.ranges = NULL};
	if (len < sizeof(h))
		return no_set(e, "is cut short");
	memcpy(&h, at, sizeof(h));
	at += sizeof(h);
	rc = check(&h, at, len - sizeof(h), memory_bytes, e);
	if (rc < 0)
		return rc;
	ret->ranges = calloc(h.ranges ? h.ranges : 1, sizeof(*ret->ranges));
	if (!ret->ranges)
		return err_sys(e, -ENOMEM, "working set");
	for (uint32_t i = 0; i < h.ranges; i++) {
		struct range r;

		memcpy(&r, at + i * sizeof(r), sizeof(r));
		if (!is_sound(&r)) {
			work_set_free(ret);
			return no_set(e, "names memory that no VM has");
		}
		ret->ranges[ret->count++] = (struct apf_range){.gpa = r.gpa, .len = r.bytes};
	}
	return 0;
}

int work_set_read(struct work_set *ret, int fd, uint64_t memory_bytes, struct err *e)
{
	unsigned char *bytes = malloc(FILE_BYTES_MAX + 1);
	size_t len = 0;
	ssize_t n = 1;
	int rc = 0;

	*ret = (struct work_set){.ranges = NULL};
	if (!bytes)
		return err_sys(e, -ENOMEM, "working set");
	while (rc == 0 && n != 0 && len <= FILE_BYTES_MAX) {
		n = read(fd, bytes + len, FILE_BYTES_MAX + 1 - len);
		if (n < 0 && errno != EINTR)
			rc = err_sys(e, -errno, "working set: reading it");
		len += n > 0 ? (size_t)n : 0;
	}
	if (rc == 0)
		rc = work_set_take(ret, bytes, len, memory_bytes, e);
	free(bytes);
	return rc;
}

void work_set_free(struct work_set *s)
{
	free(s->ranges);
	*s = (struct work_set){.ranges = NULL};
}

/* ---- recording ---- */

struct work_recorder {
	uint64_t memory_bytes, block_bytes, window_ns;
	uint64_t first_ns; /* of the first touch; 0: none yet */
	uint32_t count;
	uint64_t *seen; /* a bit per block, by its address */
	struct range ranges[]; /* what nobody fills takes up no memory */
};

int work_recorder_new(uint64_t memory_bytes, uint32_t block_bytes, uint64_t window_ns,
		      struct work_recorder **ret, struct err *e)
{
	struct work_recorder *r =
		calloc(1, sizeof(*r) + WORK_SET_RANGES_MAX * sizeof(struct range));

	if (r)
		r->seen = calloc(GPA_MAX / block_bytes / 64, sizeof(*r->seen));
	if (!r || !r->seen) {
		free(r);
		return err_sys(e, -ENOMEM, "working set");
	}
	r->memory_bytes = memory_bytes;
	r->block_bytes = block_bytes;
	r->window_ns = window_ns;
	*ret = r;
	return 0;
}

void work_recorder_free(struct work_recorder *r)
{
	if (r)
		free(r->seen);
	free(r);
}

void work_recorder_tell(void *ctx, const struct apf_trace *t)
{
	struct work_recorder *r = ctx;
	struct range *last = r->count ? &r->ranges[r->count - 1] : NULL;
	uint64_t block = t->gpa / r->block_bytes;

	/* A vCPU's touch, a read that somebody waits for, or that of an earlier set. */
	if (t->kind != APF_TRACE_TOUCH && t->kind != APF_TRACE_USED &&
	    (t->kind != APF_TRACE_READ || t->value != 0))
		return;
	if (r->first_ns == 0)
		r->first_ns = t->ns;
	if (t->ns - r->first_ns > r->window_ns || t->gpa >= GPA_MAX ||
	    r->seen[block / 64] >> (block % 64) & 1)
		return;
	if (last && last->gpa + last->bytes == block * r->block_bytes)
		last->bytes += r->block_bytes;
	else if (r->count < WORK_SET_RANGES_MAX)
		r->ranges[r->count++] = (struct range){block * r->block_bytes, r->block_bytes};
	else
		return;
	r->seen[block / 64] |= 1ull << (block % 64);
}

int work_recorder_write(const struct work_recorder *r, FILE *out)
{
	size_t len = r->count * sizeof(struct range);
	struct head h = {
		.magic = MAGIC,
		.format = FORMAT,
		.ranges = r->count,
		.memory_bytes = r->memory_bytes,
		.hash = XXH3_64bits(r->ranges, len),
	};

	if (fwrite(&h, sizeof(h), 1, out) != 1 || fwrite(r->ranges, 1, len, out) != len ||
	    fflush(out) != 0)
		return -EIO;
	return 0;
}
