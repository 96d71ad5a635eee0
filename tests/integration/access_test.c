/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apf_read and apf_write of much memory: others get the lock meanwhile, and no byte is lost
 * while memory is taken away. Nor do they go on in memory that has left. A real VM without vCPUs.
 */
#include "bare_fixture.h"
#include "need_kvm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- others get the lock ---- */

struct probe {
	struct apf *a;
	bool on;
	uint64_t asked;
};

static void *ask(void *ctx)
{
	struct probe *p = ctx;

	while (__atomic_load_n(&p->on, __ATOMIC_ACQUIRE)) {
		(void)apf_is_paused(p->a);
		__atomic_fetch_add(&p->asked, 1, __ATOMIC_RELEASE);
		usleep(100);
	}
	return NULL;
}

static uint64_t asked(const struct probe *p)
{
	return __atomic_load_n(&p->asked, __ATOMIC_ACQUIRE);
}

#define LONG_BYTES (256 * MIB)

static void others_get_the_lock(void **state)
{
	struct probe p = {.on = true};
	unsigned char *buf = malloc(LONG_BYTES);
	struct apf_config c;
	uint64_t before, answers[3];
	int vm = open_vm();
	pthread_t thread;

	(void)state;
	assert_non_null(buf);
	memset(buf, 1, LONG_BYTES);
	apf_config_init(&c);
	p.a = start(vm, &c, LONG_BYTES);
	assert_int_equal(apf_populate(p.a, 0, LONG_BYTES), 0);
	assert_int_equal(pthread_create(&thread, NULL, ask, &p), 0);
	while (asked(&p) == 0)
		usleep(100);
	before = asked(&p);
	assert_int_equal(apf_write(p.a, 0, buf, LONG_BYTES), 0);
	answers[0] = asked(&p) - before;
	before = asked(&p);
	assert_int_equal(apf_read(p.a, 0, buf, LONG_BYTES), 0);
	answers[1] = asked(&p) - before;
	/* Nothing is copied here: 65,536 looks, some milliseconds. */
	before = asked(&p);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(apf_populate(p.a, 0, LONG_BYTES), 0);
	answers[2] = asked(&p) - before;
	__atomic_store_n(&p.on, false, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < 3; i++)
		if (answers[i] < 20)
			fail_msg("only %llu, %llu, %llu answers during a write, a read, a populate",
				 (unsigned long long)answers[0], (unsigned long long)answers[1],
				 (unsigned long long)answers[2]);
	apf_close(p.a);
	close(vm);
	free(buf);
}

/* ---- beside eviction ---- */

#define RAM (16 * MIB)
#define ACCESSORS 3u
#define ROUNDS 12u

struct accessor {
	struct apf *a;
	unsigned index;
	bool wrong;
};

/* Its own part of memory, odd bounds: pieces begin and end within blocks. */
static void *access_often(void *ctx)
{
	struct accessor *x = ctx;
	uint64_t len = RAM / ACCESSORS - 12345, at = x->index * (RAM / ACCESSORS) + 77;
	unsigned char *buf = malloc(len), *back = malloc(len);

	for (unsigned r = 0; buf && back && r < ROUNDS; r++) {
		for (uint64_t i = 0; i < len; i++)
			buf[i] = (unsigned char)(i * 7 + i / PAGE_BYTES + r + x->index);
		x->wrong |= apf_write(x->a, at, buf, len) != 0;
		x->wrong |= apf_read(x->a, at, back, len) != 0;
		x->wrong |= memcmp(buf, back, len) != 0;
	}
	x->wrong |= !buf || !back;
	free(buf);
	free(back);
	return NULL;
}

struct evictor {
	struct apf *a;
	bool on;
	uint64_t times;
	int rc;
};

static void *evict_often(void *ctx)
{
	struct evictor *v = ctx;
	struct apf_error e;

	while (__atomic_load_n(&v->on, __ATOMIC_ACQUIRE) && v->rc == 0) {
		v->rc = apf_evict(v->a, 0, NULL, &e);
		v->times++;
	}
	return NULL;
}

