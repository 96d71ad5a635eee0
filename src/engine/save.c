/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Save and restore of one vCPU's protocol state. Little-endian:
 *
 *   u32 magic, version, rev, vcpu_id, flags, next_id, wake_all_after, fault count
 *   u64 en, ctl
 *   u32 token sent last, 0
 *   per fault, in issue order: u64 gfn, u32 token, u32 place in the ready queue, or ~0; or ~1 for
 *   one that halted its vCPU (pf2-strict)
 *
 * Retired faults are not saved: nobody waits for them. Everything is checked before
 * anything is taken over. Test: tests/unit/engine_save_test.c.
 */
#include "base/assert.h"
#include "engine/internal.h"

#define SAVE_MAGIC 0x45465041u /* "APFE" */
#define HEADER_BYTES 56u
#define FAULT_BYTES 16u
#define NOT_READY UINT32_MAX
#define NOT_TOLD (UINT32_MAX - 1)

/* Bit 0: set by those who waited for int's acknowledgement. It means nothing now. */
#define FLAG_WAKE_ALL_DUE 2u
#define FLAG_WAKE_ALL_IN_SLOT 4u
#define FLAGS_ALL 7u
/* Of a guest-physical address's 64 bits, less those within a page. */
#define GFN_BITS 52

static void put32(unsigned char *p, uint32_t x)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (unsigned char)(x >> (8 * i));
}

static void put64(unsigned char *p, uint64_t x)
{
	put32(p, (uint32_t)x);
	put32(p + 4, (uint32_t)(x >> 32));
}

static uint32_t get32(const unsigned char *p)
{
	uint32_t x = 0;

	for (unsigned i = 0; i < 4; i++)
		x |= (uint32_t)p[i] << (8 * i);
	return x;
}

static uint64_t get64(const unsigned char *p)
{
	return (uint64_t)get32(p + 4) << 32 | get32(p);
}

size_t eng_save_bytes(const struct eng_vcpu *v)
{
	return HEADER_BYTES + (size_t)v->outstanding * FAULT_BYTES;
}

size_t eng_save(const struct eng_vcpu *v, unsigned char *buf)
{
	unsigned char *p = buf + HEADER_BYTES;
	uint32_t count = 0, ready = 0;

	for (uint32_t ix = v->issue_head; ix != ENG_NIL; ix = v->faults[ix].next) {
		const struct eng_fault *f = &v->faults[ix];

		if (f->state == ENG_FAULT_RETIRED)
			continue;
		put64(p, f->gfn);
		put32(p + 8, f->token);
		put32(p + 12, f->state == ENG_FAULT_HALTED ? NOT_TOLD : NOT_READY);
		v->faults[ix].place = count++;
		p += FAULT_BYTES;
	}
	for (uint32_t ix = v->ready_head; ix != ENG_NIL; ix = v->faults[ix].ready_next)
		put32(buf + HEADER_BYTES + v->faults[ix].place * FAULT_BYTES + 12, ready++);
	put32(buf, SAVE_MAGIC);
	put32(buf + 4, ENG_SAVE_VERSION);
	put32(buf + 8, (uint32_t)v->cfg.rev);
	put32(buf + 12, v->cfg.vcpu_id);
	put32(buf + 16, (v->wake_all_due ? FLAG_WAKE_ALL_DUE : 0) |
				(v->wake_all_in_slot ? FLAG_WAKE_ALL_IN_SLOT : 0));
	put32(buf + 20, v->next_id);
	put32(buf + 24, v->wake_all_after);
	put32(buf + 28, count);
	put64(buf + 32, v->en);
	put64(buf + 40, v->ctl);
	put32(buf + 48, v->sent_token);
	put32(buf + 52, 0);
	return (size_t)(p - buf);
}

/* A fault whose page is not there: told of, or not. */
static bool place_is_none(uint32_t place)
{
	return place == NOT_READY || place == NOT_TOLD;
}

/* Each once. The pool is empty, and has room for notes. */
static bool places_valid(const struct eng_vcpu *v, const unsigned char *p, uint32_t count,
			 uint32_t ready)
{
	for (uint32_t place = 0; place < ready; place++)
		v->faults[place].place = ENG_NIL;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t place = get32(p + i * FAULT_BYTES + 12);

		if (place_is_none(place))
			continue;
		if (place >= ready || v->faults[place].place != ENG_NIL)
			return false;
		v->faults[place].place = i;
	}
	return true;
}

/*
 * Tokens must be this vCPU's, distinct and in issue order: seen from next_id, ids
 * ascend cyclically. Places in the ready queue must be 0 .. ready-1, each once.
 */
static bool faults_valid(const struct eng_vcpu *v, const unsigned char *p, uint32_t count,
			 uint32_t next_id, uint32_t *ret_ready)
{
	uint64_t last = 0;
	uint32_t ready = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t token = get32(p + i * FAULT_BYTES + 8);
		uint32_t id = token >> APF_TOKEN_VCPU_BITS;
		/* 1 .. 2^20: how far ahead of next_id; the last issued is the farthest. */
		uint64_t age = ((id - next_id) & 0xfffff) + 1;
		uint32_t place = get32(p + i * FAULT_BYTES + 12);

		if (place == NOT_TOLD && v->cfg.rev != APF_REV_PF2_STRICT)
			return false;
		if (get64(p + i * FAULT_BYTES) >> GFN_BITS)
			return false;
		if (id == 0 || token == APF_TOKEN_WAKE_ALL ||
		    (token & APF_TOKEN_VCPU_MASK) != v->cfg.vcpu_id || age <= last)
			return false;
		last = age;
		if (!place_is_none(place))
			ready++;
	}
	*ret_ready = ready;
	return places_valid(v, p, count, ready);
}

