/* SPDX-License-Identifier: Apache-2.0 */
/* See demo_report.h. Every number is measured; what a run cannot know is "-" and null. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hist.h"
#include "cli/cli.h"
#include "cli/demo/demo_report.h"
#include "cli/json/json.h"
#include "cli/json/json_counters.h"
#include "cli/json/json_file.h"

static double per_second(const struct demo_result *d)
{
	return d->out.wall_s > 0 ? (double)d->pages / d->out.wall_s : 0;
}

/* Time that vCPUs were not running, as a share of the time they had. */
static double still_s(const struct demo_result *d, uint32_t vcpus)
{
	double s = d->out.wall_s * vcpus - d->out.vcpu_cpu_s;

	return s > 0 ? s : 0;
}

static uint64_t wait_max_us(const struct demo_result *d)
{
	uint64_t max = 0;

	for (unsigned t = 0; t < SMALL_TASKS_MAX; t++)
		max = max_u64(max, d->out.results.task[t].wait_us_max);
	return max;
}

static bool is_kernel(const struct demo_result *d)
{
	return d->run == DEMO_RUN_KERNEL;
}

static const struct demo_result *find(const struct demo_report *r, enum demo_run run)
{
	for (unsigned i = 0; i < r->count; i++)
		if (r->results[i].run == run)
			return &r->results[i];
	return NULL;
}

/* Rows end in yes or NO: every byte was right, or not. */
static void print_row(const struct demo_report *r, const struct demo_result *d, FILE *out)
{
	const struct demo_result *block = find(r, DEMO_RUN_BLOCK);
	const uint32_t *hist = d->out.results.hist;
	uint64_t max = wait_max_us(d);
	char ratio[24] = "-";

	if (block && per_second(block) > 0)
		snprintf(ratio, sizeof(ratio), "%.2f", per_second(d) / per_second(block));
	fprintf(out, "%-15s %7.3f %7.0f %7s %4.0f%% %8.2f %8.2f %8.2f  %s\n",
		demo_run_name(d->run), d->out.wall_s, per_second(d), ratio,
		d->out.wall_s > 0 ? 100.0 * still_s(d, r->opts->vcpus) /
					    (d->out.wall_s * r->opts->vcpus)
				  : 0.0,
		(double)hist_quantile(hist, 50, 100, max) / 1000.0,
		(double)hist_quantile(hist, 99, 100, max) / 1000.0, (double)max / 1000.0,
		d->verified ? "yes" : "NO");
}

static void print_events(const struct demo_result *d, FILE *out)
{
	char stalls[24] = "-";

	if (!is_kernel(d))
		snprintf(stalls, sizeof(stalls), "%llu", (unsigned long long)d->out.stats.stalls);
	fprintf(out, "%-15s %12llu %12llu %12s\n", demo_run_name(d->run),
		(unsigned long long)d->missing, (unsigned long long)d->ready, stalls);
}

/* Iterations per second of the counting task, over the time it counted; 0 if there is none. */
static double count_per_s(const struct demo_result *d)
{
	const struct small_task_result *t = &d->out.results.task[0];

	if (t->count == 0 || t->count_tsc == 0)
		return 0;
	return (double)t->count / ((double)t->count_tsc / ((double)d->out.tsc_khz * 1000.0));
}

static void print_counters(const struct demo_report *r, FILE *out)
{
	for (unsigned i = 0; i < r->count; i++) {
		const struct demo_result *d = &r->results[i];

		if (count_per_s(d) > 0)
			fprintf(out, "%-15s the counting task: %.1f million iterations/s\n",
				demo_run_name(d->run), count_per_s(d) / 1e6);
		if (r->opts->pattern == SMALL_IDLE && d->out.wall_s > 0)
			fprintf(out, "%-15s an idle guest: %.2f %% of a CPU\n",
				demo_run_name(d->run),
				100.0 * d->out.process_cpu_s / d->out.wall_s);
	}
}

static const char *verdict(uint64_t ok, uint64_t wrong, uint64_t lost)
{
	if (lost)
		return "event lost";
	if (wrong)
		return "real fault misread";
	return ok ? "both seen" : "-";
}

