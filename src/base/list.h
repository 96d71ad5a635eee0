/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists whose links lie in what is listed. A struct list of zeroes is empty; a link is in one list
 * at most, and says nothing of whether it is. Everything is O(1). Threads: the owner's business.
 * Test: tests/unit/list_test.c.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stddef.h>

#include "base/types.h"

struct list_link {
	struct list_link *prev, *next; /* NULL at the ends */
};

struct list {
	struct list_link *first, *last;
};

/* What a link lies in: a pointer to `type`, whose member it is; NULL for NULL. */
#define LIST_ENTRY(link, type, member)                                        \
	({                                                                    \
		struct list_link *list_link_ = (link);                        \
		list_link_ ? CONTAINER_OF(list_link_, type, member) : (type *)NULL; \
	})

/* Puts a link behind another of the list; NULL: in front of all. */
static inline void list_insert(struct list *l, struct list_link *behind, struct list_link *link)
{
	link->prev = behind;
	link->next = behind ? behind->next : l->first;
	if (link->next)
		link->next->prev = link;
	else
		l->last = link;
	if (behind)
		behind->next = link;
	else
		l->first = link;
}

static inline void list_append(struct list *l, struct list_link *link)
{
	list_insert(l, l->last, link);
}

/* The link is in this list. It keeps its own pointers, so that a walk may go on from it. */
static inline void list_remove(struct list *l, struct list_link *link)
{
	if (link->prev)
		link->prev->next = link->next;
	else
		l->first = link->next;
	if (link->next)
		link->next->prev = link->prev;
	else
		l->last = link->prev;
}

/* Takes the first link out; NULL: there is none. */
static inline struct list_link *list_take(struct list *l)
{
	struct list_link *link = l->first;

	if (link)
		list_remove(l, link);
	return link;
}

#endif
