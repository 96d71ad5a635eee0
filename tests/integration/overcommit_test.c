/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is taken away and comes back: by the public interface, without and with a guest
 * that verifies every byte. Real memory, a real swap file, a real /dev/kvm.
 *
 * usage: overcommit_test [ROUNDS]    of the guest, over its pages; 6
 */
#include "swap_fixture.h"
#include "need_kvm.h"

#include <pthread.h>
#include <sys/mman.h>

#define GUEST_PAGES 768u

static uint32_t rounds = 6;

/* A VM that runs, whose first pages have been written. */
static void vm_written(struct vm *v, uint64_t pages)
{
	vm_prepare(v);
	vm_start(v);
	for (uint64_t i = 0; i < pages; i++)
		write_page(v, i, 0);
}

static void what_was_written_comes_back(void **state)
{
	const uint64_t pages = RAM / PAGE_BYTES;
	struct apf_stats s;
	struct vm v;

	(void)state;
	vm_written(&v, pages);
	assert_int_equal(stats(&v).bytes_resident, RAM);
	evict_all(&v);
	s = stats(&v);
	assert_int_equal(s.evicted, pages);
	/* Zeroes are dropped without a write. */
	assert_int_equal(s.unmapped_zero, (pages + 4) / 5);
	assert_int_equal(s.swapped, pages - (pages + 4) / 5);
	assert_int_equal(s.bytes_swapped, s.swapped * PAGE_BYTES);
	for (uint64_t i = 0; i < pages; i++)
		check_page(&v, pages - 1 - i, 0);
	assert_int_equal(stats(&v).refaulted, pages);
	/* Half of them written to anew: only these are written out again. */
	for (uint64_t i = 0; i < pages; i += 2)
		write_page(&v, i, 1);
	evict_all(&v);
	s = stats(&v);
	assert_true(s.swapped <= pages - (pages + 4) / 5 + pages / 2);
	assert_true(s.unmapped_clean > 0);
	for (uint64_t i = 0; i < pages; i++)
		check_page(&v, i, i % 2 ? 0 : 1);
	vm_end(&v);
}

static void the_limit_is_kept(void **state)
{
	const uint64_t pages = RAM / PAGE_BYTES;
	struct prng rng;
	uint64_t *round = calloc(pages, sizeof(*round));
	struct vm v;

	(void)state;
	vm_prepare(&v);
	v.c.resident_max = 6 * MIB;
	vm_start(&v);
	assert_non_null(round);
	for (uint64_t i = 0; i < pages; i++) {
		write_page(&v, i, 0);
		assert_true(stats(&v).bytes_resident <= 6 * MIB);
	}
	prng_init(&rng, 5);
	for (uint64_t i = 0; i < 2 * pages; i++) {
		uint64_t page = prng_next(&rng) % pages;

		check_page(&v, page, round[page]);
		if (i % 3 == 0)
			write_page(&v, page, ++round[page]);
		assert_true(stats(&v).bytes_resident <= 6 * MIB);
	}
	for (uint64_t i = 0; i < pages; i++)
		check_page(&v, i, round[i]);
	free(round);
	vm_end(&v);
}

static void wait_resident(struct vm *v, uint64_t at_most)
{
	while (stats(v).bytes_resident > at_most)
		sched_yield();
}

/* While the VM runs: lower, higher, none, and one again where there was none. */
static void the_limit_changes(void **state)
{
	const uint64_t pages = RAM / PAGE_BYTES;
	struct vm v;

	(void)state;
	vm_written(&v, pages);
	assert_int_equal(stats(&v).bytes_resident, RAM);
	assert_int_equal(apf_resident_max_set(v.a, 5 * MIB, &v.e), 0);
	assert_int_equal(stats(&v).resident_max, 5 * MIB);
	wait_resident(&v, 5 * MIB);
	for (uint64_t i = 0; i < pages; i++) {
		check_page(&v, i, 0);
		assert_true(stats(&v).bytes_resident <= 5 * MIB);
	}
	assert_int_equal(apf_resident_max_set(v.a, 7 * MIB, &v.e), 0);
	for (uint64_t i = 0; i < pages; i++) {
		check_page(&v, i, 0);
		assert_true(stats(&v).bytes_resident <= 7 * MIB);
	}
	/* The slack aside, the new room is used. */
	assert_true(stats(&v).bytes_resident > 6 * MIB);
	assert_int_equal(apf_resident_max_set(v.a, 0, &v.e), 0);
	for (uint64_t i = 0; i < pages; i++)
		check_page(&v, i, 0);
	assert_int_equal(stats(&v).bytes_resident, RAM);
	vm_end(&v);
}

