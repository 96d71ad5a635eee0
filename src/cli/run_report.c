/* SPDX-License-Identifier: Apache-2.0 */
/* What `asyncpf run` tells about a run that is over. See run.h. */
#include "cli/json.h"
#include "cli/json_counters.h"
#include "cli/run.h"

static const char *end_name(const struct machine_outcome *out, const struct err *error)
{
	static const char *const names[] = {
		[MACHINE_POWERED_OFF] = "power-off",
		[MACHINE_RESET] = "reset",
		[MACHINE_EXITED] = "exit-port",
		[MACHINE_ESCAPED] = "escape",
		[MACHINE_STOPPED] = "stop",
		[MACHINE_INTERRUPTED] = "signal",
	};

	return error ? "error" : names[out->end];
}

/* Memory taken away, and back. */
static void report_overcommit(const struct apf_counters *s, FILE *to)
{
	const unsigned long long mib = 1 << 20;

	fprintf(to, "resident %llu MiB of at most %llu; evicted %llu, refaulted %llu, rescued %llu "
		"(of both %llu for kernel mode, and %llu read ahead for it); written out %llu, "
		"clean %llu, zeroes %llu\n",
		(unsigned long long)s->resident_bytes / mib,
		(unsigned long long)s->resident_max_bytes / mib, (unsigned long long)s->evicted,
		(unsigned long long)s->refaulted, (unsigned long long)s->rescued,
		(unsigned long long)s->refaults_kernel_mode, (unsigned long long)s->read_ahead,
		(unsigned long long)s->swapped,
		(unsigned long long)s->unmapped_clean, (unsigned long long)s->unmapped_zero);
	fprintf(to, "vCPUs stood still %.3f s: halted %.3f s for kernel mode, %.3f s otherwise\n",
		(double)s->host_wait_ns / 1e9, (double)s->stall_kernel_mode_ns / 1e9,
		(double)s->stall_other_ns / 1e9);
	fprintf(to, "held %llu times to take memory away, %.3f s in all, %.1f ms at most\n",
		(unsigned long long)s->holds, (double)s->hold_ns / 1e9,
		(double)s->hold_max_ns / 1e6);
}

void run_report_stats(const struct machine_outcome *out, FILE *to)
{
	const struct apf_counters *s = &out->stats;
	const unsigned long long mib = 1 << 20;

	fprintf(to, "ran %.3f s, vCPUs %.3f s of CPU time\n", out->wall_s, out->vcpu_cpu_s);
	fprintf(to, "memory %llu MiB, present %llu MiB\n",
		(unsigned long long)s->memory_bytes / mib,
		(unsigned long long)s->present_bytes / mib);
	fprintf(to, "faults %llu: page-missing events %llu, stalls %llu (kernel mode %llu, "
		"interrupts off %llu, slot busy %llu), graced %llu, waited %llu\n",
		(unsigned long long)s->faults_total, (unsigned long long)s->missing_events,
		(unsigned long long)s->stalls, (unsigned long long)s->stalls_kernel_mode,
		(unsigned long long)s->stalls_irqs_off, (unsigned long long)s->stalls_slot_busy,
		(unsigned long long)s->graced, (unsigned long long)s->blocked);
	fprintf(to, "page-ready events %llu, wake-alls %llu\n",
		(unsigned long long)s->ready_events, (unsigned long long)s->wake_alls);
	fprintf(to, "wait for a page: p50 %.3f ms, p99 %.3f ms, at most %.3f ms\n",
		(double)s->wait_p50_ns / 1e6, (double)s->wait_p99_ns / 1e6,
		(double)s->wait_max_ns / 1e6);
	if (s->unmapped > 0)
		report_overcommit(s, to);
}

int run_report_json(const struct run_opts *o, const struct machine_outcome *out,
		    const struct err *error, FILE *to)
{
	bool user = o->machine.apf.faults == APF_FAULTS_USER;
	struct json j;

	json_init(&j, to);
	json_object_open(&j, NULL);
	json_text(&j, "version", APF_VERSION_TEXT);
	json_text(&j, "kernel", o->machine.kernel);
	json_u64(&j, "memory_bytes", o->machine.memory_bytes);
	json_u64(&j, "cpus", o->machine.cpus);
	json_text(&j, "faults", run_faults_names[o->machine.apf.faults]);
	json_text(&j, "abi", user ? run_abi_names[o->machine.apf.abi] : NULL);
	json_text(&j, "end", end_name(out, error));
	json_text(&j, "error", error ? error->text : NULL);
	if (!error && out->end == MACHINE_EXITED)
		json_u64(&j, "exit_port_value", out->status);
	json_f64(&j, "wall_s", out->wall_s);
	json_f64(&j, "vcpu_cpu_s", out->vcpu_cpu_s);
	json_counters(&j, "stats", &out->stats);
	json_close(&j);
	return json_end(&j);
}
