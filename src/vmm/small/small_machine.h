/* SPDX-License-Identifier: Apache-2.0 */
/* The small machine inside: small.c builds and tears it down, small_run.c runs it. */
#ifndef VMM_SMALL_MACHINE_H
#define VMM_SMALL_MACHINE_H

#include <pthread.h>

#include "kvm/kvm_uapi.h"
#include "vmm/memory/guest_mem.h"
#include "vmm/small/small.h"

struct small_vcpu {
	struct small_machine *m;
	unsigned index;
	int fd;
	struct kvm_run *run;
	struct apf_vcpu *apf;
	pthread_t thread;
	bool running; /* the thread exists */
	double cpu_s; /* its CPU time, when it has ended */
};

struct small_machine {
	const struct small_cfg *cfg;
	int kvm_fd;
	int vm_fd;
	int done_fd; /* eventfd: the guest ended, or a vCPU failed */
	struct apf *apf;
	struct guest_mem mem; /* the image is the upper part */
	struct small_vcpu vcpus[SMALL_VCPUS_MAX];
	unsigned vcpu_count;
	/* Written by vCPU threads under lock. */
	pthread_mutex_t lock;
	bool stop;
	bool ended;
	uint32_t status;
	uint64_t end_ns;
	struct err failure; /* code 0: none */
	char console[SMALL_CONSOLE_MAX];
	size_t console_len;
};

int small_build(struct small_machine *m, const struct small_cfg *cfg, struct err *e);
/* Every vCPU thread must have ended. */
void small_destroy(struct small_machine *m);

#endif
