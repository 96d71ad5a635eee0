/* SPDX-License-Identifier: Apache-2.0 */
/* See kick.h. */
#include "host/kick.h"

void vcpu_kick(struct hst_vcpu *v)
{
	if (v->where == HST_IN_HOST || v->kicked)
		return;
	v->kicked = true;
	v->h->plat.ops->kick(v->h->plat.ctx, v->index);
}

void vcpu_unhalt(struct hst_vcpu *v)
{
	if (v->eng.cfg.rev != APF_REV_PF2_STRICT)
		return;
	v->unhalt = true;
	vcpu_kick(v);
}

void vcpu_kick_all(struct hst *h)
{
	for (unsigned i = 0; i < h->cfg.vcpus; i++)
		vcpu_kick(&h->vcpus[i]);
}

static void now_at(struct hst_vcpu *v, enum hst_where where)
{
	v->h->in_guest -= v->where == HST_IN_GUEST;
	v->h->in_guest += where == HST_IN_GUEST;
	v->where = where;
}

void vcpu_back_in_host(struct hst_vcpu *v)
{
	now_at(v, HST_IN_HOST);
	v->kicked = false;
}

void vcpu_in_guest(struct hst_vcpu *v)
{
	now_at(v, HST_IN_GUEST);
}

void vcpu_in_wait(struct hst_vcpu *v)
{
	now_at(v, HST_IN_WAIT);
}
