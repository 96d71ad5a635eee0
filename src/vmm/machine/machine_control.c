/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_control.h. */
#include "vmm/machine/machine_control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "vmm/control/control_proto.h"
#include "vmm/machine/machine_parts.h"
#include "vmm/machine/machine_snap.h"

/* One command of the library evicts so much, so that it need not be waited for to cancel. */
#define EVICT_STEP_BYTES (16ull << 20)

_Static_assert(CONTROL_DEVICES_MAX >= MACHINE_DEVICES_MAX, "each has a line");

struct machine_control {
	struct machine *m;
	struct control *server;
	struct machine_control_cfg cfg;
	struct control_ops ops;
	uint64_t start_ns;
	uint64_t pid;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

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
	ret->uptime_ns = now_ns() - mc->start_ns;
	ret->block_bytes = mc->m->cfg.apf.block_bytes;
	fill_vcpus(mc, ret);
	ret->device_count = machine_device_stats(mc->m, ret->devices);
}

static int pause_vm(void *ctx, struct err *e)
{
	struct machine_control *mc = ctx;

	(void)e;
	apf_pause(machine_apf(mc->m));
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

static int snapshot_vm(void *ctx, int state_fd, int memory_fd, const atomic_bool *cancel,
		       struct err *e)
{
	struct machine_control *mc = ctx;

	return machine_snapshot(mc->m, state_fd, memory_fd, cancel, e);
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

	return rc < 0 ? err_set(e, rc, "%s", ae.text) : 0;
}

static const struct control_ops ops = {
	.status = status,
	.pause = pause_vm,
	.resume = resume_vm,
	.evict = evict_vm,
	.snapshot = snapshot_vm,
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
	mc->start_ns = now_ns();
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
