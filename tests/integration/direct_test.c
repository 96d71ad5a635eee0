/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads with O_DIRECT into adopted memory: the kernel pins the pages while a request is under way,
 * and the device writes to them whatever has become of them meanwhile. Between apf_hold and
 * apf_release that is right, whatever is evicted; without, what a slow device brings is lost.
 */
#include "own_fixture.h"
#include "need_kvm.h"

#include <liburing.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>

#include "base/prng.h"
#include "dm_fixture.h"
#include "loop_fixture.h"

#define FILE_PAGES 512u
#define RUN_MAX 16u /* pages of one read */
#define READERS 4u
#define OWN_PAGES (PAGES / READERS) /* pages that a reader reads into */
#define SECONDS 3

/* Each word of the file is another one, and none of the image's. */
static uint64_t file_word(uint64_t page, unsigned word)
{
	return 0xd15c000000000000ull | page << 16 | word;
}

static void fill(int fd)
{
	for (uint64_t page = 0; page < FILE_PAGES; page++) {
		uint64_t words[PAGE_BYTES / 8];

		for (unsigned i = 0; i < ARRAY_LEN(words); i++)
			words[i] = file_word(page, i);
		assert_int_equal(pwrite(fd, words, PAGE_BYTES, (off_t)(page * PAGE_BYTES)),
				 PAGE_BYTES);
	}
	assert_int_equal(fsync(fd), 0);
}

/*
 * A file, or a block device, whose reads go past the page cache, into the pages that they are for:
 * a tmpfs takes the flag, and copies. -1: there is none.
 */
static int open_direct(char *dev)
{
	char path[] = "/var/tmp/asyncpf-direct-XXXXXX";
	int file = mkstemp(path), fd;
	struct stat st;

	assert_true(file >= 0);
	fill(file);
	fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || major(st.st_dev) == 0) {
		/* Its file system is on no device. */
		int loop = loop_attach(file, dev);

		close(fd);
		fd = loop < 0 ? -1 : open(dev, O_RDONLY | O_DIRECT | O_CLOEXEC);
		close(loop);
	}
	assert_int_equal(unlink(path), 0);
	close(file);
	return fd;
}

/* ---- every byte ---- */

struct reader {
	const struct own *o;
	pthread_t thread;
	unsigned index;
	int fd;
	bool by_uring;
	int *stop; /* atomic */
	uint64_t reads;
};

/* In a thread, where the framework's own says nothing. */
static void must_be(const char *what, long got, long want)
{
	if (got != want)
		fail_msg("%s: %ld, not %ld; errno: %s", what, got, want, strerror(errno));
}

static bool is_file_page(const uint64_t *at, uint64_t page)
{
	for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
		if (at[i] != file_word(page, i))
			return false;
	return true;
}

static void read_by_uring(struct io_uring *ring, int fd, void *to, size_t len, off_t off)
{
	struct io_uring_cqe *cqe;

	io_uring_prep_read(io_uring_get_sqe(ring), fd, to, (unsigned)len, (uint64_t)off);
	must_be("io_uring_submit", io_uring_submit(ring), 1);
	must_be("io_uring_wait_cqe", io_uring_wait_cqe(ring, &cqe), 0);
	must_be("read by io_uring", cqe->res, (long)len);
	io_uring_cqe_seen(ring, cqe);
}

static void read_in_two(int fd, void *to, size_t len, off_t off)
{
	size_t first = len / 2 & ~(size_t)511;
	struct iovec iov[2] = {{to, first}, {(char *)to + first, len - first}};

	must_be("preadv", preadv(fd, iov, 2, off), (long)len);
}

static void *read_again_and_again(void *arg)
{
	struct reader *r = arg;
	uint64_t holds[OWN_PAGES], first = r->index * OWN_PAGES;
	struct io_uring ring;
	struct prng rng;

	for (unsigned i = 0; i < OWN_PAGES; i++)
		holds[i] = FILE_PAGES; /* the image's */
	prng_init(&rng, r->index);
	must_be("io_uring_queue_init", io_uring_queue_init(4, &ring, 0), 0);
	while (!__atomic_load_n(r->stop, __ATOMIC_ACQUIRE)) {
		uint64_t n = 1 + prng_below(&rng, RUN_MAX);
		uint64_t from = prng_below(&rng, FILE_PAGES - n);
		uint64_t at = prng_below(&rng, OWN_PAGES - n);
		uint64_t gpa = GPA + (first + at) * PAGE_BYTES, len = n * PAGE_BYTES;
		void *to = page_of(r->o, first + at);

		must_be("apf_hold", apf_hold(r->o->a, gpa, len), 0);
		if (r->by_uring)
			read_by_uring(&ring, r->fd, to, len, (off_t)(from * PAGE_BYTES));
		else
			read_in_two(r->fd, to, len, (off_t)(from * PAGE_BYTES));
		apf_release(r->o->a, gpa, len);
		for (uint64_t i = 0; i < n; i++)
			holds[at + i] = from + i;
		/* What was just read, and one that may have been evicted since. */
		for (uint64_t i = 0; i < n; i++)
			if (!is_file_page(page_of(r->o, first + at + i), from + i))
				fail_msg("page %llu", (unsigned long long)(first + at + i));
		at = prng_below(&rng, OWN_PAGES);
		if (holds[at] < FILE_PAGES && !is_file_page(page_of(r->o, first + at), holds[at]))
			fail_msg("page %llu, later", (unsigned long long)(first + at));
		r->reads++;
	}
	for (unsigned i = 0; i < OWN_PAGES; i++)
		if (holds[i] < FILE_PAGES ? !is_file_page(page_of(r->o, first + i), holds[i])
					  : page_of(r->o, first + i)[7] != word_of(first + i))
			fail_msg("page %llu, at the end", (unsigned long long)(first + i));
	io_uring_queue_exit(&ring);
	return NULL;
}

