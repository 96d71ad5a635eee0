/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/engine: what may be sent when, and what is recorded. Each inline is one function there,
 * of the same name without its prefix; it runs under the VM lock and touches no guest memory
 * but the slot that its caller has read.
 */

/* enum eng_ready, and enum eng_how */
#define R_NONE 0
#define R_SEND 1
#define R_SLOT_BUSY 2
#define R_NO_CPU 3
#define R_NOT_NOW 4
#define R_OFF 5
#define HOW_NOTHING 0
#define HOW_PF 1
#define HOW_IRQ 2
#define HOW_CANCEL_PF 3

#ifdef MUT_SLOT_IGNORED
#define SLOT_TAKEN(c) false
#else
#define SLOT_TAKEN(c) (SLOT_WORD(c) != 0)
#endif
#define SLOT_WORD(c) (REV == INT -> token[c] : reason[c])
/* Word 0 empty, and no wake-all on its way to the sleepers (int). */
#define SLOT_FREE(c) (reason[c] == 0 && \
	!(REV == INT && wake_in_slot[c] && token[c] == WAKE_ALL))
#define SLOT_ACCEPTS(c) (REV == LEGACY || SLOT_FREE(c))
#ifdef SEND_ALWAYS
#define LEVEL_ACCEPTS(c) true
#else
#define LEVEL_ACCEPTS(c) user[c]
#endif
#ifdef MUT_IF_IGNORED
#define CPU_ACCEPTS(c) (untaken[c] == 0)
#else
#define CPU_ACCEPTS(c) (untaken[c] == 0 && irqs_on[c])
#endif
#define BY_IRQ (REV != LEGACY)

inline fault_free(c, ix)
{
	issue[c] ?? eval(ix);
	f_state[F(c, ix)] = F_FREE;
	f_token[F(c, ix)] = 0;
	f_page[F(c, ix)] = 0
}

inline retire(c, ix)
{
	if
	:: f_state[F(c, ix)] == F_READY -> fault_free(c, ix)
	:: f_state[F(c, ix)] == F_WAITING || f_state[F(c, ix)] == F_HALTED ->
		f_state[F(c, ix)] = F_RETIRED
	:: f_state[F(c, ix)] == F_FREE || f_state[F(c, ix)] == F_RETIRED
	fi
}

inline retire_all(c)
{
	do
	:: len(ready[c]) > 0 -> ready[c] ? _
	:: else -> break
	od;
	retire(c, 0);
	retire(c, 1);
	wake_due[c] = false;
	wake_after[c] = 0;
	wake_in_slot[c] = false
}

/*
 * Also passed over: the token that was sent last. It may be in the slot, unread, and its fault is
 * forgotten already (docs/model.md, finding 1).
 */
#ifdef MUT_SENT_TOKEN_REUSED
#define STILL_SENT(c, tok) false
#else
#define STILL_SENT(c, tok) (sent_token[c] == (tok))
#endif

/* The head of the issue list alone can clash; whether that is so is P_TOKEN's business. */
inline next_token(c, ret)
{
	do
	:: ret = TOKEN(next_id[c], c);
	   next_id[c] = (next_id[c] % IDS) + 1;
#ifdef MUT_TOKEN_0
	   next_id[c] = (next_id[c] == 1 -> 0 : next_id[c]);
#endif
	   if
	   :: STILL_SENT(c, ret)
	   :: !STILL_SENT(c, ret) && len(issue[c]) == 0 -> break
	   :: !STILL_SENT(c, ret) && len(issue[c]) > 0 ->
		issue[c] ? <ix>;
		if
		:: f_token[F(c, ix)] != ret -> break
		:: else ->
			issue[c] ? ix;
			issue[c] ! ix
		fi
	   fi
	od
}

#define HELD_BY_HOST(c, t) ((f_state[F(c, 0)] != F_FREE && f_token[F(c, 0)] == (t)) || \
	(f_state[F(c, 1)] != F_FREE && f_token[F(c, 1)] == (t)))
