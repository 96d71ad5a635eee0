/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the saved state of a vCPU. Three bytes choose the protocol, the number of
 * faults and what the vCPU was doing before; the rest is what is to be restored, or only its
 * first part, the engine's, or only its second, the stores. Refused, it
 * must leave everything as it was. Accepted, the books are sound, the same bytes come out
 * again, and the vCPU can live on: every page comes, every event that is due goes out. Of an
 * engine of another revision nothing is taken over.
 */
#include "driver.h"

#define AT_REV 8u    /* of save.c's format */
#define AT_FLAGS 16u /* bit 0 means nothing: only saves of older engines have it */
#define AT_AFTER 24u /* means something only if a wake-all is due */
#define ROUNDS_MAX 200u

/* Bits of the third byte. */
#define ENABLED 1u
#define SLEEPER 2u
#define WITH_STORES 4u    /* the input has the second part */
#define WITHOUT_ENGINE 8u /* ... and that alone: the first is the vCPU's own */

struct before {
	struct eng_vcpu eng;
	struct eng_fault faults[FAULTS_MAX];
};

static void keep(const struct hst_vcpu *v, struct before *ret)
{
	memcpy(&ret->eng, &v->eng, sizeof(ret->eng));
	memcpy(ret->faults, v->eng.faults, v->eng.cfg.faults_max * sizeof(ret->faults[0]));
}

static bool same(const struct hst_vcpu *v, const struct before *b)
{
	return memcmp(&b->eng, &v->eng, sizeof(b->eng)) == 0 &&
	       memcmp(b->faults, v->eng.faults,
		      v->eng.cfg.faults_max * sizeof(b->faults[0])) == 0;
}

/* *ret is to be freed. */
static size_t compose(const struct hst_vcpu *v, uint8_t doing, const struct bytes *b,
		      unsigned char **ret)
{
	static const unsigned char none[TRAILER_BYTES] = {0, 0, 0, 0, 'A', 'P', 'F', 'S'};
	unsigned char *p = malloc(FX_SAVE_MAX + b->left + TRAILER_BYTES);
	size_t len = 0;

	must(p != NULL);
	if (doing & WITHOUT_ENGINE)
		len = eng_save(&v->eng, p);
	if (b->left)
		memcpy(p + len, b->at, b->left);
	len += b->left;
	if (!(doing & WITH_STORES)) {
		memcpy(p + len, none, TRAILER_BYTES);
		len += TRAILER_BYTES;
	}
	*ret = p;
	return len;
}

/* Those that are left are the last of them, each as it was. Returns the engine's part's length. */
static size_t check_stores(const struct hst_vcpu *v, const unsigned char *bytes, size_t len)
{
	struct bytes b = {bytes + len - TRAILER_BYTES, TRAILER_BYTES};
	uint32_t count = (uint32_t)take(&b, 4), left = v->store_count;

	must(count <= HST_STORES_MAX && left <= count);
	len -= TRAILER_BYTES + count * STORE_BYTES;
	for (uint32_t i = 0; i < left; i++) {
		const struct hst_store *st = &v->stores[i];

		b.at = bytes + len + (count - left + i) * STORE_BYTES;
		b.left = STORE_BYTES;
		must(ram_gpa(&v->h->ram, st->off).v == take(&b, 8));
		must(st->data == take(&b, 8));
		must(st->len == (uint32_t)take(&b, 4) && st->len >= 1 && st->len <= 8);
		must(block_of(v->h, st->off) ==
		     block_of(v->h, (roff_t){st->off.v + st->len - 1}));
	}
	return len;
}

/* What was accepted is what is there. */
static void check_said(const struct hst_vcpu *v, const struct before *before,
		       const unsigned char *bytes, size_t all)
{
	unsigned char said[FX_SAVE_MAX];
	struct eng_fault faults[FAULTS_MAX];
	struct eng_vcpu other;
	size_t len = check_stores(v, bytes, all);
	struct bytes rev = {bytes + AT_REV, 4};

	if (take(&rev, 4) != v->eng.cfg.rev) {
		must(same(v, before));
		return;
	}
	eng_init(&other, &v->eng.cfg, faults);
	must(eng_restore(&other, bytes, len) && !fx_broken(&other));
	must(eng_save(&other, said) == len);
	must(!(said[AT_FLAGS] & 1));
	said[AT_FLAGS] |= bytes[AT_FLAGS] & 1;
	if (!other.wake_all_due)
		memcpy(said + AT_AFTER, bytes + AT_AFTER, 4);
	must(memcmp(said, bytes, len) == 0);
}

static void live_on(struct rig *x)
{
	struct hst_vcpu *v = rig_v(x, 0);
	unsigned rounds = 0;

	x->src.answers = RIG_LATER;
	rig_exit(x, 0, true);
	(void)rig_next(x, 0);
	while (x->src.count || x->h.free_count != x->h.fetch_count) {
		must(rounds++ < ROUNDS_MAX);
		while (x->src.count)
			rig_answer(x, 0, 0);
		rig_pump(x);
		rig_after(x, NS_PER_S);
		driver_check(x);
	}
	must(eng_first_waiting(&v->eng) == ENG_NIL && v->store_count == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = {data, size};
	uint8_t rev = take8(&b), faults = take8(&b), doing = take8(&b);
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, (enum apf_rev)(rev % (APF_REV_INT + 1)));
	struct before before;
	struct hst_vcpu *v;
	unsigned char *saved;
	size_t len;
	struct rig *x;

	cfg.faults_max = 1 + faults % FAULTS_MAX;
	x = rig_open_pages(&cfg, 16);
	driver_any_area(x);
	v = rig_v(x, 0);
	if ((doing & ENABLED) && cfg.rev != APF_REV_OFF) {
		rig_enable(x, 0);
		if (doing & SLEEPER)
			(void)rig_sleeper(x, 0, 3);
		rig_exit(x, 0, true);
	}
	memset(&before, 0, sizeof(before));
	keep(v, &before);
	len = compose(v, doing, &b, &saved);
	if (!hst_vcpu_restore(v, saved, len)) {
		must(same(v, &before) && v->store_count == 0);
	} else {
		/* Nobody sleeps who was never told. */
		must(eng_enabled(&v->eng) || v->eng.outstanding == 0 ||
		     v->eng.cfg.rev == APF_REV_PF2_STRICT);
		driver_check(x);
		driver_check_save(v);
		check_said(v, &before, saved, len);
		live_on(x);
	}
	hst_stop(&x->h);
	while (x->src.count)
		rig_answer(x, 0, -ECANCELED);
	must(hst_is_idle(&x->h));
	free(saved);
	rig_free(x);
	return 0;
}
