/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host: the driver. Three kinds of thread: the vCPU thread at an exit (guest.pml calls
 * handle_exit), one Fetch per page, and the Timer that looks again. All of it runs under the
 * VM lock; what the guest can see in between is a step of its own: reading the slot,
 * storing into it, raising the interrupt, taking a refused token back.
 */

/*
 * The VM lock. Where fairness matters it is handed on in order of arrival: a mutex that
 * starves a thread for ever is not what is looked for.
 */
#define ME_FETCH 1 /* and 2 */
#define ME_TIMER 3 /* and 4 */
#define ME_CPU 5   /* and 6 */
#define ME_EVICT 7
#ifdef LIVE
chan lock_line = [8] of { byte };
#define LOCK(me) lock_line ! me; lock_line ? <eval(me)>
#define UNLOCK(me) lock_line ? eval(me)
#else
bool locked;
#define LOCK(me) atomic { !locked -> locked = true }
#define UNLOCK(me) locked = false
#endif

/*
 * vcpu_kick. The text's host (TEXT_HOST) wakes a vCPU that is blocked and leaves one that
 * runs alone; ours sends a signal.
 */
#ifdef TEXT_HOST
#define KICKABLE(c) (halted[c] || pc[c] == G_IDLE)
#else
#define KICKABLE(c) true
#endif
inline kick(c)
{
	if
	:: x[c] == X_GUEST && KICKABLE(c) -> kicked[c] = true
	:: else
	fi
}

/* Without the re-check (NO_RECHECK, and the text's host) exits are the only looks. */
inline recheck_later(c, by_vcpu)
{
#if !defined(NO_RECHECK) && !defined(TEXT_HOST)
	timer[c] = true;
	timer_by_vcpu[c] = by_vcpu
#else
	skip
#endif
}

inline recheck_stop(c)
{
#ifndef MUT_NO_STOP
	timer[c] = false;
#endif
	timer_by_vcpu[c] = false
}

/* vcpu_unhalt */
inline end_halt(c)
{
#if REV == STRICT
	unhalt[c] = true;
	kick(c)
#else
	skip
#endif
}

/* ---- deliver.c ---- */

/* The ghost: told[] ends by a page ready of its own or by a wake-all that covers it. */
inline end_told(c)
{
	if
	:: t == WAKE_ALL && REV != STRICT ->
		d_step {
			id = 1;
			do
			:: id <= IDS -> told[TOKEN(id, c)] = NONE; id++
			:: else -> break
			od;
			id = 0
		}
	:: t == WAKE_ALL && REV == STRICT
	:: else ->
		CHECK(P_ONCE, told[t] != NONE);
#if !defined(EVICT) && !defined(RESTORE)
		ready[c] ? <ix>;
		CHECK(P_READABLE, page[f_page[F(c, ix)]] >= VISIBLE);
#endif
		told[t] = NONE
	fi
}

/* slot_store of a page ready. */
inline store_ready(c)
{
	if
	:: how == HOW_NOTHING ->
		CHECK(P_NOWHERE, false);
		if
		:: en[c] -> reason[c] = READY; token[c] = t /* S1, S8 */
		:: else
		fi
	:: how == HOW_CANCEL_PF -> reason[c] = 0
	:: how == HOW_PF ->
		CHECK(P_SLOT, reason[c] == 0);
		reason[c] = READY
	:: how == HOW_IRQ && PF2_WIRE ->
		CHECK(P_SLOT, reason[c] == 0);
		reason[c] = READY;
		token[c] = t
	:: how == HOW_IRQ && REV == INT ->
		CHECK(P_SLOT, token[c] == 0);
		token[c] = t
	fi
}

inline take_back(c)
{
#ifdef MUT_NO_TAKE_BACK
	skip
#else
	if
	:: PF2_WIRE && reason[c] == READY && token[c] == t -> reason[c] = 0; token[c] = 0
	:: REV == INT && token[c] == t -> token[c] = 0
	:: else -> ok = true /* the guest has taken it meanwhile */
	fi
#endif
}

