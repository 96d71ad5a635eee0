/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A swap file on a device that fails for a while, as disks and networks do: the kernel's device
 * mapper lets a part of it, its writes, its reads or everything fail, until another table is
 * loaded. The VM is paused with the reason, and nothing is lost.
 */
#include "disk_fixture.h"
#include "need_kvm.h"
#include "dm_fixture.h"
#include "open_fixture.h"

#include <pthread.h>

#define SECTORS (DISK / 512)
#define FLAKY_S 4

/* ---- a VM whose swap file is such a device ---- */

struct place {
	struct vm v;
	struct disk d;
	struct dm m;
};

static void end(struct place *p)
{
	apf_close(p->v.a);
	p->v.a = NULL;
	dm_end(&p->m);
	disk_end(&p->v, &p->d);
	vm_end(&p->v);
}

static void begin(struct place *p, bool direct)
{
	char node[32];
	int rc;

	vm_prepare(&p->v);
	memset(&p->d, 0, sizeof(p->d));
	p->m.control = -1;
	rc = disk_make(&p->v, &p->d, "80m")
		     ? dm_make(&p->m, strrchr(p->v.folder, '/') + 1, p->d.dev, DISK)
		     : -ENODEV;
	if (rc == 0)
		rc = dm_become(&p->m, &(struct dm_piece){0, SECTORS, "flakey", "1 0"}, 1);
	if (rc < 0) {
		end(p);
		print_message("SKIP: mount, loop, dm-mod, dm-flakey: %s\n", strerror(-rc));
		skip();
	}
	dm_mend(&p->m);
	snprintf(node, sizeof(node), "/dev/dm-%u", p->m.number);
	assert_int_equal(symlink(node, p->v.swap), 0);
	p->v.c.retries_max = 1;
	no_direct = !direct;
	vm_start(&p->v);
	no_direct = false;
}

/* ---- trouble ---- */

/* Half of it is out before anything fails. */
static void fails_half_way(const struct dm_piece *pieces, unsigned count)
{
	for (unsigned direct = 0; direct < 2; direct++) {
		struct place p;

		begin(&p, direct);
		write_all(&p.v, 3);
		assert_int_equal(apf_evict(p.v.a, 5 * MIB, NULL, &p.v.e), 0);
		assert_int_equal(dm_become(&p.m, pieces, count), 0);
		fails_then_goes_on(&p.v, dm_mend, &p.m);
		assert_non_null(strstr(p.v.paused, "Input/output error"));
		end(&p);
	}
}

static void writes_that_fail_lose_nothing(void **state)
{
	(void)state;
	fails_half_way(&(struct dm_piece){0, SECTORS, "flakey", "0 3600 1 error_writes"}, 1);
}

static void a_device_that_is_gone_loses_nothing(void **state)
{
	(void)state;
	fails_half_way(&(struct dm_piece){0, SECTORS, "error", NULL}, 1);
}

/* Where a part of guest memory goes that was written last, and is taken last. */
static void bad_sectors_lose_nothing(void **state)
{
	const uint64_t from = 6 * MIB / 512, to = 7 * MIB / 512;
	const struct dm_piece pieces[] = {
		{0, from, "linear", NULL},
		{from, to, "error", NULL},
		{to, SECTORS, "linear", NULL},
	};

	(void)state;
	fails_half_way(pieces, ARRAY_LEN(pieces));
}

static void *check_round_3(void *arg)
{
	struct vm *v = arg;
	uint64_t words[PAGE_BYTES / 8], want[PAGE_BYTES / 8];
	intptr_t bad = 0;

	for (uint64_t i = 0; i < PAGES; i++) {
		content(i, 3, want);
		bad += apf_read(v->a, i * PAGE_BYTES, words, sizeof(words)) != 0 ||
		       memcmp(words, want, sizeof(words)) != 0;
	}
	return (void *)bad;
}

static void reads_fail(struct place *p, const char *type, const char *options)
{
	pthread_t reader;
	void *bad;

	write_all(&p->v, 3);
	evict_all(&p->v);
	dm_is(&p->m, type, options);
	assert_int_equal(pthread_create(&reader, NULL, check_round_3, &p->v), 0);
	wait_for(&p->v.pauses, 1);
	assert_non_null(strstr(p->v.paused, "Input/output error"));
	assert_int_equal(apf_trouble_get(p->v.a, NULL), -EIO);
	/* Nothing has changed: it pauses again. */
	apf_resume(p->v.a);
	wait_for(&p->v.pauses, 2);
	dm_mend(&p->m);
	apf_resume(p->v.a);
	pthread_join(reader, &bad);
	assert_null(bad);
	assert_int_equal(apf_trouble_get(p->v.a, NULL), 0);
	write_all(&p->v, 4);
	evict_all(&p->v);
	check_all(&p->v, 4);
}

static void reads_that_fail_are_made_again(void **state)
{
	(void)state;
	for (unsigned way = 0; way < 4; way++) {
		struct place p;

		begin(&p, way % 2);
		if (way < 2)
			reads_fail(&p, "error", NULL);
		else
			reads_fail(&p, "flakey", "0 3600 1 error_reads");
		end(&p);
	}
}

/* ---- up and down ---- */

struct operator {
	struct vm *v;
	pthread_t thread;
	bool end; /* atomic */
};

/* Tries again whenever it has been told, as somebody who watches would. */
static void *try_again(void *arg)
{
	struct operator *o = arg;

	while (!__atomic_load_n(&o->end, __ATOMIC_ACQUIRE)) {
		if (apf_trouble_get(o->v->a, NULL) < 0)
			apf_resume(o->v->a);
		usleep(20000);
	}
	return NULL;
}

/* A second without fault, one in which everything fails, and so on. */
static void a_flaky_device_loses_nothing(void **state)
{
	(void)state;
	for (unsigned direct = 0; direct < 2; direct++) {
		struct operator o = {0};
		struct place p;
		time_t until = time(NULL) + FLAKY_S;
		uint64_t round = 0;

		begin(&p, direct);
		o.v = &p.v;
		dm_is(&p.m, "flakey", "1 1");
		assert_int_equal(pthread_create(&o.thread, NULL, try_again, &o), 0);
		do {
			write_all(&p.v, ++round);
			(void)apf_evict(p.v.a, 0, NULL, NULL);
			check_all(&p.v, round);
		} while (time(NULL) < until);
		assert_true(__atomic_load_n(&p.v.pauses, __ATOMIC_ACQUIRE) > 0);
		dm_mend(&p.m);
		while (apf_evict(p.v.a, 0, NULL, NULL) == -EBUSY)
			usleep(1000);
		__atomic_store_n(&o.end, true, __ATOMIC_RELEASE);
		pthread_join(o.thread, NULL);
		assert_int_equal(apf_trouble_get(p.v.a, NULL), 0);
		check_all(&p.v, round);
		end(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_that_fail_lose_nothing),
		cmocka_unit_test(a_device_that_is_gone_loses_nothing),
		cmocka_unit_test(bad_sectors_lose_nothing),
		cmocka_unit_test(reads_that_fail_are_made_again),
		cmocka_unit_test(a_flaky_device_loses_nothing),
	};

	need_kvm();
	if (access("/dev/mapper/control", R_OK | W_OK) < 0) {
		printf("SKIP: /dev/mapper/control: %s\n", strerror(errno));
		return 77;
	}
	disk_own_mounts();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