/* RAM that the kernel fills unseen is found as well: nothing was watched until then. */
static void a_first_limit_finds_what_there_is(void **state)
{
	const uint64_t pages = RAM / PAGE_BYTES;
	struct vm v;

	(void)state;
	vm_written(&v, pages / 2);
	assert_int_equal(apf_resident_max_set(v.a, 4 * MIB, &v.e), 0);
	for (uint64_t i = pages / 2; i < pages; i++)
		write_page(&v, i, 0);
	wait_resident(&v, 4 * MIB);
	for (uint64_t i = 0; i < pages; i++)
		check_page(&v, i, 0);
	vm_end(&v);
}

static void a_limit_too_low_is_refused(void **state)
{
	struct vm v;

	(void)state;
	vm_prepare(&v);
	v.c.resident_max = 6 * MIB;
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
	assert_int_equal(apf_resident_max_set(v.a, 8 * MIB, &v.e), -EINVAL);
	assert_string_equal(v.e.text, "resident_max: the VM has not been started: apf_start comes "
			    "first");
	apf_close(v.a);
	vm_start(&v);
	assert_int_equal(apf_resident_max_set(v.a, 4 * MIB - 1, &v.e), -ENOSPC);
	assert_int_equal(stats(&v).resident_max, 6 * MIB);
	/* What is pinned counts beside. */
	assert_int_equal(apf_pin(v.a, 0, 4 * MIB), 0);
	assert_int_equal(apf_resident_max_set(v.a, 4 * MIB, &v.e), -ENOSPC);
	assert_int_equal(stats(&v).resident_max, 6 * MIB);
	assert_int_equal(apf_resident_max_set(v.a, 5 * MIB, &v.e), 0);
	vm_end(&v);
}

static void pinned_memory_stays(void **state)
{
	struct vm v;

	(void)state;
	vm_written(&v, 1024);
	assert_int_equal(apf_pin(v.a, 4096, 255 * PAGE_BYTES), 0);
	assert_int_equal(apf_pin(v.a, RAM, 1), -EFAULT);
	evict_all(&v);
	assert_int_equal(stats(&v).bytes_resident, 255 * PAGE_BYTES);
	for (uint64_t i = 0; i < 1024; i++)
		check_page(&v, i, 0);
	vm_end(&v);
}

static void eviction_to_a_size_keeps_that_much(void **state)
{
	uint64_t resident = 0;
	struct vm v;

	(void)state;
	vm_written(&v, 2048);
	assert_int_equal(apf_evict(v.a, 3 * MIB, &resident, &v.e), 0);
	assert_int_equal(resident, 3 * MIB);
	assert_int_equal(apf_evict(v.a, 4 * MIB, &resident, &v.e), 0);
	assert_int_equal(resident, 3 * MIB);
	vm_end(&v);
}

static void larger_blocks_come_back_too(void **state)
{
	struct vm v;

	(void)state;
	for (uint32_t block = 8192; block <= 2 * MIB; block *= 16) {
		vm_prepare(&v);
		v.c.block_bytes = block;
		vm_start(&v);
		for (uint64_t i = 0; i < 1024; i += 3)
			write_page(&v, i, 0);
		evict_all(&v);
		for (uint64_t i = 0; i < 1024; i += 3)
			check_page(&v, i, 0);
		vm_end(&v);
	}
}

