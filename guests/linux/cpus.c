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
		uint64_t before; /* how often it had come */
		bool is_there;   /* at the CPU that goes */
	} irq[IRQS_MAX];
	unsigned count;
};

/* What was switched, and how often an interrupt came elsewhere once its CPU had gone. */
struct tally {
	uint64_t switches, moved;
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

/* Whether a folder of /proc/irq has one inside that is named after a virtio device. */
static bool is_virtio(const char *number)
{
	char path[64];
	struct dirent *entry;
	bool found = false;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/irq/%.15s", number);
	folder = opendir(path);
	while (folder && !found && (entry = readdir(folder)))
		found = strncmp(entry->d_name, "virtio", 6) == 0;
	if (folder)
		closedir(folder);
	return found;
}

static void irqs_find(struct irqs *ret)
{
	DIR *folder = opendir("/proc/irq");
	struct dirent *entry;

	ret->count = 0;
	while (folder && ret->count < IRQS_MAX && (entry = readdir(folder)))
		if (is_virtio(entry->d_name))
			snprintf(ret->irq[ret->count++].number, sizeof(ret->irq[0].number),
				 "%.15s", entry->d_name);
	if (folder)
		closedir(folder);
}

static uint64_t times_come(const struct irq *irq)
{
	struct row r = {.cpus = 0};

	return row_read(irq->number, &r) ? row_sum(&r) : 0;
}

static bool is_at(const struct irq *irq, unsigned cpu)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), "/proc/irq/%s/effective_affinity_list", irq->number);
	return slurp(path, text, sizeof(text)) > 0 && (unsigned)atoi(text) == cpu;
}

/* Has them all come to this CPU. One moves when it comes the next time, if its device is in use. */
static void irqs_give(struct irqs *irqs, unsigned cpu)
{
	uint64_t end = now_ns() + IRQ_NS;
	char path[64], word[16];

	snprintf(word, sizeof(word), "%u", cpu);
	for (unsigned i = 0; i < irqs->count; i++) {
		snprintf(path, sizeof(path), "/proc/irq/%s/smp_affinity_list",
			 irqs->irq[i].number);
		(void)poke(path, word);
	}
	for (unsigned i = 0; i < irqs->count; i++) {
		struct irq *irq = &irqs->irq[i];

		while (!(irq->is_there = is_at(irq, cpu)) && now_ns() < end)
			settle();
		irq->before = times_come(irq);
	}
}

/* That CPU has gone. How many of them come again. */
static unsigned irqs_moved(const struct irqs *irqs)
{
	uint64_t end = now_ns() + IRQ_NS;
	unsigned moved = 0;

	for (unsigned i = 0; i < irqs->count; i++) {
		const struct irq *irq = &irqs->irq[i];
		bool comes = false;

		while (irq->is_there && !(comes = times_come(irq) > irq->before) &&
		       now_ns() < end)
			settle();
		moved += comes;
	}
	return moved;
}

/* ---- CPUs ---- */

/* Each CPU but the first off, a while, and on again. */
static enum outcome plug_round(struct tally *t)
{
	struct irqs irqs;
	char path[64];

	irqs_find(&irqs);
	for (unsigned cpu = 1; exists(cpu, path, sizeof(path)); cpu++) {
		irqs_give(&irqs, cpu);
		if (poke(path, "0") < 0)
			return say_failed("%s: 0", path);
		settle();
		t->moved += irqs_moved(&irqs);
		if (poke(path, "1") < 0)
			return say_failed("%s: 1", path);
		settle();
		t->switches++;
	}
	return WELL;
}

static enum outcome finish(enum outcome outcome, const struct tally *t)
{
	char text[ROW_TEXT_BYTES];

	say("{\"step\":\"plug\",\"switches\":%llu,\"moved\":%llu,\"hyp\":%s}",
	    (unsigned long long)t->switches, (unsigned long long)t->moved,
	    hyp_text(text, sizeof(text)));
	if (outcome == WELL && t->switches == 0) {
		say("failed: no CPU can be switched off");
		return UNWELL;
	}
	return outcome;
}

enum outcome plug_until(uint64_t until_ns)
{
	enum outcome outcome = WELL;
	struct tally t = {0};

	do {
		uint64_t before = t.switches;

		outcome = plug_round(&t);
		if (t.switches == before)
			break;
	} while (outcome == WELL && now_ns() < until_ns);
	return finish(outcome, &t);
}

enum outcome step_plug(const char *text)
{
	unsigned rounds = (unsigned)strtoul(text, NULL, 10);
	enum outcome outcome = WELL;
	struct tally t = {0};

	while (rounds-- > 0 && outcome == WELL)
		outcome = plug_round(&t);
	return finish(outcome, &t);
}
