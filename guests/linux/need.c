/* SPDX-License-Identifier: Apache-2.0 */
/* Needs more memory than is left: the rest is in the balloon, from which the kernel takes it. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "guest.h"

#define VMSTAT "/proc/vmstat"
#define VMSTAT_BYTES 16384
#define PAGE 4096u
#define MIB_PAGES 256u
/* A balloon takes its time on a busy machine. */
#define PATIENCE_NS 240000000000ull
#define LOOK_NS 50000000ull

/* Pages that the kernel has put into its balloon so far, or taken out of it. */
static unsigned long counted(const char *word)
{
	char text[VMSTAT_BYTES], *at;

	if (slurp(VMSTAT, text, sizeof(text)) < 0 || !(at = strstr(text, word)))
		return 0;
	return strtoul(at + strlen(word), NULL, 10);
}

/* Waits until the balloon was given that much since the kernel came up. */
static enum outcome wait_given(unsigned long mib)
{
	uint64_t end = now_ns() + PATIENCE_NS;
	unsigned long pages;

	while ((pages = counted("balloon_inflate ")) < mib * MIB_PAGES && now_ns() < end)
		sleep_until(now_ns() + LOOK_NS);
	if (pages > 0 && pages >= mib * MIB_PAGES)
		return WELL;
	say("failed: the balloon was given %lu pages, not %lu MiB", pages, mib);
	return UNWELL;
}

enum outcome step_given(const char *text)
{
	return wait_given(strtoul(text, NULL, 10));
}

static uint64_t content(size_t page)
{
	return page * 0x9e3779b97f4a7c15ull + 1;
}

static size_t use(unsigned char *at, size_t pages)
{
	size_t bad = 0;

	for (size_t i = 0; i < pages; i++)
		for (size_t k = 0; k < PAGE; k += sizeof(uint64_t)) {
			uint64_t value = content(i) + k;

			memcpy(at + i * PAGE + k, &value, sizeof(value));
		}
	for (size_t i = 0; i < pages; i++)
		for (size_t k = 0; k < PAGE; k += sizeof(uint64_t)) {
			uint64_t value;

			memcpy(&value, at + i * PAGE + k, sizeof(value));
			bad += value != content(i) + k;
		}
	return bad;
}

/*
 * MIB:BALLOON. Said when whoever it is may fill the balloon with that much. The kernel takes pages
 * back only once it has none: what is used is more than is left beside the balloon.
 */
enum outcome step_need(const char *text)
{
	char *rest;
	unsigned long mib = strtoul(text, &rest, 10);
	size_t bytes = mib << 20, bad;
	unsigned char *at;

	say("{\"step\":\"need\",\"mib\":%lu}", mib);
	if (wait_given(*rest == ':' ? strtoul(rest + 1, NULL, 10) : 0) == UNWELL)
		return UNWELL;
	at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return say_failed("need: mmap");
	bad = use(at, bytes / PAGE);
	munmap(at, bytes);
	say("{\"step\":\"needed\",\"back\":%lu,\"bad\":%zu}", counted("balloon_deflate "), bad);
	return bad ? UNWELL : WELL;
}
