/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seam: the guest-facing side of a vCPU. How a fault reaches us, how an event
 * reaches the guest. The shipped implementation is kvm/vcpu.c (poison + SIGBUS,
 * exception payload, MSI); a kernel interface that reports missing pages by other
 * means would be a second table.
 */
#ifndef PORT_PLATFORM_H
#define PORT_PLATFORM_H

#include "base/cpu_state.h"
#include "base/err.h"
#include "base/types.h"

enum plat_exit_kind {
	PLAT_EXIT_FAULT,  /* the guest touched an absent page: roff */
	PLAT_EXIT_RAM_IO, /* an access to absent RAM that the host must carry out: roff, io */
	PLAT_EXIT_WRMSR,  /* msr */
	PLAT_EXIT_RDMSR,  /* msr */
	PLAT_EXIT_KICK,   /* left guest mode because of kick(); nothing happened */
	PLAT_EXIT_VMM,    /* for the VMM: kvm_run says what; result 0 */
	PLAT_EXIT_ERROR,  /* the run call failed: code */
};

enum plat_enter {
	PLAT_ENTER, /* as the vCPU is: after our halt it stays halted */
	/* Executes nothing until an interrupt, NMI, INIT or kick(); runs on after it. */
	PLAT_ENTER_HALTED,
	PLAT_ENTER_RUNNABLE, /* ends our halt; a guest's own HLT ends too: guests loop around HLT */
	/*
	 * Finishes the instruction that the last exit was in the middle of (an MSR or RAM
	 * access), executes nothing else, and returns as after a kick.
	 */
	PLAT_COMPLETE,
};

struct plat_exit {
	enum plat_exit_kind kind;
	int code; /* -Exxx of PLAT_EXIT_ERROR */
	roff_t roff;
	struct {
		uint32_t index;
		uint64_t value;
	} msr;
	bool was_reset; /* PLAT_EXIT_RDMSR, _WRMSR: by an INIT that nobody told us of */
	struct {
		void *data; /* up to 8 bytes in kvm_run */
		uint32_t len;
		bool write;
	} io;
	struct cpu_state cpu;
};

struct plat_ops {
	const char *name;

	/* vCPU thread. Enters the guest as `enter` says and returns at the next exit. */
	void (*run)(void *ctx, unsigned vcpu, enum plat_enter enter, struct plat_exit *ret_exit);
	/* vCPU thread. Waits outside the guest for kick(). May return early for no reason. */
	void (*wait)(void *ctx, unsigned vcpu);

	/*
	 * vCPU thread, before run(). A hint: the guest is about to touch this page, and need not
	 * leave guest mode for it. The page is visible, and must stay so until the next exit.
	 */
	void (*prefault)(void *ctx, unsigned vcpu, gpa_t gpa);

	/*
	 * vCPU thread, after an exit. Queues a synthetic #PF (error code 0, CR2 = token) to
	 * be taken at the next entry, and makes a halted vCPU runnable.
	 */
	void (*inject_pf)(void *ctx, unsigned vcpu, uint32_t token);
	/* vCPU thread, after an exit. Takes back a queued #PF that was not yet taken. */
	void (*cancel_pf)(void *ctx, unsigned vcpu);
	/* vCPU thread, after an MSR exit: the value read, or #GP. */
	void (*finish_msr)(void *ctx, unsigned vcpu, uint64_t value, bool gp);

	/*
	 * vCPU thread, after an exit. Has the kernel carry out a register write of the guest's that
	 * names memory which the kernel itself writes. 0, or -Exxx: the value is not acceptable.
	 */
	int (*set_msr)(void *ctx, unsigned vcpu, uint32_t msr, uint64_t value);

	/*
	 * Any thread. Raises a fixed interrupt at the vCPU's local APIC. Returns 1 when it
	 * was accepted, 0 when the APIC did not take it (software-disabled), or -Exxx.
	 */
	int (*raise_irq)(void *ctx, unsigned vcpu, uint8_t vector);
	/*
	 * Any thread. Makes run() return soon with PLAT_EXIT_KICK, at once if run() is called
	 * later: a kick is never lost. Ends wait() as well.
	 */
	void (*kick)(void *ctx, unsigned vcpu);
};

struct plat {
	const struct plat_ops *ops;
	void *ctx;
};

#endif
