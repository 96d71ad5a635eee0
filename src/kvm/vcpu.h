/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stock-kernel backend of port/platform.h: a touch of a poisoned page arrives as a
 * SIGBUS inside KVM_RUN, events go in as an exception payload or an MSI. The VMM made the
 * VM and the vCPUs; we hold their descriptors and close none.
 */
#ifndef KVM_VCPU_H
#define KVM_VCPU_H

#include <pthread.h>
#include <signal.h>

#include "port/platform.h"

struct kvm_run;

#define KVMP_VCPUS_MAX 64

/* How the binding finds out what an address means. */
struct kvmp_ram {
	bool (*hva_to_roff)(void *ctx, hva_t hva, roff_t *ret);
	bool (*gpa_to_roff)(void *ctx, gpa_t gpa, uint64_t len, roff_t *ret);
	void *ctx;
};

struct kvmp_vcpu {
	int fd;
	struct kvm_run *run;
	uint32_t apic_id;
	pthread_t thread; /* valid once started */
	bool started;
	bool halted; /* KVM holds the vCPU halted because of us */
	uint32_t token; /* of the last #PF we queued, 0: none */
	bool marked; /* an INIT that we do not see can be noticed */
};

struct kvmp {
	int vm_fd;
	int kick_signal;
	struct kvmp_ram ram;
	bool msrs; /* the APF registers come to us */
	bool can_prefault;
	struct kvmp_vcpu vcpus[KVMP_VCPUS_MAX];
};

/* kick_signal: a signal that nothing else in the process uses. */
void kvmp_init(struct kvmp *k, int vm_fd, int kick_signal, bool msrs, const struct kvmp_ram *ram);
/* Takes a vCPU in. It must not have run. */
int kvmp_attach(struct kvmp *k, unsigned vcpu, int fd, struct kvm_run *run, uint32_t apic_id,
		struct err *e);
/*
 * Called once by the vCPU's thread before its first run: blocks SIGBUS and the kick
 * signal in this thread and lets KVM unblock them while it runs the guest.
 */
int kvmp_start(struct kvmp *k, unsigned vcpu, struct err *e);

struct plat kvmp_plat(struct kvmp *k);

#endif
