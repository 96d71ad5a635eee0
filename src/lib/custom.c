/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page sources of the VMM's own: what the header promises, around source/custom.c.
 *
 * struct apf_source is the VMM's, and outlives the VM: a thread of the VMM's that answers late
 * finds it closed. It has no way to the VM but wake_fd, an eventfd that it holds itself, and `a`,
 * which its own lock covers: taken before the VM lock, and never with it.
 *
 * Who calls the VMM: lib_pump, which is called where somebody waits for memory, and by the
 * library's thread. Other calls of the VMM's, which it may make with locks of its own held, only
 * wake that thread. Tests: tests/integration/custom_source_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/internal.h"
#include "source/custom.h"
#include "source/source.h"

struct apf_source {
	struct apf_source_config cfg;
	struct src_custom *custom;
	struct src *src; /* with what stands around it */
	int wake_fd;     /* the library's thread; a descriptor of our own */
	bool opened;     /* apf_source_custom has succeeded: the VMM hears of the end */
	bool closed;     /* atomic */
	pthread_mutex_t lock;
	struct apf *a; /* NULL: apf_close has begun */
};

/* ---- seen from the library ---- */

static void wake(void *ctx)
{
	static const uint64_t one = 1;
	const struct apf_source *s = ctx;
	int saved = errno; /* of what a signal handler interrupts */

	(void)!write(s->wake_fd, &one, sizeof(one));
	errno = saved;
}

static void close_it(void *ctx)
{
	struct apf_source *s = ctx;

	__atomic_store_n(&s->closed, true, __ATOMIC_RELEASE);
	/* Which may free it. */
	if (s->opened && s->cfg.close)
		s->cfg.close(s->cfg.ctx);
}

bool lib_custom_take(struct apf *a)
{
	bool taken = false;

	for (unsigned i = 0; i < a->custom_count; i++)
		taken |= src_custom_take(a->customs[i]->custom);
	return taken;
}

bool lib_custom_due(const struct apf *a)
{
	for (unsigned i = 0; i < a->custom_count; i++)
		if (src_custom_due(a->customs[i]->custom))
			return true;
	return false;
}

static void tell(const struct apf_source *s, const struct src_custom_call *call)
{
	const struct apf_read_request rd = {
		.size = sizeof(rd),
		.id = call->id,
		.offset = call->offset,
		.len = call->len,
		.buf = call->buf,
		.urgent = call->urgent,
	};

	if (!call->cancel)
		s->cfg.read(s->cfg.ctx, &rd);
	else if (s->cfg.cancel)
		s->cfg.cancel(s->cfg.ctx, call->id);
}

bool lib_custom_call(struct apf *a)
{
	struct src_custom_call call;

	for (unsigned i = 0; i < a->custom_count; i++) {
		struct apf_source *s = a->customs[i];

		if (!src_custom_next(s->custom, &call))
			continue;
		/* The call may take its time: its deadline must be set. */
		lib_let_go(a);
		tell(s, &call);
		lib_lock(a);
		src_custom_called(s->custom, &call);
		return true;
	}
	return false;
}

void lib_custom_shut(struct apf *a)
{
	for (unsigned i = 0; i < a->custom_count; i++) {
		struct apf_source *s = a->customs[i];

		pthread_mutex_lock(&s->lock);
		s->a = NULL;
		pthread_mutex_unlock(&s->lock);
	}
}

void lib_custom_close(struct apf *a)
{
	for (unsigned i = 0; i < a->custom_count; i++)
		src_close(a->customs[i]->src);
}

/* ---- opening ---- */

static int read_config(const struct apf_source_config *c, struct apf_source_config *ret,
		       struct err *e)
{
	static const struct lib_struct type = {
		"apf_source_config",
		offsetof(struct apf_source_config, close) + sizeof(c->close), sizeof(*ret)};
	int rc;

	*ret = (struct apf_source_config){.size = 0};
	rc = lib_struct_read(&type, c, ret, e);
	if (rc < 0)
		return rc;
	if (!ret->read)
		return err_set(e, -EINVAL, "apf_source_config: read is NULL");
	return 0;
}

/* Locked. */
static int open_source(struct apf_source *s, struct apf *a, struct err *e)
{
	const struct src_custom_hooks hooks = {.wake = wake, .close = close_it, .ctx = s};
	const struct src_env env = lib_src_env(a);
	int rc = lib_wake_fd(a, e);

	if (rc < 0)
		return rc;
	s->wake_fd = fcntl(rc, F_DUPFD_CLOEXEC, 0);
	if (s->wake_fd < 0)
		return err_sys(e, -errno, "the VMM's source: event descriptor");
	rc = src_custom_open(s->cfg.bytes, &hooks, &env, &s->custom, e);
	if (rc < 0)
		return rc;
	s->src = src_custom_src(s->custom);
	if (s->cfg.wrap)
		rc = src_wrap(s->cfg.wrap, s->src, &env, &s->src, e);
	s->cfg.wrap = NULL;
	return rc;
}