static void what_is_held_is_read_right(void **state)
{
	char dev[LOOP_DEV_MAX];
	struct reader r[READERS];
	struct timespec end, now;
	int fd = open_direct(dev), stop = 0;
	uint64_t reads = 0;
	struct own o;

	(void)state;
	if (fd < 0) {
		print_message("SKIP: no file system on a device, and no loop device\n");
		skip();
	}
	open_own(&o, image_uri(), true);
	for (unsigned i = 0; i < READERS; i++) {
		r[i] = (struct reader){.o = &o, .index = i, .fd = fd, .by_uring = i % 2,
				       .stop = &stop};
		assert_int_equal(pthread_create(&r[i].thread, NULL, read_again_and_again, &r[i]),
				 0);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += SECONDS;
	do {
		if (apf_evict(o.a, 0, NULL, &error) < 0)
			fail_msg("%s", error.text);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(r[i].thread, NULL);
		reads += r[i].reads;
	}
	print_message("%llu reads, %llu blocks evicted\n", (unsigned long long)reads,
		      (unsigned long long)counter(&o, APF_COUNTER_ID_evicted));
	assert_true(reads > READERS && counter(&o, APF_COUNTER_ID_evicted) > 0);
	close_own(&o);
	close(fd);
}

/* ---- one at a device that stands still ---- */

struct slow {
	struct dm m;
	char dev[LOOP_DEV_MAX];
	int loop, fd;
};

static bool open_slow(struct slow *s)
{
	char name[32];
	int file = memfd_create("disk", MFD_CLOEXEC), rc;

	s->m.control = -1;
	fill(file);
	s->loop = loop_attach(file, s->dev);
	close(file);
	snprintf(name, sizeof(name), "asyncpf-direct-%d", (int)getpid());
	rc = s->loop < 0 ? -ENODEV : dm_make(&s->m, name, s->dev, FILE_PAGES * PAGE_BYTES);
	if (rc < 0) {
		print_message("SKIP: loop, dm-mod: %s\n", strerror(-rc));
		return false;
	}
	snprintf(name, sizeof(name), "/dev/dm-%u", s->m.number);
	s->fd = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
	assert_true(s->fd >= 0);
	return true;
}

static void close_slow(struct slow *s)
{
	close(s->fd);
	dm_end(&s->m);
	close(s->loop);
}

struct one_read {
	int fd;
	void *to;
	pid_t tid; /* atomic */
	ssize_t got;
	pthread_t thread;
};

static void *read_one(void *arg)
{
	struct one_read *r = arg;

	__atomic_store_n(&r->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	r->got = pread(r->fd, r->to, PAGE_BYTES, 0);
	return NULL;
}

/* It has the page pinned, and waits for the device: in the kernel, for no signal. */
static void until_it_waits(struct one_read *r)
{
	char path[64], state = 0;

	while (!__atomic_load_n(&r->tid, __ATOMIC_ACQUIRE))
		usleep(1000);
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)r->tid);
	while (state != 'D') {
		FILE *f = fopen(path, "re");

		assert_non_null(f);
		assert_int_equal(fscanf(f, "%*d (%*[^)]) %c", &state), 1);
		fclose(f);
		usleep(1000);
	}
}

/* What the device brings is in the page afterwards, for whoever looks. */
static bool slow_read_survives(struct slow *s, bool hold)
{
	struct one_read r = {.fd = s->fd};
	struct own o;
	bool survives;

	open_own(&o, image_uri(), true);
	r.to = page_of(&o, 50);
	if (hold)
		assert_int_equal(apf_hold(o.a, GPA + 50 * PAGE_BYTES, PAGE_BYTES), 0);
	/* So that the read waits for nothing but the device. */
	assert_int_equal(page_of(&o, 50)[0], word_of(50));
	assert_int_equal(dm_stand_still(&s->m), 0);
	assert_int_equal(pthread_create(&r.thread, NULL, read_one, &r), 0);
	until_it_waits(&r);
	/* What has just come may not be ready to go. */
	do
		assert_int_equal(apf_evict(o.a, 0, NULL, &error), 0);
	while (!hold && (residency(&o, 50) & APF_BLOCK_PRESENT));
	assert_int_equal(dm_go_on(&s->m), 0);
	pthread_join(r.thread, NULL);
	assert_int_equal(r.got, PAGE_BYTES);
	survives = is_file_page(page_of(&o, 50), 0);
	if (!survives)
		assert_int_equal(page_of(&o, 50)[0], word_of(50));
	if (hold)
		apf_release(o.a, GPA + 50 * PAGE_BYTES, PAGE_BYTES);
	/* Also once it may go. */
	assert_int_equal(apf_evict(o.a, 0, NULL, &error), 0);
	survives &= is_file_page(page_of(&o, 50), 0);
	close_own(&o);
	return survives;
}

static void what_is_under_way_must_be_held(void **state)
{
	struct slow s;

	(void)state;
	if (!open_slow(&s))
		skip();
	assert_false(slow_read_survives(&s, false));
	assert_true(slow_read_survives(&s, true));
	close_slow(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_held_is_read_right),
		cmocka_unit_test(what_is_under_way_must_be_held),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
