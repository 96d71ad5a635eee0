/* SPDX-License-Identifier: Apache-2.0 */
/* See control_told.h. */
#include "vmm/control/control_told.h"

void control_told_init(struct control_told *t)
{
	pthread_mutex_init(&t->lock, NULL);
	t->state = CONTROL_EVENT_RESUMED;
}

static bool changes_state(struct control_told *t, enum control_event_kind kind)
{
	if (kind != CONTROL_EVENT_PAUSED && kind != CONTROL_EVENT_TROUBLE &&
	    kind != CONTROL_EVENT_RESUMED)
		return true;
	/* A pause that somebody asks for does not replace the trouble that the VM is paused for. */
	if (kind == t->state || (kind == CONTROL_EVENT_PAUSED && t->state == CONTROL_EVENT_TROUBLE))
		return false;
	t->state = kind;
	t->changes++;
	return true;
}

static bool put_locked(struct control_told *t, const struct control_event *ev)
{
	bool told = changes_state(t, ev->kind);

	if (told && t->count == CONTROL_TOLD_MAX) {
		t->lost++;
		t->lost_ns = ev->uptime_ns;
	} else if (told) {
		t->ring[(t->first + t->count++) % CONTROL_TOLD_MAX] = *ev;
	}
	return told;
}

bool control_told_put(struct control_told *t, const struct control_event *ev)
{
	bool told;

	pthread_mutex_lock(&t->lock);
	told = put_locked(t, ev);
	pthread_mutex_unlock(&t->lock);
	return told;
}

uint64_t control_told_changes(struct control_told *t)
{
	uint64_t changes;

	pthread_mutex_lock(&t->lock);
	changes = t->changes;
	pthread_mutex_unlock(&t->lock);
	return changes;
}

bool control_told_put_since(struct control_told *t, const struct control_event *ev,
			    uint64_t changes)
{
	bool told;

	pthread_mutex_lock(&t->lock);
	told = t->changes == changes && put_locked(t, ev);
	pthread_mutex_unlock(&t->lock);
	return told;
}

bool control_told_take(struct control_told *t, struct control_event *ret)
{
	bool some = true;

	pthread_mutex_lock(&t->lock);
	if (t->count > 0) {
		*ret = t->ring[t->first];
		t->first = (t->first + 1) % CONTROL_TOLD_MAX;
		t->count--;
	} else if (t->lost > 0) {
		*ret = (struct control_event){.kind = CONTROL_EVENT_LOST, .lost = t->lost,
					      .uptime_ns = t->lost_ns};
		t->lost = 0;
	} else {
		some = false;
	}
	pthread_mutex_unlock(&t->lock);
	return some;
}
