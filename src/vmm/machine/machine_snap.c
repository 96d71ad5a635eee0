/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See machine_snap.h. The order of coming to rest: vCPUs leave apf_vcpu_run (at rest), then no
 * device has a request in hand, then the library delivers nothing any more (apf_pause). Only
 * then do slot, local APIC, rings and memory belong together.
 */
#include "vmm/machine/machine_snap.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "vmm/machine/machine_copy.h"
#include "vmm/snap/snap_kvm.h"

#define REST_MS 10000u /* for every vCPU to come to rest */
/*
 * With --keep-running: so much of what was written to last is kept at the cut, in so much time, or
 * the cut is tried anew, up to so many times; the last time it takes what it needs.
 */
#define CUT_PAGES ((16u << 20) / PAGE_BYTES)
#define CUT_MS 40u
#define CUTS_MAX 8u
#define PASSES_MAX 64u
/* Of 100 parts of the time that the guest stands still in a pass, after each that gained little. */
#define SLOWER 30u
#define SLOW_MAX 98u

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

static void save_vsock(struct machine *m, struct snap_out *o)
{
	struct {
		struct machine_vsock_saved head;
		char path[VSOCK_PATH_MAX];
	} s = {.head.device.cid = 0};

	virtio_vsock_save(&m->vsock, &s.head.device);
	strncpy(s.path, m->cfg.vsock.path, sizeof(s.path) - 1);
	snap_put(o, key("machine.vsock", 0), &s, sizeof(s.head) + strlen(s.path) + 1);
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
	if (m->cfg.vsock.path)
		save_vsock(m, o);
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
	for (unsigned i = 0; i < machine_device_count(m); i++) {
		struct virtio_mmio_saved s;

		virtio_mmio_save(machine_device(m, i), &s);
		snap_put(o, key("virtio", i), &s, sizeof(s));
	}
	serial_save(&m->serial, &serial);
	snap_put(o, key("serial", 0), &serial, sizeof(serial));
	rtc_save(&m->rtc, &rtc);
	snap_put(o, key("rtc", 0), &rtc, sizeof(rtc));
	snap_put(o, key("pm", 0), &m->pm.regs, sizeof(m->pm.regs));
	return rc;
}

