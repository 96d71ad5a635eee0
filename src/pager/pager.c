/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop: one thread, which sleeps in one place (sleep_until). What wakes it is a read that has
 * ended, its next deadline, or an epoll set, which is watched as a whole: the ring hears of an edge
 * of it, and the set is asked until it has nothing more.
 *
 * Listening sockets are opened by the owner (cfg.listen), who knows how files of sockets are made
 * and taken away.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/time.h"
#include "pager/internal.h"
#include "source/source.h"

#define IO_DEPTH 1024u
/* Of sources' wrappers, beside ours. */
#define SOURCE_TIMERS_MAX (8u * RULES_MAX)
#define OUR_TIMERS_MAX (PGR_VMS_MAX + PGR_PEERS_MAX + RULES_MAX)
#define EVENTS_MAX 64
/* Rounds between two moments in which others may have the lock. */
#define ROUNDS_MAX 64u

static uint64_t now_ns(void *ctx)
{
	(void)ctx;
	return monotonic_ns();
}

void pgr_say(struct pgr *p, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (!p->cfg.say)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	p->cfg.say(p->cfg.ctx, text);
}

int pgr_watch_add(struct pgr *p, struct pgr_watch *w)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = w};

	/* A connection that has said all is watched for its end alone. */
	if (w->kind == PGR_WATCH_VM_CONNECTION)
		ev.events = EPOLLRDHUP;
	return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, w->fd, &ev) < 0 ? -errno : 0;
}

void pgr_watch_leave(struct pgr *p, struct pgr_watch *w)
{
	if (w->fd >= 0)
		(void)epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->fd = -1;
}

void pgr_watch_end(struct pgr *p, struct pgr_watch *w)
{
	int fd = w->fd;

	pgr_watch_leave(p, w);
	if (fd >= 0)
		close(fd);
}

static void wake(void *ctx)
{
	static const uint64_t one = 1;
	struct pgr *p = ctx;

	(void)!write(p->wake.fd, &one, sizeof(one));
}

static void begins(struct pgr *p, enum pgr_thread which, const char *name)
{
	if (p->cfg.begins)
		p->cfg.begins(p->cfg.ctx, which, name);
}

/* ---- the loop ---- */

static void drain_wake(const struct pgr *p)
{
	uint64_t count;

	(void)!read(p->wake.fd, &count, sizeof(count));
}

/* True: there may be more. A VM may have ended in this very round: then fd is -1. */
static bool handle(struct pgr *p, struct pgr_watch *w)
{
	if (w->fd < 0)
		return false;
	switch (w->kind) {
	case PGR_WATCH_WAKE:
		drain_wake(p);
		break;
	case PGR_WATCH_STOP:
		p->stopping = true;
		break;
	case PGR_WATCH_LISTENER:
		pgr_accept(p, CONTAINER_OF(w, struct pgr_listener, watch));
		break;
	case PGR_WATCH_PEER:
		pgr_peer_read(CONTAINER_OF(w, struct pgr_peer, watch));
		break;
	case PGR_WATCH_VM_CONNECTION:
		pgr_vm_hung_up(CONTAINER_OF(w, struct pgr_vm, connection));
		break;
	case PGR_WATCH_VM_UFFD:
		return pgr_vm_serve(CONTAINER_OF(w, struct pgr_vm, uffd));
	case PGR_WATCH_VM_PROCESS:
		pgr_vm_exited(CONTAINER_OF(w, struct pgr_vm, process));
		break;
	}
	return true;
}

/*
 * Listeners come last: who is accepted may take the place of a connection that is reported, too.
 * A connection is freed when it has been handled, and not looked at again.
 */
static bool handle_all(struct pgr *p, const struct epoll_event *events, int n)
{
	struct pgr_watch *listeners[EVENTS_MAX];
	bool more = n == EVENTS_MAX;
	int count = 0;

	for (int k = 0; k < n; k++) {
		struct pgr_watch *w = events[k].data.ptr;

		if (w->kind == PGR_WATCH_LISTENER)
			listeners[count++] = w;
		else
			more |= handle(p, w);
	}
	for (int k = 0; k < count; k++)
		more |= handle(p, listeners[k]);
	return more;
}

bool pgr_pump(struct pgr *p)
{
	const struct io *io = &p->env.io;

	io->ops->flush(io->ctx);
	return io->ops->reap(io->ctx) > 0;
}

/* Until there is nothing more to do. */
static void pump_all(struct pgr *p)
{
	bool more;

	do {
		p->now_ns = monotonic_ns();
		more = pgr_pump(p);
		more = thread_pool_reap(p->pool) || more;
		more = net_lazy_pump(p->net) || more;
	} while (more);
}

