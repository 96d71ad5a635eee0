/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file that says of each page of memory in which of several files its content is: a snapshot
 * that has only what changed, and those that it builds upon (docs/snapshot-format.md). Pure: bytes
 * in and out. What is read is hostile input. Test: tests/unit/source_layers_test.c.
 */
#ifndef SOURCE_LAYERS_FORMAT_H
#define SOURCE_LAYERS_FORMAT_H

#include "base/err.h"
#include "base/types.h"

#define LAYERS_MAX 64u
#define LAYERS_ID_BYTES 16u
#define LAYERS_PATH_MAX 4096u
/* The file of 64 GiB of memory with LAYERS_MAX layers is shorter. */
#define LAYERS_FILE_MAX (256ull << 20)

struct layer {
	unsigned char id[LAYERS_ID_BYTES]; /* of the snapshot whose file it is */
	char path[LAYERS_PATH_MAX]; /* of that file, from the folder of this one on, or absolute */
	/* A bit per page of 4 KiB that is in it; NULL: all that is in none before it. */
	const uint64_t *pages;
};

/* From the newest to the oldest, which has all pages; at least one. */
struct layers {
	uint64_t bytes; /* of memory; a multiple of 2 MiB */
	unsigned count;
	struct layer *all; /* LAYERS_MAX */
};

static inline uint64_t layers_words(uint64_t bytes)
{
	return bytes >> (PAGE_SHIFT + 6);
}

/* Which of them has the page. */
static inline unsigned layers_find(const struct layers *l, uint64_t page)
{
	unsigned i = 0;

	while (l->all[i].pages && !(l->all[i].pages[page / 64] >> page % 64 & 1))
		i++;
	return i;
}

/* The file's bytes, freed with free(). 0, -E2BIG: too many, or too long; -ENOMEM. */
int layers_format(const struct layers *l, void **ret, size_t *ret_len, struct err *e);
/*
 * Takes `bytes` apart, which stay the caller's and are pointed to; they are aligned to 8. After
 * success layers_free(). -EBADMSG: they are no such file, cut or changed; -EPROTO: another format.
 */
int layers_parse(const void *bytes, size_t len, struct layers *ret, struct err *e);
void layers_free(struct layers *l);

#endif
