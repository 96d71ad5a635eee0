/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seam: the guest-facing side of a vCPU. How a fault reaches us, how an event
 * reaches the guest. The shipped implementation is kvm/vcpu.c (poison + SIGBUS,
 * exception payload, MSI); a kernel interface that reports missing pages by other
 * means would be a second table.
 */
#ifndef PORT_PLATFORM_H
#define PORT_PLATFORM_H

#include "abi/pv.h"
#include "base/cpu_state.h"
#include "base/err.h"
#include "base/types.h"

enum plat_exit_kind {
	PLAT_EXIT_FAULT,  /* the guest touched an absent page: roff */
	PLAT_EXIT_ROM,    /* the guest touched an absent page of a read-only memslot: which? */
	PLAT_EXIT_RAM_IO, /* an access to absent RAM that the host must carry out: gpa, io */
	PLAT_EXIT_WRMSR,  /* msr */
	PLAT_EXIT_RDMSR,  /* msr */
	PLAT_EXIT_KICK,   /* left guest mode because of kick(), or for nothing */
	PLAT_EXIT_SIGNAL, /* left guest mode because the VMM wants its thread back */
	PLAT_EXIT_VMM,    /* for the VMM: kvm_run says what; result 0 */
	PLAT_EXIT_ERROR,  /* the run call failed: code */
};

enum plat_enter {
	PLAT_ENTER, /* as the vCPU is: after our halt it stays halted */
	/* Executes nothing until an interrupt, NMI, INIT or kick(); runs on after it. */
	PLAT_ENTER_HALTED,
	PLAT_ENTER_RUNNABLE, /* ends our halt; a guest's own HLT ends too: guests loop around HLT */
	/*
	 * Finishes the instruction that the last exit was in the middle of, if there is one,
	 * executes nothing else, and returns as after a kick; or with the next exit, where the
	 * instruction has several parts. The CPU state of that exit is what the VMM left.
	 */
	PLAT_COMPLETE,
};

struct plat_entry {
	enum plat_enter how;
	bool watch_reset; /* registers are set: notice an INIT that nobody tells us of */
};

/*
 * Registers in KVM's own state that a VMM sets by itself when it restores a guest: they name
 * memory, or belong to the protocol. 0 where there is none.
 */
struct plat_registers {
	uint64_t area[PV_AREAS]; /* as abi/pv.h has them; no wall clock: it is written at once */
	uint64_t en, ctl;        /* of the protocol */
	bool changed;            /* en, ctl: not what show_registers left there */
};

/* A data access of the guest's that the host carries out. */
struct plat_io {
	void *data; /* len bytes in kvm_run: to be stored, or to be filled in */
	uint32_t len; /* 1..8 */
	bool write;
};

struct plat_exit {
	enum plat_exit_kind kind;
	int code; /* -Exxx of PLAT_EXIT_ERROR */
	roff_t roff;
	gpa_t gpa;
	struct {
		uint32_t index;
		uint64_t value;
	} msr;
	bool was_reset; /* since an entry with watch_reset, by an INIT that nobody told us of */
	struct plat_io io;
	struct cpu_state cpu;
};

struct plat_ops {
	const char *name;

	/*
	 * vCPU thread. The VMM has called, and from here on until rest() kicks may come. Whatever
	 * it has changed in KVM's state meanwhile counts. 1: it wants its thread back at once
	 * (immediate_exit); 0; or -Exxx: there is no way to reach the thread, nothing has begun.
	 */
	int (*begin)(void *ctx, unsigned vcpu);
	/*
	 * vCPU thread. The call is about to return: ends our halt, and after it no kick reaches
	 * the thread. interrupted: kvm_run says KVM_EXIT_INTR then.
	 */
	void (*rest)(void *ctx, unsigned vcpu, bool interrupted);

	/* vCPU thread. Enters the guest as `entry` says and returns at the next exit. */
	void (*run)(void *ctx, unsigned vcpu, const struct plat_entry *entry,
		    struct plat_exit *ret_exit);
	/*
	 * vCPU thread. Waits outside the guest for kick(). May return early for no reason. True:
	 * the VMM wants its thread back, by a signal or by immediate_exit.
	 */
	bool (*wait)(void *ctx, unsigned vcpu);

	/*
	 * vCPU thread, between begin() and rest(). What the VMM may have set in KVM's state:
	 * EN of the protocol is taken out of there, and is 0 at the next run().
	 */
	void (*take_registers)(void *ctx, unsigned vcpu, struct plat_registers *ret);
	/* ... and are shown there from rest() on, for a VMM that saves what KVM has. */
	void (*show_registers)(void *ctx, unsigned vcpu, uint64_t en, uint64_t ctl);

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
	/*
	 * vCPU thread, after an exit. Takes back a queued #PF that was not yet taken; at the latest
	 * rest() sees to it that KVM has forgotten it.
	 */
	void (*cancel_pf)(void *ctx, unsigned vcpu);
	/* vCPU thread, after an MSR exit: the value read, or #GP. */
	void (*finish_msr)(void *ctx, unsigned vcpu, uint64_t value, bool gp);

	/*
	 * vCPU thread, after an exit. Has the kernel carry out a register write of the guest's that
	 * names memory which the kernel itself writes, at the latest by run() or rest(). 0, or
	 * -Exxx: the value is not acceptable; what the kernel refuses only then is a #GP as well.
	 */
	int (*set_msr)(void *ctx, unsigned vcpu, uint32_t msr, uint64_t value);

	/*
	 * vCPU thread, after an exit. The guest can write to memory there: RAM of ours may lie
	 * behind no memslot, or behind a read-only one.
	 */
	bool (*is_writable)(void *ctx, unsigned vcpu, gpa_t gpa);

	/*
	 * vCPU thread, after PLAT_EXIT_FAULT. The fault is a memory error of the host's own and
	 * for the VMM: it is told as KVM would have told it, by SIGBUS, when the call has returned.
	 */
	void (*pass_fault)(void *ctx, unsigned vcpu);

	/*
	 * Any thread. Raises a fixed interrupt at the vCPU's local APIC. Returns 1 when it
	 * was accepted, 0 when the APIC did not take it (software-disabled), or -Exxx.
	 */
	int (*raise_irq)(void *ctx, unsigned vcpu, uint8_t vector);
	/*
	 * Any thread. Makes run() return soon with PLAT_EXIT_KICK, at once if run() is called
	 * later: a kick is never lost, nor can it be refused. Ends wait() as well. Between rest()
	 * and begin() it does nothing.
	 */
	void (*kick)(void *ctx, unsigned vcpu);
};

struct plat {
	const struct plat_ops *ops;
	void *ctx;
};

#endif
