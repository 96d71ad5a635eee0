/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stock-kernel backend of port/platform.h: a touch of a poisoned page arrives as a
 * SIGBUS inside KVM_RUN, events go in as an exception payload or an MSI. The VMM made the
 * VM and the vCPUs; we hold their descriptors and close none.
 *
 * Threads: attach, detach and set-up by anybody while the vCPU is at rest; kick, raise_irq by
 * anybody at any time; everything else by the vCPU's thread, which may be another one at each
 * begin().
 */
#ifndef KVM_VCPU_H
#define KVM_VCPU_H

#include <pthread.h>
#include <signal.h>
#include <sys/types.h>

#include "port/platform.h"

struct kvm_run;

#define KVMP_VCPUS_MAX 1024

/* What lies at a guest address, as far as the VMM has told. */
enum kvmp_slot {
	KVMP_SLOT_AUTO, /* it has not: KVM is asked */
	KVMP_SLOT_RAM,
	KVMP_SLOT_ROM,  /* a read-only memslot: stores are for the VMM */
	KVMP_SLOT_HOLE, /* no memslot: all accesses are */
};

/* How the binding finds out what an address means. */
struct kvmp_ram {
	bool (*hva_to_roff)(void *ctx, hva_t hva, roff_t *ret);
	bool (*gpa_to_roff)(void *ctx, gpa_t gpa, uint64_t len, roff_t *ret);
	enum kvmp_slot (*slot_at)(void *ctx, gpa_t gpa);
	/* What the VMM knows an address as: of the guest's mapping, for one of ours beside it. */
	hva_t (*vmm_hva)(void *ctx, hva_t hva);
	void *ctx;
};

struct kvmp_vcpu {
	int fd; /* -1: not attached */
	struct kvm_run *run;
	uint32_t apic_id;    /* where messages reach it now; atomic */
	uint64_t apic_base;  /* by which apic_id was found */
	bool apic_refused;   /* the last interrupt; atomic */
	bool halted;         /* KVM holds the vCPU halted because of us */
	uint32_t token;      /* of the last #PF we queued, 0: none */
	uint64_t in_guest_ns; /* by the coarse clock: it may have stood still since; 0: never ran */
	unsigned starts;     /* so many KVM_RUNs in a row were the end of its wait for SIPI */
	bool marked;         /* an INIT that we do not see can be noticed */
	bool tr_marked;      /* ... without asking KVM */
	uint64_t tr_base;    /* of the task register that was marked */
	unsigned tr_marks;   /* so often since the last INIT */
	uint64_t shown_en, shown_ctl; /* what show_registers left in KVM */
	bool en_left;        /* KVM's EN was taken, and is still there */
	struct { /* KVM is yet to be told of this clock, by this register; 0: no */
		uint32_t msr;
		uint64_t value;
	} clocks[PV_SYSTEM_TIME + 1];
	bool to_show;        /* show_registers was called: show_en, show_ctl */
	uint64_t show_en, show_ctl;
	siginfo_t fault; /* of the last SIGBUS */
	bool catches;    /* until rest(): by the handler of bus.c */
	bool caught;     /* it has, and nobody has looked */

	/* signals.c */
	sigset_t vmm_mask;   /* of the thread outside apf_vcpu_run, as of begin() */
	sigset_t run_mask;   /* in force inside KVM_RUN, and while the thread waits */
	sigset_t run_mask_set; /* what KVM has */
	bool run_mask_known;
	bool mask_told;      /* run_mask was given by the VMM */
	int wake_fd;         /* ends a wait */
	int held_fd;         /* ... for a signal that stays pending; -1: none was ever told */
	pthread_mutex_t kick_lock; /* covers what follows; held for one system call at most */
	pid_t tid;           /* the thread between begin() and rest(); 0: nobody */
	bool waits;          /* it is in wait() */
	bool kicked;         /* and has not noticed yet */
	bool signalled;      /* a signal of ours may be pending */
	bool plain;          /* ... or the plain one, sent as the queue of signals was full */
	bool plain_held;     /* a plain one that the VMM has blocked was taken meanwhile */
};

struct kvmp {
	int vm_fd;
	int kick_signal;
	struct kvmp_ram ram;
	bool msrs;         /* the APF registers come to us */
	uint32_t msr_exits; /* KVM_MSR_EXIT_REASON_* that the VMM wants; atomic */
	bool x2apic_ids;   /* messages carry 32 bits of APIC id */
	bool can_prefault;
	bool can_nest;
	bool bus_handler; /* installed */
	unsigned count;
	struct kvmp_vcpu *vcpus;
};

struct kvmp_config {
	int vm_fd;
	int kick_signal; /* a signal that nothing else in the process uses */
	bool msrs;
	uint32_t msr_exits;
	bool x2apic_ids; /* the VM has KVM_X2APIC_API_USE_32BIT_IDS */
	/* SIGBUS by a handler of ours, which asks this too: bus.h; NULL: none. */
	bool (*bus_other)(const void *info, void *context);
	unsigned vcpus;
	struct kvmp_ram ram;
};

/* 0 or -Exxx. kvmp_fini takes one that is all zeroes, too. */
int kvmp_init(struct kvmp *k, const struct kvmp_config *c, struct err *e);
void kvmp_fini(struct kvmp *k);
/* Takes a vCPU in; apic_id: that it has now. */
int kvmp_attach(struct kvmp *k, unsigned vcpu, int fd, struct kvm_run *run, uint32_t apic_id,
		struct err *e);
/* At rest only. Its descriptor is not touched any more. */
void kvmp_detach(struct kvmp *k, unsigned vcpu);
/*
 * What the VMM would have given to KVM_SET_SIGNAL_MASK; NULL: the thread's own mask again. 0, or
 * -Exxx: there was no descriptor for it. In signals.c.
 */
int kvmp_signal_mask(struct kvmp *k, unsigned vcpu, const sigset_t *mask);

struct plat kvmp_plat(struct kvmp *k);

#endif
