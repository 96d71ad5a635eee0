/* SPDX-License-Identifier: Apache-2.0 */
/* Switching CPUs off and on, with the interrupts of devices on the one that goes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define SETTLE_MS 100
#define IRQS_MAX 8
#define IRQ_NS 10000000000ull /* until a device that is in use has interrupted */

/* Of virtio devices, which interrupt whom they are told to. */
struct irqs {
	struct irq {
		char number[16];
		char device[16];  /* "eth0", or "virtio3" of what is no network card */
		uint64_t before;  /* how often it had come to the CPUs that stay */
		bool is_there;    /* it came to the CPU that goes */
		unsigned moved;   /* how often it came elsewhere once its CPU had gone */
	} irq[IRQS_MAX];
	unsigned count;
};

static bool exists(unsigned cpu, char *path, unsigned size)
{
	snprintf(path, size, "/sys/devices/system/cpu/cpu%u/online", cpu);
	return access(path, W_OK) == 0;
}

static void settle(void)
{
	struct timespec pause = {.tv_nsec = SETTLE_MS * 1000000L};

	nanosleep(&pause, NULL);
}

/* ---- interrupts ---- */

/* The first name in a folder that begins so; false: there is none. */
static bool find_name(const char *path, const char *begins, char name[static 16])
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	bool found = false;

	while (folder && !found && (entry = readdir(folder)))
		if ((found = strncmp(entry->d_name, begins, strlen(begins)) == 0))
			snprintf(name, 16, "%.15s", entry->d_name);
	if (folder)
		closedir(folder);
	return found;
}

/* /proc/irq/NUMBER has a folder that is named after the device, if that is virtio's. */
static bool irq_init(struct irq *irq, const char *number)
{
	char path[64];

	*irq = (struct irq){.before = 0};
	snprintf(irq->number, sizeof(irq->number), "%.15s", number);
	snprintf(path, sizeof(path), "/proc/irq/%s", irq->number);
	if (!find_name(path, "virtio", irq->device))
		return false;
	snprintf(path, sizeof(path), "/sys/bus/virtio/devices/%s/net", irq->device);
	(void)find_name(path, "eth", irq->device);
	return true;
}

static void irqs_find(struct irqs *ret)
{
	DIR *folder = opendir("/proc/irq");
	struct dirent *entry;

	while (folder && ret->count < IRQS_MAX && (entry = readdir(folder)))
		ret->count += irq_init(&ret->irq[ret->count], entry->d_name);
	if (folder)
		closedir(folder);
}

/* How often it has come to that CPU, and in all, while every CPU is online. */
static uint64_t times_at(const struct irq *irq, unsigned cpu, uint64_t *ret_sum)
{
	struct row r = {.cpus = 0};

	*ret_sum = row_read(irq->number, &r) ? row_sum(&r) : 0;
	return cpu < r.cpus ? r.count[cpu] : 0;
}

static bool comes_to(struct irq *irq, unsigned cpu, uint64_t before)
{
	uint64_t sum, now = times_at(irq, cpu, &sum);

	irq->before = sum - now;
	return now > before;
}

/* Has them all come to this CPU. One moves when it comes the next time, if its device is in use. */
static void irqs_give(struct irqs *irqs, unsigned cpu)
{
	uint64_t end = now_ns() + IRQ_NS, had[IRQS_MAX], sum;
	char path[64], word[16];

	snprintf(word, sizeof(word), "%u", cpu);
	for (unsigned i = 0; i < irqs->count; i++) {
		had[i] = times_at(&irqs->irq[i], cpu, &sum);
		snprintf(path, sizeof(path), "/proc/irq/%s/smp_affinity_list",
			 irqs->irq[i].number);
		(void)poke(path, word);
	}
	for (unsigned i = 0; i < irqs->count; i++) {
		struct irq *irq = &irqs->irq[i];

		while (!(irq->is_there = comes_to(irq, cpu, had[i])) && now_ns() < end)
			settle();
	}
}

/* That CPU has gone, and its column: which of those that came to it come again? */
static void irqs_look(struct irqs *irqs)
{
	uint64_t end = now_ns() + IRQ_NS, sum;

	for (unsigned i = 0; i < irqs->count; i++) {
		struct irq *irq = &irqs->irq[i];
		bool comes = false;

		while (irq->is_there && !comes && now_ns() < end) {
			settle();
			(void)times_at(irq, 0, &sum);
			comes = sum > irq->before;
		}
		irq->moved += comes;
	}
}

/* ---- CPUs ---- */

/* Each CPU but the first off, a while, and on again. */
static enum outcome plug_round(struct irqs *irqs, uint64_t *switches)
{
	char path[64];

	for (unsigned cpu = 1; exists(cpu, path, sizeof(path)); cpu++) {
		irqs_give(irqs, cpu);
		if (poke(path, "0") < 0)
			return say_failed("%s: 0", path);
		settle();
		irqs_look(irqs);
		if (poke(path, "1") < 0)
			return say_failed("%s: 1", path);
		settle();
		++*switches;
	}
	return WELL;
}

/* {"eth0":3,"virtio2":1} */
static const char *moved_text(const struct irqs *irqs, char *text, unsigned size)
{
	unsigned n = (unsigned)snprintf(text, size, "{");

	for (unsigned i = 0; i < irqs->count && n < size; i++)
		n += (unsigned)snprintf(text + n, size - n, "%s\"%s\":%u", i ? "," : "",
					irqs->irq[i].device, irqs->irq[i].moved);
	if (n < size)
		snprintf(text + n, size - n, "}");
	return text;
}

static enum outcome finish(enum outcome outcome, const struct irqs *irqs, uint64_t switches)
{
	char text[ROW_TEXT_BYTES], moved[IRQS_MAX * 32];

	say("{\"step\":\"plug\",\"switches\":%llu,\"moved\":%s,\"hyp\":%s}",
	    (unsigned long long)switches, moved_text(irqs, moved, sizeof(moved)),
	    hyp_text(text, sizeof(text)));
	if (outcome == WELL && switches == 0) {
		say("failed: no CPU can be switched off");
		return UNWELL;
	}
	return outcome;
}

enum outcome plug_until(uint64_t until_ns)
{
	struct irqs irqs = {.count = 0};
	enum outcome outcome = WELL;
	uint64_t switches = 0, before;

	irqs_find(&irqs);
	do {
		before = switches;
		outcome = plug_round(&irqs, &switches);
	} while (outcome == WELL && switches > before && now_ns() < until_ns);
	return finish(outcome, &irqs, switches);
}

enum outcome step_plug(const char *text)
{
	unsigned rounds = (unsigned)strtoul(text, NULL, 10);
	struct irqs irqs = {.count = 0};
	enum outcome outcome = WELL;
	uint64_t switches = 0;

	irqs_find(&irqs);
	while (rounds-- > 0 && outcome == WELL)
		outcome = plug_round(&irqs, &switches);
	return finish(outcome, &irqs, switches);
}
