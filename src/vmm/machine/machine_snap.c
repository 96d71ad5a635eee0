/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See machine_snap.h. The order of coming to rest: vCPUs leave apf_vcpu_run (at rest), then no
 * device has a request in hand, then the library delivers nothing any more (apf_pause). Only
 * then do slot, local APIC, rings and memory belong together.
 */
#include "vmm/machine/machine_snap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/time.h"
#include "vmm/machine/machine_copy.h"
#include "vmm/machine/machine_first.h"
#include "vmm/memory/guest_ram.h"
#include "vmm/snap/snap_kvm.h"

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

static int save_state(struct machine *m, struct snap_out *o, struct first_touch *first,
		      struct err *e)
{
	struct snap_vcpu vcpus[MACHINE_CPUS_MAX];
	struct serial_saved serial;
	struct rtc_saved rtc;
	int rc = 0;

	save_machine(m, o);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		vcpus[i] = vcpu_of(m, i);
	for (unsigned i = 0; rc == 0 && i < m->cfg.cpus; i++)
		rc = snap_vcpu_save(&vcpus[i], o, e);
	machine_first_find(m, vcpus, first);
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
	struct snap_plan plan;
	struct machine_copy copy;
	struct snap_out state;
	struct first_touch first;
	uint64_t stood_ns; /* since when the guest stands */
};

static int is_paused(const char *why, struct err *e)
{
	return err_set(e, -EBUSY, "snapshot: the VM is paused: %.150s; mend that and resume it "
		       "first", why);
}

/* What a disk in trouble was to do is not done, or the guest has not seen how it failed. */
static int check_disks_go_on(struct machine *m, struct err *e)
{
	struct err why;

	return machine_trouble_get(m, &why) == 0 ? 0 : is_paused(why.text, e);
}

static int check_trouble(struct machine *m, struct err *e)
{
	struct apf_error why;
	int rc = check_disks_go_on(m, e);

	if (rc == 0 && apf_trouble_get(m->apf, &why) != 0)
		rc = is_paused(why.text, e);
	return rc;
}

static int stop(struct job *j, uint64_t limit_ns, struct err *e)
{
	struct machine *m = j->m;
	int rc = check_trouble(m, e);

	j->stood_ns = monotonic_ns();
	if (rc == 0)
		rc = machine_stand(m, (uint32_t)(limit_ns / NS_PER_MS), e);
	if (rc < 0)
		return rc;
	machine_devices_hold(m);
	rc = check_disks_go_on(m, e); /* one may have failed since */
	if (rc < 0) {
		machine_devices_release(m);
		machine_go_on(m);
		return rc;
	}
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
	stood = monotonic_ns() - j->stood_ns;
	atomic_store(&m->snap.paused_ns, max_u64(stood, atomic_load(&m->snap.paused_ns)));
}

/* Which snapshot it is, and what of memory is in it. */
static void save_id(struct job *j)
{
	snap_put(&j->state, key("snapshot", 0), &j->id, sizeof(j->id));
	if (j->changes)
		snap_put(&j->state, key("memory.pages", 0), j->m->dirty.since,
			 j->m->dirty.map.pages / 8);
}

static int save_anew(struct job *j, struct err *e)
{
	snap_out_free(&j->state);
	return save_state(j->m, &j->state, &j->first, e);
}

/* One step of the plan. */
static int make_step(struct job *j, const struct snap_step *s, struct err *e)
{
	struct machine *m = j->m;
	int rc;

	switch (s->todo) {
	case SNAP_TODO_NOTE:
		rc = check_disks_go_on(m, e);
		return rc < 0 ? rc : machine_dirty_begin(m, e);
	case SNAP_TODO_LOOK:
		rc = check_disks_go_on(m, e);
		return rc < 0 ? rc : machine_dirty_take(m, j->plan.cfg.found, e);
	case SNAP_TODO_COPY:
		return machine_copy_run(&j->copy, s, e);
	case SNAP_TODO_SLOW:
		return machine_stand(m, (uint32_t)(s->limit_ns / NS_PER_MS), e);
	case SNAP_TODO_GO:
		machine_go_on(m);
		return 0;
	case SNAP_TODO_STOP:
		return stop(j, s->limit_ns, e);
	case SNAP_TODO_STATE:
		return save_anew(j, e);
	case SNAP_TODO_PAGES:
		save_id(j);
		return 0;
	case SNAP_TODO_KEEP:
		/* What it wrote to last it will want again. */
		first_touch_range(&j->first, machine_copy_gpa(&j->copy, s->run.page),
				  s->run.pages << PAGE_SHIFT);
		return machine_copy_keep(&j->copy, s, e);
	case SNAP_TODO_RESUME:
		go_on(j);
		return 0;
	case SNAP_TODO_PUT:
		return machine_copy_put(&j->copy, s, e);
	case SNAP_TODO_END:
		break;
	}
	return s->rc;
}

