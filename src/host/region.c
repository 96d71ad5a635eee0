/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM that comes and goes while the VM runs. Test: tests/unit/host_region_test.c.
 */
#include "host/block.h"
#include "host/budget.h"
#include "host/keep.h"
#include "host/msr.h"
#include "host/swap.h"
#include "host/vcpu.h"

static uint32_t end_of(const struct hst *h, const struct ram_region *r)
{
	return (uint32_t)((r->roff.v + r->bytes) >> h->cfg.block_shift);
}

void hst_ram_added(struct hst *h)
{
	budget_limit(h);
	/* A vCPU's areas may have left with what was here, and are registered as before. */
	for (unsigned i = 0; i < h->cfg.vcpus; i++)
		msr_memory_came(&h->vcpus[i]);
}

void hst_ram_found(struct hst *h, roff_t off, uint64_t len)
{
	uint32_t end = (uint32_t)((off.v + len + (1ull << h->cfg.block_shift) - 1) >>
				  h->cfg.block_shift);

	for (uint32_t block = block_of(h, off); block < end; block++) {
		if (block_kind(h, block) != BLOCK_ABSENT)
			continue;
		h->blocks[block] |= BLOCK_WRITTEN | BLOCK_SEEN;
		block_set_kind(h, block, BLOCK_STANDBY);
		budget_charge(h, true);
		block_enlist(h, block);
	}
}

static uint32_t kept_by_vcpus(const struct hst *h, uint32_t block)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < h->cfg.vcpus; i++)
		for (unsigned k = 0; k < HST_KEPT; k++)
			n += h->vcpus[i].kept[k] == block;
	return n;
}

/* What vCPUs kept there: the guest's area is gone, an instruction cannot be under way. */
static void let_go(struct hst *h, uint32_t from, uint32_t end)
{
	for (unsigned i = 0; i < h->cfg.vcpus; i++)
		for (unsigned k = 0; k < HST_KEPT; k++)
			if (h->vcpus[i].kept[k] >= from && h->vcpus[i].kept[k] < end)
				vcpu_keep(&h->vcpus[i], k, BLOCK_NONE);
}

static const struct ram_region *region_of(const struct hst *h, gpa_t gpa)
{
	roff_t off;

	if (!ram_find(&h->ram, gpa, 1, &off) || ram_gpa(&h->ram, off).v != gpa.v)
		return NULL;
	return ram_region_at(&h->ram, off);
}

bool hst_ram_leave(struct hst *h, gpa_t gpa, struct hst_discard *ret)
{
	const struct ram_region *r = region_of(h, gpa);
	uint32_t from = block_of(h, r->roff), end = end_of(h, r);

	/* Refused, it stays as it is: the kernel may go on to write to a vCPU's areas. */
	for (uint32_t block = from; block < end; block++)
		if (block_is(h, block, BLOCK_KEPT) &&
		    h->evict.keeps[block] > kept_by_vcpus(h, block))
			return false;
	let_go(h, from, end);
	for (uint32_t block = from; block < end; block++)
		hst_unpin(h, (roff_t){(uint64_t)block << h->cfg.block_shift});
	*ret = (struct hst_discard){.at = from, .end = end};
	return true;
}

bool hst_ram_remove(struct hst *h, gpa_t gpa)
{
	const struct ram_region *r = region_of(h, gpa);
	uint32_t from = block_of(h, r->roff), end = end_of(h, r);

	/* A job may be about to import what it has seen there. */
	if (h->evict.working)
		return false;
	for (uint32_t block = from; block < end; block++)
		if (block_kind(h, block) != BLOCK_ABSENT || block_is(h, block, BLOCK_WRITING))
			return false;
	/* Registers may have come to name memory there; who touched it finds none. */
	let_go(h, from, end);
	for (unsigned i = 0; i < h->cfg.vcpus; i++)
		vcpu_memory_left(&h->vcpus[i], from, end);
	for (uint32_t block = from; block < end; block++)
		h->blocks[block] = 0;
	for (uint64_t at = r->roff.v; at < r->roff.v + r->bytes; at += CHUNK_BYTES)
		h->chunk_poisoned[at >> CHUNK_SHIFT] = 0;
	(void)ram_remove_region(&h->ram, gpa);
	budget_limit(h);
	return true;
}

bool hst_ram_is_stuck(const struct hst *h, gpa_t gpa)
{
	const struct ram_region *r = region_of(h, gpa);

	for (uint32_t block = block_of(h, r->roff); block < end_of(h, r); block++)
		if (block_is(h, block, BLOCK_WRITING) && swap_is_stuck(h, block))
			return true;
	return false;
}
