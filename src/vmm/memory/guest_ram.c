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
	       unsigned char **ret, hva_t *ret_hva, struct err *e)
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
	*ret_hva = (hva_t){(uintptr_t)memory.guest};
	return kvmp_vm_memory(vm_fd, slot, (gpa_t){gpa}, bytes, *ret_hva, e);
}

int guest_ram_open(struct guest_mem *m, struct apf *a, int vm_fd, struct err *e)
{
	int rc = add(a, vm_fd, 0, 0, m->low_bytes, &m->low, &m->low_hva, e);

	if (rc < 0 || m->high_bytes == 0)
		return rc;
	return add(a, vm_fd, 1, GUEST_HIGH_GPA, m->high_bytes, &m->high, &m->high_hva,
		   e);
}

int guest_ram_log(const struct guest_mem *m, int vm_fd, bool on, struct err *e)
{
	int rc = kvmp_vm_memory_log(vm_fd, 0, (gpa_t){0}, m->low_bytes, m->low_hva, on, e);

	if (rc < 0 || m->high_bytes == 0)
		return rc;
	return kvmp_vm_memory_log(vm_fd, 1, (gpa_t){GUEST_HIGH_GPA}, m->high_bytes, m->high_hva, on,
				  e);
}

static int take_log(int vm_fd, unsigned slot, uint64_t *to, uint64_t words, uint64_t *scratch,
		    struct err *e)
{
	int rc = kvmp_vm_log_take(vm_fd, slot, scratch, e);

	for (uint64_t w = 0; rc == 0 && w < words; w++)
		to[w] |= scratch[w];
	return rc;
}

int guest_ram_log_take(const struct guest_mem *m, int vm_fd, uint64_t *to, uint64_t *scratch,
		       struct err *e)
{
	const unsigned shift = PAGE_SHIFT + 6; /* of a word's pages */
	int rc = take_log(vm_fd, 0, to, m->low_bytes >> shift, scratch, e);

	if (rc < 0 || m->high_bytes == 0)
		return rc;
	return take_log(vm_fd, 1, to + (m->low_bytes >> shift), m->high_bytes >> shift, scratch, e);
}
