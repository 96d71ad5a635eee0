/* SPDX-License-Identifier: Apache-2.0 */
/* See run.h. */
#include "image/run.h"

#include <errno.h>
#include <poll.h>

#include "base/types.h"

#define LOOK_MS 200

int img_run_stopped(const struct img_watch *watch)
{
	struct pollfd fd = {.fd = watch->stop_fd, .events = POLLIN};

	return poll(&fd, 1, 0) > 0 ? -ECANCELED : 0;
}

static void show(const struct img_watch *watch, const uint64_t *done, uint64_t total)
{
	if (watch->progress)
		watch->progress(watch->ctx, __atomic_load_n(done, __ATOMIC_RELAXED), total);
}

int img_run(const struct pipe_ops *ops, void *ctx, unsigned threads, const uint64_t *done,
	    uint64_t total, struct img_watch *watch, struct err *e)
{
	struct pollfd fds[2];
	struct pipe *p;
	int rc = pipe_start(ops, ctx, threads, &p, e);

	if (rc < 0)
		return rc;
	watch->begun = true;
	fds[0] = (struct pollfd){.fd = pipe_fd(p), .events = POLLIN};
	fds[1] = (struct pollfd){.fd = watch->stop_fd, .events = POLLIN};
	do {
		show(watch, done, total);
		(void)poll(fds, ARRAY_LEN(fds), watch->progress ? LOOK_MS : -1);
		if (fds[1].revents) {
			pipe_stop(p);
			break;
		}
	} while (!fds[0].revents);
	rc = pipe_end(p, e);
	if (rc == 0)
		show(watch, done, total);
	return rc;
}
