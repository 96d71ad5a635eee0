/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See hub.h. A read goes from source/custom.c into a net_read of the source's pool (net_hub_pump,
 * under the VM lock) and to the loop's thread (turn), which makes requests of it (queue.c). All is
 * the loop's thread's, but for what src.h says otherwise.
 */
#include "net/hub.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/time.h"
#include "net/src.h"
#include "source/source.h"

/* Each has a timer, and one for each of its connections where those have some. */
#define TIMERS_MAX (NET_SOURCES_MAX * (1 + NET_TIMERS_MAX))
#define OPEN_MS 10000u
#define LOAD_BYTES (1u << 20)

static const struct net_peer_ops *const peers[NET_PROTOCOLS] = {
	[NET_NBD] = &net_nbd_ops,
	[NET_HTTP] = &net_http_ops,
	[NET_S3] = &net_http_ops,
};

/* turn() comes after timers. */
static void timer_fire(struct timer *tm, uint64_t now_ns)
{
	(void)tm;
	(void)now_ns;
}

/* ---- the loop's turn ---- */

/* Of a source that nobody has given up yet. */
static void end_opening(struct net_src *s, enum src_state state)
{
	pthread_mutex_lock(&s->hub->lock);
	if (s->state == SRC_OPENING)
		s->state = state;
	pthread_cond_broadcast(&s->hub->changed);
	pthread_mutex_unlock(&s->hub->lock);
}

void net_opened(struct net_src *s, uint64_t size, uint32_t bytes, uint32_t block, uint32_t depth,
		const char *version)
{
	struct err e = {0};

	s->depth = depth;
	s->req_bytes = bytes;
	s->block_mask = block - 1;
	s->size = size;
	s->version = strdup(version);
	s->reqs = calloc(depth, sizeof(*s->reqs));
	if (s->version && s->reqs) {
		end_opening(s, SRC_OPEN);
		return;
	}
	(void)err_set(&e, -ENOMEM, "out of memory");
	net_open_failed(s, &e);
}

void net_open_failed(struct net_src *s, const struct err *why)
{
	s->why = *why;
	end_opening(s, SRC_FAILED);
}

bool net_is_open(const struct net_src *s)
{
	return s->reqs != NULL;
}

uint64_t net_size(const struct net_src *s)
{
	return s->size;
}

struct net_loop *net_src_loop(struct net_src *s)
{
	return s->hub->loop;
}

const char *net_src_name(const struct net_src *s)
{
	return s->target.name;
}

static void begin(struct net_src *s)
{
	struct err e = {0};

	s->begun = true;
	if (s->ops->open(s, &s->target, &s->peer, &e) < 0)
		net_open_failed(s, &e);
}

/* The source is known to nobody here when its state says so. */
static void end(struct net_src *s)
{
	struct net_hub *h = s->hub;
	struct net_src **at = &h->srcs;

	timer_cancel(net_loop_timers(h->loop), &s->timer);
	if (s->peer)
		s->ops->close(s->peer);
	pthread_mutex_lock(&h->lock);
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	s->state = SRC_CLOSED;
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
}

static void take(struct net_src *s, struct list *arrived)
{
	uint64_t now_ns = monotonic_ns();
	struct net_read *rd;

	while ((rd = net_read_of(list_take(arrived)))) {
		rd->sent = 0;
		rd->arrived_ns = now_ns;
		rd->left = rd->len;
		if (s->ops->zeroes && s->ops->zeroes(s->peer, rd->offset, rd->len))
			net_answer(s, rd, SRC_CUSTOM_ZEROES, 0, NULL);
		else
			net_read_waits(s, rd);
	}
}

/* The next read that was cancelled or raised; NULL: none, of those that were taken already. */
static struct net_read *next_told(struct net_src *s, bool *ret_cancelled, enum turn *ret_turn)
{
	struct net_read *rd;

	pthread_mutex_lock(&s->hub->lock);
	rd = LIST_ENTRY(s->told.first, struct net_read, told);
	if (rd && rd->state != READ_ACTIVE)
		rd = NULL;
	if (rd) {
		list_remove(&s->told, &rd->told);
		rd->is_told = false;
		*ret_cancelled = rd->cancelled;
		*ret_turn = rd->raised;
	}
	pthread_mutex_unlock(&s->hub->lock);
	return rd;
}

