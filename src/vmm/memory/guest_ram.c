/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_ram.h. */
#include "vmm/memory/guest_ram.h"

#include "kvm/vm.h"

void guest_ram_config(const struct guest_mem *m, struct apf_config *c)
{
	c->memory_max = m->low_bytes + m->high_bytes;
	c->pins_are_held = 1;
}

static int add(struct apf *a, int vm_fd, unsigned slot, uint64_t gpa, uint64_t bytes,
	       unsigned char **ret, struct err *e)
{
	struct apf_memory memory;
	struct apf_error ae;
	int rc;

	apf_memory_init(&memory);
	memory.gpa = gpa;
	memory.bytes = bytes;
	rc = apf_memory_adopt(a, &memory, &ae);
	if (rc < 0)
		return err_set(e, rc, "%s", ae.text);
	*ret = memory.vmm;
	return kvmp_vm_memory(vm_fd, slot, (gpa_t){gpa}, bytes, (hva_t){(uintptr_t)memory.guest},
			      e);
}

int guest_ram_open(struct guest_mem *m, struct apf *a, int vm_fd, struct err *e)
{
	int rc = add(a, vm_fd, 0, 0, m->low_bytes, &m->low, e);

	if (rc < 0 || m->high_bytes == 0)
		return rc;
	return add(a, vm_fd, 1, GUEST_HIGH_GPA, m->high_bytes, &m->high, e);
}
