/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apf_vcpu_run: the loop around KVM_RUN. It asks the driver how to go on, does that, and
 * tells it what happened; it decides nothing itself.
 */
#include <errno.h>
#include <string.h>

#include "lib/internal.h"

int apf_vcpu_attach(struct apf *a, unsigned index, int fd, struct kvm_run *run, uint32_t apic_id,
		    struct apf_vcpu **ret, struct apf_error *error)
{
	struct err e = {0};
	int rc;

	if (index >= a->cfg.vcpus_max)
		rc = err_set(&e, -EINVAL, "vCPU %u: vcpus_max is %u", index, a->cfg.vcpus_max);
	else
		rc = kvmp_attach(&a->kvmp, index, fd, run, apic_id, &e);
	if (rc < 0)
		return lib_error(error, &e);
	a->vcpus[index].attached = true;
	*ret = &a->vcpus[index];
	return 0;
}

void apf_vcpu_detach(struct apf_vcpu *v)
{
	struct apf *a = v->a;

	lib_lock(a);
	hst_vcpu_detach(v->hv);
	lib_unlock(a);
	kvmp_detach(&a->kvmp, v->index);
	v->attached = false;
}

int apf_vcpu_signal_mask(struct apf_vcpu *v, const void *set, size_t bytes)
{
	sigset_t mask;

	if (set && bytes != 8)
		return -EINVAL;
	sigemptyset(&mask);
	if (set)
		memcpy(&mask, set, bytes);
	return kvmp_signal_mask(&v->a->kvmp, v->index, set ? &mask : NULL);
}

const uint32_t *apf_vcpu_msr_list(const struct apf *a, unsigned *ret_count)
{
	/* The vector before what lets events out; kvmclock and the like before the guest runs. */
	static const uint32_t list[] = {
		PV_MSR_WALL_CLOCK, PV_MSR_SYSTEM_TIME, PV_MSR_STEAL_TIME, PV_MSR_EOI,
		APF_MSR_CTL, APF_MSR_EN,
	};

	(void)a;
	*ret_count = ARRAY_LEN(list);
	return list;
}

/* Makes the step that the driver asks for, and says what was done. */
static enum hst_did perform(struct apf_vcpu *v, const struct hst_step *step, struct plat_exit *x,
			    bool *ret_wanted)
{
	struct apf *a = v->a;
	const struct plat *p = &a->hst.plat;

	*ret_wanted = false;
	if (step->next == HST_DO_PUMP) {
		lib_pump(a);
		return HST_DID_PUMP;
	}
	if (step->leave)
		lib_let_go(a);
	else
		lib_unlock(a);
	if (step->next == HST_DO_WAIT) {
		*ret_wanted = p->ops->wait(p->ctx, v->index);
		lib_lock(a);
		return HST_DID_WAIT;
	}
	for (unsigned i = 0; i < step->ahead_count; i++)
		p->ops->prefault(p->ctx, v->index, step->ahead[i]);
	*x = (struct plat_exit){.kind = PLAT_EXIT_ERROR};
	p->ops->run(p->ctx, v->index, &step->entry, x);
	lib_lock(a);
	return HST_DID_RUN;
}

/* v->running is taken. */
static int run(struct apf_vcpu *v)
{
	struct apf *a = v->a;
	const struct plat *p = &a->hst.plat;
	enum hst_did did = HST_DID_CALL;
	int begun = p->ops->begin(p->ctx, v->index);
	bool wanted = begun > 0;
	struct plat_exit x;
	struct hst_step step;

	if (begun < 0)
		return begun;
	if (!a->started) {
		p->ops->rest(p->ctx, v->index, false);
		return -EINVAL;
	}
	lib_lock(a);
	for (;;) {
		hst_vcpu_step(v->hv, did, &x, wanted, &step);
		if (step.next == HST_DO_RETURN)
			break;
		did = perform(v, &step, &x, &wanted);
	}
	lib_unlock(a);
	p->ops->rest(p->ctx, v->index, step.result == -EINTR);
	return step.result;
}

int apf_vcpu_run(struct apf_vcpu *v)
{
	int rc;

	pthread_mutex_lock(&v->running);
	rc = v->attached ? run(v) : -EBADF;
	pthread_mutex_unlock(&v->running);
	return rc;
}

int apf_kvm_run(struct apf_vcpu *v)
{
	int rc = apf_vcpu_run(v);

	if (rc == 0)
		return 0;
	errno = -rc;
	return -1;
}

void apf_vcpu_kick(struct apf_vcpu *v)
{
	lib_lock(v->a);
	hst_vcpu_call_back(v->hv);
	/* Its thread may be in an access to memory. */
	pthread_cond_broadcast(&v->a->outside);
	lib_release(v->a);
}

/*
 * KVM would finish the half done instruction of the old life in the new one. The VMM sets the new
 * state after this call.
 */
static void finish_instruction(struct apf_vcpu *v)
{
	const struct plat *p = &v->a->hst.plat;
	const struct plat_entry entry = {.how = PLAT_COMPLETE};
	struct plat_exit x = {.kind = PLAT_EXIT_ERROR};

	if (p->ops->begin(p->ctx, v->index) < 0)
		return;
	/* Bounded: an instruction has so many parts. */
	for (unsigned i = 0; i < HST_STORES_MAX && !hst_vcpu_is_whole(v->hv); i++) {
		p->ops->run(p->ctx, v->index, &entry, &x);
		hst_vcpu_finished(v->hv, &x);
	}
	p->ops->rest(p->ctx, v->index, true);
}

void apf_vcpu_reset(struct apf_vcpu *v)
{
	/* Else it goes on, and a call that has only just begun finishes what is half done. */
	bool at_rest = pthread_mutex_trylock(&v->running) == 0, half;

	lib_lock(v->a);
	hst_vcpu_reset(v->hv);
	half = !hst_vcpu_is_whole(v->hv);
	lib_unlock(v->a);
	if (!at_rest)
		return;
	if (half && v->attached)
		finish_instruction(v);
	pthread_mutex_unlock(&v->running);
}

int apf_vcpu_get_msr(struct apf_vcpu *v, uint32_t msr, uint64_t *ret_value)
{
	uint64_t value;
	bool ok;

	lib_lock(v->a);
	ok = hst_vcpu_get_msr(v->hv, msr, &value);
	lib_unlock(v->a);
	if (!ok)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

int apf_vcpu_set_msr(struct apf_vcpu *v, uint32_t msr, uint64_t value)
{
	bool ok;

	lib_lock(v->a);
	ok = hst_vcpu_set_msr(v->hv, msr, value);
	lib_unlock(v->a);
	return ok ? 0 : -EINVAL;
}

size_t apf_vcpu_save(struct apf_vcpu *v, void *buf, size_t len)
{
	size_t need;

	lib_lock(v->a);
	need = hst_vcpu_save_bytes(v->hv);
	if (need <= len)
		need = hst_vcpu_save(v->hv, buf);
	lib_unlock(v->a);
	return need;
}

int apf_vcpu_restore(struct apf_vcpu *v, const void *buf, size_t len)
{
	bool ok;

	lib_lock(v->a);
	ok = hst_vcpu_restore(v->hv, buf, len);
	lib_unlock(v->a);
	return ok ? 0 : -EINVAL;
}
