/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the machine: starts the vCPUs, serves the console, waits for the end. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/time.h"
#include "vmm/machine/machine_parts.h"

void machine_wake(struct machine *m)
{
	static const uint64_t one = 1;

	(void)!write(m->wake_fd, &one, sizeof(one));
}

void machine_end(struct machine *m, enum machine_end end, uint32_t status)
{
	pthread_mutex_lock(&m->lock);
	if (!m->ended) {
		m->ended = true;
		m->end = end;
		m->status = status;
		m->end_ns = monotonic_ns();
		machine_trouble_end(m);
	}
	pthread_mutex_unlock(&m->lock);
	machine_wake(m);
}

void machine_fail(struct machine *m, const struct err *why)
{
	pthread_mutex_lock(&m->lock);
	if (!m->ended) {
		m->ended = true;
		m->failure = *why;
		m->end_ns = monotonic_ns();
		machine_trouble_end(m);
	}
	pthread_mutex_unlock(&m->lock);
	machine_wake(m);
}

static bool has_ended(struct machine *m)
{
	bool ended;

	pthread_mutex_lock(&m->lock);
	ended = m->ended;
	pthread_mutex_unlock(&m->lock);
	return ended;
}

/* ---- vCPU threads ---- */

static int start_threads(struct machine *m, struct err *e)
{
	for (unsigned i = 0; i < m->cfg.cpus; i++) {
		struct machine_vcpu *v = &m->vcpus[i];
		int rc;

		pthread_mutex_lock(&m->lock);
		rc = pthread_create(&v->thread, NULL, machine_vcpu_thread, v);
		v->has_thread = rc == 0;
		pthread_mutex_unlock(&m->lock);
		if (rc != 0)
			return err_sys(e, -rc, "vCPU %u: thread", i);
	}
	return 0;
}

static void let_run(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->go = true;
	pthread_cond_broadcast(&m->resumed);
	pthread_mutex_unlock(&m->lock);
}

static void stop_threads(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->stop = true;
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		m->vcpus[i].leaving = true;
	machine_trouble_end(m);
	pthread_mutex_unlock(&m->lock);
	/* A vCPU may wait for a device that waits for memory that never comes. */
	console_hurry(&m->console);
	apf_stop(m->apf);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		if (m->vcpus[i].has_thread)
			apf_vcpu_kick(m->vcpus[i].apf);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		if (m->vcpus[i].has_thread)
			pthread_join(m->vcpus[i].thread, NULL);
}

/* ---- the console, the end ---- */

enum { WAKE, STOP, INPUT, OUTPUT, FDS };

static void drain(int fd)
{
	uint64_t count;

	(void)!read(fd, &count, sizeof(count));
}

static void console_failed(struct machine *m)
{
	machine_fail(m, &m->console.lost);
}

/* What a guest prints after silence is written at once, the rest in pieces. */
struct output_pace {
	uint64_t due_ns; /* the next piece */
	bool full;	 /* the reader takes no more now */
};

static int output_wait_ms(const struct output_pace *pace)
{
	uint64_t now = monotonic_ns();

	return now < pace->due_ns ? (int)((pace->due_ns - now + NS_PER_MS - 1) / NS_PER_MS) : 0;
}

static void serve_console(struct machine *m, const struct pollfd *fds, struct output_pace *pace)
{
	struct console *c = &m->console;

	if (fds[WAKE].revents) {
		drain(m->wake_fd);
		console_push(c, &m->serial);
	}
	if (output_wait_ms(pace) == 0 && console_has_output(c)) {
		int rc = console_flush(c);

		pace->full = rc == 1;
		pace->due_ns = pace->full ? 0 : monotonic_ns() + CONSOLE_GATHER_MS * NS_PER_MS;
		if (rc < 0)
			console_failed(m);
	}
	if (fds[INPUT].revents && !console_read(c, &m->serial))
		machine_end(m, MACHINE_ESCAPED, 0);
}

/* By the user, not by the guest: who asks does not wait for a reader of the console. */
static bool was_asked_to_end(enum machine_end end)
{
	return end == MACHINE_ESCAPED || end == MACHINE_STOPPED || end == MACHINE_INTERRUPTED;
}

/* Until there is an end, and then until what was printed is written; not after a stop. */
static void serve(struct machine *m)
{
	struct pollfd fds[FDS] = {
		[WAKE] = {.fd = m->wake_fd, .events = POLLIN},
		[STOP] = {.fd = m->cfg.stop_fd, .events = POLLIN},
		[INPUT] = {.events = POLLIN},
		[OUTPUT] = {.events = POLLOUT},
	};
	struct output_pace pace = {0};

	for (;;) {
		bool ended = has_ended(m);
		bool pending = console_has_output(&m->console);
		int ms = -1, watch_ms;

		if (ended && (!pending || was_asked_to_end(m->end)))
			return;
		fds[INPUT].fd = ended ? -1 : console_input_fd(&m->console, &ms);
		fds[OUTPUT].fd = pace.full ? m->console.out_fd : -1;
		watch_ms = ended ? -1 : machine_watch_step(m, monotonic_ns());
		if (ms < 0 || (watch_ms >= 0 && watch_ms < ms))
			ms = watch_ms;
		if (poll(fds, FDS, pending && !pace.full ? output_wait_ms(&pace) : ms) < 0)
			continue;
		if (fds[STOP].revents) {
			machine_end(m, MACHINE_INTERRUPTED, 0);
			if (ended)
				return;
		}
		serve_console(m, fds, &pace);
	}
}

static void collect(struct machine *m, uint64_t start_ns, struct machine_outcome *o)
{
	o->end = m->end;
	o->status = m->status;
	o->wall_s = (double)(m->end_ns - start_ns) / (double)NS_PER_S;
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		machine_vcpu_stats(m, i, &o->vcpus[i]);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		o->vcpu_cpu_s += (double)o->vcpus[i].cpu_ns / (double)NS_PER_S;
	o->disk_errors = machine_disk_errors(m);
	o->io = apf_io_used(m->apf);
	o->devices_count = machine_device_stats(m, o->devices);
	o->has_vsock = machine_vsock_stats(m, &o->vsock);
	o->has_balloon = machine_balloon_stats(m, &o->balloon);
	apf_counters_get(m->apf, &o->stats, sizeof(o->stats));
}

int machine_run(struct machine *m, struct machine_outcome *ret, struct err *e)
{
	uint64_t start = monotonic_ns();
	int rc;

	memset(ret, 0, sizeof(*ret));
	pthread_mutex_lock(&m->lock);
	m->running = true;
	pthread_mutex_unlock(&m->lock);
	rc = start_threads(m, e);
	ret->started = rc == 0;
	if (rc < 0)
		machine_fail(m, e);
	machine_thread_begins(m, MACHINE_THREAD_MAIN);
	let_run(m);
	serve(m);
	stop_threads(m);
	(void)console_flush(&m->console);
	collect(m, start, ret);
	if (m->failure.code != 0)
		return err_set(e, m->failure.code, "%s", m->failure.text);
	if (m->console.lost.code != 0)
		return err_set(e, m->console.lost.code, "%s", m->console.lost.text);
	return rc;
}
