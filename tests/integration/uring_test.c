/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/io on real files, by the kernel's io_uring and by threads: contents in place, more reads
 * than depth, what other threads leave to the owner, what ends its sleep, cancel, refused
 * submissions and threads, closing with reads outstanding, which way is taken.
 *
 * Functions of liburing and pthread_create are interposed, to refuse where a kernel rarely does.
 */
#include "uring_fixture.h"

#include <dlfcn.h>
#include <liburing.h>
#include <linux/loop.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

/* Interposed. */

static int refuse_submit;      /* this error ... */
static unsigned refuse_count;  /* ... that many times */
static int refuse_setup;

int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr)
{
	int (*next)(struct io_uring *, unsigned) =
		(int (*)(struct io_uring *, unsigned))dlsym(RTLD_NEXT, __func__);

	if (refuse_count) {
		refuse_count--;
		return refuse_submit;
	}
	return next(ring, wait_nr);
}

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p)
{
	int (*next)(unsigned, struct io_uring *, struct io_uring_params *) =
		(int (*)(unsigned, struct io_uring *, struct io_uring_params *))
			dlsym(RTLD_NEXT, __func__);

	return refuse_setup ? refuse_setup : next(entries, ring, p);
}

static unsigned threads_made, threads_max = UINT32_MAX;

int pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
	int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
		(int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
			dlsym(RTLD_NEXT, __func__);

	if (threads_made >= threads_max)
		return EAGAIN;
	threads_made++;
	return next(id, attr, start, arg);
}

/* Tests. */

static void more_reads_than_depth(void **state)
{
	struct bed b;

	(void)state;
	bed_init(&b, 4);
	for (int cold = 0; cold < 2; cold++) {
		if (cold)
			bed_make_cold(&b);
		memset(b.bufs, 0, READS * READ_BYTES);
		b.ends = 0;
		for (unsigned i = 0; i < READS; i++) {
			b.rq[i].done = 0;
			request_read(&b.rq[i], b.file, spread(i), READ_BYTES);
		}
		assert_int_equal(bed_reap(&b), 0);
		bed_flush(&b);
		bed_reap(&b);
		bed_wait(&b, READS);
		for (unsigned i = 0; i < READS; i++)
			check_content(&b.rq[i], spread(i));
	}
	bed_fini(&b);
}

static void *flush_and_reap(void *arg)
{
	bed_flush(arg);
	bed_reap(arg);
	return NULL;
}

static void by_another_thread(struct bed *b)
{
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, flush_and_reap, b), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
}

/* The page cache answers whoever flushes: the owner is not needed. */
static void hits_need_no_owner(void **state)
{
	struct bed b;

	(void)state;
	bed_init(&b, 64);
	if (!bed_answers_at_once(&b)) {
		bed_fini(&b);
		skip();
	}
	for (unsigned i = 0; i < 64; i++)
		request_read(&b.rq[i], b.file, spread(i), READ_BYTES);
	by_another_thread(&b);
	assert_int_equal(b.ends, 64);
	assert_false(b.io.ops->due(b.io.ctx));
	for (unsigned i = 0; i < 64; i++)
		check_content(&b.rq[i], spread(i));
	bed_fini(&b);
}

/* What it does not have a ring leaves to the owner, and it is due; tried once. */
static void misses_are_left_to_the_owner(void **state)
{
	struct io_file pipe;
	struct bed b;
	int write_fd;

	(void)state;
	bed_init(&b, 1);
	pipe = pipe_open(&write_fd);
	request_read(&b.rq[0], &pipe, 0, READ_BYTES);
	by_another_thread(&b);
	assert_int_equal(b.ends, 0);
	assert_int_equal(b.io.ops->due(b.io.ctx), bed_way == IOQ_URING);
	bed_flush(&b);
	assert_false(b.io.ops->due(b.io.ctx));
	(void)ioq_wait(b.q, 0);
	assert_int_equal(bed_reap(&b), 0);
	/* Beyond the depth: nothing that the owner could do now. */
	request_read(&b.rq[1], &pipe, 0, READ_BYTES);
	by_another_thread(&b);
	assert_false(b.io.ops->due(b.io.ctx));
	/* A cancel is. */
	b.io.ops->cancel(b.io.ctx, &b.rq[0].rd);
	assert_true(b.io.ops->due(b.io.ctx));
	assert_int_equal(write(write_fd, "x", 1), 1);
	(void)close(write_fd);
	bed_wait(&b, 2);
	assert_true(b.rq[0].res == -ECANCELED || b.rq[0].res == 1 || b.rq[1].res == 1);
	(void)close(pipe.fd);
	bed_fini(&b);
}

