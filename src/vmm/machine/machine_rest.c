/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine comes to rest, wholly or in part, and goes on. vCPUs leave apf_vcpu_run (at rest) and
 * wait here; devices finish what they have in hand, or drop it to begin it anew.
 */
#include <errno.h>
#include <time.h>

#include "base/time.h"
#include "vmm/machine/machine_parts.h"

void machine_go_on(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->freeze = false;
	pthread_cond_broadcast(&m->resumed);
	pthread_mutex_unlock(&m->lock);
}

int machine_stand(struct machine *m, uint32_t limit_ms, struct err *e)
{
	struct timespec until = timespec_of_ns(monotonic_ns() + limit_ms * NS_PER_MS);
	int rc = 0;

	pthread_mutex_lock(&m->lock);
	m->freeze = true;
	pthread_mutex_unlock(&m->lock);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		apf_vcpu_kick(m->vcpus[i].apf);
	pthread_mutex_lock(&m->lock);
	while (rc == 0 && m->frozen < m->cfg.cpus && !m->stop && !m->ended)
		rc = -pthread_cond_clockwait(&m->froze, &m->lock, CLOCK_MONOTONIC, &until);
	if (m->stop || m->ended)
		rc = err_set(e, -EINTR, "snapshot: the VM has ended");
	else if (rc < 0)
		rc = err_set(e, -EBUSY, "snapshot: a vCPU does not come to rest within %u ms; "
			     "'asyncpf status' tells what the VM waits for", limit_ms);
	pthread_mutex_unlock(&m->lock);
	if (rc < 0)
		machine_go_on(m);
	return rc;
}

void machine_rest(struct machine_vcpu *v)
{
	struct machine *m = v->m;

	pthread_mutex_lock(&m->lock);
	if (m->freeze) {
		m->frozen++;
		pthread_cond_signal(&m->froze);
		while (m->freeze && !m->stop && !m->ended)
			pthread_cond_wait(&m->resumed, &m->lock);
		m->frozen--;
	}
	pthread_mutex_unlock(&m->lock);
}

void machine_begin_moment(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->stands = true;
	apf_pause(m->apf);
	pthread_mutex_unlock(&m->lock);
}

void machine_end_moment(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->stands = false;
	if (!m->stays_paused)
		apf_resume(m->apf);
	pthread_mutex_unlock(&m->lock);
}

void machine_pause(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->stays_paused = true;
	apf_pause(m->apf);
	pthread_mutex_unlock(&m->lock);
}

struct virtio_mmio *machine_device(struct machine *m, unsigned i)
{
	unsigned disks = m->cfg.disks_count, nets = m->cfg.nets_count;
	bool has_balloon = m->cfg.balloon != MACHINE_BALLOON_OFF;

	if (i < disks)
		return &m->disks[i].blk.mmio;
	if (i < disks + nets)
		return &m->nics[i - disks].net.mmio;
	if (i == disks + nets)
		return &m->rng.mmio;
	return has_balloon && i == disks + nets + 1 ? &m->balloon.mmio : &m->vsock.mmio;
}

unsigned machine_device_count(const struct machine *m)
{
	return m->cfg.disks_count + m->cfg.nets_count + 1 +
	       (m->cfg.balloon != MACHINE_BALLOON_OFF) + (m->cfg.vsock.path != NULL);
}

void machine_devices_hold(struct machine *m)
{
	for (unsigned i = 0; i < machine_device_count(m); i++)
		virtio_mmio_hold_begin(machine_device(m, i));
	/* A disk in trouble sees that it is wanted, and waits for nobody who resumes. */
	pthread_mutex_lock(&m->lock);
	pthread_cond_broadcast(&m->resumed);
	pthread_mutex_unlock(&m->lock);
	for (unsigned i = 0; i < machine_device_count(m); i++)
		virtio_mmio_hold_wait(machine_device(m, i));
}

void machine_devices_release(struct machine *m)
{
	for (unsigned i = 0; i < machine_device_count(m); i++)
		virtio_mmio_release(machine_device(m, i));
}
