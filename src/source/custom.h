/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source whose reads somebody else carries out, on threads of his own: the door for a VMM's
 * own sources. Reads that come in by port/source.h wait here until they are handed out, and end
 * when the answer is taken. In between they belong to the answerer, who knows a read by an id
 * that is good for one answer.
 *
 * Threads: everything is called under the caller's lock (port/source.h) but src_custom_answer,
 * which any thread may call at any time, in a signal handler, too: it takes no lock, allocates
 * nothing, and never waits. A read is handed out without the lock, between src_custom_next and
 * src_custom_called.
 *
 * Test: tests/unit/source_custom_test.c.
 */
#ifndef SOURCE_CUSTOM_H
#define SOURCE_CUSTOM_H

#include "port/source.h"

struct src_custom;

struct src_custom_hooks {
	/*
	 * An answer waits for src_custom_take. Called by src_custom_answer, on whatever thread that
	 * is called, without the lock; must be safe in a signal handler.
	 */
	void (*wake)(void *ctx);
	/* The source is being closed: nothing is outstanding. */
	void (*close)(void *ctx);
	void *ctx;
	/* As port/source.h has it; NULL: it cannot be read while it is opened. */
	int (*load)(void *ctx, uint64_t offset, void *buf, size_t len, struct err *e);
	const char *name; /* for messages, valid until close; NULL: it is the VMM's */
	bool raises;      /* it is told, too, when what it has already is wanted sooner */
};

/* What the answerer is to be told next. */
struct src_custom_call {
	uint64_t id; /* its low half is below env->reads_max, and no other outstanding read's */
	bool cancel; /* the read `id` is not wanted any more */
	bool raise;  /* it goes by `turn` from now on; else, to be read: */
	uint64_t offset;
	void *buf;
	size_t len;
	bool urgent;
	enum turn turn;
};

enum src_custom_answer {
	SRC_CUSTOM_DONE,   /* the content is in buf */
	SRC_CUSTOM_DONE_AGAIN, /* the same; and `again` of port/source.h */
	SRC_CUSTOM_ZEROES, /* buf is cleared by the call */
	SRC_CUSTOM_FAILED,
};

/*
 * It is a source of port/source.h, to be closed as such, and after that has to be freed. 0, or
 * -Exxx with text, *ret untouched.
 */
int src_custom_open(uint64_t size, const struct src_custom_hooks *hooks,
		    const struct src_env *env, struct src_custom **ret, struct err *e);
struct src *src_custom_src(struct src_custom *c);
/* After src_close: answers are refused until then, and nobody may be in a call any more. */
void src_custom_free(struct src_custom *c);

/*
 * The next thing to tell, false: nothing. Then, without the lock, the caller tells it, and then,
 * under the lock, calls src_custom_called. Several threads may be in the middle of this.
 */
bool src_custom_due(const struct src_custom *c); /* there is something */
bool src_custom_next(struct src_custom *c, struct src_custom_call *ret);
void src_custom_called(struct src_custom *c, const struct src_custom_call *call);
/* Ends the reads that were answered; false: there were none. */
bool src_custom_take(struct src_custom *c);

/*
 * 0: it counts. -ESTALE: `id` waits for no answer: it has had one, or was never handed out.
 * -ESHUTDOWN: the source is closed. Of FAILED: code -Exxx (anything else counts as -EIO), and
 * why, which may be NULL and is copied, as far as it fits.
 */
int src_custom_answer(struct src_custom *c, uint64_t id, enum src_custom_answer answer, int code,
		      const char *why);

#endif