/* A deadline and a watched descriptor end the sleep; an edge wakes once, and is not read. */
static void what_ends_a_wait(void **state)
{
	int fd[2] = {eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), eventfd(0, EFD_CLOEXEC)};
	uint64_t one = 1, start = bed_now();
	struct bed b;

	(void)state;
	bed_init(&b, 4);
	assert_int_equal(ioq_watch(b.q, fd[0], NULL), 0);
	assert_int_equal(ioq_watch(b.q, fd[1], NULL), 0);
	/* A later deadline, then a sooner one, then none: the sooner one ends it. */
	(void)ioq_wait(b.q, 0);
	bed_reap(&b);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(write(fd[1], &one, sizeof(one)), sizeof(one));
		assert_int_equal(ioq_wait(b.q, start + 3600 * NS_PER_S), 2);
		bed_reap(&b);
	}
	while (bed_now() < start + 30 * NS_PER_MS) {
		assert_int_equal(ioq_wait(b.q, start + 30 * NS_PER_MS), 0);
		bed_reap(&b);
	}
	assert_int_equal(write(fd[0], &one, sizeof(one)), sizeof(one));
	assert_int_equal(ioq_wait(b.q, NS_NEVER), 1);
	bed_reap(&b);
	(void)close(fd[0]);
	(void)close(fd[1]);
	bed_fini(&b);
}

/* `done` that reads again. */
static void done_may_read_again(void **state)
{
	struct bed b;

	(void)state;
	bed_init(&b, 2);
	b.rq[0].again = 5;
	request_read(&b.rq[0], b.file, 0, READ_BYTES);
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 6);
	b.rq[0].done = 1;
	check_content(&b.rq[0], 5 * READ_BYTES);
	bed_fini(&b);
}

static void short_and_empty_reads(void **state)
{
	struct bed b;

	(void)state;
	bed_init(&b, 4);
	request_read(&b.rq[0], b.file, FILE_BYTES - 100, READ_BYTES);
	request_read(&b.rq[1], b.file, FILE_BYTES, READ_BYTES);
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 2);
	assert_int_equal(b.rq[0].res, 100);
	assert_int_equal(b.rq[1].res, 0);
	bed_fini(&b);
}

static void bad_buffer_is_an_error_not_a_loop(void **state)
{
	struct bed b;

	(void)state;
	bed_init(&b, 4);
	b.rq[0].buf = (unsigned char *)0x10;
	request_read(&b.rq[0], b.file, 0, READ_BYTES);
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 1);
	assert_int_equal(b.rq[0].res, -EFAULT);
	bed_fini(&b);
}

