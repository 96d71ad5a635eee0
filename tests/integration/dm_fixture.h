/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device of the kernel's device mapper, over another one: as is, failing in parts, or standing
 * still. Needs root, dm-mod, and what its targets are.
 */
#ifndef TESTS_INTEGRATION_DM_FIXTURE_H
#define TESTS_INTEGRATION_DM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/types.h"

struct dm {
	int control; /* -1: none */
	char name[32];
	unsigned number; /* /dev/dm-N */
	uint64_t sectors;
	const char *below; /* the path of the other device */
};

/* What [from, to) of it, in sectors, does; NULL or empty options: as is. */
struct dm_piece {
	uint64_t from, to;
	const char *type;
	const char *options; /* of flakey, behind its device and offset */
};

union dm_request {
	struct dm_ioctl head;
	char bytes[4096];
};

static inline int dm_call(struct dm *m, unsigned long what, union dm_request *r)
{
	memcpy(r->head.version, (uint32_t[3]){4, 0, 0}, sizeof(r->head.version));
	r->head.data_size = sizeof(*r);
	r->head.data_start = sizeof(r->head);
	snprintf(r->head.name, sizeof(r->head.name), "%s", m->name);
	return ioctl(m->control, what, r) < 0 ? -errno : 0;
}

static inline size_t dm_target(const struct dm *m, const struct dm_piece *p, char *at, size_t room)
{
	struct dm_target_spec spec = {.sector_start = p->from, .length = p->to - p->from};
	char *text = at + sizeof(spec);

	snprintf(spec.target_type, sizeof(spec.target_type), "%s", p->type);
	*text = 0;
	if (strcmp(p->type, "error") != 0)
		snprintf(text, room - sizeof(spec), "%s %llu %s", m->below,
			 (unsigned long long)p->from, p->options ? p->options : "");
	spec.next = (uint32_t)align_up(sizeof(spec) + strlen(text) + 1, 8);
	memcpy(at, &spec, sizeof(spec));
	return spec.next;
}

/* What comes is queued, until dm_go_on. */
static inline int dm_stand_still(struct dm *m)
{
	union dm_request r = {.head = {.flags = DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG}};

	return dm_call(m, DM_DEV_SUSPEND, &r);
}

/* By another table if one was loaded; no sync before, which may fail as the device does. */
static inline int dm_go_on(struct dm *m)
{
	union dm_request r = {.head = {.flags = DM_SKIP_LOCKFS_FLAG}};

	return dm_call(m, DM_DEV_SUSPEND, &r);
}

/* What is under way ends by the old table. */
static inline int dm_become(struct dm *m, const struct dm_piece *pieces, unsigned count)
{
	union dm_request r = {.head = {.target_count = count}};
	size_t used = sizeof(r.head);
	int rc;

	for (unsigned i = 0; i < count; i++)
		used += dm_target(m, &pieces[i], r.bytes + used, sizeof(r) - used);
	rc = dm_call(m, DM_TABLE_LOAD, &r);
	return rc < 0 ? rc : dm_go_on(m);
}

static inline void dm_is(struct dm *m, const char *type, const char *options)
{
	assert_int_equal(dm_become(m, &(struct dm_piece){0, m->sectors, type, options}, 1), 0);
}

static inline void dm_mend(void *ctx)
{
	dm_is(ctx, "linear", NULL);
}

/* As the device below is. */
static inline int dm_make(struct dm *m, const char *name, const char *below, uint64_t bytes)
{
	union dm_request r = {.bytes = {0}};
	int rc;

	*m = (struct dm){.below = below, .sectors = bytes / 512};
	snprintf(m->name, sizeof(m->name), "%s", name);
	m->control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (m->control < 0)
		return -errno;
	rc = dm_call(m, DM_DEV_CREATE, &r);
	if (rc < 0)
		return rc;
	m->number = (unsigned)(r.head.dev & 0xff) | (unsigned)(r.head.dev >> 12 & ~0xffull);
	return dm_become(m, &(struct dm_piece){0, m->sectors, "linear", NULL}, 1);
}

static inline void dm_end(struct dm *m)
{
	union dm_request r = {.bytes = {0}};

	if (m->control < 0)
		return;
	(void)dm_call(m, DM_DEV_REMOVE, &r);
	close(m->control);
}

#endif
