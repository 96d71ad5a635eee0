/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eviction of a VMM's own memory: what its threads and the kernel write meanwhile, to every byte of
 * every page, is kept; what the kernel has pinned must be held. See own_fixture.h.
 */
#include "own_fixture.h"
#include "need_kvm.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SECONDS 3
#define LIMIT_S 200u

enum way { BY_POINTER, BY_READ, BY_RECVMSG, BY_URING, WAYS };

/* Each writer owns a lane of each page; together they own every byte. The ends share words. */
static const unsigned lane_begin[WAYS + 1] = {0, 1021, 2050, 3071, PAGE_BYTES};
/* What each byte must be. */
static unsigned char kept[RAM];

struct writer {
	struct own *o;
	pthread_t thread;
	enum way way;
	int *stop; /* atomic */
	int from, into; /* what is written to `into` can be read from `from` */
	struct io_uring ring;
	uint64_t rounds; /* atomic */
	bool failed;     /* atomic */
	char wrong[80]; /* empty: nothing was; the writer's until it has ended */
};

static bool is_kept(const struct own *o, uint64_t at, size_t len, char *ret_why, size_t why_bytes)
{
	const unsigned char *ram = o->m.vmm;

	if (memcmp(&ram[at], &kept[at], len) == 0)
		return true;
	while (ram[at] == kept[at])
		at++;
	snprintf(ret_why, why_bytes, "byte %llu of page %llu is %#x, not %#x",
		 (unsigned long long)(at % PAGE_BYTES), (unsigned long long)(at / PAGE_BYTES),
		 ram[at], kept[at]);
	return false;
}

static ssize_t uring_read(struct io_uring *ring, int fd, void *to, unsigned len)
{
	struct io_uring_cqe *cqe;
	ssize_t got;

	io_uring_prep_read(io_uring_get_sqe(ring), fd, to, len, 0);
	if (io_uring_submit(ring) != 1 || io_uring_wait_cqe(ring, &cqe) < 0)
		return -1;
	got = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return got;
}

static bool write_piece(struct writer *w, uint64_t at, unsigned len)
{
	unsigned char *to = (unsigned char *)w->o->m.vmm + at;
	struct iovec iov = {to, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (w->way == BY_POINTER) {
		memcpy(to, &kept[at], len);
		return true;
	}
	if (write(w->into, &kept[at], len) != (ssize_t)len)
		return false;
	if (w->way == BY_READ)
		return read(w->from, to, len) == (ssize_t)len;
	if (w->way == BY_RECVMSG)
		return recvmsg(w->from, &msg, MSG_WAITALL) == (ssize_t)len;
	return uring_read(&w->ring, w->from, to, len) == (ssize_t)len;
}

/* Writes without a look at the page first, which would bring it; looks at another one then. */
static void *write_all_the_time(void *arg)
{
	struct writer *w = arg;
	unsigned begin = lane_begin[w->way], bytes = lane_begin[w->way + 1] - begin;
	unsigned seed = w->way;

	while (!__atomic_load_n(w->stop, __ATOMIC_ACQUIRE) && !w->wrong[0]) {
		uint64_t lane = (uint64_t)rand_r(&seed) % PAGES * PAGE_BYTES + begin;
		unsigned skip = (unsigned)rand_r(&seed) % bytes;
		unsigned len = 1 + (unsigned)rand_r(&seed) % (bytes - skip);

		__atomic_add_fetch(&w->rounds, 1, __ATOMIC_RELAXED);
		for (unsigned i = 0; i < len; i++)
			kept[lane + skip + i] = (unsigned char)rand_r(&seed);
		if (!write_piece(w, lane + skip, len))
			snprintf(w->wrong, sizeof(w->wrong), "write to guest memory: %s",
				 strerror(errno));
		lane = (uint64_t)rand_r(&seed) % PAGES * PAGE_BYTES + begin;
		if (!w->wrong[0])
			(void)is_kept(w->o, lane, bytes, w->wrong, sizeof(w->wrong));
	}
	__atomic_store_n(&w->failed, w->wrong[0] != '\0', __ATOMIC_RELAXED);
	return NULL;
}

static void start_writer(struct writer *w, struct own *o, enum way way, int *stop)
{
	int ends[2] = {-1, -1};

	*w = (struct writer){.o = o, .way = way, .stop = stop};
	if (way == BY_RECVMSG)
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	else
		assert_int_equal(pipe(ends), 0);
	w->from = ends[0];
	w->into = ends[1];
	if (way == BY_URING)
		assert_int_equal(io_uring_queue_init(4, &w->ring, 0), 0);
	assert_int_equal(pthread_create(&w->thread, NULL, write_all_the_time, w), 0);
}

static void end_writer(struct writer *w)
{
	pthread_join(w->thread, NULL);
	if (w->way == BY_URING)
		io_uring_queue_exit(&w->ring);
	close(w->from);
	close(w->into);
	if (w->wrong[0])
		fail_msg("writer %d: %s", (int)w->way, w->wrong);
}

static void all_is_kept(const struct own *o, const char *when)
{
	char why[80];

	if (!is_kept(o, 0, RAM, why, sizeof(why)))
		fail_msg("%s: %s", when, why);
}

/* So many blocks went, and each way was taken: a machine in software emulation needs its time. */
static bool is_enough(const struct own *o, const struct writer *w)
{
	bool all = true;

	for (unsigned i = 0; i < WAYS; i++) {
		if (__atomic_load_n(&w[i].failed, __ATOMIC_RELAXED))
			return true; /* it says why */
		all &= __atomic_load_n(&w[i].rounds, __ATOMIC_RELAXED) >= 20;
	}
	if (!all)
		return false;
	return counter(o, APF_COUNTER_ID_evicted) > 300;
}

static void what_is_written_during_eviction_is_kept(void **state)
{
	struct timespec begun, now;
	struct writer w[WAYS];
	int stop = 0;
	struct own o;
	uint64_t rounds = 0;

	(void)state;
	for (uint64_t at = 0; at < RAM; at += 8)
		memcpy(&kept[at], &(uint64_t){word_of(at / PAGE_BYTES)}, 8);
	open_own(&o, image_uri(), true);
	for (unsigned i = 0; i < WAYS; i++)
		start_writer(&w[i], &o, i, &stop);
	clock_gettime(CLOCK_MONOTONIC, &begun);
	do {
		if (apf_evict(o.a, 0, NULL, &error) < 0)
			fail_msg("%s", error.text);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - begun.tv_sec > LIMIT_S)
			fail_msg("not enough within %u s", LIMIT_S);
	} while (now.tv_sec - begun.tv_sec < SECONDS || !is_enough(&o, w));
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < WAYS; i++) {
		end_writer(&w[i]);
		rounds += w[i].rounds;
	}
	print_message("%llu writes, %llu blocks evicted, %llu rescued\n",
		      (unsigned long long)rounds,
		      (unsigned long long)counter(&o, APF_COUNTER_ID_evicted),
		      (unsigned long long)counter(&o, APF_COUNTER_ID_rescued));
	all_is_kept(&o, "at the end");
	/* And what is in the swap file, or the source still. */
	assert_int_equal(apf_evict(o.a, 0, NULL, &error), 0);
	all_is_kept(&o, "after all was evicted");
	close_own(&o);
}

