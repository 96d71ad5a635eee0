/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MSRs by which a guest names memory that KVM itself writes, whenever it likes: it cannot
 * wait for that memory. Header only, freestanding.
 * Source: Linux Documentation/virt/kvm/x86/msr.rst.
 */
#ifndef ABI_PV_H
#define ABI_PV_H

#include <stdint.h>

#define PV_MSR_WALL_CLOCK_OLD 0x11u
#define PV_MSR_SYSTEM_TIME_OLD 0x12u
#define PV_MSR_WALL_CLOCK 0x4b564d00u
#define PV_MSR_SYSTEM_TIME 0x4b564d01u
#define PV_MSR_STEAL_TIME 0x4b564d03u
#define PV_MSR_EOI 0x4b564d04u

/* The old and the new number of a clock name the same area. */
enum pv_area {
	PV_WALL_CLOCK,
	PV_SYSTEM_TIME,
	PV_STEAL_TIME,
	PV_EOI,
	PV_AREAS, /* none of them */
};

static inline enum pv_area pv_area_of(uint32_t msr)
{
	switch (msr) {
	case PV_MSR_WALL_CLOCK_OLD:
	case PV_MSR_WALL_CLOCK:
		return PV_WALL_CLOCK;
	case PV_MSR_SYSTEM_TIME_OLD:
	case PV_MSR_SYSTEM_TIME:
		return PV_SYSTEM_TIME;
	case PV_MSR_STEAL_TIME:
		return PV_STEAL_TIME;
	case PV_MSR_EOI:
		return PV_EOI;
	default:
		return PV_AREAS;
	}
}

/* The newer number of the register that names the area. */
static inline uint32_t pv_area_msr(enum pv_area area)
{
	switch (area) {
	case PV_WALL_CLOCK:
		return PV_MSR_WALL_CLOCK;
	case PV_SYSTEM_TIME:
		return PV_MSR_SYSTEM_TIME;
	case PV_STEAL_TIME:
		return PV_MSR_STEAL_TIME;
	default:
		return PV_MSR_EOI;
	}
}

/* Where the area is; *ret_on: bit 0, which says that it is in use (a wall clock has none). */
static inline uint64_t pv_area_gpa(enum pv_area area, uint64_t value, int *ret_on)
{
	switch (area) {
	case PV_SYSTEM_TIME:
		*ret_on = value & 1;
		return value & ~1ull;
	case PV_STEAL_TIME:
		*ret_on = value & 1;
		return value & ~0x3full;
	case PV_EOI:
		*ret_on = value & 1;
		return value & ~3ull;
	default:
		*ret_on = 1;
		return value;
	}
}

/* What the kernel writes there; all but a wall clock lie within a page. */
static inline unsigned pv_area_bytes(enum pv_area area)
{
	return area == PV_WALL_CLOCK ? 12 : 1;
}

#endif