/* perform, less the store: sets ok. */
inline notify(c)
{
	ok = true;
	if
	:: how == HOW_NOTHING
	:: how == HOW_CANCEL_PF ->
		untaken[c] = 0;
		untaken_missing[c] = false
	:: how == HOW_PF ->
		untaken[c] = t;
		untaken_missing[c] = false;
		halted[c] = false
	:: how == HOW_IRQ && lapic[c] ->
		CHECK(P_VECTOR, vec[c] == VEC_FIRST + kernel[c]);
		irr[c] = true
	:: how == HOW_IRQ && !lapic[c] ->
#ifdef MUT_NO_TAKE_BACK
		skip
#else
		ok = false
#endif
	fi
}

inline sent(c)
{
	end_told(c);
	printf("host: page ready, token %d, sent to vCPU %d\n", t, c);
	ready_sent(c);
	end_halt(c);
	recheck_stop(c)
}

/* comes_too_early: a page missing that may yet be taken back; page ready must not be seen alone. */
#ifdef MUT_READY_TOO_EARLY
#define TOO_EARLY(c) false
#else
#define TOO_EARLY(c) (how == HOW_IRQ && t == queued[c] && reason[c] == MISSING)
#endif

inline deliver(c, has_cpu)
{
	do
	:: atomic {
		next_ready(c, has_cpu);
		if
		:: r == R_SEND && TOO_EARLY(c) -> recheck_later(c, false); break
		:: r == R_SEND && !TOO_EARLY(c)
		:: r == R_NONE || r == R_OFF -> recheck_stop(c); break
		:: r == R_SLOT_BUSY ->
			printf("host: an event is due, the slot of vCPU %d is not free\n", c);
			recheck_later(c, false);
			break
		:: r == R_NO_CPU -> kick(c); break
		:: r == R_NOT_NOW ->
			printf("host: an event is due, vCPU %d cannot take it now\n", c);
			recheck_later(c, true);
			break
		fi
	   }
	   store_ready(c);
	   atomic {
		notify(c);
		if
		:: ok -> sent(c)
		:: else
		fi
	   }
	   if
	   :: !ok ->
		atomic { take_back(c); if :: ok -> sent(c) :: else fi };
		if
		:: !ok -> recheck_later(c, false); break
		:: else
		fi
	   :: else
	   fi
	od;
	atomic { t = 0; r = 0; how = 0; ok = false }
}

/* vcpu_block_ready: of the phase's waiter, and whether one of the tokens' waits for p. */
inline sync_ready(c, p)
{
	if
	:: sync_page[c] == p ->
		sync_page[c] = NONE;
		sync_done[c] = true;
		if
#ifndef MUT_NO_KICK
		:: phase[c] != PH_RUN -> kick(c)
#endif
		:: else
		fi
	:: else
	fi
}
#define WAITS(c, waiter, p, state) (f_state[F(c, waiter - 1)] == state && \
	f_page[F(c, waiter - 1)] == p)

/* One block: read, made visible outside the lock, settled under it. */
proctype Fetch(byte p)
{
	byte t, r, how, ix, id, c, waiter;
	bool ok;
end:	do
	:: page[p] == FETCHING ->
#ifndef MUT_READY_FIRST
		page[p] = VISIBLE;
		LOCK(ME_FETCH + p);
#ifdef RESTORE
		if
		:: page[p] == VISIBLE
		:: else -> UNLOCK(ME_FETCH + p); goto end /* of the host that the VM has left */
		fi;
#endif
		page[p] = PRESENT;
#else
		LOCK(ME_FETCH + p);
#endif
		printf("host: page %d is present\n", p);
		/* The waiters: for each vCPU its own, then those of its tokens. */
		do
		:: atomic { waiter == 0 -> sync_ready(c, p); waiter = 1 }
		:: waiter > 0 ->
			if
			:: atomic { WAITS(c, waiter, p, F_WAITING) ||
				    WAITS(c, waiter, p, F_HALTED) ->
				f_state[F(c, waiter - 1)] = F_READY;
				ready[c] ! waiter - 1;
				end_halt(c) }
				deliver(c, false)
			:: atomic { WAITS(c, waiter, p, F_RETIRED) ->
				fault_free(c, waiter - 1) }
			:: else
			fi;
			atomic {
				waiter++;
				if
				:: waiter > FMAX -> waiter = 0; c++
				:: else
				fi;
				if
				:: c == NCPU -> c = 0; break
				:: else
				fi
			}
		od;
#ifdef MUT_READY_FIRST
		page[p] = PRESENT;
#endif
		UNLOCK(ME_FETCH + p)
	od
}

