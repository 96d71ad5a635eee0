/* SPDX-License-Identifier: Apache-2.0 */
/* See control_show.h. */
#include "cli/control_show.h"

#include <inttypes.h>

#include "cli/json.h"

const char *control_size_text(uint64_t bytes, char buf[static CONTROL_SIZE_TEXT])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	double v = (double)bytes;
	unsigned u = 0;

	/* What would be rounded to 1024.0 is 1.0 of the next. */
	for (; v >= 1023.95 && u < ARRAY_LEN(units) - 1; u++)
		v /= 1024;
	snprintf(buf, CONTROL_SIZE_TEXT, "%.*f %s", u ? 1 : 0, v, units[u]);
	return buf;
}

static void put_size(FILE *out, uint64_t bytes)
{
	char text[CONTROL_SIZE_TEXT];

	fputs(control_size_text(bytes, text), out);
}

static void put_wait(FILE *out, const char *name, uint64_t us)
{
	if (us < 1000)
		fprintf(out, "%s %" PRIu64 " us", name, us);
	else if (us < 10 * 1000 * 1000)
		fprintf(out, "%s %.2f ms", name, (double)us / 1e3);
	else
		fprintf(out, "%s %.1f s", name, (double)us / 1e6);
}

static void put_uptime(FILE *out, uint64_t ms)
{
	uint64_t s = ms / 1000;

	if (s < 60)
		fprintf(out, "%.1f s\n", (double)ms / 1e3);
	else if (s < 3600)
		fprintf(out, "%" PRIu64 " min %02" PRIu64 " s\n", s / 60, s % 60);
	else
		fprintf(out, "%" PRIu64 " h %02" PRIu64 " min\n", s / 3600, s / 60 % 60);
}

static void show_memory(const struct control_status *s, FILE *out)
{
	fputs("memory    ", out);
	put_size(out, s->memory_bytes);
	fputs(": resident ", out);
	put_size(out, s->resident_bytes);
	if (s->resident_max_bytes) {
		fputs(" (at most ", out);
		put_size(out, s->resident_max_bytes);
		fputc(')', out);
	}
	fputs(", absent ", out);
	put_size(out, s->absent_bytes);
	fputs(", blocks of ", out);
	put_size(out, s->block_bytes);
	fprintf(out, "\nunmapped  %" PRIu64 " blocks: %" PRIu64 " unchanged, %" PRIu64
		" all zeroes; %" PRIu64 " evicted\n",
		s->unmapped, s->unmapped_clean, s->unmapped_zero, s->evicted);
	fprintf(out, "returned  %" PRIu64 " rescued, %" PRIu64 " fetched again; %" PRIu64
		" of them for kernel mode, %" PRIu64 " read ahead\n",
		s->rescued, s->refaulted, s->refaults_kernel_mode, s->read_ahead);
	fputs("swapped   ", out);
	put_size(out, s->swapped_bytes);
	fprintf(out, ", %" PRIu64 " writes in flight, %" PRIu64 " errors\n", s->writes_in_flight,
		s->swap_write_errors);
	fprintf(out, "fetched   %" PRIu64 " reads, ", s->reads);
	put_size(out, s->read_bytes);
	fprintf(out, ", %" PRIu64 " in flight; %" PRIu64 " errors, %" PRIu64 " retries, %" PRIu64
		" timeouts\n",
		s->reads_in_flight, s->read_errors, s->read_retries, s->read_timeouts);
}

static void show_faults(const struct control_status *s, FILE *out)
{
	fprintf(out, "touches   %" PRIu64 " of absent memory: %" PRIu64 " events, %" PRIu64
		" stalls, %" PRIu64 " in grace, %" PRIu64 " blocked\n",
		s->faults_total, s->missing_events, s->stalls, s->graced, s->blocked);
	put_wait(out, "waits     p50", s->wait_us_p50);
	put_wait(out, ", p99", s->wait_us_p99);
	put_wait(out, ", max", s->wait_us_max);
	put_wait(out, "; vCPUs still for", s->host_wait_us);
	fprintf(out, "\nstalls    kernel mode %" PRIu64 ", interrupts off %" PRIu64
		", slot busy %" PRIu64 ", other %" PRIu64 "\n",
		s->stalls_kernel_mode, s->stalls_irqs_off, s->stalls_slot_busy, s->stalls_other);
	put_wait(out, "          for", s->stall_us_kernel_mode);
	put_wait(out, " in kernel mode,", s->stall_us_other);
	fprintf(out, " else\nholds     %" PRIu64, s->holds);
	put_wait(out, " to unmap, for", s->hold_us);
	put_wait(out, ", the longest", s->hold_us_max);
	fputc('\n', out);
	fprintf(out, "events    missing %" PRIu64 ", ready %" PRIu64 ", wake-all %" PRIu64 "\n",
		s->missing_events, s->ready_events, s->wake_alls);
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

void control_show_text(const struct control_status *s, FILE *out)
{
	fprintf(out, "state     %s%s%s\n", s->state, *s->why ? ": " : "", s->why);
	fprintf(out, "faults    %s%s%s\n", s->faults, *s->abi ? ", protocol " : "", s->abi);
	fputs("uptime    ", out);
	put_uptime(out, s->uptime_ms);
	show_memory(s, out);
	show_faults(s, out);
	if (s->vcpu_count)
		show_vcpus(s, out);
}

static void put_keys(struct json *j, const struct control_key *k, const void *base)
{
	for (; k->name; k++) {
		if (!k->text_max)
			json_u64(j, k->name, control_key_number(k, base));
		else
			json_text(j, k->name, *control_key_text(k, base)
						      ? control_key_text(k, base) : NULL);
	}
}

int control_show_json(const struct control_status *s, FILE *out)
{
	struct json j;

	json_init(&j, out);
	j.compact = true;
	json_object_open(&j, NULL);
	put_keys(&j, control_status_keys, s);
	json_array_open(&j, "vcpus");
	for (unsigned i = 0; i < s->vcpu_count; i++) {
		json_object_open(&j, NULL);
		put_keys(&j, control_vcpu_keys, &s->vcpus[i]);
		json_close(&j);
	}
	json_close(&j);
	json_close(&j);
	return json_end(&j);
}
