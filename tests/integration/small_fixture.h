/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small guest in a test: an image of noise, its hashes, a configuration to change, and
 * the checks that hold for every run.
 */
#ifndef TESTS_INTEGRATION_SMALL_FIXTURE_H
#define TESTS_INTEGRATION_SMALL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi/apf.h"
#include "base/prng.h"
#include "base/types.h"
#include "io_way.h"
#include "vmm/small/small.h"

#define FIX_PAGES_MAX 1024
#define FIX_LIMIT_MS 60000 /* a hang fails the test, whatever the machine's speed */

struct fix {
	int image_fd;
	uint64_t expect[FIX_PAGES_MAX];
	char uri[256];
	struct small_cfg cfg;
	struct small_outcome out;
	struct err err;
};

/* wrap: "delay+", or "delay+fault+"; keys: what follows the '?', or "". */
void fix_source(struct fix *f, const char *wrap, const char *keys);
struct fix *fix_open(enum apf_faults faults, enum apf_abi abi, uint64_t pages);
void fix_close(struct fix *f);
uint64_t fix_pages_done(const struct fix *f);
void fix_run(struct fix *f);
/* The two halves must agree on what was sent and taken. */
void fix_events_agree(const struct fix *f);
/* Does KVM carry out the guest's CPL 0 itself? Then a touch there is no fault. */
bool fix_cpl0_is_emulated(void);

#endif