/* recheck_fire */
proctype Timer(byte c)
{
	byte t, r, how, ix, id;
	bool ok;
end:	do
	:: timer[c] ->
		LOCK(ME_TIMER + c);
		if
		:: atomic { timer[c] ->
			CHECK(P_QUIET, wake_due[c] || len(ready[c]) > 0);
			timer[c] = false
		   }
		   if
		   :: atomic { timer_by_vcpu[c] -> recheck_later(c, true); kick(c) }
		   :: else -> deliver(c, false)
		   fi
		:: else
		fi;
		UNLOCK(ME_TIMER + c)
	od
}

#ifdef EVICT
/* Takes pages away again, so that faults go on and tokens come round. */
proctype Evict()
{
end:	do
	:: page[0] == PRESENT || page[NPAGE - 1] == PRESENT ->
		LOCK(ME_EVICT);
		if
		:: page[0] == PRESENT -> page[0] = ABSENT
		:: page[NPAGE - 1] == PRESENT -> page[NPAGE - 1] = ABSENT
		:: else
		fi;
		UNLOCK(ME_EVICT)
	od
}
#endif

/* ---- vcpu.c: the vCPU thread, under the lock; its guest does not run ---- */

inline wait_over(c)
{
	phase[c] = PH_RUN
}

inline begin_wait(c)
{
	sync_page[c] = NONE;
	sync_done[c] = false;
	if
	:: page[x_page[c]] == PRESENT
	:: page[x_page[c]] == ABSENT -> page[x_page[c]] = FETCHING; sync_page[c] = x_page[c]
	:: else -> sync_page[c] = x_page[c]
	fi;
	if
	:: sync_page[c] != NONE -> phase[c] = PH_GRACE
	:: else
	fi
}

#define UNREAD_READY(c) (token[c] != WAKE_ALL && \
	(REV == INT -> token[c] != 0 : reason[c] == READY))

inline announce_or_stall(c)
{
	CHECK(P_ANNOUNCED, MAY_SEND_MISSING(c) || !UNREAD_READY(c) || !en[c] ||
			   !CPU_ACCEPTS(c) || !LEVEL_ACCEPTS(c) || POOL_EMPTY(c));
	if
	:: !MAY_SEND_MISSING(c) ->
		printf("host: vCPU %d is halted for page %d\n", c, sync_page[c]);
		halt(c, sync_page[c], t);
		phase[c] = PH_STALL;
		fresh = true
	:: else ->
		send_missing(c, sync_page[c], t);
		CHECK(P_ALLOWED, en[c] && irqs_on[c] && LEVEL_ACCEPTS(c) && untaken[c] == 0);
		CHECK(P_SLOT, reason[c] == 0 || REV == LEGACY);
		reason[c] = MISSING;
		if
		:: PF2_WIRE -> token[c] = t
		:: else
		fi;
		untaken[c] = t;
		untaken_missing[c] = true;
		queued[c] = (REV == INT -> t : 0);
		told[t] = cur[c];
		printf("host: page missing, token %d, page %d, to vCPU %d\n", t, sync_page[c], c);
		sync_page[c] = NONE;
		t = 0;
		ix = 0;
		wait_over(c)
	fi
}

#ifdef MUT_NO_UNHALT
#define STALL_IS_OVER(c) sync_done[c]
#else
#define STALL_IS_OVER(c) (sync_done[c] || (by_text[c] && unhalt[c]))
#endif

