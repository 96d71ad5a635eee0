/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables: how a stock kernel finds its processors, interrupt controllers and devices,
 * and how it turns the machine off. Tables and not the command line: Debian's cloud kernels
 * have neither MP tables nor virtio_mmio.device= built in.
 *
 * It is a machine with fixed hardware (not "hardware-reduced", with which Linux gives up the
 * PIT and the PIC): a PM1a register block, which acpi_pm.h implements, and a reset register.
 * Interrupt n of the tables is KVM's GSI n: KVM's default routing has the PIT on pin 0 of the
 * IO-APIC, so there is no override for it. Test: tests/unit/acpi_test.c.
 */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include "base/err.h"
#include "vmm/memory/guest_mem.h"

#define ACPI_CPUS_MAX 16
#define ACPI_VIRTIO_MAX 32

/* Where the tables lie: above the map's RAM, where a kernel also searches by itself. */
#define ACPI_GPA 0xe0000ull
#define ACPI_BYTES_MAX 0x4000ull

#define ACPI_LAPIC_GPA 0xfee00000ull
#define ACPI_IOAPIC_GPA 0xfec00000ull
#define ACPI_GSI_COUNT 24 /* pins of KVM's IO-APIC */
#define ACPI_SCI_GSI 9    /* never raised: there is no button and no sleep state but off */

/*
 * Where the VM generation ID lies, behind the tables: a kernel that finds another one there, told
 * by an edge of its interrupt, knows that its memory was copied, and seeds its random numbers anew.
 */
#define ACPI_GENERATION_GPA (ACPI_GPA + ACPI_BYTES_MAX)
#define ACPI_GENERATION_BYTES 16u
#define ACPI_GENERATION_GSI 3 /* a second serial port's, which there is not */

/* A virtio-mmio window: an LNRO0005 device. */
struct acpi_virtio {
	uint64_t gpa;   /* in the hole below 4 GiB, page aligned */
	uint32_t bytes;
	uint32_t gsi;   /* 5..23, not ACPI_SCI_GSI nor the RTC's 8 */
	bool level;     /* the line is held until the guest acknowledges; false: it pulses */
};

struct acpi_cfg {
	unsigned cpus; /* local APIC identifiers 0 to cpus - 1 */
	bool rtc;      /* a CMOS clock at ports 0x70, 0x71, with the century in register 0x32 */
	bool serial;   /* a 16550 at ports 0x3f8 to 0x3ff, GSI 4 */
	bool generation; /* a VM generation ID */
	struct acpi_virtio virtio[ACPI_VIRTIO_MAX];
	unsigned virtio_count;
};

/*
 * Writes the tables; *ret_rsdp goes into load_cfg.acpi_rsdp. 0, -EINVAL for a configuration
 * that cannot be, or -EFAULT without RAM at ACPI_GPA.
 */
int acpi_build(const struct acpi_cfg *cfg, const struct guest_mem *mem, gpa_t *ret_rsdp,
	       struct err *e);

#endif
