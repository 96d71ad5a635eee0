/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_control.h. */
#include "vmm/machine/machine_control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/size.h"
#include "base/time.h"
#include "vmm/control/control_proto.h"
#include "vmm/machine/machine_parts.h"
#include "vmm/machine/machine_snap.h"

/* One command of the library evicts so much, so that it need not be waited for to cancel. */
#define EVICT_STEP_BYTES (16ull << 20)
/* A balloon that fills is looked at so often; one that has not come closer for so long, stands. */
#define BALLOON_STEP_MS 20u
#define BALLOON_STANDS_S 30u

_Static_assert(CONTROL_DEVICES_MAX >= MACHINE_DEVICES_MAX, "each has a line");

struct machine_control {
	struct machine *m;
	struct control *server;
	struct machine_control_cfg cfg;
	struct control_ops ops;
	uint64_t start_ns;
	uint64_t pid;
};

static const char *state_of(const struct machine_control *mc)
{
	if (apf_is_paused(machine_apf(mc->m)))
		return "paused";
	return machine_is_running(mc->m) ? "running" : "ending";
}

static void fill_vcpus(const struct machine_control *mc, struct control_status *ret)
{
	ret->vcpu_count = machine_vcpus(mc->m);
	for (unsigned i = 0; i < ret->vcpu_count; i++) {
		machine_vcpu_stats(mc->m, i, &ret->vcpus[i]);
		ret->vcpus_cpu_ns += ret->vcpus[i].cpu_ns;
		ret->exits += ret->vcpus[i].exits;
	}
}

static void status(void *ctx, struct control_status *ret)
{
	struct machine_control *mc = ctx;
	struct apf_error trouble;
	struct err disk;

	apf_counters_get(machine_apf(mc->m), &ret->counters, sizeof(ret->counters));
	if (machine_trouble_get(mc->m, &disk) != 0)
		snprintf(ret->why, sizeof(ret->why), "%s", disk.text);
	else if (apf_trouble_get(machine_apf(mc->m), &trouble) != 0)
		snprintf(ret->why, sizeof(ret->why), "%s", trouble.text);
	machine_note_get(mc->m, ret->note);
	ret->disk_errors = machine_disk_errors(mc->m);
	snprintf(ret->state, sizeof(ret->state), "%s", state_of(mc));
	snprintf(ret->faults, sizeof(ret->faults), "%s", mc->cfg.faults);
	snprintf(ret->abi, sizeof(ret->abi), "%s", mc->cfg.abi ? mc->cfg.abi : "");
	snprintf(ret->io, sizeof(ret->io), "%s", mc->cfg.io);
	snprintf(ret->name, sizeof(ret->name), "%s", mc->cfg.name);
	snprintf(ret->version, sizeof(ret->version), "%s", mc->cfg.version);
	ret->protocol = CONTROL_VERSION;
	ret->pid = mc->pid;
	ret->uptime_ns = monotonic_ns() - mc->start_ns;
	ret->block_bytes = mc->m->cfg.apf.block_bytes;
	ret->snapshot_running = atomic_load(&mc->m->snap.running);
	ret->snapshot_written_bytes = atomic_load(&mc->m->snap.written_bytes);
	ret->snapshot_left_bytes = atomic_load(&mc->m->snap.left_bytes);
	ret->snapshot_paused_ns = atomic_load(&mc->m->snap.paused_ns);
	fill_vcpus(mc, ret);
	if (machine_is_running(mc->m) && !apf_is_paused(machine_apf(mc->m)))
		machine_balloon_refresh(mc->m);
	ret->has_balloon = machine_balloon_stats(mc->m, &ret->balloon);
	ret->has_vsock = machine_vsock_stats(mc->m, &ret->vsock);
	ret->device_count = machine_device_stats(mc->m, ret->devices);
}

static void shared(void *ctx, struct control_status *ret)
{
	const struct machine_control *mc = ctx;
	int64_t bytes = apf_shared_bytes(machine_apf(mc->m));

	ret->has_shared = bytes >= 0;
	ret->shared_bytes = bytes >= 0 ? (uint64_t)bytes : 0;
}

static int pause_vm(void *ctx, struct err *e)
{
	struct machine_control *mc = ctx;

	(void)e;
	machine_pause(mc->m);
	return 0;
}

static int resume_vm(void *ctx, struct err *e)
{
	struct machine_control *mc = ctx;

	(void)e;
	machine_resume(mc->m);
	return 0;
}

static int evict_vm(void *ctx, uint64_t bytes, const atomic_bool *cancel, uint64_t *ret_resident,
		    struct err *e)
{
	struct machine_control *mc = ctx;
	struct apf *apf = machine_apf(mc->m);
	struct apf_counters c;
	struct apf_error ae;
	uint64_t resident, before = UINT64_MAX, goal;

	apf_counters_get(apf, &c, sizeof(c));
	resident = c.resident_bytes;
	do {
		if (atomic_load(cancel))
			return err_set(e, -ECANCELED, "nobody waits for it any more");
		goal = bytes;
		/* Not where a step came to nothing: the guest fetches as fast, or it is pinned. */
		if (resident < before && resident > EVICT_STEP_BYTES)
			goal = max_u64(bytes, resident - EVICT_STEP_BYTES);
		before = resident;
		int rc = apf_evict(apf, goal, &resident, &ae);

		if (rc < 0)
			return err_set(e, rc, "%s", ae.text);
	} while (goal > bytes);
	*ret_resident = resident;
	return 0;
}