static int save(struct job *j, bool keep_running, struct err *e)
{
	uint64_t pages = j->m->dirty.map.pages, words = pages / SNAP_WORD_PAGES;
	uint64_t *maps = calloc(3 * words, sizeof(*maps));
	const struct snap_plan_cfg cfg = {
		.rules = snap_rules_usual,
		.pages = pages,
		.keep_running = keep_running,
		.changes = j->changes,
		.pending = maps,
		.kept = maps + words,
		.found = maps + 2 * words,
		.since = j->m->dirty.since,
	};
	struct snap_step s;
	int rc = 0;

	if (!maps)
		return err_sys(e, -ENOMEM, "snapshot");
	snap_plan_init(&j->plan, &cfg);
	do {
		snap_plan_next(&j->plan, rc, monotonic_ns(), &s);
		rc = make_step(j, &s, e);
	} while (s.todo != SNAP_TODO_END);
	free(maps);
	if (rc == -EAGAIN)
		return err_set(e, rc, "snapshot: the guest writes to its memory faster than that "
			       "can be written; without --keep-running it can");
	return rc;
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

/* The next one can build upon it. */
static void made(struct job *j)
{
	struct machine_dirty *d = &j->m->dirty;

	snap_plan_made(&j->plan);
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
		rc = save(&j, how->keep_running, e);
	if (rc == 0) {
		machine_first_save(m, &j.first, &j.state);
		rc = snap_out_write(&j.state, state_fd, e);
	}
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

static int restore_virtio(struct machine *m, unsigned i, const struct snap_in *in, struct err *e)
{
	unsigned nic = i - m->cfg.disks_count; /* wraps for a disk */
	struct virtio_mmio_saved s;
	int rc = snap_take(in, key("virtio", i), &s, sizeof(s), e);

	if (rc < 0)
		return rc;
	rc = virtio_mmio_restore(machine_device(m, i), &s);
	if (rc == -ENOTSUP && nic < m->cfg.nets_count && !m->cfg.nets[nic].tap)
		return err_set(e, rc, "snapshot: the guest uses offloads of network card %u "
			       "(checksums, segmentation) that a network in user space does not "
			       "have; give it a tap", nic);
	if (rc == -ENOTSUP)
		return err_set(e, rc, "snapshot: the guest uses features that virtio device %u "
			       "does not have here; use the asyncpf that made it", i);
	return rc == 0 ? 0 : err_set(e, -EBADMSG, "snapshot: virtio device %u cannot be in this "
				     "state", i);
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
	for (unsigned i = 0; rc == 0 && i < machine_device_count(m); i++)
		rc = restore_virtio(m, i, in, e);
	/* It follows the limit of now, not of then. */
	if (rc == 0 && m->cfg.balloon == MACHINE_BALLOON_FOLLOW)
		virtio_balloon_target_set(&m->balloon, machine_balloon_target(m));
	/* Whatever they were connected to then. */
	for (unsigned i = 0; rc == 0 && i < m->cfg.nets_count; i++)
		virtio_net_link_up(&m->nics[i].net);
	if (rc == 0 && m->cfg.vsock.path)
		virtio_vsock_restored(&m->vsock, &vsock.device);
	return rc;
}

static int bring_pdptes(struct machine *m, unsigned vcpu, struct err *e)
{
	unsigned char entries[SNAP_PDPT_BYTES];
	struct apf_range r = {.buf = entries, .len = sizeof(entries)};
	int rc = snap_vcpu_pdptes(m->cfg.restore, vcpu, &r.gpa, e);

	if (rc <= 0)
		return rc;
	rc = guest_ram_read(m->apf, r, m->cfg.stop_fd);
	/* Where there is no memory the entries are zero anyway. */
	return rc == -EINTR ? err_sys(e, rc, "snapshot: page table of vCPU %u", vcpu) : 0;
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
		rc = machine_first_bring(m, false, e);
	if (rc == 0)
		rc = snap_vm_restore(m->vm_fd, in, e);
	for (unsigned i = 0; rc == 0 && i < m->cfg.cpus; i++) {
		struct snap_vcpu v = vcpu_of(m, i);

		rc = bring_pdptes(m, i, e);
		if (rc == 0)
			rc = snap_vcpu_restore(&v, in, e);
	}
	/* Last: interrupts are raised, and rings served. */
	return rc < 0 ? rc : restore_devices(m, in, e);
}