/* Fetches that have become free go to the VMs that wait, beginning with another VM each time. */
static void share_out(struct pgr *p)
{
	struct pgr_vm *first = p->vms, **end = &p->vms;

	for (struct pgr_vm *vm = p->vms; vm; vm = vm->next)
		if (!vm->dead && (vm->waiting_count > 0 || vm->overflow))
			pgr_vm_settle(vm);
	if (!first || !first->next)
		return;
	p->vms = first->next;
	while (*end)
		end = &(*end)->next;
	first->next = NULL;
	*end = first;
}

static void bury(struct pgr *p)
{
	for (struct pgr_vm **at = &p->vms; *at;) {
		struct pgr_vm *vm = *at, *next = vm->next;

		if (vm->dead && pgr_vm_bury(vm)) {
			*at = next;
			p->vm_count--;
		} else {
			at = &vm->next;
		}
	}
	for (struct pgr_image **at = &p->images; *at;) {
		struct pgr_image *i = *at;

		if (i->users > 0) {
			at = &i->next;
			continue;
		}
		*at = i->next;
		src_close(i->src);
		free(i);
	}
}

static bool anybody_waits(const struct pgr *p)
{
	for (const struct pgr_vm *vm = p->vms; vm; vm = vm->next)
		if (!vm->dead && (vm->waiting_count > 0 || vm->overflow))
			return true;
	return false;
}

/* Begins reads ahead, unless a touch still waits for its own. True: some were begun. */
static bool go_ahead(struct pgr *p)
{
	bool any = false;

	if (anybody_waits(p))
		return false;
	for (struct pgr_vm *vm = p->vms; vm; vm = vm->next) {
		any |= vm->due_count > 0;
		pgr_ahead_go(vm);
	}
	if (any)
		pump_all(p);
	return any;
}

/* Until nothing more is to be done at once. Returns until when it may sleep. */
static uint64_t step(struct pgr *p)
{
	struct epoll_event events[EVENTS_MAX];
	bool more = true;

	for (unsigned i = 0; more && i < ROUNDS_MAX && !p->stopping; i++) {
		int n = epoll_wait(p->epoll_fd, events, EVENTS_MAX, 0);

		p->now_ns = monotonic_ns();
		more = handle_all(p, events, n);
		(void)timers_run(&p->timers, p->now_ns);
		pump_all(p);
		if (anybody_waits(p)) {
			share_out(p);
			pump_all(p);
		}
		more = go_ahead(p) || more;
		bury(p);
	}
	return more ? 0 : timers_next_ns(&p->timers);
}

/*
 * A read that is under way is heard of by the ring alone. Without one the set is waited for itself:
 * that is a call less for each touch that the page cache answers.
 */
static void sleep_until(struct pgr *p, uint64_t until_ns)
{
	uint64_t now = monotonic_ns(), ns = until_ns > now ? until_ns - now : 0;
	struct timespec ts = timespec_of_ns(ns);
	struct epoll_event event;

	if (p->status.counters.reads_in_flight > 0 || ioq_has_entries(p->ioq))
		(void)ioq_wait(p->ioq, until_ns);
	else if (ns > 0)
		(void)epoll_pwait2(p->epoll_fd, &event, 1, until_ns == NS_NEVER ? NULL : &ts, NULL);
}

int pgr_run(struct pgr *p, int stop_fd, struct err *e)
{
	uint64_t until_ns = 0;
	int rc = ioq_start(p->ioq, e);

	p->stop = (struct pgr_watch){PGR_WATCH_STOP, stop_fd};
	if (rc == 0)
		rc = ioq_own(p->ioq, e);
	if (rc == 0)
		rc = ioq_watch(p->ioq, p->epoll_fd, e);
	if (rc == 0 && (pgr_watch_add(p, &p->wake) < 0 ||
			(stop_fd >= 0 && pgr_watch_add(p, &p->stop) < 0)))
		rc = err_sys(e, -errno, "pager: epoll");
	if (rc == 0)
		begins(p, PGR_THREAD_LOOP, "asyncpf");
	while (rc == 0 && !p->stopping) {
		pthread_mutex_lock(&p->lock);
		until_ns = step(p);
		pthread_mutex_unlock(&p->lock);
		sleep_until(p, until_ns);
	}
	/* Whose rule waits for a server comes too late. */
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_mutex_unlock(&p->lock);
	return rc;
}

