/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See custom.h. Owns a fixed pool of slots, one per outstanding read. A slot's word holds its
 * generation and state, and changes atomically:
 *
 *   FREE -> WAITING     read(): to be handed out
 *   WAITING -> OUT      src_custom_next(), with IN_CALL until src_custom_called()
 *   OUT -> ANSWERING    src_custom_answer(): of several, the one that makes this step
 *   ANSWERING -> ANSWERED   the same, when the answer is in the slot
 *   ANSWERED -> FREE    `done` is called; the next read has another generation
 *   WAITING -> FREE     cancelled before anybody knew of it
 *
 * Who finds IN_CALL gone puts the slot on the stack of answers and wakes; else the thread that
 * is in the call looks when it is back. So an answer within the call costs no wake-up, and each
 * answer is seen by exactly one of the two.
 *
 * All else in a slot belongs to the lock, but for the answer, which belongs to the answerer
 * while ANSWERING and to the lock again once the slot was taken.
 */
#include "source/custom.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/list.h"
#include "source/source.h"

enum slot_state {
	SLOT_FREE,
	SLOT_WAITING,
	SLOT_OUT,
	SLOT_ANSWERING,
	SLOT_ANSWERED,
};

#define SLOT_STATE 0xffu
#define SLOT_IN_CALL 0x100u
#define GENERATION_SHIFT 32
#define GENERATION_ONE (1ull << GENERATION_SHIFT)

struct slot {
	uint64_t word; /* atomic: generation, SLOT_IN_CALL, state */
	struct src_read *rd;
	struct slot *next;     /* while free */
	struct list_link link; /* of what is to be told */
	bool listed;           /* it is to be told of: that is to be read, raised, or cancelled */
	bool raised, cancelled;
	struct slot *answered_next; /* of the stack of answers */
	/* The answer. */
	enum src_custom_answer answer;
	int code;
	char why[ERR_TEXT_MAX];
};

struct src_custom {
	struct src src;
	struct src_custom_hooks hooks;
	bool closed; /* atomic */
	uint32_t slot_count;
	struct slot *slots;
	struct slot *free;
	struct list due;       /* to be told */
	struct slot *answered; /* atomic: the last answer first */
};

static enum slot_state state_of(uint64_t word)
{
	return (enum slot_state)(word & SLOT_STATE);
}

static uint64_t load(const struct slot *s)
{
	return __atomic_load_n(&s->word, __ATOMIC_ACQUIRE);
}

/* Under the lock, from a state that nobody else leaves. */
static void set_state(struct slot *s, uint64_t state)
{
	uint64_t generation = load(s) & ~(GENERATION_ONE - 1);

	__atomic_store_n(&s->word, generation | state, __ATOMIC_RELEASE);
}

/* Never 0, whatever the generation. */
static uint64_t id_of(const struct src_custom *c, const struct slot *s)
{
	return (load(s) & ~(GENERATION_ONE - 1)) | (uint64_t)(s - c->slots + 1);
}

static struct slot *slot_of(struct src_custom *c, uint64_t id)
{
	uint32_t index = (uint32_t)id - 1;

	return index < c->slot_count ? &c->slots[index] : NULL;
}

/* ---- what is to be told ---- */

static void list(struct src_custom *c, struct slot *s)
{
	if (s->listed)
		return;
	s->listed = true;
	list_append(&c->due, &s->link);
}

static void unlist(struct src_custom *c, struct slot *s)
{
	if (!s->listed)
		return;
	s->listed = false;
	list_remove(&c->due, &s->link);
}

/* ---- the end of a read ---- */

static void end(struct src_custom *c, struct slot *s, const struct err *why)
{
	struct src_read *rd = s->rd;
	uint64_t generation = (load(s) & ~(GENERATION_ONE - 1)) + GENERATION_ONE;

	unlist(c, s);
	s->rd = NULL;
	__atomic_store_n(&s->word, generation | SLOT_FREE, __ATOMIC_RELEASE);
	/* Free first: `done` may read again. */
	s->next = c->free;
	c->free = s;
	rd->done(rd, why);
}

static void end_answered(struct src_custom *c, struct slot *s)
{
	unsigned long long at = s->rd->offset;
	struct err why;

	s->rd->again = s->answer == SRC_CUSTOM_DONE_AGAIN;
	if (s->answer != SRC_CUSTOM_FAILED) {
		end(c, s, NULL);
		return;
	}
	if (s->why[0])
		(void)err_set(&why, s->code, "%s: read at byte %llu: %s", c->hooks.name, at,
			      s->why);
	else
		(void)err_sys(&why, s->code, "%s: read at byte %llu", c->hooks.name, at);
	end(c, s, &why);
}