#define HELD_BY_GUEST(t) (parked[0] == (t) || parked[1] == (t) || early[t])

/* eng_send_missing: takes an entry and a token for page p; the event is the caller's. */
inline send_missing(c, p, ret)
{
	next_token(c, ret);
	CHECK(P_TOKEN, ret != 0 && ret != WAKE_ALL && !HELD_BY_HOST(c, ret) &&
		       !HELD_BY_GUEST(ret));
	ix = (f_state[F(c, 0)] == F_FREE -> 0 : 1);
	f_state[F(c, ix)] = F_WAITING;
	f_token[F(c, ix)] = ret;
	f_page[F(c, ix)] = p;
	issue[c] ! ix
}

#define POOL_EMPTY(c) (f_state[F(c, 0)] != F_FREE && f_state[F(c, 1)] != F_FREE)
#define MAY_SEND_MISSING(c) (en[c] && CPU_ACCEPTS(c) && LEVEL_ACCEPTS(c) && SLOT_ACCEPTS(c) && \
	!POOL_EMPTY(c))

/*
 * eng_halt: a halt that the founding text has in its books has an entry for its page, or finds
 * one. Sets by_text.
 */
#define IN_FLIGHT(c, ix, p) ((f_state[F(c, ix)] == F_WAITING || f_state[F(c, ix)] == F_HALTED) && \
	f_page[F(c, ix)] == (p))
inline halt(c, p, ret)
{
	by_text[c] = REV == STRICT && CPU_ACCEPTS(c) && (!en[c] || reason[c] == 0) &&
		     (IN_FLIGHT(c, 0, p) || IN_FLIGHT(c, 1, p) || !POOL_EMPTY(c));
	if
	:: by_text[c] && !IN_FLIGHT(c, 0, p) && !IN_FLIGHT(c, 1, p) ->
		next_token(c, ret);
		CHECK(P_TOKEN, ret != 0 && ret != WAKE_ALL && !HELD_BY_HOST(c, ret) &&
			       !HELD_BY_GUEST(ret));
		ix = (f_state[F(c, 0)] == F_FREE -> 0 : 1);
		f_state[F(c, ix)] = F_HALTED;
		f_token[F(c, ix)] = ret;
		f_page[F(c, ix)] = p;
		issue[c] ! ix
	:: else
	fi;
	ret = 0;
	ix = 0
}

/* eng_next_ready: sets r, how and t. The slot is read here. */
inline next_ready(c, has_cpu)
{
	how = HOW_NOTHING;
	if
	:: en[c] && SLOT_WORD(c) == 0 -> wake_in_slot[c] = false
	:: else
	fi;
	if
	:: wake_due[c] && wake_after[c] == 0 -> t = WAKE_ALL
	:: !(wake_due[c] && wake_after[c] == 0) && len(ready[c]) > 0 ->
		ready[c] ? <ix>;
		t = f_token[F(c, ix)]
	:: else -> t = 0
	fi;
	if
	:: t == 0 && len(ready[c]) == 0 -> r = R_NONE
	:: (t != 0 || len(ready[c]) > 0) && !en[c] -> r = R_SEND /* it ends here (S7) */
	:: else -> gate(c, has_cpu)
	fi;
	ix = 0
}