static void hear(struct net_src *s)
{
	struct net_read *rd;
	enum turn turn;
	bool cancelled;

	while ((rd = next_told(s, &cancelled, &turn))) {
		if (cancelled)
			net_read_failed(s, rd, -ECANCELED, NULL);
		else
			net_read_raise(s, rd, turn);
	}
}

static void turn_of(struct net_src *s)
{
	struct list arrived;
	enum src_state state;

	pthread_mutex_lock(&s->hub->lock);
	state = s->state;
	arrived = s->arrived;
	s->arrived = (struct list){.first = NULL};
	for (struct list_link *at = arrived.first; at; at = at->next)
		net_read_of(at)->state = READ_ACTIVE;
	pthread_mutex_unlock(&s->hub->lock);
	if (state == SRC_CLOSING) {
		end(s);
		return;
	}
	if (!s->begun)
		begin(s);
	take(s, &arrived);
	hear(s);
	net_send_off(s);
}

static void turn(void *ctx)
{
	struct net_hub *h = ctx;
	struct net_src *s, *next;

	pthread_mutex_lock(&h->lock);
	s = h->srcs;
	pthread_mutex_unlock(&h->lock);
	for (; s; s = next) {
		next = s->next;
		turn_of(s);
	}
}

static void rest(void *ctx)
{
	struct net_hub *h = ctx;

	if (h->woken)
		h->cfg.wake(h->cfg.ctx);
	h->woken = false;
}

/* ---- the VM's side ---- */

/* hub->lock, as for the next. It has ended by the time that its place is another's. */
static void new_read(struct net_src *s, struct net_read *rd, const struct net_read *what)
{
	ASSERT(rd->state == READ_FREE);
	*rd = *what;
	rd->state = READ_ARRIVED;
	list_append(&s->arrived, &rd->link);
}

static void tell(struct net_src *s, struct net_read *rd)
{
	if (!rd->is_told)
		list_append(&s->told, &rd->told);
	rd->is_told = true;
}

static void hand_over(struct net_src *s, const struct src_custom_call *call)
{
	struct net_read *rd = &s->pool[(uint32_t)call->id];
	const struct net_read what = {
		.id = call->id,
		.offset = call->offset,
		.buf = call->buf,
		.len = (uint32_t)call->len,
		.turn = call->turn,
	};

	pthread_mutex_lock(&s->hub->lock);
	if (!call->cancel && !call->raise) {
		new_read(s, rd, &what);
	} else if (rd->state != READ_FREE && rd->id == call->id) {
		rd->cancelled = call->cancel;
		rd->raised = call->turn;
		tell(s, rd);
	}
	pthread_mutex_unlock(&s->hub->lock);
}

bool net_hub_pump(struct net_hub *h)
{
	struct src_custom_call call;
	bool moved = false, given = false;

	for (struct net_src *s = h->opened; s; s = s->next_open) {
		moved |= src_custom_take(s->custom);
		while (src_custom_next(s->custom, &call)) {
			/* The loop's thread does not know of it yet: no answer comes between. */
			src_custom_called(s->custom, &call);
			hand_over(s, &call);
			given = true;
		}
	}
	if (given)
		net_loop_wake(h->loop);
	return moved || given;
}

bool net_hub_due(const struct net_hub *h)
{
	for (const struct net_src *s = h->opened; s; s = s->next_open)
		if (src_custom_due(s->custom))
			return true;
	return false;
}

static struct timespec deadline(uint32_t ms)
{
	return timespec_of_ns(monotonic_ns() + ms * NS_PER_MS);
}

/* The loop's thread lets go of the source, whatever is the matter; then it is freed. */
static void src_free(struct net_src *s)
{
	struct net_hub *h = s->hub;

	pthread_mutex_lock(&h->lock);
	s->state = SRC_CLOSING;
	net_loop_wake(h->loop);
	while (s->state != SRC_CLOSED)
		pthread_cond_wait(&h->changed, &h->lock);
	pthread_mutex_unlock(&h->lock);
	if (s->custom)
		src_custom_free(s->custom);
	h->sources--;
	free(s->version);
	free(s->reqs);
	free(s->pool);
	free(s->text);
	free(s);
}