void pgr_stop(struct pgr *p)
{
	p->stopping = true;
	wake(p);
}

/* ---- rules ---- */

void pgr_name(const char *socket, char ret[static PGR_NAME_MAX])
{
	const char *slash = strrchr(socket, '/');

	(void)snprintf(ret, PGR_NAME_MAX, "%.*s", (int)PGR_NAME_MAX - 1,
		       slash ? slash + 1 : socket);
}

static int open_image(struct pgr *p, const char *socket, const char *uri, struct pgr_image **ret,
		      struct err *e)
{
	struct pgr_image *i = calloc(1, sizeof(*i));
	int rc;

	if (!i)
		return err_set(e, -ENOMEM, "out of memory");
	rc = src_open(uri, &p->env, &i->src, e);
	if (rc < 0) {
		free(i);
		return rc;
	}
	grace_init(&i->grace);
	pgr_name(socket, i->stats.name);
	i->stats.number = ++p->image_count;
	i->next = p->images;
	p->images = i;
	*ret = i;
	return 0;
}

static struct pgr_listener *listener_at(struct pgr *p, const char *path)
{
	struct pgr_listener *l = p->listeners;

	while (l && strcmp(l->path, path) != 0)
		l = l->next;
	return l;
}

static unsigned listener_count(const struct pgr *p)
{
	unsigned n = 0;

	for (const struct pgr_listener *l = p->listeners; l; l = l->next)
		n++;
	return n;
}

static int listen_there(struct pgr *p, const char *path, struct pgr_image *image, struct err *e)
{
	struct pgr_listener *l;
	int rc;

	if (listener_count(p) == RULES_MAX)
		return err_set(e, -ENOSPC, "more than %u sockets", RULES_MAX);
	l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	(void)snprintf(l->path, sizeof(l->path), "%s", path);
	rc = p->cfg.listen(p->cfg.ctx, path, e);
	if (rc < 0) {
		free(l);
		return rc;
	}
	l->watch = (struct pgr_watch){PGR_WATCH_LISTENER, rc};
	l->pager = p;
	l->again.fire = pgr_listen_again;
	rc = pgr_watch_add(p, &l->watch);
	if (rc < 0) {
		free(l); /* whose file it is closes it */
		return err_sys(e, rc, "pager: epoll");
	}
	l->image = image;
	l->next = p->listeners;
	p->listeners = l;
	return 0;
}

static int add_rule(struct pgr *p, const char *socket, const char *uri, struct err *e)
{
	struct pgr_listener *l = listener_at(p, socket);
	struct pgr_image *image = NULL;
	int rc = open_image(p, socket, uri, &image, e);

	if (rc < 0)
		return rc;
	/* A source over a network lets go of the lock while it is opened. */
	if (p->stopping)
		return err_set(e, -ECANCELED, "the pager ends");
	image->users++;
	if (l) {
		l->image->users--;
		l->image = image;
		return 0;
	}
	rc = listen_there(p, socket, image, e);
	if (rc < 0)
		image->users--;
	return rc;
}

int pgr_add_rule(struct pgr *p, const char *socket, const char *uri, struct err *e)
{
	int rc = src_check(uri, e);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&p->lock);
	rc = add_rule(p, socket, uri, e);
	pthread_mutex_unlock(&p->lock);
	wake(p);
	return rc;
}

/* ---- status ---- */

static bool any_failed(const struct pgr *p)
{
	for (unsigned i = 0; i < PGR_FETCHES; i++)
		if (p->fetches[i].state == PGR_FAILED)
			return true;
	return false;
}

static void fill_counters(const struct pgr *p, struct apf_counters *c)
{
	*c = p->status.counters;
	for (const struct pgr_vm *vm = p->vms; vm; vm = vm->next) {
		c->memory_bytes += vm->stats.memory_bytes;
		c->resident_bytes += vm->stats.resident_bytes;
		c->faults_outstanding += vm->waiting_count + vm->fetches;
	}
	c->absent_bytes = c->memory_bytes - min_u64(c->resident_bytes, c->memory_bytes);
	src_counts_get(&p->source_counts, c);
	c->wait_max_ns = p->wait_max_ns;
	c->wait_p50_ns = hist_quantile(p->hist, 50, 100, p->wait_max_ns / NS_PER_US) * NS_PER_US;
	c->wait_p99_ns = hist_quantile(p->hist, 99, 100, p->wait_max_ns / NS_PER_US) * NS_PER_US;
}

