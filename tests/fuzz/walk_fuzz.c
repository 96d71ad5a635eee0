/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the walk of guest page tables. The input is the vCPU's registers and then
 * all of guest memory, from address 0. What must hold: the walk ends, reads whole aligned
 * entries, notes every address that it reads in the order in which it does, and stores no
 * more than WALK_MAX.
 */
#include "bytes.h"
#include "base/walk.h"

struct memory {
	const uint8_t *bytes;
	uint64_t len;
	const gpa_t *noted;
	unsigned reads; /* that found memory */
};

static bool read_entry(void *ctx, gpa_t gpa, unsigned len, uint64_t *ret)
{
	struct memory *m = ctx;

	must((len == 4 || len == 8) && gpa.v % len == 0 && gpa.v < 1ull << 52);
	*ret = 0;
	if (gpa.v > m->len || len > m->len - gpa.v)
		return false;
	must(++m->reads <= WALK_MAX);
	memcpy(ret, m->bytes + gpa.v, len);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = {data, size};
	/* Of the heap, so that a sanitizer sees what goes beyond. */
	gpa_t *ret = calloc(WALK_MAX, sizeof(*ret));
	struct cpu_state cpu = {.in_instruction = true};
	struct memory m;
	unsigned n;

	must(ret != NULL);
	cpu.paging = !(take8(&b) & 1);
	cpu.ip = take(&b, 8);
	cpu.cr3 = take(&b, 8);
	cpu.cr4 = take(&b, 8);
	cpu.efer = take(&b, 8);
	m = (struct memory){.bytes = b.at, .len = b.left, .noted = ret};
	n = walk_instruction(&cpu, read_entry, &m, ret);
	must(n <= WALK_MAX && n >= m.reads);
	/* A walk of nothing still says where it would have begun, or has begun. */
	must(cpu.paging || (n >= 1 && ret[0].v == cpu.ip && m.reads == 0));
	free(ret);
	return 0;
}
