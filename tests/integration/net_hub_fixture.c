/* SPDX-License-Identifier: Apache-2.0 */
#include "net_hub_fixture.h"

static void hub_wake(void *ctx)
{
	struct hub *h = ctx;

	pthread_mutex_lock(&h->state);
	h->wake = true;
	pthread_cond_signal(&h->woken);
	pthread_mutex_unlock(&h->state);
}

static void hub_begins(void *ctx, const char *name)
{
	(void)ctx;
	(void)pthread_setname_np(pthread_self(), name);
}

static void hub_lock(void *ctx)
{
	pthread_mutex_lock(&((struct hub *)ctx)->lock);
}

static void hub_unlock(void *ctx)
{
	pthread_mutex_unlock(&((struct hub *)ctx)->lock);
}

static void hub_done(struct src_read *rd, const struct err *why)
{
	struct hub_read *r = CONTAINER_OF(rd, struct hub_read, rd);

	r->order = ++r->hub->over;
	r->code = why ? why->code : 0;
	snprintf(r->why, sizeof(r->why), "%s", why ? why->text : "");
}

/* The error where it does not open. */
static struct err hub_try(struct hub *h, const char *uri)
{
	const struct net_hub_cfg cfg = {
		.begins = hub_begins,
		.wake = hub_wake,
		.unlock = hub_unlock,
		.lock = hub_lock,
		.ctx = h,
	};
	struct src_env env = {.reads_max = HUB_READS};
	struct err e = {0};

	memset(h, 0, sizeof(*h));
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_init(&h->state, NULL);
	pthread_cond_init(&h->woken, NULL);
	assert_int_equal(net_hub_open(&cfg, &h->net, &e), 0);
	env.net = net_hub_net(h->net);
	hub_lock(h);
	(void)src_open(uri, &env, &h->src, &e);
	return e;
}

void hub_open(struct hub *h, const char *uri)
{
	const struct err e = hub_try(h, uri);

	if (!h->src)
		print_error("%s\n", e.text);
	assert_non_null(h->src);
}

void hub_refused(const char *uri, int code, const char *says)
{
	static struct hub h;
	const struct err e = hub_try(&h, uri);

	print_message("%d: %s\n", e.code, e.text);
	assert_null(h.src);
	assert_int_equal(e.code, code);
	assert_non_null(strstr(e.text, says));
	/* Whatever it was, nothing of a password is said. */
	assert_null(strstr(e.text, "secret"));
	hub_close(&h);
}

struct hub_read *hub_read(struct hub *h, uint64_t offset, uint32_t len, bool urgent)
{
	struct hub_read *r = &h->reads[h->count++];

	assert_true(h->count <= HUB_READS);
	*r = (struct hub_read){.hub = h};
	r->rd = (struct src_read){.offset = offset, .len = len, .urgent = urgent,
				  .done = hub_done, .buf = malloc(len)};
	assert_non_null(r->rd.buf);
	h->src->ops->read(h->src, &r->rd);
	return r;
}

void hub_wait(struct hub *h, unsigned over)
{
	while (h->over < over) {
		if (net_hub_pump(h->net))
			continue;
		hub_unlock(h);
		pthread_mutex_lock(&h->state);
		while (!h->wake)
			pthread_cond_wait(&h->woken, &h->state);
		h->wake = false;
		pthread_mutex_unlock(&h->state);
		hub_lock(h);
	}
}

void hub_check(struct hub *h, const unsigned char *image)
{
	for (unsigned i = 0; i < h->count; i++) {
		struct hub_read *r = &h->reads[i];

		assert_int_not_equal(r->order, 0);
		if (r->code == 0)
			assert_memory_equal(r->rd.buf, image + r->rd.offset, r->rd.len);
		free(r->rd.buf);
	}
	h->count = 0;
	h->over = 0;
}

void hub_read_well(struct hub *h, unsigned count, const unsigned char *image)
{
	for (unsigned i = 0; i < count; i++)
		(void)hub_read(h, 2 * i * PAGE_BYTES, PAGE_BYTES, true);
	hub_wait(h, count);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(h->reads[i].code, 0);
	hub_check(h, image);
}

/* How often the loop's thread has gone to sleep. A sanitizer may have threads of its own. */
static unsigned long hub_sleeps(void)
{
	DIR *d = opendir("/proc/self/task");
	unsigned long sum = 0, n;
	struct dirent *de;

	assert_non_null(d);
	while ((de = readdir(d))) {
		char path[320], line[128];
		FILE *f;

		bool ours = false;

		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", de->d_name);
		f = fopen(path, "r");
		while (f && fgets(line, sizeof(line), f)) {
			ours |= strcmp(line, "Name:\tasyncpf-net\n") == 0;
			if (ours && sscanf(line, "voluntary_ctxt_switches: %lu", &n) == 1)
				sum += n;
		}
		if (f)
			fclose(f);
	}
	closedir(d);
	assert_true(sum > 0);
	return sum;
}

void hub_is_idle(void)
{
	const struct timespec while_ = {.tv_nsec = 300000000};
	unsigned long before;

	for (unsigned i = 0; i < 20; i++) {
		before = hub_sleeps();
		nanosleep(&while_, NULL);
		if (hub_sleeps() == before)
			return;
	}
	fail_msg("an idle source wakes somebody up");
}

void hub_close(struct hub *h)
{
	src_close(h->src);
	hub_unlock(h);
	net_hub_close(h->net);
	pthread_mutex_destroy(&h->lock);
	pthread_mutex_destroy(&h->state);
	pthread_cond_destroy(&h->woken);
}
