/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the saved state of a vCPU. Three bytes choose the protocol, the number of
 * faults and what the vCPU was doing before; the rest is what is to be restored. Refused, it
 * must leave everything as it was. Accepted, the books are sound, the same bytes come out
 * again, and the vCPU can live on: every page comes, every event that is due goes out.
 */
#include "driver.h"

#define AT_AFTER 24u /* of save.c's format: means something only if a wake-all is due */
#define ROUNDS_MAX 200u

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

/* What was accepted is what is there. */
static void check_said(const struct hst_vcpu *v, const unsigned char *bytes, size_t len)
{
	unsigned char said[FX_SAVE_MAX];
	struct eng_fault faults[FAULTS_MAX];
	struct eng_vcpu other;

	eng_init(&other, &v->eng.cfg, faults);
	must(eng_restore(&other, bytes, len) && !fx_broken(&other));
	must(eng_save(&other, said) == len);
	if (!other.wake_all_due)
		memcpy(said + AT_AFTER, bytes + AT_AFTER, 4);
	must(memcmp(said, bytes, len) == 0);
}

static void live_on(struct hx *x)
{
	struct hst_vcpu *v = hx_v(x, 0);
	unsigned rounds = 0;

	x->src.answers = HX_LATER;
	hx_exit(x, 0, true);
	(void)hx_next(x, 0);
	while (x->src.count || x->h.free_count != x->h.fetch_count) {
		must(rounds++ < ROUNDS_MAX);
		while (x->src.count)
			hx_answer(x, 0, 0);
		hx_pump(x);
		hx_after(x, NS_PER_S);
		driver_check(x);
	}
	must(eng_first_waiting(&v->eng) == ENG_NIL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = {data, size};
	uint8_t rev = take8(&b), faults = take8(&b), doing = take8(&b);
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_USER, (enum apf_rev)(rev % (APF_REV_INT + 1)));
	struct before before;
	struct hst_vcpu *v;
	struct hx *x;

	cfg.faults_max = 1 + faults % FAULTS_MAX;
	x = hx_open_pages(&cfg, 16);
	driver_any_area(x);
	v = hx_v(x, 0);
	if ((doing & 1) && cfg.rev != APF_REV_OFF) {
		hx_enable(x, 0);
		if (doing & 2)
			(void)hx_sleeper(x, 0, 3);
		hx_exit(x, 0, true);
	}
	memset(&before, 0, sizeof(before));
	keep(v, &before);
	if (!hst_vcpu_restore(v, b.at, b.left)) {
		must(same(v, &before));
	} else {
		/* Nobody sleeps who was never told. */
		must(eng_enabled(&v->eng) || v->eng.outstanding == 0);
		driver_check(x);
		driver_check_save(v);
		check_said(v, b.at, b.left);
		live_on(x);
	}
	hst_stop(&x->h);
	while (x->src.count)
		hx_answer(x, 0, -ECANCELED);
	must(hst_is_idle(&x->h));
	hx_free(x);
	return 0;
}
