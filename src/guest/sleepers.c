/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token sleepers: who waits for which token, and which wake-ups came before their
 * sleeper. A hash of short chains over a fixed array of nodes; one lock, because a
 * ready event may arrive on another CPU than its page-missing event.
 *
 * When the array is full everything in it is let go: sleepers are woken (they touch
 * their pages again, which is always safe) and early wake-ups are forgotten. A
 * forgotten wake-up may belong to a task that is just on its way into gst_sleep, at
 * most one per CPU (interrupts are off there), so the next gst_sleep of every CPU is
 * answered "touch again": flush_gen against flush_seen. Nothing is lost, whatever the
 * size of the array. Dropping the newest or the oldest entry alone would not do: both
 * may be the one that somebody is about to wait for. A wake-all forgets what its CPU has
 * brought early, for a task of another CPU maybe, and is answered alike there.
 *
 * Called on any CPU with interrupts off. Test: tests/unit/guest_test.c.
 */
#include "guest/guest.h"

#include "base/assert.h"

/*
 * A kernel that builds this file into its own translation unit may name direct calls
 * here: on a hypervisor that emulates CPL 0 every instruction of an indirect one counts.
 */
#ifndef GST_WAKE
#define GST_WAKE(cpu, task) ((cpu)->ops->wake((cpu)->ctx, (task)))
#endif
#ifndef GST_COLD
#define GST_COLD __attribute__((noinline, cold))
#endif

#define GST_BUCKET_BITS 8

_Static_assert(GST_BUCKETS == 1 << GST_BUCKET_BITS, "one hash bit per bucket bit");

static GST_COLD void table_lock_wait(struct gst_table *t)
{
	do
		__builtin_ia32_pause();
	while (__atomic_exchange_n(&t->lock, 1u, __ATOMIC_ACQUIRE));
}

static inline void table_lock(struct gst_table *t)
{
	/* Pairs with the release in table_unlock. */
	if (__builtin_expect(__atomic_exchange_n(&t->lock, 1u, __ATOMIC_ACQUIRE) != 0, 0))
		table_lock_wait(t);
}

static inline void table_unlock(struct gst_table *t)
{
	__atomic_store_n(&t->lock, 0u, __ATOMIC_RELEASE);
}

/*
 * token's node or NULL, and the link that leads there: to the end of the chain if there
 * is none. Tokens are opaque (msr.rst): the top bits of the product depend on all theirs.
 */
static inline struct gst_node *node_find(struct gst_table *t, uint32_t token,
					 struct gst_node ***ret_link)
{
	struct gst_node **link = &t->buckets[(token * 0x9e3779b1u) >> (32 - GST_BUCKET_BITS)];
	struct gst_node *n = *link;

	while (n && n->token != token) {
		link = &n->next;
		n = *link;
	}
	*ret_link = link;
	return n;
}

/* Takes the node out of its chain and frees it; its task. */
static inline void *node_release(struct gst_table *t, struct gst_node **link)
{
	struct gst_node *n = *link;

	*link = n->next;
	n->next = t->free_list;
	t->free_list = n;
	return n->task;
}

/* link is the end of the token's chain, as node_find leaves it; there is a free node. */
static inline void node_insert(struct gst_table *t, struct gst_node **link, uint32_t token,
			       uint16_t cpu, void *task)
{
	struct gst_node *n = t->free_list;

	t->free_list = n->next;
	*link = n;
	n->next = NULL;
	n->task = task;
	n->token = token;
	n->cpu = cpu;
}

/* Wakes and forgets the nodes of one CPU, or of all: the table is empty then. */
static GST_COLD void release_locked(struct gst_cpu *cpu, bool all)
{
	struct gst_table *t = cpu->table;

	for (uint32_t b = 0; b < GST_BUCKETS; b++) {
		struct gst_node **link = &t->buckets[b];

		while (*link) {
			if (!all && (*link)->cpu != cpu->cpu) {
				link = &(*link)->next;
				continue;
			}
			void *task = node_release(t, link);
			if (task)
				GST_WAKE(cpu, task);
			else
				t->early_count--;
		}
	}
}

static GST_COLD void flush_locked(struct gst_cpu *cpu)
{
	cpu->table->overflow_count++;
	cpu->table->flush_gen++;
	release_locked(cpu, true);
	ASSERT(cpu->table->early_count == 0);
}

void gst_table_init(struct gst_table *t, struct gst_node *nodes, uint32_t count)
{
	ASSERT(count >= 1);
	*t = (struct gst_table){.node_count = count, .free_list = nodes};
	for (uint32_t i = 0; i < count; i++)
		nodes[i] = (struct gst_node){.next = i + 1 < count ? &nodes[i + 1] : NULL};
}

/* gst_sleep's answer is no: for one of three reasons. Unlocks. */
static GST_COLD void refuse_locked(struct gst_cpu *cpu, struct gst_node **link)
{
	struct gst_table *t = cpu->table;

	if (*link) {
		/* The wake-up came first; a real sleeper is left alone (B15). */
		if (!(*link)->task) {
			node_release(t, link);
			t->early_count--;
		}
	} else {
		if (!t->free_list)
			flush_locked(cpu);
		cpu->flush_seen = t->flush_gen;
	}
	table_unlock(t);
}

bool gst_sleep(struct gst_cpu *cpu, uint32_t token, void *task)
{
	struct gst_table *t = cpu->table;

	table_lock(t);
	struct gst_node **link;
	struct gst_node *n = node_find(t, token, &link);
	if (__builtin_expect(n || !t->free_list || cpu->flush_seen != t->flush_gen, 0)) {
		refuse_locked(cpu, link);
		return false;
	}
	node_insert(t, link, token, cpu->cpu, task);
	table_unlock(t);
	return true;
}

/* No sleeper: remember the wake-up, unless it is known already or nobody's. Unlocks. */
static GST_COLD void wake_early_locked(struct gst_cpu *cpu, struct gst_node **link,
				       uint32_t token)
{
	struct gst_table *t = cpu->table;

	/* Token 0 says "slot free" and is never issued (B6, invariant 34). */
	if (!*link && token != 0) {
		if (t->free_list) {
			node_insert(t, link, token, cpu->cpu, NULL);
			t->early_count++;
		} else {
			/* Forgets this one too: its sleeper, if it comes, is told to retry. */
			flush_locked(cpu);
		}
	}
	table_unlock(t);
}

static GST_COLD void wake_all(struct gst_cpu *cpu)
{
	struct gst_table *t = cpu->table;

	table_lock(t);
	uint32_t early = t->early_count;

	release_locked(cpu, false);
	if (t->early_count != early) {
		/* Nobody is on the way into gst_sleep on this CPU, which handles an event. */
		if (cpu->flush_seen == t->flush_gen)
			cpu->flush_seen++;
		t->flush_gen++;
	}
	table_unlock(t);
}

void gst_wake(struct gst_cpu *cpu, uint32_t token)
{
	struct gst_table *t = cpu->table;

	if (__builtin_expect(token == APF_TOKEN_WAKE_ALL, 0)) {
		wake_all(cpu);
		return;
	}
	table_lock(t);
	struct gst_node **link;
	struct gst_node *n = node_find(t, token, &link);
	if (__builtin_expect(!n || !n->task, 0)) {
		wake_early_locked(cpu, link, token);
		return;
	}
	void *task = node_release(t, link);
	table_unlock(t);
	GST_WAKE(cpu, task);
}
