/* SPDX-License-Identifier: Apache-2.0 */
/* base/list.h: against an array that does the same, at random; both directions, both ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/list.h"
#include "base/prng.h"

#define ITEMS 8

struct item {
	int other; /* so that the link is not where the item begins */
	struct list_link link;
};

struct model {
	struct list list;
	struct item items[ITEMS];
	struct item *order[ITEMS];
	size_t count;
};

static struct item *item_of(struct list_link *link)
{
	return LIST_ENTRY(link, struct item, link);
}

static void check(const struct model *m)
{
	struct item *at = item_of(m->list.first);

	for (size_t i = 0; i < m->count; i++, at = item_of(at->link.next))
		assert_ptr_equal(at, m->order[i]);
	assert_null(at);
	at = item_of(m->list.last);
	for (size_t i = m->count; i-- > 0; at = item_of(at->link.prev))
		assert_ptr_equal(at, m->order[i]);
	assert_null(at);
}

/* In front of what stands at `place`. */
static void model_insert(struct model *m, size_t place, struct item *item)
{
	memmove(&m->order[place + 1], &m->order[place],
		(m->count - place) * sizeof(struct item *));
	m->order[place] = item;
	m->count++;
}

static void model_remove(struct model *m, size_t place)
{
	m->count--;
	memmove(&m->order[place], &m->order[place + 1],
		(m->count - place) * sizeof(struct item *));
}

static struct item *unlisted(struct model *m)
{
	for (size_t i = 0; i < ITEMS; i++) {
		size_t at = 0;

		while (at < m->count && m->order[at] != &m->items[i])
			at++;
		if (at == m->count)
			return &m->items[i];
	}
	return NULL;
}

static void step(struct model *m, struct prng *prng)
{
	struct item *item = unlisted(m);
	size_t place = m->count ? prng_below(prng, m->count) : 0;

	switch (prng_below(prng, 4)) {
	case 0:
		if (!item)
			break;
		list_append(&m->list, &item->link);
		model_insert(m, m->count, item);
		break;
	case 1:
		if (!item)
			break;
		list_insert(&m->list, place ? &m->order[place - 1]->link : NULL, &item->link);
		model_insert(m, place, item);
		break;
	case 2:
		if (!m->count)
			break;
		list_remove(&m->list, &m->order[place]->link);
		model_remove(m, place);
		break;
	default:
		assert_ptr_equal(item_of(list_take(&m->list)), m->count ? m->order[0] : NULL);
		if (m->count)
			model_remove(m, 0);
	}
}

static void test_random(void **state)
{
	struct model m = {.count = 0};
	struct prng prng;

	(void)state;
	prng_init(&prng, 1);
	for (unsigned i = 0; i < 20000; i++) {
		step(&m, &prng);
		check(&m);
	}
}

/* What leaves a list during a walk still says what came after it. */
static void test_walk(void **state)
{
	struct model m = {.count = 0};
	size_t seen = 0;

	(void)state;
	for (size_t i = 0; i < ITEMS; i++)
		list_append(&m.list, &m.items[i].link);
	for (struct item *at = item_of(m.list.first); at; at = item_of(at->link.next)) {
		list_remove(&m.list, &at->link);
		assert_ptr_equal(at, &m.items[seen++]);
	}
	assert_int_equal(seen, ITEMS);
	check(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
