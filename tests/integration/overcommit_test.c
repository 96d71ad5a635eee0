/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is taken away and comes back: by the public interface, without and with a guest
 * that verifies every byte. Real memory, a real swap file, a real /dev/kvm.
 *
 * usage: overcommit_test [ROUNDS]    of the guest, over its pages; 6
 */
#include "small_fixture.h"

#include <asyncpf/asyncpf.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define MIB (1ull << 20)
#define RAM (24 * MIB)
#define GUEST_PAGES 768u

static uint32_t rounds = 6;

struct vm {
	int kvm, fd;
	struct apf_config c;
	struct apf *a;
	struct apf_error e;
	char folder[64];
	char swap[128];
	char paused[320]; /* text of the last pause */
	int pauses, resumes;
};

static void on_event(void *ctx, const struct apf_event *ev)
{
	struct vm *v = ctx;

	if (ev->kind == APF_EVENT_PAUSED)
		snprintf(v->paused, sizeof(v->paused), "%s", ev->text);
	/* Last: who sees it may read the text. */
	__atomic_add_fetch(ev->kind == APF_EVENT_PAUSED ? &v->pauses : &v->resumes, 1,
			   __ATOMIC_RELEASE);
}

static void vm_prepare(struct vm *v)
{
	memset(v, 0, sizeof(*v));
	snprintf(v->folder, sizeof(v->folder), "/tmp/asyncpf-swap-XXXXXX");
	assert_non_null(mkdtemp(v->folder));
	snprintf(v->swap, sizeof(v->swap), "%s/swap", v->folder);
	v->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	do
		v->fd = ioctl(v->kvm, KVM_CREATE_VM, 0);
	while (v->fd < 0 && errno == EINTR);
	assert_true(v->fd >= 0);
	assert_int_equal(ioctl(v->fd, KVM_CREATE_IRQCHIP, 0), 0);
	apf_config_init(&v->c);
	v->c.on_event = on_event;
	v->c.on_event_ctx = v;
	v->c.swap = v->swap;
}

static void vm_start(struct vm *v)
{
	assert_int_equal(apf_open(v->fd, &v->c, &v->a, &v->e), 0);
	assert_int_equal(apf_memory_add(v->a, 0, RAM, &v->e), 0);
	if (apf_start(v->a, &v->e) < 0)
		fail_msg("%s", v->e.text);
}

static void vm_end(struct vm *v)
{
	apf_close(v->a);
	close(v->fd);
	close(v->kvm);
	(void)unlink(v->swap);
	assert_int_equal(rmdir(v->folder), 0);
}

static struct apf_stats stats(struct vm *v)
{
	struct apf_stats s = {.size = sizeof(s)};

	apf_stats_get(v->a, &s);
	return s;
}

/* What page holds after it was written in a round; every fifth one is zeroes. */
static void content(uint64_t page, uint64_t round, uint64_t *ret)
{
	struct prng rng;

	prng_init(&rng, page * 1000 + round);
	for (size_t i = 0; i < PAGE_BYTES / 8; i++)
		ret[i] = page % 5 == 0 ? 0 : prng_next(&rng);
}

static void write_page(struct vm *v, uint64_t page, uint64_t round)
{
	uint64_t words[PAGE_BYTES / 8];

	content(page, round, words);
	assert_int_equal(apf_write(v->a, page * PAGE_BYTES, words, sizeof(words)), 0);
}

static void check_page(struct vm *v, uint64_t page, uint64_t round)
{
	uint64_t words[PAGE_BYTES / 8], want[PAGE_BYTES / 8];

	content(page, round, want);
	assert_int_equal(apf_read(v->a, page * PAGE_BYTES, words, sizeof(words)), 0);
	assert_memory_equal(words, want, sizeof(words));
}

static void evict_all(struct vm *v)
{
	uint64_t resident = 0;

	if (apf_evict(v->a, 0, &resident, &v->e) < 0)
		fail_msg("%s", v->e.text);
	assert_true(resident < 2 * MIB);
}