/* What is left must be enough to get on with, or everybody would wait for ever. */
static void a_limit_leaves_room_to_work(void **state)
{
	struct vm v;

	(void)state;
	vm_prepare(&v);
	v.c.resident_max = 4 * MIB - 1;
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), -EINVAL);
	assert_non_null(strstr(v.e.text, "resident_max"));
	v.c.resident_max = 16 * MIB;
	v.c.block_bytes = 2 * MIB;
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), -EINVAL);
	assert_non_null(strstr(v.e.text, "100663296")); /* 48 blocks */
	v.c.block_bytes = 4096;
	v.c.resident_max = 6 * MIB;
	vm_start(&v);
	assert_int_equal(apf_pin(v.a, 0, 5 * MIB), 0);
	assert_int_equal(apf_pin(v.a, 5 * MIB, MIB), -ENOSPC);
	for (uint64_t i = 0; i < RAM / PAGE_BYTES; i++)
		write_page(&v, i, 0);
	for (uint64_t i = 0; i < RAM / PAGE_BYTES; i++)
		check_page(&v, i, 0);
	assert_true(stats(&v).bytes_resident <= 6 * MIB);
	vm_end(&v);
}

struct crowd {
	struct vm *v;
	pthread_t evictors[3], writer;
	int ended; /* of them, by -EINTR */
};

static void *evict_until_stopped(void *arg)
{
	struct crowd *c = arg;
	int rc;

	while ((rc = apf_evict(c->v->a, 0, NULL, NULL)) == 0)
		;
	if (rc == -EINTR)
		__atomic_add_fetch(&c->ended, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void *write_until_stopped(void *arg)
{
	struct crowd *c = arg;
	uint64_t words[PAGE_BYTES / 8], i = 0;
	int rc;

	do {
		content(i % 2048 + 1, i, words);
		rc = apf_write(c->v->a, i++ % 2048 * PAGE_BYTES, words, sizeof(words));
	} while (rc == 0);
	if (rc == -EINTR)
		__atomic_add_fetch(&c->ended, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void everybody_leaves_when_it_is_stopped(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		struct vm v;
		struct crowd c = {.v = &v};

		vm_prepare(&v);
		vm_start(&v);
		for (unsigned i = 0; i < ARRAY_LEN(c.evictors); i++)
			assert_int_equal(pthread_create(&c.evictors[i], NULL, evict_until_stopped,
							&c), 0);
		assert_int_equal(pthread_create(&c.writer, NULL, write_until_stopped, &c), 0);
		usleep(round * 500);
		apf_stop(v.a);
		for (unsigned i = 0; i < ARRAY_LEN(c.evictors); i++)
			pthread_join(c.evictors[i], NULL);
		pthread_join(c.writer, NULL);
		assert_int_equal(c.ended, 4);
		vm_end(&v);
	}
}

/* ---- the swap file ---- */

static void without_a_file_nothing_is_evicted(void **state)
{
	struct vm v;

	(void)state;
	vm_prepare(&v);
	v.c.swap = NULL;
	v.c.resident_max = 8 * MIB;
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), -EINVAL);
	assert_non_null(strstr(v.e.text, "swap"));
	v.c.resident_max = 0;
	vm_start(&v);
	assert_int_equal(apf_evict(v.a, 0, NULL, &v.e), -EINVAL);
	assert_non_null(strstr(v.e.text, "no swap file"));
	vm_end(&v);
}

/* ---- trouble ---- */

static void *read_all(void *arg)
{
	struct vm *v = arg;

	for (uint64_t i = 0; i < 512; i++)
		check_page(v, i, 0);
	return NULL;
}

static void failing_reads_pause_and_nothing_is_lost(void **state)
{
	pthread_t reader;
	struct vm v;

	(void)state;
	vm_prepare(&v);
	v.c.retries_max = 1;
	v.c.swap_wrap = "fault?fault-error-at=100&fault-error-count=4";
	vm_start(&v);
	for (uint64_t i = 0; i < 512; i++)
		write_page(&v, i, 0);
	evict_all(&v);
	assert_int_equal(pthread_create(&reader, NULL, read_all, &v), 0);
	wait_for(&v.pauses, 1);
	apf_resume(v.a);
	wait_for(&v.pauses, 2);
	apf_resume(v.a);
	pthread_join(reader, NULL);
	assert_int_equal(v.resumes, 2);
	vm_end(&v);
}

/* ---- with a guest ---- */

struct storm {
	struct fix *f;
	char swap[64];
	struct apf *a;
	pthread_t evictor, device, host;
	bool reclaim;
	int stop;
	uint64_t evictions;
};

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/*
 * Between two steps of a storm: twice as long as the last one took, which began then. Where
 * everything is emulated on one CPU, a fixed time would leave the guest next to nothing.
 */
static void rest(uint64_t began_us, uint64_t least_us)
{
	usleep((useconds_t)max_u64(2 * (now_us() - began_us), least_us));
}

static void *evict_again_and_again(void *arg)
{
	struct storm *s = arg;

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		uint64_t began = now_us();

		assert_int_equal(apf_evict(s->a, 0, NULL, NULL), 0);
		s->evictions++;
		rest(began, 3000);
	}
	return NULL;
}

