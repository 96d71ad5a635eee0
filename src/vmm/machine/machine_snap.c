/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See machine_snap.h. The order of coming to rest: vCPUs leave apf_vcpu_run (at rest), then no
 * device has a request in hand, then the library delivers nothing any more (apf_pause). Only
 * then do slot, local APIC, rings and memory belong together.
 */
#include "vmm/machine/machine_snap.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmm/machine/machine_parts.h"
#include "vmm/snap/snap_kvm.h"

#define REST_S 10 /* for every vCPU to come to rest */
#define PIECE_BYTES (1u << 20)

static struct snap_key key(const char *name, unsigned index)
{
	return (struct snap_key){name, index, MACHINE_SAVED_VERSION};
}

/* ---- what the machine is ---- */

static void save_disk(struct machine *m, unsigned i, struct snap_out *o)
{
	const struct machine_disk *d = &m->cfg.disks[i];
	struct {
		struct machine_disk_saved head;
		char path[MACHINE_PATH_MAX];
	} s = {.head = {
		.bytes = m->disks[i].backing.bytes,
		.bytes_per_s = d->bytes_per_s,
		.requests_per_s = d->requests_per_s,
		.read_only = d->read_only,
		.raw = d->raw,
		.report = d->report,
	}};

	strncpy(s.path, m->disks[i].full_path ? m->disks[i].full_path : d->path,
		sizeof(s.path) - 1);
	snap_put(o, key("machine.disk", i), &s, sizeof(s.head) + strlen(s.path) + 1);
}

static void save_net(struct machine *m, unsigned i, struct snap_out *o)
{
	const struct machine_net *n = &m->cfg.nets[i];
	struct {
		struct machine_net_saved head;
		char tap[NET_TAP_NAME_MAX + 1];
	} s = {.head = {
		.bytes_per_s = n->bytes_per_s,
		.has_mac = n->has_mac,
		.restricted = n->restricted,
		.host = n->host,
		.forwards_count = n->forwards_count,
	}};

	memcpy(s.head.mac, n->mac, sizeof(s.head.mac));
	for (unsigned k = 0; k < n->forwards_count; k++) {
		s.head.forwards[k].host_addr = n->forwards[k].host_addr;
		s.head.forwards[k].host_port = n->forwards[k].host_port;
		s.head.forwards[k].guest_port = n->forwards[k].guest_port;
		s.head.forwards[k].udp = n->forwards[k].udp;
	}
	if (n->tap)
		strncpy(s.tap, n->tap, sizeof(s.tap) - 1);
	snap_put(o, key("machine.net", i), &s, sizeof(s.head) + strlen(s.tap) + 1);
}

static void save_machine(struct machine *m, struct snap_out *o)
{
	const struct machine_saved s = {
		.memory_bytes = m->cfg.memory_bytes,
		.rng_bytes_per_s = m->cfg.rng_bytes_per_s,
		.cpus = m->cfg.cpus,
		.kind = m->kind,
		.faults = m->cfg.apf.faults,
		.abi = m->cfg.apf.abi,
		.outstanding = m->cfg.apf.faults_max,
		.disks = m->cfg.disks_count,
		.exit_port = m->cfg.exit_port,
		.nets = m->cfg.nets_count,
	};

	snap_put(o, key("machine", 0), &s, sizeof(s));
	for (unsigned i = 0; i < m->cfg.disks_count; i++)
		save_disk(m, i, o);
	for (unsigned i = 0; i < m->cfg.nets_count; i++)
		save_net(m, i, o);
	if (m->cfg.balloon != MACHINE_BALLOON_OFF) {
		struct machine_balloon_saved b = {.kind = m->cfg.balloon};

		virtio_balloon_save(&m->balloon, &b.device);
		snap_put(o, key("machine.balloon", 0), &b, sizeof(b));
	}
}

/* ---- coming to rest ---- */

static void let_go(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->freeze = false;
	pthread_cond_broadcast(&m->resumed);
	pthread_mutex_unlock(&m->lock);
}

