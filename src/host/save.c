/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Save and restore of one vCPU: the engine's state (engine/save.c), then what the host still has
 * to do for the guest's last instruction, little-endian:
 *
 *   per store, in the order of the program: u64 gpa, u64 data, u32 length
 *   u32 number of stores, u32 magic
 *
 * The bytes are checked as hostile input before anything is taken over.
 * Tests: tests/unit/host_save_test.c, tests/fuzz/save_fuzz.c.
 */
#include "host/block.h"
#include "host/fetch.h"
#include "host/keep.h"
#include "host/vcpu.h"

#define SAVE_MAGIC 0x53465041u /* "APFS" */
#define STORE_BYTES 20u
#define TRAILER_BYTES 8u

static void put(unsigned char *p, uint64_t x, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (unsigned char)(x >> (8 * i));
}

static uint64_t get(const unsigned char *p, unsigned bytes)
{
	uint64_t x = 0;

	for (unsigned i = 0; i < bytes; i++)
		x |= (uint64_t)p[i] << (8 * i);
	return x;
}

size_t hst_vcpu_save_bytes(const struct hst_vcpu *v)
{
	return eng_save_bytes(&v->eng) + v->store_count * STORE_BYTES + TRAILER_BYTES;
}

size_t hst_vcpu_save(const struct hst_vcpu *v, unsigned char *buf)
{
	unsigned char *p = buf + eng_save(&v->eng, buf);

	for (uint32_t i = 0; i < v->store_count; i++, p += STORE_BYTES) {
		const struct hst_store *st = &v->stores[i];

		put(p, ram_gpa(&v->h->ram, st->off).v, 8);
		put(p + 8, st->data, 8);
		put(p + 16, st->len, 4);
	}
	put(p, v->store_count, 4);
	put(p + 4, SAVE_MAGIC, 4);
	return (size_t)(p + TRAILER_BYTES - buf);
}

/* Within one block, as KVM hands them out. */
static bool store_read(const struct hst_vcpu *v, const unsigned char *p, struct hst_store *ret)
{
	*ret = (struct hst_store){.data = get(p + 8, 8), .len = (uint32_t)get(p + 16, 4)};
	return ret->len >= 1 && ret->len <= sizeof(ret->data) &&
	       ram_find(&v->h->ram, (gpa_t){get(p, 8)}, ret->len, &ret->off) &&
	       block_of(v->h, ret->off) ==
		       block_of(v->h, (roff_t){ret->off.v + ret->len - 1});
}

static bool stores_read(const struct hst_vcpu *v, const unsigned char *buf, size_t len,
			struct hst_store *ret, uint32_t *ret_count)
{
	uint64_t count;

	if (len < TRAILER_BYTES || get(buf + len - 4, 4) != SAVE_MAGIC)
		return false;
	count = get(buf + len - TRAILER_BYTES, 4);
	if (count > HST_STORES_MAX || len - TRAILER_BYTES < count * STORE_BYTES)
		return false;
	for (uint32_t i = 0; i < count; i++)
		if (!store_read(v, buf + len - TRAILER_BYTES - (count - i) * STORE_BYTES, &ret[i]))
			return false;
	*ret_count = (uint32_t)count;
	return true;
}

/* What the guest waits for is fetched again; what is there by now was not waited for in vain. */
static void fetch_what_is_awaited(struct hst_vcpu *v)
{
	struct hst *h = v->h;
	uint32_t next;

	for (uint32_t ix = eng_first_waiting(&v->eng); ix != ENG_NIL; ix = next) {
		gpa_t gpa = {v->eng.faults[ix].gfn << PAGE_SHIFT};
		struct hst_fetch *f;
		bool joined;
		roff_t off;

		next = eng_next_waiting(&v->eng, ix);
		/* A gfn that is no RAM here: the guest retries and finds out. */
		if (!ram_find(&h->ram, gpa, 1, &off) ||
		    block_kind(h, block_of(h, off)) == BLOCK_PRESENT) {
			eng_page_ready(&v->eng, ix);
			continue;
		}
		f = fetch_for(h, block_of(h, off), v->index, &joined);
		waiter_link(&v->tokens[ix], f, hst_now(h));
	}
}

/* pf2-strict keeps an area that it has refused, and never writes there. */
static bool area_valid(const struct hst_vcpu *v, const unsigned char *buf, size_t len)
{
	gpa_t gpa;
	roff_t off;

	return v->eng.cfg.rev == APF_REV_PF2_STRICT || !eng_saved_area(&v->eng, buf, len, &gpa) ||
	       ram_find(&v->h->ram, gpa, 8, &off);
}

/*
 * The engine's part is of another revision than ours, and none of it is taken over: the guest had
 * no protocol, or the kernel has it from now on, and wakes all when its registers are set.
 */
static bool other_revision(struct hst_vcpu *v, const unsigned char *buf, size_t len)
{
	const struct eng_vcpu ours = v->eng;
	struct eng_cfg cfg = ours.cfg;
	struct eng_vcpu theirs;
	bool ok;

	if (ours.outstanding != 0 || ours.next_id != 1)
		return false;
	cfg.rev = v->h->cfg.faults == HST_FAULTS_KERNEL ? APF_REV_INT : APF_REV_OFF;
	cfg.features = eng_features(cfg.rev);
	/* Faults are checked in our pool, which nobody has used, and is as new afterwards. */
	eng_init(&theirs, &cfg, ours.faults);
	ok = eng_restore(&theirs, buf, len);
	eng_init(&v->eng, &ours.cfg, ours.faults);
	v->eng = ours;
	return ok;
}

bool hst_vcpu_restore(struct hst_vcpu *v, const unsigned char *buf, size_t len)
{
	struct hst_store stores[HST_STORES_MAX];
	uint32_t count;
	size_t engine;

	if (v->phase != HST_PHASE_RUN || v->store_count > 0 || !area_valid(v, buf, len) ||
	    !stores_read(v, buf, len, stores, &count))
		return false;
	engine = len - TRAILER_BYTES - count * STORE_BYTES;
	if (!eng_restore(&v->eng, buf, engine) && !other_revision(v, buf, engine))
		return false;
	vcpu_keep_area(v);
	for (uint32_t i = 0; i < count; i++)
		v->stores[i] = stores[i];
	v->store_count = count;
	fetch_what_is_awaited(v);
	vcpu_stores_begin(v);
	return true;
}
