/* SPDX-License-Identifier: Apache-2.0 */
/* What `asyncpf run` tells about a run that is over. See run.h. */
#include "cli/json.h"
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
static void report_overcommit(const struct apf_stats *s, FILE *to)
{
	const unsigned long long mib = 1 << 20;

	fprintf(to, "resident %llu MiB of at most %llu; evicted %llu, refaulted %llu, rescued %llu "
		"(of both %llu for kernel mode, and %llu read ahead for it); written out %llu, "
		"clean %llu, zeroes %llu\n",
		(unsigned long long)s->bytes_resident / mib,
		(unsigned long long)s->resident_max / mib, (unsigned long long)s->evicted,
		(unsigned long long)s->refaulted, (unsigned long long)s->rescued,
		(unsigned long long)s->refaults_kernel_mode, (unsigned long long)s->read_ahead,
		(unsigned long long)s->swapped,
		(unsigned long long)s->unmapped_clean, (unsigned long long)s->unmapped_zero);
	fprintf(to, "vCPUs stood still %.3f s: halted %.3f s for kernel mode, %.3f s otherwise\n",
		(double)s->host_wait_ns / 1e9, (double)s->stall_ns_kernel_mode / 1e9,
		(double)s->stall_ns_other / 1e9);
	fprintf(to, "held %llu times to take memory away, %.3f s in all, %.1f ms at most\n",
		(unsigned long long)s->holds, (double)s->hold_ns / 1e9,
		(double)s->hold_ns_max / 1e6);
}

void run_report_stats(const struct machine_outcome *out, FILE *to)
{
	const struct apf_stats *s = &out->stats;
	const unsigned long long mib = 1 << 20;

	fprintf(to, "ran %.3f s, vCPUs %.3f s of CPU time\n", out->wall_s, out->vcpu_cpu_s);
	fprintf(to, "memory %llu MiB, present %llu MiB\n", (unsigned long long)s->bytes / mib,
		(unsigned long long)s->bytes_present / mib);
	fprintf(to, "faults %llu: page-missing events %llu, stalls %llu (kernel mode %llu, "
		"interrupts off %llu, slot busy %llu), graced %llu, waited %llu\n",
		(unsigned long long)s->faults, (unsigned long long)s->missing_events,
		(unsigned long long)s->stalls, (unsigned long long)s->stalls_kernel_mode,
		(unsigned long long)s->stalls_irqs_off, (unsigned long long)s->stalls_slot_busy,
		(unsigned long long)s->graced, (unsigned long long)s->blocked);
	fprintf(to, "page-ready events %llu, wake-alls %llu\n",
		(unsigned long long)s->ready_events, (unsigned long long)s->wake_alls);
	fprintf(to, "wait for a page: p50 %.3f ms, p99 %.3f ms, at most %.3f ms\n",
		(double)s->wait_us_p50 / 1e3, (double)s->wait_us_p99 / 1e3,
		(double)s->wait_us_max / 1e3);
	if (s->unmapped > 0)
		report_overcommit(s, to);
}

static void json_stats(struct json *j, const struct apf_stats *s)
{
	json_object_open(j, "stats");
	json_u64(j, "bytes", s->bytes);
	json_u64(j, "bytes_present", s->bytes_present);
	json_u64(j, "faults", s->faults);
	json_u64(j, "redundant", s->redundant);
	json_u64(j, "joined", s->joined);
	json_u64(j, "graced", s->graced);
	json_u64(j, "blocked", s->blocked);
	json_u64(j, "missing_events", s->missing_events);
	json_u64(j, "ready_events", s->ready_events);
	json_u64(j, "wake_alls", s->wake_alls);
	json_u64(j, "stalls", s->stalls);
	json_u64(j, "stalls_kernel_mode", s->stalls_kernel_mode);
	json_u64(j, "stalls_irqs_off", s->stalls_irqs_off);
	json_u64(j, "stalls_slot_busy", s->stalls_slot_busy);
	json_u64(j, "stalls_other", s->stalls_other);
	json_u64(j, "ready_refused", s->ready_refused);
	json_u64(j, "rechecks", s->rechecks);
	json_f64(j, "host_wait_s", (double)s->host_wait_ns / 1e9);
	json_u64(j, "reads", s->reads);
	json_u64(j, "read_errors", s->read_errors);
	json_u64(j, "retries", s->retries);
	json_u64(j, "read_timeouts", s->read_timeouts);
	json_u64(j, "bytes_read", s->bytes_read);
	json_u64(j, "overhead_bytes", s->overhead_bytes);
	json_u64(j, "wait_us_p50", s->wait_us_p50);
	json_u64(j, "wait_us_p99", s->wait_us_p99);
	json_u64(j, "wait_us_max", s->wait_us_max);
	json_u64(j, "bytes_resident", s->bytes_resident);
	json_u64(j, "resident_max", s->resident_max);
	json_u64(j, "unmapped", s->unmapped);
	json_u64(j, "unmapped_clean", s->unmapped_clean);
	json_u64(j, "unmapped_zero", s->unmapped_zero);
	json_u64(j, "swapped", s->swapped);
	json_u64(j, "rescued", s->rescued);
	json_u64(j, "evicted", s->evicted);
	json_u64(j, "refaulted", s->refaulted);
	json_u64(j, "refaults_kernel_mode", s->refaults_kernel_mode);
	json_u64(j, "read_ahead", s->read_ahead);
	json_u64(j, "swap_writes", s->swap_writes);
	json_u64(j, "swap_write_errors", s->swap_write_errors);
	json_u64(j, "bytes_swapped", s->bytes_swapped);
	json_f64(j, "stall_s_kernel_mode", (double)s->stall_ns_kernel_mode / 1e9);
	json_f64(j, "stall_s_other", (double)s->stall_ns_other / 1e9);
	json_u64(j, "holds", s->holds);
	json_f64(j, "hold_s", (double)s->hold_ns / 1e9);
	json_f64(j, "hold_s_max", (double)s->hold_ns_max / 1e9);
	json_close(j);
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
		json_u64(&j, "exit_port_status", out->status);
	json_f64(&j, "wall_s", out->wall_s);
	json_f64(&j, "vcpu_cpu_s", out->vcpu_cpu_s);
	json_stats(&j, &out->stats);
	json_close(&j);
	return json_end(&j);
}
