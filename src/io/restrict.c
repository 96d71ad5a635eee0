/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See restrict.h. Whoever has taken over a thread that may enter the ring could have files opened
 * and sockets made by it otherwise, past seccomp.
 */
#include "io/restrict.h"

#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"

static const uint8_t ops[] = {
	IORING_OP_NOP, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_FADVISE,
	IORING_OP_ASYNC_CANCEL, IORING_OP_POLL_ADD, IORING_OP_TIMEOUT, IORING_OP_TIMEOUT_REMOVE,
};

int ioq_restrict(struct io_uring *ring)
{
	struct io_uring_restriction list[ARRAY_LEN(ops) + 1];

	memset(list, 0, sizeof(list));
	for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
		list[i].opcode = IORING_RESTRICTION_SQE_OP;
		list[i].sqe_op = ops[i];
	}
	list[ARRAY_LEN(ops)].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	list[ARRAY_LEN(ops)].sqe_flags = IOSQE_CQE_SKIP_SUCCESS;
	/* liburing 2.3 declares its function, and does not have it. */
	return syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, list,
		       ARRAY_LEN(list)) < 0 ? -errno : 0;
}
