/* SPDX-License-Identifier: Apache-2.0 */
/* Registers, and the memory that they name. */
#ifndef HOST_MSR_H
#define HOST_MSR_H

#include "host/host.h"

/* The VMM may have set registers in KVM's state: takes over what concerns us. */
void msr_look(struct hst_vcpu *v);
/* Writes the protocol's registers into KVM's state, for the VMM to read. */
void msr_show(struct hst_vcpu *v);
/* There is more RAM: areas of the vCPU's may be in it. */
void msr_memory_came(struct hst_vcpu *v);
/* Memory that the kernel writes must be there before the guest runs: it is not, or not told of. */
bool areas_due(const struct hst_vcpu *v);
/* Sees to that. True: the vCPU waits. */
bool areas_wait(struct hst_vcpu *v);

#endif
