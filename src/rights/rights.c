/* SPDX-License-Identifier: Apache-2.0 */
/* See rights.h. */
#include "rights/rights.h"

#include <pwd.h>
#include <stdio.h>
#include <string.h>

#define PATH_BYTES 512
#define LINE_BYTES 256
#define ALL_IDS 4294967295u

static FILE *open_below(const char *root, const char *path)
{
	char full[PATH_BYTES];
	int n = snprintf(full, sizeof(full), "%s%s", root, path);

	return n > 0 && (size_t)n < sizeof(full) ? fopen(full, "re") : NULL;
}

bool rights_number(const char *root, const char *path, long long *ret)
{
	FILE *f = open_below(root, path);
	bool there = f && fscanf(f, "%lld", ret) == 1;

	if (f)
		fclose(f);
	return there;
}

/* The first line, without its end and without control bytes; "" if there is none. */
static void read_line(const char *root, const char *path, char line[static LINE_BYTES])
{
	FILE *f = open_below(root, path);

	line[0] = '\0';
	if (!f)
		return;
	if (!fgets(line, LINE_BYTES, f))
		line[0] = '\0';
	fclose(f);
	for (size_t i = 0; line[i]; i++)
		if ((unsigned char)line[i] < ' ')
			line[i] = '\0';
}

static void read_status(const char *root, struct rights *r)
{
	FILE *f = open_below(root, "/proc/self/status");
	unsigned long long caps;
	char line[LINE_BYTES];
	unsigned value;

	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Uid: %*u %u", &value) == 1)
			r->uid = value;
		else if (sscanf(line, "Gid: %*u %u", &value) == 1)
			r->gid = value;
		else if (sscanf(line, "CapEff: %llx", &caps) == 1)
			r->caps = caps;
		else if (sscanf(line, "Seccomp: %u", &value) == 1)
			r->filtered = value == 2;
	}
	fclose(f);
}

/* In the first namespace every number is itself. Returns our user's number outside. */
static unsigned read_uid_map(const char *root, struct rights *r)
{
	FILE *f = open_below(root, "/proc/self/uid_map");
	unsigned inner, outer, count, uid = r->uid;

	if (!f)
		return uid;
	while (fscanf(f, "%u %u %u", &inner, &outer, &count) == 3) {
		r->namespaced |= inner != 0 || outer != 0 || count != ALL_IDS;
		if (r->uid >= inner && r->uid - inner < count)
			uid = outer + (r->uid - inner);
	}
	fclose(f);
	return uid;
}

/* The names that this system knows are those of our own namespace. */
static void name_user(unsigned uid, struct rights *r)
{
	char buf[1024];
	struct passwd entry, *found = NULL;

	if (!r->namespaced && getpwuid_r(uid, &entry, buf, sizeof(buf), &found) == 0 && found)
		snprintf(r->user, sizeof(r->user), "%s", found->pw_name);
	else
		snprintf(r->user, sizeof(r->user), "%u", uid);
}

static bool ends_in(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);

	return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static void by_apparmor(const char *profile, struct rights *r)
{
	r->confined = !ends_in(profile, "(complain)") && !ends_in(profile, "unconfined") &&
		      !ends_in(profile, "(unconfined)");
	snprintf(r->module, sizeof(r->module), "AppArmor, as %.60s", profile);
}

/* "user:role:type:level"; AppArmor's words are one, or end in their mode: "name (enforce)". */
static bool is_selinux_label(const char *line)
{
	const char *colon = strchr(line, ':');

	return colon && colon != line && strchr(colon + 1, ':') && !ends_in(line, ")");
}

static void read_module(const char *root, struct rights *r)
{
	char line[LINE_BYTES], own[LINE_BYTES];
	long long enforcing = 0;

	read_line(root, "/proc/self/attr/current", line);
	if (rights_number(root, "/sys/fs/selinux/enforce", &enforcing)) {
		r->confined = enforcing != 0;
		snprintf(r->module, sizeof(r->module), "SELinux, %s, as %.60s",
			 enforcing ? "enforcing" : "permissive", *line ? line : "unlabelled");
		return;
	}
	/* attr/current is one module's of several; its own folder is AppArmor's alone. */
	read_line(root, "/proc/self/attr/apparmor/current", own);
	if (*own) {
		by_apparmor(own, r);
	} else if (is_selinux_label(line)) {
		/* Containers hide its file system. */
		r->confined = true;
		snprintf(r->module, sizeof(r->module), "SELinux, as %.60s", line);
	} else if (ends_in(line, ")") || strcmp(line, "unconfined") == 0) {
		by_apparmor(line, r);
	}
}

void rights_read(const char *root, struct rights *ret)
{
	memset(ret, 0, sizeof(*ret));
	read_status(root, ret);
	name_user(read_uid_map(root, ret), ret);
	read_module(root, ret);
}

bool rights_has(const struct rights *r, unsigned capability)
{
	return !r->namespaced && (r->caps >> capability & 1);
}
