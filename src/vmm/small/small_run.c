/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the small machine: one thread per vCPU, two ports, and an orderly end. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"
#include "kvm/vm.h"
#include "vmm/small/small_machine.h"

#define TICK_MS 100

/*
 * Idle time of all CPUs since boot: the second number of /proc/uptime, in seconds. Whatever
 * is not idle is busy, kernel threads included.
 */
static double machine_idle_s(void)
{
	double up = 0, idle = 0;
	FILE *f = fopen("/proc/uptime", "re");

	if (!f)
		return 0;
	if (fscanf(f, "%lf %lf", &up, &idle) != 2)
		idle = 0;
	fclose(f);
	return idle;
}

/* ---- vCPU threads ---- */

static void tell_main(struct small_machine *m)
{
	static const uint64_t one = 1;

	(void)!write(m->done_fd, &one, sizeof(one));
}

static void __attribute__((format(printf, 3, 4))) fail(struct small_vcpu *v, int code,
						       const char *fmt, ...)
{
	struct small_machine *m = v->m;
	char text[ERR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&m->lock);
	if (m->failure.code == 0 && !m->ended)
		err_set(&m->failure, code, "vCPU %u: %s", v->index, text);
	pthread_mutex_unlock(&m->lock);
	tell_main(m);
}

static void console(struct small_machine *m, const unsigned char *bytes, size_t len)
{
	pthread_mutex_lock(&m->lock);
	if (len > sizeof(m->console) - 1 - m->console_len)
		len = sizeof(m->console) - 1 - m->console_len;
	memcpy(m->console + m->console_len, bytes, len);
	m->console_len += len;
	pthread_mutex_unlock(&m->lock);
}

static void exit_port(struct small_machine *m, const unsigned char *bytes, size_t len)
{
	uint32_t status = 0;

	memcpy(&status, bytes, len < sizeof(status) ? len : sizeof(status));
	pthread_mutex_lock(&m->lock);
	if (!m->ended) {
		m->ended = true;
		m->status = status;
		m->end_ns = monotonic_ns();
	}
	pthread_mutex_unlock(&m->lock);
	tell_main(m);
}

/* False: the vCPU cannot go on. */
static bool port_access(struct small_vcpu *v)
{
	struct kvm_run *r = v->run;
	unsigned char *data = (unsigned char *)r + r->io.data_offset;
	size_t len = (size_t)r->io.size * r->io.count;

	if (r->io.direction == KVM_EXIT_IO_IN) {
		memset(data, 0xff, len); /* nobody there */
		return true;
	}
	if (r->io.port == SMALL_PORT_CONSOLE)
		console(v->m, data, len);
	else if (r->io.port == SMALL_PORT_EXIT) {
		exit_port(v->m, data, len);
		return false;
	}
	return true;
}

/* Where it was when it died. */
static void last_words(struct small_vcpu *v, const char *what)
{
	struct kvm_regs regs = {0};
	struct kvm_sregs sregs = {0};

	(void)ioctl(v->fd, KVM_GET_REGS, &regs);
	(void)ioctl(v->fd, KVM_GET_SREGS, &sregs);
	fail(v, -EIO, "%s at rip=%#llx cr2=%#llx cpl=%u rflags=%#llx", what, regs.rip, sregs.cr2,
	     sregs.ss.dpl, regs.rflags);
}

static bool serve_exit(struct small_vcpu *v)
{
	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		return port_access(v);
	case KVM_EXIT_SHUTDOWN:
		last_words(v, "the guest triple-faulted");
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		last_words(v, "KVM could not emulate an instruction");
		return false;
	case KVM_EXIT_MMIO:
		fail(v, -EIO, "access to %#llx, where nothing is",
		     (unsigned long long)v->run->mmio.phys_addr);
		return false;
	default:
		fail(v, -EIO, "unexpected exit %u", v->run->exit_reason);
		return false;
	}
}

static bool stopping(struct small_machine *m)
{
	pthread_mutex_lock(&m->lock);
	bool stop = m->stop;
	pthread_mutex_unlock(&m->lock);
	return stop;
}

static void *vcpu_thread(void *arg)
{
	struct small_vcpu *v = arg;
	const struct small_cfg *cfg = v->m->cfg;

	while (!stopping(v->m)) {
		int rc = apf_vcpu_run(v->apf);

		if (cfg->at_rest)
			cfg->at_rest(cfg->ctx, &(struct small_rest){v->index, v->fd, v->run,
								    v->apf, rc});
		if (rc == -EINTR)
			continue;
		if (rc < 0) {
			fail(v, rc, "running the guest: %s", strerror(-rc));
			break;
		}
		if (!serve_exit(v))
			break;
	}
	v->cpu_s = (double)clock_ns(CLOCK_THREAD_CPUTIME_ID) / (double)NS_PER_S;
	return NULL;
}