static void hook_wake(void *ctx)
{
	struct net_src *s = ctx;

	s->hub->woken = true;
}

static void hook_close(void *ctx)
{
	struct net_src *s = ctx;
	struct net_src **at = &s->hub->opened;

	while (*at && *at != s)
		at = &(*at)->next_open;
	if (*at)
		*at = s->next_open;
	src_free(s);
}

/* hub->lock, which it lets go of. Until it is over, or was cancelled for the time it takes. */
static void wait_for(struct net_src *s, struct net_read *rd, const struct loader *l)
{
	const struct timespec until = deadline(s->target.connect_ms);
	int rc = 0;

	while (!l->over && rc == 0)
		rc = pthread_cond_timedwait(&s->hub->changed, &s->hub->lock, &until);
	if (l->over)
		return;
	rd->cancelled = true;
	tell(s, rd);
	net_loop_wake(s->hub->loop);
	while (!l->over)
		pthread_cond_wait(&s->hub->changed, &s->hub->lock);
}

static int load_piece(struct net_src *s, uint64_t offset, unsigned char *buf, uint32_t len,
		      struct err *e)
{
	struct net_hub *h = s->hub;
	struct loader l = {.over = false};
	struct net_read *rd = &s->pool[s->pool_count - 1];
	const struct net_read what = {
		.loader = &l, .turn = TURN_DEMAND, .offset = offset, .buf = buf, .len = len};

	pthread_mutex_lock(&h->lock);
	new_read(s, rd, &what);
	net_loop_wake(h->loop);
	wait_for(s, rd, &l);
	pthread_mutex_unlock(&h->lock);
	if (l.code == -ECANCELED)
		return err_set(e, -ETIMEDOUT, "%s: read at byte %llu: no answer for %u ms",
			       s->target.name, (unsigned long long)offset, s->target.connect_ms);
	if (l.code < 0)
		return err_set(e, l.code, "%s: read at byte %llu: %s", s->target.name,
			       (unsigned long long)offset, l.why);
	return 0;
}

static int hook_load(void *ctx, uint64_t offset, void *buf, size_t len, struct err *e)
{
	struct net_src *s = ctx;
	struct net_hub *h = s->hub;
	unsigned char *to = buf;
	int rc = 0;

	h->cfg.unlock(h->cfg.ctx);
	for (size_t n; rc == 0 && len > 0; offset += n, to += n, len -= n) {
		n = min_u64(len, LOAD_BYTES);
		rc = load_piece(s, offset, to, (uint32_t)n, e);
	}
	h->cfg.lock(h->cfg.ctx);
	return rc;
}

/* ---- opening ---- */

/* A copy of the target's strings, in one piece. */
static bool copy_target(struct net_src *s, const struct net_target *t)
{
	const char **strings[] = {
		&s->target.name, &s->target.url, &s->target.host, &s->target.port,
		&s->target.socket, &s->target.export, &s->target.user, &s->target.certificates,
		&s->target.keys, &s->target.ca, &s->target.bucket, &s->target.object,
		&s->target.profile, &s->target.region, &s->target.endpoint,
	};
	size_t bytes = 0;
	char *to;

	s->target = *t;
	for (size_t i = 0; i < ARRAY_LEN(strings); i++)
		bytes += *strings[i] ? strlen(*strings[i]) + 1 : 0;
	s->text = to = malloc(bytes);
	if (!to)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
		size_t n = *strings[i] ? strlen(*strings[i]) + 1 : 0;

		if (n == 0)
			continue;
		memcpy(to, *strings[i], n);
		*strings[i] = to;
		to += n;
	}
	if (s->target.connect_ms == 0)
		s->target.connect_ms = OPEN_MS;
	return true;
}

static struct net_src *new_src(struct net_hub *h, const struct net_target *t, uint32_t reads_max)
{
	struct net_src *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->hub = h;
	s->ops = peers[t->protocol];
	s->timer.fire = timer_fire;
	s->pool_count = reads_max + 1;
	s->pool = calloc(s->pool_count, sizeof(*s->pool));
	if (!s->pool || !copy_target(s, t)) {
		free(s->pool);
		free(s);
		return NULL;
	}
	return s;
}

