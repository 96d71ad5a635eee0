/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU's thread by src/host/drive.h, one step at a time, as host_fixture.h has the rest. */
#ifndef DRIVE_FIXTURE_H
#define DRIVE_FIXTURE_H

#include "host/drive.h"
#include "host_fixture.h"

/* Until the step is none of pumping. */
struct hst_step dx_pumped(struct rig *x, unsigned vcpu, struct hst_step s);
struct hst_step dx_did(struct rig *x, unsigned vcpu, enum hst_did did, bool wanted);
struct hst_step dx_call(struct rig *x);

/* The exit's CPU state is the fixture's. */
struct hst_step dx_exit_step(struct rig *x, unsigned vcpu, struct plat_exit e);
struct hst_step dx_exit(struct rig *x, struct plat_exit e);
struct hst_step dx_fault(struct rig *x, uint64_t page);
struct hst_step dx_kicked(struct rig *x);
struct hst_step dx_io(struct rig *x, uint64_t off, void *data, uint32_t len, bool write);
struct hst_step dx_wrmsr(struct rig *x, uint32_t msr, uint64_t value);

#define dx_must_enter(s, as)                                       \
	do {                                                       \
		const struct hst_step dx_s = (s);                  \
		assert_int_equal(dx_s.next, HST_DO_RUN);         \
		assert_int_equal(dx_s.entry.how, as);              \
	} while (0)

#define dx_must_wait(s) assert_int_equal((s).next, HST_DO_WAIT)

#define dx_must_return(s, with)                                    \
	do {                                                       \
		const struct hst_step dx_s = (s);                  \
		assert_int_equal(dx_s.next, HST_DO_RETURN);      \
		assert_int_equal(dx_s.result, with);               \
	} while (0)

/* ---- set-up ---- */

struct rig *dx_open(enum hst_faults faults);

/* Events are on, and the VMM has called. */
struct rig *dx_open_called(enum apf_rev rev);

/* Nothing of ours is left in KVM, and nothing runs for the vCPU. */
void dx_must_rest(struct rig *x);

#endif
