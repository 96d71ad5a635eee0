/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net/queue.c without a server: how many requests are on their way, which reads become one, how
 * large ones are cut, and what is left of a request when nobody wants part of it any more. The peer
 * takes every request, and answers when the test says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/time.h"
#include "net/src.h"

#define DEPTH 8u
#define READS 96u
#define KIB 1024u
#define JOIN NET_JOIN_BYTES

struct net_bed {
	struct net_peer peer;
	struct net_hub hub;
	struct net_src s;
	struct net_req reqs[DEPTH];
	struct net_read reads[READS];
	struct loader loaders[READS];
	unsigned count;
	struct net_req *sent[READS]; /* in their order */
	enum turn turns[READS];      /* of those: a request is used again */
	unsigned sent_count, cancelled;
	unsigned char *room;
};

static struct net_bed *bed_of(struct net_peer *p)
{
	return CONTAINER_OF(p, struct net_bed, peer);
}

static bool has_room(struct net_peer *p, enum turn turn)
{
	(void)p, (void)turn;
	return true;
}

static void take(struct net_peer *p, struct net_req *req)
{
	struct net_bed *b = bed_of(p);

	assert_true(b->sent_count < READS);
	b->turns[b->sent_count] = req->turn;
	b->sent[b->sent_count++] = req;
}

static void call_off(struct net_peer *p, struct net_req *req)
{
	(void)req;
	bed_of(p)->cancelled++;
}

static struct net_bed *bed_open(uint32_t req_bytes)
{
	static const struct net_peer_ops ops = {.room = has_room, .submit = take,
						.cancel = call_off};
	const struct net_loop_cfg cfg = {.timers_max = 4};
	struct net_bed *b = calloc(1, sizeof(*b));
	struct err e;

	assert_non_null(b);
	b->room = calloc(READS, JOIN);
	assert_non_null(b->room);
	assert_int_equal(net_loop_open(&cfg, &b->hub.loop, &e), 0);
	pthread_mutex_init(&b->hub.lock, NULL);
	pthread_cond_init(&b->hub.changed, NULL);
	b->s = (struct net_src){.hub = &b->hub, .ops = &ops, .peer = &b->peer, .reqs = b->reqs,
				.depth = DEPTH, .req_bytes = req_bytes};
	return b;
}

static void bed_close(struct net_bed *b)
{
	net_loop_close(b->hub.loop);
	free(b->room);
	free(b);
}

/* A read that waits; its loader tells when it is over. */
static struct net_read *want(struct net_bed *b, enum turn turn, uint64_t offset, uint32_t len)
{
	struct net_read *rd = &b->reads[b->count];

	assert_true(b->count < READS && len <= JOIN);
	*rd = (struct net_read){.state = READ_ACTIVE, .loader = &b->loaders[b->count],
				.offset = offset, .buf = b->room + b->count * JOIN, .len = len,
				.turn = turn, .left = len, .arrived_ns = monotonic_ns()};
	b->count++;
	net_read_waits(&b->s, rd);
	return rd;
}

/* A server's answer to the nth request that was sent: each byte is that of its place. */
static void answer(struct net_bed *b, unsigned n)
{
	struct net_req *req = b->sent[n];

	for (uint32_t at = 0; at < req->len; at++) {
		unsigned char byte = (unsigned char)((req->offset + at) >> 10);

		net_req_put(req, at, &byte, 1);
	}
	net_req_done(&b->s, req);
}

static void is_there(const struct net_read *rd)
{
	assert_true(rd->loader->over);
	assert_int_equal(rd->loader->code, 0);
	for (uint32_t at = 0; at < rd->len; at++)
		assert_int_equal(rd->buf[at], (unsigned char)((rd->offset + at) >> 10));
}

/* What nobody waits for has half of the requests; whoever comes has the rest at once. */
static void ahead_leaves_half(void **state)
{
	static const enum turn turns[] = {TURN_AHEAD, TURN_FILL};

	(void)state;
	for (unsigned k = 0; k < ARRAY_LEN(turns); k++) {
		struct net_bed *b = bed_open(JOIN);

		for (unsigned i = 0; i < 2 * DEPTH; i++)
			want(b, turns[k], (uint64_t)i << 20, 4 * KIB);
		net_send_off(&b->s);
		assert_int_equal(b->sent_count, DEPTH / 2);
		for (unsigned i = 0; i < DEPTH; i++)
			want(b, TURN_DEMAND, (uint64_t)(100 + i) << 20, 4 * KIB);
		net_send_off(&b->s);
		assert_int_equal(b->sent_count, DEPTH);
		for (unsigned i = DEPTH / 2; i < DEPTH; i++)
			assert_int_equal(b->sent[i]->turn, TURN_DEMAND);
		/* One comes back: those who wait go first. */
		answer(b, 0);
		net_send_off(&b->s);
		assert_int_equal(b->sent_count, DEPTH + 1);
		assert_int_equal(b->sent[DEPTH]->turn, TURN_DEMAND);
		bed_close(b);
	}
}