static void what_may_be_opened(void **state)
{
	struct io_file *file = NULL;
	uint64_t size = 77;
	char path[128];
	struct err e;
	struct bed b;

	(void)state;
	bed_init(&b, 4);
	assert_int_equal(b.io.ops->open(b.io.ctx, "/no/such/file", &file, &size, &e), -ENOENT);
	assert_string_equal(e.text, "open /no/such/file: No such file or directory");
	assert_int_equal(b.io.ops->open(b.io.ctx, b.dir, &file, &size, &e), -EISDIR);
	assert_non_null(strstr(e.text, "is a directory"));
	assert_int_equal(b.io.ops->open(b.io.ctx, "/dev/null", &file, &size, &e), -EINVAL);
	assert_string_equal(e.text,
			    "open /dev/null: neither a regular file nor a block device; name one");
	snprintf(path, sizeof(path), "%s/fifo", b.dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(b.io.ops->open(b.io.ctx, path, &file, &size, &e), -EINVAL);
	(void)unlink(path);
	assert_null(file);
	assert_int_equal(size, 77);

	snprintf(path, sizeof(path), "%s/empty", b.dir);
	(void)close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(b.io.ops->open(b.io.ctx, path, &file, &size, &e), 0);
	assert_int_equal(size, 0);
	assert_int_equal(fcntl(file->fd, F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(fcntl(file->fd, F_GETFD), FD_CLOEXEC);
	request_read(&b.rq[0], file, 0, READ_BYTES);
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 1);
	assert_int_equal(b.rq[0].res, 0);
	b.io.ops->close(b.io.ctx, file);
	b.io.ops->close(b.io.ctx, NULL);
	(void)unlink(path);
	bed_fini(&b);
}

/* Lends the file to a loop device, which goes when *ret_fd is closed. False: not allowed here. */
static bool loop_attach(const char *file, char *path, size_t path_len, int *ret_fd)
{
	struct loop_config config = {
		.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
	};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	int file_fd = open(file, O_RDONLY | O_CLOEXEC);
	bool attached;

	snprintf(path, path_len, "/dev/loop%d", number);
	*ret_fd = number < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	config.fd = (uint32_t)file_fd;
	attached = *ret_fd >= 0 && ioctl(*ret_fd, LOOP_CONFIGURE, &config) == 0;
	if (!attached)
		printf("no loop device: %s\n", strerror(errno));
	if (!attached && *ret_fd >= 0)
		(void)close(*ret_fd);
	if (control >= 0)
		(void)close(control);
	(void)close(file_fd);
	return attached;
}

static void block_device_has_its_size(void **state)
{
	struct io_file *file;
	uint64_t size = 0;
	char path[64];
	struct bed b;
	int fd;

	(void)state;
	bed_init(&b, 4);
	if (!loop_attach(b.path, path, sizeof(path), &fd)) {
		bed_fini(&b);
		skip();
	}
	assert_int_equal(b.io.ops->open(b.io.ctx, path, &file, &size, NULL), 0);
	(void)close(fd);
	assert_true(size == FILE_BYTES);
	request_read(&b.rq[0], file, FILE_BYTES - READ_BYTES, READ_BYTES);
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 1);
	check_content(&b.rq[0], FILE_BYTES - READ_BYTES);
	b.io.ops->close(b.io.ctx, file);
	bed_fini(&b);
}

static void cancel_in_each_state(void **state)
{
	struct io_file pipe;
	struct bed b;
	int write_fd;

	(void)state;
	bed_init(&b, 3); /* not a power of two: the ring has room for a fourth */
	pipe = pipe_open(&write_fd);
	/* Not flushed. */
	request_read(&b.rq[0], &pipe, 0, READ_BYTES);
	b.io.ops->cancel(b.io.ctx, &b.rq[0].rd);
	assert_int_equal(b.rq[0].done, 0); /* only in reap */
	bed_wait(&b, 1);
	assert_int_equal(b.rq[0].res, -ECANCELED);
	/* Three in the kernel, a fourth held back by depth. */
	for (unsigned i = 1; i < 5; i++)
		request_read(&b.rq[i], &pipe, 0, READ_BYTES);
	bed_flush(&b);
	(void)ioq_wait(b.q, 0);
	assert_int_equal(bed_reap(&b), 0);
	b.io.ops->cancel(b.io.ctx, &b.rq[4].rd);
	bed_wait(&b, 2); /* never reached the kernel, so no flush is needed */
	b.io.ops->cancel(b.io.ctx, &b.rq[1].rd);
	b.io.ops->cancel(b.io.ctx, &b.rq[1].rd); /* twice is no more than once */
	bed_flush(&b);
	bed_reap(&b);
	bed_wait(&b, 3);
	assert_int_equal(b.rq[1].res, -ECANCELED);
	assert_int_equal(b.rq[4].res, -ECANCELED);
	assert_int_equal(b.rq[2].done + b.rq[3].done, 0);
	/* Those left alone still work. */
	assert_int_equal(write(write_fd, "x", 1), 1);
	bed_wait(&b, 4);
	assert_int_equal(b.rq[2].done + b.rq[3].done, 1);
	assert_int_equal(write(write_fd, "x", 1), 1);
	bed_wait(&b, 5);
	assert_int_equal(b.rq[2].res, 1);
	assert_int_equal(b.rq[3].res, 1);
	(void)close(write_fd);
	(void)close(pipe.fd);
	bed_fini(&b);
}

/* A cancel does not reach what a thread has begun, and reaches what is still in line. */
static void threads_end_what_they_have_begun(void **state)
{
	const unsigned in_line = 4, all = IOQ_READERS_MAX + in_line;
	struct io_file pipe;
	unsigned read = 0;
	struct bed b;
	int write_fd;

	(void)state;
	bed_init(&b, all);
	pipe = pipe_open(&write_fd);
	for (unsigned i = 0; i < all; i++)
		request_read(&b.rq[i], &pipe, 0, READ_BYTES);
	bed_pump(&b);
	for (unsigned i = 0; i < all; i++)
		b.io.ops->cancel(b.io.ctx, &b.rq[i].rd);
	bed_pump(&b);
	assert_true(b.ends >= in_line);
	for (unsigned i = 0; i < all; i++)
		assert_true(b.rq[i].done == 0 || b.rq[i].res == -ECANCELED);
	/* Whatever they wait for, and whether or not it is wanted any more. */
	(void)close(write_fd);
	bed_wait(&b, all);
	for (unsigned i = 0; i < all; i++)
		read += b.rq[i].res == 0;
	assert_true(read + in_line <= all);
	(void)close(pipe.fd);
	bed_fini(&b);
}

/*
 * All threads but one are held up: that one takes what is in line in the order of turns, but for
 * the chance of a later one after so many. One that is raised is among those of its new turn.
 */
static void threads_take_what_is_first_in_turn(void **state)
{
	static const unsigned order[] = {TURN_DEMAND, TURN_URGENT, TURNS, TURN_AHEAD, TURN_FILL};
	const unsigned last = IOQ_READERS_MAX + TURNS + 1;
	struct io_file pipe;
	struct bed b;
	int write_fd;

	(void)state;
	bed_init(&b, last);
	pipe = pipe_open(&write_fd);
	for (unsigned i = 0; i < IOQ_READERS_MAX; i++)
		request_read(&b.rq[i], &pipe, 0, READ_BYTES);
	bed_pump(&b);
	for (unsigned i = IOQ_READERS_MAX; i < last; i++) {
		b.rq[i].rd.turn = (uint8_t)min_u64(i - IOQ_READERS_MAX, TURN_FILL);
		b.rq[i].rd.late = true;
		request_read(&b.rq[i], b.file, spread(i), READ_BYTES);
	}
	bed_pump(&b);
	io_raise(&b.io, &b.rq[last - 1].rd, TURN_URGENT);
	assert_int_equal(b.ends, 0);
	assert_int_equal(write(write_fd, "x", 1), 1);
	bed_wait(&b, 1 + ARRAY_LEN(order));
	_Static_assert(IOQ_READERS_MAX == TURN_IN_A_ROW, "so many have gone");
	for (unsigned i = 0; i < ARRAY_LEN(order); i++)
		assert_int_equal(b.rq[IOQ_READERS_MAX + order[i]].order, 2 + i);
	(void)close(write_fd);
	bed_wait(&b, last);
	(void)close(pipe.fd);
	bed_fini(&b);
}

/* One at a time: of those that wait for it, each goes by its turn, and by the new one if raised. */
static void what_waits_for_a_place_has_its_turn(void **state)
{
	static const unsigned order[] = {4, 2, 3, 1};
	struct io_file pipe;
	struct bed b;
	int write_fd;

	(void)state;
	bed_init(&b, 1);
	pipe = pipe_open(&write_fd);
	request_read(&b.rq[0], &pipe, 0, READ_BYTES);
	bed_pump(&b);
	for (unsigned i = 1; i < 5; i++) {
		b.rq[i].rd.turn = i == 2 ? TURN_DEMAND : i == 3 ? TURN_AHEAD : TURN_FILL;
		b.rq[i].rd.late = true;
		request_read(&b.rq[i], b.file, spread(i), READ_BYTES);
	}
	bed_pump(&b);
	io_raise(&b.io, &b.rq[4].rd, TURN_URGENT);
	assert_int_equal(b.ends, 0);
	(void)close(write_fd);
	bed_wait(&b, 5);
	for (unsigned i = 0; i < ARRAY_LEN(order); i++)
		assert_int_equal(b.rq[order[i]].order, 2 + i);
	(void)close(pipe.fd);
	bed_fini(&b);
}

static void close_ends_what_is_outstanding(void **state)
{
	struct io_file pipe;
	struct bed b;
	int write_fd;

	(void)state;
	bed_init(&b, 4);
	pipe = pipe_open(&write_fd);
	for (unsigned i = 0; i < 10; i++)
		request_read(&b.rq[i], &pipe, 0, READ_BYTES);
	bed_flush(&b);
	(void)ioq_wait(b.q, 0);
	bed_reap(&b);
	request_read(&b.rq[10], &pipe, 0, READ_BYTES); /* never flushed */
	b.rq[10].again = 1; /* and one that is begun while closing */
	b.io.ops->close(b.io.ctx, b.file);
	/* What a thread is in ends by itself alone. */
	if (bed_way == IOQ_THREADS)
		(void)close(write_fd);
	ioq_close(b.q);
	assert_int_equal(b.ends, 12);
	for (unsigned i = 0; i <= 10; i++)
		assert_true(b.rq[i].res == -ECANCELED ||
			    (bed_way == IOQ_THREADS && i < 4 && b.rq[i].res == 0));
	ioq_close(NULL);
	if (bed_way == IOQ_URING)
		(void)close(write_fd);
	(void)close(pipe.fd);
	free(b.bufs);
	(void)unlink(b.path);
	assert_int_equal(rmdir(b.dir), 0);
}

static void refused_submissions_lose_nothing(void **state)
{
	static const int codes[] = {-EINTR, -EAGAIN, -EBUSY, 0};
	struct bed b;

	(void)state;
	bed_init(&b, 8);
	for (size_t c = 0; c < ARRAY_LEN(codes); c++) {
		b.ends = 0;
		refuse_submit = codes[c];
		refuse_count = 20; /* more than are swallowed at once */
		for (unsigned i = 0; i < READS; i++) {
			b.rq[i].done = 0;
			request_read(&b.rq[i], b.file, spread(i), READ_BYTES);
		}
		bed_flush(&b);
		bed_reap(&b);
		bed_wait(&b, READS);
		assert_int_equal(refuse_count, 0);
		for (unsigned i = 0; i < READS; i++)
			check_content(&b.rq[i], spread(i));
	}
	bed_fini(&b);
}

/* The ring breaks for good: what it holds is still answered, the rest fails, no hang. */
static void broken_ring_fails_reads(void **state)
{
	struct io_file pipe;
	struct bed b;
	int write_fd;

	(void)state;
	bed_init(&b, 4);
	pipe = pipe_open(&write_fd);
	request_read(&b.rq[0], &pipe, 0, READ_BYTES);
	bed_flush(&b);
	(void)ioq_wait(b.q, 0);
	bed_reap(&b);
	refuse_submit = -ENXIO;
	refuse_count = 1;
	for (unsigned i = 1; i < 10; i++)
		request_read(&b.rq[i], b.file, 0, READ_BYTES);
	b.io.ops->cancel(b.io.ctx, &b.rq[9].rd);
	bed_flush(&b);
	bed_wait(&b, 9);
	request_read(&b.rq[10], b.file, 0, READ_BYTES);
	bed_wait(&b, 10);
	for (unsigned i = 1; i <= 10; i++)
		assert_int_equal(b.rq[i].res, i == 9 ? -ECANCELED : -ENXIO);
	assert_int_equal(b.rq[0].done, 0);
	assert_int_equal(write(write_fd, "x", 1), 1);
	bed_wait(&b, 11);
	assert_int_equal(b.rq[0].res, 1);
	(void)close(write_fd);
	(void)close(pipe.fd);
	bed_fini(&b);
}

static void setup_failures_say_what_to_do(void **state)
{
	static const struct {
		int code;
		const char *text;
	} cases[] = {
		{-ENOSYS, "io_uring_setup: Function not implemented: "},
		{-EPERM, "io_uring_setup: Operation not permitted: "},
		{-ENOMEM, "free memory, or raise the limits of it"},
		{-EMFILE, "Too many open files"},
	};
	const struct ioq_config ring = {.depth = 8, .way = IOQ_URING};
	struct ioq *q = (void *)0x10;
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		refuse_setup = cases[i].code;
		assert_int_equal(ioq_open(&ring, &q, &e), cases[i].code);
		assert_non_null(strstr(e.text, cases[i].text));
		assert_null(strstr(e.text, "...")); /* none is cut */
	}
	refuse_setup = 0;
	assert_ptr_equal(q, (void *)0x10);
}