static void print_collisions(const struct demo_report *r, FILE *out)
{
	if (r->collision_count == 0)
		return;
	fprintf(out,
		"\nA page-ready event meets a real page fault (the guest counted "
		"ok/wrong/lost):\n"
		"%-10s %-34s %s\n",
		"abi", "handler open to events before CR2", "event due while interrupts are off");
	for (unsigned i = 0; i < r->collision_count; i++) {
		const struct demo_collision *c = &r->collisions[i];
		char open[64];

		snprintf(open, sizeof(open), "%s (%llu/%llu/%llu)",
			 verdict(c->open_ok, c->open_wrong, c->open_lost),
			 (unsigned long long)c->open_ok, (unsigned long long)c->open_wrong,
			 (unsigned long long)c->open_lost);
		fprintf(out, "%-10s %-34s %s (%llu/%llu/%llu)\n", c->abi, open,
			verdict(c->masked_ok, c->masked_wrong, c->masked_lost),
			(unsigned long long)c->masked_ok, (unsigned long long)c->masked_wrong,
			(unsigned long long)c->masked_lost);
	}
}

/* The faster of those that stand still, and the fastest of those that the guest is told of. */
static const struct demo_result *pick(const struct demo_report *r, bool told)
{
	const struct demo_result *best = NULL;

	for (unsigned i = 0; i < r->count; i++) {
		const struct demo_result *d = &r->results[i];
		bool is_told = d->run != DEMO_RUN_BLOCK && d->run != DEMO_RUN_STALL;

		if (is_told == told && (!best || per_second(d) > per_second(best)))
			best = d;
	}
	return best;
}

void demo_sentence(const struct demo_report *r, char *ret, size_t room)
{
	const struct demo_result *still = pick(r, false), *told = pick(r, true);
	const struct demo_result *best = told ? told : still;
	unsigned right = 0;

	*ret = '\0';
	for (unsigned i = 0; i < r->count; i++)
		right += r->results[i].verified;
	if (!best)
		return;
	if (right < r->count)
		snprintf(ret, room, "Shown: of %u runs %u did not give the guest what it must "
			 "have; see above, and docs/caveats.md.", r->count, r->count - right);
	else if (still && told && per_second(still) > 0)
		snprintf(ret, room, "Shown: while a page is fetched, a guest that is told of it "
			 "(%s) does other work, and reads %.1f times as many pages per second as "
			 "one that stands still (%s); every byte was right.",
			 demo_run_name(told->run), per_second(told) / per_second(still),
			 demo_run_name(still->run));
	else
		snprintf(ret, room, "Shown: the guest read %llu pages that were absent, %.0f per "
			 "second at best (%s); every byte was right.",
			 (unsigned long long)best->pages, per_second(best),
			 demo_run_name(best->run));
}

static void print_plots(const struct demo_report *r, FILE *out)
{
	bool utf8 = demo_plot_is_utf8(getenv("LC_ALL"), getenv("LC_CTYPE"), getenv("LANG"));
	double span_s = 0;

	for (unsigned i = 0; i < r->count; i++)
		if (r->results[i].out.wall_s > span_s)
			span_s = r->results[i].out.wall_s;
	fprintf(out, "\nMemory that was there, over %.3f s:\n", span_s);
	for (unsigned i = 0; i < r->count; i++) {
		const struct demo_result *d = &r->results[i];

		demo_plot_row(d->plot, demo_run_name(d->run), d->start_ns, d->out.wall_s, span_s,
			      utf8, out);
	}
}

void demo_print(const struct demo_report *r, FILE *out)
{
	char sentence[400];

	const struct demo_opts *o = r->opts;

	fprintf(out,
		"guest: %u vCPU%s, %u tasks, %llu pages; each fetch takes at least %.3f ms\n\n",
		o->vcpus, o->vcpus == 1 ? "" : "s", o->tasks, (unsigned long long)r->pages,
		(double)o->delay_us / 1000.0);
	if (r->count)
		fprintf(out,
			"%-15s %7s %7s %7s %5s %26s\n"
			"%-15s %7s %7s %7s %5s %8s %8s %8s  %s\n",
			"", "wall", "pages", "times", "vCPU", "wait for a page, ms", "faults", "s",
			"/s", "block", "still", "p50", "p99", "max", "right");
	for (unsigned i = 0; i < r->count; i++)
		print_row(r, &r->results[i], out);
	if (r->count)
		fprintf(out, "\n%-15s %12s %12s %12s\n", "faults", "page-missing", "page-ready",
			"stalls");
	for (unsigned i = 0; i < r->count; i++)
		print_events(&r->results[i], out);
	print_counters(r, out);
	print_collisions(r, out);
	if (r->opts->plot && r->count)
		print_plots(r, out);
	demo_sentence(r, sentence, sizeof(sentence));
	if (*sentence) {
		fputc('\n', out);
		cli_wrapped(out, sentence, 0, 0);
	}
}

