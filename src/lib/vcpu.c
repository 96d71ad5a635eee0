/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apf_vcpu_run: the loop around KVM_RUN. It asks the driver how to go on, does that, and
 * tells it what happened; it decides nothing itself.
 */
#include <errno.h>
#include <string.h>

#include "lib/apf.h"

int apf_vcpu_attach(struct apf *a, unsigned index, int fd, struct kvm_run *run, uint32_t apic_id,
		    struct apf_vcpu **ret, struct apf_error *error)
{
	struct err e = {0};
	int rc;

	if (!a->started)
		rc = err_set(&e, -EINVAL, "vCPU %u: apf_start comes first", index);
	else if (index >= a->cfg.vcpus_max)
		rc = err_set(&e, -EINVAL, "vCPU %u: vcpus_max is %u", index, a->cfg.vcpus_max);
	else
		rc = kvmp_attach(&a->kvmp, index, fd, run, apic_id, &e);
	if (rc < 0)
		return lib_error(error, &e);
	a->vcpus[index].attached = true;
	*ret = &a->vcpus[index];
	return 0;
}

/* One access of at most 8 bytes, in one piece where it is aligned: the guest relies on it. */
static void carry_out(struct apf_vcpu *v)
{
	unsigned char *p = v->a->hst.mem.alias + v->io.roff.v;
	bool aligned = (uintptr_t)p % v->io.len == 0;
	uint64_t x = 0;

	if (v->io.write) {
		hst_wrote(&v->a->hst, v->io.roff);
		memcpy(&x, v->io.data, v->io.len);
	}
	if (aligned && v->io.len == 8) {
		if (v->io.write)
			__atomic_store_n((uint64_t *)(void *)p, x, __ATOMIC_RELEASE);
		else
			x = __atomic_load_n((uint64_t *)(void *)p, __ATOMIC_ACQUIRE);
	} else if (aligned && v->io.len == 4) {
		if (v->io.write)
			__atomic_store_n((uint32_t *)(void *)p, (uint32_t)x, __ATOMIC_RELEASE);
		else
			x = __atomic_load_n((uint32_t *)(void *)p, __ATOMIC_ACQUIRE);
	} else if (v->io.write) {
		memcpy(p, &x, v->io.len);
	} else {
		memcpy(&x, p, v->io.len);
	}
	if (!v->io.write)
		memcpy(v->io.data, &x, v->io.len);
	v->io.len = 0;
}

/* Tells the driver what happened. True: the exit is for the VMM, with *ret. Locked. */
static bool take_exit(struct apf_vcpu *v, const struct plat_exit *x, int *ret)
{
	*ret = 0;
	v->incomplete = x->kind == PLAT_EXIT_WRMSR || x->kind == PLAT_EXIT_RDMSR;
	hst_exit(v->hv, &x->cpu, x->kind == PLAT_EXIT_KICK || x->kind == PLAT_EXIT_ERROR);
	if (x->was_reset)
		hst_vcpu_reset(v->hv);
	switch (x->kind) {
	case PLAT_EXIT_FAULT:
		hst_fault(v->hv, x->roff);
		lib_settle(v->a); /* the page cache may have answered at once */
		return false;
	case PLAT_EXIT_RAM_IO:
		v->io.roff = x->roff;
		v->io.data = x->io.data;
		v->io.len = x->io.len;
		v->io.write = x->io.write;
		hst_ram_io(v->hv, x->roff);
		lib_settle(v->a);
		return false;
	case PLAT_EXIT_WRMSR:
		hst_wrmsr(v->hv, x->msr.index, x->msr.value);
		lib_settle(v->a);
		return false;
	case PLAT_EXIT_RDMSR:
		hst_rdmsr(v->hv, x->msr.index);
		return false;
	case PLAT_EXIT_KICK:
		return false;
	case PLAT_EXIT_VMM:
		return true;
	case PLAT_EXIT_ERROR:
		*ret = x->code;
		return true;
	}
	return true;
}

static int first_run(struct apf_vcpu *v)
{
	int rc = kvmp_start(&v->a->kvmp, v->index, NULL);

	v->started = rc == 0;
	return rc;
}

/*
 * A register access that took effect must be over for KVM too before the VMM may look at
 * the vCPU: the guest would otherwise do it again after a restore. One that still waits
 * for its area took no effect, and may well be done again. Locked.
 */
static void complete(struct apf_vcpu *v)
{
	struct apf *a = v->a;
	const struct plat *p = &a->hst.plat;
	struct plat_exit x = {.kind = PLAT_EXIT_ERROR};

	if (!v->incomplete || v->hv->phase != HST_PHASE_RUN)
		return;
	lib_unlock(a);
	p->ops->run(p->ctx, v->index, PLAT_COMPLETE, &x);
	lib_lock(a);
	hst_exit(v->hv, &x.cpu, true);
	v->incomplete = false;
}

int apf_vcpu_run(struct apf_vcpu *v)
{
	static const enum plat_enter enter[] = {
		[HST_ENTER] = PLAT_ENTER,
		[HST_ENTER_HALTED] = PLAT_ENTER_HALTED,
		[HST_ENTER_RUNNABLE] = PLAT_ENTER_RUNNABLE,
	};
	struct apf *a = v->a;
	const struct plat *p = &a->hst.plat;
	int ret = v->started ? 0 : first_run(v);

	if (ret < 0)
		return ret;
	lib_lock(a);
	for (;;) {
		struct plat_exit x = {.kind = PLAT_EXIT_ERROR};
		roff_t came[HST_CAME_MAX];
		unsigned came_count;
		enum hst_next next;

		if (__atomic_exchange_n(&v->kick_wanted, false, __ATOMIC_ACQ_REL)) {
			complete(v);
			ret = -EINTR;
			break;
		}
		next = hst_next(v->hv);
		if (next == HST_WAIT) {
			lib_unlock(a);
			p->ops->wait(p->ctx, v->index);
			lib_lock(a);
			continue;
		}
		if (v->io.len)
			carry_out(v);
		came_count = hst_take_came(v->hv, came);
		lib_unlock(a);
		for (unsigned i = 0; i < came_count; i++)
			p->ops->prefault(p->ctx, v->index, ram_gpa(&a->hst.ram, came[i]));
		p->ops->run(p->ctx, v->index, enter[next], &x);
		lib_lock(a);
		if (take_exit(v, &x, &ret))
			break;
	}
	lib_unlock(a);
	return ret;
}

void apf_vcpu_kick(struct apf_vcpu *v)
{
	const struct plat *p = &v->a->hst.plat;

	__atomic_store_n(&v->kick_wanted, true, __ATOMIC_RELEASE);
	p->ops->kick(p->ctx, v->index);
}

void apf_vcpu_reset(struct apf_vcpu *v)
{
	lib_lock(v->a);
	hst_vcpu_reset(v->hv);
	v->io.len = 0;
	v->incomplete = false;
	lib_unlock(v->a);
}

int apf_vcpu_get_msr(struct apf_vcpu *v, uint32_t msr, uint64_t *ret_value)
{
	uint64_t value;
	bool ok;

	lib_lock(v->a);
	ok = eng_rdmsr(&v->hv->eng, msr, &value);
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