/* Without the VM lock meanwhile. */
static int connect_it(struct net_src *s, struct err *e)
{
	struct net_hub *h = s->hub;
	const struct timespec until = deadline(s->target.connect_ms);
	enum src_state state;
	int rc = 0;

	h->cfg.unlock(h->cfg.ctx);
	pthread_mutex_lock(&h->lock);
	s->next = h->srcs;
	h->srcs = s;
	net_loop_wake(h->loop);
	while (s->state == SRC_OPENING && rc == 0)
		rc = pthread_cond_timedwait(&h->changed, &h->lock, &until);
	state = s->state;
	pthread_mutex_unlock(&h->lock);
	h->cfg.lock(h->cfg.ctx);
	if (state == SRC_OPEN)
		return 0;
	if (state == SRC_FAILED)
		return err_set(e, s->why.code, "open %s: %s", s->target.name, s->why.text);
	return err_set(e, -ETIMEDOUT, "open %s: the server has not answered for %u ms; is it the "
		       "right one?", s->target.name, s->target.connect_ms);
}

static int start_loop(struct net_hub *h, struct err *e)
{
	const struct net_loop_cfg cfg = {
		.begins = h->cfg.begins,
		.begins_ctx = h->cfg.ctx,
		.turn = turn,
		.rest = rest,
		.ctx = h,
		.timers_max = TIMERS_MAX,
	};
	int rc = h->loop ? 0 : net_loop_open(&cfg, &h->loop, e);

	return rc < 0 ? rc : net_loop_start(h->loop, e);
}

int net_hub_start(struct net_hub *h, struct err *e)
{
	return start_loop(h, e);
}

static int open_src(void *ctx, const struct net_target *t, uint32_t reads_max, struct src **ret,
		    struct err *e)
{
	struct net_hub *h = ctx;
	const struct src_env env = {.reads_max = reads_max};
	struct src_custom_hooks hooks = {
		.wake = hook_wake, .close = hook_close, .load = hook_load, .raises = true};
	struct net_src *s;
	int rc;

	if (!peers[t->protocol])
		return err_set(e, -ENOTSUP, "open %s: this library was built without %s", t->name,
			       t->protocol == NET_NBD ? "libnbd" : "libcurl");
	if (h->sources == NET_SOURCES_MAX)
		return err_set(e, -ENOSPC, "open %s: more than %u network sources at a time",
			       t->name, NET_SOURCES_MAX);
	rc = start_loop(h, e);
	if (rc < 0)
		return rc;
	s = new_src(h, t, reads_max);
	if (!s)
		return err_set(e, -ENOMEM, "open %s: out of memory", t->name);
	h->sources++;
	rc = connect_it(s, e);
	hooks.ctx = s;
	hooks.name = s->target.name;
	if (rc == 0)
		rc = src_custom_open(s->size, &hooks, &env, &s->custom, e);
	if (rc < 0) {
		src_free(s);
		return rc;
	}
	s->next_open = h->opened;
	h->opened = s;
	*ret = src_custom_src(s->custom);
	(*ret)->version = *s->version ? s->version : NULL;
	return 0;
}

struct net net_hub_net(struct net_hub *h)
{
	static const struct net_ops ops = {.open = open_src};

	return (struct net){&ops, h};
}

int net_hub_open(const struct net_hub_cfg *cfg, struct net_hub **ret, struct err *e)
{
	struct net_hub *h = calloc(1, sizeof(*h));
	pthread_condattr_t monotonic;

	if (!h)
		return err_sys(e, -ENOMEM, "network sources");
	h->cfg = *cfg;
	pthread_mutex_init(&h->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&h->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	*ret = h;
	return 0;
}

void net_hub_close(struct net_hub *h)
{
	if (!h)
		return;
	ASSERT(!h->opened && !h->srcs);
	net_loop_close(h->loop);
	pthread_mutex_destroy(&h->lock);
	pthread_cond_destroy(&h->changed);
	free(h);
}
