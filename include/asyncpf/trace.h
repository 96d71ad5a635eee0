/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to the memory of a VM, one entry for each step: apf_config.on_trace. A touch, and
 * what the vCPU does then; a read; memory that becomes visible, is told of, and goes again.
 */
#ifndef ASYNCPF_TRACE_H
#define ASYNCPF_TRACE_H

#include <stdint.h>

/* Values are never changed; new ones are added at the end. */
enum apf_trace_kind {
	/* A vCPU needs absent memory at gpa; value: its CPL. It stands still until it goes on: */
	APF_TRACE_TOUCH = 1,
	/* - as the guest is told "page missing"; value: the token. */
	APF_TRACE_TOLD = 2,
	/* - halted, taking interrupts, as the guest cannot be told. */
	APF_TRACE_HALT = 3,
	/* It goes on, told or with the memory there. */
	APF_TRACE_GO = 4,
	/* A source is asked for gpa, bytes. value 1: ahead of anybody who waits. */
	APF_TRACE_READ = 5,
	/* It has answered; value: 0, or the errno. */
	APF_TRACE_READ_END = 6,
	/* gpa, bytes is visible to the guest. */
	APF_TRACE_SHOWN = 7,
	/* The guest is told "page ready"; value: the token, ~0 for all. */
	APF_TRACE_READY = 8,
	/* gpa, bytes has been taken out of the guest's mapping. */
	APF_TRACE_TAKEN = 9,
	/* Its memory has been given back to the host. */
	APF_TRACE_DROPPED = 10,
	/* The whole VM stands still, and goes on. */
	APF_TRACE_PAUSED = 11,
	APF_TRACE_RESUMED = 12,
	/* What a list had brought (apf_prefetch) is needed; value 1: and is still on its way. */
	APF_TRACE_USED = 13,
	/* "Page missing" is taken back before the guest has seen it; value: the token. */
	APF_TRACE_WITHDRAWN = 14,
};

#define APF_NOBODY 0xffffffffu /* vcpu: of no vCPU's */

struct apf_trace {
	uint64_t ns; /* CLOCK_MONOTONIC */
	uint64_t gpa;
	uint64_t bytes;
	uint32_t kind; /* enum apf_trace_kind */
	uint32_t vcpu; /* index, or APF_NOBODY */
	uint32_t value;
};

#endif
