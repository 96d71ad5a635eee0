/* SPDX-License-Identifier: Apache-2.0 */
/* See room.h. Files are opened once: later there may be a sandbox. */
#include "rights/room.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/types.h"

#define TEXT_BYTES 8192u

/* Of cgroups, by version. */
struct names {
	const char *limit, *used;
	/* Of memory.stat: what the kernel takes back before it kills, groups within included. */
	const char *reclaimable[3];
};

static const struct names names[] = {
	{"memory.max", "memory.current",
	 {"\nactive_file ", "\ninactive_file ", "\nslab_reclaimable "}},
	{"memory.limit_in_bytes", "memory.usage_in_bytes",
	 {"\ntotal_active_file ", "\ntotal_inactive_file ", NULL}},
};

/* What is in the file now, NUL-terminated. Behind a line's end, as every line then is. */
static bool read_text(int fd, char text[TEXT_BYTES])
{
	ssize_t n = fd < 0 ? -1 : pread(fd, text + 1, TEXT_BYTES - 2, 0);

	text[0] = '\n';
	text[n > 0 ? n + 1 : 1] = '\0';
	return n > 0;
}

/* The number behind the first line's end; LIMITS_NONE for "max" and what cannot be read. */
static uint64_t read_number(int fd)
{
	char text[TEXT_BYTES], *end;
	unsigned long long value;

	if (!read_text(fd, text))
		return LIMITS_NONE;
	value = strtoull(text + 1, &end, 10);
	return end == text + 1 ? LIMITS_NONE : value;
}

static int open_file(const char *folder, const char *name, char path[LIMITS_PATH_BYTES])
{
	int n = snprintf(path, LIMITS_PATH_BYTES, "%s/%s", folder, name);

	return n > 0 && n < (int)LIMITS_PATH_BYTES ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}

static void close_group(struct room_group *g)
{
	const int fds[] = {g->limit_fd, g->used_fd, g->stat_fd};

	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static void add_group(void *ctx, const char *folder, bool first_version)
{
	const struct names *n = &names[first_version];
	struct room *r = ctx;
	struct room_group *g = &r->groups[r->count];
	char path[LIMITS_PATH_BYTES];

	if (r->count == ROOM_GROUPS_MAX)
		return;
	g->first_version = first_version;
	g->used_fd = open_file(folder, n->used, path);
	g->stat_fd = open_file(folder, "memory.stat", path);
	g->limit_fd = open_file(folder, n->limit, g->file);
	if (g->limit_fd < 0 || g->used_fd < 0) {
		close_group(g);
		return;
	}
	if (r->watch_fd >= 0)
		(void)inotify_add_watch(r->watch_fd, g->file, IN_MODIFY);
	r->count++;
}

void room_open(struct room *r, const char *root)
{
	struct sysinfo si;

	memset(r, 0, sizeof(*r));
	r->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (sysinfo(&si) == 0)
		r->swap_bytes = (uint64_t)si.totalswap * si.mem_unit;
	limits_groups(root, add_group, r);
	if (r->count > 0 || r->watch_fd < 0)
		return;
	close(r->watch_fd);
	r->watch_fd = -1;
}

void room_close(struct room *r)
{
	for (unsigned i = 0; i < r->count; i++)
		close_group(&r->groups[i]);
	if (r->count > 0 && r->watch_fd >= 0)
		close(r->watch_fd);
	r->count = 0;
}

static uint64_t reclaimable(const struct room_group *g)
{
	const char *const *keys = names[g->first_version].reclaimable;
	char text[TEXT_BYTES];
	uint64_t bytes = 0;

	if (!read_text(g->stat_fd, text))
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(names[0].reclaimable) && keys[i]; i++) {
		const char *at = strstr(text, keys[i]);

		bytes += at ? strtoull(at + strlen(keys[i]), NULL, 10) : 0;
	}
	return bytes;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

void room_look(const struct room *r, uint64_t enough, struct room_left *ret)
{
	*ret = (struct room_left){.bytes = LIMITS_NONE};
	for (unsigned i = 0; i < r->count; i++) {
		const struct room_group *g = &r->groups[i];
		uint64_t limit = read_number(g->limit_fd), used, left;

		if (limit >= LIMITS_NEVER_REACHED)
			continue;
		used = read_number(g->used_fd);
		if (used == LIMITS_NONE)
			continue;
		left = less(limit + r->swap_bytes, used);
		/* Which costs more to read than all else here. */
		if (left <= enough)
			left = less(limit + r->swap_bytes, less(used, reclaimable(g)));
		if (left < ret->bytes)
			*ret = (struct room_left){left, limit, g->file};
	}
}

void room_seen(const struct room *r)
{
	char events[4096];

	while (r->watch_fd >= 0 && read(r->watch_fd, events, sizeof(events)) > 0)
		;
}
