/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls that each role needs: one table, from which the filters are made (filter.h) and
 * the list for a VMM's author in docs/embedding.md. Pure data.
 * Test: tests/integration/sandbox_test.c makes each of them in each role.
 */
#ifndef SANDBOX_CALLS_H
#define SANDBOX_CALLS_H

#include <stdbool.h>
#include <stdint.h>

#include "sandbox/roles.h"

enum sandbox_call_if {
	CALL_ALWAYS,
	CALL_IF_EQUAL,   /* (argument & mask) == value */
	CALL_IF_OWN_PID, /* argument == our process */
};

struct sandbox_call {
	const char *name;
	int nr;
	uint16_t roles;      /* a bit for each */
	uint16_t by_library; /* of them: those in which libasyncpf makes it */
	enum sandbox_call_if when;
	unsigned arg;
	uint64_t mask, value;
	const char *what;    /* the condition in words; NULL: none */
	int refusal;         /* it is not made, and fails with this -Exxx; 0: it is made */
};

extern const struct sandbox_call sandbox_calls[];
extern const unsigned sandbox_calls_count;

#endif
