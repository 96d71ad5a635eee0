/* SPDX-License-Identifier: Apache-2.0 */
/* See control_show.h. */
#include "cli/control/control_show.h"

#include <inttypes.h>

#include "base/size.h"
#include "cli/json/json.h"

static void put_size(FILE *out, uint64_t bytes)
{
	fputs(SIZE_TEXT(bytes), out);
}

static void put_wait(FILE *out, const char *name, uint64_t ns)
{
	if (ns < NS_PER_MS)
		fprintf(out, "%s %" PRIu64 " us", name, (uint64_t)(ns / NS_PER_US));
	else if (ns < NS_PER_S)
		fprintf(out, "%s %.2f ms", name, (double)ns / 1e6);
	else
		fprintf(out, "%s %.2f s", name, (double)ns / 1e9);
}

static void put_uptime(FILE *out, uint64_t ns)
{
	uint64_t s = ns / NS_PER_S;

	if (s < 60)
		fprintf(out, "%.1f s\n", (double)ns / 1e9);
	else if (s < 3600)
		fprintf(out, "%" PRIu64 " min %02" PRIu64 " s\n", s / 60, s % 60);
	else
		fprintf(out, "%" PRIu64 " h %02" PRIu64 " min\n", s / 3600, s / 60 % 60);
}

/* Of counters; each line has room for numbers of ten digits on a terminal of 80 columns. */
#define N "%" PRIu64

static void show_memory(const struct apf_counters *c, uint64_t block_bytes, FILE *out)
{
	fputs("memory    ", out);
	put_size(out, c->memory_bytes);
	fputs(": resident ", out);
	put_size(out, c->resident_bytes);
	if (c->resident_max_bytes) {
		fputs(" (at most ", out);
		put_size(out, c->resident_max_bytes);
		fputc(')', out);
	}
	fputs(", absent ", out);
	put_size(out, c->absent_bytes);
	fputs("\nblocks    of ", out);
	put_size(out, block_bytes);
	fputs(", of which\n", out);
	fprintf(out, "unmapped  " N ", " N " of them unchanged, " N " all zeroes\n", c->unmapped,
		c->unmapped_clean, c->unmapped_zero);
	fprintf(out, "evicted   " N ", what was read ahead and not wanted among them\n",
		c->evicted);
	fprintf(out, "returned  " N " rescued, " N " fetched again;\n          " N
		" for kernel mode, and " N " more read ahead\n", c->rescued, c->refaulted,
		c->refaults_kernel_mode, c->read_ahead);
	fputs("swapped   ", out);
	put_size(out, c->swapped_bytes);
	fprintf(out, ", " N " writes in flight, " N " errors\n", c->swap_writes_in_flight,
		c->swap_write_errors);
	fprintf(out, "fetched   " N " reads, ", c->reads);
	put_size(out, c->read_bytes);
	fprintf(out, ", " N " in flight;\n          " N " errors, " N " retries, " N " timeouts\n",
		c->reads_in_flight, c->read_errors, c->read_retries, c->read_timeouts);
}

static void show_faults(const struct apf_counters *c, FILE *out)
{
	fprintf(out, "touches   " N " of absent memory: " N " events, " N " stalls,\n"
		"          " N " in grace, " N " blocked\n", c->faults_total, c->missing_events,
		c->stalls, c->graced, c->blocked);
	put_wait(out, "waits     p50", c->wait_p50_ns);
	put_wait(out, ", p99", c->wait_p99_ns);
	put_wait(out, ", max", c->wait_max_ns);
	put_wait(out, "; vCPUs still for", c->host_wait_ns);
	fprintf(out, "\nstalls    kernel mode " N ", interrupts off " N ",\n          slot busy " N
		", other " N "\n", c->stalls_kernel_mode, c->stalls_irqs_off,
		c->stalls_slot_busy, c->stalls_other);
	put_wait(out, "          for", c->stall_kernel_mode_ns);
	put_wait(out, " in kernel mode,", c->stall_other_ns);
	fprintf(out, " else\nholds     " N, c->holds);
	put_wait(out, " to unmap, for", c->hold_ns);
	put_wait(out, ", the longest", c->hold_max_ns);
	fputc('\n', out);
	fprintf(out, "events    missing " N ", ready " N ", wake-all " N "\n", c->missing_events,
		c->ready_events, c->wake_alls);
}

void control_show_counters(const struct apf_counters *c, uint64_t block_bytes, FILE *out)
{
	show_memory(c, block_bytes, out);
	show_faults(c, out);
}

static void show_vcpus(const struct control_status *s, FILE *out)
{
	fprintf(out, "\n%-8s %12s %12s %12s %12s\n", "vCPU", "missing", "ready", "wake-all",
		"stalls");
	for (unsigned i = 0; i < s->vcpu_count; i++) {
		const struct control_vcpu *v = &s->vcpus[i];

		fprintf(out, "%-8u %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 "\n", i,
			v->missing_events, v->ready_events, v->wake_alls, v->stalls);
	}
}

