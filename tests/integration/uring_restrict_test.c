/* SPDX-License-Identifier: Apache-2.0 */
/* src/io/restrict.c: what a ring of ours refuses. What it must do, the other tests show. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>
#include <liburing.h>

#include "io/restrict.h"

static int open_ring(struct io_uring *ring)
{
	int rc = io_uring_queue_init(8, ring, IORING_SETUP_R_DISABLED);

	if (rc == 0)
		rc = ioq_restrict(ring);
	if (rc == 0 && syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS,
			       NULL, 0) < 0)
		rc = -errno;
	return rc;
}

static int submit(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int res;

	assert_int_equal(io_uring_submit_and_wait(ring, 1), 1);
	assert_int_equal(io_uring_peek_cqe(ring, &cqe), 0);
	res = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return res;
}

static void it_reads_and_opens_nothing(void **state)
{
	struct io_uring ring;
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	char buf[8] = "content";

	(void)state;
	assert_int_equal(open_ring(&ring), 0);
	io_uring_prep_read(io_uring_get_sqe(&ring), zero, buf, sizeof(buf), 0);
	assert_int_equal(submit(&ring), sizeof(buf));
	assert_int_equal(buf[0], 0);
	io_uring_prep_openat(io_uring_get_sqe(&ring), AT_FDCWD, "/dev/zero", O_RDONLY, 0);
	assert_int_equal(submit(&ring), -EACCES);
	io_uring_prep_rw(IORING_OP_SOCKET, io_uring_get_sqe(&ring), AF_UNIX, NULL, 0, SOCK_STREAM);
	assert_int_equal(submit(&ring), -EACCES);
	io_uring_prep_unlink(io_uring_get_sqe(&ring), "/nowhere", 0);
	assert_int_equal(submit(&ring), -EACCES);
	/* Nor can it be had by a detour: files of the ring's own. */
	assert_int_equal(io_uring_register_files(&ring, &zero, 1), -EACCES);
	io_uring_queue_exit(&ring);
	close(zero);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_reads_and_opens_nothing),
	};
	struct io_uring ring;
	int rc = io_uring_queue_init(1, &ring, 0);

	if (rc < 0) {
		printf("SKIP: no io_uring here: %s\n", strerror(-rc));
		return 77;
	}
	io_uring_queue_exit(&ring);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
