/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What takes long: an eviction or a snapshot, one at a time, by a thread of its own. The server's
 * thread starts it, tells its client how far it is, and joins it. A client that goes cancels it.
 */
#include "vmm/control/control_parts.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/size.h"

static int run_eviction(struct control *c, struct control_job *j)
{
	uint64_t bytes = j->request.bytes;
	int rc = c->ops->evict(c->ctx, bytes, &j->cancel, &j->resident, &j->e);

	/* Everything that can be has no goal that could be missed. */
	if (rc == 0 && bytes > 0 && j->resident > bytes)
		rc = err_set(&j->e, -EAGAIN,
			     "%s stay resident, at most %s were asked for: the guest fetched it "
			     "back meanwhile, or it is pinned; pause the VM first, or leave it "
			     "more", SIZE_WORD(j->resident), SIZE_WORD(bytes));
	return rc;
}

static void *job_thread(void *arg)
{
	struct control *c = arg;
	struct control_job *j = &c->job;

	if (j->request.verb == CONTROL_EVICT)
		j->rc = run_eviction(c, j);
	else if (j->request.verb == CONTROL_BALLOON)
		j->rc = c->ops->balloon(c->ctx, j->request.bytes, &j->cancel, &j->e);
	else
		j->rc = c->ops->snapshot(c->ctx, &j->request, j->fds, &j->cancel, &j->e);
	atomic_store(&j->done, true);
	control_wake(c);
	return NULL;
}

int control_no_balloon(struct err *e)
{
	return err_set(e, -EOPNOTSUPP, "this VM has no balloon; run it with --balloon on");
}

static const char *job_word(enum control_verb verb)
{
	return verb == CONTROL_EVICT     ? "an eviction"
	       : verb == CONTROL_BALLOON ? "a change of the balloon"
					 : "a snapshot";
}

/* Who ends the VM waits for a write: a full pipe would have it wait for the client. */
static bool are_files(const int fds[static CONTROL_SNAPSHOT_FDS])
{
	struct stat st;

	for (unsigned i = 0; i < CONTROL_SNAPSHOT_FDS; i++)
		if (fstat(fds[i], &st) < 0 || !S_ISREG(st.st_mode))
			return false;
	return true;
}

/* 0, or why not. */
static int may_begin(const struct control *c, const struct control_peer *p,
		     const struct control_request *r, struct err *e)
{
	if (r->verb == CONTROL_EVICT && !c->ops->evict)
		return err_set(e, -EOPNOTSUPP, "this VM cannot evict; run it with --swap");
	if (r->verb == CONTROL_BALLOON && !c->ops->balloon)
		return control_no_balloon(e);
	if (r->verb == CONTROL_SNAPSHOT && !c->ops->snapshot)
		return err_set(e, -EOPNOTSUPP, "this VM cannot be saved");
	if (r->verb == CONTROL_SNAPSHOT && p->fds[CONTROL_SNAPSHOT_FDS - 1] < 0)
		return err_set(e, -EINVAL, "a snapshot's files have not come with the request; a "
			       "VM in the lab cannot be saved");
	if (r->verb == CONTROL_SNAPSHOT && !are_files(p->fds))
		return err_set(e, -EINVAL, "a snapshot is written to two regular files, and to "
			       "nothing that a write could wait for");
	if (c->job.running)
		return err_set(e, -EBUSY, "%s is under way; try again when it is done",
			       job_word(c->job.request.verb));
	return 0;
}

void control_job_begin(struct control *c, struct control_peer *p, const struct control_request *r)
{
	struct control_job *j = &c->job;
	struct err e;
	int rc = may_begin(c, p, r, &e);

	if (rc == 0) {
		atomic_store(&j->cancel, false);
		atomic_store(&j->done, false);
		j->request = *r;
		j->resident = 0;
		j->e = (struct err){0};
		memcpy(j->fds, p->fds, sizeof(j->fds));
		rc = control_thread_start(&j->thread, job_thread, c);
		if (rc < 0)
			(void)err_sys(&e, rc, "starting a thread");
	}
	if (rc < 0) {
		control_fds_close(p->fds);
		control_peer_failed(p, &e);
		return;
	}
	for (unsigned i = 0; i < CONTROL_SNAPSHOT_FDS; i++)
		p->fds[i] = -1;
	j->running = true;
	p->state = PEER_WAITING;
	c->progress_ns = monotonic_ns() + CONTROL_PROGRESS_MS * NS_PER_MS;
}

static struct control_peer *waiting_peer(struct control *c)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->peers[i].state == PEER_WAITING)
			return &c->peers[i];
	return NULL;
}

struct control_peer *control_job_watch(struct control *c)
{
	struct control_job *j = &c->job;
	struct control_peer *p = waiting_peer(c);
	bool done = j->running && atomic_load(&j->done);

	if (done) {
		const struct control_event ev = {.kind = CONTROL_EVENT_EVICTED,
						 .resident_bytes = j->resident};

		pthread_join(j->thread, NULL);
		control_fds_close(j->fds);
		j->running = false;
		if (j->rc == 0 && j->request.verb == CONTROL_EVICT)
			control_tell_event(c, ev);
	}
	if (!p || (!done && monotonic_ns() < c->progress_ns))
		return NULL;
	c->progress_ns = monotonic_ns() + CONTROL_PROGRESS_MS * NS_PER_MS;
	/* What it has not read yet is progress enough. */
	if (!done && p->out_len == 0)
		control_peer_put_status(c, p);
	if (done) {
		p->state = PEER_READY;
		p->deadline_ns = monotonic_ns() + c->idle_ns;
		/* The last progress may not have left: then there is room for the end alone. */
		if (j->rc < 0)
			control_peer_failed(p, &j->e);
		else if (p->out_len == 0)
			control_peer_done(c, p);
		else
			control_peer_put(p, "ok\n", 3);
	}
	return p;
}

void control_job_stop(struct control *c)
{
	if (!c->job.running)
		return;
	atomic_store(&c->job.cancel, true);
	pthread_join(c->job.thread, NULL);
	control_fds_close(c->job.fds);
}
