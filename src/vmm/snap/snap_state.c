/* SPDX-License-Identifier: Apache-2.0 */
/* See snap_state.h. The bytes are little-endian, as every host of ours is. */
#include "vmm/snap/snap_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fd.h"

#define MAGIC "APFSTATE"
#define FORMAT 1u
#define ALIGN 8u
#define ROOM_FIRST 65536u

struct head {
	char magic[8];
	uint32_t format;
	uint32_t sections;
	uint64_t bytes; /* behind the header */
	uint64_t hash;  /* XXH3, of them */
};

struct section {
	char name[SNAP_NAME_MAX];
	uint32_t index;
	uint32_t version;
	uint64_t len; /* without the padding to ALIGN */
};

_Static_assert(sizeof(struct head) == 32 && sizeof(struct section) == 32, "no padding");

/* ---- writing ---- */

static unsigned char *more(struct snap_out *o, size_t len)
{
	size_t room = o->room ? o->room : ROOM_FIRST;
	unsigned char *bytes;

	if (o->failed || len > SNAP_STATE_MAX - o->len)
		return NULL;
	while (room < o->len + len)
		room *= 2;
	if (room != o->room) {
		bytes = realloc(o->bytes, room);
		if (!bytes)
			return NULL;
		o->bytes = bytes;
		o->room = room;
	}
	bytes = o->bytes + o->len;
	o->len += len;
	memset(bytes, 0, len);
	return bytes;
}

void snap_put(struct snap_out *o, struct snap_key key, const void *bytes, size_t len)
{
	struct section s = {.index = key.index, .version = key.version, .len = len};
	size_t padded = align_up(len, ALIGN);
	unsigned char *at;

	if (o->len == 0 && !more(o, sizeof(struct head)))
		o->failed = true;
	strncpy(s.name, key.name, SNAP_NAME_MAX - 1);
	at = len <= SNAP_STATE_MAX ? more(o, sizeof(s) + padded) : NULL;
	if (!at) {
		o->failed = true;
		return;
	}
	memcpy(at, &s, sizeof(s));
	if (len)
		memcpy(at + sizeof(s), bytes, len);
	o->sections++;
}

int snap_out_write(struct snap_out *o, int fd, struct err *e)
{
	struct head head = {.magic = MAGIC, .format = FORMAT, .sections = o->sections};
	int rc;

	if (o->failed || o->len == 0)
		return err_set(e, -ENOMEM, "snapshot: its state takes more memory than there is");
	head.bytes = o->len - sizeof(head);
	head.hash = XXH3_64bits(o->bytes + sizeof(head), head.bytes);
	memcpy(o->bytes, &head, sizeof(head));
	rc = fd_write(fd, o->bytes, o->len);
	return rc < 0 ? err_sys(e, rc, "snapshot: writing its state") : 0;
}

void snap_out_free(struct snap_out *o)
{
	free(o->bytes);
	*o = (struct snap_out){.bytes = NULL};
}

/* ---- reading ---- */

static int no_state(struct err *e, const char *why)
{
	return err_set(e, -EBADMSG, "snapshot: the file 'state' %s", why);
}

/* The section at `at`; NULL: what is there is none. */
static bool section_at(const struct snap_in *in, size_t at, struct section *ret)
{
	if (in->len - at < sizeof(*ret))
		return false;
	memcpy(ret, in->bytes + at, sizeof(*ret));
	return ret->len <= SNAP_STATE_MAX &&
	       align_up(ret->len, ALIGN) <= in->len - at - sizeof(*ret) &&
	       memchr(ret->name, '\0', SNAP_NAME_MAX);
}

