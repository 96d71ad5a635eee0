/* SPDX-License-Identifier: Apache-2.0 */
/* See layers_format.h. The bytes are little-endian, as every host of ours is. */
#include "source/layers_format.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/sum.h"

#define MAGIC "APFLAYER"
#define FORMAT 1u

struct head {
	char magic[8];
	uint32_t format;
	uint32_t sum;
	uint64_t bytes;
	uint64_t count;
};

struct entry {
	unsigned char id[LAYERS_ID_BYTES];
	char path[LAYERS_PATH_MAX];
	unsigned char zero[16];
};

_Static_assert(sizeof(struct head) == 32 && sizeof(struct entry) % 32 == 0, "as sum_of has it");

/* A sum over the header without its sum, and over all that follows it. */
static uint32_t sum(const struct head *head, const unsigned char *bytes, size_t len)
{
	struct head without = *head;

	without.sum = 0;
	return sum_of(&without, sizeof(without)) ^
	       sum_of(bytes + sizeof(*head), len - sizeof(*head));
}

static uint64_t file_bytes(uint64_t memory, uint64_t count)
{
	return sizeof(struct head) + count * sizeof(struct entry) +
	       (count - 1) * layers_words(memory) * sizeof(uint64_t);
}

int layers_format(const struct layers *l, void **ret, size_t *ret_len, struct err *e)
{
	uint64_t map = layers_words(l->bytes) * sizeof(uint64_t);
	struct head head = {
		.magic = MAGIC, .format = FORMAT, .bytes = l->bytes, .count = l->count};
	size_t len = file_bytes(l->bytes, l->count);
	unsigned char *to = l->count <= LAYERS_MAX && len <= LAYERS_FILE_MAX ? malloc(len) : NULL;
	unsigned char *at = to + sizeof(head);

	if (!to)
		return err_set(e, l->count > LAYERS_MAX || len > LAYERS_FILE_MAX ? -E2BIG : -ENOMEM,
			       "%u snapshots upon each other: at most %u are possible", l->count,
			       LAYERS_MAX);
	for (unsigned i = 0; i < l->count; i++, at += sizeof(struct entry)) {
		struct entry entry = {.path = ""};

		memcpy(entry.id, l->all[i].id, sizeof(entry.id));
		memcpy(entry.path, l->all[i].path, strnlen(l->all[i].path, LAYERS_PATH_MAX - 1));
		memcpy(at, &entry, sizeof(entry));
	}
	for (unsigned i = 0; i + 1 < l->count; i++, at += map)
		memcpy(at, l->all[i].pages, map);
	head.sum = sum(&head, to, len);
	memcpy(to, &head, sizeof(head));
	*ret = to;
	*ret_len = len;
	return 0;
}

static int no_layers(struct err *e, const char *why)
{
	return err_set(e, -EBADMSG, "it %s", why);
}

static int check(const unsigned char *bytes, size_t len, struct head *head, struct err *e)
{
	if (len < sizeof(*head))
		return no_layers(e, "is cut short");
	memcpy(head, bytes, sizeof(*head));
	if (memcmp(head->magic, MAGIC, sizeof(head->magic)) != 0)
		return no_layers(e, "is no list of a snapshot's files");
	if (head->format != FORMAT)
		return err_set(e, -EPROTO, "it is of format %u, and this program knows %u; use the "
			       "asyncpf that made it", head->format, FORMAT);
	if (head->bytes == 0 || head->bytes % CHUNK_BYTES || head->bytes > LAYERS_FILE_MAX << 12 ||
	    head->count < 1 || head->count > LAYERS_MAX ||
	    file_bytes(head->bytes, head->count) != len)
		return no_layers(e, "is cut short, or too long");
	if (head->sum != sum(head, bytes, len))
		return no_layers(e, "has changed since it was written");
	return 0;
}

int layers_parse(const void *bytes, size_t len, struct layers *ret, struct err *e)
{
	const unsigned char *at = bytes;
	struct head head;
	int rc = check(bytes, len, &head, e);

	if (rc < 0)
		return rc;
	*ret = (struct layers){.bytes = head.bytes, .count = (unsigned)head.count};
	ret->all = calloc(LAYERS_MAX, sizeof(*ret->all));
	if (!ret->all)
		return err_sys(e, -ENOMEM, "reading it");
	at += sizeof(head);
	for (unsigned i = 0; i < ret->count; i++, at += sizeof(struct entry)) {
		struct entry entry;

		memcpy(&entry, at, sizeof(entry));
		if (!*entry.path || !memchr(entry.path, '\0', sizeof(entry.path))) {
			layers_free(ret);
			return no_layers(e, "has a path that does not end");
		}
		memcpy(ret->all[i].id, entry.id, sizeof(entry.id));
		memcpy(ret->all[i].path, entry.path, sizeof(entry.path));
	}
	for (unsigned i = 0; i + 1 < ret->count; i++) {
		ret->all[i].pages = (const uint64_t *)(const void *)at;
		at += layers_words(ret->bytes) * sizeof(uint64_t);
	}
	return 0;
}

void layers_free(struct layers *l)
{
	free(l->all);
	l->all = NULL;
}
