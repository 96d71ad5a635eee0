/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest: src/guest as a kernel embeds it, tasks that touch pages, and the vCPU that runs
 * them. One process per vCPU is both: the vCPU thread is either in the guest or in the host.
 *
 * Each access to a word of the area is a step. Before each step, in this order: a kick ends
 * guest mode, a queued #PF is taken, an interrupt is taken if IF and the task priority let
 * it. What the options of a configuration add is listed in README.md.
 */

/* ---- sleepers.c; the table's lock makes each one step ---- */

inline wake_one(i)
{
	printf("guest: task %d wakes, token %d\n", i, parked[i]);
	parked[i] = 0;
	parked_on[i] = 0
}

inline wake_all(c)
{
	d_step {
		if
		:: parked[0] != 0 && parked_on[0] == c -> wake_one(0)
		:: else
		fi;
		if
		:: parked[1] != 0 && parked_on[1] == c -> wake_one(1)
		:: else
		fi;
		id = 0;
		do
		:: id <= IDS -> early[TOKEN(id, c)] = false; id++
		:: else -> break
		od;
		id = 0
	}
}

inline wake(c, tok)
{
	if
	:: tok == WAKE_ALL -> wake_all(c)
	:: tok != WAKE_ALL && parked[0] == tok -> wake_one(0)
	:: tok != WAKE_ALL && parked[0] != tok && parked[1] == tok -> wake_one(1)
	:: else -> early[tok] = true
	fi
}

/* ---- exceptions and interrupts ---- */

inline push(c)
{
	if
	:: level[c] == 0 ->
		back_irqs_on[c] = irqs_on[c];
		back_user[c] = user[c];
		back_pc[c] = pc[c]
	:: else -> kind_below[c] = kind[c]
	fi;
	level[c]++;
	irqs_on[c] = false;
	user[c] = false
}

/* IRET. A halt of the guest's own (idle) ends with the interrupt. */
inline leave(c)
{
	level[c]--;
	if
	:: level[c] == 0 ->
		pc[c] = (back_pc[c] == G_IDLE -> G_SCHED : back_pc[c]);
		irqs_on[c] = back_irqs_on[c];
		user[c] = back_user[c];
		kind[c] = 0;
		cr2[c] = 0; /* nobody looks at it again; fewer states */
		back_pc[c] = 0;
		back_user[c] = false;
		back_irqs_on[c] = false
	:: else ->
		pc[c] = G_PF_WINDOW;
		irqs_on[c] = true;
		kind[c] = kind_below[c];
		kind_below[c] = 0
	fi
}

inline take_pf(c, what, address)
{
	push(c);
	kind[c] = what;
	cr2[c] = address;
#ifdef OPEN_GATE
	/* A handler like a trap gate's: interrupts are on before it has read CR2. */
	if
	:: level[c] == 1 -> irqs_on[c] = true; pc[c] = G_PF_WINDOW
	:: else -> pc[c] = G_PF_READ
	fi
#else
	pc[c] = G_PF_READ
#endif
}

#define SLEEPER(tok) (parked[0] == (tok) || parked[1] == (tok))

/* gst_sleep, and the switch to another task. */
inline sleep(c)
{
	if
	:: SLEEPER(h_token[c]) -> leave(c)
	:: !SLEEPER(h_token[c]) && early[h_token[c]] -> early[h_token[c]] = false; leave(c)
	:: else ->
		printf("guest: task %d parks, token %d\n", cur[c], h_token[c]);
		parked[cur[c]] = h_token[c];
		parked_on[cur[c]] = c;
		on_cpu[cur[c]] = false;
		cur[c] = NONE;
		back_pc[c] = G_SCHED;
		leave(c)
	fi;
	h_token[c] = 0
}

/* gst_pf_enter: what is it? Then the word is cleared, before anything else can fault. */
inline pf_read(c)
{
	h_reason[c] = reason[c];
	printf("guest: vCPU %d reads CR2 %d, reason %d\n", c, cr2[c], h_reason[c]);
	if
	:: h_reason[c] == 0 || (h_reason[c] == READY && (REV == PF2 || REV == INT)) ->
		CHECK(P_REAL, kind[c] != REAL_ADDRESS || cr2[c] == REAL_ADDRESS);
		CHECK(P_EVENT, kind[c] == REAL_ADDRESS);
		h_reason[c] = 0;
		leave(c)
	:: else ->
		h_token[c] = cr2[c];
		CHECK(P_REAL, kind[c] != REAL_ADDRESS);
		CHECK(P_EVENT, kind[c] == REAL_ADDRESS ||
			       kind[c] == (h_reason[c] == READY -> 16 : 0) + cr2[c]);
		pc[c] = G_PF_CLEAR
	fi
}