/* For a column: seconds, as few digits as say something. */
static void put_seconds(FILE *out, uint64_t ns)
{
	fprintf(out, " %10.*f", ns < 1000 * NS_PER_S ? 3 : 0, (double)ns / 1e9);
}

void control_show_devices(const struct device_stats *d, uint64_t count, FILE *out)
{
	fprintf(out, "\n%-8s %12s %10s %10s %10s %10s %10s\n", "device", "requests", "read",
		"written", "held, s", "CPU, s", "dropped");
	for (; count > 0; count--, d++) {
		fprintf(out, "%-8s %12" PRIu64 " %10s %10s", d->name, d->requests,
			SIZE_TEXT(d->read_bytes), SIZE_TEXT(d->written_bytes));
		put_seconds(out, d->throttled_ns);
		put_seconds(out, d->cpu_ns);
		fprintf(out, " %10" PRIu64 "\n", d->dropped);
	}
}

void control_show_served(const struct control_served *v, uint64_t count, FILE *out)
{
	fprintf(out, "\n%-20s %8s %10s %10s %10s %12s\n", "VM", "process", "memory", "placed",
		"removed", "touches");
	for (; count > 0; count--, v++)
		fprintf(out, "%-20.20s %8" PRIu64 " %10s %10s %10s %12" PRIu64 "\n", v->name,
			v->pid, SIZE_TEXT(v->memory_bytes), SIZE_TEXT(v->placed_bytes),
			SIZE_TEXT(v->removed_bytes), v->faults_total);
}

/* For a column. */
static void put_ms(FILE *out, uint64_t ns)
{
	fprintf(out, " %8.*f", ns < 1000 * NS_PER_S ? 2 : 0, (double)ns / 1e6);
}

void control_show_sources(const struct control_source *from, uint64_t count, FILE *out)
{
	const struct control_source *v = from, *end = from + count;

	fprintf(out, "\n%-20s %4s %10s %10s %7s %7s %8s %8s\n", "source", "VMs", "reads", "read",
		"errors", "retries", "mean, ms", "max, ms");
	for (; v < end; v++) {
		fprintf(out, "%-20.20s %4" PRIu64 " %10" PRIu64 " %10s %7" PRIu64 " %7" PRIu64,
			v->name, v->vms, v->reads, SIZE_TEXT(v->read_bytes), v->read_errors,
			v->read_retries);
		put_ms(out, v->reads ? v->read_ns / v->reads : 0);
		put_ms(out, v->read_max_ns);
		fputc('\n', out);
	}
	for (uint64_t i = 0; i < count; i++)
		if (from[i].has_shared)
			fprintf(out, "shared    %s in the page cache, of %.30s's files\n",
				SIZE_TEXT(from[i].shared_bytes), from[i].name);
}

void control_show_balloon(const struct balloon_stats *b, FILE *out)
{
	fputs("balloon   ", out);
	put_size(out, b->balloon_bytes);
	fputs(" of ", out);
	put_size(out, b->balloon_target_bytes);
	fputs(";\n          discarded ", out);
	put_size(out, b->balloon_inflated_bytes);
	fputs(", reported free ", out);
	put_size(out, b->balloon_reported_bytes);
	if (b->balloon_refused)
		fprintf(out, ";\n          " N " pages were no memory, or could not be discarded",
			b->balloon_refused);
	if (b->guest_stats_age_ns) {
		fputs("\nguest     has ", out);
		put_size(out, b->guest_memory_bytes);
		fputs(": free ", out);
		put_size(out, b->guest_free_bytes);
		fputs(", available ", out);
		put_size(out, b->guest_available_bytes);
		fputs(",\n          files ", out);
		put_size(out, b->guest_cache_bytes);
		put_wait(out, "; as of", b->guest_stats_age_ns);
		fputs(" ago", out);
	}
	fputc('\n', out);
}

void control_show_balloon_json(struct json *j, const char *name, const struct balloon_stats *b)
{
	if (!b) {
		json_text(j, name, NULL);
		return;
	}
	json_object_open(j, name);
#define PUT_BALLOON(member, unit, kind, help) json_u64(j, #member, b->member);
	BALLOON_STATS(PUT_BALLOON)
	json_close(j);
}

void control_show_vsock(const struct vsock_stats *v, FILE *out)
{
	fprintf(out, "vsock     " N " open, " N " ever; " N " refused, " N " reset\n",
		v->vsock_connections, v->vsock_opened, v->vsock_refused, v->vsock_resets);
}