/* Whatever the system says to a ring, there are the threads. */
static void refused_rings_are_replaced(void **state)
{
	static const int codes[] = {-ENOSYS, -EPERM, -EACCES, -ENOMEM, -EINVAL};
	struct bed b;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		refuse_setup = codes[i];
		bed_init_by(&b, 8, IOQ_AUTO);
		refuse_setup = 0;
		assert_int_equal(ioq_way(b.q), IOQ_THREADS);
		request_read(&b.rq[0], b.file, 0, READ_BYTES);
		bed_wait(&b, 1);
		check_content(&b.rq[0], 0);
		bed_fini(&b);
	}
	/* It is set up, and cannot be entered. */
	refuse_submit = -EPERM;
	refuse_count = 1;
	bed_init_by(&b, 8, IOQ_AUTO);
	assert_int_equal(refuse_count, 0);
	assert_int_equal(ioq_way(b.q), IOQ_THREADS);
	bed_fini(&b);
	bed_init_by(&b, 8, IOQ_AUTO);
	assert_int_equal(ioq_way(b.q), IOQ_URING);
	bed_fini(&b);
}

static void every_depth_opens(void **state)
{
	static const unsigned depths[] = {1, 3, IOQ_DEPTH_MAX};
	struct ioq_config c = {.way = bed_way};
	struct ioq *q = (void *)0x10;
	struct err e;

	(void)state;
	assert_int_equal(ioq_open(&c, &q, &e), -EINVAL);
	c.depth = IOQ_DEPTH_MAX + 1;
	assert_int_equal(ioq_open(&c, &q, &e), -EINVAL);
	assert_non_null(strstr(e.text, "must be 1 to 4096"));
	assert_ptr_equal(q, (void *)0x10);
	for (size_t i = 0; i < ARRAY_LEN(depths); i++) {
		c.depth = depths[i];
		if (ioq_open(&c, &q, &e) < 0 || ioq_start(q, &e) < 0)
			fail_msg("%s", e.text);
		ioq_close(q);
	}
}

