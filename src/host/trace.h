/* SPDX-License-Identifier: Apache-2.0 */
/* What hooks.trace is told, where there is one: asyncpf/trace.h names the steps. */
#ifndef HOST_TRACE_H
#define HOST_TRACE_H

#include "host/host.h"

void trace_tell(const struct hst *h, enum apf_trace_kind kind, uint32_t vcpu, roff_t off,
		uint64_t bytes, uint32_t value);

static inline bool trace_is_on(const struct hst *h)
{
	return __builtin_expect(h->hooks.trace != NULL, 0) &&
	       (!h->hooks.trace_wanted || __builtin_expect(*h->hooks.trace_wanted != 0, 0));
}

static inline void trace(const struct hst *h, enum apf_trace_kind kind, uint32_t vcpu, roff_t off,
			 uint64_t bytes, uint32_t value)
{
	if (trace_is_on(h))
		trace_tell(h, kind, vcpu, off, bytes, value);
}

/* Of adjacent blocks, and of no vCPU. */
void trace_blocks_tell(const struct hst *h, enum apf_trace_kind kind, uint32_t block,
		       uint32_t count, uint32_t value);

static inline void trace_blocks(const struct hst *h, enum apf_trace_kind kind, uint32_t block,
				uint32_t count, uint32_t value)
{
	if (trace_is_on(h))
		trace_blocks_tell(h, kind, block, count, value);
}

#endif
