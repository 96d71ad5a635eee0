/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel says about itself: interrupt counts, stuck tasks, complaints. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define INTERRUPTS_BYTES 65536
#define TASKS_MAX 4096
#define LOOKS 10
#define LOOK_PAUSE_MS 100

/* What the lab looks for in its own kernel's log (tools/lab), too. */
static const char *const complaints[] = {
	"WARNING: ", "BUG: ", "Oops", "Kernel panic", "Unable to handle kernel",
	"blocked for more than", "detected stalls", "detected expedited stalls",
	"self-detected stall", "soft lockup", "hard LOCKUP", "unchecked MSR access",
	"general protection fault", "Out of memory: Killed", "cut here",
};

/* ---- /proc/interrupts ---- */

bool row_read(const char *name, struct row *ret_row)
{
	static char text[INTERRUPTS_BYTES];
	char *line, *rest = text;
	size_t len = strlen(name);

	if (slurp("/proc/interrupts", text, sizeof(text)) < 0)
		return false;
	while ((line = strsep(&rest, "\n"))) {
		while (*line == ' ')
			line++;
		if (strncmp(line, name, len) != 0 || line[len] != ':')
			continue;
		*ret_row = (struct row){.cpus = 0};
		for (line += len + 1; ret_row->cpus < CPUS_MAX; ret_row->cpus++) {
			char *end;
			uint64_t count = strtoull(line, &end, 10);

			if (end == line || (*end && !isspace((unsigned char)*end)))
				break;
			ret_row->count[ret_row->cpus] = count;
			line = end;
		}
		return true;
	}
	return false;
}

uint64_t row_sum(const struct row *r)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < r->cpus; i++)
		sum += r->count[i];
	return sum;
}

const char *hyp_text(char *text, unsigned size)
{
	struct row r;
	int n;

	if (!row_read("HYP", &r))
		return "null";
	n = snprintf(text, size, "[");
	for (unsigned i = 0; i < r.cpus && n < (int)size; i++)
		n += snprintf(text + n, size - (unsigned)n, "%s%llu", i ? "," : "",
			      (unsigned long long)r.count[i]);
	if (n < (int)size)
		snprintf(text + n, size - (unsigned)n, "]");
	return text;
}

/* ---- tasks ---- */

/* The state letter of a task, 0 when it is gone; its name in `name`. */
static char task_state(const char *pid, char *name, unsigned size)
{
	char path[64], text[512];
	char *open, *close;

	snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
	if (slurp(path, text, sizeof(text)) <= 0)
		return 0;
	/* "12 (a name) S …": the name may hold anything, so the last parenthesis counts. */
	open = strchr(text, '(');
	close = strrchr(text, ')');
	if (!open || !close || close[1] != ' ')
		return 0;
	*close = 0;
	snprintf(name, size, "%s", open + 1);
	return close[2];
}

/* Crosses out of stuck[] who is not in state D now; how many tasks there are. */
static unsigned look(bool stuck[TASKS_MAX])
{
	DIR *proc = opendir("/proc");
	unsigned tasks = 0;
	bool seen[TASKS_MAX] = {false};
	struct dirent *entry;
	char name[64];

	while (proc && (entry = readdir(proc))) {
		unsigned long pid = strtoul(entry->d_name, NULL, 10);

		if (pid == 0 || pid >= TASKS_MAX)
			continue;
		tasks++;
		seen[pid] = task_state(entry->d_name, name, sizeof(name)) == 'D';
	}
	if (proc)
		closedir(proc);
	for (unsigned i = 0; i < TASKS_MAX; i++)
		stuck[i] = stuck[i] && seen[i];
	return tasks;
}

unsigned stuck_tasks(unsigned *ret_tasks)
{
	bool stuck[TASKS_MAX];
	unsigned n = 0;

	memset(stuck, true, sizeof(stuck));
	for (unsigned i = 0; i < LOOKS; i++) {
		struct timespec pause = {.tv_nsec = LOOK_PAUSE_MS * 1000000L};

		if (i)
			nanosleep(&pause, NULL);
		*ret_tasks = look(stuck);
	}
	for (unsigned i = 0; i < TASKS_MAX; i++) {
		char pid[16], name[64] = "";

		if (!stuck[i])
			continue;
		snprintf(pid, sizeof(pid), "%u", i);
		task_state(pid, name, sizeof(name));
		say("stuck: task %s (%s) is in uninterruptible sleep", pid, name);
		n++;
	}
	return n;
}

/* ---- the kernel's log ---- */

static bool is_complaint(const char *text)
{
	for (unsigned i = 0; i < sizeof(complaints) / sizeof(complaints[0]); i++)
		if (strstr(text, complaints[i]))
			return true;
	return false;
}

unsigned kernel_complaints(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	unsigned found = 0;
	char record[2048];
	ssize_t n;

	if (fd < 0) {
		say_failed("/dev/kmsg");
		return 1;
	}
	/* One record per read; EPIPE: some were overwritten before they were read. */
	while ((n = read(fd, record, sizeof(record) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		char *text, *end;

		if (n < 0)
			continue;
		record[n] = 0;
		text = strchr(record, ';');
		if (!text || !is_complaint(text))
			continue;
		end = strchr(text, '\n');
		if (end)
			*end = 0;
		say("complaint: %s", text + 1);
		found++;
	}
	close(fd);
	return found;
}
