/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notes which guest memory is written to while it is copied, and after (docs/embedding.md, "Dirty
 * logging"): KVM's log has the guest and KVM, the library tells, and our devices mark what they are
 * given to write to and are held while the marks are taken.
 * Test: tests/integration/snapshot_run_test.py.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/machine/machine_parts.h"
#include "vmm/memory/guest_ram.h"

static uint64_t words(const struct machine *m)
{
	return m->dirty.map.pages / DIRTY_WORD_PAGES;
}

static void on_write(void *ctx, uint64_t gpa, uint64_t bytes)
{
	dirty_map_mark(ctx, gpa, bytes);
}

int machine_dirty_prepare(struct machine *m, struct apf_config *c, struct err *e)
{
	struct dirty_map *d = &m->dirty.map;

	d->low_pages = m->mem.low_bytes >> PAGE_SHIFT;
	d->high_gpa = GUEST_HIGH_GPA;
	d->pages = (m->mem.low_bytes + m->mem.high_bytes) >> PAGE_SHIFT;
	/* Untouched, they take no memory. */
	d->bits = calloc(words(m), sizeof(*d->bits));
	m->dirty.since = calloc(words(m), sizeof(uint64_t));
	m->dirty.scratch = calloc(words(m), sizeof(uint64_t));
	if (!d->bits || !m->dirty.since || !m->dirty.scratch)
		return err_sys(e, -ENOMEM, "machine: who writes to its memory");
	m->mem.dirty = d;
	c->on_write = on_write;
	c->on_write_ctx = d;
	return 0;
}

void machine_dirty_free(struct machine *m)
{
	free((void *)m->dirty.map.bits);
	free(m->dirty.since);
	free(m->dirty.scratch);
}

int machine_dirty_begin(struct machine *m, struct err *e)
{
	int rc = m->dirty.on ? 0 : guest_ram_log(&m->mem, m->vm_fd, true, e);

	if (rc < 0)
		return rc;
	/* What a device has in hand by now was not marked when it took it. */
	machine_devices_hold(m);
	atomic_store(&m->dirty.map.on, true);
	machine_devices_release(m);
	m->dirty.on = true;
	return 0;
}

int machine_dirty_take(struct machine *m, uint64_t *to, struct err *e)
{
	struct machine_dirty *d = &m->dirty;

	machine_devices_hold(m);
	dirty_map_take(&d->map, to);
	machine_devices_release(m);
	return guest_ram_log_take(&m->mem, m->vm_fd, to, d->scratch, e);
}

void machine_dirty_end(struct machine *m)
{
	struct err e;

	if (!m->dirty.on)
		return;
	atomic_store(&m->dirty.map.on, false);
	(void)guest_ram_log(&m->mem, m->vm_fd, false, &e);
	for (uint64_t w = 0; w < words(m); w++) {
		atomic_store(&m->dirty.map.bits[w], 0);
		m->dirty.since[w] = 0;
	}
	m->dirty.on = false;
	m->dirty.has_id = false;
}
