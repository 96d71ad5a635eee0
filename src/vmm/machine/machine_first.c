/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_first.h. */
#include "vmm/machine/machine_first.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/machine/machine_saved.h"
#include "vmm/virtio/virtio_queue.h"

/* While all stands still what is present stays so. */
static bool read_present(void *ctx, gpa_t gpa, void *ret, unsigned len)
{
	struct machine *m = ctx;
	uint64_t block = m->cfg.apf.block_bytes;
	unsigned char is;

	if (!guest_mem_has(&m->mem, gpa, len) ||
	    apf_residency(m->apf, gpa.v & ~(block - 1), block, &is) < 0 ||
	    !(is & APF_BLOCK_PRESENT))
		return false;
	return apf_read(m->apf, gpa.v, ret, len) == 0;
}

static void add_rings(struct machine *m, struct first_touch *t)
{
	for (unsigned i = 0; i < machine_device_count(m); i++) {
		struct virtio_mmio_saved s;

		virtio_mmio_save(machine_device(m, i), &s);
		for (unsigned q = 0; q < VIRTIO_SAVED_QUEUES; q++) {
			uint32_t size = s.queues[q].ready ? s.queues[q].size : 0;

			if (size == 0)
				continue;
			first_touch_range(t, (gpa_t){s.queues[q].desc}, virtq_desc_bytes(size));
			first_touch_range(t, (gpa_t){s.queues[q].avail}, virtq_avail_bytes(size));
			first_touch_range(t, (gpa_t){s.queues[q].used}, virtq_used_bytes(size));
		}
	}
}

void machine_first_find(struct machine *m, const struct snap_vcpu *vcpus, struct first_touch *ret)
{
	*ret = (struct first_touch){.read = read_present, .ctx = m};
	add_rings(m, ret);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		snap_vcpu_first(&vcpus[i], ret);
}

void machine_first_save(struct machine *m, const struct first_touch *t, struct snap_out *o)
{
	uint64_t pages[FIRST_TOUCH_MAX];
	unsigned count = 0;

	/* A guest's registers may point anywhere. */
	for (unsigned i = 0; i < t->count; i++)
		if (guest_mem_has(&m->mem, (gpa_t){t->pages[i]}, PAGE_BYTES))
			pages[count++] = t->pages[i];
	snap_put(o, (struct snap_key){"memory.first", 0, MACHINE_SAVED_VERSION}, pages,
		 count * sizeof(*pages));
}

int machine_first_bring(struct machine *m, bool and_more, struct err *e)
{
	unsigned count, more = and_more ? m->cfg.prefetch_count : 0;
	struct apf_range *list;
	const uint64_t *pages;
	int rc = machine_first_get(m->cfg.restore, m->cfg.memory_bytes, &pages, &count, e);

	if (rc < 0)
		return rc;
	list = calloc(count + more + 1, sizeof(*list));
	if (!list)
		return err_sys(e, -ENOMEM, "working set");
	for (unsigned i = 0; i < count; i++)
		list[i] = (struct apf_range){.gpa = pages[i], .len = PAGE_BYTES};
	for (unsigned i = 0; i < more; i++)
		list[count + i] = m->cfg.prefetch[i];
	rc = apf_prefetch(m->apf, list, count + more);
	free(list);
	if (rc == -EFAULT)
		return err_set(e, -EINVAL, "working set: it names memory that this VM does not "
			       "have; record one of this VM");
	return rc < 0 ? err_sys(e, rc, "working set") : 0;
}