static void no_byte_is_lost_beside_eviction(uint32_t block_bytes, uint64_t resident_max)
{
	struct accessor x[ACCESSORS];
	struct evictor v = {.on = true};
	struct apf_counters k;
	struct apf_config c;
	char folder[] = "/tmp/asyncpf-access-XXXXXX", swap[64];
	pthread_t threads[ACCESSORS], evictor;
	int vm = open_vm();

	assert_non_null(mkdtemp(folder));
	snprintf(swap, sizeof(swap), "%s/swap", folder);
	apf_config_init(&c);
	c.swap = swap;
	c.block_bytes = block_bytes;
	c.resident_max = resident_max;
	v.a = start(vm, &c, RAM);
	assert_int_equal(pthread_create(&evictor, NULL, evict_often, &v), 0);
	for (unsigned i = 0; i < ACCESSORS; i++) {
		x[i] = (struct accessor){.a = v.a, .index = i};
		assert_int_equal(pthread_create(&threads[i], NULL, access_often, &x[i]), 0);
	}
	for (unsigned i = 0; i < ACCESSORS; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&v.on, false, __ATOMIC_RELEASE);
	pthread_join(evictor, NULL);
	assert_int_equal(v.rc, 0);
	for (unsigned i = 0; i < ACCESSORS; i++)
		assert_false(x[i].wrong);
	/* Nothing is held any more. */
	assert_int_equal(apf_evict(v.a, 0, NULL, &error), 0);
	apf_counters_get(v.a, &k, sizeof(k));
	assert_int_equal(k.resident_bytes, 0);
	assert_true(k.evicted > RAM / block_bytes && v.times > 1);
	apf_close(v.a);
	close(vm);
	(void)unlink(swap);
	(void)rmdir(folder);
}

static void small_blocks(void **state)
{
	(void)state;
	no_byte_is_lost_beside_eviction(4096, 0);
	no_byte_is_lost_beside_eviction(4096, 4 * MIB);
}

static void large_blocks(void **state)
{
	(void)state;
	no_byte_is_lost_beside_eviction(256 << 10, 0);
}

/* ---- parts that leave ---- */

#define LATE "delay+zero:?us=2000&size=1M"

struct caller {
	struct apf *a;
	int rc;
};

static void *read_until_it_has_left(void *arg)
{
	struct caller *c = arg;
	unsigned char byte;

	do
		c->rc = apf_read(c->a, LONG_BYTES, &byte, 1);
	while (c->rc == 0);
	return NULL;
}

static void *discard_until_it_has_left(void *arg)
{
	struct caller *c = arg;

	do
		c->rc = apf_discard(c->a, LONG_BYTES, MIB);
	while (c->rc == 0);
	return NULL;
}

/* One of the VMM's threads has not heard of it: it is told, whatever it is in the middle of. */
static void who_comes_too_late_for_a_part_is_told(void **state)
{
	struct apf_config config;
	int vm = open_vm();
	struct apf *a;

	(void)state;
	apf_config_init(&config);
	a = start(vm, &config, MIB);
	for (unsigned round = 0; round < 40; round++) {
		struct caller c[] = {{.a = a}, {.a = a}};
		pthread_t threads[2];

		if (apf_memory_add(a, LONG_BYTES, MIB, &error) < 0 ||
		    apf_source_add(a, LONG_BYTES, MIB, LATE, 0, NULL, &error) < 0)
			fail_msg("%s", error.text);
		pthread_create(&threads[0], NULL, read_until_it_has_left, &c[0]);
		pthread_create(&threads[1], NULL, discard_until_it_has_left, &c[1]);
		assert_int_equal(apf_memory_remove(a, LONG_BYTES, &error), 0);
		for (unsigned i = 0; i < 2; i++) {
			pthread_join(threads[i], NULL);
			assert_int_equal(c[i].rc, -EFAULT);
		}
	}
	apf_close(a);
	close(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(others_get_the_lock),
		cmocka_unit_test(small_blocks),
		cmocka_unit_test(large_blocks),
		cmocka_unit_test(who_comes_too_late_for_a_part_is_told),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