/* A device that reads what the guest is working on. */
static void *read_here_and_there(void *arg)
{
	struct storm *s = arg;
	unsigned char byte;
	struct prng rng;

	prng_init(&rng, 3);
	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		uint64_t page = prng_next(&rng) % s->f->cfg.boot.pages, began = now_us();

		assert_int_equal(apf_read(s->a, (1ull << 32) + page * PAGE_BYTES, &byte, 1), 0);
		rest(began, 500);
	}
	return NULL;
}

/* The host's own reclaim takes pages out of the mapping, behind our back. */
static void *reclaim_here_and_there(void *arg)
{
	struct storm *s = arg;
	unsigned char *at = apf_memory_hva(s->a, 1ull << 32);
	struct prng rng;

	prng_init(&rng, 4);
	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		uint64_t page = prng_next(&rng) % s->f->cfg.boot.pages, began = now_us();

		assert_int_equal(madvise(at + page * PAGE_BYTES, PAGE_BYTES, MADV_DONTNEED), 0);
		rest(began, 200);
	}
	return NULL;
}

static void start_storm(void *ctx, struct apf *a, struct apf_vcpu *const *vcpus, bool first)
{
	struct storm *s = ctx;

	(void)vcpus;
	if (!first)
		return;
	s->a = a;
	assert_int_equal(pthread_create(&s->evictor, NULL, evict_again_and_again, s), 0);
	assert_int_equal(pthread_create(&s->device, NULL, read_here_and_there, s), 0);
	if (s->reclaim)
		assert_int_equal(pthread_create(&s->host, NULL, reclaim_here_and_there, s), 0);
}

static void stop_storm(void *ctx)
{
	struct storm *s = ctx;

	__atomic_store_n(&s->stop, 1, __ATOMIC_RELEASE);
	pthread_join(s->evictor, NULL);
	pthread_join(s->device, NULL);
	if (s->reclaim)
		pthread_join(s->host, NULL);
}

static struct fix *open_rewriter(struct storm *s, enum apf_faults faults, enum apf_abi abi)
{
	struct fix *f = fix_open(faults, abi, GUEST_PAGES);

	memset(s, 0, sizeof(*s));
	snprintf(s->swap, sizeof(s->swap), "/tmp/asyncpf-swap-%d", (int)getpid());
	s->f = f;
	f->cfg.boot.vcpus = 2;
	f->cfg.boot.pattern = SMALL_REWRITE;
	f->cfg.boot.rounds = rounds;
	f->cfg.apf.swap = s->swap;
	f->cfg.ctx = s;
	fix_source(f, "", "");
	return f;
}

static void close_rewriter(struct storm *s)
{
	fix_close(s->f);
	assert_int_equal(access(s->swap, F_OK), -1);
}

