/* SPDX-License-Identifier: Apache-2.0 */
/* What `asyncpf run` tells about a run that is over. See run.h. */
#include "cli/cli.h"
#include "cli/control/control_show.h"
#include "cli/json/json.h"
#include "cli/json/json_counters.h"
#include "cli/json/json_file.h"
#include "cli/run/run.h"

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

void run_report_stats(const struct run_opts *o, const struct machine_outcome *out, FILE *to)
{
	fprintf(to, "ran %.3f s, vCPUs %.3f s of CPU time\n", out->wall_s, out->vcpu_cpu_s);
	control_show_counters(&out->stats, o->machine.apf.block_bytes, to);
	control_show_devices(out->devices, out->devices_count, to);
}

int run_report_json(const struct run_opts *o, const struct machine_outcome *out,
		    const struct err *error, FILE *to)
{
	bool user = o->machine.apf.faults == APF_FAULTS_USER;
	struct json j;

	json_init(&j, to);
	/* Behind what the guest printed: one line, the last. */
	j.compact = json_file_is_stdout(o->json);
	if (j.compact)
		fputc('\n', to);
	json_object_open(&j, NULL);
	json_text(&j, "version", APF_VERSION_TEXT);
	json_text(&j, "kernel", o->machine.kernel);
	json_u64(&j, "memory_bytes", o->machine.memory_bytes);
	json_u64(&j, "cpus", o->machine.cpus);
	json_text(&j, "faults", run_faults_names[o->machine.apf.faults]);
	json_text(&j, "abi", user ? run_abi_names[o->machine.apf.abi] : NULL);
	json_text(&j, "io", cli_io_names[out->io]);
	json_text(&j, "end", end_name(out, error));
	json_text(&j, "error", error ? error->text : NULL);
	if (!error && out->end == MACHINE_EXITED)
		json_u64(&j, "exit_port_value", out->status);
	json_f64(&j, "wall_s", out->wall_s);
	json_f64(&j, "vcpu_cpu_s", out->vcpu_cpu_s);
	json_counters(&j, "stats", &out->stats);
	control_show_devices_json(&j, "devices", out->devices, out->devices_count);
	json_close(&j);
	return json_end(&j);
}