/* Where others have half of them, it has none. */
static void ahead_leaves_half_beside_others(void **state)
{
	struct net_bed *b = bed_open(JOIN);

	(void)state;
	for (unsigned i = 0; i < DEPTH; i++)
		want(b, i % 2 ? TURN_AHEAD : TURN_DEMAND, (uint64_t)i << 20, 4 * KIB);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, DEPTH / 2);
	answer(b, 0);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, DEPTH / 2 + 1);
	assert_int_equal(b->turns[DEPTH / 2], TURN_AHEAD);
	bed_close(b);
}

/* Though there is always one that goes first, and as many on their way as may be. */
static void nobody_waits_for_ever(void **state)
{
	struct net_bed *b = bed_open(JOIN);
	unsigned others = 0;

	(void)state;
	want(b, TURN_FILL, 1 << 20, 4 * KIB);
	want(b, TURN_AHEAD, 2 << 20, 4 * KIB);
	for (unsigned i = 0; i < DEPTH; i++)
		want(b, TURN_URGENT, (uint64_t)(100 + i) << 20, 4 * KIB);
	for (unsigned i = 0; i < 60; i++) {
		net_send_off(&b->s);
		assert_int_equal(b->s.flying, DEPTH);
		answer(b, i);
		want(b, TURN_URGENT, (uint64_t)(200 + i) << 20, 4 * KIB);
	}
	for (unsigned i = 0; i < b->sent_count; i++) {
		others += b->turns[i] != TURN_URGENT;
		assert_true(others == 0 || i >= TURN_IN_A_ROW);
	}
	is_there(&b->reads[0]);
	is_there(&b->reads[1]);
	bed_close(b);
}

/* What nobody waits for has failed, and is to be asked for again: it has half, no more. */
static void what_fails_leaves_half(void **state)
{
	struct net_bed *b = bed_open(JOIN);

	(void)state;
	for (unsigned i = 0; i < 3 * DEPTH; i++)
		want(b, TURN_AHEAD, (uint64_t)i << 20, 4 * KIB);
	for (unsigned sent = 0; sent < b->sent_count || sent == 0;) {
		net_send_off(&b->s);
		while (sent < b->sent_count)
			net_req_again(&b->s, b->sent[sent++], 3600 * NS_PER_S);
		net_send_off(&b->s);
	}
	assert_int_equal(b->sent_count, DEPTH / 2);
	want(b, TURN_URGENT, (uint64_t)100 << 20, 4 * KIB);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, DEPTH / 2 + 1);
	assert_int_equal(b->sent[DEPTH / 2]->turn, TURN_URGENT);
	bed_close(b);
}

/* One that fails each time does not keep its neighbours from their next try. */
static void who_failed_first_is_first(void **state)
{
	struct net_bed *b = bed_open(JOIN);

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		want(b, TURN_DEMAND, (uint64_t)i << 20, 4 * KIB);
	net_send_off(&b->s);
	for (unsigned i = 3; i-- > 0;)
		net_req_again(&b->s, b->sent[i], 0);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 6);
	for (unsigned i = 0; i < 3; i++)
		assert_ptr_equal(b->sent[3 + i], b->sent[2 - i]);
	bed_close(b);
}

/* 4 MiB of what nobody waits for, 8 MiB in all, whatever the number of requests. */
static void bytes_on_their_way(void **state)
{
	struct net_bed *b = bed_open(2 << 20);

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct net_read *rd = want(b, TURN_FILL, (uint64_t)i << 30, JOIN);

		rd->len = rd->left = 2 << 20; /* nobody writes to it */
	}
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 2);
	assert_int_equal(b->s.flying_bytes, 4 << 20);
	for (unsigned i = 0; i < 3; i++) {
		struct net_read *rd = want(b, TURN_DEMAND, (uint64_t)(10 + i) << 30, JOIN);

		rd->len = rd->left = 2 << 20;
	}
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 4);
	assert_int_equal(b->s.flying_bytes, 8 << 20);
	bed_close(b);
}

