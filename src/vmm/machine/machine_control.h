/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's control socket: what control.h asks for, done to the machine through the
 * library's public calls.
 *
 *     machine_open(&cfg, &m, &e);
 *     machine_control_start(m, &control_cfg, &mc, &e);
 *     machine_run(m, &outcome, &e);
 *     machine_control_stop(mc);
 *     machine_close(m);
 *
 * Test: tests/integration/run_control_test.py.
 */
#ifndef VMM_MACHINE_CONTROL_H
#define VMM_MACHINE_CONTROL_H

#include "vmm/control/control.h"
#include "vmm/machine/machine.h"

/* The words are shown by status; they must stay. */
struct machine_control_cfg {
	const char *path;
	const char *faults;
	const char *abi; /* NULL: there is none */
	const char *io;
	const char *name;    /* of the VM; "": none */
	const char *version; /* of the program */
};

struct machine_control;

/* Between machine_open and machine_close, by their thread. 0 or -Exxx. */
int machine_control_start(struct machine *m, const struct machine_control_cfg *cfg,
			  struct machine_control **ret, struct err *e);
/* As control_tell; any thread. */
void machine_control_tell(struct machine_control *mc, enum control_event_kind kind,
			  const char *text);
/* Before machine_close. NULL is harmless. */
void machine_control_stop(struct machine_control *mc);

#endif
