/* SPDX-License-Identifier: Apache-2.0 */
/* A queue of src/io in either way, a real file and requests, for its tests. */
#ifndef TESTS_INTEGRATION_URING_FIXTURE_H
#define TESTS_INTEGRATION_URING_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/types.h"
#include "io/file.h"
#include "io/queue.h"
#include "port/turn.h"

#define FILE_BYTES (4u << 20)
#define READ_BYTES 4096u
#define READS 128u
#define WAIT_MS 10000

/* Fixture: a queue, a file whose every 8 bytes tell their offset, and requests. */

struct bed;

/* How the beds' requests are carried out: each group of tests has its way. */
extern enum ioq_way bed_way;

struct request {
	struct io_req rd;
	struct bed *bed;
	unsigned done, order; /* how often; as which of all it was over last */
	int res;
	unsigned char *buf;
	unsigned again; /* read once more from within done, that many times */
	uint64_t off;
};

struct bed {
	char dir[64];
	char path[96];
	struct ioq *q;
	struct io io;
	struct io_file *file;
	struct request rq[READS];
	unsigned char *bufs;
	unsigned ends;
};

void request_read(struct request *rq, struct io_file *file, uint64_t off, size_t len);
void bed_init_by(struct bed *b, unsigned depth, enum ioq_way way);
void bed_init(struct bed *b, unsigned depth);
void bed_fini(struct bed *b);
/* Throws the file out of the page cache, where the file system does that. */
void bed_make_cold(struct bed *b);
void bed_flush(struct bed *b);
unsigned bed_reap(struct bed *b);
uint64_t bed_now(void);
void bed_pump(struct bed *b);
/* What the owner does all the time. */
void bed_wait(struct bed *b, unsigned ends);
void check_content(const struct request *rq, uint64_t off);
/* Spread over the file, so that readahead for one does not serve the next. */
uint64_t spread(unsigned i);
/* Does the file system answer from memory without ever waiting? tmpfs does not offer it. */
bool bed_answers_at_once(struct bed *b);
/* Pipes never answer by themselves: the only sure way to have a read in the kernel. */
struct io_file pipe_open(int *ret_write_fd);
/* Number of failures; 0 where there is no io_uring, which is said. */
int bed_run(const char *name, enum ioq_way way, const struct CMUnitTest *tests, size_t count);
#define BED_RUN(way, tests) bed_run(#way, way, tests, ARRAY_LEN(tests))

#endif
