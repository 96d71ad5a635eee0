/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of asyncpf/trace.h as USDT probes, for bpftrace and the like: docs/trace.md. Each is a
 * nop, and a counter says whether anybody listens. Without <sys/sdt.h> at build there are none.
 * Test: tests/integration/probes_test.py.
 */
#ifndef LIB_PROBES_H
#define LIB_PROBES_H

#include <asyncpf/trace.h>

/* Not 0: somebody listens, in this process; the kernel counts there. NULL: there are no probes. */
const volatile uint16_t *lib_probes_on(void);
void lib_probe(const struct apf_trace *t);

#endif
