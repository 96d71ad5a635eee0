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

void vcpu_kick_all(struct hst *h)
{
	for (unsigned i = 0; i < h->cfg.vcpus; i++)
		vcpu_kick(&h->vcpus[i]);
}

void vcpu_back_in_host(struct hst_vcpu *v)
{
	v->where = HST_IN_HOST;
	v->kicked = false;
}
