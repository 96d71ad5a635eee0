/* SPDX-License-Identifier: Apache-2.0 */
/* See size.h. */
#include "base/size.h"

#include <stdio.h>

#include "base/types.h"

static const char letters[] = "KMGT";

/* How many times 1024 divides it; at most as often as there are letters. */
static unsigned whole_units(uint64_t bytes)
{
	unsigned n = 0;

	while (bytes != 0 && bytes % 1024 == 0 && n < sizeof(letters) - 1) {
		bytes /= 1024;
		n++;
	}
	return n;
}

struct size_text size_text(uint64_t bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	double v = (double)bytes;
	struct size_text t;
	unsigned u = 0;

	/* What would be rounded to 1024.0 is 1.0 of the next. */
	for (; v >= 1023.95 && u < ARRAY_LEN(units) - 1; u++)
		v /= 1024;
	snprintf(t.s, sizeof(t.s), "%.*f %s", u > whole_units(bytes) ? 1 : 0, v, units[u]);
	return t;
}

struct size_text size_word(uint64_t bytes)
{
	unsigned u = whole_units(bytes);
	struct size_text t;

	snprintf(t.s, sizeof(t.s), "%llu%.*s", (unsigned long long)(bytes >> 10 * u), u ? 1 : 0,
		 u ? letters + u - 1 : "");
	return t;
}
