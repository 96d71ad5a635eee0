/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for source URIs. The input up to its first NUL is the URI, what follows are
 * reads. What must hold: a refusal says why, in one line; a URI is taken apart within its own
 * text; and a stack that needs no file (zero:, with whatever wraps it) answers each read once,
 * with zeroes or a reason, also when it is cancelled. Nothing of the machine is opened.
 */
#include "bytes.h"
#include "source/source.h"
#include "source/uri.h"

#define READS 6u
#define READ_BYTES 64u
#define TIMERS 4u
#define ROUNDS_MAX 100u

struct world {
	uint64_t now;
	struct timers timers;
	struct timer *heap[TIMERS];
};

struct request {
	struct src_read rd;
	unsigned done;
	unsigned char buf[READ_BYTES];
};

static uint64_t now_ns(void *ctx)
{
	return ((struct world *)ctx)->now;
}

static void said(const struct err *e, int rc)
{
	must(rc < 0 && e->code == rc && *e->text && strlen(e->text) < ERR_TEXT_MAX);
}

static bool within(const struct uri *u, const char *text)
{
	return text >= u->text && text < u->text + sizeof(u->text) &&
	       memchr(text, '\0', (size_t)(u->text + sizeof(u->text) - text));
}

static void check_parts(const struct uri *u)
{
	must(u->schemes >= 1 && u->schemes <= URI_SCHEMES_MAX && u->params <= URI_PARAMS_MAX);
	must(within(u, u->path));
	for (unsigned i = 0; i < u->schemes; i++)
		must(*u->scheme[i]);
	for (unsigned i = 0; i < u->params; i++) {
		struct err e = {0};
		uint64_t n = 0;
		int rc = uri_number(u, u->param[i].key, 3, 1000, &n, &e);

		must(within(u, u->param[i].key) && within(u, u->param[i].value));
		must(*u->param[i].value && uri_value(u, u->param[i].key) == u->param[i].value);
		must(rc == 1 ? n >= 3 && n <= 1000 : rc < 0 && n == 0);
		rc = uri_size(u, u->param[i].key, &n, &e);
		must(rc == 1 ? n > 0 && n <= INT64_MAX : rc < 0);
	}
}

static void read_done(struct src_read *rd, const struct err *why)
{
	struct request *rq = CONTAINER_OF(rd, struct request, rd);

	must(rq->done++ == 0);
	if (why)
		said(why, why->code);
	for (size_t i = 0; !why && i < rd->len; i++)
		must(rq->buf[i] == 0);
}

static void read_some(struct src *s, struct world *w, struct bytes *b)
{
	struct request rq[READS];
	unsigned n = 0;

	for (; n < READS && b->left; n++) {
		uint32_t len = 1 + take8(b) % (uint32_t)min_u64(READ_BYTES, s->size);

		rq[n] = (struct request){.rd = {.len = len, .done = read_done}};
		rq[n].rd.offset = take(b, 8) % (s->size - len + 1);
		rq[n].rd.buf = rq[n].buf;
		memset(rq[n].buf, 0xee, sizeof(rq[n].buf));
		s->ops->read(s, &rq[n].rd);
		if (take8(b) & 1 && !rq[n].done)
			s->ops->cancel(s, &rq[n].rd);
	}
	for (unsigned i = 0; timers_next_ns(&w->timers) != NS_NEVER; i++) {
		must(i < ROUNDS_MAX);
		w->now = max_u64(w->now, timers_next_ns(&w->timers));
		timers_run(&w->timers, w->now);
	}
	for (unsigned i = 0; i < n; i++) {
		if (!rq[i].done) /* it hangs for good */
			s->ops->cancel(s, &rq[i].rd);
		must(rq[i].done == 1);
	}
}

static void open_stack(const char *text, struct bytes *b)
{
	static const struct clock_ops clock_ops = {.now_ns = now_ns};
	struct world w = {.now = NS_PER_S};
	const struct src_env env = {
		.clock = {&clock_ops, &w}, .timers = &w.timers, .reads_max = READS};
	struct src *s = NULL;
	struct err e = {0};

	timers_init(&w.timers, w.heap, TIMERS);
	must(src_open(text, &env, &s, &e) == 0 && s->size > 0);
	read_some(s, &w, b);
	src_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = memchr(data, '\0', size);
	size_t len = end ? (size_t)(end - data) : size;
	struct bytes b = {data + len + (end != NULL), size - len - (end != NULL)};
	char *text = calloc(1, len + 1);
	struct uri *u = malloc(sizeof(*u));
	struct err e = {0};
	int rc;

	must(text && u);
	memcpy(text, data, len);
	rc = uri_parse(text, u, &e);
	if (rc < 0)
		said(&e, rc);
	else
		check_parts(u);
	e = (struct err){0};
	if (src_check(text, &e) < 0)
		said(&e, e.code);
	else if (strcmp(u->scheme[u->schemes - 1], "zero") == 0)
		open_stack(text, &b);
	free(u);
	free(text);
	return 0;
}
