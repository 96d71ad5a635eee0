/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf doctor`: shows what probe.c found out, and what follows from it.
 * Tests: tests/error/doctor_test.py, refusal_test.py.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/json/json.h"
#include "cli/opts.h"
#include "cli/probe/probe.h"

struct doctor_opts {
	bool json;
};

static const struct opt rows[] = {
	{OPT_FLAG(struct doctor_opts, json), .name = "json", .help = "Report as JSON."},
	{.name = NULL},
};

static const struct opts doctor_table = {
	.verb = "doctor",
	.about = "Tries out what this host offers and says which ways of serving page faults will\n"
		 "work here, and why the others will not. Exit code 0: '--faults user' will work.",
	.rows = rows,
};

#define NAME_COLUMN 9
#define FIX_COLUMN (NAME_COLUMN + 8) /* behind "to fix: " */
#define MEANS_COLUMN 32

static void print_line(const char *verdict, const char *name, const char *means)
{
	printf("%-8s %-22s ", verdict, name);
	cli_wrapped(stdout, means, MEANS_COLUMN, MEANS_COLUMN);
}

/* A command, which stands behind the last colon, is in one piece where a line can hold it. */
static void print_fix(const char *fix)
{
	const char *command = fix;
	size_t len, at;

	for (const char *c = fix; (c = strstr(c, ": ")) != NULL; c += 2)
		command = c + 2;
	len = strlen(command);
	at = FIX_COLUMN + (size_t)(command - fix);
	printf("%*sto fix: ", NAME_COLUMN, "");
	if (at + len <= CLI_COLUMNS || command == fix || len > CLI_COLUMNS - FIX_COLUMN) {
		cli_wrapped(stdout, fix, FIX_COLUMN, FIX_COLUMN);
		return;
	}
	char before[sizeof(((struct probe *)NULL)->fix)];

	snprintf(before, sizeof(before), "%.*s", (int)(command - fix - 1), fix);
	cli_wrapped(stdout, before, FIX_COLUMN, FIX_COLUMN);
	printf("%*s%s\n", FIX_COLUMN, "", command);
}

static void print_way(const char *name, uint32_t missing, const char *more)
{
	char text[PROBE_COUNT * 24 + 64];
	size_t used = (size_t)snprintf(text, sizeof(text), missing ? "misses" : "works");

	for (enum probe_id i = 0; i < PROBE_COUNT; i++)
		if (missing & 1u << i)
			used += (size_t)snprintf(text + used, sizeof(text) - used, " %s",
						 probe_name(i));
	snprintf(text + used, sizeof(text) - used, "%s", more);
	print_line(missing ? "no" : "ok", name, text);
}

static void json_missing(struct json *j, const char *key, uint32_t missing)
{
	json_array_open(j, key);
	for (enum probe_id i = 0; i < PROBE_COUNT; i++)
		if (missing & 1u << i)
			json_text(j, NULL, probe_name(i));
	json_close(j);
}

static void print_text(const struct probes *p)
{
	bool no_kvm = p->list[PROBE_KVM].verdict == VERDICT_NO;

	for (enum probe_id i = 0; i < PROBE_COUNT; i++) {
		const struct probe *pr = &p->list[i];

		print_line(verdict_name(pr->verdict), probe_name(i), pr->means);
		if (pr->fix[0])
			print_fix(pr->fix);
	}
	fputs("\nWhat will work here:\n", stdout);
	for (enum probe_way w = 0; w < WAY_COUNT; w++) {
		char name[24];

		snprintf(name, sizeof(name), "--faults %s", probe_way_name(w));
		print_way(name, probe_way_missing(p, w), "");
	}
	print_way("--resident-max, evict", probe_evict_missing(p),
		  no_kvm ? "; 'asyncpf run' uses the lab"
		  : p->cpl0_per_s && !p->linux_guest
			  ? ", which is emulated; 'asyncpf run' uses the lab" : "");
	print_line(p->linux_guest ? "ok" : "no", "stock Linux guest",
		   p->linux_guest  ? "fast enough at CPL 0"
		   : no_kvm	   ? "misses kvm.device; 'asyncpf run' uses the lab"
		   : p->cpl0_per_s ? "too slow at CPL 0; 'asyncpf run' uses the lab"
				   : "guest code could not be timed (guest.cpl0)");
}

static int print_json(const struct probes *p)
{
	struct json j;

	json_init(&j, stdout);
	json_object_open(&j, NULL);
	json_text(&j, "version", APF_VERSION_TEXT);
	json_array_open(&j, "checks");
	for (enum probe_id i = 0; i < PROBE_COUNT; i++) {
		json_object_open(&j, NULL);
		json_text(&j, "name", probe_name(i));
		json_text(&j, "verdict", verdict_name(p->list[i].verdict));
		json_text(&j, "means", p->list[i].means);
		json_text(&j, "fix", p->list[i].fix[0] ? p->list[i].fix : NULL);
		json_text(&j, "refusal", p->list[i].refusal);
		json_close(&j);
	}
	json_close(&j);
	json_array_open(&j, "faults");
	for (enum probe_way w = 0; w < WAY_COUNT; w++) {
		uint32_t missing = probe_way_missing(p, w);

		json_object_open(&j, NULL);
		json_text(&j, "name", probe_way_name(w));
		json_bool(&j, "works", !missing);
		json_missing(&j, "missing", missing);
		json_close(&j);
	}
	json_close(&j);
	json_bool(&j, "evict", probe_evict_missing(p) == 0);
	json_missing(&j, "evict_missing", probe_evict_missing(p));
	json_bool(&j, "linux_guest", p->linux_guest);
	json_u64(&j, "cpl0_instructions_per_s", p->cpl0_per_s);
	json_close(&j);
	return json_end(&j); /* a write error is reported by main(), as for plain text */
}

int cmd_doctor(int argc, char **argv)
{
	struct doctor_opts o = {false};
	struct probes p;
	int operand;
	int r = cli_begin(&doctor_table, argc, argv, &o, &operand);

	if (r >= 0)
		return r;
	probe_all(&p);
	if (o.json)
		(void)print_json(&p);
	else
		print_text(&p);
	return probe_way_missing(&p, WAY_USER) ? CLI_FAILED : CLI_OK;
}
