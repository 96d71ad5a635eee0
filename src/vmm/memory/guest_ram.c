/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_ram.h. */
#include "vmm/memory/guest_ram.h"

#include <errno.h>
#include <poll.h>

#include "base/time.h"
#include "kvm/vm.h"

#define STOP_LOOK_NS (100 * NS_PER_MS)

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

typedef int64_t access_fn(struct apf *a, const struct apf_range *v, unsigned count,
			  const struct apf_wait *wait);

static int reach(struct apf *a, access_fn *access, struct apf_range r, int stop_fd)
{
	struct pollfd stop = {.fd = stop_fd, .events = POLLIN}; /* -1 is ignored */
	struct apf_wait wait;

	apf_wait_init(&wait);
	wait.timeout_ns = STOP_LOOK_NS;
	while (r.len > 0) {
		int64_t n = access(a, &r, 1, &wait);

		if (n < 0 && n != -ETIMEDOUT)
			return (int)n;
		if (n > 0)
			r = (struct apf_range){r.gpa + (uint64_t)n, (char *)r.buf + n,
					       r.len - (uint64_t)n};
		else if (poll(&stop, 1, 0) > 0)
			return -EINTR;
	}
	return 0;
}

int guest_ram_read(struct apf *a, struct apf_range r, int stop_fd)
{
	return reach(a, apf_readv, r, stop_fd);
}

int guest_ram_write(struct apf *a, struct apf_range r, int stop_fd)
{
	return reach(a, apf_writev, r, stop_fd);
}
