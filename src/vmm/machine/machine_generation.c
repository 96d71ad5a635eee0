/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM generation ID: a number in guest memory that no other VM has. A guest that was restored
 * finds another one than it knew, is told by an interrupt, and seeds its random numbers anew, so
 * that two copies of one snapshot do not draw the same ones. Where it lies: vmm/boot/acpi.h.
 * Called by the thread that opens the machine, after the guest's memory was loaded or restored.
 * Test: tests/lab/snapshot_test.py.
 */
#include <errno.h>
#include <sys/random.h>

#include "kvm/vm.h"
#include "vmm/machine/machine_parts.h"
#include "vmm/memory/guest_ram.h"

int machine_generation_set(struct machine *m, struct err *e)
{
	unsigned char id[ACPI_GENERATION_BYTES];
	int rc;

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return err_sys(e, -errno, "VM generation ID");
	rc = guest_ram_write(m->apf, (struct apf_range){ACPI_GENERATION_GPA, id, sizeof(id)},
			     m->cfg.stop_fd);
	if (rc < 0)
		return err_sys(e, rc, "VM generation ID: guest memory");
	/* A kernel that has just been loaded has seen no other ID. */
	if (m->cfg.restore && kvmp_vm_irq_is_expected(m->vm_fd, ACPI_GENERATION_GSI)) {
		kvmp_vm_irq_line(m->vm_fd, ACPI_GENERATION_GSI, true);
		kvmp_vm_irq_line(m->vm_fd, ACPI_GENERATION_GSI, false);
	}
	return 0;
}
