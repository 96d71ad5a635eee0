/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How loaders and devices touch guest memory: through two functions that somebody else
 * supplies (the machine: libasyncpf's accessors, which fetch what is absent; a test: an
 * array). RAM lies in two ranges, as on a PC: [0, low_bytes), and [4 GiB, 4 GiB +
 * high_bytes); between them are devices. Header only.
 */
#ifndef VMM_GUEST_MEM_H
#define VMM_GUEST_MEM_H

#include <errno.h>

#include "base/types.h"

/* Device addresses start here (interrupt controllers, virtio-mmio): RAM must end below. */
#define GUEST_HOLE_GPA 0xc0000000ull
/* RAM above the hole starts here. */
#define GUEST_HIGH_GPA (1ull << 32)

/*
 * The functions may block while absent memory is fetched. They are called only with ranges
 * that guest_mem_contains() has accepted; 0, or -Exxx and then the contents are undefined.
 */
struct guest_mem {
	int (*read)(void *ctx, gpa_t gpa, void *buf, size_t len);
	int (*write)(void *ctx, gpa_t gpa, const void *buf, size_t len);
	void *ctx;
	uint64_t low_bytes;  /* RAM from 0; at most GUEST_HOLE_GPA */
	uint64_t high_bytes; /* RAM from GUEST_HIGH_GPA; may be 0 */
};

/* Splits a size of memory into the two ranges; read, write and ctx are left as they are. */
static inline void guest_mem_split(struct guest_mem *m, uint64_t bytes)
{
	m->low_bytes = min_u64(bytes, GUEST_HOLE_GPA);
	m->high_bytes = bytes - m->low_bytes;
}

/* All of [gpa, gpa + len) is RAM, of one range. Nothing overflows, whatever the guest says. */
static inline bool guest_mem_contains(const struct guest_mem *m, gpa_t gpa, uint64_t len)
{
	if (gpa.v < GUEST_HIGH_GPA)
		return len <= m->low_bytes && gpa.v <= m->low_bytes - len;
	return len <= m->high_bytes && gpa.v - GUEST_HIGH_GPA <= m->high_bytes - len;
}

/* -EFAULT: not RAM; nothing was touched. */
static inline int guest_mem_read(const struct guest_mem *m, gpa_t gpa, void *buf, size_t len)
{
	if (!guest_mem_contains(m, gpa, len))
		return -EFAULT;
	return len ? m->read(m->ctx, gpa, buf, len) : 0;
}

static inline int guest_mem_write(const struct guest_mem *m, gpa_t gpa, const void *buf,
				  size_t len)
{
	if (!guest_mem_contains(m, gpa, len))
		return -EFAULT;
	return len ? m->write(m->ctx, gpa, buf, len) : 0;
}

#endif