/* Closed, or never opened. */
static void free_source(struct apf_source *s)
{
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	if (s->custom)
		src_custom_free(s->custom);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* Locked. */
static int source_custom(struct apf *a, const struct apf_source_config *c,
			 struct apf_source **ret, struct err *e)
{
	struct apf_source *s;
	int rc;

	if (a->custom_count == LIB_CUSTOMS_MAX)
		return err_set(e, -ENOSPC, "the VMM's source: more than %u", LIB_CUSTOMS_MAX);
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_sys(e, -ENOMEM, "the VMM's source");
	pthread_mutex_init(&s->lock, NULL);
	s->wake_fd = -1;
	s->a = a;
	rc = read_config(c, &s->cfg, e);
	if (rc == 0)
		rc = open_source(s, a, e);
	if (rc < 0) {
		free_source(s);
		return rc;
	}
	s->opened = true;
	a->customs[a->custom_count++] = s;
	*ret = s;
	return 0;
}

int apf_source_custom(struct apf *a, const struct apf_source_config *c, struct apf_source **ret,
		      struct apf_error *error)
{
	struct err e = {0};
	int rc;

	lib_lock(a);
	rc = source_custom(a, c, ret, &e);
	lib_unlock(a);
	return rc < 0 ? lib_error(error, &e) : 0;
}

/*
 * Enters the VM by the source, to be left by lib_leave; NULL: it is being closed. apf_close waits
 * for users, and cannot have begun to before s->a is NULL.
 */
static struct apf *enter(struct apf_source *s)
{
	struct apf *a;

	lib_lock_begins();
	pthread_mutex_lock(&s->lock);
	a = s->a;
	if (a) {
		lib_lock(a);
		a->users++;
	}
	pthread_mutex_unlock(&s->lock);
	lib_lock_ended();
	return a;
}

int apf_source_place(struct apf_source *s, uint64_t gpa, uint64_t bytes, uint64_t offset,
		     struct apf_error *error)
{
	struct apf *a = enter(s);
	struct err e = {0};
	int rc;

	if (!a) {
		rc = err_set(&e, -ESHUTDOWN, "the VMM's source: it is closed");
		return lib_error(error, &e);
	}
	rc = lib_source_place(a, gpa, bytes, s->src, offset, &e);
	lib_leave(a);
	return rc < 0 ? lib_error(error, &e) : 0;
}

int apf_source_free(struct apf_source *s)
{
	if (!s)
		return 0;
	if (!__atomic_load_n(&s->closed, __ATOMIC_ACQUIRE))
		return -EBUSY;
	free_source(s);
	return 0;
}

/* ---- what the VMM says ---- */

int apf_read_done(struct apf_source *s, apf_read_id id)
{
	return src_custom_answer(s->custom, id, SRC_CUSTOM_DONE, 0, NULL);
}

int apf_read_zeroes(struct apf_source *s, apf_read_id id)
{
	return src_custom_answer(s->custom, id, SRC_CUSTOM_ZEROES, 0, NULL);
}

int apf_read_failed(struct apf_source *s, apf_read_id id, int code, const char *why)
{
	return src_custom_answer(s->custom, id, SRC_CUSTOM_FAILED, code, why);
}

/* Locked; more than a page is copied with the lock dropped. Returns the bytes that were taken. */
static uint64_t offer(struct apf *a, struct hst_offer *o, const unsigned char *data)
{
	enum hst_offer_next next;
	struct hst_piece p;
	uint64_t taken = 0;

	while ((next = hst_offer_next(&a->hst, o, &p)) != HST_OFFER_END) {
		if (next == HST_OFFER_MORE) {
			lib_give_way(a);
			continue;
		}
		if (p.len > PAGE_BYTES)
			lib_unlock(a);
		memcpy(p.to, data + p.from, p.len);
		if (p.len > PAGE_BYTES)
			lib_lock(a);
		hst_offered(p.fetch);
		taken += p.len;
	}
	return taken;
}

int apf_source_offer(struct apf_source *s, uint64_t offset, const void *data, uint64_t len,
		     uint64_t *ret_taken)
{
	struct hst_offer o = {.src = s->src, .offset = offset, .len = len};
	uint64_t taken = 0;
	struct apf *a;
	int rc;

	if (lib_is_locked_here())
		return -EDEADLK;
	a = enter(s);
	if (!a)
		return -ESHUTDOWN;
	/* What is absent there might have to wait for what is offered. */
	rc = gmem_is_view(a->gmem, data, len) ? -EINVAL : 0;
	if (rc == 0 && !hst_is_stopping(&a->hst))
		taken = offer(a, &o, data);
	if (hst_is_stopping(&a->hst))
		rc = -EINTR;
	lib_leave(a);
	if (rc == 0 && ret_taken)
		*ret_taken = taken;
	return rc;
}
