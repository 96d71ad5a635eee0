/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine's own host files do to it: a disk whose host has failed pauses the VM until
 * somebody resumes it, or tells the guest, as its configuration says. The library has its own
 * troubles (apf_trouble_get); this is beside them. See machine.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/machine/machine_parts.h"

void machine_say(struct machine *m, enum machine_word word, const char *text)
{
	if (m->cfg.say)
		m->cfg.say(m->cfg.say_ctx, word, text);
}

static void describe(const struct machine_blk *d, const struct blk_failure *why, struct err *ret)
{
	char range[64] = "";

	if (why->len)
		snprintf(range, sizeof(range), " %llu bytes at %llu", (unsigned long long)why->len,
			 (unsigned long long)why->off);
	err_sys(ret, why->code, "disk %.100s: %s%s", d->path, why->doing, range);
}

/*
 * The lock is held over apf_pause, and over apf_resume below: whoever resumes meets either no
 * trouble or a VM that is paused for it.
 *
 * Who holds the devices meanwhile waits for this thread, and is not made to wait for who resumes:
 * the VM stays in trouble, and what the guest is told it sees when it goes on.
 */
static void pause_for(const struct machine_blk *d, const struct err *why)
{
	struct machine *m = d->m;

	pthread_mutex_lock(&m->lock);
	m->trouble = *why;
	apf_pause(m->apf);
	machine_say(m, MACHINE_PAUSED, why->text);
	while (m->trouble.code != 0 && !m->stop && !m->ended &&
	       !atomic_load(&d->blk.mmio.cancelled))
		pthread_cond_wait(&m->resumed, &m->lock);
	pthread_mutex_unlock(&m->lock);
}

/* Said once for each run of failures: a guest may try many times. */
static void note(struct machine_blk *d, const struct err *why)
{
	char text[ERR_TEXT_MAX + 32];

	if (d->is_noted)
		return;
	d->is_noted = true;
	snprintf(text, sizeof(text), "%s; the guest was told", why->text);
	machine_say(d->m, MACHINE_NOTE, text);
}

bool machine_disk_failed(void *ctx, const struct blk_failure *why)
{
	struct machine_blk *d = ctx;
	struct machine *m = d->m;
	struct err e;

	describe(d, why, &e);
	pthread_mutex_lock(&m->lock);
	m->disk_errors++;
	pthread_mutex_unlock(&m->lock);
	if (d->report) {
		note(d, &e);
		return false;
	}
	if (!why->repeatable)
		err_set(&e, e.code, "%s; what the guest wrote since it last flushed may be lost, "
			"and it is told when it goes on", e.text);
	pause_for(d, &e);
	return true;
}

void machine_trouble_end(struct machine *m)
{
	pthread_cond_broadcast(&m->resumed);
}

void machine_resume(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	/* Before it goes on: it may be paused again at once, and that is said after this. */
	if (m->trouble.code != 0)
		machine_say(m, MACHINE_RESUMED, "what the host failed to do is tried again");
	m->trouble.code = 0;
	m->stays_paused = false;
	/* A snapshot's moment is not cut short: it goes on after that. */
	if (!m->stands)
		apf_resume(m->apf);
	pthread_cond_broadcast(&m->resumed);
	pthread_mutex_unlock(&m->lock);
}

int machine_trouble_get(struct machine *m, struct err *ret)
{
	int code;

	pthread_mutex_lock(&m->lock);
	code = m->trouble.code;
	if (code != 0)
		*ret = m->trouble;
	pthread_mutex_unlock(&m->lock);
	return code;
}

uint64_t machine_disk_errors(struct machine *m)
{
	uint64_t n;

	pthread_mutex_lock(&m->lock);
	n = m->disk_errors;
	pthread_mutex_unlock(&m->lock);
	return n;
}