/* ---- the source ---- */

static void custom_read(struct src *src, struct src_read *rd)
{
	struct src_custom *c = CONTAINER_OF(src, struct src_custom, src);
	struct slot *s = c->free;

	ASSERT(s); /* env->reads_max */
	ASSERT(rd->len > 0 && rd->offset <= src->size && rd->len <= src->size - rd->offset);
	c->free = s->next;
	s->rd = rd;
	s->raised = s->cancelled = false;
	rd->held_by = s;
	set_state(s, SLOT_WAITING);
	list(c, s);
}

static void custom_cancel(struct src *src, struct src_read *rd)
{
	struct src_custom *c = CONTAINER_OF(src, struct src_custom, src);
	struct slot *s = rd->held_by;
	struct err why;

	ASSERT(s->rd == rd);
	if (state_of(load(s)) == SLOT_WAITING) {
		(void)err_sys(&why, -ECANCELED, "%s: read at byte %llu", c->hooks.name,
			      (unsigned long long)rd->offset);
		end(c, s, &why);
		return;
	}
	/* Told once; after the read itself, of which the answerer may be about to learn. */
	if (!s->cancelled && !(load(s) & SLOT_IN_CALL))
		list(c, s);
	s->cancelled = true;
}

static void custom_raise(struct src *src, struct src_read *rd)
{
	struct src_custom *c = CONTAINER_OF(src, struct src_custom, src);
	struct slot *s = rd->held_by;

	ASSERT(s->rd == rd);
	/* What is handed out later is by its turn then. */
	if (!c->hooks.raises || state_of(load(s)) == SLOT_WAITING)
		return;
	s->raised = true;
	if (!(load(s) & SLOT_IN_CALL))
		list(c, s);
}

static void custom_close(struct src *src)
{
	struct src_custom *c = CONTAINER_OF(src, struct src_custom, src);

	ASSERT(!c->due.first && !__atomic_load_n(&c->answered, __ATOMIC_RELAXED));
	__atomic_store_n(&c->closed, true, __ATOMIC_RELEASE);
	c->hooks.close(c->hooks.ctx);
}

static int custom_load(struct src *src, uint64_t offset, void *buf, size_t len, struct err *e)
{
	const struct src_custom *c = CONTAINER_OF(src, struct src_custom, src);

	if (offset > src->size || len > src->size - offset)
		return err_set(e, -EINVAL, "%s: bytes %llu to %llu are not in it", c->hooks.name,
			       (unsigned long long)offset, (unsigned long long)(offset + len));
	return c->hooks.load(c->hooks.ctx, offset, buf, len, e);
}

#define VMMS_NAME "the VMM's source"

static const struct src_ops custom_ops = {
	.name = VMMS_NAME,
	.read = custom_read,
	.cancel = custom_cancel,
	.raise = custom_raise,
	.close = custom_close,
};

static const struct src_ops loadable_ops = {
	.name = "custom",
	.read = custom_read,
	.cancel = custom_cancel,
	.raise = custom_raise,
	.load = custom_load,
	.close = custom_close,
};

int src_custom_open(uint64_t size, const struct src_custom_hooks *hooks,
		    const struct src_env *env, struct src_custom **ret, struct err *e)
{
	struct src_custom *c;

	/* As files are: sizes and offsets are signed in many an interface. */
	if (size == 0 || size > INT64_MAX)
		return err_set(e, -EINVAL, "custom source: its size is %llu bytes",
			       (unsigned long long)size);
	c = calloc(1, sizeof(*c));
	if (c)
		c->slots = calloc(env->reads_max, sizeof(*c->slots));
	if (!c || !c->slots) {
		free(c);
		return err_set(e, -ENOMEM, "custom source: out of memory");
	}
	c->src = (struct src){.ops = hooks->load ? &loadable_ops : &custom_ops, .size = size};
	c->hooks = *hooks;
	if (!c->hooks.name)
		c->hooks.name = VMMS_NAME;
	c->slot_count = env->reads_max;
	for (uint32_t i = c->slot_count; i-- > 0;) {
		/* No small number is an id at first: a VMM may mean something else by it. */
		c->slots[i].word = GENERATION_ONE | SLOT_FREE;
		c->slots[i].next = c->free;
		c->free = &c->slots[i];
	}
	*ret = c;
	return 0;
}