static void what_was_written_comes_back(void **state)
{
	const uint64_t pages = RAM / PAGE_BYTES;
	struct apf_stats s;
	struct vm v;

	(void)state;
	vm_prepare(&v);
	vm_start(&v);
	for (uint64_t i = 0; i < pages; i++)
		write_page(&v, i, 0);
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

static void pinned_memory_stays(void **state)
{
	struct vm v;

	(void)state;
	vm_prepare(&v);
	vm_start(&v);
	for (uint64_t i = 0; i < 1024; i++)
		write_page(&v, i, 0);
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
	vm_prepare(&v);
	vm_start(&v);
	for (uint64_t i = 0; i < 2048; i++)
		write_page(&v, i, 0);
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

static void refused(struct vm *v, int code, const char *words)
{
	struct apf *a = NULL;
	int rc;

	assert_int_equal(apf_open(v->fd, &v->c, &a, &v->e), 0);
	assert_int_equal(apf_memory_add(a, 0, RAM, &v->e), 0);
	rc = apf_start(a, &v->e);
	if (rc != code || !strstr(v->e.text, words))
		print_error("rc %d: %s\n", rc, v->e.text);
	assert_int_equal(rc, code);
	assert_non_null(strstr(v->e.text, words));
	assert_non_null(strstr(v->e.text, v->c.swap));
	apf_close(a);
}

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void nobody_elses_file_is_overwritten(void **state)
{
	char text[8] = "";
	struct vm v;
	FILE *f;

	(void)state;
	vm_prepare(&v);
	put(v.swap, "a disk");
	refused(&v, -EEXIST, "not ours");
	f = fopen(v.swap, "re");
	assert_non_null(f);
	assert_int_equal(fread(text, 1, sizeof(text), f), 6);
	assert_string_equal(text, "a disk");
	fclose(f);
	assert_int_equal(unlink(v.swap), 0);

	assert_int_equal(mkfifo(v.swap, 0600), 0);
	refused(&v, -EINVAL, "neither");
	assert_int_equal(unlink(v.swap), 0);

	v.c.swap = "/no/such/folder/swap";
	refused(&v, -ENOENT, "No such file");
	v.c.swap = v.folder;
	refused(&v, -EISDIR, "directory");
	vm_end(&v);
}

/* Writes noise into a file. */
static void fill(const char *path, off_t from, uint64_t bytes)
{
	uint64_t words[PAGE_BYTES / 8];
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	content(1, 1, words);
	for (uint64_t at = 0; at < bytes; at += sizeof(words))
		assert_int_equal(pwrite(fd, words, sizeof(words), from + (off_t)at), sizeof(words));
	close(fd);
}

static void a_file_is_of_one_vm_and_gone_with_it(void **state)
{
	struct stat st;
	struct vm v;

	(void)state;
	vm_prepare(&v);
	vm_start(&v);
	assert_int_equal(stat(v.swap, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	refused(&v, -EBUSY, "another VM");
	write_page(&v, 1, 0);
	evict_all(&v);
	check_page(&v, 1, 0);
	apf_close(v.a);
	assert_int_equal(stat(v.swap, &st), -1);

	/* An empty one that the user made stays, without its content. */
	put(v.swap, "");
	vm_start(&v);
	write_page(&v, 1, 0);
	evict_all(&v);
	check_page(&v, 1, 0);
	apf_close(v.a);
	assert_int_equal(stat(v.swap, &st), 0);
	assert_true(st.st_size <= 4096);
	/* And what a VM left behind that was killed serves, without what it wrote. */
	assert_int_equal(truncate(v.swap, 64 * MIB), 0);
	fill(v.swap, 4096, 8 * MIB);
	vm_start(&v);
	assert_int_equal(stat(v.swap, &st), 0);
	assert_true(st.st_blocks * 512 < (off_t)MIB);
	vm_end(&v);
}

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

static void wait_for(const int *counter, int n)
{
	for (int ms = 0; ms < 20000 && __atomic_load_n(counter, __ATOMIC_ACQUIRE) < n; ms++)
		usleep(1000);
	assert_true(__atomic_load_n(counter, __ATOMIC_ACQUIRE) >= n);
}

static void a_full_file_pauses_and_room_resumes(void **state)
{
	struct apf_error why;
	struct vm v;

	(void)state;
	vm_prepare(&v);
	if (mount("asyncpf-test", v.folder, "tmpfs", 0, "size=2m") < 0) {
		print_message("SKIP: a full swap file needs a mount: %s\n", strerror(errno));
		vm_end(&v);
		return;
	}
	v.c.retries_max = 1;
	vm_start(&v);
	for (uint64_t i = 0; i < 2048; i++)
		write_page(&v, i, 0);
	assert_int_equal(apf_evict(v.a, 0, NULL, &v.e), -EBUSY);
	assert_non_null(strstr(v.e.text, "No space left"));
	wait_for(&v.pauses, 1);
	assert_non_null(strstr(v.paused, "No space left"));
	assert_non_null(strstr(v.paused, "swap file"));
	assert_int_equal(apf_is_paused(v.a), 1);
	assert_int_equal(apf_trouble_get(v.a, &why), -ENOSPC);
	assert_non_null(strstr(why.text, "No space left"));

	/* Still no room: it pauses again. */
	apf_resume(v.a);
	wait_for(&v.pauses, 2);

	assert_int_equal(mount("asyncpf-test", v.folder, "tmpfs", MS_REMOUNT, "size=64m"), 0);
	apf_resume(v.a);
	wait_for(&v.resumes, 1);
	evict_all(&v);
	assert_int_equal(apf_trouble_get(v.a, NULL), 0);
	for (uint64_t i = 0; i < 2048; i++)
		check_page(&v, i, 0);
	apf_close(v.a);
	v.a = NULL;
	assert_int_equal(umount(v.folder), 0);
	vm_end(&v);
}

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
	snprintf(s->swap, sizeof(s->swap), "/tmp/asyncpf-swap-XXXXXX");
	close(mkstemp(s->swap));
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
	unlink(s->swap);
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
	/* Half of the pages fit. */
	assert_true(f->out.stats.evicted > rounds * GUEST_PAGES / 6);
	assert_true(f->out.stats.refaulted > rounds * GUEST_PAGES / 6);
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
		cmocka_unit_test(pinned_memory_stays),
		cmocka_unit_test(eviction_to_a_size_keeps_that_much),
		cmocka_unit_test(larger_blocks_come_back_too),
		cmocka_unit_test(a_limit_leaves_room_to_work),
		cmocka_unit_test(everybody_leaves_when_it_is_stopped),
		cmocka_unit_test(nobody_elses_file_is_overwritten),
		cmocka_unit_test(a_file_is_of_one_vm_and_gone_with_it),
		cmocka_unit_test(without_a_file_nothing_is_evicted),
		cmocka_unit_test(a_full_file_pauses_and_room_resumes),
		cmocka_unit_test(failing_reads_pause_and_nothing_is_lost),
		cmocka_unit_test(a_guest_under_a_limit_sees_what_it_wrote),
		cmocka_unit_test(eviction_races_lose_nothing),
		cmocka_unit_test(what_the_host_reclaims_comes_back),
	};

	fix_need_kvm();
	if (argc > 1)
		rounds = (uint32_t)strtoul(argv[1], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
