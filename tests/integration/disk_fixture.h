/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A swap file on a device that gets into trouble: a disk to be made, 8 MiB of guest memory to be
 * written to it, and what must hold whatever the trouble was. Needs root.
 */
#ifndef TESTS_INTEGRATION_DISK_FIXTURE_H
#define TESTS_INTEGRATION_DISK_FIXTURE_H

#include "loop_fixture.h"
#include "swap_fixture.h"

#include <sched.h>
#include <sys/mount.h>

#define PAGES 2048u
#define DISK (64 * MIB)

static inline void write_all(struct vm *v, uint64_t round)
{
	for (uint64_t i = 0; i < PAGES; i++)
		write_page(v, i, round);
}

static inline void check_all(struct vm *v, uint64_t round)
{
	for (uint64_t i = 0; i < PAGES; i++)
		check_page(v, i, round);
}

/* A loop device of 64 MiB in a tmpfs of `room`, mounted at v->folder/back. */
struct disk {
	char back[160], dev[64], fs[160];
	int loop; /* of the device, which goes with the last one that has it open; -1: none */
};

static inline bool disk_make(struct vm *v, struct disk *d, const char *room)
{
	char text[400];
	int file;
	bool ok;

	d->loop = -1;
	snprintf(d->back, sizeof(d->back), "%s/back", v->folder);
	snprintf(d->fs, sizeof(d->fs), "%s/fs", v->folder);
	assert_int_equal(mkdir(d->back, 0700), 0);
	assert_int_equal(mkdir(d->fs, 0700), 0);
	snprintf(text, sizeof(text), "size=%s", room);
	if (mount("asyncpf-test", d->back, "tmpfs", 0, text) < 0)
		return false;
	snprintf(text, sizeof(text), "%s/disk", d->back);
	file = open(text, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ok = file >= 0 && ftruncate(file, (off_t)DISK) == 0;
	if (ok)
		d->loop = loop_attach(file, d->dev);
	ok &= d->loop >= 0;
	close(file);
	if (!ok)
		return false;
	/*
	 * The loop driver takes a write that its file took a part of for a success (6.18): what
	 * it is given must be taken wholly or not at all.
	 */
	snprintf(text, sizeof(text), "echo 4 > /sys/block/%s/queue/max_sectors_kb",
		 strrchr(d->dev, '/') + 1);
	return system(text) == 0;
}

static inline void disk_room(struct disk *d, const char *room)
{
	char options[40];

	snprintf(options, sizeof(options), "size=%s", room);
	assert_int_equal(mount("asyncpf-test", d->back, "tmpfs", MS_REMOUNT, options), 0);
}

static inline void disk_end(struct vm *v, struct disk *d)
{
	if (d->loop >= 0)
		close(d->loop);
	/* The device lets go of its file a moment later. */
	for (int ms = 0; ms < 5000 && umount(d->back) < 0 && errno == EBUSY; ms++)
		usleep(1000);
	assert_int_equal(rmdir(d->back), 0);
	assert_int_equal(rmdir(d->fs), 0);
	(void)unlink(v->swap);
}

/*
 * What was written (round 3) cannot be evicted: the VM is paused, all of its memory is there, and
 * once the trouble is over it goes on without a wrong byte. The library is closed then.
 */
static inline void fails_then_goes_on(struct vm *v, void (*mend)(void *ctx), void *ctx)
{
	struct apf_error why;

	assert_true(apf_evict(v->a, 0, NULL, &v->e) < 0);
	wait_for(&v->pauses, 1);
	assert_non_null(strstr(v->paused, "swap file"));
	assert_int_equal(apf_is_paused(v->a), 1);
	assert_true(apf_trouble_get(v->a, &why) < 0);
	/* Nothing has changed: it pauses again. */
	apf_resume(v->a);
	wait_for(&v->pauses, 2);
	mend(ctx);
	apf_resume(v->a);
	wait_for(&v->resumes, 1);
	evict_all(v);
	assert_int_equal(apf_trouble_get(v->a, NULL), 0);
	check_all(v, 3);
	write_all(v, 4);
	evict_all(v);
	check_all(v, 4);
	apf_close(v->a);
	v->a = NULL;
}

/* What is mounted goes with this program, whatever becomes of it. */
static inline void disk_own_mounts(void)
{
	if (unshare(CLONE_NEWNS) == 0)
		(void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

#endif
