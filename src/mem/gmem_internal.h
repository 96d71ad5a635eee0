/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of guest memory, for gmem.c and gmem_pages.c alone: what is mapped where. The parts and
 * their table change in gmem_add and gmem_remove, which one thread at a time calls.
 */
#ifndef MEM_GMEM_INTERNAL_H
#define MEM_GMEM_INTERNAL_H

#include <sys/types.h>

#include "base/assert.h"
#include "mem/gmem.h"

struct part {
	uint64_t bytes; /* 0: the entry is free */
	roff_t roff;
	int fd; /* of the gmem's own memfd, or shared by all parts of one of the VMM's */
	uint64_t offset;
	unsigned char *vmm; /* NULL: none. Atomic: whoever looks for a touch's part takes no lock */
	bool vmm_ours;
	bool limited; /* own_is_limited, asked when it came: a sandbox may refuse that later */
	bool refused;   /* atomic: touches of some of its VMM view were */
	bool unwatched; /* atomic: the kernel shows its pages by itself */
	dev_t dev; /* of the memfd */
	ino_t ino;
};

struct gmem {
	int uffd;
	int events; /* an epoll instance that watches uffd */
	int own;      /* the memfd of parts that bring none, by RAM offset; -1: none yet */
	int spare;    /* an empty memfd, to try whether the host has room */
	int pagemap;  /* -1: memory is never taken away */
	bool poison;  /* absent pages carry markers */
	bool protect; /* the kernel can note first writes */
	bool refuse;  /* the kernel can make a touch fail */
	bool lost;    /* atomic: a page was found that the host has lost */
	bool refusable; /* the host may refuse some of it, page by page */
	uint64_t span;
	unsigned char *guest; /* never dereferenced */
	unsigned char *alias;
	struct part parts[GMEM_PARTS_MAX];
	unsigned parts_end; /* no entry from there on was ever used */
	uint16_t *part_of; /* of each 2 MiB chunk, an entry of `parts` and 1; 0: none */
};

static inline struct part *part_at(const struct gmem *g, roff_t off)
{
	uint16_t entry = g->part_of[off.v >> CHUNK_SHIFT];

	ASSERT(entry > 0);
	return (struct part *)&g->parts[entry - 1];
}

/* NULL: the part has no VMM view. */
static inline unsigned char *vmm_at(const struct gmem *g, roff_t off)
{
	const struct part *p = part_at(g, off);

	return p->vmm ? p->vmm + (off.v - p->roff.v) : NULL;
}

#endif
