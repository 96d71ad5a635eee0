/* SPDX-License-Identifier: Apache-2.0 */
/* See control_status.h. */
#include "vmm/control/control_status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "vmm/control/control_proto.h"

#define TEXT(member) \
	{#member, offsetof(struct control_status, member), \
	 sizeof(((struct control_status *)0)->member)}
#define NUMBER(member) {#member, offsetof(struct control_status, member), 0}
#define COUNTER(name, unit, kind, scope, help) \
	{#name, offsetof(struct control_status, counters.name), 0},
#define VCPU_COUNTER(name) {#name, offsetof(struct control_vcpu, name), 0},

const struct control_key control_status_keys[] = {
	TEXT(state),
	TEXT(why),
	TEXT(note),
	TEXT(faults),
	TEXT(abi),
	TEXT(io),
	NUMBER(uptime_ns),
	NUMBER(block_bytes),
	NUMBER(disk_errors),
	APF_COUNTER_TABLE(COUNTER)
	{.name = NULL},
};

const struct control_key control_vcpu_keys[] = {
	CONTROL_VCPU_COUNTERS(VCPU_COUNTER)
	{.name = NULL},
};

#define DEVICE_NUMBER(member) {#member, offsetof(struct device_stats, member), 0}

const struct control_key control_device_keys[] = {
	DEVICE_NUMBER(requests),
	DEVICE_NUMBER(read_bytes),
	DEVICE_NUMBER(written_bytes),
	DEVICE_NUMBER(throttled_ns),
	DEVICE_NUMBER(cpu_ns),
	DEVICE_NUMBER(dropped),
	{.name = NULL},
};

const char *control_key_text(const struct control_key *k, const void *base)
{
	ASSERT(k->text_max);
	return (const char *)base + k->offset;
}

uint64_t control_key_number(const struct control_key *k, const void *base)
{
	uint64_t v;

	ASSERT(!k->text_max);
	memcpy(&v, (const char *)base + k->offset, sizeof(v));
	return v;
}

/* ---- format ---- */

struct text {
	char *buf;
	size_t len;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
	size_t room = CONTROL_ANSWER_MAX - t->len;
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(t->buf + t->len, room, fmt, ap);
	va_end(ap);
	ASSERT(n >= 0 && (size_t)n < room);
	t->len += (size_t)n;
}

/* A text may hold a file's name, and that a newline: it must not become a line of ours. */
static void put_text(struct text *t, const char *name, const char *value)
{
	size_t from = t->len;

	put(t, "%s %s", name, value);
	for (size_t i = from; i < t->len; i++)
		if ((unsigned char)t->buf[i] < 0x20 || t->buf[i] == 0x7f)
			t->buf[i] = '?';
	put(t, "\n");
}

static void put_key(struct text *t, const struct control_key *k, const void *base)
{
	if (!k->text_max)
		put(t, "%s %" PRIu64 "\n", k->name, control_key_number(k, base));
	else if (*control_key_text(k, base))
		put_text(t, k->name, control_key_text(k, base));
}

/* Behind what the line is about. */
static void put_pairs(struct text *t, const struct control_key *k, const void *base)
{
	for (; k->name; k++)
		put(t, " %s %" PRIu64, k->name, control_key_number(k, base));
	put(t, "\n");
}

size_t control_status_format(const struct control_status *s,
			     char ret_text[static CONTROL_ANSWER_MAX])
{
	struct text t = {.buf = ret_text};

	ASSERT(s->vcpu_count <= CONTROL_VCPUS_MAX);
	ASSERT(s->device_count <= CONTROL_DEVICES_MAX);
	for (const struct control_key *k = control_status_keys; k->name; k++)
		put_key(&t, k, s);
	for (unsigned i = 0; i < s->vcpu_count; i++) {
		put(&t, "vcpu %u", i);
		put_pairs(&t, control_vcpu_keys, &s->vcpus[i]);
	}
	for (unsigned i = 0; i < s->device_count; i++) {
		put(&t, "device %s", s->devices[i].name);
		put_pairs(&t, control_device_keys, &s->devices[i]);
	}
	return t.len;
}

/* ---- parse ---- */

static const struct control_key *key_by_name(const struct control_key *keys, const char *name)
{
	for (; keys->name; keys++)
		if (strcmp(keys->name, name) == 0)
			return keys;
	return NULL;
}

static int store_key(const struct control_key *k, const char *value, void *base)
{
	uint64_t v;

	if (k->text_max) {
		size_t len = strlen(value);

		if (len == 0 || len >= k->text_max)
			return -EINVAL;
		memset((char *)base + k->offset, 0, k->text_max);
		memcpy((char *)base + k->offset, value, len);
		return 0;
	}
	if (control_number_parse(value, &v) < 0)
		return -EINVAL;
	memcpy((char *)base + k->offset, &v, sizeof(v));
	return 0;
}

/* Pairs of KEY and VALUE, from where strtok_r stands. */
static int parse_pairs(char **save, const struct control_key *keys, void *base)
{
	char *word;

	while ((word = strtok_r(NULL, " ", save))) {
		const char *value = strtok_r(NULL, " ", save);
		const struct control_key *k = key_by_name(keys, word);

		if (!value || (k && store_key(k, value, base) < 0))
			return -EINVAL;
	}
	return 0;
}

/* What follows "vcpu": INDEX, then pairs. */
static int parse_vcpu(char *words, struct control_status *s)
{
	struct control_vcpu v = {0};
	char *save = NULL;
	char *word = strtok_r(words, " ", &save);
	uint64_t index;

	if (!word || control_number_parse(word, &index) < 0 || index >= CONTROL_VCPUS_MAX ||
	    parse_pairs(&save, control_vcpu_keys, &v) < 0)
		return -EINVAL;
	s->vcpus[index] = v;
	s->vcpu_count = max_u64(s->vcpu_count, index + 1);
	return 0;
}

/* What follows "device": NAME, then pairs. The next one of the list, whatever it is called. */
static int parse_device(char *words, struct control_status *s)
{
	struct device_stats d = {0};
	char *save = NULL;
	char *word = strtok_r(words, " ", &save);

	if (!word || strlen(word) >= sizeof(d.name) || s->device_count >= CONTROL_DEVICES_MAX ||
	    parse_pairs(&save, control_device_keys, &d) < 0)
		return -EINVAL;
	memcpy(d.name, word, strlen(word));
	s->devices[s->device_count++] = d;
	return 0;
}

int control_status_parse(const char *line, struct control_status *s)
{
	char words[CONTROL_LINE_MAX];
	size_t len = strlen(line);
	char *value;

	if (len >= sizeof(words))
		return -EINVAL;
	memcpy(words, line, len + 1);
	value = strchr(words, ' ');
	if (!value || value == words)
		return -EINVAL;
	*value++ = '\0';
	if (strcmp(words, "vcpu") == 0)
		return parse_vcpu(value, s);
	if (strcmp(words, "device") == 0)
		return parse_device(value, s);

	const struct control_key *k = key_by_name(control_status_keys, words);

	return k ? store_key(k, value, s) : 0;
}