void pgr_status(struct pgr *p, struct pgr_status *ret, struct pgr_vm_status *vms, uint32_t max,
		uint32_t *ret_count)
{
	uint32_t n = 0;

	pthread_mutex_lock(&p->lock);
	*ret = p->status;
	fill_counters(p, &ret->counters);
	ret->vms = p->vm_count;
	ret->uptime_ns = monotonic_ns() - p->begun_ns;
	ret->io = ioq_way(p->ioq) == IOQ_URING ? "uring" : "threads";
	if (!any_failed(p))
		ret->trouble[0] = '\0';
	for (const struct pgr_vm *vm = p->vms; vm && n < max; vm = vm->next)
		if (!vm->dead)
			vms[n++] = vm->stats;
	*ret_count = n;
	pthread_mutex_unlock(&p->lock);
}

uint32_t pgr_sources(struct pgr *p, struct pgr_source_status *ret, uint32_t max)
{
	uint32_t n = 0;

	pthread_mutex_lock(&p->lock);
	for (const struct pgr_image *i = p->images; i && n < max; i = i->next, n++) {
		ret[n] = i->stats;
		for (const struct pgr_vm *vm = p->vms; vm; vm = vm->next)
			ret[n].vms += vm->image == i && !vm->dead;
	}
	pthread_mutex_unlock(&p->lock);
	return n;
}

/* Locked. A source that has been closed since has nothing. */
static int64_t shared_piece(const struct pgr *p, uint64_t number, uint64_t at, uint64_t *ret_end)
{
	for (const struct pgr_image *i = p->images; i; i = i->next)
		if (i->stats.number == number && at < i->src->size) {
			*ret_end = min_u64(at + PGR_LARGE_BYTES, i->src->size);
			return src_cached(i->src, at, *ret_end - at);
		}
	*ret_end = 0;
	return 0;
}

void pgr_shared(struct pgr *p, struct pgr_source_status *sources, uint32_t count)
{
	for (struct pgr_source_status *s = sources; s < sources + count; s++) {
		uint64_t at = 0;
		int64_t n;

		s->shared_bytes = 0;
		do {
			pthread_mutex_lock(&p->lock);
			n = shared_piece(p, s->number, at, &at);
			pthread_mutex_unlock(&p->lock);
			s->shared_bytes = n < 0 ? n : s->shared_bytes + n;
		} while (n >= 0 && at);
	}
}

/* ---- beginning and end ---- */

