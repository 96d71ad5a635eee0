/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events for the clients that follow. What happens is told from any thread (control_told.h); the
 * server's thread passes it on, and looks by itself, now and then, at what memory does.
 * Test: tests/unit/control_follow_test.c.
 */
#include "vmm/control/control_parts.h"

#include <stdio.h>
#include <string.h>

static void put_event(struct control_peer *p, const struct control_event *ev)
{
	char line[CONTROL_LINE_MAX];
	size_t len = control_event_format(ev, line);

	if (len > sizeof(p->out) - p->out_len)
		p->lost++;
	else
		control_peer_put(p, line, len);
}

/* A follower that takes nothing for as long as anybody may keep silent is dropped. */
void control_follower_advance(struct control *c, struct control_peer *p)
{
	size_t before = p->out_len - p->out_sent;
	bool all = control_peer_flush(c, p);

	if (p->state != PEER_FOLLOWING)
		return;
	if (all && p->lost) {
		const struct control_event ev = {.kind = CONTROL_EVENT_LOST,
						 .uptime_ns = monotonic_ns() - c->start_ns,
						 .lost = p->lost};

		p->lost = 0;
		put_event(p, &ev);
		all = control_peer_flush(c, p);
	}
	if (p->state == PEER_FOLLOWING && (all || p->out_len - p->out_sent < before))
		p->deadline_ns = monotonic_ns() + c->idle_ns;
}

bool control_is_followed(const struct control *c)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->peers[i].state == PEER_FOLLOWING)
			return true;
	return false;
}

static void tell_followers(struct control *c, const struct control_event *ev)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		struct control_peer *p = &c->peers[i];

		if (p->state != PEER_FOLLOWING)
			continue;
		if (p->out_len == 0)
			p->deadline_ns = monotonic_ns() + c->idle_ns;
		put_event(p, ev);
		control_follower_advance(c, p);
	}
}

void control_tell_event(struct control *c, struct control_event ev)
{
	ev.uptime_ns = monotonic_ns() - c->start_ns;
	if (control_told_put(&c->told, &ev))
		control_wake(c);
}

void control_tell(struct control *c, enum control_event_kind kind, const char *text)
{
	struct control_event ev = {.kind = kind};

	if (text)
		snprintf(ev.text, sizeof(ev.text), "%s", text);
	control_tell_event(c, ev);
}

void control_tell_all(struct control *c)
{
	struct control_event ev;

	while (control_told_take(&c->told, &ev))
		tell_followers(c, &ev);
	if (!control_is_followed(c) || monotonic_ns() < c->memory_ns)
		return;
	c->memory_ns = monotonic_ns() + CONTROL_MEMORY_MS * NS_PER_MS;
	memset(&c->status, 0, sizeof(c->status));
	c->ops->status(c->ctx, &c->status);
	if (c->evicted == c->status.counters.evicted &&
	    c->refaulted == c->status.counters.refaulted)
		return;
	c->evicted = c->status.counters.evicted;
	c->refaulted = c->status.counters.refaulted;
	ev = (struct control_event){
		.kind = CONTROL_EVENT_MEMORY,
		.uptime_ns = monotonic_ns() - c->start_ns,
		.resident_bytes = c->status.counters.resident_bytes,
		.evicted = c->evicted,
		.refaulted = c->refaulted,
	};
	tell_followers(c, &ev);
}

void control_follow(struct control *c, struct control_peer *p)
{
	struct control_event ev = {.kind = CONTROL_EVENT_FOLLOWING};
	const struct control_status *s = &c->status;

	/* What was told before is not for this one. */
	control_tell_all(c);
	memset(&c->status, 0, sizeof(c->status));
	c->ops->status(c->ctx, &c->status);
	if (!control_is_followed(c)) {
		c->memory_ns = monotonic_ns() + CONTROL_MEMORY_MS * NS_PER_MS;
		c->evicted = s->counters.evicted;
		c->refaulted = s->counters.refaulted;
	}
	ev.uptime_ns = monotonic_ns() - c->start_ns;
	ev.resident_bytes = s->counters.resident_bytes;
	ev.resident_max_bytes = s->counters.resident_max_bytes;
	snprintf(ev.text, sizeof(ev.text), "%s%s%.160s", s->state, *s->why ? ": " : "", s->why);
	p->state = PEER_FOLLOWING;
	p->lost = 0;
	p->deadline_ns = monotonic_ns() + c->idle_ns;
	put_event(p, &ev);
}
