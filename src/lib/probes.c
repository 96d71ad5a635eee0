/* SPDX-License-Identifier: Apache-2.0 */
/* See probes.h. */
#include "lib/probes.h"

#include <stddef.h>

#if APF_HAVE_SDT

#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

#include "base/types.h"

/*
 * One counter under every probe's name: a step is told if anybody wants any. The section is where
 * the kernel looks for it, and it must be writable.
 */
uint16_t asyncpf_any_semaphore __attribute__((section(".probes"), visibility("hidden")));

#define SHARES(name) \
	extern uint16_t asyncpf_##name##_semaphore \
		__attribute__((alias("asyncpf_any_semaphore"), visibility("hidden"), unused));
SHARES(touch)
SHARES(told)
SHARES(halt)
SHARES(go)
SHARES(read)
SHARES(read_end)
SHARES(shown)
SHARES(ready)
SHARES(taken)
SHARES(dropped)
SHARES(paused)
SHARES(resumed)
SHARES(withdrawn)

const volatile uint16_t *lib_probes_on(void)
{
	return &asyncpf_any_semaphore;
}

void lib_probe(const struct apf_trace *t)
{
	switch (t->kind) {
	case APF_TRACE_TOUCH:
		STAP_PROBE3(asyncpf, touch, t->vcpu, t->gpa, t->value);
		break;
	case APF_TRACE_TOLD:
		STAP_PROBE3(asyncpf, told, t->vcpu, t->gpa, t->value);
		break;
	case APF_TRACE_HALT:
		STAP_PROBE2(asyncpf, halt, t->vcpu, t->gpa);
		break;
	case APF_TRACE_GO:
		STAP_PROBE2(asyncpf, go, t->vcpu, t->gpa);
		break;
	case APF_TRACE_READ:
		STAP_PROBE3(asyncpf, read, t->gpa, t->bytes, t->value);
		break;
	case APF_TRACE_READ_END:
		STAP_PROBE3(asyncpf, read_end, t->gpa, t->bytes, t->value);
		break;
	case APF_TRACE_SHOWN:
		STAP_PROBE2(asyncpf, shown, t->gpa, t->bytes);
		break;
	case APF_TRACE_READY:
		STAP_PROBE2(asyncpf, ready, t->vcpu, t->value);
		break;
	case APF_TRACE_TAKEN:
		STAP_PROBE2(asyncpf, taken, t->gpa, t->bytes);
		break;
	case APF_TRACE_DROPPED:
		STAP_PROBE2(asyncpf, dropped, t->gpa, t->bytes);
		break;
	case APF_TRACE_PAUSED:
		STAP_PROBE(asyncpf, paused);
		break;
	case APF_TRACE_RESUMED:
		STAP_PROBE(asyncpf, resumed);
		break;
	case APF_TRACE_WITHDRAWN:
		STAP_PROBE2(asyncpf, withdrawn, t->vcpu, t->value);
		break;
	}
}

#else

const volatile uint16_t *lib_probes_on(void)
{
	return NULL;
}

void lib_probe(const struct apf_trace *t)
{
	(void)t;
}

#endif