static int stop_vcpus(struct machine *m, struct err *e)
{
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += REST_S;
	pthread_mutex_lock(&m->lock);
	m->freeze = true;
	pthread_mutex_unlock(&m->lock);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		apf_vcpu_kick(m->vcpus[i].apf);
	pthread_mutex_lock(&m->lock);
	while (rc == 0 && m->frozen < m->cfg.cpus && !m->stop && !m->ended)
		rc = -pthread_cond_timedwait(&m->froze, &m->lock, &until);
	if (rc == 0 && (m->stop || m->ended))
		rc = err_set(e, -EINTR, "snapshot: the VM has ended");
	else if (rc < 0)
		rc = err_set(e, -EBUSY, "snapshot: a vCPU does not come to rest within %u s; "
			     "'asyncpf status' tells what the VM waits for", REST_S);
	pthread_mutex_unlock(&m->lock);
	if (rc < 0)
		let_go(m);
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

/* Every virtio device with its section. */
static struct virtio_mmio *device(struct machine *m, unsigned i)
{
	unsigned disks = m->cfg.disks_count, nets = m->cfg.nets_count;

	if (i < disks)
		return &m->disks[i].blk.mmio;
	if (i < disks + nets)
		return &m->nics[i - disks].net.mmio;
	return i == disks + nets ? &m->rng.mmio : &m->balloon.mmio;
}

static unsigned device_count(const struct machine *m)
{
	return m->cfg.disks_count + m->cfg.nets_count + 1 +
	       (m->cfg.balloon != MACHINE_BALLOON_OFF);
}

/* ---- saving ---- */

static struct snap_vcpu vcpu_of(struct machine *m, unsigned i)
{
	return (struct snap_vcpu){i, m->kvm_fd, m->vm_fd, m->vcpus[i].fd, m->apf,
				  m->vcpus[i].apf};
}

static int save_state(struct machine *m, struct snap_out *o, struct err *e)
{
	struct serial_saved serial;
	struct rtc_saved rtc;
	int rc = 0;

	save_machine(m, o);
	for (unsigned i = 0; rc == 0 && i < m->cfg.cpus; i++) {
		struct snap_vcpu v = vcpu_of(m, i);

		rc = snap_vcpu_save(&v, o, e);
	}
	if (rc == 0)
		rc = snap_vm_save(m->vm_fd, o, e);
	for (unsigned i = 0; i < device_count(m); i++) {
		struct virtio_mmio_saved s;

		virtio_mmio_save(device(m, i), &s);
		snap_put(o, key("virtio", i), &s, sizeof(s));
	}
	serial_save(&m->serial, &serial);
	snap_put(o, key("serial", 0), &serial, sizeof(serial));
	rtc_save(&m->rtc, &rtc);
	snap_put(o, key("rtc", 0), &rtc, sizeof(rtc));
	snap_put(o, key("pm", 0), &m->pm.regs, sizeof(m->pm.regs));
	return rc;
}

static bool is_zero(const unsigned char *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static int put_at(int fd, const unsigned char *p, size_t len, uint64_t off, struct err *e)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno != EINTR)
			return err_sys(e, -errno, "snapshot: writing guest memory");
		if (n > 0) {
			p += n;
			off += (uint64_t)n;
			len -= (size_t)n;
		}
	}
	return 0;
}

/* Runs of pages that are not zero; the rest stays a hole. */
static int put_piece(int fd, const unsigned char *p, size_t len, uint64_t off, struct err *e)
{
	size_t from = 0, at;
	int rc = 0;

	for (at = 0; rc == 0 && at < len; at += PAGE_BYTES) {
		if (!is_zero(p + at, PAGE_BYTES))
			continue;
		if (at > from)
			rc = put_at(fd, p + from, at - from, off + from, e);
		from = at + PAGE_BYTES;
	}
	return rc == 0 && at > from ? put_at(fd, p + from, at - from, off + from, e) : rc;
}

static bool holds_anything(struct machine *m, uint64_t gpa, size_t len)
{
	unsigned char *map = malloc(len / m->cfg.apf.block_bytes);
	bool holds = !map || apf_residency(m->apf, gpa, len, map) < 0;

	for (size_t i = 0; !holds && i < len / m->cfg.apf.block_bytes; i++)
		holds = !(map[i] & APF_BLOCK_ZEROES);
	free(map);
	return holds;
}

/* [gpa, gpa + bytes) to `off` of the file on. */
static int save_range(struct machine *m, uint64_t gpa, uint64_t bytes, uint64_t off, int fd,
		      unsigned char *buf, const atomic_bool *cancel, struct err *e)
{
	int rc = 0;

	for (uint64_t at = 0; rc == 0 && at < bytes; at += PIECE_BYTES) {
		size_t len = min_u64(PIECE_BYTES, bytes - at);

		if (atomic_load(cancel))
			return err_set(e, -ECANCELED, "snapshot: nobody waits for it any more");
		if (!holds_anything(m, gpa + at, len))
			continue;
		rc = apf_read(m->apf, gpa + at, buf, len);
		if (rc < 0)
			return err_sys(e, rc, "snapshot: reading guest memory");
		rc = put_piece(fd, buf, len, off + at, e);
	}
	return rc;
}

static int save_memory(struct machine *m, int fd, const atomic_bool *cancel, struct err *e)
{
	unsigned char *buf = malloc(PIECE_BYTES);
	int rc = buf ? 0 : err_sys(e, -ENOMEM, "snapshot");

	if (rc == 0 && (ftruncate(fd, 0) < 0 ||
			ftruncate(fd, (off_t)m->cfg.memory_bytes) < 0))
		rc = err_sys(e, -errno, "snapshot: size of the memory file");
	if (rc == 0)
		rc = save_range(m, 0, m->mem.low_bytes, 0, fd, buf, cancel, e);
	if (rc == 0 && m->mem.high_bytes)
		rc = save_range(m, GUEST_HIGH_GPA, m->mem.high_bytes, m->mem.low_bytes, fd, buf,
				cancel, e);
	free(buf);
	return rc;
}