inline pf_clear(c)
{
	reason[c] = 0;
	queued[c] = 0; /* it counts while word 0 is set */
	token[c] = (PF2_WIRE -> 0 : token[c]); /* unread while word 0 is 0; fewer states */
	if
	:: h_reason[c] == MISSING -> pc[c] = G_PF_SLEEP
	:: h_reason[c] == READY ->
		if
		:: REV == LEGACY -> wake(c, h_token[c])
		:: else /* pf2-strict takes a real fault for the event, S2 */
		fi;
		h_token[c] = 0;
		leave(c)
	fi;
	h_reason[c] = 0
}

#ifdef ACK_FIRST /* the wrong order: acknowledges a slot that is not free */
#define AFTER_WAKE G_IRQ_ACK
#define AFTER_CLEAR G_IRQ_END
#define AFTER_ACK (token[c] != 0 -> G_IRQ_CLEAR : G_IRQ_END)
#else
#define AFTER_WAKE G_IRQ_CLEAR
#define AFTER_ACK G_IRQ_END
#ifdef NO_ACK
#define AFTER_CLEAR G_IRQ_END
#else
#define AFTER_CLEAR G_IRQ_ACK
#endif
#endif

/*
 * gst_ready_irq: pf2 reads, clears, wakes; int reads, wakes, clears, acknowledges. KVM takes the
 * acknowledgement, and nobody else sees it.
 */
inline irq_read(c)
{
	if
	:: PF2_WIRE -> pc[c] = (reason[c] == READY -> G_IRQ_TOKEN : G_IRQ_END)
	:: REV == INT ->
		h_token[c] = token[c];
		pc[c] = (h_token[c] != 0 -> G_IRQ_WAKE : G_IRQ_ACK)
#ifdef STUCK_SLOT
	:: c == 0 -> pc[c] = G_IRQ_END /* this handler is broken: the slot stays full */
#endif
	fi
}

inline irq_clear(c)
{
	if
	:: PF2_WIRE -> reason[c] = 0; token[c] = 0; pc[c] = G_IRQ_WAKE
	:: REV == INT -> token[c] = 0; pc[c] = AFTER_CLEAR
	fi
}

inline irq_wake(c)
{
	wake(c, h_token[c]);
	h_token[c] = 0;
	pc[c] = (REV == INT -> AFTER_WAKE : G_IRQ_END)
}

/* ---- tasks ---- */

#define RUNNABLE(i) (!on_cpu[i] && parked[i] == 0)

inline resume(c, i)
{
	cur[c] = i;
	on_cpu[i] = true;
	pc[c] = G_RUN;
	irqs_on[c] = true;
	user[c] = true
}

inline schedule(c)
{
	tpr[c] = false;
	user[c] = false;
	irqs_on[c] = false;
	if
	:: RUNNABLE(0) -> resume(c, 0)
	:: RUNNABLE(1) -> resume(c, 1)
	:: !RUNNABLE(0) && !RUNNABLE(1) -> pc[c] = G_IDLE; irqs_on[c] = true
	fi
}

/* The access that the task is at: it succeeds, or the vCPU exits. */
inline touch(c)
{
	if
	:: page[want[cur[c]]] >= VISIBLE ->
		want[cur[c]] = NONE;
		user[c] = true;
		irqs_on[c] = true;
		tpr[c] = false
	:: else ->
		x_page[c] = want[cur[c]];
		x[c] = FAULT
	fi
}

inline msr_exit(c, what)
{
	printf("guest: vCPU %d writes %e\n", c, what);
	x[c] = what
}

/* gst_disable, with interrupts off; the sleepers run again and touch their pages. */
inline disable(c)
{
	on_cpu[cur[c]] = false;
	cur[c] = NONE;
	user[c] = false;
	irqs_on[c] = false;
	pc[c] = G_OFF;
	msr_exit(c, EN_OFF)
}