void control_show_vsock_json(struct json *j, const char *name, const struct vsock_stats *v)
{
	if (!v) {
		json_text(j, name, NULL);
		return;
	}
	json_object_open(j, name);
#define PUT_VSOCK(member, unit, kind, help) json_u64(j, #member, v->member);
	VSOCK_STATS(PUT_VSOCK)
	json_close(j);
}

void control_show_text(const struct control_status *s, FILE *out)
{
	if (*s->name)
		fprintf(out, "name      %s\n", s->name);
	fprintf(out, "state     %s%s%s\n", s->state, *s->why ? ": " : "", s->why);
	if (*s->note)
		fprintf(out, "note      %s\n", s->note);
	fprintf(out, "faults    %s%s%s\n", s->faults, *s->abi ? ", protocol " : "", s->abi);
	if (*s->io)
		fprintf(out, "io        by %s\n", s->io);
	fputs("uptime    ", out);
	put_uptime(out, s->uptime_ns);
	if (s->has_shared)
		fprintf(out, "shared    %s in the page cache, of the files memory comes from\n",
			SIZE_TEXT(s->shared_bytes));
	control_show_counters(&s->counters, s->block_bytes, out);
	if (s->snapshot_running)
		fprintf(out, "snapshot  %s written, %s of this pass are left\n",
			SIZE_TEXT(s->snapshot_written_bytes), SIZE_TEXT(s->snapshot_left_bytes));
	if (s->disk_errors)
		fprintf(out, "disks     %" PRIu64 " times the host failed to read or write\n",
			s->disk_errors);
	if (s->has_balloon)
		control_show_balloon(&s->balloon, out);
	if (s->has_vsock)
		control_show_vsock(&s->vsock, out);
	if (s->vcpu_count)
		show_vcpus(s, out);
	if (s->device_count)
		control_show_devices(s->devices, s->device_count, out);
	if (s->served_count)
		control_show_served(s->served, s->served_count, out);
	if (s->source_count)
		control_show_sources(s->sources, s->source_count, out);
}

static void put_keys(struct json *j, const struct control_key *k, const void *base)
{
	for (; k->name; k++) {
		if (!control_key_is_there(k, base))
			json_text(j, k->name, NULL);
		else if (k->text_max)
			json_text(j, k->name, control_key_text(k, base));
		else
			json_u64(j, k->name, control_key_number(k, base));
	}
}

/* Rows of `size` bytes each, which begin with their names. */
static void put_named(struct json *j, const char *name, const struct control_key *keys,
		      const void *rows, size_t size, uint64_t count)
{
	json_array_open(j, name);
	for (const char *row = rows; count > 0; count--, row += size) {
		json_object_open(j, NULL);
		json_text(j, "name", row);
		put_keys(j, keys, row);
		json_close(j);
	}
	json_close(j);
}

void control_show_devices_json(struct json *j, const char *name, const struct device_stats *d,
			       uint64_t count)
{
	put_named(j, name, control_device_keys, d, sizeof(*d), count);
}

void control_show_vcpus_json(struct json *j, const char *name, const struct control_vcpu *v,
			     uint64_t count)
{
	json_array_open(j, name);
	for (; count > 0; count--, v++) {
		json_object_open(j, NULL);
		put_keys(j, control_vcpu_keys, v);
		json_close(j);
	}
	json_close(j);
}

int control_show_event_json(const struct control_event *ev, FILE *out)
{
	const struct control_event_row *row = &control_event_rows[ev->kind];
	struct json j;

	json_init(&j, out);
	j.compact = true;
	json_object_open(&j, NULL);
	json_text(&j, "event", row->name);
	for (unsigned i = 0; control_event_keys[i].name; i++)
		if (row->keys >> i & 1)
			json_u64(&j, control_event_keys[i].name,
				 control_key_number(&control_event_keys[i], ev));
	if (*ev->text)
		json_text(&j, "text", ev->text);
	json_close(&j);
	return json_end(&j);
}

void control_show_served_json(struct json *j, const char *name, const struct control_served *v,
			      uint64_t count)
{
	put_named(j, name, control_served_keys, v, sizeof(*v), count);
}

void control_show_sources_json(struct json *j, const char *name, const struct control_source *v,
			       uint64_t count)
{
	put_named(j, name, control_source_keys, v, sizeof(*v), count);
}

int control_show_json(const struct control_status *s, FILE *out)
{
	struct json j;

	json_init(&j, out);
	j.compact = true;
	json_object_open(&j, NULL);
	put_keys(&j, control_status_keys, s);
	control_show_vcpus_json(&j, "vcpus", s->vcpus, s->vcpu_count);
	control_show_devices_json(&j, "devices", s->devices, s->device_count);
	control_show_served_json(&j, "served", s->served, s->served_count);
	control_show_sources_json(&j, "sources", s->sources, s->source_count);
	json_close(&j);
	return json_end(&j);
}