static int snapshot_vm(void *ctx, const struct control_request *r, const int *fds,
		       const atomic_bool *cancel, struct err *e)
{
	struct machine_snapshot how = {.keep_running = r->keep_running, .changes = r->has_base};
	struct machine_control *mc = ctx;

	_Static_assert(sizeof(how.base) == sizeof(r->base), "the same");
	memcpy(how.base, r->base, sizeof(how.base));

	return machine_snapshot(mc->m, &how, fds[0], fds[1], cancel, e);
}

/* ---- the balloon ---- */

static int balloon_set(void *ctx, uint64_t bytes, struct err *e)
{
	struct machine_control *mc = ctx;
	uint64_t has = mc->m->cfg.memory_bytes;

	(void)e;
	virtio_balloon_target_set(&mc->m->balloon, bytes < has ? has - bytes : 0);
	return 0;
}

/* How far it is to what the guest was asked for. */
static uint64_t balloon_missing(struct virtio_balloon *b)
{
	uint64_t target = virtio_balloon_target(b), actual = virtio_balloon_actual(b);

	return target > actual ? target - actual : actual - target;
}

static int balloon_stopped(struct machine_control *mc, uint64_t missing, struct err *e)
{
	struct virtio_balloon *b = &mc->m->balloon;
	bool fills = virtio_balloon_target(b) > virtio_balloon_actual(b);
	const uint64_t left = mc->m->cfg.memory_bytes -
			      min_u64(virtio_balloon_actual(b), mc->m->cfg.memory_bytes);

	if (!virtio_mmio_is_driven(&b->mmio))
		return err_set(e, -ENODEV, "the guest has no driver for its balloon: load "
			       "virtio_balloon there; it stays asked for");
	return err_set(e, -EAGAIN, "the guest has %s, and %s %s, for %u s now: %s; it stays "
		       "asked for",
		       SIZE_WORD(left), fills ? "keeps" : "has not taken back",
		       SIZE_WORD(missing), BALLOON_STANDS_S,
		       fills ? "it needs them, or it hangs; leave it more" : "does it hang?");
}

/* Time in which the VM stands still does not count. */
static int balloon_vm(void *ctx, uint64_t bytes, const atomic_bool *cancel, struct err *e)
{
	static const struct timespec step = {.tv_nsec = BALLOON_STEP_MS * (long)NS_PER_MS};
	struct machine_control *mc = ctx;
	uint64_t missing, before = UINT64_MAX, stood_ms = 0;

	(void)balloon_set(ctx, bytes, e);
	while ((missing = balloon_missing(&mc->m->balloon)) > 0) {
		if (missing < before)
			stood_ms = 0;
		before = min_u64(before, missing);
		if (atomic_load(cancel))
			return err_set(e, -ECANCELED, "nobody waits for it any more");
		if (stood_ms > BALLOON_STANDS_S * 1000)
			return balloon_stopped(mc, missing, e);
		(void)nanosleep(&step, NULL);
		if (!apf_is_paused(machine_apf(mc->m)))
			stood_ms += BALLOON_STEP_MS;
	}
	return 0;
}

static int stop_vm(void *ctx, struct err *e)
{
	struct machine_control *mc = ctx;

	(void)e;
	machine_stop(mc->m);
	return 0;
}

static int limit_vm(void *ctx, uint64_t bytes, struct err *e)
{
	struct machine_control *mc = ctx;
	struct apf_error ae;
	int rc = apf_resident_max_set(machine_apf(mc->m), bytes, &ae);

	if (rc < 0)
		return err_set(e, rc, "%s", ae.text);
	/* No limit: the guest may have all of it. */
	if (mc->m->cfg.balloon == MACHINE_BALLOON_FOLLOW)
		return balloon_set(ctx, bytes ? bytes : UINT64_MAX, e);
	return 0;
}

static const struct control_ops ops = {
	.status = status,
	.shared = shared,
	.pause = pause_vm,
	.resume = resume_vm,
	.evict = evict_vm,
	.snapshot = snapshot_vm,
	.balloon_set = balloon_set,
	.balloon = balloon_vm,
	.stop = stop_vm,
	.limit = limit_vm,
};

static void thread_begins(void *ctx)
{
	machine_thread_begins(ctx, MACHINE_THREAD_CONTROL);
}

int machine_control_start(struct machine *m, const struct machine_control_cfg *cfg,
			  struct machine_control **ret, struct err *e)
{
	struct machine_control *mc = calloc(1, sizeof(*mc));
	const struct control_cfg server_cfg = {
		.path = cfg->path, .begins = thread_begins, .begins_ctx = m};
	int rc;

	if (!mc)
		return err_sys(e, -ENOMEM, "control socket: %.80s", cfg->path);
	mc->m = m;
	mc->cfg = *cfg;
	mc->ops = ops;
	if (!m->cfg.apf.swap) {
		mc->ops.evict = NULL;
		mc->ops.limit = NULL;
	}
	if (m->cfg.balloon == MACHINE_BALLOON_OFF) {
		mc->ops.balloon_set = NULL;
		mc->ops.balloon = NULL;
	}
	mc->start_ns = monotonic_ns();
	mc->pid = (uint64_t)getpid();
	rc = control_start(&server_cfg, &mc->ops, mc, &mc->server, e);
	if (rc < 0) {
		free(mc);
		return rc;
	}
	*ret = mc;
	return 0;
}

void machine_control_tell(struct machine_control *mc, enum control_event_kind kind,
			  const char *text)
{
	control_tell(mc->server, kind, text);
}

void machine_control_stop(struct machine_control *mc)
{
	if (!mc)
		return;
	control_stop(mc->server);
	free(mc);
}