/* After a reset the tasks are gone with their kernel; the next one has tasks of its own. */
inline restart(c)
{
	cur[c] = NONE;
	on_cpu[0] = false;
	on_cpu[1] = false;
	want[0] = NONE;
	want[1] = NONE;
	wake_all(c);
	told_none(c);
	user[c] = false;
	irqs_on[c] = false;
	tpr[c] = false;
	pc[c] = G_BOOT
}

inline told_none(c)
{
	d_step {
		id = 0;
		do
		:: id <= IDS -> told[TOKEN(id, c)] = NONE; id++
		:: else -> break
		od;
		id = 0
	}
}

/* What a task or its kernel does next; CPL 3 unless said otherwise. */
inline run_task(c)
{
	if
	:: want[cur[c]] != NONE -> touch(c)
	:: want[cur[c]] == NONE -> want[cur[c]] = 0; touch(c)
#if NPAGE > 1
	:: want[cur[c]] == NONE -> want[cur[c]] = 1; touch(c)
#endif
	:: RUNNABLE(1 - cur[c]) && user[c] -> /* preempted */
		on_cpu[cur[c]] = false;
		pc[c] = G_SCHED
#ifdef REAL_FAULTS
	:: want[cur[c]] == NONE && user[c] ->
		printf("guest: vCPU %d takes a real page fault\n", c);
		take_pf(c, REAL_ADDRESS, REAL_ADDRESS)
#endif
#ifdef KERNEL_TOUCH
	:: want[cur[c]] == NONE -> want[cur[c]] = 0; user[c] = false; touch(c)
	:: want[cur[c]] == NONE ->
		want[cur[c]] = NPAGE - 1;
		user[c] = false;
		irqs_on[c] = false;
		touch(c)
#endif
#ifdef TASK_PRIORITY
	:: want[cur[c]] == NONE && !tpr[c] -> tpr[c] = true
	:: want[cur[c]] == NONE && tpr[c] -> tpr[c] = false
#endif
#ifdef IRQS_OFF
	:: want[cur[c]] == NONE && user[c] -> user[c] = false; irqs_on[c] = false
	:: want[cur[c]] == NONE && !user[c] && !irqs_on[c] /* still at it */
	:: want[cur[c]] == NONE && !user[c] && !irqs_on[c] -> user[c] = true; irqs_on[c] = true
#endif
#ifdef EXITS
	:: x[c] = OTHER_EXIT
#endif
#ifdef REENABLE
	:: want[cur[c]] == NONE -> disable(c)
#endif
#ifdef LATE_CTL
	:: late[c] -> late[c] = false; msr_exit(c, CTL_ON)
#endif
#ifdef CTL_TOGGLE
	:: ctl_on[c] -> late[c] = true; msr_exit(c, CTL_OFF)
	:: late[c] -> late[c] = false; msr_exit(c, CTL_ON)
#endif
#ifdef LATE_VECTOR
	:: late[c] -> late[c] = false; msr_exit(c, CTL_ON)
#endif
#ifdef REWRITE
	:: want[cur[c]] == NONE -> msr_exit(c, EN_ON) /* while it is on already */
#endif
#ifdef RESET
	:: kernel[c] == 0 -> pc[c] = G_RESET; x[c] = INIT_RESET
#endif
	fi
}

/* ---- bring-up: gst_enable; an MSR write is an exit, and what follows runs after it ---- */

inline boot(c)
{
	reason[c] = 0;
	token[c] = 0;
#ifdef CTL_FIRST
	pc[c] = G_BOOT_2;
	msr_exit(c, CTL_ON)
#else
	pc[c] = G_BOOT_2;
	msr_exit(c, (REV == INT -> CTL_ON : EN_ON))
#endif
}

inline boot_2(c)
{
	pc[c] = G_LAPIC;
#ifdef CTL_FIRST
	msr_exit(c, EN_ON);
#else
	if
	:: REV == INT -> msr_exit(c, EN_ON)
	:: PF2_WIRE ->
#if defined(LATE_CTL)
		late[c] = true
#elif defined(LATE_VECTOR)
		late[c] = true;
		msr_exit(c, CTL_VECTOR_0)
#else
		msr_exit(c, CTL_ON)
#endif
	:: REV == LEGACY
	fi
#endif
}