static void uring_once(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;

	assert_int_equal(io_uring_submit(ring), 1);
	assert_int_equal(io_uring_wait_cqe(ring, &cqe), 0);
	assert_int_equal(cqe->res, 8);
	io_uring_cqe_seen(ring, cqe);
}

/*
 * A device's write to a page that the kernel has pinned. True: it is there afterwards. The page is
 * evicted between the pin and the write, unless it is held.
 */
static bool pinned_write_survives(bool hold)
{
	int file = memfd_create("file", MFD_CLOEXEC);
	struct io_uring ring;
	uint64_t word = 4711;
	struct iovec buf;
	struct own o;
	bool survives;

	open_own(&o, image_uri(), true);
	assert_int_equal(io_uring_queue_init(4, &ring, 0), 0);
	assert_int_equal(pwrite(file, &word, 8, 0), 8);
	if (hold)
		assert_int_equal(apf_hold(o.a, GPA + 50 * PAGE_BYTES, PAGE_BYTES), 0);
	buf = (struct iovec){page_of(&o, 50), PAGE_BYTES};
	assert_int_equal(io_uring_register_buffers(&ring, &buf, 1), 0);
	/* What has just come may not be ready to go. */
	do
		assert_int_equal(apf_evict(o.a, 0, NULL, &error), 0);
	while (!hold && (residency(&o, 50) & APF_BLOCK_PRESENT));
	io_uring_prep_read_fixed(io_uring_get_sqe(&ring), file, buf.iov_base, 8, 0, 0);
	uring_once(&ring);
	survives = page_of(&o, 50)[0] == word;
	assert_int_equal(page_of(&o, 50)[1], word_of(50));
	io_uring_unregister_buffers(&ring);
	if (hold)
		apf_release(o.a, GPA + 50 * PAGE_BYTES, PAGE_BYTES);
	/* Also once it may go. */
	assert_int_equal(apf_evict(o.a, 0, NULL, &error), 0);
	survives &= page_of(&o, 50)[0] == word;
	io_uring_queue_exit(&ring);
	close_own(&o);
	close(file);
	return survives;
}

static void what_is_pinned_must_be_held(void **state)
{
	(void)state;
	assert_false(pinned_write_survives(false));
	assert_true(pinned_write_survives(true));
}

static void a_release_too_many_ends_nothing(void **state)
{
	struct own o;

	(void)state;
	open_own(&o, image_uri(), true);
	apf_release(o.a, GPA, PAGE_BYTES);
	assert_int_equal(apf_hold(o.a, GPA, PAGE_BYTES), 0);
	apf_release(o.a, GPA, 2 * PAGE_BYTES);
	apf_release(o.a, GPA, PAGE_BYTES);
	/* No part of RAM. */
	apf_release(o.a, GPA + RAM, PAGE_BYTES);
	assert_int_equal(apf_evict(o.a, 0, NULL, &error), 0);
	assert_false(residency(&o, 0) & APF_BLOCK_PRESENT);
	assert_int_equal(page_of(&o, 0)[1], word_of(0));
	close_own(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_during_eviction_is_kept),
		cmocka_unit_test(what_is_pinned_must_be_held),
		cmocka_unit_test(a_release_too_many_ends_nothing),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