/* The small machine pins what its kernel needs; the image has three quarters of a MiB less. */
static void under_a_limit(enum apf_faults faults, enum apf_abi abi)
{
	struct storm s;
	struct fix *f = open_rewriter(&s, faults, abi);

	f->cfg.apf.resident_max = 18 * MIB + GUEST_PAGES * PAGE_BYTES / 2;
	fix_run(f);
	assert_int_equal(fix_pages_done(f), rounds * GUEST_PAGES);
	if (faults == APF_FAULTS_USER)
		fix_events_agree(f);
	/* Half of the pages fit. A slow swap file has more come back before they are gone. */
	assert_true(f->out.stats.evicted > GUEST_PAGES / 3);
	assert_true(f->out.stats.refaulted + f->out.stats.rescued > rounds * GUEST_PAGES / 6);
	assert_true(f->out.stats.resident_bytes <= f->cfg.apf.resident_max);
	close_rewriter(&s);
}

static void a_guest_under_a_limit_sees_what_it_wrote(void **state)
{
	(void)state;
	under_a_limit(APF_FAULTS_USER, APF_ABI_INT);
	under_a_limit(APF_FAULTS_USER, APF_ABI_PF2);
	under_a_limit(APF_FAULTS_USER, APF_ABI_LEGACY);
	under_a_limit(APF_FAULTS_STALL, APF_ABI_OFF);
	under_a_limit(APF_FAULTS_BLOCK, APF_ABI_OFF);
	under_a_limit(APF_FAULTS_KERNEL, APF_ABI_OFF);
}

static void evicted_all_the_time(enum apf_faults faults, enum apf_abi abi, uint32_t block,
				 bool reclaim)
{
	struct storm s;
	struct fix *f = open_rewriter(&s, faults, abi);

	s.reclaim = reclaim;
	f->cfg.apf.block_bytes = block;
	f->cfg.tick = start_storm;
	f->cfg.end = stop_storm;
	fix_run(f);
	assert_int_equal(fix_pages_done(f), rounds * GUEST_PAGES);
	if (faults == APF_FAULTS_USER)
		fix_events_agree(f);
	assert_true(s.evictions > 0 && f->out.stats.evicted > 0);
	close_rewriter(&s);
}

static void eviction_races_lose_nothing(void **state)
{
	(void)state;
	evicted_all_the_time(APF_FAULTS_USER, APF_ABI_INT, 4096, false);
	evicted_all_the_time(APF_FAULTS_USER, APF_ABI_INT, 16384, false);
	evicted_all_the_time(APF_FAULTS_USER, APF_ABI_PF2, 4096, false);
	evicted_all_the_time(APF_FAULTS_STALL, APF_ABI_OFF, 4096, false);
	evicted_all_the_time(APF_FAULTS_BLOCK, APF_ABI_OFF, 4096, false);
	evicted_all_the_time(APF_FAULTS_KERNEL, APF_ABI_OFF, 4096, false);
}

static void what_the_host_reclaims_comes_back(void **state)
{
	(void)state;
	evicted_all_the_time(APF_FAULTS_USER, APF_ABI_INT, 4096, true);
	evicted_all_the_time(APF_FAULTS_BLOCK, APF_ABI_OFF, 4096, true);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_comes_back),
		cmocka_unit_test(the_limit_is_kept),
		cmocka_unit_test(the_limit_changes),
		cmocka_unit_test(a_first_limit_finds_what_there_is),
		cmocka_unit_test(a_limit_too_low_is_refused),
		cmocka_unit_test(pinned_memory_stays),
		cmocka_unit_test(eviction_to_a_size_keeps_that_much),
		cmocka_unit_test(larger_blocks_come_back_too),
		cmocka_unit_test(a_limit_leaves_room_to_work),
		cmocka_unit_test(everybody_leaves_when_it_is_stopped),
		cmocka_unit_test(without_a_file_nothing_is_evicted),
		cmocka_unit_test(failing_reads_pause_and_nothing_is_lost),
		cmocka_unit_test(a_guest_under_a_limit_sees_what_it_wrote),
		cmocka_unit_test(eviction_races_lose_nothing),
		cmocka_unit_test(what_the_host_reclaims_comes_back),
	};

	need_kvm();
	if (argc > 1)
		rounds = (uint32_t)strtoul(argv[1], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
