/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for what a guest prints to `asyncpf check`. The first byte chooses whose half
 * is checked and the protocol; the rest is lines. What must hold: a line is counted at most
 * once and shown as it is, with at most a directive after it; no verdict without a plan.
 */
#include <stdio.h>

#include "bytes.h"
#include "cli/check/check.h"

/* Defined by cli/check/check.c, which this program is without. */
int check_main(const struct check_opts *o)
{
	(void)o;
	return 0;
}

static unsigned counted(const struct check_tap *t)
{
	return t->passed + t->skipped + t->expected + t->failed;
}

static void feed(struct check_tap *t, const char *line)
{
	unsigned before = counted(t), expected = t->expected;
	char *shown = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&shown, &len);

	must(out != NULL);
	check_tap_line(t, line, out);
	fclose(out);
	must(counted(t) - before <= 1);
	must(len > strlen(line) && memcmp(shown, line, strlen(line)) == 0);
	must((len > strlen(line) + 1) == (t->expected != expected));
	must(shown[len - 1] == '\n');
	free(shown);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = {data, size};
	uint8_t choice = take8(&b);
	struct check_tap t = {
		.faults = choice & 1 ? APF_FAULTS_KERNEL : APF_FAULTS_USER,
		.abi = choice & 2 ? APF_ABI_PF2_STRICT : APF_ABI_INT,
	};

	while (b.left) {
		const uint8_t *end = memchr(b.at, '\n', b.left);
		size_t len = end ? (size_t)(end - b.at) : b.left;
		char *line = calloc(1, len + 1);

		must(line != NULL);
		memcpy(line, b.at, len);
		feed(&t, line);
		free(line);
		b.at += len + (end != NULL);
		b.left -= len + (end != NULL);
	}
	if (!check_tap_fault(&t))
		must(t.has_plan && t.failed == 0 && counted(&t) == t.planned && counted(&t) > 0);
	return 0;
}
