/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as loaders and devices see it: pointers into the VMM's view of it, which
 * apf_memory_adopt gave (a test: into an array). A touch of absent memory waits until it is there.
 * RAM lies in two ranges, as on a PC: [0, low_bytes), and [4 GiB, 4 GiB + high_bytes); between them
 * are devices. Header only.
 *
 * The guest writes there meanwhile: what it may change is read once, into a variable
 * (guest_mem_once, or an atomic load), and checked there.
 *
 * A touch fails if the VM is being ended while what is touched is absent, or if the host has lost
 * the page to a memory error: a system call returns EFAULT, a pointer raises SIGBUS, which
 * guest_touch.h makes a failure of the device.
 */
#ifndef VMM_GUEST_MEM_H
#define VMM_GUEST_MEM_H

#include <stdatomic.h>
#include <string.h>

#include "base/types.h"
#include "vmm/memory/dirty_map.h"

/* Device addresses start here (interrupt controllers, virtio-mmio): RAM must end below. */
#define GUEST_HOLE_GPA 0xc0000000ull
/* RAM above the hole starts here. */
#define GUEST_HIGH_GPA (1ull << 32)

struct guest_mem {
	unsigned char *low;  /* RAM from 0 */
	unsigned char *high; /* RAM from GUEST_HIGH_GPA */
	uint64_t low_bytes;  /* at most GUEST_HOLE_GPA */
	uint64_t high_bytes; /* may be 0 */
	hva_t low_hva, high_hva;  /* KVM's view of them */
	struct dirty_map *dirty;  /* NULL: nobody ever asks what devices wrote */
};

/* Splits a size of memory into the two ranges; the pointers are left as they are. */
static inline void guest_mem_split(struct guest_mem *m, uint64_t bytes)
{
	m->low_bytes = min_u64(bytes, GUEST_HOLE_GPA);
	m->high_bytes = bytes - m->low_bytes;
}

static inline uint64_t guest_mem_off(gpa_t gpa)
{
	return gpa.v >= GUEST_HIGH_GPA ? gpa.v - GUEST_HIGH_GPA : gpa.v;
}

/* [gpa, gpa + len) is RAM of one range. Nothing overflows, whatever the guest says. */
static inline bool guest_mem_has(const struct guest_mem *m, gpa_t gpa, uint64_t len)
{
	uint64_t bytes = gpa.v >= GUEST_HIGH_GPA ? m->high_bytes : m->low_bytes;
	uint64_t off = guest_mem_off(gpa);

	return off < bytes && len <= bytes - off;
}

/* Where [gpa, gpa + len) is; NULL: it is not RAM of one range. */
static inline void *guest_mem_at(const struct guest_mem *m, gpa_t gpa, uint64_t len)
{
	if (!guest_mem_has(m, gpa, len))
		return NULL;
	return (gpa.v >= GUEST_HIGH_GPA ? m->high : m->low) + guest_mem_off(gpa);
}

/* The inverse, for a pointer that guest_mem_at() gave. */
static inline gpa_t guest_mem_gpa(const struct guest_mem *m, const void *at)
{
	uintptr_t p = (uintptr_t)at, low = (uintptr_t)m->low, high = (uintptr_t)m->high;

	if (p >= low && p - low < m->low_bytes)
		return (gpa_t){p - low};
	return (gpa_t){GUEST_HIGH_GPA + (p - high)};
}

/* A device writes, or has written, [at, at + len): dirty_map.h says when. */
static inline void guest_mem_wrote(const struct guest_mem *m, const void *at, uint64_t len)
{
	if (m->dirty)
		dirty_map_mark(m->dirty, guest_mem_gpa(m, at).v, len);
}

/* Copies what the guest may be writing to; the compiler does not look there again. */
static inline void guest_mem_once(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	atomic_signal_fence(memory_order_acq_rel);
}

#endif