struct src *src_custom_src(struct src_custom *c)
{
	return &c->src;
}

void src_custom_free(struct src_custom *c)
{
	free(c->slots);
	free(c);
}

/* ---- handing out ---- */

bool src_custom_due(const struct src_custom *c)
{
	return c->due.first != NULL;
}

bool src_custom_next(struct src_custom *c, struct src_custom_call *ret)
{
	struct slot *s = LIST_ENTRY(c->due.first, struct slot, link);
	bool known;

	if (!s)
		return false;
	unlist(c, s);
	known = state_of(load(s)) != SLOT_WAITING;
	*ret = (struct src_custom_call){
		.id = id_of(c, s),
		.cancel = known && s->cancelled,
		.raise = known && !s->cancelled,
		.offset = s->rd->offset,
		.buf = s->rd->buf,
		.len = s->rd->len,
		.urgent = s->rd->urgent,
		.turn = src_turn(s->rd),
	};
	s->raised = false;
	/* From here on it can be answered. */
	if (!known)
		set_state(s, SLOT_OUT | SLOT_IN_CALL);
	return true;
}

void src_custom_called(struct src_custom *c, const struct src_custom_call *call)
{
	struct slot *s = slot_of(c, call->id);
	uint64_t word;

	/* The slot may have been answered since, taken, and be another read's. */
	if (call->cancel || call->raise)
		return;
	word = __atomic_fetch_and(&s->word, ~(uint64_t)SLOT_IN_CALL, __ATOMIC_ACQ_REL);
	ASSERT(s->rd && (word & SLOT_IN_CALL));
	if (state_of(word) == SLOT_ANSWERED)
		end_answered(c, s);
	else if (s->cancelled || s->raised)
		list(c, s);
}

/* ---- answers ---- */

static void copy_text(char *to, const char *from)
{
	size_t n = 0;

	while (from && from[n] && n < ERR_TEXT_MAX - 1) {
		to[n] = from[n];
		n++;
	}
	to[n] = '\0';
}

/* The answer is in the slot. True: nobody is in the call who would find it there. */
static bool publish(struct slot *s)
{
	uint64_t word = load(s), next;

	do
		next = (word & ~(uint64_t)SLOT_STATE) | SLOT_ANSWERED;
	while (!__atomic_compare_exchange_n(&s->word, &word, next, true, __ATOMIC_ACQ_REL,
					    __ATOMIC_ACQUIRE));
	return !(word & SLOT_IN_CALL);
}

/* Pairs with the exchange in src_custom_take. */
static void push(struct src_custom *c, struct slot *s)
{
	struct slot *top = __atomic_load_n(&c->answered, __ATOMIC_RELAXED);

	do
		s->answered_next = top;
	while (!__atomic_compare_exchange_n(&c->answered, &top, s, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
}

int src_custom_answer(struct src_custom *c, uint64_t id, enum src_custom_answer answer, int code,
		      const char *why)
{
	struct slot *s = slot_of(c, id);
	uint64_t word;

	if (__atomic_load_n(&c->closed, __ATOMIC_ACQUIRE))
		return -ESHUTDOWN;
	if (!s)
		return -ESTALE;
	word = load(s);
	do {
		if (word >> GENERATION_SHIFT != id >> GENERATION_SHIFT ||
		    state_of(word) != SLOT_OUT)
			return -ESTALE;
	} while (!__atomic_compare_exchange_n(&s->word, &word, word - SLOT_OUT + SLOT_ANSWERING,
					      true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
	s->answer = answer;
	s->code = code < 0 ? code : -EIO;
	copy_text(s->why, answer == SRC_CUSTOM_FAILED ? why : NULL);
	/* Nobody ends the read before it is ANSWERED. */
	if (answer == SRC_CUSTOM_ZEROES)
		memset(s->rd->buf, 0, s->rd->len);
	if (publish(s)) {
		push(c, s);
		c->hooks.wake(c->hooks.ctx);
	}
	return 0;
}

bool src_custom_take(struct src_custom *c)
{
	struct slot *s = NULL, *first = NULL, *next;

	if (__atomic_load_n(&c->answered, __ATOMIC_RELAXED))
		s = __atomic_exchange_n(&c->answered, NULL, __ATOMIC_ACQUIRE);
	/* In the order in which they came. */
	for (; s; s = next) {
		next = s->answered_next;
		s->answered_next = first;
		first = s;
	}
	if (!first)
		return false;
	for (s = first; s; s = next) {
		next = s->answered_next;
		end_answered(c, s);
	}
	return true;
}