static int check(const struct snap_in *in, struct err *e)
{
	struct head head;
	struct section s;
	size_t at = sizeof(head);

	if (in->len < sizeof(head))
		return no_state(e, "is cut short");
	memcpy(&head, in->bytes, sizeof(head));
	if (memcmp(head.magic, MAGIC, sizeof(head.magic)) != 0)
		return no_state(e, "is something else");
	if (head.format != FORMAT)
		return err_set(e, -EPROTO, "snapshot: the file 'state' is of format %u, and this "
			       "program knows %u; use the asyncpf that made it", head.format,
			       FORMAT);
	if (head.bytes != in->len - sizeof(head))
		return no_state(e, "is cut short, or too long");
	if (head.hash != XXH3_64bits(in->bytes + sizeof(head), head.bytes))
		return no_state(e, "has changed since it was written");
	for (uint32_t i = 0; i < head.sections; i++) {
		if (!section_at(in, at, &s))
			return no_state(e, "has a section that is longer than it");
		at += sizeof(s) + align_up(s.len, ALIGN);
	}
	return at == in->len ? 0 : no_state(e, "has more than its sections");
}

int snap_in_take(struct snap_in *in, const void *bytes, size_t len, struct err *e)
{
	int rc;

	*in = (struct snap_in){.len = len};
	if (len > SNAP_STATE_MAX)
		return no_state(e, "is larger than any");
	in->bytes = malloc(len ? len : 1);
	if (!in->bytes)
		return err_sys(e, -ENOMEM, "snapshot: reading its state");
	if (len)
		memcpy(in->bytes, bytes, len);
	rc = check(in, e);
	if (rc < 0)
		snap_in_free(in);
	return rc;
}

/* To its end, or a byte beyond what is allowed; with as much memory as that takes. */
static int read_all(int fd, unsigned char **ret_bytes, size_t *ret_len, struct err *e)
{
	unsigned char *bytes = NULL;
	size_t len = 0, room = 0;
	ssize_t n = 1;

	while (n != 0 && len <= SNAP_STATE_MAX) {
		if (len == room) {
			unsigned char *more = realloc(bytes, room += room ? room : ROOM_FIRST);

			if (!more) {
				free(bytes);
				return err_sys(e, -ENOMEM, "snapshot: reading its state");
			}
			bytes = more;
		}
		n = read(fd, bytes + len, room - len);
		if (n < 0 && errno != EINTR) {
			int rc = err_sys(e, -errno, "snapshot: reading its state");

			free(bytes);
			return rc;
		}
		len += n > 0 ? (size_t)n : 0;
	}
	*ret_bytes = bytes;
	*ret_len = len;
	return 0;
}

int snap_in_read(struct snap_in *in, int fd, struct err *e)
{
	unsigned char *bytes = NULL;
	size_t len = 0;
	int rc = read_all(fd, &bytes, &len, e);

	*in = (struct snap_in){.len = 0};
	if (rc < 0)
		return rc;
	rc = snap_in_take(in, bytes, len, e);
	free(bytes);
	return rc;
}

void snap_in_free(struct snap_in *in)
{
	free(in->bytes);
	*in = (struct snap_in){.len = 0};
}

int snap_find(const struct snap_in *in, struct snap_key key, size_t len_max,
	      const void **ret_bytes, size_t *ret_len, struct err *e)
{
	struct section s;

	for (size_t at = sizeof(struct head); section_at(in, at, &s);
	     at += sizeof(s) + align_up(s.len, ALIGN)) {
		if (s.index != key.index || strcmp(s.name, key.name) != 0)
			continue;
		if (s.version != key.version)
			return err_set(e, -EPROTO, "snapshot: '%s' is of version %u, and this "
				       "program knows %u; use the asyncpf that made it", key.name,
				       s.version, key.version);
		if (s.len > len_max)
			return err_set(e, -EMSGSIZE, "snapshot: '%s' is too long", key.name);
		*ret_bytes = in->bytes + at + sizeof(s);
		*ret_len = s.len;
		return 0;
	}
	return err_set(e, -ENOENT, "snapshot: there is no '%s' (%u) in it", key.name, key.index);
}

int snap_take(const struct snap_in *in, struct snap_key key, void *ret, size_t len, struct err *e)
{
	const void *bytes;
	size_t got;
	int rc = snap_find(in, key, len, &bytes, &got, e);

	if (rc < 0)
		return rc;
	if (got != len)
		return err_set(e, -EMSGSIZE, "snapshot: '%s' is too short", key.name);
	memcpy(ret, bytes, len);
	return 0;
}