/* Neighbours become one request, from either side, up to a limit; urgent ones go by themselves. */
static void neighbours(void **state)
{
	struct net_bed *b = bed_open(1 << 20);
	struct net_read *rd[6];

	(void)state;
	rd[0] = want(b, TURN_DEMAND, 64 * KIB, 64 * KIB);
	rd[1] = want(b, TURN_DEMAND, 0, 64 * KIB);
	rd[2] = want(b, TURN_DEMAND, 128 * KIB, 128 * KIB); /* then it is JOIN bytes */
	rd[3] = want(b, TURN_DEMAND, 256 * KIB, 4 * KIB);
	rd[4] = want(b, TURN_URGENT, 512 * KIB, 4 * KIB);
	rd[5] = want(b, TURN_URGENT, 516 * KIB, 4 * KIB);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 4);
	assert_int_equal(b->sent[0]->len, 4 * KIB);
	assert_int_equal(b->sent[1]->len, 4 * KIB);
	assert_int_equal(b->sent[2]->offset, 0);
	assert_int_equal(b->sent[2]->len, JOIN);
	assert_int_equal(b->sent[2]->parts, 3);
	assert_int_equal(b->sent[3]->offset, 256 * KIB);
	for (unsigned i = 0; i < 4; i++)
		answer(b, i);
	for (unsigned i = 0; i < ARRAY_LEN(rd); i++)
		is_there(rd[i]);
	assert_int_equal(b->s.flying, 0);
	assert_int_equal(b->s.flying_bytes, 0);
	bed_close(b);
}

/* A read that is larger than a request may be comes in pieces, and is over with the last. */
static void large_reads_are_cut(void **state)
{
	struct net_bed *b = bed_open(64 * KIB);
	struct net_read *rd = want(b, TURN_DEMAND, 4 * KIB, 200 * KIB);

	(void)state;
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 4);
	assert_int_equal(b->sent[3]->len, 8 * KIB);
	for (unsigned i = 4; i-- > 0;) {
		assert_false(rd->loader->over);
		answer(b, i);
	}
	is_there(rd);
	bed_close(b);
}

/* With all of each block that it begins or ends in, a request is as large as the server takes. */
static void blocks_are_read_whole(void **state)
{
	const uint32_t block = 16 * KIB;

	(void)state;
	for (uint32_t most = block; most <= 4 * block; most += block) {
		struct net_bed *b = bed_open(most);

		b->s.block_mask = block - 1;
		want(b, TURN_DEMAND, 4 * KIB, 61 * KIB);
		/* Neighbours, behind and in front of what comes first. */
		want(b, TURN_FILL, 140 * KIB, 4 * KIB);
		for (unsigned i = 1; i < 5; i++) {
			want(b, TURN_FILL, (140 + i * 4) * KIB, 4 * KIB);
			want(b, TURN_FILL, (140 - i * 4) * KIB, 4 * KIB);
		}
		for (unsigned i = 0; !b->sent_count || i < b->sent_count; i++) {
			const struct net_req *req;

			net_send_off(&b->s);
			req = b->sent[i];
			assert_in_range(req->len, 1, most);
			assert_true((req->offset & ~(uint64_t)(block - 1)) + most >=
				    req->offset + req->len);
			answer(b, i);
		}
		for (unsigned i = 0; i < b->count; i++)
			is_there(&b->reads[i]);
		bed_close(b);
	}
}

/* What waits goes by its new turn: before others, and into what is left for those who wait. */
static void who_is_raised_overtakes(void **state)
{
	struct net_bed *b = bed_open(JOIN);

	(void)state;
	for (unsigned i = 0; i < DEPTH; i++)
		want(b, TURN_FILL, (uint64_t)i << 20, 4 * KIB);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, DEPTH / 2);
	net_read_raise(&b->s, &b->reads[DEPTH - 1], TURN_AHEAD);
	net_read_raise(&b->s, &b->reads[DEPTH - 2], TURN_DEMAND);
	net_read_raise(&b->s, &b->reads[DEPTH - 2], TURN_FILL);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, DEPTH / 2 + 1);
	assert_int_equal(b->sent[DEPTH / 2]->offset, (uint64_t)(DEPTH - 2) << 20);
	/* What is on its way stays there, and no other takes its place. */
	for (unsigned i = 0; i < DEPTH / 2; i++)
		net_read_raise(&b->s, &b->reads[i], TURN_DEMAND);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, DEPTH / 2 + 1);
	assert_int_equal(b->cancelled, 0);
	answer(b, DEPTH / 2);
	answer(b, 0);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, DEPTH / 2 + 2);
	assert_int_equal(b->sent[DEPTH / 2 + 1]->offset, (uint64_t)(DEPTH - 1) << 20);
	bed_close(b);
}

