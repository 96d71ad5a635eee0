/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The APF protocol between host, driver and guest, in the revision that -DREV names. See
 * README.md for the options, docs/model.md for what is left out. tools/model runs every
 * configuration.
 */
#include "state.pml"
#include "engine.pml"
#include "host.pml"
#include "guest.pml"

#ifdef LIVE
/* Every parked task runs again, every vCPU that we halted goes on, every event is read. */
#define PARKED (parked[0] != 0)
#define HALTED (halted[0])
#if defined(LATE_CTL) || defined(LATE_VECTOR) || defined(CTL_TOGGLE)
/* If the guest makes the register write that it still owes. */
ltl wakes { ([] <> !late[0]) -> [] (PARKED -> <> !PARKED) }
#elif defined(IRQS_OFF)
/* If interrupts are on again and again. */
ltl wakes { ([] <> irqs_on[0]) -> [] (PARKED -> <> !PARKED) }
#else
ltl wakes { [] (PARKED -> <> !PARKED) }
#endif
#if REV == INT
#define FILLED (token[0] != 0)
#else
#define FILLED (reason[0] != 0)
#endif
ltl reads { [] (FILLED -> <> !FILLED) }
ltl runs { [] (HALTED -> <> !HALTED) }
/* A task at an absent page has it in the end, or is parked. */
#define AT_PAGE (on_cpu[0] && want[0] != NONE && parked[0] == 0)
ltl goes_on { [] (AT_PAGE -> <> !AT_PAGE) }
#if NCPU > 1
/* Who waits for the other vCPU's slot runs again. */
#define PARKED_THERE (parked[0] != 0 && parked_on[0] == 1)
ltl others { [] (PARKED_THERE -> <> !PARKED_THERE) }
#endif
#endif

init {
	byte i;
	atomic {
		i = 0;
		do
		:: i < NCPU ->
			ctl_on[i] = (REV == INT || REV == LEGACY);
			next_id[i] = 1;
			sync_page[i] = NONE;
			cur[i] = NONE;
#ifndef LAPIC_LATE
			lapic[i] = true;
#endif
#ifdef MUT_TOKEN_0
			next_id[i] = 0;
#endif
			run Cpu(i);
			run Timer(i);
			i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < 16 -> told[i] = NONE; i++
		:: else -> break
		od;
		want[0] = NONE;
		want[1] = NONE;
		run Fetch(0);
#if NPAGE > 1
		run Fetch(1);
#endif
#ifdef EVICT
		run Evict();
#endif
		i = 0
	}
}