static void *map_bytes(size_t bytes, int prot)
{
	void *at = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

#define SMALL_ROOM ((size_t)PGR_SMALL_COUNT * PGR_SMALL_BYTES)
#define LARGE_ROOM ((size_t)PGR_LARGE_COUNT * PGR_LARGE_BYTES)

static int make_fetches(struct pgr *p, struct err *e)
{
	p->fetches = calloc(PGR_FETCHES, sizeof(*p->fetches));
	p->buffers = map_bytes(SMALL_ROOM + LARGE_ROOM, PROT_READ | PROT_WRITE);
	p->zeroes = map_bytes(PGR_LARGE_BYTES, PROT_READ);
	if (!p->fetches || !p->buffers || !p->zeroes)
		return err_set(e, -ENOMEM, "pager: out of memory");
	for (unsigned i = PGR_FETCHES; i-- > 0;) {
		struct pgr_fetch *f = &p->fetches[i];

		f->large = i >= PGR_SMALL_COUNT;
		f->read.done = pgr_fetch_read_done;
		f->read.buf = f->large ? p->buffers + SMALL_ROOM +
						 (size_t)(i - PGR_SMALL_COUNT) * PGR_LARGE_BYTES
				       : p->buffers + (size_t)i * PGR_SMALL_BYTES;
		f->next = f->large ? p->free_large : p->free_small;
		*(f->large ? &p->free_large : &p->free_small) = f;
	}
	p->free_small_count = PGR_SMALL_COUNT;
	p->free_large_count = PGR_LARGE_COUNT;
	return 0;
}

static int make_timers(struct pgr *p, struct err *e)
{
	p->heap = calloc(OUR_TIMERS_MAX + SOURCE_TIMERS_MAX, sizeof(struct timer *));
	if (!p->heap)
		return err_set(e, -ENOMEM, "pager: out of memory");
	timers_init(&p->timers, p->heap, OUR_TIMERS_MAX + SOURCE_TIMERS_MAX);
	for (unsigned i = 0; i < OUR_TIMERS_MAX; i++)
		(void)timers_lend(&p->timers);
	return 0;
}

static void unlock(void *ctx)
{
	struct pgr *p = ctx;

	pthread_mutex_unlock(&p->lock);
}

static void lock(void *ctx)
{
	struct pgr *p = ctx;

	pthread_mutex_lock(&p->lock);
}

static void work_begins(void *ctx, const char *name)
{
	begins(ctx, PGR_THREAD_WORK, name);
}

static void net_begins(void *ctx, const char *name)
{
	begins(ctx, PGR_THREAD_SOURCES, name);
}

static int make_parts(struct pgr *p, struct err *e)
{
	const struct ioq_config io = {.depth = IO_DEPTH, .way = p->cfg.io,
				      .thread_begins = work_begins, .ctx = p};
	const struct thread_pool_cfg work = {.begins = work_begins, .wake = wake, .ctx = p};
	const struct net_hub_cfg net = {.begins = net_begins, .wake = wake, .unlock = unlock,
					.lock = lock, .ctx = p};
	static const struct clock_ops clock = {.now_ns = now_ns};
	int rc = make_fetches(p, e);

	if (rc == 0)
		rc = make_timers(p, e);
	if (rc < 0)
		return rc;
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	p->wake = (struct pgr_watch){PGR_WATCH_WAKE, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	if (p->epoll_fd < 0 || p->wake.fd < 0)
		return err_sys(e, -errno, "pager: descriptors");
	rc = ioq_open(&io, &p->ioq, e);
	if (rc == 0)
		rc = thread_pool_open(&work, &p->pool, e);
	if (rc == 0)
		rc = net_lazy_open(&net, &p->net, e);
	if (rc < 0)
		return rc;
	p->env = (struct src_env){.io = ioq_io(p->ioq), .work = thread_pool_work(p->pool),
				  .net = net_lazy_net(p->net),
				  .clock = {.ops = &clock}, .timers = &p->timers,
				  .reads_max = PGR_FETCHES, .counts = &p->source_counts};
	return 0;
}

int pgr_open(const struct pgr_cfg *cfg, struct pgr **ret, struct err *e)
{
	struct pgr *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return err_set(e, -ENOMEM, "pager: out of memory");
	p->cfg = *cfg;
	p->epoll_fd = p->wake.fd = p->stop.fd = -1;
	pthread_mutex_init(&p->lock, NULL);
	p->begun_ns = p->now_ns = monotonic_ns();
	rc = make_parts(p, e);
	if (rc < 0) {
		pgr_close(p);
		return rc;
	}
	*ret = p;
	return 0;
}

int pgr_start(struct pgr *p, bool network, struct err *e)
{
	const struct work *work = &p->env.work;
	int rc = work->ops->threads(work->ctx, e);

	if (rc < 0 || !network)
		return rc < 0 ? rc : 0;
	pthread_mutex_lock(&p->lock);
	rc = net_lazy_start(p->net, e);
	pthread_mutex_unlock(&p->lock);
	return rc;
}

static void end_all(struct pgr *p)
{
	while (p->peers)
		pgr_peer_end(p->peers);
	p->cfg.say = NULL;
	for (struct pgr_vm *vm = p->vms; vm; vm = vm->next)
		pgr_vm_end(vm, "");
	if (p->ioq)
		ioq_drain(p->ioq);
	while (p->listeners) {
		struct pgr_listener *l = p->listeners;

		p->listeners = l->next;
		timer_cancel(&p->timers, &l->again);
		pgr_watch_leave(p, &l->watch); /* whose file it is closes it */
		l->image->users--;
		free(l);
	}
}

/* Work that is under way ends soon; reads that a wrapper keeps were cancelled. */
static void wait_for_reads(struct pgr *p)
{
	static const struct timespec pause = {.tv_nsec = (long)NS_PER_MS};

	for (bury(p); p->vms; bury(p)) {
		pump_all(p);
		(void)nanosleep(&pause, NULL);
	}
}

void pgr_close(struct pgr *p)
{
	if (!p)
		return;
	end_all(p);
	if (p->ioq)
		wait_for_reads(p);
	bury(p);
	ASSERT(!p->images);
	net_lazy_close(p->net);
	thread_pool_close(p->pool);
	ioq_close(p->ioq);
	if (p->epoll_fd >= 0)
		close(p->epoll_fd);
	if (p->wake.fd >= 0)
		close(p->wake.fd);
	if (p->buffers)
		munmap(p->buffers, SMALL_ROOM + LARGE_ROOM);
	if (p->zeroes)
		munmap((void *)(uintptr_t)p->zeroes, PGR_LARGE_BYTES);
	free(p->fetches);
	free(p->heap);
	pthread_mutex_destroy(&p->lock);
	free(p);
}