/* The rest of a large read, and what of it is to be asked for again. */
static void pieces_are_raised(void **state)
{
	struct net_bed *b = bed_open(64 * KIB);
	struct net_read *large = want(b, TURN_FILL, 0, 256 * KIB);

	(void)state;
	b->s.depth = 2;
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 1);
	want(b, TURN_AHEAD, 1 << 20, 4 * KIB);
	net_read_raise(&b->s, large, TURN_DEMAND);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 2);
	assert_int_equal(b->sent[1]->offset, 64 * KIB);
	/* Before what came by the earlier turn, though it has failed. */
	want(b, TURN_AHEAD, 2 << 20, 4 * KIB);
	net_req_again(&b->s, b->sent[0], 0);
	net_send_off(&b->s);
	assert_int_equal(b->turns[2], TURN_DEMAND);
	assert_int_equal(b->sent[2]->offset, 0);
	for (unsigned n = 1; !large->loader->over; n++) {
		answer(b, n);
		net_send_off(&b->s);
	}
	is_there(large);
	bed_close(b);
}

/* It has failed, and is to be asked for again: before what has waited for that longer. */
static void what_is_asked_for_again_is_raised(void **state)
{
	struct net_bed *b = bed_open(JOIN);

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		want(b, TURN_AHEAD, (uint64_t)i << 20, 4 * KIB);
	net_send_off(&b->s);
	for (unsigned i = 0; i < 3; i++)
		net_req_again(&b->s, b->sent[i], 0);
	net_read_raise(&b->s, &b->reads[2], TURN_DEMAND);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 6);
	assert_ptr_equal(b->sent[3], b->sent[2]);
	assert_int_equal(b->turns[3], TURN_DEMAND);
	bed_close(b);
}

/* A request that failed on the way counts its tries; what nobody wants any more is called off. */
static void failures(void **state)
{
	struct net_bed *b = bed_open(JOIN);
	struct net_read *a = want(b, TURN_DEMAND, 0, 4 * KIB);
	struct net_read *c = want(b, TURN_DEMAND, 4 * KIB, 4 * KIB);

	(void)state;
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 1);
	net_req_wait(&b->s, b->sent[0]);
	assert_int_equal(b->sent[0]->tries, 0);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 2);
	net_req_again(&b->s, b->sent[1], 0);
	assert_int_equal(b->sent[1]->tries, 1);
	assert_int_equal(b->s.flying, 0);
	net_send_off(&b->s);
	assert_int_equal(b->sent_count, 3);
	net_read_failed(&b->s, a, -ECANCELED, "not wanted");
	assert_int_equal(a->loader->code, -ECANCELED);
	assert_int_equal(b->cancelled, 0); /* the other is */
	assert_int_equal(b->s.flying, 1);
	net_read_failed(&b->s, c, -EIO, "the server's words");
	assert_string_equal(c->loader->why, "the server's words");
	assert_int_equal(b->cancelled, 1);
	assert_int_equal(b->s.flying, 0);
	assert_int_equal(b->s.flying_bytes, 0);
	bed_close(b);
}

/* How long a read took tells of the usual only where it was asked for once, and at once. */
static void unusual(void **state)
{
	struct net_bed *b = bed_open(JOIN);
	struct net_read *once, *twice, *held, *after;

	(void)state;
	once = want(b, TURN_URGENT, 0, 4 * KIB);
	net_send_off(&b->s);
	answer(b, 0);
	twice = want(b, TURN_URGENT, 0, 4 * KIB);
	net_send_off(&b->s);
	net_req_again(&b->s, b->sent[1], 0);
	net_send_off(&b->s);
	answer(b, 2);
	held = want(b, TURN_URGENT, 0, 4 * KIB);
	net_src_hold(&b->s, monotonic_ns() + NS_PER_MS);
	while (b->sent_count < 4)
		net_send_off(&b->s);
	answer(b, 3);
	after = want(b, TURN_URGENT, 0, 4 * KIB);
	net_send_off(&b->s);
	answer(b, 4);
	assert_true(once->loader->over && !once->again);
	assert_true(twice->loader->over && twice->again);
	assert_true(held->loader->over && held->again);
	assert_true(after->loader->over && !after->again);
	bed_close(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ahead_leaves_half),
		cmocka_unit_test(ahead_leaves_half_beside_others),
		cmocka_unit_test(nobody_waits_for_ever),
		cmocka_unit_test(what_fails_leaves_half),
		cmocka_unit_test(who_failed_first_is_first),
		cmocka_unit_test(bytes_on_their_way),
		cmocka_unit_test(neighbours),
		cmocka_unit_test(large_reads_are_cut),
		cmocka_unit_test(blocks_are_read_whole),
		cmocka_unit_test(who_is_raised_overtakes),
		cmocka_unit_test(pieces_are_raised),
		cmocka_unit_test(what_is_asked_for_again_is_raised),
		cmocka_unit_test(failures),
		cmocka_unit_test(unusual),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