/* hst_next with next_stalled in it, where the vCPU is not waiting; then it enters the guest. */
inline next(c)
{
	if
	:: phase[c] == PH_STALL && STALL_IS_OVER(c) -> wait_over(c); halted[c] = false
	:: else
	fi;
	deliver(c, true);
	if
	:: phase[c] == PH_STALL && STALL_IS_OVER(c) -> wait_over(c); halted[c] = false
	:: phase[c] == PH_STALL && !STALL_IS_OVER(c) && untaken[c] != 0 ->
		wait_over(c) /* a page ready by #PF for another task */
	:: phase[c] == PH_STALL && !STALL_IS_OVER(c) && untaken[c] == 0 && fresh ->
		halted[c] = true
	:: else
	fi;
	fresh = false;
	CHECK(P_UNHALTED, !unhalt[c] || !by_text[c] || !halted[c]);
	unhalt[c] = false;
	by_text[c] = by_text[c] && phase[c] == PH_STALL; /* fewer states */
	CHECK(P_HELD, untaken[c] != 0 || reason[c] == MISSING || SLOT_WORD(c) != 0 || !ctl_on[c] ||
		      !lapic[c] || !en[c] || (!wake_due[c] && len(ready[c]) == 0));
	x[c] = X_GUEST
}

inline write_msr(c)
{
	if
	:: x[c] == EN_ON ->
		write_en_on(c);
		if
		:: REV == PF2 || REV == INT -> reason[c] = 0; token[c] = 0
		:: else
		fi
	:: x[c] == EN_OFF -> write_en_off(c)
	:: x[c] == CTL_ON -> write_ctl(c, true, VEC_FIRST + kernel[c])
	:: x[c] == CTL_OFF -> write_ctl(c, false, VEC_FIRST + kernel[c])
	:: x[c] == CTL_VECTOR_0 -> write_ctl(c, true, VEC_NONE)
	:: x[c] == ACK /* an exit, and with it a look */
	fi
}

#ifdef RESTORE
/*
 * vcpu_rest, hst_vcpu_save, and hst_vcpu_restore on another host, where no page is present. One
 * vCPU alone.
 */
inline move(c)
{
	printf("host: the VM goes on elsewhere\n");
	sync_page[c] = NONE;
	sync_done[c] = false;
	wait_over(c);
	halted[c] = false;
	if
	:: untaken[c] != 0 ->
		CHECK(P_ONCE, REV != INT || token[c] != untaken[c]);
		take_back_missing(c, untaken[c]);
		told[untaken[c]] = NONE;
		token[c] = (PF2_WIRE && reason[c] == MISSING -> 0 : token[c]);
		reason[c] = (reason[c] == MISSING -> 0 : reason[c]);
		untaken[c] = 0;
		untaken_missing[c] = false;
		queued[c] = 0
	:: else
	fi;
#ifdef RESTORE_REGISTERS
	engine_restore_registers(c);
#else
	engine_restore(c);
#endif
	timer[c] = false;
	timer_by_vcpu[c] = false;
	page[0] = ABSENT;
	page[NPAGE - 1] = ABSENT;
#ifndef MUT_RESTORE_FORGETS
	fetch_awaited(c, 0);
	fetch_awaited(c, 1);
#endif
	restored = true
}

/* fetch_what_is_awaited */
inline fetch_awaited(c, i)
{
	if
	:: f_state[F(c, i)] == F_WAITING -> page[f_page[F(c, i)]] = FETCHING
	:: else
	fi
}
#endif

/* hst_exit, what happened, hst_next: from the exit or the wait to the wait or the guest. */
inline handle_exit(c)
{
	kicked[c] = false;
	if
	:: phase[c] == PH_STALL && x[c] != KICK -> wait_over(c)
	:: else
	fi;
	if
	:: x[c] == GRACE && sync_done[c] -> wait_over(c)
	:: x[c] == GRACE && !sync_done[c] -> announce_or_stall(c)
	:: x[c] == FAULT -> begin_wait(c)
	:: x[c] == INIT_RESET ->
		sync_page[c] = NONE;
		wait_over(c);
		irr[c] = false; /* the local APIC's part of it */
		kernel[c] = 1;
		engine_reset(c)
#ifdef RESTORE
	:: x[c] == REST -> move(c)
#endif
	:: x[c] == KICK || x[c] == OTHER_EXIT
	:: else -> write_msr(c)
	fi;
	x_page[c] = 0;
	if
	:: phase[c] == PH_GRACE -> x[c] = GRACE
	:: else -> next(c)
	fi
}