static int save_at_rest(struct machine *m, int state_fd, int memory_fd, const atomic_bool *cancel,
			struct err *e)
{
	struct snap_out o = {.bytes = NULL};
	int rc = save_state(m, &o, e);

	if (rc == 0)
		rc = snap_out_write(&o, state_fd, e);
	snap_out_free(&o);
	/* Last: a store that waited for its page lands in it. */
	return rc < 0 ? rc : save_memory(m, memory_fd, cancel, e);
}

int machine_snapshot(struct machine *m, int state_fd, int memory_fd, const atomic_bool *cancel,
		     struct err *e)
{
	bool was_paused = apf_is_paused(m->apf);
	struct apf_error why;
	struct err disk;
	int rc;

	if (machine_trouble_get(m, &disk) != 0)
		return err_set(e, -EBUSY, "snapshot: the VM is paused: %.150s; mend that and "
			       "resume it first", disk.text);
	if (apf_trouble_get(m->apf, &why) != 0)
		return err_set(e, -EBUSY, "snapshot: the VM is paused: %.150s; mend that and "
			       "resume it first", why.text);
	if (m->cfg.vsock.path)
		return err_set(e, -EOPNOTSUPP, "snapshot: a VM with a socket device (--vsock) "
			       "cannot be saved: the host's ends of its connections cannot");
	rc = stop_vcpus(m, e);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < device_count(m); i++)
		virtio_mmio_hold(device(m, i));
	apf_pause(m->apf);
	rc = save_at_rest(m, state_fd, memory_fd, cancel, e);
	if (!was_paused)
		apf_resume(m->apf);
	for (unsigned i = 0; i < device_count(m); i++)
		virtio_mmio_release(device(m, i));
	let_go(m);
	return rc;
}

/* ---- restoring ---- */

int machine_restore_cpuid(struct machine *m, unsigned vcpu, const void *host, struct err *e)
{
	struct snap_vcpu v = vcpu_of(m, vcpu);

	return snap_cpuid_restore(&v, m->cfg.restore, host, e);
}

static int check_disks(struct machine *m, struct err *e)
{
	for (unsigned i = 0; i < m->cfg.disks_count; i++) {
		struct machine_disk_saved s;
		const char *path;
		int rc = machine_disk_saved_get(m->cfg.restore, i, &s, &path, e);

		if (rc < 0)
			return rc;
		if (s.bytes != m->disks[i].backing.bytes)
			return err_set(e, -EINVAL, "snapshot: disk %u, %.100s, has another size "
				       "now; make it as it was", i, m->cfg.disks[i].path);
	}
	return 0;
}

static int restore_devices(struct machine *m, const struct snap_in *in, struct err *e)
{
	struct serial_saved serial;
	struct rtc_saved rtc;
	struct machine_balloon_saved balloon;
	int rc = snap_take(in, key("rtc", 0), &rtc, sizeof(rtc), e);

	if (rc == 0) {
		rtc_restore(&m->rtc, &rtc);
		rc = snap_take(in, key("pm", 0), &m->pm.regs, sizeof(m->pm.regs), e);
	}
	if (rc == 0)
		rc = snap_take(in, key("serial", 0), &serial, sizeof(serial), e);
	if (rc == 0 && serial_restore(&m->serial, &serial) < 0)
		rc = err_set(e, -EBADMSG, "snapshot: a serial port cannot be in this state");
	if (rc == 0)
		rc = machine_balloon_saved_get(in, &balloon, e);
	if (rc == 0 && m->cfg.balloon != MACHINE_BALLOON_OFF)
		virtio_balloon_restore(&m->balloon, &balloon.device);
	for (unsigned i = 0; rc == 0 && i < device_count(m); i++) {
		struct virtio_mmio_saved s;

		rc = snap_take(in, key("virtio", i), &s, sizeof(s), e);
		if (rc == 0 && virtio_mmio_restore(device(m, i), &s) < 0)
			rc = err_set(e, -EBADMSG, "snapshot: virtio device %u cannot be in this "
				     "state", i);
	}
	/* Whatever they were connected to then. */
	for (unsigned i = 0; rc == 0 && i < m->cfg.nets_count; i++)
		virtio_net_link_up(&m->nics[i].net);
	return rc;
}

int machine_restore(struct machine *m, struct err *e)
{
	const struct snap_in *in = m->cfg.restore;
	struct machine_saved s;
	int rc = machine_saved_get(in, &s, e);

	if (rc == 0) {
		m->kind = s.kind;
		rc = machine_test_devices_open(m, e);
	}
	if (rc == 0)
		rc = check_disks(m, e);
	if (rc == 0)
		rc = snap_vm_restore(m->vm_fd, in, e);
	for (unsigned i = 0; rc == 0 && i < m->cfg.cpus; i++) {
		struct snap_vcpu v = vcpu_of(m, i);

		rc = snap_vcpu_restore(&v, in, e);
	}
	/* Last: interrupts are raised, and rings served. */
	return rc < 0 ? rc : restore_devices(m, in, e);
}