static void json_run(struct json *j, const struct demo_report *r, const struct demo_result *d)
{
	const uint32_t *hist = d->out.results.hist;
	uint64_t max = wait_max_us(d);

	json_object_open(j, NULL);
	json_text(j, "faults", d->faults);
	json_text(j, "abi", d->abi);
	json_text(j, "io", cli_io_names[d->out.io]);
	json_f64(j, "wall_s", d->out.wall_s);
	json_f64(j, "guest_s", d->out.guest_s);
	json_u64(j, "pages", d->pages);
	json_f64(j, "pages_per_s", per_second(d));
	json_u64(j, "pages_bad", d->bad);
	json_bool(j, "verified", d->verified);
	json_u64(j, "missing_events", d->missing);
	json_u64(j, "ready_events", d->ready);
	json_u64(j, "wake_alls", d->wake_alls);
	if (is_kernel(d))
		json_text(j, "stalls", NULL); /* the kernel does not tell */
	else
		json_u64(j, "stalls", d->out.stats.stalls);
	json_f64(j, "still_s", still_s(d, r->opts->vcpus));
	json_f64(j, "machine_cpu_s", d->out.machine_cpu_s);
	json_f64(j, "process_cpu_s", d->out.process_cpu_s);
	json_f64(j, "vcpu_cpu_s", d->out.vcpu_cpu_s);
	json_u64(j, "wait_p50_ns", hist_quantile(hist, 50, 100, max) * NS_PER_US);
	json_u64(j, "wait_p99_ns", hist_quantile(hist, 99, 100, max) * NS_PER_US);
	json_u64(j, "wait_max_ns", max * NS_PER_US);
	if (count_per_s(d) > 0)
		json_f64(j, "count_per_s", count_per_s(d));
	json_counters(j, "host", &d->out.stats);
	json_close(j);
}

static void json_collision(struct json *j, const struct demo_collision *c)
{
	json_object_open(j, NULL);
	json_text(j, "abi", c->abi);
	json_object_open(j, "open_handler");
	json_u64(j, "ok", c->open_ok);
	json_u64(j, "wrong", c->open_wrong);
	json_u64(j, "lost", c->open_lost);
	json_close(j);
	json_object_open(j, "interrupts_off");
	json_u64(j, "ok", c->masked_ok);
	json_u64(j, "wrong", c->masked_wrong);
	json_u64(j, "lost", c->masked_lost);
	json_close(j);
	json_close(j);
}

int demo_write_json(const struct demo_report *r, struct json_file *f, struct err *e)
{
	const struct demo_opts *o = r->opts;
	struct json j;
	int rc = json_file_begin(f, e);

	if (rc < 0)
		return rc;
	json_init(&j, f->out);
	json_object_open(&j, NULL);
	json_text(&j, "version", apf_version());
	json_u64(&j, "vcpus", o->vcpus);
	json_u64(&j, "tasks", o->tasks);
	json_u64(&j, "delay_us", o->delay_us);
	json_u64(&j, "block_bytes", o->block_bytes);
	json_u64(&j, "read_ahead_bytes", o->read_ahead);
	json_array_open(&j, "runs");
	for (unsigned i = 0; i < r->count; i++)
		json_run(&j, r, &r->results[i]);
	json_close(&j);
	json_array_open(&j, "collision");
	for (unsigned i = 0; i < r->collision_count; i++)
		json_collision(&j, &r->collisions[i]);
	json_close(&j);
	json_close(&j);
	errno = 0;
	rc = json_end(&j);
	return json_file_written(f, rc, e);
}