/* An engine that never restored could only hold register values that it accepted. */
static bool registers_valid(const struct eng_vcpu *v, uint64_t en, uint64_t ctl)
{
	struct eng_vcpu probe = *v;
	struct eng_fault none[1];
	struct eng_wrmsr_in in = {.msr = APF_MSR_EN, .value = en, .area_ok = true};

	probe.cfg.faults_max = 1;
	eng_init(&probe, &probe.cfg, none);
	if (v->cfg.rev == APF_REV_OFF)
		return en == 0 && ctl == 0;
	/* 0 needs no acceptance: it is what an engine starts with, whatever is offered. */
	if (en != 0 && eng_wrmsr(&probe, &in) == ENG_WRMSR_GP)
		return false;
	if (v->cfg.rev == APF_REV_LEGACY || ctl == 0)
		return ctl == 0;
	in = (struct eng_wrmsr_in){.msr = APF_MSR_CTL, .value = ctl};
	return eng_wrmsr(&probe, &in) != ENG_WRMSR_GP;
}

/*
 * With events off nothing is outstanding and nothing is due. Not so in pf2-strict: the wake-all
 * of hazard S7, and faults that halted the vCPU; but nobody who was told waits.
 */
static bool idle_if_off(const struct eng_vcpu *v, uint64_t en, uint32_t flags,
			const unsigned char *p, uint32_t count)
{
	struct eng_vcpu probe = {.cfg = v->cfg, .en = en};

	if (eng_enabled(&probe))
		return true;
	if (v->cfg.rev != APF_REV_PF2_STRICT)
		return flags == 0 && count == 0;
	for (uint32_t i = 0; i < count; i++)
		if (get32(p + i * FAULT_BYTES + 12) == NOT_READY)
			return false;
	return (flags & ~FLAG_WAKE_ALL_DUE) == 0;
}

/* What was sent last: nothing, a wake-all, or a token of this vCPU. */
static bool sent_valid(const struct eng_vcpu *v, uint32_t token)
{
	return token == 0 || token == APF_TOKEN_WAKE_ALL ||
	       (token >> APF_TOKEN_VCPU_BITS != 0 &&
		(token & APF_TOKEN_VCPU_MASK) == v->cfg.vcpu_id);
}

/* legacy has no slot for a wake-all to stay in. */
static bool wake_all_valid(const struct eng_vcpu *v, uint32_t flags, uint32_t after,
			   uint32_t ready)
{
	if ((flags & FLAG_WAKE_ALL_IN_SLOT) && v->cfg.rev == APF_REV_LEGACY)
		return false;
	return after <= ((flags & FLAG_WAKE_ALL_DUE) ? ready : 0);
}

static bool header_valid(const struct eng_vcpu *v, const unsigned char *buf, size_t len)
{
	return len >= HEADER_BYTES && get32(buf) == SAVE_MAGIC &&
	       get32(buf + 4) == ENG_SAVE_VERSION && get32(buf + 8) == (uint32_t)v->cfg.rev &&
	       get32(buf + 12) == v->cfg.vcpu_id && get32(buf + 52) == 0;
}

bool eng_saved_area(const struct eng_vcpu *v, const unsigned char *buf, size_t len,
		    gpa_t *ret_gpa)
{
	struct eng_vcpu probe = {.cfg = v->cfg};

	if (!header_valid(v, buf, len))
		return false;
	probe.en = get64(buf + 32);
	*ret_gpa = eng_area_gpa(probe.en);
	return eng_enabled(&probe);
}

bool eng_restore(struct eng_vcpu *v, const unsigned char *buf, size_t len)
{
	uint32_t ready = 0;

	if (v->outstanding != 0 || !header_valid(v, buf, len))
		return false;
	uint32_t flags = get32(buf + 16), next_id = get32(buf + 20);
	uint32_t after = get32(buf + 24), count = get32(buf + 28);
	uint64_t en = get64(buf + 32), ctl = get64(buf + 40);
	const unsigned char *p = buf + HEADER_BYTES;

	if ((flags & ~FLAGS_ALL) || next_id > 0xfffff || count > v->cfg.faults_max ||
	    len != HEADER_BYTES + (size_t)count * FAULT_BYTES || !registers_valid(v, en, ctl) ||
	    !idle_if_off(v, en, flags, p, count) || !faults_valid(v, p, count, next_id, &ready) ||
	    !wake_all_valid(v, flags, after, ready) || !sent_valid(v, get32(buf + 48)))
		return false;

	eng_init(v, &v->cfg, v->faults);
	v->en = en;
	v->ctl = ctl;
	v->next_id = next_id;
	/* A fresh pool hands out 0, 1, 2, …: entry i of the save is fault i. */
	for (uint32_t i = 0; i < count; i++, p += FAULT_BYTES) {
		eng_fault_alloc(v, (gfn_t){get64(p)}, get32(p + 8));
		if (get32(p + 12) == NOT_TOLD)
			v->faults[i].state = ENG_FAULT_HALTED;
	}
	p = buf + HEADER_BYTES;
	(void)places_valid(v, p, count, ready);
	for (uint32_t place = 0; place < ready; place++)
		eng_ready_push(v, v->faults[place].place);
	v->sent_token = get32(buf + 48);
	v->wake_all_due = flags & FLAG_WAKE_ALL_DUE;
	v->wake_all_in_slot = flags & FLAG_WAKE_ALL_IN_SLOT;
	v->wake_all_after = after;
	return true;
}
