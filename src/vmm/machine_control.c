/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_control.h. */
#include "vmm/machine_control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "vmm/machine_parts.h"

/* One command of the library evicts so much, so that it need not be waited for to cancel. */
#define EVICT_STEP_BYTES (16ull << 20)

struct machine_control {
	struct machine *m;
	struct control *server;
	struct machine_control_cfg cfg;
	struct control_ops ops;
	uint64_t start_ms;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / NS_PER_MS;
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
		struct apf_vcpu_stats s = {.size = sizeof(s)};

		apf_vcpu_stats_get(machine_vcpu(mc->m, i), &s);
		ret->vcpus[i] = (struct control_vcpu){
			.missing_events = s.missing_events,
			.ready_events = s.ready_events,
			.wake_alls = s.wake_alls,
			.stalls = s.stalls,
		};
	}
}

static void fill_memory(const struct apf_stats *s, struct control_status *ret)
{
	ret->memory_bytes = s->bytes;
	ret->resident_bytes = s->bytes_resident;
	ret->absent_bytes = s->bytes - s->bytes_resident;
	ret->resident_max_bytes = s->resident_max;
	ret->unmapped = s->unmapped;
	ret->unmapped_clean = s->unmapped_clean;
	ret->unmapped_zero = s->unmapped_zero;
	ret->rescued = s->rescued;
	ret->evicted = s->evicted;
	ret->refaulted = s->refaulted;
	ret->refaults_kernel_mode = s->refaults_kernel_mode;
	ret->read_ahead = s->read_ahead;
	ret->writes_in_flight = s->writes_in_flight;
	ret->swap_write_errors = s->swap_write_errors;
	ret->swapped_bytes = s->bytes_swapped;
	ret->reads_in_flight = s->reads_in_flight;
	ret->overhead_bytes = s->overhead_bytes;
	ret->reads = s->reads;
	ret->read_bytes = s->bytes_read;
	ret->read_errors = s->read_errors;
	ret->read_retries = s->retries;
	ret->read_timeouts = s->read_timeouts;
}

static void fill_faults(const struct apf_stats *s, struct control_status *ret)
{
	ret->faults_total = s->faults;
	ret->graced = s->graced;
	ret->blocked = s->blocked;
	ret->host_wait_us = s->host_wait_ns / NS_PER_US;
	ret->missing_events = s->missing_events;
	ret->ready_events = s->ready_events;
	ret->wake_alls = s->wake_alls;
	ret->stalls = s->stalls;
	ret->stalls_kernel_mode = s->stalls_kernel_mode;
	ret->stalls_irqs_off = s->stalls_irqs_off;
	ret->stalls_slot_busy = s->stalls_slot_busy;
	ret->stalls_other = s->stalls_other;
	ret->stall_us_kernel_mode = s->stall_ns_kernel_mode / NS_PER_US;
	ret->stall_us_other = s->stall_ns_other / NS_PER_US;
	ret->holds = s->holds;
	ret->hold_us = s->hold_ns / NS_PER_US;
	ret->hold_us_max = s->hold_ns_max / NS_PER_US;
	ret->wait_us_p50 = s->wait_us_p50;
	ret->wait_us_p99 = s->wait_us_p99;
	ret->wait_us_max = s->wait_us_max;
}

static void status(void *ctx, struct control_status *ret)
{
	struct machine_control *mc = ctx;
	struct apf_stats s = {.size = sizeof(s)};
	struct apf_error trouble;

	apf_stats_get(machine_apf(mc->m), &s);
	if (apf_trouble_get(machine_apf(mc->m), &trouble) != 0)
		snprintf(ret->why, sizeof(ret->why), "%s", trouble.text);
	snprintf(ret->state, sizeof(ret->state), "%s", state_of(mc));
	snprintf(ret->faults, sizeof(ret->faults), "%s", mc->cfg.faults);
	snprintf(ret->abi, sizeof(ret->abi), "%s", mc->cfg.abi ? mc->cfg.abi : "");
	ret->uptime_ms = now_ms() - mc->start_ms;
	ret->block_bytes = mc->m->cfg.apf.block_bytes;
	fill_memory(&s, ret);
	fill_faults(&s, ret);
	fill_vcpus(mc, ret);
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
	apf_resume(machine_apf(mc->m));
	return 0;
}

static int evict_vm(void *ctx, uint64_t bytes, const atomic_bool *cancel, struct err *e)
{
	struct machine_control *mc = ctx;
	struct apf *apf = machine_apf(mc->m);
	struct apf_stats s = {.size = sizeof(s)};
	struct apf_error ae;
	uint64_t resident, before = UINT64_MAX, goal;

	apf_stats_get(apf, &s);
	resident = s.bytes_resident;
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
	return 0;
}

static int stop_vm(void *ctx, struct err *e)
{
	struct machine_control *mc = ctx;

	(void)e;
	machine_stop(mc->m);
	return 0;
}

static const struct control_ops ops = {
	.status = status,
	.pause = pause_vm,
	.resume = resume_vm,
	.evict = evict_vm,
	.stop = stop_vm,
};

int machine_control_start(struct machine *m, const struct machine_control_cfg *cfg,
			  struct machine_control **ret, struct err *e)
{
	struct machine_control *mc = calloc(1, sizeof(*mc));
	const struct control_cfg server_cfg = {.path = cfg->path};
	int rc;

	if (!mc)
		return err_sys(e, -ENOMEM, "control socket: %.80s", cfg->path);
	mc->m = m;
	mc->cfg = *cfg;
	mc->ops = ops;
	if (!m->cfg.apf.swap)
		mc->ops.evict = NULL;
	mc->start_ms = now_ms();
	rc = control_start(&server_cfg, &mc->ops, mc, &mc->server, e);
	if (rc < 0) {
		free(mc);
		return rc;
	}
	*ret = mc;
	return 0;
}

void machine_control_stop(struct machine_control *mc)
{
	if (!mc)
		return;
	control_stop(mc->server);
	free(mc);
}