inline gate(c, has_cpu)
{
	if
	:: REV == LEGACY ->
		if
		:: !has_cpu -> r = R_NO_CPU
		:: has_cpu && untaken[c] == t -> r = R_SEND; how = HOW_CANCEL_PF
		:: has_cpu && untaken[c] != t && !CPU_ACCEPTS(c) -> r = R_NOT_NOW
		:: else -> r = R_SEND; how = HOW_PF
		fi
	:: REV == STRICT && !has_cpu -> r = R_NO_CPU
	:: REV == STRICT && has_cpu && !CPU_ACCEPTS(c) -> r = R_NOT_NOW
	:: REV == STRICT && has_cpu && CPU_ACCEPTS(c) ->
		if
		:: reason[c] != 0 -> r = R_SLOT_BUSY
		:: else -> r = R_SEND; how = (ctl_on[c] -> HOW_IRQ : HOW_NOTHING)
		fi
	:: REV == PF2 ->
		if
		:: SLOT_TAKEN(c) -> r = R_SLOT_BUSY
		:: !SLOT_TAKEN(c) && (!ctl_on[c] || vec[c] == VEC_NONE) -> r = R_OFF
		:: else -> r = R_SEND; how = HOW_IRQ
		fi
	:: REV == INT ->
		if
		:: SLOT_TAKEN(c) -> r = R_SLOT_BUSY
		:: !SLOT_TAKEN(c) && vec[c] == VEC_NONE -> r = R_OFF
		:: else -> r = R_SEND; how = HOW_IRQ
		fi
	fi
}

/* eng_ready_sent */
inline ready_sent(c)
{
	sent_token[c] = t;
	if
	:: !wake_due[c] || wake_after[c] > 0 ->
		ready[c] ? ix;
		if
		:: wake_due[c] -> wake_after[c]--
		:: else
		fi;
		fault_free(c, ix)
	:: else ->
		wake_due[c] = false;
#ifdef MUT_WAKE_ALL_RELEASES_NOBODY
		skip;
#else
		if
		:: REV != STRICT && how != HOW_NOTHING -> retire_all(c)
		:: else
		fi;
#endif
		wake_in_slot[c] = (how == HOW_IRQ)
	fi;
	ix = 0
}

/* eng_take_back of a page missing. A page ready by #PF is left out, and legacy with it. */
inline take_back_missing(c, tok)
{
	if
	:: f_token[F(c, 0)] == tok -> ix = 0
	:: else -> ix = 1
	fi;
	if
	:: f_token[F(c, ix)] == tok && f_state[F(c, ix)] == F_READY ->
		ready[c] ? <id>;
		if
		:: wake_due[c] && wake_after[c] > (id == ix -> 0 : 1) -> wake_after[c]--
		:: else
		fi;
		ready[c] ?? eval(ix);
		id = 0
	:: else
	fi;
	if
	:: f_token[F(c, ix)] == tok -> fault_free(c, ix)
	:: else /* a wake-all has released it, and its page has come */
	fi;
	ix = 0
}

inline queue_wake_all(c)
{
	wake_due[c] = true;
	wake_after[c] = len(ready[c])
}

/* ---- registers (msr.c); the area is always RAM, so that EN raises no #GP ---- */

inline write_en_off(c)
{
	en[c] = false;
	retire_all(c)
}

inline write_en_on(c)
{
	en[c] = true;
	if
	:: REV == LEGACY || REV == INT || ctl_on[c] -> queue_wake_all(c)
	:: else
	fi
}

inline write_ctl(c, on, vector)
{
	vec[c] = vector;
	if
	:: PF2_WIRE ->
		ctl_on[c] = on;
		if
		:: on && (en[c] || REV == STRICT) -> queue_wake_all(c)
		:: else
		fi
	:: else
	fi
}

inline engine_reset(c)
{
	en[c] = false;
	if
	:: REV == INT -> vec[c] = VEC_NONE
	:: else
	fi;
	retire_all(c)
}

/* ---- eng_save and eng_restore: faults that were retired stay behind ---- */

#ifdef RESTORE
inline engine_restore(c)
{
	if
	:: f_state[F(c, 0)] == F_RETIRED -> fault_free(c, 0)
	:: else
	fi;
	if
	:: f_state[F(c, 1)] == F_RETIRED -> fault_free(c, 1)
	:: else
	fi
}

/* The VMM has the registers alone. */
inline engine_restore_registers(c)
{
	retire_all(c);
	engine_restore(c);
	next_id[c] = 1;
	sent_token[c] = 0;
	if
	:: en[c] && (REV == INT || ctl_on[c]) -> queue_wake_all(c)
	:: else
	fi
}
#endif
