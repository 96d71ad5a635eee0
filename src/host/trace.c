/* SPDX-License-Identifier: Apache-2.0 */
/* See trace.h. Test: tests/error/trace_test.py. */
#include "host/trace.h"

#include "host/block.h"

void trace_tell(const struct hst *h, enum apf_trace_kind kind, uint32_t vcpu, roff_t off,
		uint64_t bytes, uint32_t value)
{
	const struct apf_trace t = {
		.ns = hst_now(h),
		.gpa = ram_region_at(&h->ram, off) ? ram_gpa(&h->ram, off).v : 0,
		.bytes = bytes,
		.kind = kind,
		.vcpu = vcpu,
		.value = value,
	};

	h->hooks.trace(h->hooks.ctx, &t);
}

void trace_blocks_tell(const struct hst *h, enum apf_trace_kind kind, uint32_t block,
		       uint32_t count, uint32_t value)
{
	uint64_t len;
	roff_t off;

	hst_block_range(h, block, &off, &len);
	trace_tell(h, kind, APF_NOBODY, off, len * count, value);
}
