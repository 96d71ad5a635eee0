/* SPDX-License-Identifier: Apache-2.0 */
/* What follows a step's "=". */
#include <stdlib.h>
#include <string.h>

#include "guest.h"

static const struct word *find(const struct word *table, const char *key, size_t len)
{
	for (; table->key; table++)
		if (strlen(table->key) == len && strncmp(table->key, key, len) == 0)
			return table;
	return NULL;
}

bool words_parse(const char *text, const struct word *table, void *values)
{
	while (*text) {
		size_t len = strcspn(text, ":,");
		const struct word *w = find(table, text, len);
		char *end;

		if (!w || text[len] != ':') {
			say("failed: unknown word: %s", text);
			return false;
		}
		uint64_t value = strtoull(text + len + 1, &end, 10);
		if (end == text + len + 1 || (*end && *end != ',') || value < w->min ||
		    value > w->max) {
			say("failed: %s: not a number from %u to %u: %s", w->key, w->min, w->max,
			    text + len + 1);
			return false;
		}
		memcpy((char *)values + w->offset, &(uint32_t){(uint32_t)value}, sizeof(uint32_t));
		text = *end ? end + 1 : end;
	}
	return true;
}
