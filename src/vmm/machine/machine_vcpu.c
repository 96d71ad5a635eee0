/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU's thread: the loop around apf_vcpu_run, what its exits mean, and its last words. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/time.h"
#include "vmm/machine/machine_parts.h"

#define RESET_CS_BASE 0xffff0000ull
#define RESET_RIP 0xfff0ull

static bool stopping(struct machine *m)
{
	bool stop;

	pthread_mutex_lock(&m->lock);
	stop = m->stop || m->ended;
	pthread_mutex_unlock(&m->lock);
	return stop;
}

/* Where it is, for last words; the registers come with every exit. */
static void remember(struct machine_vcpu *v)
{
	v->seen = (struct machine_seen){
		.rip = v->run->s.regs.regs.rip,
		.cr2 = v->run->s.regs.sregs.cr2,
		.cr3 = v->run->s.regs.sregs.cr3,
		.cpl = v->run->s.regs.sregs.ss.dpl,
	};
}

/*
 * On AMD the state is undefined after a shutdown, and KVM resets the vCPU before it tells us:
 * then only the exit before that is known.
 */
static void last_words(struct machine_vcpu *v, int code, const char *what)
{
	const struct machine_seen *seen = &v->seen;
	struct kvm_regs r = {0};
	struct kvm_sregs s = {0};
	struct err e;

	(void)KVMP_IOCTL(v->fd, KVM_GET_REGS, &r);
	(void)KVMP_IOCTL(v->fd, KVM_GET_SREGS, &s);
	if (s.cs.base == RESET_CS_BASE && r.rip == RESET_RIP)
		err_set(&e, code, "vCPU %u: %s; the processor has lost where; before, it was at "
			"rip=%#llx cr2=%#llx cr3=%#llx cpl=%u", v->index, what,
			(unsigned long long)seen->rip, (unsigned long long)seen->cr2,
			(unsigned long long)seen->cr3, seen->cpl);
	else
		err_set(&e, code, "vCPU %u: %s: rip=%#llx cr2=%#llx cr3=%#llx cr0=%#llx cpl=%u "
			"rsp=%#llx", v->index, what, (unsigned long long)r.rip,
			(unsigned long long)s.cr2, (unsigned long long)s.cr3,
			(unsigned long long)s.cr0, s.ss.dpl, (unsigned long long)r.rsp);
	machine_fail(v->m, &e);
}

static void ports(struct machine_vcpu *v)
{
	struct kvm_run *r = v->run;
	unsigned char *data = (unsigned char *)r + r->io.data_offset;

	/* String instructions come as several accesses of one port. */
	for (uint32_t i = 0; i < r->io.count; i++)
		bus_access(&v->m->bus, BUS_PORTS, r->io.port, data + i * r->io.size, r->io.size,
			   r->io.direction == KVM_EXIT_IO_OUT);
}

/* A KVM that emulates kernel mode cannot wait for its instructions: what may have ended it. */
static const char *why_absent(const struct machine_cfg *cfg)
{
	if (cfg->apf.swap)
		return ", or that was swapped out: use --lab";
	if (cfg->restore_uri && cfg->apf.faults != APF_FAULTS_KERNEL)
		return ", or that has not come yet: use --faults kernel";
	return "";
}

static void internal_error(struct machine_vcpu *v)
{
	bool emulation = v->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION;
	char what[160];

	snprintf(what, sizeof(what), "KVM gave up (internal error, suberror %u%s%s)",
		 v->run->internal.suberror,
		 emulation ? ": an instruction that it cannot emulate" : "",
		 emulation ? why_absent(&v->m->cfg) : "");
	last_words(v, -EIO, what);
}

/* False: the vCPU cannot go on. */
static bool serve_exit(struct machine_vcpu *v)
{
	struct kvm_run *r = v->run;
	char what[128];

	switch (r->exit_reason) {
	case KVM_EXIT_IO:
		remember(v);
		ports(v);
		return true;
	case KVM_EXIT_MMIO:
		remember(v);
		bus_access(&v->m->bus, BUS_MMIO, r->mmio.phys_addr, r->mmio.data, r->mmio.len,
			   r->mmio.is_write);
		return true;
	case KVM_EXIT_SHUTDOWN:
		last_words(v, -EIO, "the guest triple-faulted");
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		internal_error(v);
		return false;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(what, sizeof(what), "the processor refused to enter the guest (%#llx)",
			 (unsigned long long)r->fail_entry.hardware_entry_failure_reason);
		last_words(v, -EIO, what);
		return false;
	default:
		snprintf(what, sizeof(what), "unexpected KVM exit %u", r->exit_reason);
		last_words(v, -EIO, what);
		return false;
	}
}

uint64_t machine_vcpu_cpu_ns(struct machine *m, unsigned index)
{
	struct machine_vcpu *v = &m->vcpus[index];
	clockid_t clock;

	pthread_mutex_lock(&m->lock);
	/* The thread may end meanwhile, and be joined only after this. */
	if (v->has_thread && !v->leaving && pthread_getcpuclockid(v->thread, &clock) == 0) {
		uint64_t now = clock_ns(clock);

		/* At its end the thread stores its own time, which is no less than this one. */
		if (now > atomic_load(&v->cpu_ns))
			atomic_store(&v->cpu_ns, now);
	}
	pthread_mutex_unlock(&m->lock);
	return atomic_load(&v->cpu_ns);
}

void machine_vcpu_stats(struct machine *m, unsigned index, struct control_vcpu *ret)
{
	struct apf_counters c;

	apf_vcpu_counters_get(m->vcpus[index].apf, &c, sizeof(c));
#define COPY(name) ret->name = c.name;
	CONTROL_VCPU_COUNTERS(COPY)
	ret->cpu_ns = machine_vcpu_cpu_ns(m, index);
	ret->exits = atomic_load(&m->vcpus[index].exits);
}

static void wait_for_go(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	while (!m->go && !m->stop && !m->ended)
		pthread_cond_wait(&m->resumed, &m->lock);
	pthread_mutex_unlock(&m->lock);
}

static void set_name(unsigned index)
{
	char name[16];

	snprintf(name, sizeof(name), "vcpu%02u", index);
	(void)prctl(PR_SET_NAME, name);
}

void *machine_vcpu_thread(void *arg)
{
	struct machine_vcpu *v = arg;

	set_name(v->index);
	machine_thread_begins(v->m, MACHINE_THREAD_VCPU);
	wait_for_go(v->m);
	while (!stopping(v->m)) {
		int rc = apf_vcpu_run(v->apf);

		if (rc == -EINTR) {
			machine_rest(v);
			machine_watch_look(v);
			continue;
		}
		if (rc < 0) {
			char what[96];

			snprintf(what, sizeof(what), "running the guest failed (%s)",
				 strerror(-rc));
			last_words(v, rc, what);
			break;
		}
		atomic_fetch_add_explicit(&v->exits, 1, memory_order_relaxed);
		if (!serve_exit(v))
			break;
	}
	atomic_store(&v->cpu_ns, clock_ns(CLOCK_THREAD_CPUTIME_ID));
	return NULL;
}
