/* SPDX-License-Identifier: Apache-2.0 */
/* See check.h. Test: tests/unit/check_tap_test.c. */
#include <string.h>

#include "base/assert.h"
#include "cli/check/check.h"

/* A check that an implementation fails by design, and why. Explained in docs/conformance.md. */
struct difference {
	enum apf_faults faults;
	enum apf_abi abi;
	const char *check;
	const char *why;
};

#define KNOWN_FAILURE " # TO" "DO " /* TAP's directive for it */

#define KERNEL APF_FAULTS_KERNEL, APF_ABI_INT
#define STRICT APF_FAULTS_USER, APF_ABI_PF2_STRICT

static const struct difference differences[] = {
	{KERNEL, "area.outside-kept", "KVM stores EN before it maps the area"},
	{KERNEL, "enable.dirty", "KVM does not empty the area; the guest must"},
	{KERNEL, "enable.vector-low", "KVM raises any vector; the token stays in the slot"},
	{KERNEL, "ready.ack-never", "KVM looks again only when it is told to"},
	{KERNEL, "ready.ack-before", "KVM has looked by then, and found the slot full"},
	{STRICT, "area.outside-kept", "the founding text stores EN before it maps the area"},
	{STRICT, "enable.masked", "S3: an interrupt is held back as if it were an exception"},
	{STRICT, "enable.dirty", "the founding text does not empty the area"},
	{STRICT, "enable.vector-low", "S6: any vector is raised; the token stays in the slot"},
	{STRICT, "missing.kernel", "B7: page ready for a fault that only halted the vCPU"},
	{STRICT, "ready.untold", "B7: page ready for a fault that only halted the vCPU"},
	{STRICT, "ready.masked", "S3: an interrupt is held back as if it were an exception"},
	{STRICT, "ready.ctl-never", "S1: the slot is filled, and no interrupt tells"},
	{STRICT, "ready.ctl-cleared", "S8: the slot is filled, and no interrupt tells"},
};

void check_tap_differences(enum apf_faults faults, enum apf_abi abi, char *text, size_t size)
{
	size_t used = 0;

	ASSERT(size > 0);
	text[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(differences); i++) {
		const struct difference *d = &differences[i];

		if (d->faults != faults || d->abi != abi)
			continue;
		used += (size_t)snprintf(text + used, size - used, "%s%s", used ? "," : "",
					 d->check);
		ASSERT(used < size);
	}
}

/* The reason why this check may fail, or NULL. name is not terminated. */
static const char *expected(const struct check_tap *t, const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(differences); i++) {
		const struct difference *d = &differences[i];

		if (d->faults == t->faults && d->abi == t->abi && strlen(d->check) == len &&
		    memcmp(d->check, name, len) == 0)
			return d->why;
	}
	return NULL;
}

/* "12 - name: promise": where the name starts, and its length. */
static const char *name_of(const char *result, size_t *ret_len)
{
	const char *name = strstr(result, " - ");

	name = name ? name + 3 : result;
	*ret_len = strcspn(name, ":");
	return name;
}

void check_tap_line(struct check_tap *t, const char *line, FILE *out)
{
	const char *why = NULL;

	if (strncmp(line, "ok ", 3) == 0) {
		if (strstr(line, "# SKIP"))
			t->skipped++;
		else
			t->passed++;
	} else if (strncmp(line, "not ok ", 7) == 0) {
		size_t len;
		const char *name = name_of(line, &len);

		why = expected(t, name, len);
		if (why)
			t->expected++;
		else
			t->failed++;
	} else if (strncmp(line, "1..", 3) == 0) {
		t->has_plan = sscanf(line, "1..%u", &t->planned) == 1;
	} else if (strncmp(line, "Bail out!", 9) == 0) {
		t->bailed_out = true;
	}
	fprintf(out, "%s%s%s\n", line, why ? KNOWN_FAILURE : "", why ? why : "");
}

const char *check_tap_fault(const struct check_tap *t)
{
	unsigned ran = t->passed + t->skipped + t->expected + t->failed;

	if (!t->has_plan || t->bailed_out)
		return "check failed: guest: it did not come to its end; see above";
	if (t->failed > 0)
		return "check failed: guest: a promise is not kept; see the lines 'not ok' above, "
		       "and docs/conformance.md";
	if (ran != t->planned)
		return "check failed: guest: it planned another number of checks than it ran; see "
		       "above";
	if (t->passed + t->expected == 0)
		return "nothing was checked: guest: every check was skipped; see why above";
	return NULL;
}
