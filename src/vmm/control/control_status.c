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

#define TEXT(member, help_) \
	{.name = #member, .offset = offsetof(struct control_status, member), \
	 .text_max = sizeof(((struct control_status *)0)->member), .help = help_}
#define NUMBER_OF(type, member, unit_, kind_, help_) \
	{.name = #member, .offset = offsetof(struct type, member), .unit = APF_UNIT_##unit_, \
	 .kind = APF_KIND_##kind_, .help = help_}
/* Not always there. */
#define NUMBER_IF(type, has_, member, unit_, kind_, help_) \
	{.name = #member, .offset = offsetof(struct type, member), .unit = APF_UNIT_##unit_, \
	 .kind = APF_KIND_##kind_, .help = help_, .has = offsetof(struct type, has_)}
#define NUMBER(member, unit, kind, help) NUMBER_OF(control_status, member, unit, kind, help)
#define COUNTER(name_, unit_, kind_, scope, help_) \
	{.name = #name_, .offset = offsetof(struct control_status, counters.name_), \
	 .unit = APF_UNIT_##unit_, .kind = APF_KIND_##kind_, .help = help_},
#define STAT_OF(member, name_, unit_, kind_, help_) \
	{.name = #name_, .offset = offsetof(struct control_status, member.name_), \
	 .unit = APF_UNIT_##unit_, .kind = APF_KIND_##kind_, .help = help_},
#define BALLOON_NUMBER(name, unit, kind, help) STAT_OF(balloon, name, unit, kind, help)
#define VSOCK_NUMBER(name, unit, kind, help) STAT_OF(vsock, name, unit, kind, help)
#define VCPU_COUNTER(name_) {.name = #name_, .offset = offsetof(struct control_vcpu, name_)},

const struct control_key control_status_keys[] = {
	TEXT(state, "running, paused or ending."),
	TEXT(why, "It is paused for trouble: the reason."),
	TEXT(note, "The guest does not do what one would expect: what is seen of it."),
	TEXT(faults, "How a touch of absent memory is served, as given to run."),
	TEXT(abi, "The protocol with the guest, as given to run."),
	TEXT(io, "uring or threads: what reads and writes page source and swap file."),
	TEXT(name, "The VM's name, as given to run."),
	TEXT(version, "Of the asyncpf that runs the VM."),
	NUMBER(protocol, COUNT, GAUGE, "The version of this language that the VM speaks."),
	NUMBER(pid, COUNT, GAUGE, "The process that runs the VM."),
	NUMBER(uptime_ns, NS, GAUGE, "Time since the VM was made."),
	NUMBER(block_bytes, BYTES, GAUGE, "What is fetched or evicted as one block."),
	NUMBER(snapshot_running, COUNT, GAUGE, "1: a snapshot is being made."),
	NUMBER(snapshot_written_bytes, BYTES, GAUGE, "Memory that it, or the last, has written."),
	NUMBER(snapshot_left_bytes, BYTES, GAUGE, "Memory that its pass has still to write."),
	NUMBER(snapshot_paused_ns, NS, GAUGE, "The longest that the guest stood still for it."),
	NUMBER(disk_errors, COUNT, COUNTER, "Times that the host failed a request to a disk."),
	NUMBER(vcpus_cpu_ns, NS, COUNTER, "CPU time of all vCPU threads."),
	NUMBER(exits, COUNT, COUNTER, "Accesses to ports and devices that vCPUs carried out."),
	NUMBER_IF(control_status, has_shared, shared_bytes, BYTES, GAUGE,
		  "Of the local files that guest RAM is read from, what is in the host's page "
		  "cache: all VMs of these files share it."),
	NUMBER(has_balloon, COUNT, GAUGE, "1: there is a balloon; without one its numbers are 0."),
	NUMBER(has_vsock, COUNT, GAUGE, "1: there is a socket device; without one, likewise."),
	BALLOON_STATS(BALLOON_NUMBER)
	VSOCK_STATS(VSOCK_NUMBER)
	APF_COUNTER_TABLE(COUNTER)
	{.name = NULL},
};

const struct control_key control_vcpu_keys[] = {
	CONTROL_VCPU_COUNTERS(VCPU_COUNTER)
	NUMBER_OF(control_vcpu, cpu_ns, NS, COUNTER, "CPU time of the vCPU's thread."),
	NUMBER_OF(control_vcpu, exits, COUNT, COUNTER, NULL),
	{.name = NULL},
};

#define DEVICE_NUMBER(member, unit, help) \
	NUMBER_OF(device_stats, member, unit, COUNTER, help)

const struct control_key control_device_keys[] = {
	DEVICE_NUMBER(requests, COUNT, "Requests that ended."),
	DEVICE_NUMBER(read_bytes, BYTES, "Bytes that the guest read from the device."),
	DEVICE_NUMBER(written_bytes, BYTES, "Bytes that the guest wrote to it."),
	DEVICE_NUMBER(throttled_ns, NS, "Time for which a limit held requests back."),
	DEVICE_NUMBER(cpu_ns, NS, "CPU time of the device's worker."),
	DEVICE_NUMBER(dropped, COUNT, "Frames of a network card's that were lost, either way."),
	{.name = NULL},
};

#define SERVED_NUMBER(member, unit, kind, help) \
	NUMBER_OF(control_served, member, unit, kind, help)

const struct control_key control_served_keys[] = {
	SERVED_NUMBER(pid, COUNT, GAUGE, "The process that runs the VM."),
	SERVED_NUMBER(memory_bytes, BYTES, GAUGE, "Memory that the VM has handed over."),
	SERVED_NUMBER(placed_bytes, BYTES, COUNTER, "Bytes that were placed in it."),
	SERVED_NUMBER(removed_bytes, BYTES, COUNTER, "Bytes that the VM has given back."),
	SERVED_NUMBER(faults_total, COUNT, COUNTER, "Touches of absent memory."),
	SERVED_NUMBER(read_errors, COUNT, COUNTER, "Reads that failed."),
	{.name = NULL},
};

#define SOURCE_NUMBER(member, unit, kind, help) \
	NUMBER_OF(control_source, member, unit, kind, help)

const struct control_key control_source_keys[] = {
	SOURCE_NUMBER(vms, COUNT, GAUGE, "VMs that it serves."),
	SOURCE_NUMBER(reads, COUNT, COUNTER, "Reads that it answered well."),
	SOURCE_NUMBER(read_bytes, BYTES, COUNTER, "Bytes that they brought."),
	SOURCE_NUMBER(read_errors, COUNT, COUNTER, "Reads that failed."),
	SOURCE_NUMBER(read_retries, COUNT, COUNTER, "Failed reads that were tried again."),
	SOURCE_NUMBER(read_ns, NS, COUNTER, "How long its reads took, all together."),
	SOURCE_NUMBER(read_max_ns, NS, PEAK, "The longest of its reads."),
	NUMBER_IF(control_source, has_shared, shared_bytes, BYTES, GAUGE,
		  "Of its local files, what is in the host's page cache: all its VMs share it."),
	{.name = NULL},
};

static const struct control_key *key_by_name(const struct control_key *keys, const char *name)
{
	for (; keys->name; keys++)
		if (strcmp(keys->name, name) == 0)
			return keys;
	return NULL;
}

const struct control_key *control_key_about(const struct control_key *k)
{
	return k->help ? k : key_by_name(control_status_keys, k->name);
}

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

bool control_key_is_there(const struct control_key *k, const void *base)
{
	uint64_t has = 1;

	if (k->text_max)
		return *control_key_text(k, base) != '\0';
	if (k->has)
		memcpy(&has, (const char *)base + k->has, sizeof(has));
	return has != 0;
}

/* What there may be several of, each with its name, which its struct begins with. */
static const struct list {
	const char *word;
	const struct control_key *keys;
	size_t offset, bytes, name_bytes;
	size_t count; /* offset of a uint64_t */
	unsigned max;
} lists[] = {
#define LIST(word_, keys_, member, count_) \
	{.word = word_, .keys = keys_, .offset = offsetof(struct control_status, member), \
	 .bytes = sizeof(((struct control_status *)0)->member[0]), \
	 .name_bytes = sizeof(((struct control_status *)0)->member[0].name), \
	 .count = offsetof(struct control_status, count_), \
	 .max = ARRAY_LEN(((struct control_status *)0)->member)}
	LIST("device", control_device_keys, devices, device_count),
	LIST("served", control_served_keys, served, served_count),
	LIST("source", control_source_keys, sources, source_count),
};
_Static_assert(offsetof(struct device_stats, name) == 0 &&
	       offsetof(struct control_served, name) == 0 &&
	       offsetof(struct control_source, name) == 0, "a name begins each");

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

/* What was put since `from` holds no byte up to `last`, nor DEL. */
static void clean(struct text *t, size_t from, unsigned char last, char instead)
{
	for (size_t i = from; i < t->len; i++)
		if ((unsigned char)t->buf[i] <= last || t->buf[i] == 0x7f)
			t->buf[i] = instead;
}

/* A text may hold a file's name, and that a newline: it must not become a line of ours. */
static void put_text(struct text *t, const char *name, const char *value)
{
	size_t from = t->len;

	put(t, "%s %s", name, value);
	clean(t, from, ' ' - 1, '?');
	put(t, "\n");
}

/* A name is one word of a line, whatever it is made of. */
static void put_named(struct text *t, const char *word, const char *name)
{
	size_t from;

	put(t, "%s ", word);
	from = t->len;
	put(t, "%s", name);
	clean(t, from, ' ', '_');
}

static void put_key(struct text *t, const struct control_key *k, const void *base)
{
	if (!control_key_is_there(k, base))
		return;
	if (!k->text_max)
		put(t, "%s %" PRIu64 "\n", k->name, control_key_number(k, base));
	else
		put_text(t, k->name, control_key_text(k, base));
}

/* The keys and numbers that follow a line's first words. */
static void put_pairs(struct text *t, const struct control_key *k, const void *base)
{
	for (; k->name; k++)
		if (control_key_is_there(k, base))
			put(t, " %s %" PRIu64, k->name, control_key_number(k, base));
	put(t, "\n");
}

size_t control_status_format(const struct control_status *s,
			     char ret_text[static CONTROL_ANSWER_MAX])
{
	struct text t = {.buf = ret_text};

	ASSERT(s->vcpu_count <= CONTROL_VCPUS_MAX);
	for (const struct control_key *k = control_status_keys; k->name; k++)
		put_key(&t, k, s);
	for (unsigned i = 0; i < s->vcpu_count; i++) {
		put(&t, "vcpu %u", i);
		put_pairs(&t, control_vcpu_keys, &s->vcpus[i]);
	}
	for (const struct list *l = lists; l < lists + ARRAY_LEN(lists); l++) {
		const char *at = (const char *)s + l->offset;
		uint64_t count = *(const uint64_t *)(const void *)((const char *)s + l->count);

		ASSERT(count <= l->max);
		for (; count > 0; count--, at += l->bytes) {
			put_named(&t, l->word, at);
			put_pairs(&t, l->keys, at);
		}
	}
	return t.len;
}

/* ---- parse ---- */

static int store_key(const struct control_key *k, const char *value, void *base)
{
	uint64_t v, one = 1;

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
	if (k->has)
		memcpy((char *)base + k->has, &one, sizeof(one));
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

/* What follows the word of a list: NAME, then pairs. The next one of it, whatever it is called. */
static int parse_next(char *words, const struct list *l, struct control_status *s)
{
	uint64_t *count = (uint64_t *)(void *)((char *)s + l->count);
	char *at = (char *)s + l->offset + *count * l->bytes;
	char *save = NULL;
	char *word = strtok_r(words, " ", &save);

	if (!word || strlen(word) >= l->name_bytes || *count >= l->max)
		return -EINVAL;
	if (parse_pairs(&save, l->keys, at) < 0) {
		memset(at, 0, l->bytes);
		return -EINVAL;
	}
	memcpy(at, word, strlen(word));
	(*count)++;
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
	for (const struct list *l = lists; l < lists + ARRAY_LEN(lists); l++)
		if (strcmp(words, l->word) == 0)
			return parse_next(value, l, s);

	const struct control_key *k = key_by_name(control_status_keys, words);

	return k ? store_key(k, value, s) : 0;
}
