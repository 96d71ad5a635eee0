/* SPDX-License-Identifier: Apache-2.0 */
#include "custom_fixture.h"

uint64_t word_at(uint64_t offset)
{
	return (offset + 1) * 0x9e3779b97f4a7c15ull;
}

void fill(void *buf, uint64_t offset, uint64_t len)
{
	uint64_t *w = buf;

	for (uint64_t i = 0; i < len / 8; i++)
		w[i] = word_at(offset + i * 8);
}

bool is_right(const void *buf, uint64_t offset, uint64_t len)
{
	const uint64_t *w = buf;

	for (uint64_t i = 0; i < len / 8; i++)
		if (w[i] != word_at(offset + i * 8))
			return false;
	return true;
}

void on_read(void *ctx, const struct apf_read_request *rd)
{
	struct own *o = ctx;
	static const unsigned char around[16 * PAGE];
	uint64_t taken;

	CHECK(rd->size == sizeof(*rd) && rd->len > 0 && rd->offset + rd->len <= SRC_BYTES);
	COUNT(o->told);
	if (rd->urgent)
		COUNT(o->urgent);
	switch (o->how) {
	case AT_ONCE:
		fill(rd->buf, rd->offset, rd->len);
		__atomic_store_n(&o->teller, pthread_self(), __ATOMIC_RELEASE);
		CHECK(apf_read_done(o->s, rd->id) == 0);
		CHECK(apf_read_done(o->s, rd->id) == -ESTALE);
		break;
	case ALONG: {
		uint64_t first = rd->offset / sizeof(around) * sizeof(around);
		unsigned char *all = malloc(sizeof(around));

		fill(all, first, sizeof(around));
		memcpy(rd->buf, all + (rd->offset - first), rd->len);
		/* Its own block is being read, and not taken. */
		CHECK(apf_source_offer(o->s, first, all, sizeof(around), &taken) == 0);
		CHECK(taken == sizeof(around) - rd->len);
		CHECK(apf_read_done(o->s, rd->id) == 0);
		free(all);
		break;
	}
	case FAILS:
		CHECK(apf_read_failed(o->s, rd->id, -ENOKEY, "my store has lost the key") == 0);
		break;
	case ZEROES:
		memset(rd->buf, 0xee, rd->len);
		CHECK(apf_read_zeroes(o->s, rd->id) == 0);
		break;
	case QUEUED:
		pthread_mutex_lock(&o->lock);
		CHECK(o->count < READS);
		o->reads[o->count++] = *rd;
		pthread_cond_broadcast(&o->more);
		pthread_mutex_unlock(&o->lock);
	}
}

static void on_cancel(void *ctx, apf_read_id id)
{
	struct own *o = ctx;

	__atomic_store_n(&o->cancelled, id, __ATOMIC_RELEASE);
	COUNT(o->cancels);
	if (o->acknowledges)
		CHECK(apf_read_failed(o->s, id, -ECANCELED, NULL) == 0);
}

static void on_close(void *ctx)
{
	COUNT(((struct own *)ctx)->closes);
}

static void on_event(void *ctx, const struct apf_event *ev)
{
	struct own *o = ctx;

	if (ev->kind == APF_EVENT_PAUSED)
		snprintf(o->paused, sizeof(o->paused), "%s", ev->text);
	/* Last: who sees it may read the text. */
	COUNT(*(ev->kind == APF_EVENT_PAUSED ? &o->pauses : &o->resumes));
}

void prepare(struct own *o, enum how how)
{
	memset(o, 0, sizeof(*o));
	vm_open(&o->v);
	o->v.config.on_event = on_event;
	o->v.config.on_event_ctx = o;
	o->how = how;
	o->acknowledges = true;
	pthread_mutex_init(&o->lock, NULL);
	pthread_cond_init(&o->more, NULL);
}

void add_source(struct own *o, const char *wrap)
{
	const struct apf_source_config c = {
		.size = sizeof(c),
		.ctx = o,
		.bytes = SRC_BYTES,
		.wrap = wrap,
		.read = on_read,
		.cancel = on_cancel,
		.close = on_close,
	};

	if (apf_source_custom(o->v.apf, &c, &o->s, &o->v.error) < 0)
		fail_msg("%s", o->v.error.text);
}

void place(struct own *o, uint64_t gpa, uint64_t bytes)
{
	if (apf_source_place(o->s, gpa, bytes, 0, &o->v.error) < 0)
		fail_msg("%s", o->v.error.text);
}

void begin(struct own *o, const char *wrap)
{
	vm_memory(&o->v, NULL);
	add_source(o, wrap);
	place(o, SRC_GPA, SRC_BYTES);
}

void finish(struct own *o)
{
	assert_int_equal(apf_source_free(o->s), -EBUSY);
	apf_close(o->v.apf);
	assert_int_equal(o->closes, 1);
	assert_int_equal(apf_read_done(o->s, 1ull << 32), -ESHUTDOWN);
	assert_int_equal(apf_source_free(o->s), 0);
}

void wait_for(const unsigned *count, unsigned n)
{
	while (GET(*count) < n)
		usleep(500);
}

void wait_reads(struct own *o, unsigned n)
{
	pthread_mutex_lock(&o->lock);
	while (o->count < n)
		pthread_cond_wait(&o->more, &o->lock);
	pthread_mutex_unlock(&o->lock);
}

void must_read(struct own *o, uint64_t offset, uint64_t len)
{
	unsigned char *buf = malloc(len);

	CHECK(apf_read(o->v.apf, SRC_GPA + offset, buf, len) == 0);
	CHECK(is_right(buf, offset, len));
	free(buf);
}

static void *populate(void *arg)
{
	struct populating *p = arg;

	p->rc = apf_populate(p->o->v.apf, SRC_GPA + p->offset, p->len);
	return NULL;
}

void populate_begin(struct populating *p, struct own *o, uint64_t offset, uint64_t len)
{
	*p = (struct populating){.o = o, .offset = offset, .len = len};
	assert_int_equal(pthread_create(&p->thread, NULL, populate, p), 0);
}

int populate_end(struct populating *p)
{
	pthread_join(p->thread, NULL);
	return p->rc;
}

uint64_t stat_reads(struct own *o)
{
	struct apf_counters c;

	apf_counters_get(o->v.apf, &c, sizeof(c));
	return c.reads;
}