static void *own(void *arg)
{
	struct bed *b = arg;

	assert_int_equal(ioq_own(b->q, NULL), 0);
	return NULL;
}

/* Whoever closes waits for what was begun, though the owner has not drained it. */
static void an_owner_may_end_before(void **state)
{
	struct bed b;
	pthread_t t;

	(void)state;
	bed_init(&b, 4);
	ioq_close(b.q);
	assert_int_equal(ioq_open(&(struct ioq_config){.depth = 4, .way = bed_way}, &b.q, NULL), 0);
	assert_int_equal(ioq_start(b.q, NULL), 0);
	b.io = ioq_io(b.q);
	assert_int_equal(pthread_create(&t, NULL, own, &b), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
	b.io.ops->uncached(b.io.ctx, b.file); /* not to be had at once */
	for (unsigned i = 0; i < 32; i++)
		request_read(&b.rq[i], b.file, spread(i), READ_BYTES);
	bed_flush(&b);
	b.io.ops->sync(b.io.ctx, b.file, &b.rq[32].rd);
	bed_flush(&b);
	ioq_drain(b.q);
	assert_int_equal(b.ends, 33);
	for (unsigned i = 0; i < 32; i++)
		assert_true(b.rq[i].res == READ_BYTES || b.rq[i].res == -ECANCELED);
	bed_fini(&b);
}

struct roll {
	pthread_mutex_t lock;
	unsigned read, write;
};

static void note_thread(void *ctx, const char *name)
{
	struct roll *r = ctx;

	pthread_mutex_lock(&r->lock);
	r->read += strcmp(name, "asyncpf-read") == 0;
	r->write += strcmp(name, "asyncpf-write") == 0;
	pthread_mutex_unlock(&r->lock);
}

/* Each tells of itself; no more than there can be work for; what the system refuses is lacked. */
static void threads_are_few_and_have_names(void **state)
{
	static const struct {
		unsigned depth, granted, read, write;
		int code;
	} cases[] = {
		{256, UINT32_MAX, IOQ_READERS_MAX, IOQ_WRITERS_MAX, 0},
		{3, UINT32_MAX, 3, IOQ_WRITERS_MAX, 0},
		{256, IOQ_READERS_MAX + 2, IOQ_READERS_MAX, 2, 0},
		{256, IOQ_READERS_MAX, IOQ_READERS_MAX, 0, -EAGAIN},
		{256, 0, 0, 0, -EAGAIN},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct roll roll = {.lock = PTHREAD_MUTEX_INITIALIZER};
		const struct ioq_config c = {cases[i].depth, IOQ_THREADS, note_thread, &roll};
		struct ioq *q;
		struct err e;

		threads_made = 0;
		threads_max = cases[i].granted;
		assert_int_equal(ioq_open(&c, &q, &e), 0);
		assert_int_equal(threads_made, 0);
		assert_int_equal(ioq_start(q, &e), cases[i].code);
		if (cases[i].code)
			assert_string_equal(e.text, "reading and writing by threads: Resource "
						    "temporarily unavailable");
		ioq_close(q);
		threads_max = UINT32_MAX;
		assert_int_equal(roll.read, cases[i].read);
		assert_int_equal(roll.write, cases[i].write);
	}
}

int main(void)
{
	const struct CMUnitTest both[] = {
		cmocka_unit_test(more_reads_than_depth),
		cmocka_unit_test(hits_need_no_owner),
		cmocka_unit_test(misses_are_left_to_the_owner),
		cmocka_unit_test(what_ends_a_wait),
		cmocka_unit_test(done_may_read_again),
		cmocka_unit_test(short_and_empty_reads),
		cmocka_unit_test(bad_buffer_is_an_error_not_a_loop),
		cmocka_unit_test(what_may_be_opened),
		cmocka_unit_test(block_device_has_its_size),
		cmocka_unit_test(what_waits_for_a_place_has_its_turn),
		cmocka_unit_test(close_ends_what_is_outstanding),
		cmocka_unit_test(every_depth_opens),
	};
	const struct CMUnitTest ring[] = {
		cmocka_unit_test(cancel_in_each_state),
		cmocka_unit_test(refused_submissions_lose_nothing),
		cmocka_unit_test(broken_ring_fails_reads),
		cmocka_unit_test(setup_failures_say_what_to_do),
		cmocka_unit_test(refused_rings_are_replaced),
	};
	const struct CMUnitTest threads[] = {
		cmocka_unit_test(threads_end_what_they_have_begun),
		cmocka_unit_test(threads_take_what_is_first_in_turn),
		cmocka_unit_test(an_owner_may_end_before),
		cmocka_unit_test(threads_are_few_and_have_names),
	};

	return BED_RUN(IOQ_URING, both) + BED_RUN(IOQ_URING, ring) + BED_RUN(IOQ_THREADS, both) +
	       BED_RUN(IOQ_THREADS, threads);
}