inline step(c)
{
	if
	:: pc[c] == G_BOOT -> boot(c)
	:: pc[c] == G_BOOT_2 -> boot_2(c)
	:: pc[c] == G_LAPIC -> lapic[c] = true; pc[c] = G_SCHED
	:: pc[c] == G_SCHED -> cur[c] = NONE; schedule(c)
	:: pc[c] == G_IDLE -> irqs_on[c] = false; pc[c] = G_SCHED
	:: pc[c] == G_RUN -> run_task(c)
	:: pc[c] == G_PF_WINDOW -> irqs_on[c] = false; pc[c] = G_PF_READ
	:: pc[c] == G_PF_READ -> pf_read(c)
	:: pc[c] == G_PF_CLEAR -> pf_clear(c)
	:: pc[c] == G_PF_SLEEP -> sleep(c)
	:: pc[c] == G_IRQ_READ -> irq_read(c)
	:: pc[c] == G_IRQ_TOKEN -> h_token[c] = token[c]; pc[c] = G_IRQ_CLEAR
	:: pc[c] == G_IRQ_CLEAR -> irq_clear(c)
	:: pc[c] == G_IRQ_WAKE -> irq_wake(c)
#ifdef ACK_EXITS /* a VMM's filter sends it out */
	:: pc[c] == G_IRQ_ACK -> pc[c] = AFTER_ACK; msr_exit(c, ACK)
#else
	:: pc[c] == G_IRQ_ACK -> pc[c] = AFTER_ACK
#endif
#ifdef EXIT_IN_HANDLER
	:: pc[c] == G_IRQ_END -> pc[c] = G_IRQ_LEAVE; x[c] = OTHER_EXIT
#else
	:: pc[c] == G_IRQ_END -> pc[c] = G_IRQ_LEAVE
#endif
	:: pc[c] == G_IRQ_LEAVE -> leave(c)
	:: pc[c] == G_RESET -> restart(c)
	:: pc[c] == G_OFF ->
		told_none(c);
		wake_all(c);
		reason[c] = 0;
		token[c] = 0;
		pc[c] = G_BOOT
	fi
}

#define IN_GUEST(c) (x[c] == X_GUEST)
/* Our halt, or the guest's own with nobody to run. */
#define HALTS(c) (halted[c] || (pc[c] == G_IDLE && !RUNNABLE(0) && !RUNNABLE(1)))
#define TAKES_IRQ(c) (irr[c] && irqs_on[c] && !tpr[c])

/*
 * The re-check waits twice as long each time, so that the guest gets somewhere between two
 * kicks: for liveness it does one thing at least.
 */
#ifdef LIVE
bool moved[NCPU];
#define KICK_NOW(c) (kicked[c] && \
	(moved[c] || (HALTS(c) && untaken[c] == 0 && !TAKES_IRQ(c))))
#define MOVED(c, did) moved[c] = did
#else
#define KICK_NOW(c) kicked[c]
#define MOVED(c, did) skip
#endif

proctype Cpu(byte c)
{
	byte t, r, how, ix, id;
	bool ok, fresh;
	do
	:: atomic { IN_GUEST(c) && KICK_NOW(c) -> x[c] = KICK; MOVED(c, false) }
	:: atomic { IN_GUEST(c) && !KICK_NOW(c) && untaken[c] != 0 ->
		MOVED(c, true);
		take_pf(c, (untaken_missing[c] -> 0 : 16) + untaken[c], untaken[c]);
		untaken[c] = 0;
		untaken_missing[c] = false }
	:: atomic { IN_GUEST(c) && !KICK_NOW(c) && untaken[c] == 0 && TAKES_IRQ(c) ->
		MOVED(c, true);
		irr[c] = false;
		halted[c] = false;
		printf("guest: vCPU %d takes the interrupt\n", c);
		push(c);
		kind[c] = 0;
		pc[c] = G_IRQ_READ }
	:: atomic { IN_GUEST(c) && !KICK_NOW(c) && untaken[c] == 0 && !TAKES_IRQ(c) &&
		    !HALTS(c) ->
		MOVED(c, true);
		step(c) }
#ifdef RESTORE
	:: atomic { (x[c] == X_GUEST || x[c] == GRACE) && !restored -> x[c] = REST }
#endif
#ifdef LIVE
	:: x[c] != X_GUEST -> LOCK(ME_CPU + c);
		atomic { handle_exit(c); UNLOCK(ME_CPU + c) }
#else
	:: atomic { x[c] != X_GUEST && !locked -> handle_exit(c) }
#endif
	od
}
