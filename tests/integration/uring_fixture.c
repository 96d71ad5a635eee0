/* SPDX-License-Identifier: Apache-2.0 */
#include "uring_fixture.h"

#include "base/time.h"

enum ioq_way bed_way = IOQ_URING;

void request_read(struct request *rq, struct io_file *file, uint64_t off, size_t len)
{
	rq->off = off;
	rq->bed->io.ops->read(rq->bed->io.ctx, file, &rq->rd, off, rq->buf, len);
}

static void request_done(struct io_req *rd, int res)
{
	struct request *rq = CONTAINER_OF(rd, struct request, rd);

	rq->done++;
	rq->res = res;
	rq->order = ++rq->bed->ends;
	if (rq->again) {
		rq->again--;
		request_read(rq, rq->bed->file, rq->off + READ_BYTES, READ_BYTES);
	}
}

void bed_init_by(struct bed *b, unsigned depth, enum ioq_way way)
{
	uint64_t size = 0;
	uint64_t *words = malloc(FILE_BYTES);
	struct err e;
	int fd;

	memset(b, 0, sizeof(*b));
	snprintf(b->dir, sizeof(b->dir), "/var/tmp/asyncpf-uring-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	snprintf(b->path, sizeof(b->path), "%s/file", b->dir);
	assert_non_null(words);
	for (uint64_t i = 0; i < FILE_BYTES / 8; i++)
		words[i] = i * 8;
	fd = open(b->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, words, FILE_BYTES), FILE_BYTES);
	free(words);
	assert_int_equal(close(fd), 0);

	if (ioq_open(&(struct ioq_config){.depth = depth, .way = way}, &b->q, &e) < 0 ||
	    ioq_start(b->q, &e) < 0 || ioq_own(b->q, &e) < 0)
		fail_msg("%s", e.text);
	b->io = ioq_io(b->q);
	if (b->io.ops->open(b->io.ctx, b->path, &b->file, &size, &e) < 0)
		fail_msg("%s", e.text);
	assert_true(size == FILE_BYTES);
	b->bufs = calloc(READS, READ_BYTES);
	assert_non_null(b->bufs);
	for (unsigned i = 0; i < READS; i++) {
		b->rq[i].rd.done = request_done;
		b->rq[i].bed = b;
		b->rq[i].buf = b->bufs + (size_t)i * READ_BYTES;
	}
}

void bed_init(struct bed *b, unsigned depth)
{
	bed_init_by(b, depth, bed_way);
	assert_int_equal(ioq_way(b->q), bed_way);
}

void bed_fini(struct bed *b)
{
	b->io.ops->close(b->io.ctx, b->file);
	ioq_close(b->q);
	free(b->bufs);
	(void)unlink(b->path);
	assert_int_equal(rmdir(b->dir), 0);
}

void bed_make_cold(struct bed *b)
{
	assert_int_equal(fdatasync(b->file->fd), 0);
	assert_int_equal(posix_fadvise(b->file->fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

void bed_flush(struct bed *b)
{
	b->io.ops->flush(b->io.ctx);
}

unsigned bed_reap(struct bed *b)
{
	return b->io.ops->reap(b->io.ctx);
}

uint64_t bed_now(void)
{
	return monotonic_ns();
}

void bed_pump(struct bed *b)
{
	do
		bed_flush(b);
	while (bed_reap(b) > 0);
}

void bed_wait(struct bed *b, unsigned ends)
{
	uint64_t until = bed_now() + WAIT_MS * NS_PER_MS;

	bed_pump(b);
	while (b->ends < ends) {
		if (bed_now() > until)
			fail_msg("%u of %u reads ended", b->ends, ends);
		(void)ioq_wait(b->q, until);
		bed_pump(b);
	}
	assert_int_equal(b->ends, ends);
}

void check_content(const struct request *rq, uint64_t off)
{
	uint64_t words[READ_BYTES / 8];

	assert_int_equal(rq->done, 1);
	assert_int_equal(rq->res, READ_BYTES);
	for (unsigned i = 0; i < READ_BYTES / 8; i++)
		words[i] = off + i * 8;
	assert_memory_equal(rq->buf, words, READ_BYTES);
}

uint64_t spread(unsigned i)
{
	return (uint64_t)i * 37 % (FILE_BYTES / READ_BYTES) * READ_BYTES;
}

bool bed_answers_at_once(struct bed *b)
{
	struct iovec to = {.iov_base = b->bufs, .iov_len = READ_BYTES};

	return preadv2(b->file->fd, &to, 1, 0, RWF_NOWAIT) == READ_BYTES;
}

struct io_file pipe_open(int *ret_write_fd)
{
	int fd[2];

	assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
	*ret_write_fd = fd[1];
	return (struct io_file){.fd = fd[0]};
}

int bed_run(const char *name, enum ioq_way way, const struct CMUnitTest *tests, size_t count)
{
	struct refusal why;

	if (way == IOQ_URING && ioq_probe(1, &why) < 0) {
		printf("SKIP: %s\n", why.why);
		return 0;
	}
	bed_way = way;
	return _cmocka_run_group_tests(name, tests, count, NULL, NULL);
}
