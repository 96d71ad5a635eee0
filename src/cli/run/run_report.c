/* SPDX-License-Identifier: Apache-2.0 */
/* What `asyncpf run` tells about a run that is over. See run.h. */
#include <unistd.h>

#include "cli/cli.h"
#include "cli/control/control_show.h"
#include "cli/json/json.h"
#include "cli/json/json_counters.h"
#include "cli/json/json_file.h"
#include "cli/run/run.h"

const char *run_end_name(const struct machine_outcome *out, const struct err *error)
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
	if (out->has_balloon)
		control_show_balloon(&out->balloon, to);
	if (out->has_vsock)
		control_show_vsock(&out->vsock, to);
	control_show_devices(out->devices, out->devices_count, to);
}

static void put_vcpus(struct json *j, const struct control_vcpu *v, unsigned count)
{
	uint64_t cpu_ns = 0, exits = 0;

	for (unsigned i = 0; i < count; i++) {
		cpu_ns += v[i].cpu_ns;
		exits += v[i].exits;
	}
	json_u64(j, "vcpus_cpu_ns", cpu_ns);
	json_u64(j, "exits", exits);
	control_show_vcpus_json(j, "vcpus", v, count);
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
	json_text(&j, "name", o->name);
	json_u64(&j, "pid", (uint64_t)getpid());
	json_text(&j, "kernel", o->machine.kernel);
	json_u64(&j, "memory_bytes", o->machine.memory_bytes);
	json_u64(&j, "cpus", o->machine.cpus);
	json_text(&j, "faults", run_faults_names[o->machine.apf.faults]);
	json_text(&j, "abi", user ? run_abi_names[o->machine.apf.abi] : NULL);
	json_text(&j, "io", cli_io_names[out->io]);
	json_text(&j, "end", run_end_name(out, error));
	json_text(&j, "error", error ? error->text : NULL);
	if (!error && out->end == MACHINE_EXITED)
		json_u64(&j, "exit_port_value", out->status);
	json_f64(&j, "wall_s", out->wall_s);
	json_f64(&j, "vcpu_cpu_s", out->vcpu_cpu_s);
	/* From here on as `asyncpf status --json` has it. */
	json_u64(&j, "uptime_ns", (uint64_t)(out->wall_s * (double)NS_PER_S));
	json_u64(&j, "block_bytes", o->machine.apf.block_bytes);
	json_u64(&j, "disk_errors", out->disk_errors);
	put_vcpus(&j, out->vcpus, o->machine.cpus);
	json_counters(&j, "stats", &out->stats);
	control_show_balloon_json(&j, "balloon", out->has_balloon ? &out->balloon : NULL);
	control_show_vsock_json(&j, "vsock", out->has_vsock ? &out->vsock : NULL);
	control_show_devices_json(&j, "devices", out->devices, out->devices_count);
	json_close(&j);
	return json_end(&j);
}