/* A snapshot that is being made. */
struct job {
	struct machine *m;
	struct machine_snap_id id;
	bool changes; /* only what changed since id.base */
	struct machine_copy copy;
	struct snap_out state;
	uint64_t stood_ns; /* since when the guest stands */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static int check_trouble(struct machine *m, struct err *e)
{
	struct apf_error why;
	struct err disk;

	if (machine_trouble_get(m, &disk) != 0)
		return err_set(e, -EBUSY, "snapshot: the VM is paused: %.150s; mend that and "
			       "resume it first", disk.text);
	if (apf_trouble_get(m->apf, &why) != 0)
		return err_set(e, -EBUSY, "snapshot: the VM is paused: %.150s; mend that and "
			       "resume it first", why.text);
	return 0;
}

static int stand(struct job *j, uint32_t limit_ms, struct err *e)
{
	struct machine *m = j->m;
	int rc = check_trouble(m, e);

	j->stood_ns = now_ns();
	if (rc == 0)
		rc = machine_stand(m, limit_ms, e);
	if (rc < 0)
		return rc;
	machine_devices_hold(m);
	machine_begin_moment(m);
	return 0;
}

static void go_on(struct job *j)
{
	struct machine *m = j->m;
	uint64_t stood;

	machine_end_moment(m);
	machine_devices_release(m);
	machine_go_on(m);
	stood = now_ns() - j->stood_ns;
	atomic_store(&m->snap.paused_ns, max_u64(stood, atomic_load(&m->snap.paused_ns)));
}

static uint64_t map_bytes(const struct machine *m)
{
	return m->dirty.map.pages / 8;
}

/* From now on is noted who writes; pending: what is to be written so far. */
static int begin(struct job *j, struct err *e)
{
	struct machine *m = j->m;
	int rc = machine_dirty_begin(m, e);

	if (rc < 0)
		return rc;
	if (!j->changes) {
		machine_copy_all(&j->copy);
		return 0;
	}
	rc = machine_dirty_take(m, j->copy.pending, e);
	for (uint64_t w = 0; w < map_bytes(m) / sizeof(uint64_t); w++)
		j->copy.pending[w] |= m->dirty.since[w];
	return rc;
}

/* After the last machine_dirty_take(): the snapshot's identity, and the pages that are in it. */
static void save_id(struct job *j)
{
	snap_put(&j->state, key("snapshot", 0), &j->id, sizeof(j->id));
	if (j->changes)
		snap_put(&j->state, key("memory.pages", 0), j->m->dirty.since, map_bytes(j->m));
}

/* The guest stands still until all is written. */
static int save_standing(struct job *j, struct err *e)
{
	int rc = stand(j, REST_MS, e);

	if (rc < 0)
		return rc;
	rc = save_state(j->m, &j->state, e);
	/* After the state, as saving that has KVM note in guest memory that a vCPU is preempted. */
	if (rc == 0)
		rc = begin(j, e);
	if (rc == 0 && !j->changes)
		rc = machine_dirty_take(j->m, j->copy.pending, e);
	save_id(j);
	/* Last: a store that waited for its page lands in it. */
	if (rc == 0)
		rc = machine_copy_write(&j->copy, e);
	go_on(j);
	return rc;
}

/*
 * The cut: the state, and the content of what was written to since it was last looked, kept.
 * -ETIME or -EBUSY: it would have taken too long, and the guest goes on; what is pending stays so.
 */
static int cut(struct job *j, bool patient, struct err *e)
{
	uint64_t until = patient ? NS_NEVER : now_ns() + CUT_MS * NS_PER_MS;
	int rc = stand(j, patient ? REST_MS : CUT_MS, e);

	if (rc < 0)
		return rc;
	snap_out_free(&j->state);
	rc = save_state(j->m, &j->state, e);
	/* After the state, as in save_standing(). */
	if (rc == 0)
		rc = machine_dirty_take(j->m, j->copy.pending, e);
	save_id(j);
	if (rc == 0)
		rc = machine_copy_keep(&j->copy, until, e);
	go_on(j);
	return rc;
}

/*
 * Passes over what is pending, each shorter than the one before it as less was written to
 * meanwhile, until the rest can be kept while the guest stands still. Where that does not happen by
 * itself, the guest is slowed down.
 */
static int save_running(struct job *j, struct err *e)
{
	struct machine_copy *c = &j->copy;
	uint64_t before = UINT64_MAX, left;
	unsigned cuts = 0;
	int rc = begin(j, e);

	for (unsigned pass = 0; rc == 0; pass++) {
		if (pass == PASSES_MAX)
			return err_set(e, -EAGAIN, "snapshot: the guest writes to its memory "
				       "faster than that can be written; without --keep-running "
				       "it can");
		rc = machine_copy_write(c, e);
		if (rc == 0)
			rc = machine_dirty_take(j->m, c->pending, e);
		left = machine_copy_count(c);
		if (rc == 0 && left <= CUT_PAGES) {
			rc = cut(j, ++cuts == CUTS_MAX, e);
			if (rc != -ETIME && (rc != -EBUSY || cuts == CUTS_MAX))
				break;
			rc = 0;
		} else if (left > before / 4 * 3) {
			c->slow = (unsigned)min_u64(c->slow + SLOWER, SLOW_MAX);
		}
		before = left;
	}
	return rc == 0 ? machine_copy_write_kept(c, e) : rc;
}

/* A new one; -ESTALE: that which it is to build upon is not known here. */
static int identify(struct job *j, const struct machine_snapshot *how, struct err *e)
{
	const struct machine_dirty *d = &j->m->dirty;

	if (getrandom(j->id.id, sizeof(j->id.id), 0) != sizeof(j->id.id))
		return err_sys(e, -errno, "snapshot: its identity");
	j->changes = how->changes;
	if (!how->changes)
		return 0;
	memcpy(j->id.base, how->base, sizeof(j->id.base));
	if (!d->has_id || memcmp(d->id, how->base, sizeof(d->id)) != 0)
		return err_set(e, -ESTALE, "snapshot: --base is not the last snapshot that was "
			       "made of this VM since it was started; name that, or leave --base "
			       "out");
	return 0;
}

/* What changes from the cut on is what the next one is made of. */
static void made(struct job *j)
{
	struct machine_dirty *d = &j->m->dirty;

	memset(d->since, 0, map_bytes(j->m));
	memcpy(d->id, j->id.id, sizeof(d->id));
	d->has_id = true;
}

int machine_snapshot(struct machine *m, const struct machine_snapshot *how, int state_fd,
		     int memory_fd, const atomic_bool *cancel, struct err *e)
{
	struct job j = {.m = m};
	int rc = check_trouble(m, e);

	if (rc == 0)
		rc = identify(&j, how, e);
	if (rc < 0)
		return rc;
	atomic_store(&m->snap.paused_ns, 0);
	atomic_store(&m->snap.written_bytes, 0);
	atomic_store(&m->snap.running, 1);
	rc = machine_copy_open(&j.copy, m, memory_fd, cancel, e);
	if (rc == 0)
		rc = how->keep_running ? save_running(&j, e) : save_standing(&j, e);
	if (rc == 0)
		rc = snap_out_write(&j.state, state_fd, e);
	if (rc == 0)
		made(&j);
	else if (!m->dirty.has_id)
		machine_dirty_end(m);
	machine_copy_close(&j.copy);
	snap_out_free(&j.state);
	atomic_store(&m->snap.left_bytes, 0);
	atomic_store(&m->snap.running, 0);
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
	struct machine_vsock_saved vsock;
	const char *path;
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
	if (rc == 0)
		rc = machine_vsock_saved_get(in, &vsock, &path, e);
	if (rc == 0 && m->cfg.vsock.path)
		virtio_vsock_restore(&m->vsock, &vsock.device);
	for (unsigned i = 0; rc == 0 && i < machine_device_count(m); i++) {
		struct virtio_mmio_saved s;

		rc = snap_take(in, key("virtio", i), &s, sizeof(s), e);
		if (rc == 0 && virtio_mmio_restore(machine_device(m, i), &s) < 0)
			rc = err_set(e, -EBADMSG, "snapshot: virtio device %u cannot be in this "
				     "state", i);
	}
	/* Whatever they were connected to then. */
	for (unsigned i = 0; rc == 0 && i < m->cfg.nets_count; i++)
		virtio_net_link_up(&m->nics[i].net);
	if (rc == 0 && m->cfg.vsock.path)
		virtio_vsock_restored(&m->vsock, &vsock.device);
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
