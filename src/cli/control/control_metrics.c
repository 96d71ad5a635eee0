/* SPDX-License-Identifier: Apache-2.0 */
/* See control_metrics.h. */
#include "cli/control/control_metrics.h"

#include <inttypes.h>
#include <string.h>

#include "base/assert.h"

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), n = strlen(end);

	return len >= n && strcmp(text + len - n, end) == 0;
}

void control_metric_name(const struct control_key *k, const char *part,
			 char ret[static METRIC_NAME_MAX])
{
	const struct control_key *about = control_key_about(k);
	bool total = about->kind == APF_KIND_COUNTER && !ends_with(k->name, "_total");
	size_t len = strlen(k->name);
	const char *unit = "";

	if (about->unit == APF_UNIT_NS) {
		ASSERT(ends_with(k->name, "_ns"));
		len -= strlen("_ns");
		unit = "_seconds";
	} else if (about->unit == APF_UNIT_BLOCKS) {
		unit = "_blocks";
	}
	int n = snprintf(ret, METRIC_NAME_MAX, "asyncpf_%s%.*s%s%s", part, (int)len, k->name, unit,
			 total ? "_total" : "");

	ASSERT(n > 0 && (unsigned)n < METRIC_NAME_MAX);
}

static void put_escaped(FILE *out, const char *text, bool is_label)
{
	for (; *text; text++) {
		if (*text == '\\' || (is_label && *text == '"'))
			fputc('\\', out);
		fputc(*text, out);
	}
}

/* What every series has. A VM without a name has an empty one, which is the same as none. */
static void put_labels(FILE *out, const struct control_status *s, const char *name,
		       const char *value)
{
	fputs("{vm=\"", out);
	put_escaped(out, s->name, true);
	fputc('"', out);
	if (name) {
		fprintf(out, ",%s=\"", name);
		put_escaped(out, value, true);
		fputc('"', out);
	}
	fputs("} ", out);
}

static void put_value(FILE *out, const struct control_key *about, uint64_t v)
{
	if (about->unit == APF_UNIT_NS)
		fprintf(out, "%" PRIu64 ".%09" PRIu64 "\n", (uint64_t)(v / NS_PER_S),
			(uint64_t)(v % NS_PER_S));
	else
		fprintf(out, "%" PRIu64 "\n", v);
}

static void put_head(FILE *out, const char *name, const char *help, const char *type)
{
	fprintf(out, "# HELP %s ", name);
	put_escaped(out, help, false);
	fprintf(out, "\n# TYPE %s %s\n", name, type);
}

static const char *type_of(const struct control_key *about)
{
	return about->kind == APF_KIND_COUNTER ? "counter" : "gauge";
}

/* Facts that are words: the value is 1, as is the convention. */
static void put_info(FILE *out, const struct control_status *s)
{
	static const char name[] = "asyncpf_info";
	const char *const words[][2] = {{"version", s->version}, {"faults", s->faults},
					{"abi", s->abi}, {"io", s->io}};

	put_head(out, name, "What runs, and how it serves touches of absent memory; always 1.",
		 "gauge");
	fprintf(out, "%s{vm=\"", name);
	put_escaped(out, s->name, true);
	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		fprintf(out, "\",%s=\"", words[i][0]);
		put_escaped(out, words[i][1], true);
	}
	fputs("\"} 1\n", out);
}

static void put_states(FILE *out, const struct control_status *s)
{
	static const char *const states[] = {"running", "paused", "ending", "serving"};
	static const char name[] = "asyncpf_state", trouble[] = "asyncpf_trouble";

	put_head(out, name, "Whether the VM, or the pager, is in this state: 1, else 0.", "gauge");
	for (unsigned i = 0; i < ARRAY_LEN(states); i++) {
		fputs(name, out);
		put_labels(out, s, "state", states[i]);
		fprintf(out, "%d\n", strcmp(s->state, states[i]) == 0);
	}
	put_head(out, trouble, "Whether the VM is paused for trouble: 1, else 0.", "gauge");
	fputs(trouble, out);
	put_labels(out, s, NULL, NULL);
	fprintf(out, "%d\n", *s->why != '\0');
}

static void put_vm(FILE *out, const struct control_status *s)
{
	for (const struct control_key *k = control_status_keys; k->name; k++) {
		char name[METRIC_NAME_MAX];

		if (k->text_max || !control_key_is_there(k, s))
			continue;
		control_metric_name(k, "", name);
		put_head(out, name, k->help, type_of(k));
		fputs(name, out);
		put_labels(out, s, NULL, NULL);
		put_value(out, k, control_key_number(k, s));
	}
}

static void put_vcpus(FILE *out, const struct control_status *s)
{
	for (const struct control_key *k = control_vcpu_keys; k->name && s->vcpu_count; k++) {
		const struct control_key *about = control_key_about(k);
		char name[METRIC_NAME_MAX], index[16];

		control_metric_name(k, "vcpu_", name);
		put_head(out, name, about->help, type_of(about));
		for (unsigned i = 0; i < s->vcpu_count; i++) {
			snprintf(index, sizeof(index), "%u", i);
			fputs(name, out);
			put_labels(out, s, "vcpu", index);
			put_value(out, about, control_key_number(k, &s->vcpus[i]));
		}
	}
}

/* What there may be several of: each key of all of them, with the name of each as a label. */
struct metric_list {
	const char *part;  /* of the metric's name, with its '_' */
	const char *label; /* of the name that each struct begins with */
	const struct control_key *keys;
	const void *at;
	size_t bytes;
	uint64_t count;
};

static void put_list(FILE *out, const struct control_status *s, const struct metric_list *l)
{
	for (const struct control_key *k = l->keys; k->name && l->count; k++) {
		const char *at = l->at;
		char name[METRIC_NAME_MAX];

		control_metric_name(k, l->part, name);
		put_head(out, name, k->help, type_of(k));
		for (uint64_t i = 0; i < l->count; i++, at += l->bytes) {
			if (!control_key_is_there(k, at))
				continue;
			fputs(name, out);
			put_labels(out, s, l->label, at);
			put_value(out, k, control_key_number(k, at));
		}
	}
}

void control_show_metrics(const struct control_status *s, FILE *out)
{
	const struct metric_list lists[] = {
		{"device_", "device", control_device_keys, s->devices, sizeof(s->devices[0]),
		 s->device_count},
		{"served_", "served", control_served_keys, s->served, sizeof(s->served[0]),
		 s->served_count},
		{"pager_source_", "source", control_source_keys, s->sources, sizeof(s->sources[0]),
		 s->source_count},
	};

	put_info(out, s);
	put_states(out, s);
	put_vm(out, s);
	put_vcpus(out, s);
	for (unsigned i = 0; i < ARRAY_LEN(lists); i++)
		put_list(out, s, &lists[i]);
}