/* ---- the run ---- */

static int start_threads(struct small_machine *m, struct err *e)
{
	for (unsigned i = 0; i < m->vcpu_count; i++) {
		int rc = pthread_create(&m->vcpus[i].thread, NULL, vcpu_thread, &m->vcpus[i]);

		if (rc != 0)
			return err_sys(e, -rc, "vCPU %u: thread", i);
		m->vcpus[i].running = true;
	}
	return 0;
}

static void stop_threads(struct small_machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->stop = true;
	pthread_mutex_unlock(&m->lock);
	for (unsigned i = 0; i < m->vcpu_count; i++)
		if (m->vcpus[i].running)
			apf_vcpu_kick(m->vcpus[i].apf);
	for (unsigned i = 0; i < m->vcpu_count; i++)
		if (m->vcpus[i].running)
			pthread_join(m->vcpus[i].thread, NULL);
}

static void tick(struct small_machine *m, bool first)
{
	const struct small_cfg *cfg = m->cfg;
	struct apf_vcpu *vcpus[SMALL_VCPUS_MAX] = {NULL};

	if (cfg->tick) {
		for (unsigned i = 0; i < m->vcpu_count; i++)
			vcpus[i] = m->vcpus[i].apf;
		cfg->tick(cfg->ctx, m->apf, vcpus, first);
	}
	if (cfg->progress && !first) {
		struct apf_counters c;

		apf_counters_get(m->apf, &c, sizeof(c));
		cfg->progress(cfg->ctx, &c);
	}
}

/* Waits for the guest's end, a failure, the caller's stop or the time limit. */
static int wait_for_end(struct small_machine *m, uint64_t start_ns, struct err *e)
{
	struct pollfd fds[2] = {
		{.fd = m->done_fd, .events = POLLIN},
		{.fd = m->cfg->stop_fd, .events = POLLIN}, /* -1 is ignored */
	};
	uint64_t limit_ns = m->cfg->time_limit_ms * NS_PER_MS;

	for (;;) {
		int n = poll(fds, 2, TICK_MS);

		if (n > 0 && fds[1].revents)
			return err_set(e, -EINTR, "stopped");
		if (n > 0 && fds[0].revents)
			return 0;
		tick(m, false);
		if (limit_ns && monotonic_ns() - start_ns > limit_ns)
			return err_set(e, -ETIME, "the guest was not done after %llu ms",
				       (unsigned long long)m->cfg->time_limit_ms);
	}
}

static void collect(struct small_machine *m, uint64_t start_ns, struct small_outcome *o)
{
	uint64_t khz = kvmp_tsc_khz(m->vcpus[0].fd);

	o->tsc_khz = khz;
	o->ended = m->ended;
	o->status = m->status;
	o->wall_s = (double)((m->ended ? m->end_ns : monotonic_ns()) - start_ns) /
		    (double)NS_PER_S;
	for (unsigned i = 0; i < m->vcpu_count; i++)
		o->vcpu_cpu_s += m->vcpus[i].cpu_s;
	apf_counters_get(m->apf, &o->stats, sizeof(o->stats));
	/* Else they are of no use, and where memory is no longer served, never come. */
	if (m->ended)
		memcpy(&o->results, m->mem.low + SMALL_RESULTS_GPA, sizeof(o->results));
	if (khz && o->results.end_tsc > o->results.start_tsc)
		o->guest_s = (double)(o->results.end_tsc - o->results.start_tsc) /
			     ((double)khz * 1000.0);
	memcpy(o->console, m->console, sizeof(o->console));
}

int small_run(const struct small_cfg *cfg, struct small_outcome *ret, struct err *e)
{
	struct small_machine m;
	int rc = small_build(&m, cfg, e);

	memset(ret, 0, sizeof(*ret));
	if (rc == 0) {
		double idle = machine_idle_s();
		uint64_t cpus = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
		uint64_t start = monotonic_ns();
		uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);

		if (cfg->made)
			cfg->made(cfg->ctx, m.apf, m.vm_fd, &m.mem);
		tick(&m, true);
		rc = start_threads(&m, e);
		ret->started = rc == 0;
		ret->io = apf_io_used(m.apf);
		if (rc == 0)
			rc = wait_for_end(&m, start, e);
		double busy_until = (double)(monotonic_ns() - start) / (double)NS_PER_S;

		ret->machine_cpu_s = busy_until * (double)cpus - (machine_idle_s() - idle);
		ret->process_cpu_s = (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) /
				     (double)NS_PER_S;
		stop_threads(&m);
		if (cfg->end)
			cfg->end(cfg->ctx);
		collect(&m, start, ret);
		if (rc == 0 && m.failure.code != 0)
			rc = err_set(e, m.failure.code, "%s", m.failure.text);
	}
	small_destroy(&m);
	return rc;
}
